"""Moving TensorFlow kernels to Caffe's layouts. Exact: values are moved, never computed."""

from __future__ import annotations

import numpy as np

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.errors import TensorError


def conv_kernel(kernel: FloatArray) -> FloatArray:
    """A convolution kernel, HWIO to OIHW.

    Args:
        kernel: float32 (H, W, I, O).

    Returns:
        float32 (O, I, H, W), C-contiguous.

    Raises:
        TensorError: the rank is not 4.

    Source: TensorFlow's conv2d documentation; Caffe's conv_layer.hpp.
    """
    _check_rank(kernel)
    return np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))


def depthwise_kernel(kernel: FloatArray) -> FloatArray:
    """A depthwise kernel, HWCM to one input channel per group.

    TensorFlow's output channel is c * M + m, and so is Caffe's with `group` C and C * M outputs.

    Args:
        kernel: float32 (H, W, C, M), M the channel multiplier.

    Returns:
        float32 (C * M, 1, H, W), C-contiguous.

    Raises:
        TensorError: the rank is not 4.

    Source: TensorFlow's depthwise_conv2d documentation; Caffe's conv_layer.hpp.
    """
    _check_rank(kernel)
    height, width, channels, multiplier = kernel.shape
    moved = kernel.transpose(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width)
    return np.ascontiguousarray(moved)


def reverse_input_channels(kernel: FloatArray) -> FloatArray:
    """An OIHW kernel that reads RGB, for a net that is fed BGR.

    Args:
        kernel: float32 (O, I, H, W).

    Returns:
        the same shape, with the I axis reversed.
    """
    return np.ascontiguousarray(kernel[:, ::-1])


def enlarge_kernel(kernel: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Zero rows on top and zero columns on the left, up to `size`.

    With `pad` larger by as much, the larger kernel looks at the same windows and gives the same sums: this is how
    TensorFlow's SAME padding, one more after than before, is written with Caffe's symmetric `pad`.

    Args:
        kernel: float32 (O, I, H, W).
        size: (height, width) wanted, each at least the kernel's.

    Returns:
        float32 (O, I, *size).

    Raises:
        TensorError: `size` is smaller than the kernel on an axis.
    """
    height, width = kernel.shape[2:]
    if size[0] < height or size[1] < width:
        raise TensorError(f"a {height}x{width} kernel does not fit into {size[0]}x{size[1]}")
    if (height, width) == size:
        return kernel
    larger = np.zeros((*kernel.shape[:2], *size), np.float32)
    larger[:, :, size[0] - height :, size[1] - width :] = kernel
    return larger


def _check_rank(kernel: FloatArray) -> None:
    if kernel.ndim != 4:
        raise TensorError(f"a convolution kernel has 4 axes, this one has the shape {kernel.shape}")
