"""Shapes of Caffe's common layers: the tops they make of their bottoms, and the blobs they learn.

Here are the layers that slide a window or multiply by weights. The layers of SSD are in `rules_ssd.py`; `RULES` there
has all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ssdlite_caffe.prototxt.rule import MANY, Layer, Outcome, Rule, need_axes, need_equal
from ssdlite_caffe.prototxt.rules_axes import AXIS_RULES
from ssdlite_caffe.prototxt.rules_loss import LOSS_RULES
from ssdlite_caffe.prototxt.rules_pointwise import POINT_RULES
from ssdlite_caffe.prototxt.sizes import (
    Shape,
    ShapeError,
    axis_index,
    conv_size,
    deconv_size,
    pool_size,
    same_size,
)

DEPTHWISE = frozenset({"ConvolutionDepthwise", "DepthwiseConvolution"})
"""Types that forks have for depthwise convolutions: the first reads no group, the second takes the channels for one."""
CONVOLUTIONS = frozenset({"Convolution", *DEPTHWISE})
"""Layer types with a convolution's weights."""


def _per_axis(layer: Layer, name: str, one: str, axes: int, default: int | None) -> list[int]:
    """A setting for each spatial axis: `pad`, or `pad_h` and `pad_w` (two axes only)."""
    param = layer.convolution_param
    given = list(getattr(param, name))
    if any(param.HasField(f"{one}_{side}") for side in "hw"):
        if given or axes != 2:
            raise ShapeError(f"{one}_h and {one}_w are for two spatial axes and cannot be combined with {name}")
        given = [getattr(param, f"{one}_{side}") for side in "hw"]
    if not given and default is not None:
        given = [default]
    if len(given) not in (1, axes):
        raise ShapeError(f"{name} is given {len(given)} times for {axes} spatial axes")
    return given * axes if len(given) == 1 else given


def _geometry(layer: Layer, axes: int) -> list[tuple[int, int, int, int]]:
    """(kernel, stride, pad, dilation) of each spatial axis; BaseConvolutionLayer::LayerSetUp."""
    kernel = _per_axis(layer, "kernel_size", "kernel", axes, None)
    stride = _per_axis(layer, "stride", "stride", axes, 1)
    pad = _per_axis(layer, "pad", "pad", axes, 0)
    dilation = list(layer.convolution_param.dilation) or [1]
    if len(dilation) not in (1, axes):
        raise ShapeError(f"dilation is given {len(dilation)} times for {axes} spatial axes")
    dilation = dilation * axes if len(dilation) == 1 else dilation
    if any(size < 1 for size in (*kernel, *stride, *dilation)):
        raise ShapeError(f"kernel_size, stride and dilation must be at least 1, got {kernel}, {stride} and {dilation}")
    return list(zip(kernel, stride, pad, dilation, strict=True))


def _conv_sizes(layer: Layer, spatial: Shape) -> list[int]:
    param = layer.convolution_param
    out = []
    for size, (kernel, stride, pad, dilation) in zip(spatial, _geometry(layer, len(spatial)), strict=True):
        if layer.type == "Deconvolution":
            out.append(deconv_size(size, kernel, stride=stride, pad=pad, dilation=dilation))
        elif param.HasField("tf_pad") and param.tf_pad == param.SAME:
            out.append(same_size(size, stride))
        else:
            pad = 0 if param.HasField("tf_pad") else pad
            out.append(conv_size(size, kernel, stride=stride, pad=pad, dilation=dilation))
    return out


