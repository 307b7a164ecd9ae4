"""The reference decoder: from the outputs of a headless net to detections, in numpy.

It does what Caffe's DetectionOutput does, with TensorFlow's order of operations. Boxes are (xmin, ymin, xmax, ymax) as
fractions of the image, as in Caffe; TensorFlow's own order is (ymin, xmin, ymax, xmax).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.errors import TensorError
from ssdlite_caffe.gen_model.arch import ArchSpec, Nms
from ssdlite_caffe.runtimes.detections import Detections, IndexArray
from ssdlite_caffe.runtimes.resize import WHOLE, Window

Scores = Literal["sigmoid", "softmax", "identity"]

_BLOCK = 256
"""Number of candidates that are compared with each other in one step."""


def split_priors(priors: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Split the blob of Caffe's PriorBox layers into default boxes and variances.

    Args:
        priors: float32 (1, 2, N * 4) or (2, N * 4): corners, then variances.

    Returns:
        float32 (N, 4) default boxes xmin, ymin, xmax, ymax; float32 (N, 4) variances.

    Raises:
        TensorError: the shape is not one of these.
    """
    if priors.ndim < 2 or priors.shape[-2] != 2 or priors.size % 8 or priors.size != 2 * priors.shape[-1]:
        raise TensorError(f"default boxes must have PriorBox's shape (1, 2, N * 4), got {priors.shape}")
    corners, variances = priors.reshape(2, -1, 4)
    return corners, variances


def decode_boxes(
    loc: npt.NDArray[Any],
    priors: npt.NDArray[Any],
    variances: npt.NDArray[Any],
    dtype: Any = np.float32,
    limits: npt.NDArray[Any] | None = None,
) -> npt.NDArray[Any]:
    """Decode box encodings with the formulas of Caffe's CENTER_SIZE code type.

    centre = prior centre + variance * encoding * prior size; size = prior size * exp(variance * encoding).

    Args:
        loc: box encodings x, y, width, height: any shape with N * 4 values.
        priors: (N, 4) default boxes: xmin, ymin, xmax, ymax.
        variances: (4,) or (N, 4).
        dtype: in which it is computed, float32 or float64.
        limits: (N, 2), the most that variance * encoding of width and height may be; see `load.own_boxes.code_limits`.

    Returns:
        (N, 4): xmin, ymin, xmax, ymax, not clipped.

    Raises:
        TensorError: the numbers of box encodings and default boxes differ.

    Source: SSD branch of Caffe, bbox_util.cpp, DecodeBBox.
    """
    priors = np.asarray(priors, dtype)
    if priors.ndim != 2 or priors.shape[1] != 4 or loc.size != priors.size:
        raise TensorError(f"{loc.size} values of box encodings do not fit default boxes of the shape {priors.shape}")
    encodings = np.asarray(loc, dtype).reshape(-1, 4) * np.asarray(variances, dtype)
    size = priors[:, 2:] - priors[:, :2]
    centre = (priors[:, :2] + priors[:, 2:]) * np.float32(0.5)
    centre += encodings[:, :2] * size
    if limits is not None:
        encodings[:, 2:] = np.minimum(encodings[:, 2:], np.asarray(limits, dtype))
    with np.errstate(over="ignore"):
        half = np.exp(encodings[:, 2:]) * size * np.float32(0.5)
    return np.concatenate([centre - half, centre + half], axis=1)


