"""Caffe's layers in numpy, as the SSD branch defines them, in float32 or float64: `LAYERS` has one function a type.

A function takes the layer, its blobs and its bottoms, all of one dtype, and returns its tops in that dtype. Feature
maps are (N, C, H, W). Shapes have been checked before (`prototxt.shapes.infer`).

Source: the layer's .cpp file in the SSD branch of Caffe; for Pad and tf_pad, in the forks that have them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.sizes import axis_index, reshape
from ssdlite_caffe.runtimes.reference_windows import WINDOW_LAYERS, Array, Function, Layer, pair


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


def _power(layer: Layer, weights: Sequence[Array], xs: Sequence[Array]) -> list[Array]:
    """(scale * x + shift) ** power; a weight, which no file has, is the scale: see `ReferenceNet.with_constants`."""
    param = layer.power_param
    y = xs[0] * (weights[0] if weights else param.scale) + param.shift
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


def _inner_product(layer: Layer, weights: Sequence[Array], xs: Sequence[Array]) -> list[Array]:
    param = layer.inner_product_param
    x = xs[0].reshape(*xs[0].shape[: axis_index(param.axis, xs[0].ndim)], -1)
    y = x @ (weights[0] if param.transpose else weights[0].T)
    return [y + weights[1] if param.bias_term else y]


def _same(layer: Layer, _: Sequence[Array], xs: Sequence[Array]) -> list[Array]:
    return [xs[0]] * len(layer.top)


def _prior_box(layer: Layer, _: Sequence[Array], xs: Sequence[Array]) -> list[Array]:
    """(1, 2, N * 4): corners of the default boxes of a feature map as fractions of the image, then their variances."""
    param = layer.prior_box_param
    (rows, columns), image = xs[0].shape[2:], xs[1].shape[2:]
    height, width = pair(param, "img_h", "img_w", [param.img_size] if param.img_size else [], 0)
    height, width = height or image[0], width or image[1]
    down, across = pair(param, "step_h", "step_w", [param.step] if param.step else [], 0)
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
    **WINDOW_LAYERS,
    "BatchNorm": _batch_norm,
    "Clip": _clip,
    "Concat": _concat,
    "Dropout": _same,
    "Eltwise": _eltwise,
    "Exp": _exp,
    "Flatten": _flatten,
    "InnerProduct": _inner_product,
    "Pad": _pad,
    "Permute": _permute,
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
