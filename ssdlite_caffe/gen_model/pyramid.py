"""FPNLite: a feature pyramid on MobileNetV2, and predictors behind a tower of convolutions that all maps share.

The last maps of the backbone are projected to one channel count. From the coarsest on, each is doubled in size, added
to the projection of the next finer one, and smoothed. Coarser maps follow from the coarsest projection by strides of 2.
The tower's kernels are the same for all maps; its BatchNorms are each map's own. Here every map has a copy of the
kernels.

Source: ssd_mobilenet_v2_fpn_keras_feature_extractor.py, KerasFpnTopDownFeatureMaps in feature_map_generators.py, and
WeightSharedConvolutionalBoxPredictor in convolutional_keras_box_predictor.py of the OD API.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from ssdlite_caffe.errors import ArchError
from ssdlite_caffe.gen_model.arch import Activation, ArchSpec, Pyramid
from ssdlite_caffe.gen_model.blocks import Chain, describe_conv
from ssdlite_caffe.gen_model.netdesc import AddDesc, ConvDesc, NodeDesc, Role, Section, UpsampleDesc

BACKBONE_LEVELS = (2, 3, 4, 5)
"""Levels that the backbone has, finest first; a map of level n is 2**n times smaller than the input."""
SOURCES = (2, 5, 12)
"""Blocks of MobileNetV2 whose output is a map of level 2, 3, 4; that of level 5 is Conv_1's."""
_FIRST_COARSE = 20
"""Number in the name of the first convolution behind the backbone's coarsest map, whatever its level."""


class Tap(NamedTuple):
    """A blob that predictors read."""

    blob: str
    channels: int
    size: tuple[int, int]


class Towers(NamedTuple):
    """The sections of a map's towers, and what its box predictor and its class predictor read."""

    sections: tuple[Section, ...]
    box: Tap
    classes: Tap


def pyramid_maps(chain: Chain, pyramid: Pyramid, sources: list[Tap]) -> list[Tap]:
    """Append the pyramid to a body.

    Args:
        chain: the body, whose last blob is the map of level 5.
        pyramid: what the pyramid has.
        sources: the backbone's maps of levels 2, 3 and 4.

    Returns:
        The pyramid's maps, finest first.

    Raises:
        ArchError: a map is not twice as large as the next one.
    """
    used = [*sources, Tap(chain.blob, chain.channels, chain.size)][-pyramid.backbone_maps :]
    levels = range(pyramid.min_level, pyramid.min_level + len(used))
    maps: list[Tap] = []
    for number, (level, source) in reversed(list(enumerate(zip(levels, used, strict=True), start=1))):
        maps.insert(0, _level(chain, pyramid, level, number, source, maps[0] if maps else None))
    top = maps[-1]
    for number in range(pyramid.coarse_maps):
        name, tf = f"fpn_{levels[-1] + 1 + number}", f"fpn/bottom_up_Conv2d_{_FIRST_COARSE + number}"
        nodes = _convs(chain.arch, pyramid, name, chain.scope(tf), top, stride=2)
        top = _tap(nodes[-1])
        chain.sections.append(Section(f"{name}: coarser map, stride 2", nodes))
        maps.append(top)
    return maps


def _level(chain: Chain, pyramid: Pyramid, level: int, number: int, source: Tap, coarser: Tap | None) -> Tap:
    """One map of the backbone in the pyramid; the coarsest is its projection alone."""
    arch, name = chain.arch, f"fpn_{level}"
    projection = describe_conv(
        arch,
        name if coarser is None else f"{name}/projection",
        chain.scope(f"fpn/projection_{number}"),
        "extra",
        bottom=source.blob,
        in_channels=source.channels,
        in_size=source.size,
        out=pyramid.channels,
        kernel=1,
        activation="none",
        batch_norm=False,
    )
    if coarser is None:
        chain.sections.append(Section(f"{name}: projection, which is linear", (projection,)))
        return _tap(projection)
    height, width = coarser.size
    if (2 * height, 2 * width) != source.size:
        raise ArchError(
            f"input size {arch.input_size[0]}x{arch.input_size[1]} does not fit a feature pyramid: its map of level "
            f"{level} is {source.size[0]}x{source.size[1]}, the next one {height}x{width}; use multiples of 32"
        )
    up = UpsampleDesc(f"{name}/up", coarser.blob, f"{name}/up", pyramid.channels, coarser.size)
    add = AddDesc(f"{name}/sum", (up.top, projection.top), f"{name}/sum", pyramid.channels, source.size)
    smoothed = Tap(add.top, pyramid.channels, source.size)
    convs = _convs(arch, pyramid, name, chain.scope(f"fpn/smoothing_{number}"), smoothed)
    nodes: tuple[NodeDesc, ...] = (projection, up, add, *convs)
    chain.sections.append(Section(f"{name}: projection, plus the coarser map doubled in size, smoothed", nodes))
    return _tap(convs[-1])


