"""The reference decoder: from a headless net's outputs to detections, in numpy alone.

It does what Caffe's DetectionOutput does, in TensorFlow's order. Boxes are (xmin, ymin, xmax, ymax) as fractions of
the image, as in Caffe; TensorFlow's own order is (ymin, xmin, ymax, xmax).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.errors import TensorError
from ssdlite_caffe.gen_model.arch import Nms
from ssdlite_caffe.runtimes.detections import Detections, IndexArray

Scores = Literal["sigmoid", "softmax", "identity"]

_BLOCK = 256
"""Candidates compared with each other in one step."""


def split_priors(priors: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Take apart the blob of Caffe's PriorBox layers.

    Args:
        priors: float32 (1, 2, N * 4) or (2, N * 4): corners, then variances.

    Returns:
        float32 (N, 4) default boxes xmin, ymin, xmax, ymax; float32 (N, 4) variances.

    Raises:
        TensorError: another shape.
    """
    if priors.ndim < 2 or priors.shape[-2] != 2 or priors.size % 8 or priors.size != 2 * priors.shape[-1]:
        raise TensorError(f"default boxes have the shape {priors.shape}; PriorBox gives (1, 2, N * 4)")
    corners, variances = priors.reshape(2, -1, 4)
    return corners, variances


def decode_boxes(loc: npt.NDArray[Any], priors: npt.NDArray[Any], variances: npt.NDArray[Any]) -> FloatArray:
    """Turn box codes into boxes, with the formulas of Caffe's CENTER_SIZE code type in float32.

    centre = prior centre + variance * code * prior size; size = prior size * exp(variance * code).

    Args:
        loc: box codes x, y, width, height: any shape with N * 4 values.
        priors: (N, 4) default boxes: xmin, ymin, xmax, ymax.
        variances: (4,) or (N, 4).

    Returns:
        float32 (N, 4): xmin, ymin, xmax, ymax, not clipped.

    Raises:
        TensorError: the counts of codes and default boxes differ.

    Source: SSD branch of Caffe, bbox_util.cpp, DecodeBBox.
    """
    priors = np.asarray(priors, np.float32)
    if priors.ndim != 2 or priors.shape[1] != 4 or loc.size != priors.size:
        raise TensorError(f"{loc.size} box codes do not fit default boxes of the shape {priors.shape}")
    codes = np.asarray(loc, np.float32).reshape(-1, 4) * np.asarray(variances, np.float32)
    size = priors[:, 2:] - priors[:, :2]
    centre = (priors[:, :2] + priors[:, 2:]) * np.float32(0.5)
    centre += codes[:, :2] * size
    with np.errstate(over="ignore"):
        half = np.exp(codes[:, 2:]) * size * np.float32(0.5)
    return np.concatenate([centre - half, centre + half], axis=1)


