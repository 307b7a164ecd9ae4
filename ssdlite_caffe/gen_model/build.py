"""ArchSpec -> NetDesc: the body from the family's table, then extra layers and predictors, or a classifier's logits."""

from __future__ import annotations

from dataclasses import replace

from ssdlite_caffe.errors import ArchError
from ssdlite_caffe.gen_model.arch import ArchSpec, CellBoxes, FamilyName, HeadKind, Nms, Pyramid, ScoreConverter
from ssdlite_caffe.gen_model.blocks import Chain, describe_conv
from ssdlite_caffe.gen_model.compat import class_layer, family_of, predictor_channels, title
from ssdlite_caffe.gen_model.default_boxes import pyramid_boxes, ssd_boxes
from ssdlite_caffe.gen_model.families import InvertedResidual, family
from ssdlite_caffe.gen_model.netdesc import ConvDesc, FeatureMapDesc, GlobalPoolDesc, NetDesc, Role, Section
from ssdlite_caffe.gen_model.prior_boxes import prior_box_for
from ssdlite_caffe.gen_model.pyramid import SOURCES, Tap, pyramid_maps, separable, towers
from ssdlite_caffe.gen_model.rounding import truncate

EXTRA_DEPTHS = (512, 256, 256, 128)
"""Channels of feature maps 2..5 before the width multiplier: layer_depth in the OD API's feature extractors."""

_PYRAMID_SIDE = 320
NUM_MAPS = 2 + len(EXTRA_DEPTHS)
LEAST_INPUT = 33
"""Least height and width; the OD API's feature extractors reject smaller images (check_min_image_dim)."""


def build(arch: ArchSpec) -> NetDesc:
    """Decide every layer and number of a net.

    Raises:
        ArchError: the values of `arch` do not fit together, or the input is too small for the family.
    """
    return _classifier(arch) if arch.classifier else _detector(arch)


def default_arch(
    name: FamilyName,
    num_classes: int,
    *,
    input_size: tuple[int, int] | None = None,
    head: HeadKind = "ssdlite",
    width_multiplier: float = 1.0,
    classifier: bool = False,
    boxes: tuple[CellBoxes, ...] | None = None,
    score_converter: ScoreConverter = "sigmoid",
    nms: Nms | None = None,
) -> ArchSpec:
    """An ArchSpec with the model zoo's settings for everything that is not given.

    Detectors: 300x300 (V1, V2) or 320x320 (V3, FPNLite), min_depth 16, scales 0.2 to 0.95; FPNLite: levels 3 to 7, 128
    channels. Classifiers: 224x224, min_depth 8.

    Raises:
        ArchError: a value is out of range.
    """
    pyramid = None
    side = 224 if classifier else family(name).input_size
    if head == "fpnlite" and not classifier:
        pyramid, side = Pyramid(channels=truncate(Pyramid.channels * width_multiplier, 16)), _PYRAMID_SIDE
    size = input_size or (side, side)
    if boxes is None and not classifier:
        boxes = ssd_boxes(size) if pyramid is None else pyramid_boxes(size, pyramid.min_level, pyramid.max_level)
    return ArchSpec(
        family=name,
        num_classes=num_classes,
        input_size=size,
        head=head,
        width_multiplier=width_multiplier,
        min_depth=8 if classifier else 16,
        classifier=classifier,
        boxes=() if classifier else boxes or (),
        pyramid=pyramid,
        score_converter=score_converter,
        nms=nms or Nms(),
    )


def _detector(arch: ArchSpec) -> NetDesc:
    if min(arch.input_size) < LEAST_INPUT:
        raise ArchError(
            f"input size of a detector must be at least {LEAST_INPUT}x{LEAST_INPUT}, got "
            f"{arch.input_size[0]}x{arch.input_size[1]}"
        )
    maps = NUM_MAPS if arch.pyramid is None else arch.pyramid.backbone_maps + arch.pyramid.coarse_maps
    if len(arch.boxes) != maps:
        raise ArchError(f"a {arch.family} detector needs default boxes for {maps} feature maps, got {len(arch.boxes)}")
    if arch.pyramid is not None:
        return _fpnlite(arch, arch.pyramid)
    if arch.head_kernel < 1 or (arch.head == "ssdlite" and arch.head_kernel == 1):
        least = 2 if arch.head == "ssdlite" else 1
        raise ArchError(f"predictor kernel of {arch.head} heads must be at least {least}, got {arch.head_kernel}")
    chain, outputs = _body(arch)
    taps = [_first_map(chain, outputs), _tap(chain)]
    for index, depth in enumerate(EXTRA_DEPTHS, start=2):
        taps.append(_extra(chain, index, depth))
    return NetDesc(
        title(arch),
        arch,
        tuple(chain.sections),
        tuple(_feature_map(arch, tap, index) for index, tap in enumerate(taps)),
    )


