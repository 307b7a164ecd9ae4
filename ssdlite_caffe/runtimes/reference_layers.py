"""Caffe's layers in numpy, as the SSD branch defines them, in float32 or float64: `LAYERS` has one function a type.

A function takes the layer, its blobs and its bottoms, all of one dtype, and returns its tops in that dtype. Feature
maps are (N, C, H, W). Shapes have been checked before (`prototxt.shapes.infer`).

Source: the layer's .cpp file in the SSD branch of Caffe; for Pad and tf_pad, in the forks that have them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.sizes import axis_index, pool_size, reshape, same_size

Array = npt.NDArray[Any]
"""float32 or float64."""
Layer = caffe_pb2.LayerParameter
Function = Callable[[Layer, Sequence[Array], Sequence[Array]], list[Array]]
Pair = tuple[int, int]

DEPTHWISE = frozenset({"ConvolutionDepthwise", "DepthwiseConvolution"})


def _pair(param: Any, high: str, wide: str, values: Sequence[Any], default: int) -> Any:
    """(vertical, horizontal) of a setting that is written once, twice, or as `_h` and `_w`."""
    if param.HasField(high) or param.HasField(wide):
        return getattr(param, high), getattr(param, wide)
    return (values[0], values[-1]) if values else (default, default)


def _paddings(layer: Layer, spatial: Pair, kernel: Pair, stride: Pair, dilation: Pair) -> tuple[Pair, Pair]:
    """((top, bottom), (left, right)) of a convolution's padding."""
    param = layer.convolution_param
    if not param.HasField("tf_pad"):
        high, wide = _pair(param, "pad_h", "pad_w", param.pad, 0)
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
    stride = _pair(param, "stride_h", "stride_w", param.stride, 1)
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
    if len(windows) == len(windows[0]) == 1:
        pixels = windows[0][0][:, first : first + count]  # not copied
    else:
        pixels = np.stack([np.stack([w[:, first : first + count] for w in row], axis=2) for row in windows], axis=2)
    y = kernel.reshape(len(kernel), -1) @ pixels.reshape(n, -1, rows * columns)
    return np.asarray(y.reshape(n, -1, rows, columns))


def _convolution(layer: Layer, weights: Sequence[Array], xs: Sequence[Array]) -> list[Array]:
    bias = weights[1] if layer.convolution_param.bias_term else None
    return [convolve(layer, weights[0], bias, x) for x in xs]


def statistics(layer: Layer, weights: Sequence[Array]) -> tuple[Array, Array]:
    """Mean and standard deviation (C,) by which a BatchNorm layer normalises.

    Its first two blobs are sums, divided by the third; where that is 0, so are mean and variance.
    """
    factor = weights[2].reshape(-1)[0]
    mean, variance = (blob.reshape(-1) / factor if factor else np.zeros_like(blob.reshape(-1)) for blob in weights[:2])
    return mean, np.sqrt(variance + weights[1].dtype.type(layer.batch_norm_param.eps))


def _batch_norm(layer: Layer, weights: Sequence[Array], xs: Sequence[Array]) -> list[Array]:
    mean, deviation = (values.reshape(-1, 1, 1) for values in statistics(layer, weights))
    return [(xs[0] - mean) / deviation]


def factors(layer: Layer, values: Array, x: Array) -> Array:
    """The values of a Scale layer in a shape that broadcasts over x."""
    param = layer.scale_param
    axis = axis_index(param.axis, x.ndim)
    own = len(layer.bottom) == 1
    axes = (x.ndim - axis if param.num_axes < 0 else param.num_axes) if own else values.ndim
    return values.reshape(x.shape[axis : axis + axes] + (1,) * (x.ndim - axis - axes))


def _scale(layer: Layer, weights: Sequence[Array], xs: Sequence[Array]) -> list[Array]:
    x = xs[0]
    y = x * factors(layer, xs[1] if len(xs) > 1 else weights[0], x)
    return [y + factors(layer, weights[-1], x) if layer.scale_param.bias_term else y]


