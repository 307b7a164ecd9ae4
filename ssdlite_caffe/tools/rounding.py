"""How far one float32 rounding of every weight can move a layer's output, computed and not chosen.

A folded weight is the float64 result of a formula, rounded once to float32: it is off by at most UNIT of itself, half a
unit in its last place. `error_of` carries such errors through one layer, for every value on its own: for a convolution

    |error of y| <= sum(|w| |error of x|) + UNIT (sum(|w| |x|) + |bias|)

and for a function of one value its steepest slope times the error of x. Weights that are only moved are allowed the
same error, which no real mistake is as small as.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ssdlite_caffe.runtimes.reference_layers import LAYERS, factors, statistics
from ssdlite_caffe.runtimes.reference_windows import Array, Layer, convolve, deconvolve

UNIT = 2.0**-24
"""Largest error of a number rounded to float32, as a share of the number. IEEE 754."""

_Bound = Callable[[Layer, Sequence[Array], Sequence[Array], Sequence[Array]], Array]


def error_of(layer: Layer, weights: Sequence[Array], bottoms: Sequence[Array], errors: Sequence[Array]) -> list[Array]:
    """Bounds of the errors of a layer's tops.

    Args:
        layer: the layer.
        weights: its blobs, each of which may be off by UNIT of itself.
        bottoms: its bottoms.
        errors: bound of the error of each value of each bottom, of the same shapes.

    Returns:
        One array a top, of its shape.
    """
    bound = _BOUNDS.get(layer.type)
    if bound is not None:
        return [bound(layer, weights, bottoms, errors)] * len(layer.top)
    slope = _SLOPES.get(layer.type)
    if slope is not None:
        return [slope * errors[0]]
    return LAYERS[layer.type](layer, weights, errors)  # layers that move values move their errors


def _convolution(layer: Layer, weights: Sequence[Array], xs: Sequence[Array], errors: Sequence[Array]) -> Array:
    kernel = np.abs(weights[0])
    bias = np.abs(weights[1]) * UNIT if layer.convolution_param.bias_term else None
    return convolve(layer, kernel, bias, errors[0] + UNIT * np.abs(xs[0]))


def _deconvolution(layer: Layer, weights: Sequence[Array], xs: Sequence[Array], errors: Sequence[Array]) -> Array:
    bias = np.abs(weights[1]) * UNIT if layer.convolution_param.bias_term else None
    return deconvolve(layer, np.abs(weights[0]), bias, errors[0] + UNIT * np.abs(xs[0]))


def _batch_norm(layer: Layer, weights: Sequence[Array], xs: Sequence[Array], errors: Sequence[Array]) -> Array:
    """(x - mean) / deviation: half a relative error of the variance is one of the deviation."""
    mean, deviation = (values.reshape(-1, 1, 1) for values in statistics(layer, weights))
    return np.asarray((errors[0] + UNIT * np.abs(mean) + UNIT / 2 * np.abs(xs[0] - mean)) / deviation)


def _scale(layer: Layer, weights: Sequence[Array], xs: Sequence[Array], errors: Sequence[Array]) -> Array:
    x = xs[0]
    if len(xs) > 1:
        gate, error = (np.abs(factors(layer, values, x)) for values in (xs[1], errors[1]))
        y = errors[0] * gate + np.abs(x) * error
    else:
        gate = np.abs(factors(layer, weights[0], x))
        y = errors[0] * gate + UNIT * gate * np.abs(x)
    if layer.scale_param.bias_term:
        y = y + UNIT * np.abs(factors(layer, weights[-1], x))
    return np.asarray(y)


def _eltwise(layer: Layer, _: Sequence[Array], xs: Sequence[Array], errors: Sequence[Array]) -> Array:
    param = layer.eltwise_param
    if param.operation == param.PROD:
        value, error = xs[0], errors[0]
        for x, e in zip(xs[1:], errors[1:], strict=True):
            value, error = value * x, error * np.abs(x) + np.abs(value) * e
        return error
    coefficients = np.abs(list(param.coeff)) if param.coeff else np.ones(len(xs))
    return np.asarray(sum(c * e for c, e in zip(coefficients, errors, strict=True)))


def _power(layer: Layer, weights: Sequence[Array], xs: Sequence[Array], errors: Sequence[Array]) -> Array:
    """A scale that is a weight is the rounding of one of the model's constants, as a weight's value is."""
    param = layer.power_param
    slope = np.abs(param.power * (param.shift + param.scale * xs[0]) ** (param.power - 1) * param.scale)
    return np.asarray((errors[0] + (UNIT * np.abs(xs[0]) if weights else 0)) * slope)


def _exp(layer: Layer, weights: Sequence[Array], xs: Sequence[Array], errors: Sequence[Array]) -> Array:
    """exp(x + e) - exp(x), for the largest e."""
    value, further = (LAYERS["Exp"](layer, weights, [x])[0] for x in (xs[0], xs[0] + np.abs(errors[0])))
    return np.asarray(np.abs(further - value))


def _relu(layer: Layer, _: Sequence[Array], xs: Sequence[Array], errors: Sequence[Array]) -> Array:
    return max(1.0, abs(layer.relu_param.negative_slope)) * errors[0]


def _softmax(layer: Layer, weights: Sequence[Array], xs: Sequence[Array], errors: Sequence[Array]) -> Array:
    """With errors up to e, numerator and denominator change by a factor of exp(-e) to exp(e) each."""
    worst = errors[0].max(layer.softmax_param.axis, keepdims=True)
    return np.asarray(LAYERS["Softmax"](layer, weights, xs)[0] * np.expm1(2 * worst))


def _inner_product(layer: Layer, weights: Sequence[Array], xs: Sequence[Array], errors: Sequence[Array]) -> Array:
    sizes = [np.abs(values) for values in weights]
    moved = LAYERS["InnerProduct"](layer, [sizes[0], np.zeros_like(sizes[-1])], [errors[0]])[0]
    return np.asarray(moved + UNIT * LAYERS["InnerProduct"](layer, sizes, [np.abs(xs[0])])[0])


def _nothing(layer: Layer, weights: Sequence[Array], xs: Sequence[Array], errors: Sequence[Array]) -> Array:
    return np.zeros_like(LAYERS[layer.type](layer, weights, xs)[0])


_BOUNDS: dict[str, _Bound] = {
    "BatchNorm": _batch_norm,
    "Convolution": _convolution,
    "ConvolutionDepthwise": _convolution,
    "Deconvolution": _deconvolution,
    "DepthwiseConvolution": _convolution,
    "Eltwise": _eltwise,
    "Exp": _exp,
    "InnerProduct": _inner_product,
    "Power": _power,
    "PriorBox": _nothing,
    "ReLU": _relu,
    "Scale": _scale,
    "Softmax": _softmax,
}
_SLOPES = {"Clip": 1.0, "ReLU6": 1.0, "Sigmoid": 0.25}
"""Steepest slope."""
