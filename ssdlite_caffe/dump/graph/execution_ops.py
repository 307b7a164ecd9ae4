"""Further TensorFlow ops in numpy, those of a detector's post-processing: scores, suppression, sorting, padding.

Source: the op definitions of tensorflow/core/ops/{nn,math,array,image}_ops.cc;
tensorflow/core/kernels/image/non_max_suppression_op.cc.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.dump.graph.constant_ops import OPS, NotConstantError, Op, Output, bounded
from ssdlite_caffe.dump.graph.tensor_lists import LIST_OPS
from ssdlite_caffe.dump.graph.tensors import Array
from ssdlite_caffe.dump.graph.view import Node

Indices = npt.NDArray[np.int32]


def sigmoid(values: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow."""
    small = np.exp(-np.abs(values))
    return np.asarray(np.where(values >= 0, values.dtype.type(1), small) / (1 + small), values.dtype)


def softmax(values: Array) -> Array:
    """Softmax along the last axis, without overflow."""
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), values.dtype)


class Corners(NamedTuple):
    """Boxes for comparison: their lower and higher corners (..., 2), and their areas (...)."""

    low: Array
    high: Array
    area: Array

    @classmethod
    def of(cls, boxes: Array) -> Corners:
        """Boxes (..., 4): two corners each, in any order."""
        low, high = (function(boxes[..., :2], boxes[..., 2:]) for function in (np.minimum, np.maximum))
        return cls(low, high, _product(high - low))

    def at(self, index: Any) -> Corners:
        """Those at an index of arrays."""
        return Corners(self.low[index], self.high[index], self.area[index])


def overlaps(one: Corners, other: Corners) -> Array:
    """Intersection over union; 0 without an area."""
    inside = _product(np.maximum(np.minimum(one.high, other.high) - np.maximum(one.low, other.low), 0))
    with np.errstate(all="ignore"):
        ratio = inside / (one.area + other.area - inside)
    return np.where((one.area > 0) & (other.area > 0), ratio, 0)


def _product(values: Array) -> Array:
    """Of the two values along the last axis."""
    return np.asarray(values[..., 0] * values[..., 1])


def suppress(boxes: Array, scores: Array, limit: int, iou_threshold: float) -> Indices:
    """Indices of the boxes that are kept, best first.

    Args:
        boxes: (N, 4), two corners each.
        scores: (N,).
        limit: most boxes.
        iou_threshold: a box that overlaps a better one by more is dropped.
    """
    if len(scores) < 2:
        return np.arange(min(len(scores), max(limit, 0)), dtype=np.int32)
    order = np.argsort(-scores, kind="stable")
    rest = Corners.of(boxes[order])
    kept: list[int] = []
    while len(order) and len(kept) < limit:
        kept.append(int(order[0]))
        if len(order) == 1:
            break
        best, rest, order = rest.at(0), rest.at(slice(1, None)), order[1:]
        apart = overlaps(best, rest) <= np.float32(iou_threshold)
        if not apart.all():
            rest, order = rest.at(apart), order[apart]
    return np.asarray(kept, np.int32)


def _number(value: Array) -> float:
    return float(value.reshape(()))


def _non_max_suppression(node: Node, args: list[Array]) -> Output:
    boxes, scores, limit = args[:3]
    if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.shape != boxes.shape[:1]:
        raise NotConstantError(f"boxes of the shape {boxes.shape} and scores of the shape {scores.shape}")
    if len(args) > 5 and _number(args[5]):
        raise NotConstantError("soft NMS")
    iou = _number(args[3]) if len(args) > 3 else node.attr_float("iou_threshold", 0.5)
    least = np.float32(_number(args[4]) if len(args) > 4 else -math.inf)
    above = np.flatnonzero(scores > least)
    kept = above[suppress(boxes[above], scores[above], int(_number(limit)), iou)].astype(np.int32)
    count = np.asarray(len(kept), np.int32)
    if node.op == "NonMaxSuppressionV5":
        if node.attr_bool("pad_to_max_output_size"):
            raise NotConstantError("padded NMS")
        return kept, scores[kept], count
    if node.op == "NonMaxSuppressionV4":
        if node.attr_bool("pad_to_max_output_size"):
            bounded(int(_number(limit)))
            kept = np.pad(kept, (0, int(_number(limit)) - len(kept)))
        return kept, count
    return kept