def _convs(
    arch: ArchSpec, pyramid: Pyramid, name: str, scope: str, read: Tap, *, stride: int = 1
) -> tuple[ConvDesc, ...]:
    """A 3x3 convolution of the pyramid, separable or full."""
    return separable(
        arch,
        name,
        scope,
        "extra",
        read,
        out=pyramid.channels,
        kernel=3,
        stride=stride,
        is_separable=pyramid.depthwise,
        activation=arch.extra_activation,
        batch_norm=pyramid.batch_norm,
        explicit=arch.explicit_padding,
    )


def separable(
    arch: ArchSpec,
    name: str,
    scope: str,
    role: Role,
    read: Tap,
    *,
    out: int,
    kernel: int,
    stride: int = 1,
    is_separable: bool,
    activation: Activation,
    batch_norm: bool,
    explicit: bool = False,
) -> tuple[ConvDesc, ...]:
    """Keras' SeparableConv2D: a depthwise convolution and a 1x1 one, with nothing between them; or a full Conv2D."""
    whole = describe_conv(
        arch,
        name,
        scope,
        role,
        bottom=read.blob,
        in_channels=read.channels,
        in_size=read.size,
        out=out,
        kernel=kernel,
        stride=stride,
        activation=activation,
        batch_norm=batch_norm,
        explicit=explicit,
    )
    if not is_separable:
        return (whole,)
    depthwise = replace(
        whole,
        name=f"{name}/depthwise",
        tf_scope=f"{scope}_depthwise",
        role="depthwise",
        num_output=read.channels,
        group=read.channels,
        batch_norm=False,
        plain=True,
        activation="none",
    )
    pointwise = describe_conv(
        arch,
        name,
        scope,
        role,
        bottom=depthwise.top,
        in_channels=read.channels,
        in_size=depthwise.out_size,
        out=out,
        kernel=1,
        activation=activation,
        batch_norm=batch_norm,
    )
    return depthwise, pointwise


def towers(arch: ArchSpec, pyramid: Pyramid, feature_map: Tap, index: int) -> Towers:
    """The convolutions between a map and its predictors."""
    if pyramid.shared_tower or not pyramid.tower_layers:
        sections, end = _tower(arch, pyramid, feature_map, index, "PredictionTower", "tower")
        return Towers(sections, end, end)
    box, box_end = _tower(arch, pyramid, feature_map, index, "BoxPredictionTower", "box_tower")
    classes, class_end = _tower(arch, pyramid, feature_map, index, "ClassPredictionTower", "class_tower")
    return Towers((*box, *classes), box_end, class_end)


def _tower(
    arch: ArchSpec, pyramid: Pyramid, read: Tap, index: int, tf: str, caffe: str
) -> tuple[tuple[Section, ...], Tap]:
    name, nodes = f"{read.blob}_{caffe}", []
    for number in range(pyramid.tower_layers):
        convs = separable(
            arch,
            f"{name}_{number}",
            f"BoxPredictor_{index}/{tf}/conv2d_{number}",
            "tower",
            read,
            out=pyramid.tower_channels,
            kernel=arch.head_kernel,
            is_separable=pyramid.predictor_depthwise,
            activation=arch.extra_activation,
            batch_norm=pyramid.tower_batch_norm,
        )
        nodes += [replace(conv, shares=f"{caffe}{conv.name.removeprefix(name)}") for conv in convs]
        read = _tap(nodes[-1])
    return ((Section(f"{name}: {pyramid.tower_layers} convolutions", tuple(nodes)),) if nodes else ()), read


def _tap(conv: ConvDesc) -> Tap:
    return Tap(conv.top, conv.num_output, conv.out_size)