def _fpnlite(arch: ArchSpec, pyramid: Pyramid) -> NetDesc:
    chain, outputs = _body(arch)
    taps = pyramid_maps(chain, pyramid, [outputs[number] for number in SOURCES])
    sections: list[Section] = []
    maps: list[FeatureMapDesc] = []
    for index, tap in enumerate(taps):
        tower = towers(arch, pyramid, tap, index)
        sections += tower.sections
        predictors = {
            kind: separable(
                arch,
                f"{tap.blob}_mbox_{kind}",
                f"BoxPredictor_{index}/{_PREDICTORS[kind][0]}",
                _PREDICTORS[kind][1],
                read,
                out=values * len(arch.boxes[index].sizes),
                kernel=arch.head_kernel,
                is_separable=pyramid.predictor_depthwise,
                activation="none",
                batch_norm=False,
            )
            for kind, read, values in (("loc", tower.box, 4), ("conf", tower.classes, arch.num_classes))
        }
        # The 1x1 convolutions differ from map to map by what is folded into them: see load/boxes.py.
        loc, conf = (
            (*(replace(c, shares=f"mbox_{kind}/depthwise") for c in convs[:-1]), convs[-1])
            for kind, convs in predictors.items()
        )
        maps.append(_described_map(arch, tap, index, loc, conf))
    return NetDesc(title(arch), arch, (*chain.sections, *sections), tuple(maps))


def _classifier(arch: ArchSpec) -> NetDesc:
    table = family_of(arch)
    if arch.boxes:
        raise ArchError("a classifier has no default boxes")
    if table.pooled and arch.input_size[0] != arch.input_size[1]:
        # Slim pools maps that are not square with a fixed 7x7 window, not over the whole map.
        raise ArchError(
            f"input size of a {arch.family} classifier must be square, got {arch.input_size[0]}x{arch.input_size[1]}"
        )
    chain, _ = _body(arch)
    chain.add(GlobalPoolDesc("pool", chain.blob, "pool", chain.channels, chain.size), chain.channels, (1, 1))
    if table.pooled:
        chain.conv_row(table.pooled, "last", narrow=False)
    chain.conv("fc", "Logits/Conv2d_1c_1x1", "classifier", out=arch.num_classes, activation="none", batch_norm=False)
    chain.end_section("classifier: mean over the map, then logits")
    return NetDesc(title(arch), arch, tuple(chain.sections), ())


def _body(arch: ArchSpec) -> tuple[Chain, list[Tap]]:
    """The backbone, and the output of each of its blocks."""
    table = family_of(arch)
    rows = table.classifier if arch.classifier or arch.full_tail else table.detector
    chain = Chain(arch, table)
    outputs: list[Tap] = []
    chain.conv_row(rows.stem, "stem")
    chain.end_section(f"{rows.stem.caffe}: stem, stride {rows.stem.stride}")
    for number, row in enumerate(rows.blocks):
        if isinstance(row, InvertedResidual):
            chain.inverted_residual(row, number)
        else:
            chain.separable(row, number + 1)
        outputs.append(_tap(chain))
    if rows.last is not None:
        # Not narrowed: slim's finegrain_classification_mode, which the public narrow classifiers have.
        full = arch.classifier and table.pooled is None and arch.compat is None
        chain.conv_row(rows.last, "last", narrow=not full, widen=arch.residuals == "tf1")
        chain.end_section(f"{rows.last.caffe}: last 1x1")
    return chain, outputs


def _first_map(chain: Chain, outputs: list[Tap]) -> Tap:
    """The first feature map of SSD: the expansion of an inverted residual, or a separable block's output."""
    number = chain.family.first_map
    node = chain.sections[number + 1].nodes[0]  # the stem's section is before those of the blocks
    if not isinstance(chain.family.detector.blocks[number], InvertedResidual):
        return outputs[number]
    assert isinstance(node, ConvDesc)
    return Tap(node.top, node.num_output, node.out_size)


