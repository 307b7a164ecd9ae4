"""From TensorFlow's default boxes to Caffe's: the boxes of a cell put in order, their shapes folded into the predictor.

TensorFlow decodes a code (ty, tx, th, tw) against a default box of height H and width W with centre (Y, X) as
    y = ty / sy * H + Y,  x = tx / sx * W + X,  h = exp(th / sh) * H,  w = exp(tw / sw) * W;
Caffe decodes (cx, cy, cw, ch) against a PriorBox of height H', width W' and the same centre as
    x = vx * cx * W' + X,  y = vy * cy * H' + Y,  w = exp(vw * cw) * W',  h = exp(vh * ch) * H'.
Both give the same box when
    cx = tx * (W / W') / (sx * vx),          cw = (tw / sw + ln(W / W')) / vw,  and likewise cy, ch:
a scale on two rows of the predictor and an offset on the other two, so the predictor's weights can hold them.

Source: faster_rcnn_box_coder.py of the TensorFlow OD API; DecodeBBox in bbox_util.cpp of the Caffe SSD branch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ssdlite_caffe.arrays import FloatArray

Sizes = tuple[tuple[float, float], ...]
"""(height, width) of each default box of a cell, as fractions of the input."""

SAME_SIZE = 1e-6
"""Relative difference below which two sizes are one: TensorFlow's come from float32 corners, off by up to 2e-7."""


@dataclass(frozen=True)
class CellMatch:
    """For each of Caffe's boxes in a cell: which of TensorFlow's it takes, and by how much the sizes differ.

    Attributes:
        source: index of TensorFlow's box.
        height_ratio, width_ratio: TensorFlow's size / Caffe's; exactly 1.0 where they are the same.
    """

    source: tuple[int, ...]
    height_ratio: tuple[float, ...]
    width_ratio: tuple[float, ...]


def match_cell(tf_sizes: Sizes, caffe_sizes: Sizes) -> CellMatch:
    """Pair the boxes of a cell one to one, the nearest first.

    Every pairing is exact once the ratios are folded into the predictor; the nearest keeps the ratios at 1 for the
    boxes that are the same. Of equally near pairs the first in order is taken; distances are compared in thousandths,
    so that the same boxes from another source (a graph's float32 corners, a pipeline.config's scales) pair alike.

    Args:
        tf_sizes: of TensorFlow's boxes.
        caffe_sizes: of the PriorBox layer's, as many.
    """
    assert len(tf_sizes) == len(caffe_sizes), "PriorBox was chosen for another number of boxes"
    distances = sorted(
        (round(abs(math.log(th / ch)) + abs(math.log(tw / cw)), 3), c, t)
        for c, (ch, cw) in enumerate(caffe_sizes)
        for t, (th, tw) in enumerate(tf_sizes)
    )
    source: dict[int, int] = {}
    for _, c, t in distances:
        if c not in source and t not in source.values():
            source[c] = t
    order = tuple(source[c] for c in range(len(caffe_sizes)))
    return CellMatch(
        order,
        tuple(_ratio(tf_sizes[t][0], caffe_sizes[c][0]) for c, t in enumerate(order)),
        tuple(_ratio(tf_sizes[t][1], caffe_sizes[c][1]) for c, t in enumerate(order)),
    )


def rematch_cell(tf_sizes: Sizes, old: Sizes, new: Sizes) -> CellMatch:
    """Which box of a PriorBox each box of another one takes, when the predictor stands for the old one already.

    Both PriorBoxes take TensorFlow's boxes as `match_cell` pairs them, so that the new predictor is, up to float32,
    what it would be if made from TensorFlow's.

    Args:
        tf_sizes: of TensorFlow's boxes.
        old: of the PriorBox that the predictor was made for.
        new: of the PriorBox that it is to be made for.
    """
    before, after = match_cell(tf_sizes, old).source, match_cell(tf_sizes, new).source
    order = tuple(before.index(t) for t in after)
    return CellMatch(
        order,
        tuple(_ratio(old[o][0], size[0]) for o, size in zip(order, new, strict=True)),
        tuple(_ratio(old[o][1], size[1]) for o, size in zip(order, new, strict=True)),
    )


