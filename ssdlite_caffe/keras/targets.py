"""What each default box should predict: SSD's matching and box encodings.

Boxes are ymin, xmin, ymax, xmax as fractions of the image. This module imports TensorFlow, so import it only after
`import_keras`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

THRESHOLD = 0.5
_LEAST_SIDE = 1e-8


class Targets(NamedTuple):
    """Targets of N default boxes, in the predictors' order.

    Attributes:
        encodings: float32 (N, 4), ty, tx, th, tw; 0 for a default box without an object.
        labels: int32 (N,), class ids; 0 for background.
        weights: float32 (N,); 0 for default boxes that count neither as an object nor as background, 1 for the others.
    """

    encodings: Any
    labels: Any
    weights: Any


def overlaps(one: Any, other: Any) -> Any:
    """Intersection over union of (M, 4) and (N, 4) boxes, as (M, N); 0 where a union has no area."""
    low = tf.maximum(one[:, None, :2], other[None, :, :2])
    high = tf.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = tf.reduce_prod(tf.maximum(high - low, 0.0), -1)
    union = _areas(one)[:, None] + _areas(other)[None] - shared
    return tf.math.divide_no_nan(shared, union)


def _areas(boxes: Any) -> Any:
    return tf.reduce_prod(tf.maximum(boxes[:, 2:] - boxes[:, :2], 0.0), -1)


def match(similarity: Any, ignored: Any, threshold: float = THRESHOLD) -> tuple[Any, Any]:
    """Match default boxes with objects.

    First, each default box is matched with the object of the highest IoU, if that is `threshold` or more. Then each
    object is matched with the default box of the highest IoU, which loses any earlier match. Of equal IoUs the first
    counts.

    Args:
        similarity: float (M, N), IoU of each object and default box.
        ignored: bool (M,), objects that count neither as objects nor as background.
        threshold: least IoU of a match.

    Returns:
        int32 (N,): index of the object, or -1; and bool (N,): whether the default box counts in the loss. One without
        an object whose IoU with an ignored object is `threshold` or more does not.

    Source: ArgMaxMatcher of the TensorFlow OD API, matched and unmatched threshold equal, force_match_for_each_row.
    """
    wanted = tf.where(ignored[:, None], -1.0, similarity)
    # A padding row without overlap, so that the reductions also work without objects.
    rows = tf.pad(wanted, [[0, 1], [0, 0]], constant_values=-1.0)
    best = tf.argmax(rows, 0, tf.int32)
    matched = tf.where(tf.reduce_max(rows, 0) >= threshold, best, -1)
    count = tf.shape(similarity)[1]
    claims = tf.one_hot(tf.argmax(wanted, 1, tf.int32), count) * tf.cast(~ignored, tf.float32)[:, None]
    claims = tf.pad(claims, [[0, 1], [0, 0]])
    claimed = tf.reduce_max(claims, 0) > 0.0
    matched = tf.where(claimed, tf.argmax(claims, 0, tf.int32), matched)
    unwanted = tf.pad(tf.where(ignored[:, None], similarity, -1.0), [[0, 1], [0, 0]], constant_values=-1.0)
    return matched, (matched >= 0) | (tf.reduce_max(unwanted, 0) < threshold)


def encode(boxes: Any, defaults: Any, variances: tuple[float, float, float, float]) -> Any:
    """Encode boxes: ty = (y - Y) / H / v, th = ln(h / H) / v, likewise for x and width; the inverse of `layers.Decode`.

    Args:
        boxes: (N, 4).
        defaults: default boxes (N, 4).
        variances: of x, y, width, height; the reciprocals of the OD API's scales.

    Returns:
        Box encodings (N, 4): ty, tx, th, tw.

    Source: faster_rcnn_box_coder.py of the TensorFlow OD API.
    """
    vx, vy, vw, vh = variances
    y, x, h, w = _centres(boxes)
    centre_y, centre_x, height, width = _centres(defaults)
    return tf.stack(
        [
            (y - centre_y) / height / vy,
            (x - centre_x) / width / vx,
            tf.math.log(h / height) / vh,
            tf.math.log(w / width) / vw,
        ],
        -1,
    )


def _centres(boxes: Any) -> tuple[Any, Any, Any, Any]:
    ymin, xmin, ymax, xmax = tf.unstack(boxes, 4, axis=-1)
    height, width = tf.maximum(ymax - ymin, _LEAST_SIDE), tf.maximum(xmax - xmin, _LEAST_SIDE)
    return (ymin + ymax) / 2, (xmin + xmax) / 2, height, width


def assign(
    boxes: Any,
    labels: Any,
    ignored: Any,
    defaults: npt.NDArray[np.floating[Any]],
    variances: tuple[float, float, float, float],
    threshold: float = THRESHOLD,
) -> Targets:
    """The targets of one image.

    Args:
        boxes: float32 (M, 4), the objects; M may be 0.
        labels: int32 (M,), class ids, 1 or more.
        ignored: bool (M,), see `match`.
        defaults: default boxes (N, 4).
        variances: see `encode`.
        threshold: see `match`.
    """
    anchors = tf.constant(defaults, tf.float32)
    matched, counts = match(overlaps(boxes, anchors), ignored, threshold)
    found = matched >= 0
    # Default boxes without an object take row M, which is appended below.
    rows = tf.where(found, matched, tf.shape(boxes)[0])
    whole = tf.concat([boxes, tf.constant([[0.0, 0.0, 1.0, 1.0]])], 0)
    encodings = encode(tf.gather(whole, rows), anchors, variances)
    return Targets(
        tf.where(found[:, None], encodings, 0.0),
        tf.gather(tf.pad(labels, [[0, 1]]), rows),
        tf.cast(counts, tf.float32),
    )