def _tap(chain: Chain) -> Tap:
    return Tap(chain.blob, chain.channels, chain.size)


def _extra(chain: Chain, index: int, channels: int) -> Tap:
    """The two layers that lead to feature map `index`: 1x1, then 3x3 with stride 2.

    Source: multi_resolution_feature_maps in the OD API's feature_map_generators.py; scopes contain the final depth.
    """
    arch, table = chain.arch, chain.family
    multiplier, least = arch.width_multiplier if table.scaled_extras else 1.0, arch.min_depth
    half, full = truncate(channels // 2 * multiplier, least), truncate(channels * multiplier, least)
    names = [table.extra_caffe.format(part=part, index=index, number=index + 12) for part in (1, 2)]
    activation = arch.extra_activation
    squeeze_tf = f"{table.extra_tf}_1_Conv2d_{index}_1x1_{half}"
    stride_tf = f"{table.extra_tf}_2_Conv2d_{index}_3x3_s2_{full}"
    chain.conv(names[0], squeeze_tf, "extra", out=half, activation=activation)
    if arch.separable_extras:
        chain.conv(
            f"{names[1]}/depthwise", f"{stride_tf}_depthwise", "extra", kernel=3, stride=2, activation=activation
        )
        chain.conv(names[1], stride_tf, "extra", out=full, activation=activation)
    else:
        chain.conv(names[1], stride_tf, "extra", out=full, kernel=3, stride=2, activation=activation)
    chain.end_section(f"{names[1]}: extra layer")
    return _tap(chain)


def _feature_map(arch: ArchSpec, tap: Tap, index: int) -> FeatureMapDesc:
    boxes = len(arch.boxes[index].sizes)
    loc = _predictor(arch, tap, index, "loc", 4 * boxes)
    return _described_map(arch, tap, index, loc, _predictor(arch, tap, index, "conf", arch.num_classes * boxes))


def _described_map(
    arch: ArchSpec, tap: Tap, index: int, loc: tuple[ConvDesc, ...], conf: tuple[ConvDesc, ...]
) -> FeatureMapDesc:
    return FeatureMapDesc(
        blob=tap.blob,
        index=index,
        channels=tap.channels,
        size=tap.size,
        tf_boxes=arch.boxes[index].sizes,
        prior=prior_box_for(arch.boxes[index], arch.input_size, arch.variances),
        loc=loc,
        conf=conf,
        grid=arch.boxes[index].grid,
    )


_PREDICTORS: dict[str, tuple[str, Role]] = {
    "loc": ("BoxEncodingPredictor", "box_predictor"),
    "conf": ("ClassPredictor", "class_predictor"),
}


def _predictor(arch: ArchSpec, tap: Tap, index: int, kind: str, out: int) -> tuple[ConvDesc, ...]:
    """One head of one map. Source: box_head.py and class_head.py in the OD API's predictors/heads: always SAME."""
    tf, role = _PREDICTORS[kind]
    name, scope = f"{tap.blob}_mbox_{kind}", f"BoxPredictor_{index}/{tf}"
    whole = describe_conv(
        arch,
        name,
        scope,
        role,
        bottom=tap.blob,
        in_channels=tap.channels,
        in_size=tap.size,
        out=out,
        kernel=arch.head_kernel,
        activation="none",
        batch_norm=False,
    )
    if arch.head == "ssd":
        layer = class_layer(arch, name) if role == "class_predictor" else name
        return (whole if layer == name else replace(whole, name=layer, blob=name),)
    channels = predictor_channels(arch, tap.channels, tap.blob)
    depthwise = replace(
        whole,
        name=f"{name}/depthwise",
        tf_scope=f"{scope}_depthwise",
        role="head_depthwise",
        num_output=channels,
        group=channels,
        batch_norm=True,
        activation=arch.extra_activation,
    )
    pointwise = describe_conv(
        arch,
        name,
        scope,
        role,
        bottom=depthwise.top,
        in_channels=channels,
        in_size=tap.size,
        out=out,
        kernel=1,
        activation="none",
        batch_norm=False,
    )
    return (depthwise, pointwise)
