"""Recognising the ArchSpec of a dumped model: family, width and head from its kernels, the rest from its settings.

Every family's net is built at every plausible width, until one has the model's convolutions, scope by scope and shape
by shape. Then strides, paddings, activations and default boxes are compared with it.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np

from ssdlite_caffe.dump.model import ConvUnit, DumpedModel, Settings
from ssdlite_caffe.errors import ModelError, TensorError
from ssdlite_caffe.gen_model.arch import (
    FAMILIES,
    Activation,
    ArchSpec,
    CellBoxes,
    FamilyName,
    HeadKind,
    Nms,
    Residuals,
    ScoreConverter,
)
from ssdlite_caffe.gen_model.build import build, default_arch
from ssdlite_caffe.gen_model.default_boxes import anchor_boxes, has_own_grid
from ssdlite_caffe.gen_model.families import family as family_table
from ssdlite_caffe.gen_model.netdesc import ConvDesc, NetDesc
from ssdlite_caffe.load.graph_check import check_graph, input_problems, padding_problems
from ssdlite_caffe.load.recognise_pyramid import (
    activated_in_pyramid,
    cells_of_config,
    grid_of,
    pyramid_maps_of,
    pyramid_of,
)
from ssdlite_caffe.load.units import unit_problems

COMMON_WIDTHS = (1.0, 0.75, 0.5, 0.35, 1.4, 1.3, 0.25)
CENTRE_TOLERANCE = 1e-5
"""Largest distance of a default box's centre from its cell's, as a fraction of the input; float32 corners give 1e-7."""
SIZE_TOLERANCE = 1e-5
"""Largest relative difference of a default box's size from cell to cell."""
_FARTHEST = 1e3
"""Largest coordinate of a default box, as a fraction of the input."""

_BACKBONES: dict[str, tuple[FamilyName, ...]] = {
    "FeatureExtractor/MobilenetV1/": ("v1",),
    "FeatureExtractor/MobilenetV2/": ("v2",),
    "FeatureExtractor/MobilenetV3/": ("v3-large", "v3-small", "v3-large-minimalistic", "v3-small-minimalistic"),
}
assert sorted(f for families in _BACKBONES.values() for f in families) == sorted(FAMILIES)


def recognise(model: DumpedModel) -> ArchSpec:
    """The ArchSpec of a dumped model.

    Raises:
        ModelError: no family fits, or the model differs from the family's net.
        TensorError: the tensors of its convolutions do not fit together; all are listed.
    """
    _check_settings(model.settings)
    if model.arch is not None:
        arch = ArchSpec.from_dict(model.arch)
        return arch if model.settings.resizer is None else dataclasses.replace(arch, resizer=model.settings.resizer)
    arch = _matching_arch(model)
    settings = model.settings
    if settings.unsupported:
        raise ModelError(f"{model.source} has what a Caffe net cannot do: {', '.join(settings.unsupported)}")
    mean, scale = _pixels(settings, arch)
    boxes, irregular = _cell_boxes(model, build(arch))
    arch = dataclasses.replace(
        arch,
        batch_norm_epsilon=_usual_epsilon(model, arch.batch_norm_epsilon),
        gate_scale=_gate_scale(model, arch.gate_scale),
        extra_activation=_extra_activation(model),
        residuals=_residuals(model, arch),
        explicit_padding=_padding_rule(model, arch),
        boxes=boxes,
        irregular_boxes=irregular,
        variances=_variances(model),
        score_converter=_score_converter(model),
        nms=_nms(settings, arch.nms),
        pixel_mean=mean,
        pixel_scale=scale,
        resizer=settings.resizer or arch.resizer,
        code_limit=settings.code_limit,
    )
    check_graph(model, build(arch))
    return arch


def _check_settings(settings: Settings) -> None:
    """Refuse factors that are 0, negative, NaN or Inf, with which all boxes or scores would be equal or NaN."""
    factors = (*(settings.box_coder_scales or ()), 1.0 if settings.logit_scale is None else settings.logit_scale)
    bad = [factor for factor in factors if not (math.isfinite(factor) and factor > 0)]
    if bad:
        raise ModelError(f"box-coder and logit scales must be positive, the model has {bad[0]}")
    if settings.pixel_scale is not None and not (math.isfinite(settings.pixel_scale) and settings.pixel_scale):
        raise ModelError(f"the factor for pixels must be a number other than 0, the model has {settings.pixel_scale}")