def convert_scores(logits: npt.NDArray[Any], converter: Scores, dtype: Any = np.float32) -> npt.NDArray[Any]:
    """Convert class logits to scores along the last axis, in float32 or float64 and without overflow."""
    values = np.asarray(logits, dtype)
    if converter == "identity":
        return values
    if converter == "softmax":
        powers = np.exp(values - values.max(axis=-1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
    small = np.exp(-np.abs(values))
    return np.asarray(np.where(values >= 0, values.dtype.type(1), small) / (1 + small))


def overlap(one: npt.NDArray[Any], many: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Intersection over union of boxes (..., 4) with boxes (..., 4), broadcast; 0 where a box has no area.

    Computed in the boxes' dtype and TensorFlow's order of operations, so that float32 boxes compare with a threshold as
    they do there.
    Source: TensorFlow core/kernels/image/non_max_suppression_op.cc, IOU.
    """
    sides = np.minimum(one[..., 2:], many[..., 2:]) - np.maximum(one[..., :2], many[..., :2])
    sides = np.maximum(sides, np.float32(0))
    inside = sides[..., 0] * sides[..., 1]
    area, areas = _area(one), _area(many)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = inside / (area + areas - inside)
    return np.where((area > 0) & (areas > 0), ratio, np.float32(0))


def _area(boxes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.asarray((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]))


def clip_boxes(boxes: npt.NDArray[Any], window: Window = WHOLE) -> npt.NDArray[Any]:
    """Boxes (..., 4), as fractions of the network's input, clipped to the image in its `window`."""
    return np.asarray(np.clip(boxes, np.float32(0), _corners(window)))


def in_image(boxes: FloatArray, window: Window) -> FloatArray:
    """Boxes (..., 4), clipped to the `window`, as fractions of the image in it.

    Source: object_detection/core/box_list_ops.py, change_coordinate_frame.
    """
    return boxes if window == WHOLE else np.minimum(boxes * (np.float32(1) / _corners(window)), np.float32(1))


def _corners(window: Window) -> FloatArray:
    height, width = window
    return np.asarray([width, height, width, height], np.float32)


def choose_detections(
    boxes: FloatArray, scores: FloatArray, nms: Nms, *, clip: bool = True, window: Window = WHOLE
) -> Detections:
    """Non-maximum suppression of decoded boxes, as TensorFlow does it.

    1. Candidates are the scores above `nms.score_threshold`; with `nms.top_k` set, the best `top_k` of each class.
    2. In each class, by falling score, a box is kept unless its IoU with a kept box is above `iou_threshold`, until
       `max_per_class` are kept.
    3. Boxes are clipped to the image, and those without area in it are dropped; with `nms.clip_first` before step 1, or
       with `nms.keep_empty` clipped before and dropped after it.
    4. The best `max_total` of all classes are returned.

    Of equal scores the lower class comes first, then the lower index.

    Args:
        boxes: float32 (N, 4), decoded.
        scores: float32 (N, C); column 0 is background, which is never detected.
        nms: thresholds and counts.
        clip: whether step 3 is done; Caffe's DetectionOutput does not do it.
        window: where the image is in the network's input; boxes that are clipped become fractions of the image.

    Returns:
        Detections, best first.

    Raises:
        TensorError: the numbers of boxes and scores differ.

    Source: TensorFlow OD API, core/post_processing.py, multiclass_non_max_suppression.
    """
    if boxes.ndim != 2 or scores.ndim != 2 or boxes.shape != (len(scores), 4):
        raise TensorError(f"boxes of the shape {boxes.shape} do not fit scores of the shape {scores.shape}")
    counted = scores > np.float32(nms.score_threshold)
    counted[:, 0] = False
    clipped = clip_boxes(boxes, window) if clip else boxes
    inside = _area(clipped) > 0 if clip else np.ones(len(boxes), dtype=bool)
    if nms.clip_first:
        boxes = clipped
        if not nms.keep_empty:
            counted &= inside[:, None]

    # Transposed, so that the stable sort puts equal scores in the order of class, then index.
    classes, indices = np.nonzero(counted.T)
    order = np.argsort(-scores[indices, classes], kind="stable")
    if nms.top_k is not None:
        order = order[_rank(classes[order]) < nms.top_k]
    classes, indices = classes[order], indices[order]
    counts = np.ones(len(indices), bool) if nms.keep_empty else inside[indices]
    kept = _greedy(boxes[indices], classes, counts, nms)
    kept = kept[inside[indices[kept]]]
    classes, indices = classes[kept], indices[kept]
    found = in_image(clipped[indices], window) if clip else clipped[indices]
    return Detections(classes.astype(np.int64), scores[indices, classes], found)


def _rank(classes: npt.NDArray[np.integer[Any]]) -> IndexArray:
    """Rank of each candidate among those of its class, in the given order."""
    by_class = np.argsort(classes, kind="stable")
    _, first, lengths = np.unique(classes[by_class], return_index=True, return_counts=True)
    rank = np.empty(len(classes), np.intp)
    rank[by_class] = np.arange(len(classes)) - np.repeat(first, lengths)
    return rank


def _greedy(boxes: FloatArray, classes: IndexArray, counts: npt.NDArray[np.bool_], nms: Nms) -> IndexArray:
    """Suppress within each class, best candidate first, until `max_total` are found.

    All classes are processed together, which gives the same result as one class after the other and can stop early.

    Args:
        boxes: (M, 4) candidates of all classes, best first.
        classes: (M,).
        counts: (M,) whether a candidate can become a detection; one that cannot still suppresses others.
        nms: thresholds and counts.

    Returns:
        Indices of the detections.
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


def clip_detections(detections: Detections, window: Window = WHOLE, limits: Nms | None = None) -> Detections:
    """Detections with boxes clipped to the image, without those that have no area in it.

    Args:
        detections: with boxes as fractions of the network's input.
        window: where the image is in it.
        limits: whose `max_per_class` and `max_total` hold, of detections best first; None: those of the net alone.

    Returns:
        Boxes as fractions of the image.
    """
    clipped = clip_boxes(detections.boxes, window)
    found = Detections(detections.classes, detections.scores, in_image(clipped, window))
    kept = _area(clipped) > 0
    if limits is not None:
        kept &= _rank(detections.classes) < limits.max_per_class
    return found.select(np.flatnonzero(kept)[: None if limits is None else limits.max_total])


def detections_of(arch: ArchSpec, found: Detections, window: Window) -> Detections:
    """The detections of a deploy net in an image; see `clip_detections`. A letterbox's net leaves the limits to us."""
    return clip_detections(found, window, arch.nms if arch.resizer.letterboxes else None)


def decode(
    loc: FloatArray,
    conf: FloatArray,
    priors: FloatArray,
    nms: Nms,
    *,
    converter: Scores,
    clip: bool = True,
    window: Window = WHOLE,
    limits: npt.NDArray[Any] | None = None,
) -> Detections:
    """Decode the three outputs of a headless net for one image.

    Args:
        loc: mbox_loc, box encodings, any shape with N * 4 values.
        conf: mbox_conf, class logits, any shape with N * C values.
        priors: mbox_priorbox, (1, 2, N * 4).
        nms: thresholds and counts.
        converter: score converter, from logits to scores.
        clip: see `choose_detections`.
        window: see `choose_detections`.
        limits: see `decode_boxes`.

    Raises:
        TensorError: the sizes of the three do not fit together.
    """
    corners, variances = split_priors(priors)
    if not len(corners) or conf.size % len(corners):
        raise TensorError(f"{conf.size} class logits cannot be divided among {len(corners)} default boxes")
    scores = convert_scores(conf.reshape(len(corners), -1), converter)
    boxes = decode_boxes(loc, corners, variances, limits=limits)
    return choose_detections(boxes, scores, nms, clip=clip, window=window)


def parse_detection_out(rows: npt.NDArray[Any]) -> Detections:
    """Read the blob of Caffe's DetectionOutput for one image.

    Args:
        rows: any shape with M * 7 values: image, label, score, xmin, ymin, xmax, ymax. Without detections, Caffe
            returns one row of -1, and OpenCV no row or one that begins with 0.

    Returns:
        Detections, best first (Caffe groups them by class), not clipped.

    Raises:
        TensorError: the size is not a multiple of 7.
    """
    if rows.size % 7:
        raise TensorError(f"DetectionOutput must give 7 values for each detection, got the shape {rows.shape}")
    table = np.asarray(rows, np.float32).reshape(-1, 7)
    table = table[table[:, 1] > 0]
    table = table[np.argsort(-table[:, 2], kind="stable")]
    return Detections(table[:, 1].astype(np.int64), table[:, 2].copy(), table[:, 3:].copy())