def convert_scores(logits: npt.NDArray[Any], converter: Scores) -> FloatArray:
    """Turn class logits into scores along the last axis, without overflow, in float32."""
    values = np.asarray(logits, np.float32)
    if converter == "identity":
        return values
    if converter == "softmax":
        powers = np.exp(values - values.max(axis=-1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float32)
    small = np.exp(-np.abs(values))
    return np.asarray(np.where(values >= 0, np.float32(1), small) / (1 + small), np.float32)


def overlap(one: FloatArray, many: FloatArray) -> FloatArray:
    """Intersection over union of boxes (..., 4) with boxes (..., 4), broadcast; 0 where a box has no area.

    float32 in TensorFlow's order of operations, so that comparisons with a threshold fall alike.
    Source: TensorFlow core/kernels/image/non_max_suppression_op.cc, IOU.
    """
    sides = np.minimum(one[..., 2:], many[..., 2:]) - np.maximum(one[..., :2], many[..., :2])
    sides = np.maximum(sides, np.float32(0))
    inside = sides[..., 0] * sides[..., 1]
    area, areas = _area(one), _area(many)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = inside / (area + areas - inside)
    return np.where((area > 0) & (areas > 0), ratio, np.float32(0))


def _area(boxes: FloatArray) -> FloatArray:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def clip_boxes(boxes: FloatArray) -> FloatArray:
    """Boxes (..., 4) cut at the image's edges."""
    return np.clip(boxes, np.float32(0), np.float32(1))


def choose_detections(boxes: FloatArray, scores: FloatArray, nms: Nms, *, clip: bool = True) -> Detections:
    """Choose the detections among all decoded boxes, as TensorFlow does.

    Scores above `nms.score_threshold` count. In each class, from the best score down, a box stays unless it overlaps
    one that stayed by more than `iou_threshold`, until there are `max_per_class`. Boxes are clipped and those with no
    area in the image dropped, after that or (`nms.clip_first`) before. The best `max_total` of all classes stay. Of
    equal scores the lower class comes first, then the lower index. Caffe's `top_k`, if set, leaves each class only
    its best so many candidates.

    Args:
        boxes: float32 (N, 4), decoded.
        scores: float32 (N, C); column 0 is background and never detected.
        nms: thresholds and counts.
        clip: clip to the image at all; Caffe's DetectionOutput does not.

    Returns:
        Detections, best first.

    Raises:
        TensorError: the counts of boxes and scores differ.

    Source: TensorFlow OD API, core/post_processing.py, multiclass_non_max_suppression.
    """
    if boxes.ndim != 2 or scores.ndim != 2 or boxes.shape != (len(scores), 4):
        raise TensorError(f"boxes of the shape {boxes.shape} do not fit scores of the shape {scores.shape}")
    counted = scores > np.float32(nms.score_threshold)
    counted[:, 0] = False
    clipped = clip_boxes(boxes) if clip else boxes
    inside = _area(clipped) > 0 if clip else np.ones(len(boxes), dtype=bool)
    if nms.clip_first:
        boxes = clipped
        counted &= inside[:, None]

    # Class by class in the array, so that a stable sort gives equal scores in the order of class, then index.
    classes, indices = np.nonzero(counted.T)
    order = np.argsort(-scores[indices, classes], kind="stable")
    if nms.top_k is not None:
        order = order[_rank(classes[order]) < nms.top_k]
    classes, indices = classes[order], indices[order]
    kept = _greedy(boxes[indices], classes, inside[indices], nms)
    classes, indices = classes[kept], indices[kept]
    return Detections(classes.astype(np.int64), scores[indices, classes], clipped[indices])


def _rank(classes: IndexArray) -> IndexArray:
    """Position of each candidate among those of its class, in the order given."""
    by_class = np.argsort(classes, kind="stable")
    _, first, lengths = np.unique(classes[by_class], return_index=True, return_counts=True)
    rank = np.empty(len(classes), np.intp)
    rank[by_class] = np.arange(len(classes)) - np.repeat(first, lengths)
    return rank


def _greedy(boxes: FloatArray, classes: IndexArray, counts: npt.NDArray[np.bool_], nms: Nms) -> IndexArray:
    """Suppress within each class, best candidate first, until `max_total` are found.

    To go through all classes at once gives what class after class gives, and stops early.

    Args:
        boxes: (M, 4) candidates of all classes, best first.
        classes: (M,).
        counts: (M,) whether a candidate can be a detection; one that cannot still suppresses others.
        nms: thresholds and counts.

    Returns:
        Positions of the detections.
    """
    limit = np.float32(nms.iou_threshold)
    per_class = np.zeros(int(classes.max(initial=0)) + 1, np.intp)
    kept: list[list[int]] = [[] for _ in per_class]
    found: list[int] = []
    for start in range(0, len(boxes), _BLOCK):
        box, number = boxes[start : start + _BLOCK], classes[start : start + _BLOCK]
        alive = per_class[number] < nms.max_per_class
        for one in np.unique(number[alive]).tolist():
            rows = np.flatnonzero(number == one)
            alive[rows] &= ~(overlap(box[rows, None], boxes[kept[one]]) > limit).any(axis=1)
        within = (number[:, None] == number) & (overlap(box[:, None], box) > limit)
        for row in np.flatnonzero(alive).tolist():
            one = int(number[row])
            if not alive[row] or per_class[one] == nms.max_per_class:
                continue
            if len(found) == nms.max_total:
                return np.asarray(found, np.intp)
            alive &= ~within[row]
            per_class[one] += 1
            kept[one].append(start + row)
            if counts[start + row]:
                found.append(start + row)
    return np.asarray(found, np.intp)


def clip_detections(detections: Detections) -> Detections:
    """Detections with boxes cut at the image's edges, without those that have no area there."""
    clipped = Detections(detections.classes, detections.scores, clip_boxes(detections.boxes))
    return clipped.select(np.flatnonzero(_area(clipped.boxes) > 0))


def decode(
    loc: FloatArray, conf: FloatArray, priors: FloatArray, nms: Nms, *, converter: Scores, clip: bool = True
) -> Detections:
    """Decode the three outputs of a headless net for one image.

    Args:
        loc: mbox_loc, N * 4 box codes in any shape.
        conf: mbox_conf, N * C class logits in any shape.
        priors: mbox_priorbox, (1, 2, N * 4).
        nms: thresholds and counts.
        converter: what makes scores of logits.
        clip: see `choose_detections`.

    Raises:
        TensorError: the three do not fit together.
    """
    corners, variances = split_priors(priors)
    if not len(corners) or conf.size % len(corners):
        raise TensorError(f"{conf.size} class logits cannot be shared out among {len(corners)} default boxes")
    scores = convert_scores(conf.reshape(len(corners), -1), converter)
    return choose_detections(decode_boxes(loc, corners, variances), scores, nms, clip=clip)


def parse_detection_out(rows: npt.NDArray[Any]) -> Detections:
    """Read the blob of Caffe's DetectionOutput for one image.

    Args:
        rows: any shape with M * 7 values: image, label, score, xmin, ymin, xmax, ymax. Caffe writes an empty
            result as one row of -1, OpenCV as one row that begins with 0 or as none.

    Returns:
        Detections, best first (Caffe groups them by class), not clipped.

    Raises:
        TensorError: the size is not a multiple of 7.
    """
    if rows.size % 7:
        raise TensorError(f"DetectionOutput gave the shape {rows.shape}, which is not rows of 7 numbers")
    table = np.asarray(rows, np.float32).reshape(-1, 7)
    table = table[table[:, 1] > 0]
    table = table[np.argsort(-table[:, 2], kind="stable")]
    return Detections(table[:, 1].astype(np.int64), table[:, 2].copy(), table[:, 3:].copy())