def unsaid(model: DumpedModel, what: str) -> ModelError:
    """The error for a model whose files do not have a setting that the net needs."""
    return ModelError(
        f"{model.source} does not say its {what}; give the pipeline.config that it was trained with, by "
        "--pipeline-config or in its folder (the model zoo's archives have it)"
    )


def _matching_arch(model: DumpedModel) -> ArchSpec:
    families = [
        f for prefix, names in _BACKBONES.items() if any(u.scope.startswith(prefix) for u in model.units) for f in names
    ]
    if not families:
        raise ModelError(f"{model.source} is not an SSD MobileNet: no FeatureExtractor/MobilenetV1, V2 or V3 in it")
    problems = [problem for unit in model.units for problem in unit_problems(model, unit)]
    if problems:
        raise TensorError(f"the weights of {model.source} do not fit together: " + "; ".join(problems))
    if model.settings.input_size is None:
        raise unsaid(model, "input size")
    shapes = {u.scope: _kernel_shape(model, u) for u in model.units}
    head, head_kernel = head_of(model)
    if pyramid_of(model) is not None:
        head = "fpnlite"
    nearest: list[str] = []
    for arch in candidates(model, families, head, head_kernel):
        differences = _differences(build(arch), shapes)
        if not differences:
            _compare_width(model, arch)
            return arch
        if not nearest or len(differences) < len(nearest):
            nearest, best = differences, arch
    raise ModelError(
        f"{model.source} is most like a {best.family} {best.head} of width multiplier {best.width_multiplier:g}, but "
        f"differs in {len(nearest)} convolutions: " + "; ".join(nearest[:4]) + ("; ..." if len(nearest) > 4 else "")
    )


def _compare_width(model: DumpedModel, arch: ArchSpec) -> None:
    """Refuse a checkpoint of TensorFlow 2 whose pipeline.config has another width.

    Raises:
        ModelError: no net of the pipeline.config's width multiplier has its kernels.
    """
    wanted = model.settings.depth_multiplier
    if not _is_keras_checkpoint(model) or wanted is None:
        return
    same = dataclasses.replace(arch, width_multiplier=round(wanted, 6))
    if {c.tf_scope: wanted_shape(c) for c in build(same).convolutions} != {
        c.tf_scope: wanted_shape(c) for c in build(arch).convolutions
    }:
        raise ModelError(
            f"{model.source} and its pipeline.config contradict each other: the checkpoint is of width multiplier "
            f"{arch.width_multiplier:g}, the pipeline.config's depth_multiplier is {wanted:g}; give the "
            "pipeline.config that it was trained with"
        )


def _is_keras_checkpoint(model: DumpedModel) -> bool:
    return model.form == "checkpoint" and (model.settings.feature_extractor_type or "").endswith("_keras")


def candidates(model: DumpedModel, families: list[FamilyName], head: HeadKind, head_kernel: int) -> Iterator[ArchSpec]:
    """The given families at every plausible width, usual widths first, with the model's class count and input size."""
    settings = model.settings
    hints = () if settings.depth_multiplier is None else (round(settings.depth_multiplier, 6),)  # a float32: 0.34999999
    scanned = tuple(round(step / 100, 2) for step in range(5, 201))
    pyramid = pyramid_of(model) if head == "fpnlite" else None
    depths = (16, 8, 1, 32) if settings.min_depth is None else (settings.min_depth,)
    widths = dict.fromkeys((*hints, *COMMON_WIDTHS, *scanned))
    rows = [row for row in itertools.product(widths, families, depths) if _stem_fits(model, *row)]
    for width, family, min_depth in rows or itertools.product(COMMON_WIDTHS, families, depths[:1]):
        arch = default_arch(
            family, settings.num_classes or 2, input_size=settings.input_size, head=head, width_multiplier=width
        )
        separable = (None,) if head == "fpnlite" else (None, head == "ssd")
        # Conv_1 of a wide net; that of others is the same in both.
        rules: tuple[Residuals, ...] = get_args(Residuals) if family == "v2" and width > 1 else ("tf1",)
        for extra_depthwise, full_tail, residuals in itertools.product(
            separable, (False, True)[: 1 + arch.is_v3], rules
        ):
            yield dataclasses.replace(
                arch,
                full_tail=full_tail,
                residuals=residuals,
                min_depth=min_depth,
                head_kernel=head_kernel,
                extra_depthwise=extra_depthwise,
                explicit_padding=_explicit_padding(model),
                boxes=_placeholder_boxes(model, len(arch.boxes) if pyramid is None else pyramid_maps_of(pyramid)),
                pyramid=pyramid,
            )


