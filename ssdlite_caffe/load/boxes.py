"""From TensorFlow's default boxes to Caffe's: the boxes of a cell reordered, their shapes folded into the predictor.

TensorFlow decodes a box encoding (ty, tx, th, tw) with a default box of height H, width W and centre (Y, X) as
    y = ty / sy * H + Y,  x = tx / sx * W + X,  h = exp(th / sh) * H,  w = exp(tw / sw) * W;
Caffe decodes (cx, cy, cw, ch) with a PriorBox of height H', width W' and the same centre as
    x = vx * cx * W' + X,  y = vy * cy * H' + Y,  w = exp(vw * cw) * W',  h = exp(vh * ch) * H'.
Both give the same box when
    cx = tx * (W / W') / (sx * vx),          cw = (tw / sw + ln(W / W')) / vw,  and likewise cy, ch.
These are a scale and an offset for each output of the predictor, so they can be folded into its weights and bias. A
distance of the centres, X - X', is folded too: it adds (X - X') / (W' * vx) to cx, and likewise to cy.

Source: faster_rcnn_box_coder.py of the TensorFlow OD API; DecodeBBox in bbox_util.cpp of the Caffe SSD branch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from ssdlite_caffe.arrays import FloatArray

Sizes = tuple[tuple[float, float], ...]
"""(height, width) of each default box of a cell, as fractions of the input."""

SAME_SIZE = 1e-6
"""Relative difference up to which two sizes are equal: TensorFlow computes sizes from float32 corners, off by 2e-7."""


@dataclass(frozen=True)
class CellMatch:
    """For each of Caffe's boxes in a cell, the box of TensorFlow that it stands for.

    Attributes:
        source: index of TensorFlow's box.
        height_ratio, width_ratio: TensorFlow's size / Caffe's size; exactly 1.0 where they are equal.
        down, right: from Caffe's centre to TensorFlow's, in heights and widths of Caffe's box; empty: 0 for all.
    """

    source: tuple[int, ...]
    height_ratio: tuple[float, ...]
    width_ratio: tuple[float, ...]
    down: tuple[float, ...] = ()
    right: tuple[float, ...] = ()

    def shifted(self, shift: tuple[float, float], caffe_sizes: Sizes) -> CellMatch:
        """The match with the same distance (y, x) between all centres, as fractions of the input."""
        if shift == (0.0, 0.0):
            return self
        down, right = (tuple(shift[axis] / size[axis] for size in caffe_sizes) for axis in (0, 1))
        return replace(self, down=down, right=right)


def match_cell(tf_sizes: Sizes, caffe_sizes: Sizes) -> CellMatch:
    """Pair the boxes of a cell one to one, the nearest first.

    Every pairing is exact, since the ratios are folded into the predictor; pairing the nearest boxes gives equal boxes
    ratios of 1. Of equally near pairs the first in order is taken. Distances are rounded to thousandths, so that the
    same boxes from another source (a graph's float32 corners, a pipeline.config's scales) are paired alike.

    Args:
        tf_sizes: of TensorFlow's boxes.
        caffe_sizes: of the boxes of the PriorBox layer; as many as `tf_sizes`.
    """
    assert len(tf_sizes) == len(caffe_sizes), f"{len(caffe_sizes)} boxes in PriorBox for {len(tf_sizes)} of TensorFlow"
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
    """For each box of a new PriorBox, the box of the old PriorBox that stands for the same box of TensorFlow.

    It is for predictors that are converted already. Both PriorBoxes are paired with TensorFlow's boxes as `match_cell`
    does, so the refolded predictor equals, up to float32 rounding, one that is converted from TensorFlow's.

    Args:
        tf_sizes: of TensorFlow's boxes.
        old: of the PriorBox that the predictor was converted for.
        new: of the PriorBox that it is to fit.
    """
    before, after = match_cell(tf_sizes, old).source, match_cell(tf_sizes, new).source
    order = tuple(before.index(t) for t in after)
    return CellMatch(
        order,
        tuple(_ratio(old[o][0], size[0]) for o, size in zip(order, new, strict=True)),
        tuple(_ratio(old[o][1], size[1]) for o, size in zip(order, new, strict=True)),
    )


def resized_cell(old: Sizes, new: Sizes) -> CellMatch:
    """Boxes in the same order, of other sizes: those of a PriorBox for the model's own, or the other way round."""
    heights, widths = ([_ratio(a[i], b[i]) for a, b in zip(old, new, strict=True)] for i in (0, 1))
    return CellMatch(tuple(range(len(old))), tuple(heights), tuple(widths))


def refold_box_predictor(
    kernel: FloatArray, bias: FloatArray, match: CellMatch, variances: tuple[float, float, float, float]
) -> tuple[FloatArray, FloatArray]:
    """A box predictor's weights for another PriorBox.

    Args:
        kernel: float32 (K * 4, I, H, W), outputs box by box as (x, y, w, h), as in the result.
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
    """The box predictor's weights in Caffe's order of boxes and coordinates, the ratios of box sizes folded in.

    Args:
        kernel: float32 (K * 4, I, H, W), outputs box by box as (ty, tx, th, tw).
        bias: float32 (K * 4,).
        match: which of TensorFlow's boxes each of Caffe's stands for.
        coder_scales: TensorFlow's (y, x, height, width), usually 10, 10, 5, 5.
        variances: Caffe's (x, y, width, height), usually 0.1, 0.1, 0.2, 0.2.

    Returns:
        kernel and bias with outputs (x, y, w, h) for each of Caffe's boxes; an output with factor 1 and offset 0 keeps
        its weights bit for bit.
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
        if match.down:
            offset[4 * c : 4 * c + 2] = (match.right[c] / vx, match.down[c] / vy)
    moved = kernel[rows] * factor[:, None, None, None]
    return moved.astype(kernel.dtype), (bias[rows] * factor + offset).astype(kernel.dtype)


def _reciprocal(scale: float, variance: float) -> float:
    """1 / (scale * variance), exactly 1.0 where the variance is the scale's reciprocal up to float32 rounding."""
    product = scale * variance
    return 1.0 if abs(product - 1) <= SAME_SIZE else 1 / product


def class_predictor_rows(
    kernel: FloatArray, bias: FloatArray, match: CellMatch, num_classes: int, logit_scale: float
) -> tuple[FloatArray, FloatArray]:
    """The class predictor's weights in Caffe's order of boxes.

    Args:
        kernel: float32 (K * num_classes, I, H, W), outputs box by box.
        bias: float32 (K * num_classes,).
        match: which of TensorFlow's boxes each of Caffe's stands for.
        num_classes: counts background.
        logit_scale: factor between the predictor and the score converter; with 1.0 weights are kept bit for bit.
    """
    rows = (np.asarray(match.source)[:, None] * num_classes + np.arange(num_classes)).reshape(-1)
    if logit_scale == 1.0:
        return np.ascontiguousarray(kernel[rows]), bias[rows].copy()
    return (
        (kernel[rows] * np.float64(logit_scale)).astype(kernel.dtype),
        (bias[rows] * np.float64(logit_scale)).astype(kernel.dtype),
    )