def refold_box_predictor(
    kernel: FloatArray, bias: FloatArray, match: CellMatch, variances: tuple[float, float, float, float]
) -> tuple[FloatArray, FloatArray]:
    """Rows of a box predictor for another PriorBox; before and after box by box as (x, y, w, h).

    Args:
        kernel: float32 (K * 4, I, H, W).
        bias: float32 (K * 4,).
        match: of `rematch_cell`.
        variances: (x, y, width, height) of both PriorBoxes.
    """
    swapped = np.arange(len(bias)).reshape(-1, 4)[:, [1, 0, 3, 2]].reshape(-1)
    x, y, width, height = variances
    return box_predictor_rows(kernel[swapped], bias[swapped], match, (1 / y, 1 / x, 1 / height, 1 / width), variances)


def _ratio(a: float, b: float) -> float:
    return 1.0 if abs(a / b - 1) <= SAME_SIZE else a / b


def box_predictor_rows(
    kernel: FloatArray,
    bias: FloatArray,
    match: CellMatch,
    coder_scales: tuple[float, float, float, float],
    variances: tuple[float, float, float, float],
) -> tuple[FloatArray, FloatArray]:
    """Rows of the box predictor in Caffe's order of boxes and of coordinates, with the differences of shape folded in.

    Args:
        kernel: float32 (K * 4, I, H, W), rows box by box as (ty, tx, th, tw).
        bias: float32 (K * 4,).
        match: how Caffe's boxes take TensorFlow's.
        coder_scales: TensorFlow's (y, x, height, width): 10, 10, 5, 5 as a rule.
        variances: Caffe's (x, y, width, height): 0.1, 0.1, 0.2, 0.2 as a rule.

    Returns:
        kernel and bias with rows (x, y, w, h) for each of Caffe's boxes; a row whose factor is 1 and whose offset is 0
        is moved, bit for bit.
    """
    sy, sx, sh, sw = coder_scales
    vx, vy, vw, vh = variances
    rows = np.empty(len(match.source) * 4, np.intp)
    factor = np.empty(rows.shape, np.float64)
    offset = np.zeros(rows.shape, np.float64)
    for c, t in enumerate(match.source):
        height, width = match.height_ratio[c], match.width_ratio[c]
        rows[4 * c : 4 * c + 4] = (4 * t + 1, 4 * t, 4 * t + 3, 4 * t + 2)
        factor[4 * c : 4 * c + 4] = (
            width * _reciprocal(sx, vx),
            height * _reciprocal(sy, vy),
            _reciprocal(sw, vw),
            _reciprocal(sh, vh),
        )
        offset[4 * c + 2 : 4 * c + 4] = (math.log(width) / vw, math.log(height) / vh)
    moved = kernel[rows] * factor[:, None, None, None]
    return moved.astype(np.float32), (bias[rows] * factor + offset).astype(np.float32)


def _reciprocal(scale: float, variance: float) -> float:
    """1 / (scale * variance), exactly 1.0 where the variance is the scale's reciprocal up to float32."""
    product = scale * variance
    return 1.0 if abs(product - 1) <= SAME_SIZE else 1 / product


def class_predictor_rows(
    kernel: FloatArray, bias: FloatArray, match: CellMatch, num_classes: int, logit_scale: float
) -> tuple[FloatArray, FloatArray]:
    """Rows of the class predictor in Caffe's order of boxes.

    Args:
        kernel: float32 (K * num_classes, I, H, W), rows box by box.
        bias: float32 (K * num_classes,).
        match: how Caffe's boxes take TensorFlow's.
        num_classes: counts background.
        logit_scale: factor between the predictor and the score converter; 1.0 moves the rows bit for bit.
    """
    rows = (np.asarray(match.source)[:, None] * num_classes + np.arange(num_classes)).reshape(-1)
    if logit_scale == 1.0:
        return np.ascontiguousarray(kernel[rows]), bias[rows].copy()
    return (
        (kernel[rows] * np.float64(logit_scale)).astype(np.float32),
        (bias[rows] * np.float64(logit_scale)).astype(np.float32),
    )
