"""Shapes that OpenCV DNN 4.x makes where they are not Caffe's, and the layers that it alone has.

All were tried out: a test loads and runs a net for each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.rule import MANY, Layer, Outcome, Rule, need_axes, need_equal, same, unknown
from ssdlite_caffe.prototxt.rules_pointwise import POINT_RULES
from ssdlite_caffe.prototxt.rules_ssd import RULES
from ssdlite_caffe.prototxt.shapes import NetShapes, Phase, infer
from ssdlite_caffe.prototxt.sizes import Shape, ShapeError, axis_index, show

ACTIVATIONS = (
    "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Celu", "Cos", "Cosh", "Erf", "Floor", "Gelu",
    "GeluApproximation", "Identity", "Not", "Reciprocal", "Round", "Selu", "Shrink", "Sign", "Sin", "Sinh", "Softplus",
    "Softsign", "Sqrt", "Tan", "ThresholdedRelu",
)  # fmt: skip
"""Layers of OpenCV that compute each value from one value."""
UNSHAPED = {"Accum": (1, 2), "Correlation": (2, 2), "Resample": (1, 1), "MaxUnpool": (2, 2)}
"""Layers of OpenCV whose parameters Caffe's messages do not have -> least and greatest count of bottoms."""

_ONE_SIDE = "OpenCV reads pad_h and pad_w only if both are given"


