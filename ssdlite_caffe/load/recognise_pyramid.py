"""The feature pyramid of a dumped model, from its convolutions; and the grid of its default boxes."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.dump.model import ConvUnit, DumpedModel, Settings
from ssdlite_caffe.errors import ArchError, ModelError
from ssdlite_caffe.gen_model.arch import CellBoxes, Grid, Pyramid
from ssdlite_caffe.gen_model.default_boxes import cell_boxes_of_anchors, pyramid_boxes
from ssdlite_caffe.gen_model.netdesc import NetDesc

_PROJECTION = re.compile(r"/fpn/projection_(\d+)$")
_COARSE = re.compile(r"/fpn/bottom_up_Conv2d_\d+$")
_PART = re.compile(r"/fpn/(?:smoothing|bottom_up_Conv2d)_\d+$")
_TOWER = re.compile(r"^BoxPredictor_0/(Box|Class)?PredictionTower/conv2d_(\d+)$")
_IN_TOWER = re.compile(r"^BoxPredictor_\d+/(?:Box|Class)?PredictionTower/conv2d_\d+$")
_TOP = 5
"""The backbone's coarsest level."""


def pyramid_of(model: DumpedModel) -> Pyramid | None:
    """The feature pyramid of a model; None if it has none.

    Its levels are named as if the coarsest map of the backbone were of level 5: where a pipeline.config says otherwise
    (`max_level` below 5), the net is the same one.

    Raises:
        ModelError: it has more maps than a backbone of MobileNetV2.
    """
    units = {unit.scope: unit for unit in model.units}
    projections = [scope for scope in units if _PROJECTION.search(scope)]
    if not projections:
        return None
    if len(projections) > _TOP - 1:
        raise ModelError(f"{model.source} has a feature pyramid on {len(projections)} maps; MobileNetV2 has {_TOP - 1}")
    towers = [match for scope in units if (match := _TOWER.match(scope))]
    parts = [units[scope] for scope in units if _PART.search(scope)]
    first = next((units[match.group(0)] for match in towers), None)
    return Pyramid(
        min_level=_TOP + 1 - len(projections),
        max_level=_TOP + sum(_COARSE.search(scope) is not None for scope in units),
        channels=_outputs(model, units[projections[0]]),
        depthwise=any(f"{unit.scope}_depthwise" in units for unit in parts),
        batch_norm=not parts or _normed(parts[0]),
        tower_layers=1 + max((int(match.group(2)) for match in towers), default=-1),
        tower_channels=Pyramid.tower_channels if first is None else _outputs(model, first),
        shared_tower=not any(match.group(1) for match in towers),
        predictor_depthwise="BoxPredictor_0/BoxEncodingPredictor_depthwise" in units,
        tower_batch_norm=first is None or _normed(first),
    )


def pyramid_maps_of(pyramid: Pyramid) -> int:
    """How many maps predictors read."""
    return pyramid.backbone_maps + pyramid.coarse_maps


def cells_of_config(settings: Settings, net: NetDesc) -> tuple[CellBoxes, ...]:
    """The boxes of a cell of each map that a pipeline.config's anchor generator makes.

    Raises:
        ArchError: a number of the generator is out of range, or it has other levels than the net has maps.
    """
    anchors, size = settings.pyramid_anchors, net.arch.input_size
    if anchors is None:
        assert settings.anchors is not None, "there are no anchors at all"
        return cell_boxes_of_anchors(settings.anchors, size)
    maps = [feature_map.size for feature_map in net.feature_maps]
    if anchors.max_level - anchors.min_level + 1 != len(maps):
        raise ArchError(
            f"the multiscale_anchor_generator has levels {anchors.min_level} to {anchors.max_level}, the model has "
            f"{len(maps)} feature maps"
        )
    return pyramid_boxes(
        size,
        anchors.min_level,
        anchors.max_level,
        anchor_scale=anchors.anchor_scale,
        aspect_ratios=anchors.aspect_ratios,
        scales_per_octave=anchors.scales_per_octave,
        map_sizes=maps,
    )


def activated_in_pyramid(scope: str) -> bool:
    """Whether a convolution of a pyramid or a tower is followed by the activation."""
    return bool(_PART.search(scope) or _IN_TOWER.match(scope))


def _outputs(model: DumpedModel, unit: ConvUnit) -> int:
    return int(model.tensors[unit.tensors["weights"]].shape[3])


def _normed(unit: ConvUnit) -> bool:
    """Whether a convolution has a BatchNorm, in any form."""
    return "moving_mean" in unit.tensors or "scale" in unit.tensors


def grid_of(centres: npt.NDArray[np.float64], input_size: tuple[int, int], tolerance: float) -> Grid | None:
    """Where the boxes of a feature map are, if all of a cell are at one place and cells are equally far apart.

    Distances are whole pixels and halves where they are near them: boxes are float32 corners.

    Args:
        centres: (height, width, boxes, 2): y and x as fractions of the input.
        input_size: (height, width).
        tolerance: largest distance of a centre from its place, as a fraction of the input.

    Returns:
        None if they are elsewhere.
    """
    steps, firsts = [], []
    for axis, side in enumerate(input_size):
        along = centres[..., axis].mean(axis=(1 - axis, 2))
        count = len(along)
        step = _near_half((along[-1] - along[0]) / (count - 1) * side) / side if count > 1 else 1.0
        first = _near_half(along[0] * side) / side
        if step <= 0:
            return None
        places = (first + step * np.arange(count)).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        if np.abs(centres[..., axis] - places).max() > tolerance:
            return None
        steps.append(step)
        firsts.append(first)
    return (steps[0], steps[1]), (firsts[0], firsts[1])


def _near_half(pixels: float) -> float:
    half = round(2 * pixels) / 2
    return float(half if abs(pixels - half) < 1e-2 else pixels)
