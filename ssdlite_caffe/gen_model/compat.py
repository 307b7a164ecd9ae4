"""The nets of earlier public projects: how they differ from ours. Their caffemodels fit nets with these layers.

Sources: chuanqi305/MobileNetv2-SSDLite: ssdlite/gen_model.py, ssd/gen_model.py, and the prototxts in ssdlite/, ssd/,
coco/ and voc/. PINTO0309's fork of it: ssdlite/gen_model.py. chuanqi305/MobileNet-SSD: gen.py, deploy.prototxt,
train.prototxt, the prototxts in voc/, and those in template/, which its gen_model.sh fills.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

from ssdlite_caffe.errors import ArchError
from ssdlite_caffe.gen_model.arch import ArchSpec, CompatName, FamilyName, HeadKind, ScoreConverter
from ssdlite_caffe.gen_model.families import Body, Family, InvertedResidual, family

PIXEL_SCALE = 0.007843
"""Factor of the pixels in all of these nets, where ours have 1/127.5."""
TITLES: dict[FamilyName, tuple[str, str]] = {
    "v1": ("MobileNet-SSD", "MobileNet"),
    "v2": ("MobileNetv2-SSDLite", "MobileNetv2"),
}
"""Names of the detectors, with any predictors, and of the classifiers."""


@dataclass(frozen=True)
class Compat:
    """The nets of one project.

    Attributes:
        families: the families that it has, the default first.
        heads: the kinds of predictors that it has, the default first. The extra layers do not depend on them: they are
            separable in V2 and full in V1.
        score_converter: how class logits become scores.
        head_kernel: kernel of the predictors.
        epsilon: of BatchNorm layers.
        score_threshold: of deploy nets; test nets have 0.01.
        folded: whether the body's BatchNorms are folded unless the user asks for them.
        depthwise_v1: end of the names of V1's depthwise layers.
        class_layers: end of the class predictors' layer names. The blobs are without it, and so are those of nets with
            other classes, whose class predictors Caffe does not load then.
        biased: whether predictors and logits have a bias in nets that keep the body's BatchNorms.
        scaled_twice: whether the width multiplier is applied to the predictors' depthwise layers once more. With half
            the width they are grouped convolutions of two channels a group.
    """

    families: tuple[FamilyName, ...]
    heads: tuple[HeadKind, ...]
    score_converter: ScoreConverter = "sigmoid"
    head_kernel: int = 3
    epsilon: float = 1e-3
    score_threshold: float = 0.35
    folded: bool = False
    depthwise_v1: str = "depthwise"
    class_layers: str = ""
    biased: bool = True
    scaled_twice: bool = False


_MOBILENET_SSD = Compat(
    families=("v1",),
    heads=("ssd",),
    score_converter="softmax",
    head_kernel=1,
    epsilon=1e-5,
    score_threshold=0.25,
    depthwise_v1="dw",
)
COMPAT: dict[CompatName, Compat] = {
    "mobilenetv2-ssdlite": Compat(families=("v2", "v1"), heads=("ssdlite", "ssd"), scaled_twice=True),
    "mobilenetv2-ssdlite-pinto0309": Compat(families=("v2",), heads=("ssdlite",), folded=True, biased=False),
    "mobilenet-ssd": _MOBILENET_SSD,
    "mobilenet-ssd-template": replace(_MOBILENET_SSD, class_layers="_new"),
}


def compat_arch(arch: ArchSpec, name: CompatName) -> ArchSpec:
    """The ArchSpec of a net like `arch` in the project `name`: everything that is not an option there.

    Raises:
        ArchError: the project has no such family or predictors.
    """
    arch = replace(
        arch,
        compat=name,
        min_depth=1,
        extra_depthwise=arch.family == "v2",
        head_kernel=COMPAT[name].head_kernel,
        pixel_scale=PIXEL_SCALE,
    )
    project_of(arch)
    return arch


def project_of(arch: ArchSpec) -> Compat | None:
    """The project that `arch` names, if any.

    Raises:
        ArchError: the project has no such family or predictors.
    """
    if arch.compat is None:
        return None
    project = COMPAT[arch.compat]
    if arch.family not in project.families:
        raise ArchError(f"compat {arch.compat} has {' and '.join(project.families)} nets, got {arch.family}")
    if not arch.classifier and arch.head not in project.heads:
        raise ArchError(f"compat {arch.compat} has {' and '.join(project.heads)} predictors, got {arch.head}")
    return project


def family_of(arch: ArchSpec) -> Family:
    """The family's table, with the names and channel counts of the project that `arch` names, if any.

    Raises:
        ArchError: the project has no such nets.
    """
    project_of(arch)
    return family(arch.family) if arch.compat is None else _family(arch.compat, arch.family)


_HEAD_TITLES: dict[HeadKind, str] = {"ssdlite": "-SSDLite", "ssd": "-SSD", "fpnlite": "-FPNLite"}


def title(arch: ArchSpec) -> str:
    """The name of the net."""
    if project_of(arch):
        return TITLES[arch.family][arch.classifier]
    return family(arch.family).title + ("" if arch.classifier else _HEAD_TITLES[arch.head])


def class_layer(arch: ArchSpec, name: str) -> str:
    """The layer of a class predictor whose blob is `name`."""
    project = project_of(arch)
    return name if project is None else name + project.class_layers


def predictor_channels(arch: ArchSpec, channels: int, blob: str) -> int:
    """Channels of a predictor's depthwise layer on a feature map `blob` of `channels`.

    Raises:
        ArchError: the project's layer cannot be set up by any Caffe.
    """
    project = project_of(arch)
    if project is None or not project.scaled_twice:
        return channels
    groups = _whole(channels * arch.width_multiplier, 1)
    if channels % groups:
        others = ", or --compat mobilenetv2-ssdlite-pinto0309, which applies it once" if arch.family == "v2" else ""
        raise ArchError(
            f"width multiplier {arch.width_multiplier:g}: {arch.compat} applies it twice to the predictors' depthwise "
            f"layers, and Caffe cannot set up {groups} groups for the {channels} channels of {blob}; use 1, 0.5 or "
            f"0.25, or --type ssd{others}"
        )
    return groups


@functools.cache
def _family(compat: CompatName, name: FamilyName) -> Family:
    table = family(name)
    return replace(
        table,
        depth=_whole,
        detector=_body(table.detector),
        classifier=_body(table.classifier),
        depthwise_caffe=COMPAT[compat].depthwise_v1,
        scaled_extras=name == "v2",
        pooled=None,
    )


def _body(body: Body) -> Body:
    """The body with the inner channels of its blocks as numbers, which the width multiplier is then applied to."""
    blocks, channels = [], body.stem.out
    for row in body.blocks:
        if isinstance(row, InvertedResidual):
            row = replace(row, inner=int(channels * row.expansion))
        blocks.append(row)
        channels = row.out
    return replace(body, blocks=tuple(blocks))


def _whole(value: float, least: int) -> int:
    """`value` cut to a whole number.

    Raises:
        ArchError: it is below `least`.
    """
    if int(value) < least:
        raise ArchError("the width multiplier leaves a layer of the earlier project's net without channels")
    return int(value)
