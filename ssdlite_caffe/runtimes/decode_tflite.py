"""TensorFlow Lite's operation TFLite_Detection_PostProcess in numpy, to compare with what a phone detects.

It differs from TensorFlow's post-processing: its fast NMS runs once over all boxes, with the best class of each; a
score equal to the threshold passes; boxes are not clipped.

Source: tensorflow/lite/kernels/detection_postprocess.cc.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump.model import TfliteNms
from ssdlite_caffe.errors import TensorError
from ssdlite_caffe.runtimes.decode import clip_boxes, in_image, overlap
from ssdlite_caffe.runtimes.detections import Detections, IndexArray
from ssdlite_caffe.runtimes.resize import WHOLE, Window


def decode_centres(encodings: FloatArray, anchors: FloatArray, scales: tuple[float, float, float, float]) -> FloatArray:
    """Decode box encodings with the operation's rounding.

    Centres and half sizes are computed in float64 and rounded once, corners in float32.

    Args:
        encodings: float32 (N, 4): ty, tx, th, tw.
        anchors: float32 (N, 4): y, x of the centre, height, width, as fractions of the image.
        scales: of the box coder: y, x, height, width.

    Returns:
        float32 (N, 4): xmin, ymin, xmax, ymax, not clipped.

    Raises:
        TensorError: the numbers of box encodings and anchors differ.

    Source: DecodeCenterSizeBoxes.
    """
    if encodings.ndim != 2 or encodings.shape != anchors.shape or encodings.shape[1] != 4:
        raise TensorError(
            f"box encodings of the shape {encodings.shape} do not fit anchors of the shape {anchors.shape}"
        )
    wide, anchor = encodings.astype(np.float64), anchors.astype(np.float64)
    factors = np.asarray(scales, np.float32).astype(np.float64)
    centres = (wide[:, :2] / factors[:2] * anchor[:, 2:] + anchor[:, :2]).astype(np.float32)
    with np.errstate(over="ignore"):
        half = (0.5 * np.exp(wide[:, 2:] / factors[2:]) * anchor[:, 2:]).astype(np.float32)
    low, high = centres - half, centres + half
    return np.stack([low[:, 1], low[:, 0], high[:, 1], high[:, 0]], axis=1)


def postprocess(boxes: FloatArray, scores: FloatArray, nms: TfliteNms) -> Detections:
    """The detections of the operation, in its order.

    Args:
        boxes: float32 (N, 4): xmin, ymin, xmax, ymax, decoded, not clipped.
        scores: float32 (N, C), after the score converter; column 0 is background.
        nms: the operation's options.

    Returns:
        Detections with boxes that may extend beyond the image; class ids count background as 0.

    Raises:
        TensorError: the numbers of boxes and scores differ.
    """
    if boxes.ndim != 2 or scores.ndim != 2 or boxes.shape != (len(scores), 4) or scores.shape[1] < 2:
        raise TensorError(f"boxes of the shape {boxes.shape} do not fit scores of the shape {scores.shape}")
    return (_regular if nms.regular else _fast)(boxes, scores[:, 1:], nms)


def _fast(boxes: FloatArray, scores: FloatArray, nms: TfliteNms) -> Detections:
    """NMS once over all boxes, by the score of their best class; each kept box is returned with its best classes.

    Of equal scores of one box the lower class comes first; in TensorFlow Lite their order is undefined.

    Source: NonMaxSuppressionMultiClassFastHelper.
    """
    best = scores.max(axis=1)
    kept = _suppress(boxes, best, nms, nms.max_detections)
    count = min(nms.max_classes_per_detection, scores.shape[1])
    classes = np.argsort(-scores[kept], axis=1, kind="stable")[:, :count]
    rows = np.repeat(kept, count)
    columns = classes.reshape(-1)
    return Detections(columns.astype(np.int64) + 1, scores[rows, columns], boxes[rows])


def _regular(boxes: FloatArray, scores: FloatArray, nms: TfliteNms) -> Detections:
    """NMS in each class, then the best detections of all classes.

    Source: NonMaxSuppressionMultiClassRegularHelper.
    """
    rows: list[IndexArray] = []
    columns: list[IndexArray] = []
    for column in range(scores.shape[1]):
        kept = _suppress(boxes, scores[:, column], nms, nms.detections_per_class)
        rows.append(kept)
        columns.append(np.full(len(kept), column, np.intp))
    row, col = np.concatenate(rows), np.concatenate(columns)
    order = np.argsort(-scores[row, col], kind="stable")[: nms.max_detections]
    row, col = row[order], col[order]
    return Detections(col.astype(np.int64) + 1, scores[row, col], boxes[row])


def _suppress(boxes: FloatArray, scores: FloatArray, nms: TfliteNms, most: int) -> IndexArray:
    """Indices of the kept boxes, best first; of equal scores the lower index.

    Source: NonMaxSuppressionSingleClassHelper.
    """
    candidates = np.flatnonzero(scores >= np.float32(nms.score_threshold))
    candidates = candidates[np.argsort(-scores[candidates], kind="stable")]
    alive = np.ones(len(candidates), np.bool_)
    limit = np.float32(nms.iou_threshold)
    kept: list[int] = []
    for place, index in enumerate(candidates.tolist()):
        if len(kept) == most:
            break
        if not alive[place]:
            continue
        kept.append(index)
        alive[place + 1 :] &= ~(overlap(boxes[index], boxes[candidates[place + 1 :]]) > limit)
    return np.asarray(kept, np.intp)


def clip_keeping_all(found: Detections, window: Window = WHOLE) -> Detections:
    """Detections with boxes clipped to the image; boxes without area in it are kept, as TensorFlow Lite does.

    Args:
        found: with boxes as fractions of the network's input.
        window: where the image is in it.

    Returns:
        Boxes as fractions of the image.
    """
    return Detections(found.classes, found.scores, in_image(clip_boxes(found.boxes, window), window))


def anchors_of(default_boxes: npt.NDArray[np.float32]) -> FloatArray:
    """Anchors (N, 4) y, x of the centre, height, width, from boxes ymin, xmin, ymax, xmax; float64, rounded once."""
    corners = default_boxes.astype(np.float64)
    sizes = corners[:, 2:] - corners[:, :2]
    return np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, sizes], axis=1).astype(np.float32)
