"""Shapes of Caffe's common layers: the tops they make of their bottoms, and the blobs they learn.

A rule takes a layer and the shapes of its bottoms and returns an Outcome, or raises ShapeError with the reason. The
layers of SSD are in `rules_ssd.py`; `RULES` there has both.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.sizes import (
    Shape,
    ShapeError,
    axis_index,
    conv_size,
    deconv_size,
    pool_size,
    reshape,
    same_size,
    show,
)

Layer = caffe_pb2.LayerParameter


@dataclass(frozen=True)
class Outcome:
    """The result of a rule.

    Attributes:
        tops: shape of each top; None where it depends on the data.
        params: shapes of the blobs that the layer learns, in Caffe's order.
        multiply_adds: of convolutions and inner products, without biases; 0 for other layers.
    """

    tops: tuple[Shape | None, ...]
    params: tuple[Shape, ...] = ()
    multiply_adds: int = 0


@dataclass(frozen=True)
class Rule:
    """How the shapes of one layer type are computed.

    Attributes:
        shape: the rule itself.
        bottoms, tops: least and greatest count.
        in_place: whether a top may be the bottom itself.
    """

    shape: Callable[[Layer, Sequence[Shape]], Outcome]
    bottoms: tuple[int, int] = (1, 1)
    tops: tuple[int, int] = (1, 1)
    in_place: bool = False


MANY = 10**6


def need_axes(shape: Shape, least: int, greatest: int) -> None:
    """Raise ShapeError unless a bottom has that many axes."""
    if not least <= len(shape) <= greatest:
        wanted = str(least) if least == greatest else f"{least} to {greatest}"
        raise ShapeError(f"the bottom must have {wanted} axes, got {show(shape)}")


def need_equal(bottoms: Sequence[Shape]) -> None:
    """Raise ShapeError unless all bottoms have one shape."""
    if any(shape != bottoms[0] for shape in bottoms):
        raise ShapeError("bottoms have different shapes: " + ", ".join(show(shape) for shape in bottoms[:8]))


def _same(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    return Outcome((bottoms[0],) * len(layer.top))


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
    if min(*kernel, *stride, *dilation) < 1:
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
    need_equal(bottoms)
    bottom = bottoms[0]
    axis = axis_index(param.axis, len(bottom))
    channels, spatial = bottom[axis], bottom[axis + 1 :]
    if not spatial:
        raise ShapeError(f"the bottom must have spatial axes behind axis {axis}, got {show(bottom)}")
    kernel = tuple(k for k, *_ in _geometry(layer, len(spatial)))
    depthwise = layer.type == "ConvolutionDepthwise"
    outputs = channels if depthwise and not param.num_output else param.num_output
    group = channels if depthwise else param.group
    if outputs < 1:
        raise ShapeError("num_output is missing")
    if depthwise and outputs != channels:
        raise ShapeError(f"num_output must be {channels}, the channels of the bottom, got {outputs}")
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


def _batch_norm(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    """Blobs mean, variance and their common factor."""
    channels = bottoms[0][1] if len(bottoms[0]) > 1 else 1
    return Outcome((bottoms[0],), ((channels,), (channels,), (1,)))


def _scaling(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    """Scale and Bias: by a second bottom, or by a learned blob over `num_axes` axes from `axis` on."""
    is_scale = layer.type == "Scale"
    param = layer.scale_param if is_scale else layer.bias_param
    bottom = bottoms[0]
    if len(bottoms) == 2:
        factor = bottoms[1]
        start = axis_index(param.axis, len(bottom)) if factor else 0
        if bottom[start : start + len(factor)] != factor:
            raise ShapeError(f"the second bottom, {show(factor)}, does not match {show(bottom)} from axis {start} on")
    else:
        start = axis_index(param.axis, len(bottom))
        end = len(bottom) if param.num_axes == -1 else start + param.num_axes
        if not start <= end <= len(bottom):
            raise ShapeError(f"num_axes {param.num_axes} from axis {start} on exceeds the axes of {show(bottom)}")
        factor = bottom[start:end]
    learned = [factor] if len(bottoms) == 1 else []
    if is_scale and layer.scale_param.bias_term:
        learned.append(factor)
    return Outcome((bottom,), tuple(learned))


def _prelu(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    need_axes(bottoms[0], 2, 32)
    return Outcome((bottoms[0],), ((),) if layer.prelu_param.channel_shared else ((bottoms[0][1],),))


def _eltwise(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    need_equal(bottoms)
    coefficients = len(layer.eltwise_param.coeff)
    if coefficients not in (0, len(bottoms)):
        raise ShapeError(f"{coefficients} coeff are given for {len(bottoms)} bottoms")
    return Outcome((bottoms[0],))


def _concat(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    param = layer.concat_param
    axis = axis_index(param.concat_dim if param.HasField("concat_dim") else param.axis, len(bottoms[0]))
    rest = [(*shape[:axis], *shape[axis + 1 :]) for shape in bottoms]
    if any(other != rest[0] or len(shape) != len(bottoms[0]) for other, shape in zip(rest, bottoms, strict=True)):
        raise ShapeError(
            f"bottoms may differ in axis {axis} alone, along which they are concatenated, got "
            + ", ".join(show(shape) for shape in bottoms[:8])
        )
    joined = sum(shape[axis] for shape in bottoms)
    return Outcome(((*bottoms[0][:axis], joined, *bottoms[0][axis + 1 :]),))


def _slice(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    param, bottom = layer.slice_param, bottoms[0]
    axis = axis_index(param.slice_dim if param.HasField("slice_dim") else param.axis, len(bottom))
    size, tops = bottom[axis], len(layer.top)
    points = list(param.slice_point)
    if not points:
        if size % tops:
            raise ShapeError(f"axis {axis} of size {size} cannot be cut into {tops} equal tops; give slice_point")
        points = [size // tops * place for place in range(1, tops)]
    edges = [0, *points, size]
    if len(points) != tops - 1 or any(a >= b for a, b in itertools.pairwise(edges)):
        raise ShapeError(f"slice_point {points} does not cut axis {axis} of size {size} into {tops} tops")
    parts = [b - a for a, b in itertools.pairwise(edges)]
    return Outcome(tuple((*bottom[:axis], part, *bottom[axis + 1 :]) for part in parts))


def _crop(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    param, (bottom, like) = layer.crop_param, bottoms
    axis = axis_index(param.axis, len(bottom))
    cropped = len(bottom) - axis
    if len(like) != len(bottom):
        raise ShapeError(f"{show(bottom)} cannot be cropped to {show(like)}: they differ in their number of axes")
    if len(param.offset) > 1 and len(param.offset) != cropped:
        raise ShapeError(f"{len(param.offset)} offset are given for {cropped} cropped axes")
    offsets = list(param.offset) if len(param.offset) > 1 else list(param.offset or [0]) * cropped
    for place, offset in enumerate(offsets, axis):
        if bottom[place] - offset < like[place]:
            raise ShapeError(
                f"axis {place} of size {bottom[place]} cannot be cropped to {like[place]} from offset {offset} on"
            )
    return Outcome(((*bottom[:axis], *like[axis:]),))


def _pad(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    """Zeros (or repeated edges) around the last two axes; a layer of some forks."""
    param, bottom = layer.pad_param, bottoms[0]
    need_axes(bottom, 2, 4)
    height, width = bottom[-2] + param.pad_u + param.pad_d, bottom[-1] + param.pad_l + param.pad_r
    return Outcome(((*bottom[:-2], height, width),))


def _flatten(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    bottom = bottoms[0]
    start = axis_index(layer.flatten_param.axis, len(bottom))
    end = axis_index(layer.flatten_param.end_axis, len(bottom)) + 1
    if start >= end:
        raise ShapeError(f"axis {start} must not be behind end_axis {end - 1}")
    return Outcome(((*bottom[:start], math.prod(bottom[start:end]), *bottom[end:]),))


def _reshape(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    param = layer.reshape_param
    return Outcome((reshape(bottoms[0], list(param.shape.dim), param.axis, param.num_axes),))


def _softmax(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    axis_index(layer.softmax_param.axis, len(bottoms[0]))
    return Outcome((bottoms[0],))


def _reduction(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    return Outcome((bottoms[0][: axis_index(layer.reduction_param.axis, len(bottoms[0]))],))


def _tile(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    param, bottom = layer.tile_param, bottoms[0]
    axis = axis_index(param.axis, len(bottom))
    return Outcome(((*bottom[:axis], bottom[axis] * param.tiles, *bottom[axis + 1 :]),))


def _arg_max(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    param, bottom = layer.argmax_param, bottoms[0]
    if param.HasField("axis"):
        axis = axis_index(param.axis, len(bottom))
        return Outcome(((*bottom[:axis], param.top_k, *bottom[axis + 1 :]),))
    pair = 2 if param.out_max_val else 1
    return Outcome(((bottom[0], pair, param.top_k, *(1,) * (len(bottom) - 3)),))


def _accuracy(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    axis = axis_index(layer.accuracy_param.axis, len(bottoms[0]))
    _need_labels(bottoms, axis)
    return Outcome(((), (bottoms[0][axis],))[: len(layer.top)])


def _softmax_loss(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    _need_labels(bottoms, axis_index(layer.softmax_param.axis, len(bottoms[0])))
    return Outcome(((), bottoms[0])[: len(layer.top)])


def _need_labels(bottoms: Sequence[Shape], axis: int) -> None:
    """Raise ShapeError unless there is one label for each index of the other axes."""
    labels = math.prod(bottoms[0][:axis] + bottoms[0][axis + 1 :])
    if math.prod(bottoms[1]) != labels:
        raise ShapeError(f"{show(bottoms[0])} needs {labels} labels, got {show(bottoms[1])}")


def _loss(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    """A loss that compares two bottoms of the same shape; its top is one number."""
    if math.prod(bottoms[0]) != math.prod(bottoms[1]):
        need_equal(bottoms[:2])
    return Outcome(((),) * len(layer.top))


def _label_loss(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    if bottoms[0][:1] != bottoms[1][:1]:
        raise ShapeError(f"bottoms have different batch sizes: {show(bottoms[0])} and {show(bottoms[1])}")
    return Outcome(((),) * len(layer.top))


def _nothing(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    return Outcome(())


CONVOLUTIONS = frozenset({"Convolution", "ConvolutionDepthwise", "DepthwiseConvolution"})
"""Layer types with a convolution's weights: Caffe's own, and two that forks have for depthwise convolutions."""

ELEMENTWISE = (
    "ReLU", "ReLU6", "ELU", "Clip", "Power", "Sigmoid", "TanH", "HardSwish", "HardSigmoid", "Swish", "Dropout",
    "Exp", "Log", "BNLL", "Threshold",
)  # fmt: skip

COMMON_RULES: dict[str, Rule] = {
    **{name: Rule(_same, in_place=True) for name in ELEMENTWISE},
    **{name: Rule(_convolution, (1, MANY), (1, MANY)) for name in (*sorted(CONVOLUTIONS), "Deconvolution")},
    "AbsVal": Rule(_same),
    "LRN": Rule(_same),
    "MVN": Rule(_same),
    "Split": Rule(_same, (1, 1), (1, MANY)),
    "Silence": Rule(_nothing, (1, MANY), (0, 0)),
    "Pooling": Rule(_pooling, (1, 1), (1, 2)),
    "InnerProduct": Rule(_inner_product),
    "BatchNorm": Rule(_batch_norm, in_place=True),
    "Scale": Rule(_scaling, (1, 2), (1, 1), in_place=True),
    "Bias": Rule(_scaling, (1, 2), (1, 1), in_place=True),
    "PReLU": Rule(_prelu, in_place=True),
    "Eltwise": Rule(_eltwise, (2, MANY)),
    "Concat": Rule(_concat, (1, MANY)),
    "Slice": Rule(_slice, (1, 1), (1, MANY)),
    "Crop": Rule(_crop, (2, 2)),
    "Pad": Rule(_pad),
    "Flatten": Rule(_flatten),
    "Reshape": Rule(_reshape),
    "Softmax": Rule(_softmax, in_place=True),
    "Reduction": Rule(_reduction),
    "Tile": Rule(_tile),
    "ArgMax": Rule(_arg_max),
    "Accuracy": Rule(_accuracy, (2, 2), (1, 2)),
    "SoftmaxWithLoss": Rule(_softmax_loss, (2, 3), (0, 2)),
    "EuclideanLoss": Rule(_loss, (2, 2), (0, 1)),
    "SigmoidCrossEntropyLoss": Rule(_loss, (2, 2), (0, 2)),
    "SmoothL1Loss": Rule(_loss, (2, 4), (0, 1)),
    "HingeLoss": Rule(_label_loss, (2, 2), (0, 1)),
    "InfogainLoss": Rule(_label_loss, (2, 3), (0, 2)),
    "MultinomialLogisticLoss": Rule(_label_loss, (2, 2), (0, 1)),
    "ContrastiveLoss": Rule(_label_loss, (3, 3), (0, 1)),
}
