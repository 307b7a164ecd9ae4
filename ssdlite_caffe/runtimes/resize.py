"""From an image to the network's input: TensorFlow 1's bilinear resize, normalisation, and Caffe's memory layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.arrays import FloatArray


def _taps(length: int, out_length: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], FloatArray]:
    """Lower and upper source index of each output position along one axis, and the weight of the upper index."""
    scale = np.float32(length) / np.float32(out_length)
    position = np.arange(out_length, dtype=np.float32) * scale
    floor = np.floor(position)
    lower = floor.astype(np.intp)
    upper = np.minimum(np.ceil(position).astype(np.intp), length - 1)
    return lower, upper, position - floor


def resize_bilinear_legacy(image: npt.NDArray[Any], size: tuple[int, int]) -> FloatArray:
    """Resize as TensorFlow 1 does: corners not aligned, pixel centres at whole numbers. Bit-exact.

    Output pixel (y, x) is sampled at (y * H / h, x * W / w) of the image without antialiasing, interpolated along x and
    then along y, all in float32: top = tl + (tr - tl) * fx, bottom likewise, result = top + (bottom - top) * fy.

    Args:
        image: (H, W, C), any real type.
        size: (h, w) of the result.

    Returns:
        float32 (h, w, C), with the value range of `image`.

    Raises:
        ValueError: `image` does not have three axes, or `image` or `size` is empty.

    Source: TensorFlow core/kernels/image/resize_bilinear_op.cc with LegacyScaler.
    """
    if image.ndim != 3 or min(image.shape) < 1 or min(size) < 1:
        raise ValueError(f"cannot resize an image of shape {image.shape} to {size[0]}x{size[1]}")
    height, width = image.shape[:2]
    if (height, width) == size:
        return image.astype(np.float32)
    top, bottom, down = _taps(height, size[0])
    left, right, across = _taps(width, size[1])

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


def network_input(image: npt.NDArray[np.uint8], size: tuple[int, int], *, mean: float, scale: float) -> FloatArray:
    """Resize and normalise an image to the input of TensorFlow's first convolution.

    Graphs of 2018 resize first and later ones normalise first. This function resizes first; the results of both differ
    only in the last bits of float32.

    Args:
        image: uint8 (H, W, 3), RGB.
        size: (height, width) of the network's input.
        mean: subtracted from every pixel (usually 127.5).
        scale: factor of the difference (usually 1 / 127.5).

    Returns:
        float32 (1, height, width, 3), RGB.
    """
    resized = resize_bilinear_legacy(image, size)
    resized -= np.float32(mean)
    resized *= np.float32(scale)
    return resized[None]


def caffe_blob(nhwc: FloatArray) -> FloatArray:
    """Move a batch of RGB images to Caffe's layout. Exact: values are moved, not computed.

    Args:
        nhwc: float32 (N, H, W, 3), RGB.

    Returns:
        float32 (N, 3, H, W), BGR, C-contiguous.
    """
    return np.ascontiguousarray(nhwc[..., ::-1].transpose(0, 3, 1, 2))


def preprocess(image: npt.NDArray[np.uint8], size: tuple[int, int], *, mean: float, scale: float) -> FloatArray:
    """Turn an RGB image into the data blob of the Caffe net: `caffe_blob` of `network_input`."""
    return caffe_blob(network_input(image, size, mean=mean, scale=scale))