def _convolution(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    """Convolution and Deconvolution: weights (out, in / group, kernel...), or (in, out / group, ...) for the latter."""
    param = layer.convolution_param
    if len(layer.top) != len(bottoms):
        raise ShapeError(f"{layer.type} makes one top of each bottom, got {len(bottoms)} and {len(layer.top)}")
    need_equal(bottoms)
    bottom = bottoms[0]
    axis = axis_index(param.axis, len(bottom))
    channels, spatial = bottom[axis], bottom[axis + 1 :]
    kernel = tuple(k for k, *_ in _geometry(layer, len(spatial)))
    if layer.type == "Deconvolution" and param.HasField("tf_pad"):
        raise ShapeError("tf_pad is for Convolution alone")
    depthwise = layer.type in DEPTHWISE
    outputs = channels if layer.type == "ConvolutionDepthwise" and not param.num_output else param.num_output
    if outputs < 1:
        raise ShapeError("num_output is missing")
    if depthwise and outputs != channels:
        raise ShapeError(f"num_output must be {channels}, the channels of the bottom, got {outputs}")
    if layer.type == "DepthwiseConvolution" and param.HasField("group") and param.group != channels:
        raise ShapeError(f"group must be {channels}, the channels of the bottom, or left out, got {param.group}")
    group = channels if depthwise else param.group
    if group < 1 or channels % group or outputs % group:
        raise ShapeError(f"group must divide {channels} input and {outputs} output channels, got {group}")
    sizes = _conv_sizes(layer, spatial)
    top = (*bottom[:axis], outputs, *sizes)
    if layer.type == "Deconvolution":
        weights, windows = (channels, outputs // group, *kernel), math.prod(bottom)
    else:
        weights, windows = (outputs, channels // group, *kernel), math.prod(top)
    bias = ((outputs,),) if param.bias_term else ()
    work = windows * math.prod(weights[1:]) * len(bottoms)
    return Outcome((top,) * len(layer.top), (weights, *bias), work)


def _pooling(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    """MAX, AVE or STOCHASTIC pooling of (N, C, H, W)."""
    param, bottom = layer.pooling_param, bottoms[0]
    need_axes(bottom, 4, 4)
    sides = [param.HasField(f"kernel_{side}") for side in "hw"]
    if param.global_pooling and (param.HasField("kernel_size") or any(sides)):
        raise ShapeError("global_pooling takes the whole map; remove kernel_size, kernel_h and kernel_w")
    if param.HasField("kernel_size") and all(sides):
        raise ShapeError("give kernel_size, or kernel_h and kernel_w, not both")
    for name in ("stride", "pad"):
        given = sum(param.HasField(f"{name}_{side}") for side in "hw")
        if given and (given == 1 or param.HasField(name)):
            raise ShapeError(f"give {name}, or both {name}_h and {name}_w")
    if param.global_pooling:
        kernels = bottom[2:]
    elif param.HasField("kernel_size"):
        kernels = (param.kernel_size, param.kernel_size)
    else:
        kernels = (param.kernel_h, param.kernel_w)
    strides = (param.stride_h, param.stride_w) if param.HasField("stride_h") else (param.stride, param.stride)
    pads = (param.pad_h, param.pad_w) if param.HasField("pad_h") else (param.pad, param.pad)
    if min(*kernels, *strides) < 1:
        raise ShapeError(f"kernel_size and stride must be at least 1, got {tuple(kernels)} and {strides}")
    if pads[0] >= kernels[0] or pads[1] >= kernels[1]:
        raise ShapeError(f"pad must be smaller than kernel_size, got {pads} and {tuple(kernels)}")
    ceil = param.ceil_mode and param.round_mode == param.CEIL
    window = zip(bottom[2:], kernels, strides, pads, strict=True)
    top = (*bottom[:2], *(pool_size(n, k, stride=s, pad=p, ceil=ceil) for n, k, s, p in window))
    return Outcome((top,) * len(layer.top))


def _embed(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    """A row of `num_output` numbers for each value of the bottom, which is one of `input_dim` words."""
    param = layer.embed_param
    if param.num_output < 1 or param.input_dim < 1:
        raise ShapeError(f"num_output and input_dim must be positive, got {param.num_output} and {param.input_dim}")
    bias = ((param.num_output,),) if param.bias_term else ()
    return Outcome(((*bottoms[0], param.num_output),), ((param.input_dim, param.num_output), *bias))


def _inner_product(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    """Axes from `axis` on become num_output; weights (out, in), or (in, out) when transposed."""
    param, bottom = layer.inner_product_param, bottoms[0]
    axis = axis_index(param.axis, len(bottom))
    inputs = math.prod(bottom[axis:])
    if param.num_output < 1:
        raise ShapeError("num_output is missing")
    weights = (inputs, param.num_output) if param.transpose else (param.num_output, inputs)
    bias = ((param.num_output,),) if param.bias_term else ()
    return Outcome(((*bottom[:axis], param.num_output),), (weights, *bias), math.prod(bottom) * param.num_output)


COMMON_RULES: dict[str, Rule] = {
    **{name: Rule(_convolution, (1, MANY), (1, MANY)) for name in (*sorted(CONVOLUTIONS), "Deconvolution")},
    "Pooling": Rule(_pooling, (1, 1), (1, 2)),
    "InnerProduct": Rule(_inner_product),
    "Embed": Rule(_embed),
    **POINT_RULES,
    **AXIS_RULES,
    **LOSS_RULES,
}
