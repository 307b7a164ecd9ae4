"""TensorFlow's four ways to resize an image, in numpy: bilinear, nearest, bicubic, area.

Each equals TensorFlow's op on the CPU bit for bit, with each choice of corners that the op has. All computation is in
float32, in the op's order. OpenCV does the same, up to rounding, for area where both sides are made smaller and for
bilinear with half-pixel centres, but not for the others.

Sources: TensorFlow core/util/image_resizer_state.h (CalculateResizeScale and the scalers) and, in core/kernels/image/,
resize_bilinear_op.cc, resize_nearest_neighbor_op.cc, resize_bicubic_op.cc, resize_area_op.cc.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.resizer import Resizer

_Indices = npt.NDArray[np.intp]
_ONE = np.float32(1)
_HALF = np.float32(0.5)
_TABLE = 1024
"""Steps between two pixels for which the bicubic op has coefficients."""


def resized(image: npt.NDArray[Any], size: tuple[int, int], resizer: Resizer) -> FloatArray:
    """Resize with the method and the corners of `resizer`, whose padding plays no part here.

    Args:
        image: (H, W, C), any real type.
        size: (h, w) of the result.
        resizer: method, align_corners and half_pixel_centers.

    Returns:
        float32 (h, w, C). Bicubic may exceed the value range of `image`, the others do not.

    Raises:
        ValueError: `image` does not have three axes, or `image` or `size` is empty.
    """
    if image.ndim != 3 or min(image.shape) < 1 or min(size) < 1:
        raise ValueError(f"cannot resize an image of shape {image.shape} to {size[0]}x{size[1]}")
    if image.shape[:2] == size:
        return image.astype(np.float32)
    methods = {"bilinear": _bilinear, "nearest": _nearest, "bicubic": _bicubic, "area": _area}
    return methods[resizer.method](image, size, resizer)


def _scale(length: int, out_length: int, resizer: Resizer) -> np.float32:
    """Source pixels for each output pixel."""
    if resizer.align_corners and min(length, out_length) > 1:
        return np.float32(length - 1) / np.float32(out_length - 1)
    return np.float32(length) / np.float32(out_length)


def _positions(length: int, out_length: int, resizer: Resizer) -> FloatArray:
    """Where each output pixel is read at in the source, along one axis."""
    scale = _scale(length, out_length, resizer)
    index = np.arange(out_length, dtype=np.float32)
    return (index + _HALF) * scale - _HALF if resizer.half_pixel_centers else index * scale


def _bilinear(image: npt.NDArray[Any], size: tuple[int, int], resizer: Resizer) -> FloatArray:
    """Interpolate along x, then along y: a + (b - a) * fraction."""

    def taps(length: int, out_length: int) -> tuple[_Indices, _Indices, FloatArray]:
        position = _positions(length, out_length, resizer)
        floor = np.floor(position)
        lower = np.maximum(floor.astype(np.intp), 0)
        upper = np.minimum(np.ceil(position).astype(np.intp), length - 1)
        return lower, upper, position - floor

    height, width = image.shape[:2]
    top, bottom, down = taps(height, size[0])
    left, right, across = taps(width, size[1])

    rows, where = np.unique(np.concatenate([top, bottom]), return_inverse=True)
    used = image[rows]
    at_left = used[:, left].astype(np.float32)
    lines = used[:, right].astype(np.float32)
    lines -= at_left
    lines *= across[:, None]
    lines += at_left

    above = lines[where[: size[0]]]
    result: FloatArray = lines[where[size[0] :]]
    result -= above
    result *= down[:, None, None]
    result += above
    return result


def _nearest(image: npt.NDArray[Any], size: tuple[int, int], resizer: Resizer) -> FloatArray:
    """The pixel at the position rounded down or, with aligned corners, to the nearest, halves up."""

    def indices(length: int, out_length: int) -> _Indices:
        index = np.arange(out_length, dtype=np.float32)
        position = (index + _HALF if resizer.half_pixel_centers else index) * _scale(length, out_length, resizer)
        if resizer.align_corners:
            floor = np.floor(position)
            position = floor + (position - floor >= _HALF)
        found: _Indices = np.minimum(np.floor(position).astype(np.intp), length - 1)
        return found

    height, width = image.shape[:2]
    rows = image[indices(height, size[0])]
    return rows[:, indices(width, size[1])].astype(np.float32)


def _bicubic(image: npt.NDArray[Any], size: tuple[int, int], resizer: Resizer) -> FloatArray:
    """Four weighted rows, then four weighted columns.

    The weights come from a table of 1024 steps; pixels beyond the edge repeat it or, with half-pixel centres, have no
    weight.
    """
    keys = resizer.half_pixel_centers
    near, far = _cubic_table(-0.5 if keys else -0.75)

    def taps(length: int, out_length: int) -> tuple[_Indices, FloatArray]:
        position = _positions(length, out_length, resizer)
        floor = np.floor(position)
        offset = np.rint((position - floor) * np.float32(_TABLE)).astype(np.intp)
        wanted = floor.astype(np.intp) + np.arange(-1, 3)[:, None]
        bounded = np.clip(wanted, 0, length - 1)
        weights = np.stack([far[offset], near[offset], near[_TABLE - offset], far[_TABLE - offset]])
        if keys:
            weights[wanted != bounded] = 0
            total = weights[0] + weights[1] + weights[2] + weights[3]
            usable = np.abs(total) >= np.float32(1000) * np.finfo(np.float32).tiny
            weights *= np.where(usable, _ONE / np.where(usable, total, _ONE), _ONE)
        return bounded, weights

    def mixed(values: list[FloatArray], weights: FloatArray) -> FloatArray:
        first, second, third, fourth = (value * weight for value, weight in zip(values, weights, strict=True))
        total: FloatArray = first + second + third + fourth
        return total

    height, width = image.shape[:2]
    rows, down = taps(height, size[0])
    columns, across = taps(width, size[1])
    lines = mixed([image[row].astype(np.float32) for row in rows], down[..., None, None])
    return mixed([lines[:, column] for column in columns], across[..., None])


def _cubic_table(a: float) -> tuple[FloatArray, FloatArray]:
    """Weights of pixels at distances of 0 to 1, and of 1 to 2, in 1024 steps; computed in float64, rounded once."""
    x = np.arange(_TABLE + 1) / _TABLE
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    y = x + 1
    far = ((a * y - 5 * a) * y + 8 * a) * y - 4 * a
    return near.astype(np.float32), far.astype(np.float32)


def _area(image: npt.NDArray[Any], size: tuple[int, int], resizer: Resizer) -> FloatArray:
    """The mean of the source pixels under each output pixel, those at its edges weighted by their share."""

    def taps(length: int, out_length: int) -> tuple[_Indices, FloatArray]:
        scale = _scale(length, out_length, resizer)
        index = np.arange(out_length + 1).astype(np.float32)
        start, end = index[:-1] * scale, index[1:] * scale
        first, last = np.floor(start).astype(np.intp), np.ceil(end).astype(np.intp)
        pixel = first + np.arange(int((last - first).max()))[:, None]
        lower, upper = pixel.astype(np.float32), (pixel + 1).astype(np.float32)
        past = upper > end
        weights = np.where(lower < start, np.where(past, scale, upper - start), np.where(past, end - lower, _ONE))
        weights[pixel >= last] = 0
        return np.clip(pixel, 0, length - 1), weights.astype(np.float32)

    def summed(values: list[FloatArray], weights: FloatArray) -> FloatArray:
        total: FloatArray = values[0] * weights[0]
        for value, weight in zip(values[1:], weights[1:], strict=True):
            total += value * weight
        return total

    height, width = image.shape[:2]
    rows, down = taps(height, size[0])
    columns, across = taps(width, size[1])
    pixels = image.astype(np.float32)
    lines = summed([pixels[:, column] for column in columns], across[..., None])
    total = summed([lines[row] for row in rows], down[..., None, None])
    total *= _ONE / (_scale(height, size[0], resizer) * _scale(width, size[1], resizer))
    return total
