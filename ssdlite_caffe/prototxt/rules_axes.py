"""Shapes of the layers that move values about: concatenation, cuts, and new axes for the same values."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from ssdlite_caffe.prototxt.rule import MANY, Layer, Outcome, Rule, need_axes
from ssdlite_caffe.prototxt.sizes import Shape, ShapeError, axis_index, reshape, show


def _concat(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    param = layer.concat_param
    axis = axis_index(param.concat_dim if param.HasField("concat_dim") else param.axis, len(bottoms[0]))
    rest = [(*shape[:axis], *shape[axis + 1 :]) for shape in bottoms]
    if any(other != rest[0] or len(shape) != len(bottoms[0]) for other, shape in zip(rest, bottoms, strict=True)):
        raise ShapeError(
            f"bottoms may differ in axis {axis} alone, along which they are concatenated, got "
            + ", ".join(show(shape) for shape in bottoms[:8])
        )
    joined = sum(shape[axis] for shape in bottoms)
    return Outcome(((*bottoms[0][:axis], joined, *bottoms[0][axis + 1 :]),))


def _slice(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    param, bottom = layer.slice_param, bottoms[0]
    axis = axis_index(param.slice_dim if param.HasField("slice_dim") else param.axis, len(bottom))
    size, tops = bottom[axis], len(layer.top)
    points = list(param.slice_point)
    if not points:
        if size % tops:
            raise ShapeError(f"axis {axis} of size {size} cannot be cut into {tops} equal tops; give slice_point")
        points = [size // tops * place for place in range(1, tops)]
    edges = [0, *points, size]
    if len(points) != tops - 1 or any(a >= b for a, b in itertools.pairwise(edges)):
        raise ShapeError(f"slice_point {points} does not cut axis {axis} of size {size} into {tops} tops")
    parts = [b - a for a, b in itertools.pairwise(edges)]
    return Outcome(tuple((*bottom[:axis], part, *bottom[axis + 1 :]) for part in parts))


def _crop(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    param, (bottom, like) = layer.crop_param, bottoms
    axis = axis_index(param.axis, len(bottom))
    cropped = len(bottom) - axis
    if len(like) != len(bottom):
        raise ShapeError(f"{show(bottom)} cannot be cropped to {show(like)}: they differ in their number of axes")
    if len(param.offset) > 1 and len(param.offset) != cropped:
        raise ShapeError(f"{len(param.offset)} offset are given for {cropped} cropped axes")
    offsets = list(param.offset) if len(param.offset) > 1 else list(param.offset or [0]) * cropped
    for place, offset in enumerate(offsets, axis):
        if bottom[place] - offset < like[place]:
            raise ShapeError(
                f"axis {place} of size {bottom[place]} cannot be cropped to {like[place]} from offset {offset} on"
            )
    return Outcome(((*bottom[:axis], *like[axis:]),))


def _pad(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    """Zeros (or repeated edges) around the last two axes; a layer of some forks."""
    param, bottom = layer.pad_param, bottoms[0]
    need_axes(bottom, 2, 4)
    height, width = bottom[-2] + param.pad_u + param.pad_d, bottom[-1] + param.pad_l + param.pad_r
    return Outcome(((*bottom[:-2], height, width),))


def _flatten(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    bottom = bottoms[0]
    start = axis_index(layer.flatten_param.axis, len(bottom))
    end = axis_index(layer.flatten_param.end_axis, len(bottom)) + 1
    if start > end:
        raise ShapeError(f"axis {start} must not be behind end_axis {end - 1}")
    return Outcome(((*bottom[:start], math.prod(bottom[start:end]), *bottom[end:]),))


def _reshape(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    param = layer.reshape_param
    return Outcome((reshape(bottoms[0], list(param.shape.dim), param.axis, param.num_axes),))


def _reduction(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    return Outcome((bottoms[0][: axis_index(layer.reduction_param.axis, len(bottoms[0]))],))


def _tile(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    param, bottom = layer.tile_param, bottoms[0]
    axis = axis_index(param.axis, len(bottom))
    return Outcome(((*bottom[:axis], bottom[axis] * param.tiles, *bottom[axis + 1 :]),))


def _arg_max(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    param, bottom = layer.argmax_param, bottoms[0]
    if param.HasField("axis"):
        axis = axis_index(param.axis, len(bottom))
        return Outcome(((*bottom[:axis], param.top_k, *bottom[axis + 1 :]),))
    pair = 2 if param.out_max_val else 1
    return Outcome(((bottom[0], pair, param.top_k, *(1,) * (len(bottom) - 3)),))


AXIS_RULES: dict[str, Rule] = {
    "Concat": Rule(_concat, (1, MANY)),
    "Slice": Rule(_slice, (1, 1), (1, MANY)),
    "Crop": Rule(_crop, (2, 2)),
    "Pad": Rule(_pad),
    "Flatten": Rule(_flatten),
    "Reshape": Rule(_reshape),
    "Reduction": Rule(_reduction),
    "Tile": Rule(_tile),
    "ArgMax": Rule(_arg_max),
}