def _relu(layer: Layer, _: Sequence[Array], xs: Sequence[Array]) -> list[Array]:
    slope = layer.relu_param.negative_slope
    return [np.maximum(xs[0], 0) + slope * np.minimum(xs[0], 0) if slope else np.maximum(xs[0], 0)]


def _clip(layer: Layer, _: Sequence[Array], xs: Sequence[Array]) -> list[Array]:
    return [np.clip(xs[0], layer.clip_param.min, layer.clip_param.max)]


def _power(layer: Layer, _: Sequence[Array], xs: Sequence[Array]) -> list[Array]:
    param = layer.power_param
    y = xs[0] * param.scale + param.shift
    return [y if param.power == 1 else y**param.power]


def _exp(layer: Layer, _: Sequence[Array], xs: Sequence[Array]) -> list[Array]:
    param = layer.exp_param
    power = xs[0] * param.scale + param.shift
    return [np.exp(power if param.base == -1 else power * math.log(param.base))]


def _sigmoid(_: Layer, __: Sequence[Array], xs: Sequence[Array]) -> list[Array]:
    small = np.exp(-np.abs(xs[0]))  # never overflows
    return [np.where(xs[0] >= 0, xs[0].dtype.type(1), small) / (1 + small)]


def _softmax(layer: Layer, _: Sequence[Array], xs: Sequence[Array]) -> list[Array]:
    axis = layer.softmax_param.axis
    powers = np.exp(xs[0] - xs[0].max(axis, keepdims=True))
    return [powers / powers.sum(axis, keepdims=True)]


def _eltwise(layer: Layer, _: Sequence[Array], xs: Sequence[Array]) -> list[Array]:
    param = layer.eltwise_param
    y = xs[0] * param.coeff[0] if param.coeff else xs[0]
    for i, x in enumerate(xs[1:], 1):
        if param.operation == param.PROD:
            y = y * x
        elif param.operation == param.MAX:
            y = np.maximum(y, x)
        else:
            y = y + (x * param.coeff[i] if param.coeff else x)
    return [y]


def _pooling(layer: Layer, _: Sequence[Array], xs: Sequence[Array]) -> list[Array]:
    """Mean or maximum of windows; at the lower and right border a window may be cut off."""
    param, x = layer.pooling_param, xs[0]
    average = param.pool == param.AVE
    if param.global_pooling:
        return [x.mean((2, 3), keepdims=True) if average else x.max((2, 3), keepdims=True)]
    size = [param.kernel_size] if param.HasField("kernel_size") else []
    kernel = _pair(param, "kernel_h", "kernel_w", size, 1)
    stride = _pair(param, "stride_h", "stride_w", [param.stride], 1)
    pad = _pair(param, "pad_h", "pad_w", [param.pad], 0)
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


def _slice(layer: Layer, _: Sequence[Array], xs: Sequence[Array]) -> list[Array]:
    param = layer.slice_param
    axis = param.slice_dim if param.HasField("slice_dim") else param.axis
    return np.split(xs[0], list(param.slice_point) or len(layer.top), axis)


def _concat(layer: Layer, _: Sequence[Array], xs: Sequence[Array]) -> list[Array]:
    param = layer.concat_param
    return [np.concatenate(xs, param.concat_dim if param.HasField("concat_dim") else param.axis)]


def _pad(layer: Layer, _: Sequence[Array], xs: Sequence[Array]) -> list[Array]:
    param = layer.pad_param
    sides = ((0, 0), (0, 0), (param.pad_u, param.pad_d), (param.pad_l, param.pad_r))
    mode: Any = {param.CONSTANT: "constant", param.REPLICATE: "edge", param.REFLECT: "reflect"}[param.pad_type]
    more = {"constant_values": param.pad_value} if mode == "constant" else {}
    return [np.pad(xs[0], sides, mode, **more)]


