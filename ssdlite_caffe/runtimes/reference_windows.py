"""Caffe's layers that slide a window over a map, in numpy; see `reference_layers.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.rules_forks import FORK_RULES
from ssdlite_caffe.prototxt.sizes import pool_size, same_size

Array = npt.NDArray[Any]
"""float32 or float64."""
Layer = caffe_pb2.LayerParameter
Function = Callable[[Layer, Sequence[Array], Sequence[Array]], list[Array]]
Pair = tuple[int, int]


def pair(param: Any, high: str, wide: str, values: Sequence[Any], default: int) -> Any:
    """(vertical, horizontal) of a setting that is written once, twice, or as `_h` and `_w`."""
    if param.HasField(high) or param.HasField(wide):
        return getattr(param, high), getattr(param, wide)
    return (values[0], values[-1]) if values else (default, default)


def _paddings(layer: Layer, spatial: Pair, kernel: Pair, stride: Pair, dilation: Pair) -> tuple[Pair, Pair]:
    """((top, bottom), (left, right)) of a convolution's padding."""
    param = layer.convolution_param
    if not param.HasField("tf_pad"):
        high, wide = pair(param, "pad_h", "pad_w", param.pad, 0)
        return (high, high), (wide, wide)
    if param.tf_pad == param.VALID:
        return (0, 0), (0, 0)
    both = []
    for size, k, s, d in zip(spatial, kernel, stride, dilation, strict=True):
        total = max((same_size(size, s) - 1) * s + d * (k - 1) + 1 - size, 0)
        both.append((total // 2, total - total // 2))
    return both[0], both[1]


def _windows(x: Array, kernel: Pair, stride: Pair, dilation: Pair) -> list[list[Array]]:
    """For each row and column of the kernel the pixels it meets, (N, C, out H, out W); x is padded already."""
    extents = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    rows, columns = ((x.shape[2 + i] - extents[i]) // stride[i] + 1 for i in (0, 1))
    return [
        [
            x[
                :,
                :,
                i * dilation[0] : i * dilation[0] + (rows - 1) * stride[0] + 1 : stride[0],
                j * dilation[1] : j * dilation[1] + (columns - 1) * stride[1] + 1 : stride[1],
            ]
            for j in range(kernel[1])
        ]
        for i in range(kernel[0])
    ]


def convolve(layer: Layer, kernel: Array, bias: Array | None, x: Array) -> Array:
    """A convolution with the settings of `layer`.

    Args:
        layer: of type Convolution, or of a type for depthwise ones.
        kernel: (out, in / groups, h, w).
        bias: (out,), or None.
        x: (N, in, H, W).

    Returns:
        (N, out, out H, out W).
    """
    param = layer.convolution_param
    size = (kernel.shape[2], kernel.shape[3])
    stride = pair(param, "stride_h", "stride_w", param.stride, 1)
    dilation = (param.dilation[0], param.dilation[-1]) if param.dilation else (1, 1)
    pads = _paddings(layer, (x.shape[2], x.shape[3]), size, stride, dilation)
    windows = _windows(np.pad(x, ((0, 0), (0, 0), *pads)), size, stride, dilation)
    groups = x.shape[1] // kernel.shape[1]
    if kernel.shape[1] == 1 and groups > 1:
        y = _depthwise(windows, kernel, groups)
    else:
        parts = [_dense(windows, part, group) for group, part in enumerate(np.split(kernel, groups))]
        y = parts[0] if groups == 1 else np.concatenate(parts, axis=1)
    return y if bias is None else np.asarray(y + bias.reshape(-1, 1, 1))


def _depthwise(windows: list[list[Array]], kernel: Array, channels: int) -> Array:
    """Each channel with its own kernels; `kernel` is (channels * multiplier, 1, h, w)."""
    n, _, rows, columns = windows[0][0].shape
    taps = kernel.reshape(channels, -1, *kernel.shape[2:])
    y = np.zeros((n, channels, taps.shape[1], rows, columns), kernel.dtype)
    for i, row in enumerate(windows):
        for j, pixels in enumerate(row):
            y += pixels[:, :, None] * taps[:, :, i, j, None, None]
    return y.reshape(n, -1, rows, columns)


def _dense(windows: list[list[Array]], kernel: Array, group: int) -> Array:
    """One group's matrix product of kernels and columns of pixels."""
    first, count = group * kernel.shape[1], kernel.shape[1]
    n, _, rows, columns = windows[0][0].shape
    pixels = np.stack([np.stack([w[:, first : first + count] for w in row], axis=2) for row in windows], axis=2)
    y = kernel.reshape(len(kernel), -1) @ pixels.reshape(n, -1, rows * columns)
    return np.asarray(y.reshape(n, -1, rows, columns))


def deconvolve(layer: Layer, kernel: Array, bias: Array | None, x: Array) -> Array:
    """A Deconvolution with the settings of `layer`: each pixel adds its multiple of the kernel to the result.

    Args:
        layer: of type Deconvolution.
        kernel: (in, out / groups, h, w).
        bias: (out,), or None.
        x: (N, in, H, W).

    Returns:
        (N, out, out H, out W).

    Source: DeconvolutionLayer, which is a convolution's backward pass; deconv_layer.cpp.
    """
    param = layer.convolution_param
    size = (kernel.shape[2], kernel.shape[3])
    stride = pair(param, "stride_h", "stride_w", param.stride, 1)
    pad = pair(param, "pad_h", "pad_w", param.pad, 0)
    dilation = (param.dilation[0], param.dilation[-1]) if param.dilation else (1, 1)
    rows, columns = x.shape[2:]
    whole = [(n - 1) * s + d * (k - 1) + 1 for n, k, s, d in zip((rows, columns), size, stride, dilation, strict=True)]
    n, groups = len(x), max(param.group, 1)
    grouped = x.reshape(n, groups, -1, rows * columns)
    y = np.zeros((n, groups * kernel.shape[1], *whole), kernel.dtype)
    for i in range(size[0]):
        for j in range(size[1]):
            taps = kernel[:, :, i, j].reshape(groups, -1, kernel.shape[1]).transpose(0, 2, 1)
            part = (taps @ grouped).reshape(n, -1, rows, columns)
            top, left = i * dilation[0], j * dilation[1]
            y[
                :,
                :,
                top : top + (rows - 1) * stride[0] + 1 : stride[0],
                left : left + (columns - 1) * stride[1] + 1 : stride[1],
            ] += part
    y = y[:, :, pad[0] : whole[0] - pad[0], pad[1] : whole[1] - pad[1]]
    return y if bias is None else np.asarray(y + bias.reshape(-1, 1, 1))


def _deconvolution(layer: Layer, weights: Sequence[Array], xs: Sequence[Array]) -> list[Array]:
    bias = weights[1] if layer.convolution_param.bias_term else None
    return [deconvolve(layer, weights[0], bias, x) for x in xs]


def _interp(layer: Layer, _: Sequence[Array], xs: Sequence[Array]) -> list[Array]:
    """Bilinear resizing in which the corners of both maps lie on each other.

    Source: caffe_cpu_interp2 of DeepLab's fork; pad_beg and pad_end, at most 0, crop before.
    """
    param, x = layer.interp_param, xs[0]
    (outcome,) = FORK_RULES["Interp"].shape(layer, [one.shape for one in xs]).tops
    assert outcome is not None
    x = x[:, :, -param.pad_beg : x.shape[2] + param.pad_end, -param.pad_beg : x.shape[3] + param.pad_end]
    for axis in (2, 3):
        old, new = x.shape[axis], outcome[axis]
        place = np.arange(new) * ((old - 1) / (new - 1) if new > 1 else 0.0)
        first = np.minimum(place.astype(int), old - 1)
        share = (place - first).astype(x.dtype).reshape([-1 if a == axis else 1 for a in range(4)])
        second = np.minimum(first + 1, old - 1)
        x = x.take(first, axis) * (1 - share) + x.take(second, axis) * share
    return [x]


def _convolution(layer: Layer, weights: Sequence[Array], xs: Sequence[Array]) -> list[Array]:
    bias = weights[1] if layer.convolution_param.bias_term else None
    return [convolve(layer, weights[0], bias, x) for x in xs]


def _pooling(layer: Layer, _: Sequence[Array], xs: Sequence[Array]) -> list[Array]:
    """Mean or maximum of windows; at the lower and right border a window may be cut off."""
    param, x = layer.pooling_param, xs[0]
    average = param.pool == param.AVE
    if param.global_pooling:
        return [x.mean((2, 3), keepdims=True) if average else x.max((2, 3), keepdims=True)]
    size = [param.kernel_size] if param.HasField("kernel_size") else []
    kernel = pair(param, "kernel_h", "kernel_w", size, 1)
    stride = pair(param, "stride_h", "stride_w", [param.stride], 1)
    pad = pair(param, "pad_h", "pad_w", [param.pad], 0)
    ceil = param.round_mode == param.CEIL and param.ceil_mode
    sizes = [pool_size(x.shape[2 + i], kernel[i], stride=stride[i], pad=pad[i], ceil=ceil) for i in (0, 1)]
    y = np.empty((*x.shape[:2], *sizes), x.dtype)
    for row in range(sizes[0]):
        for column in range(sizes[1]):
            first = [index * stride[i] - pad[i] for i, index in enumerate((row, column))]
            padded = [min(first[i] + kernel[i], x.shape[2 + i] + pad[i]) - first[i] for i in (0, 1)]
            spans = [slice(max(start, 0), start + kernel[i]) for i, start in enumerate(first)]
            window = x[:, :, spans[0], spans[1]]
            # A mean counts the padding of the window, as far as it reaches.
            y[:, :, row, column] = window.sum((2, 3)) / (padded[0] * padded[1]) if average else window.max((2, 3))
    return [y]


WINDOW_LAYERS: dict[str, Function] = {
    "Convolution": _convolution,
    "ConvolutionDepthwise": _convolution,
    "Deconvolution": _deconvolution,
    "DepthwiseConvolution": _convolution,
    "Interp": _interp,
    "Pooling": _pooling,
}