def _convolution(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    """Along axis 1 alone; a Deconvolution without dilation."""
    param = layer.convolution_param
    outcome = RULES[layer.type].shape(layer, bottoms)
    if param.HasField("pad_h") != param.HasField("pad_w") and (param.pad_h or param.pad_w):
        raise ShapeError(_ONE_SIDE)
    if param.num_output < 1:
        raise ShapeError("num_output is missing")
    if param.axis != 1:
        raise ShapeError(f"OpenCV takes axis 1 alone, got {param.axis}")
    if layer.type == "Deconvolution" and any(one != 1 for one in param.dilation):
        raise ShapeError("OpenCV does not read dilation in Deconvolution")
    if param.HasField("group") and (param.group < 1 or param.num_output % param.group):
        raise ShapeError(f"group must divide {param.num_output} output channels, got {param.group}")
    return outcome


def _flatten(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    """At least one axis."""
    axes = len(bottoms[0])
    if axis_index(layer.flatten_param.axis, axes) > axis_index(layer.flatten_param.end_axis, axes):
        raise ShapeError("OpenCV cannot flatten no axis at all")
    return RULES["Flatten"].shape(layer, bottoms)


def _concat(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    param = layer.concat_param
    _same_axis(param.axis, "concat_dim", param.concat_dim if param.HasField("concat_dim") else param.axis)
    return RULES["Concat"].shape(layer, bottoms)


def _slice(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    param = layer.slice_param
    _same_axis(param.axis, "slice_dim", param.slice_dim if param.HasField("slice_dim") else param.axis)
    return RULES["Slice"].shape(layer, bottoms)


def _same_axis(axis: int, old: str, given: int) -> None:
    """Raise ShapeError if the older name of `axis`, which OpenCV does not read, has another value."""
    if given != axis:
        raise ShapeError(f"OpenCV does not read {old}, and takes axis {axis}; write axis: {given}")


def _normalize(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    if layer.norm_param.across_spatial and not layer.norm_param.channel_shared:
        raise ShapeError("OpenCV takes channel_shared: false only with across_spatial: false")
    return RULES["Normalize"].shape(layer, bottoms)


def _eltwise(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    """As in Caffe, and a bottom may have one value for each channel: N x C x 1 x 1 with N x C x H x W."""
    largest = max(bottoms, key=math.prod)
    need_axes(bottoms[0], 2, 32)
    for bottom in bottoms:
        single = all(size == 1 for size in bottom[2:])
        if len(bottom) != len(largest) or bottom[:2] != largest[:2] or not (bottom == largest or single):
            need_equal(bottoms)
    coefficients = len(layer.eltwise_param.coeff)
    if coefficients not in (0, len(bottoms)):
        raise ShapeError(f"{coefficients} coeff are given for {len(bottoms)} bottoms")
    if coefficients and layer.eltwise_param.operation != layer.eltwise_param.SUM:
        raise ShapeError("coeff are for the operation SUM alone")
    return Outcome((largest,))


def _fits(factor: Shape, bottom: Shape, axis: int) -> bool:
    """Whether OpenCV multiplies by `factor` from `axis` on: it compares counts of values, not sizes."""
    if math.prod(factor) == 1:
        return True
    start = axis_index(axis, len(bottom))
    return any(math.prod(bottom[start:end]) == math.prod(factor) for end in range(start + 1, len(bottom) + 1))


def _scale(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    """As in Caffe, and a second bottom may have further axes, such as N x C x 1 x 1."""
    if len(bottoms) == 1:
        if layer.scale_param.axis < 0:
            raise ShapeError(f"OpenCV takes no negative axis for Scale, got {layer.scale_param.axis}")
        return POINT_RULES["Scale"].shape(layer, bottoms)
    if not _fits(bottoms[1], bottoms[0], layer.scale_param.axis):
        raise ShapeError(
            f"the second bottom, {show(bottoms[1])}, does not match {show(bottoms[0])} from axis "
            f"{layer.scale_param.axis} on"
        )
    return Outcome((bottoms[0],))


def _axpy(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    factor, *rest = bottoms
    need_equal(rest)
    need_axes(rest[0], 2, 32)
    if not _fits(factor, rest[0], 1):
        raise ShapeError(
            f"the first bottom, {show(factor)}, does not match {show(rest[0])} from axis 1 on"
            + (" (OpenCV runs Axpy for one image at a time)" if rest[0][0] > 1 else "")
        )
    return Outcome((rest[0],))


def _permute(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    """All axes have to be named, unless those named stay where they are."""
    order = list(layer.permute_param.order)
    if len(order) < len(bottoms[0]) and order != list(range(len(order))):
        raise ShapeError(f"OpenCV wants all {len(bottoms[0])} axes of {show(bottoms[0])} in order, got {order}")
    return RULES["Permute"].shape(layer, bottoms)


def _interp(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    """OpenCV reads zoom_factor, or else height and width; it takes no second bottom."""
    param = layer.interp_param
    zoom, size = param.HasField("zoom_factor"), param.height > 0 and param.width > 0
    if not zoom and not size:
        raise ShapeError("OpenCV needs height and width, or zoom_factor")
    shrinks = param.HasField("shrink_factor") and (param.shrink_factor != 1 or size or not zoom)
    if param.pad_beg or param.pad_end or shrinks:
        raise ShapeError("OpenCV does not read shrink_factor, pad_beg and pad_end; give height and width")
    return RULES["Interp"].shape(layer, bottoms)


def _reorg(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    """OpenCV calls the stride reorg_stride, 2 by default."""
    param = layer.reorg_param
    stride = param.reorg_stride if param.HasField("reorg_stride") else 2
    if param.reverse:
        raise ShapeError("OpenCV does not read reverse")
    if param.HasField("stride") and param.stride != stride:
        raise ShapeError(f"OpenCV reads reorg_stride, not stride; give reorg_stride: {param.stride} too")
    outcome = RULES["Reorg"].shape(layer, bottoms)
    if bottoms[0][1] * bottoms[0][2] % stride**2:
        raise ShapeError(
            f"OpenCV needs channels x height to be a multiple of {stride**2} (stride x stride), got {show(bottoms[0])}"
        )
    return outcome


def _batch_norm(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    param = layer.batch_norm_param
    if param.HasField("use_global_stats") and not param.use_global_stats and bottoms[0][0] > 1:
        raise ShapeError("OpenCV takes use_global_stats: false for one image at a time alone; remove the field")
    return POINT_RULES["BatchNorm"].shape(layer, bottoms)


def _flow_warp(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    """An image, and for each of its pixels where the value comes from."""
    image, flow = bottoms
    need_axes(image, 4, 4)
    if flow != (image[0], 2, *image[2:]):
        raise ShapeError(f"the second bottom must have 2 channels and the size of {show(image)}, got {show(flow)}")
    return Outcome((image,))


OPENCV_RULES: dict[str, Rule] = {
    **{name: Rule(same, in_place=True) for name in ACTIVATIONS},
    **{name: Rule(unknown, bottoms) for name, bottoms in UNSHAPED.items()},
    "FlowWarp": Rule(_flow_warp, (2, 2)),
    "NormalizeBBox": Rule(_normalize),
    "SoftMax": POINT_RULES["Softmax"],
}
"""Rules of the layers that only OpenCV has."""

OPENCV_DIFFERS: dict[str, Rule] = {
    "Axpy": Rule(_axpy, (3, 3)),
    "BatchNorm": Rule(_batch_norm, in_place=True),
    "Eltwise": Rule(_eltwise, (2, MANY)),
    **{
        name: Rule(_convolution, (1, MANY), (1, MANY))
        for name in ("Convolution", "ConvolutionDepthwise", "Deconvolution")
    },
    "Concat": Rule(_concat, (1, MANY)),
    "Slice": Rule(_slice, (1, 1), (1, MANY)),
    "Flatten": Rule(_flatten),
    "Normalize": Rule(_normalize),
    "Interp": Rule(_interp),
    "Permute": Rule(_permute),
    "Reorg": Rule(_reorg),
    "Scale": Rule(_scale, (1, 2), (1, 1), in_place=True),
}
"""Rules of layers of Caffe that OpenCV shapes in another way."""

ALL_OPENCV_RULES: dict[str, Rule] = {**RULES, **OPENCV_RULES, **OPENCV_DIFFERS}
"""The rules of OpenCV DNN, and Caffe's for the layers that OpenCV does not have."""


def infer_for_any(net: caffe_pb2.NetParameter, *, phase: Phase | None = None) -> NetShapes:
    """The shapes of a net by Caffe's rules or, if only OpenCV has its layers and shapes, by OpenCV's."""
    shapes = infer(net, phase=phase)
    if not shapes.errors:
        return shapes
    opencv = infer(net, phase=phase, rules=ALL_OPENCV_RULES)
    return shapes if opencv.errors else opencv
