"""TensorFlow's kernels in Caffe's layouts. Exact: values are copied, never computed."""

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
    """A depthwise kernel, HWCM to (C * M, 1, H, W), one input channel per group.

    TensorFlow's output channel is c * M + m, as is Caffe's with `group` C and C * M outputs.

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
    """A kernel for BGR input, made from one for RGB input.

    Args:
        kernel: float32 (O, I, H, W).

    Returns:
        The same shape, with axis I reversed.
    """
    return np.ascontiguousarray(kernel[:, ::-1])


def enlarge_kernel(kernel: FloatArray, size: tuple[int, int]) -> FloatArray:
    """A kernel enlarged to `size` by rows of zeros at the top and columns of zeros at the left.

    With `pad` enlarged as much, the kernel computes the same sums over the same windows. TensorFlow's SAME padding,
    with one more zero after than before, becomes Caffe's symmetric `pad` in this way.

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
        raise TensorError(f"a {height}x{width} kernel cannot be enlarged to {size[0]}x{size[1]}, which is smaller")
    if (height, width) == size:
        return kernel
    larger = np.zeros((*kernel.shape[:2], *size), kernel.dtype)
    larger[:, :, size[0] - height :, size[1] - width :] = kernel
    return larger


def _check_rank(kernel: FloatArray) -> None:
    if kernel.ndim != 4:
        raise TensorError(f"a convolution kernel must have 4 axes, got the shape {kernel.shape}")