def _combined(node: Node, args: list[Array]) -> Output:
    """CombinedNonMaxSuppression: (boxes, scores, classes, number of valid ones) of each image."""
    boxes, scores = args[:2]
    if boxes.ndim != 4 or boxes.shape[3] != 4 or scores.ndim != 3 or boxes.shape[:2] != scores.shape[:2]:
        raise NotConstantError(f"boxes of the shape {boxes.shape} and scores of the shape {scores.shape}")
    each, total = int(_number(args[2])), int(_number(args[3]))
    iou, least = _number(args[4]), np.float32(_number(args[5]))
    classes = scores.shape[2]
    if boxes.shape[2] not in (1, classes) or each < 1 or total < 1:
        raise NotConstantError(f"boxes of the shape {boxes.shape}, limits {each} and {total}")
    rows = min(total, each * classes) if node.attr_bool("pad_per_class") else total
    bounded(len(boxes) * rows * 4)
    found_boxes = np.zeros((len(boxes), rows, 4), np.float32)
    found_scores, found_classes = (np.zeros((len(boxes), rows), np.float32) for _ in range(2))
    valid = np.zeros(len(boxes), np.int32)
    for image in range(len(boxes)):
        candidates: list[tuple[float, int, int]] = []
        for number in range(classes):
            column = scores[image, :, number]
            above = np.flatnonzero(column > least)
            own = boxes[image, :, number if boxes.shape[2] > 1 else 0]
            kept = above[suppress(own[above], column[above], each, iou)]
            candidates.extend((-float(column[index]), number, int(index)) for index in kept)
        for row, (score, number, index) in enumerate(sorted(candidates)[:rows]):
            found_boxes[image, row] = boxes[image, index, number if boxes.shape[2] > 1 else 0]
            found_scores[image, row], found_classes[image, row] = -score, number
            valid[image] = row + 1
    if node.attr_bool("clip_boxes", True):
        found_boxes = np.clip(found_boxes, np.float32(0), np.float32(1))
    return found_boxes, found_scores, found_classes, valid


def _top_k(node: Node, args: list[Array]) -> Output:
    values, count = args[0], int(_number(args[1]))
    if not 0 <= count <= values.shape[-1]:
        raise NotConstantError(f"the best {count} of {values.shape[-1]}")
    order = np.argsort(-values, axis=-1, kind="stable")[..., :count]
    return np.take_along_axis(values, order, axis=-1), order.astype(np.int32)


def _pad(node: Node, args: list[Array]) -> Output:
    value = args[0]
    paddings = [(int(first), int(last)) for first, last in args[1]]
    if any(min(pads) < 0 for pads in paddings):
        raise NotConstantError("a padding below 0")
    bounded(math.prod(size + sum(pads) for size, pads in zip(value.shape, paddings, strict=True)))
    return np.pad(value, paddings, constant_values=args[2].reshape(()) if len(args) > 2 else 0)


def _resize(node: Node, args: list[Array]) -> Output:
    """Zeros of the new size: for its shape, and not for its values."""
    images, size = args
    height, width = (int(number) for number in size.reshape(2))
    bounded(height * width * images.shape[0] * images.shape[3])
    return np.zeros((images.shape[0], height, width, images.shape[3]), np.float32)


def _clip(node: Node, args: list[Array]) -> Output:
    return np.clip(args[0], args[1], args[2])


def _gather(node: Node, args: list[Array]) -> Output:
    batch = node.attr_int("batch_dims")
    if not batch:
        return OPS[node.op](node, args)
    value, indices = args[:2]
    axis = int(_number(args[2]))
    if axis != batch or value.shape[:batch] != indices.shape[:batch]:
        raise NotConstantError(f"a gather along axis {axis} with {batch} axes of batches")
    if indices.size and (indices.min() < 0 or indices.max() >= value.shape[axis]):
        raise NotConstantError("a gather outside its input")
    places = np.indices(indices.shape)[:batch]
    return np.asarray(value[(*places, indices)])


def _gather_nd(node: Node, args: list[Array]) -> Output:
    value, indices = args
    return np.asarray(value[tuple(np.moveaxis(indices, -1, 0))])


POST_OPS: dict[str, Op] = {
    **OPS,
    **LIST_OPS,
    "Sigmoid": lambda node, args: sigmoid(args[0]),
    "Softmax": lambda node, args: softmax(args[0]),
    **dict.fromkeys((f"NonMaxSuppression{version}" for version in ("", "V2", "V3", "V4", "V5")), _non_max_suppression),
    "CombinedNonMaxSuppression": _combined,
    "TopKV2": _top_k,
    "Pad": _pad,
    "PadV2": _pad,
    "ClipByValue": _clip,
    "GatherV2": _gather,
    "GatherNd": _gather_nd,
    "Abs": lambda node, args: np.abs(args[0]),
    "Round": lambda node, args: np.rint(args[0]),
    **dict.fromkeys(("ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic", "ResizeArea"), _resize),
    **dict.fromkeys(("NextIteration", "LoopCond"), lambda node, args: args[0]),
}
"""Those of `constant_ops`, and what a detector's post-processing has."""