def _stem_fits(model: DumpedModel, width: float, family: FamilyName, min_depth: int) -> bool:
    """Whether the convolution that reads the image has as many outputs; this is quicker than building the net."""
    stems = (model.tensors[unit.tensors["weights"]].shape for unit in model.units if unit.kind == "conv")
    stem = next((shape for shape in stems if shape[2] == 3), None)
    table = family_table(family)
    return stem is None or stem[3] == table.depth(table.detector.stem.out * width, min_depth)


def _explicit_padding(model: DumpedModel) -> bool:
    """Whether the graph has explicit padding; for a checkpoint, whether its pipeline.config says so."""
    found = [unit.padding for unit in model.units if unit.padding is not None]
    return any(isinstance(padding, tuple) for padding in found) if found else bool(model.settings.explicit_padding)


def _placeholder_boxes(model: DumpedModel, maps: int) -> tuple[CellBoxes, ...]:
    """As many boxes per cell as the box predictors have; `_cell_boxes` finds their sizes when the maps are known."""
    counts = []
    for index in range(maps):
        unit = _unit(model, f"BoxPredictor_{index}/BoxEncodingPredictor")
        if unit is None:
            raise ModelError(
                f"{model.source} has no BoxPredictor_{index}/BoxEncodingPredictor; a detector has {maps} "
                "feature maps with one each"
            )
        counts.append(model.tensors[unit.tensors["weights"]].shape[3] // 4)
    return tuple(CellBoxes(((0.1, 0.1),) * count) for count in counts)


def head_of(model: DumpedModel) -> tuple[HeadKind, int]:
    """The kind of the heads and the size of their kernel, in pixels a side.

    Raises:
        ModelError: the model has no heads.
    """
    depthwise = _unit(model, "BoxPredictor_0/BoxEncodingPredictor_depthwise")
    unit = depthwise or _unit(model, "BoxPredictor_0/BoxEncodingPredictor")
    if unit is None:
        raise ModelError(
            f"{model.source} has a MobileNet, but no SSD head: BoxPredictor_0/BoxEncodingPredictor is not in it"
        )
    kernel = model.tensors[unit.tensors["weights"]].shape[0]
    return ("ssd" if depthwise is None else "ssdlite"), kernel


def _unit(model: DumpedModel, scope: str) -> ConvUnit | None:
    return next((u for u in model.units if u.scope == scope), None)


def _kernel_shape(model: DumpedModel, unit: ConvUnit) -> tuple[int, int, int, int]:
    height, width, inputs, last = model.tensors[unit.tensors["weights"]].shape
    return height, width, inputs, last


def wanted_shape(conv: ConvDesc) -> tuple[int, int, int, int]:
    """TensorFlow's shape: HWIO, or HWCM for a depthwise kernel."""
    height, width = conv.kernel
    if conv.role in ("depthwise", "head_depthwise") or conv.depthwise:
        return height, width, conv.in_channels, conv.num_output // conv.in_channels
    return height, width, conv.in_channels, conv.num_output


def _differences(net: NetDesc, shapes: dict[str, tuple[int, int, int, int]]) -> list[str]:
    wanted = {c.tf_scope: wanted_shape(c) for c in net.convolutions}
    missing = [f"{scope} is missing" for scope in wanted if scope not in shapes]
    extra = [f"{scope} {shapes[scope]} is not in the family" for scope in shapes if scope not in wanted]
    other = [
        f"{scope} is {shapes[scope]}, the family has {shape}"
        for scope, shape in wanted.items()
        if scope in shapes and shapes[scope] != shape
    ]
    return other + missing + extra


def _usual_epsilon(model: DumpedModel, default: float) -> float:
    epsilons = Counter(u.epsilon for u in model.units if u.epsilon is not None)
    return epsilons.most_common(1)[0][0] if epsilons else default


def _residuals(model: DumpedModel, arch: ArchSpec) -> Residuals:
    """The rule of residual sums that the model follows, or the nearest one, for which `check_graph` then raises."""
    if _is_keras_checkpoint(model):
        return "tf2"  # there is no graph that shows it
    return min(
        rules_of(arch),
        key=lambda rule: len(input_problems(model, build(dataclasses.replace(arch, residuals=rule)))),
    )


def rules_of(arch: ArchSpec) -> tuple[Residuals, ...]:
    """The rules of residual sums that models like `arch` may follow."""
    if arch.width_multiplier > 1:  # all sums are the same; the channels of Conv_1 have shown the rule
        return (arch.residuals,)
    return get_args(Residuals) if arch.family == "v2" else ("tf1",)


def _padding_rule(model: DumpedModel, arch: ArchSpec) -> bool:
    """Whether the backbone has explicit padding; not if its Pad ops write SAME padding, as Keras does."""
    if not arch.explicit_padding or not padding_problems(model, build(arch)):
        return arch.explicit_padding
    return bool(padding_problems(model, build(dataclasses.replace(arch, explicit_padding=False))))


def _gate_scale(model: DumpedModel, default: float) -> float:
    found = sorted({u.gate_scale for u in model.units if u.gate_scale is not None})
    if len(found) > 1:
        raise ModelError(f"{model.source} has squeeze-excite gates with different constants: {found}; one is supported")
    return found[0] if found else default


def _extra_activation(model: DumpedModel) -> Activation:
    """The activation of the extra layers and of the heads' depthwise part; relu6 if no file says it."""
    of_pyramid = pyramid_of(model) is not None
    found = {u.activation for u in model.units if u.activation is not None and _is_extra(u.scope, of_pyramid)}
    # V1's own blocks are named Conv2d_3_pointwise: without a prefix, so they do not match.
    if len(found) > 1:
        raise ModelError(
            f"{model.source} has different activations in its extra layers and heads: {', '.join(sorted(found))}; one "
            "is supported"
        )
    return found.pop() if found else model.settings.extra_activation or "relu6"


def _is_extra(scope: str, of_pyramid: bool) -> bool:
    """Whether a convolution has the activation of the extra layers and the heads' depthwise part."""
    if of_pyramid:
        return activated_in_pyramid(scope)
    return "Predictor_depthwise" in scope or "_Conv2d_" in scope


def _pixels(settings: Settings, default: ArchSpec) -> tuple[float, float]:
    """(mean, scale) with p * scale + offset = (p - mean) * scale; exactly those of 2/255 p - 1 if they are near it."""
    scale, offset = settings.pixel_scale, settings.pixel_offset
    if scale is None or offset is None:
        return default.pixel_mean, default.pixel_scale
    if np.isclose(scale, 2 / 255, rtol=1e-6) and offset == -1.0:
        return 127.5, 1 / 127.5
    return -offset / scale + 0.0, scale  # no -0.0


def _variances(model: DumpedModel) -> tuple[float, float, float, float]:
    settings = model.settings
    if settings.box_coder_scales is None:
        raise unsaid(model, "box coder's scales")
    y, x, h, w = settings.box_coder_scales
    return 1 / x, 1 / y, 1 / w, 1 / h


def _score_converter(model: DumpedModel) -> ScoreConverter:
    settings = model.settings
    if settings.score_converter == "identity":
        raise ModelError(
            "the model has no score converter (IDENTITY): its scores are raw logits, which DetectionOutput cannot use; "
            "export it with SIGMOID or SOFTMAX"
        )
    if settings.score_converter is None:
        raise unsaid(model, "score converter")
    return settings.score_converter


def _nms(settings: Settings, default: Nms) -> Nms:
    found: dict[str, Any] = {
        "iou_threshold": settings.iou_threshold,
        # TensorFlow's default, -inf, means no threshold.
        "score_threshold": None if settings.score_threshold == -math.inf else settings.score_threshold,
        "max_per_class": settings.max_per_class,
        "max_total": settings.max_total,
        "clip_first": settings.clip_first,
        "top_k": settings.max_candidates,
        "keep_empty": settings.keeps_empty or None,
    }
    return dataclasses.replace(default, **{k: v for k, v in found.items() if v is not None})


def _cell_boxes(model: DumpedModel, net: NetDesc) -> tuple[tuple[CellBoxes, ...], str]:
    """The default boxes of one cell of each map, found from the boxes of all cells, or from the pipeline.config.

    Returns:
        The boxes, and in which way those of all cells are not these on the centre of each cell, as a sentence; empty if
        they are.

    Raises:
        ModelError: the count of boxes is wrong, or they are no boxes.
    """
    settings = model.settings
    free = None if net.arch.pyramid is None else net.arch.input_size
    if settings.default_boxes is None:
        if settings.anchors is None and settings.pyramid_anchors is None:
            raise unsaid(model, "default boxes")
        cells = cells_of_config(settings, net)
        made, wanted = ([len(cell.sizes) for cell in listed] for listed in (cells, net.arch.boxes))
        if made != wanted:
            raise ModelError(
                f"the pipeline.config makes {made} default boxes per cell, the model's predictors need {wanted}"
            )
        if settings.anchors is None or not has_own_grid(settings.anchors):
            return cells, ""
        boxes = anchor_boxes(settings.anchors, [m.size for m in net.feature_maps], net.arch.input_size)
    else:
        boxes = settings.default_boxes.astype(np.float64)
    if len(boxes) != net.num_default_boxes:
        raise ModelError(f"the model has {len(boxes)} default boxes, its predictors need {net.num_default_boxes}")
    found, reasons, start = [], [], 0
    for feature_map in net.feature_maps:
        (height, width), count = feature_map.size, len(feature_map.tf_boxes)
        stop = start + height * width * count
        grid = boxes[start:stop].reshape(height, width, count, 4)
        cell, irregular = _cell(grid, feature_map.blob, settings.box_rounding, free)
        found.append(cell)
        reasons += [irregular] if irregular else []
        start = stop
    return tuple(found), reasons[0] if reasons else ""


def _cell(
    grid: np.ndarray, name: str, rounding: float, input_size: tuple[int, int] | None = None
) -> tuple[CellBoxes, str]:
    """The boxes of a cell, and in which way those of all cells are not these, as a sentence.

    Args:
        grid: float64 (height, width, boxes, 4), ymin, xmin, ymax, xmax.
        name: of the feature map, for messages.
        rounding: how far the file's number format may have moved the centres, which are assumed to be exact.
        input_size: of a net whose boxes may be on a grid of their own; None for others.
    """
    if not (np.abs(grid) <= _FARTHEST).all() or not (grid[..., 2:] > grid[..., :2]).all():
        raise ModelError(
            f"default boxes of {name} are not boxes: an edge is NaN or beyond {_FARTHEST:g} times the input, or a size "
            "is not positive"
        )
    height, width = grid.shape[:2]
    centres = (grid[..., :2] + grid[..., 2:]) / 2
    expected = np.stack(
        np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij"), -1
    )
    off = np.abs(centres - expected[:, :, None, :]).max()
    irregular, placed = "", None
    if not off <= CENTRE_TOLERANCE + rounding and input_size is not None:
        placed = grid_of(centres, input_size, CENTRE_TOLERANCE + rounding)
    if placed is None and not off <= CENTRE_TOLERANCE + rounding:
        irregular = f"default boxes of {name} are up to {off:.2g} of the input off the centres of their cells"
    sizes = grid[..., 2:] - grid[..., :2]
    ordered = np.sort(sizes.reshape(height * width, -1, 2), axis=0)
    # The median; np.median imports numpy's masked arrays, which takes longer than this whole function.
    typical = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    if not np.abs(sizes / typical - 1).max() <= SIZE_TOLERANCE:
        irregular = irregular or f"default boxes of {name} differ from cell to cell"
    return CellBoxes(tuple((float(h), float(w)) for h, w in typical), placed), irregular