def _permute(layer: Layer, _: Sequence[Array], xs: Sequence[Array]) -> list[Array]:
    order = list(layer.permute_param.order)
    return [xs[0].transpose(order + [axis for axis in range(xs[0].ndim) if axis not in order])]


def _flatten(layer: Layer, _: Sequence[Array], xs: Sequence[Array]) -> list[Array]:
    param, x = layer.flatten_param, xs[0]
    first, last = (axis_index(axis, x.ndim) for axis in (param.axis, param.end_axis))
    return [x.reshape(*x.shape[:first], -1, *x.shape[last + 1 :])]


def _reshape(layer: Layer, _: Sequence[Array], xs: Sequence[Array]) -> list[Array]:
    param = layer.reshape_param
    return [xs[0].reshape(reshape(xs[0].shape, list(param.shape.dim), param.axis, param.num_axes))]


def _same(layer: Layer, _: Sequence[Array], xs: Sequence[Array]) -> list[Array]:
    return [xs[0]] * len(layer.top)


def _prior_box(layer: Layer, _: Sequence[Array], xs: Sequence[Array]) -> list[Array]:
    """(1, 2, N * 4): corners of the default boxes of a feature map as fractions of the image, then their variances."""
    param = layer.prior_box_param
    (rows, columns), image = xs[0].shape[2:], xs[1].shape[2:]
    height, width = _pair(param, "img_h", "img_w", [param.img_size] if param.img_size else [], 0)
    height, width = height or image[0], width or image[1]
    down, across = _pair(param, "step_h", "step_w", [param.step] if param.step else [], 0)
    down, across = down or height / rows, across or width / columns
    x, y = np.meshgrid((np.arange(columns) + param.offset) * across, (np.arange(rows) + param.offset) * down)
    centre = np.stack([x, y], axis=-1)[:, :, None] / (width, height)
    half = np.asarray(_prior_sizes(param)) / (width, height) / 2
    corners = np.concatenate([centre - half, centre + half], axis=-1).reshape(-1)
    if param.clip:
        corners = np.clip(corners, 0, 1)
    variances = list(param.variance) or [0.1]
    return [np.stack([corners, np.resize(variances, corners.size)])[None].astype(xs[0].dtype)]


def _prior_sizes(param: caffe_pb2.PriorBoxParameter) -> list[tuple[float, float]]:
    """(width, height) in pixels of the default boxes in a cell, in PriorBoxLayer's order."""
    ratios = [1.0]
    for ratio in param.aspect_ratio:
        if all(abs(ratio - other) >= 1e-6 for other in ratios):
            ratios += [ratio, 1 / ratio] if param.flip else [ratio]
    sizes = []
    for index, least in enumerate(param.min_size):
        sizes.append((least, least))
        if param.max_size:
            side = math.sqrt(least * param.max_size[index])
            sizes.append((side, side))
        sizes += [(least * math.sqrt(ratio), least / math.sqrt(ratio)) for ratio in ratios[1:]]
    return sizes


LAYERS: dict[str, Function] = {
    "BatchNorm": _batch_norm,
    "Clip": _clip,
    "Concat": _concat,
    "Convolution": _convolution,
    "ConvolutionDepthwise": _convolution,
    "DepthwiseConvolution": _convolution,
    "Dropout": _same,
    "Eltwise": _eltwise,
    "Exp": _exp,
    "Flatten": _flatten,
    "Pad": _pad,
    "Permute": _permute,
    "Pooling": _pooling,
    "Power": _power,
    "PriorBox": _prior_box,
    "ReLU": _relu,
    "ReLU6": lambda _, __, xs: [np.clip(xs[0], 0, 6)],
    "Reshape": _reshape,
    "Scale": _scale,
    "Sigmoid": _sigmoid,
    "Silence": lambda *_: [],
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _same,
}
"""What each layer type computes when a net is tested. DetectionOutput is `reference_net.ReferenceNet.detect`."""
