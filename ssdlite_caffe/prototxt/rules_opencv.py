"""Shapes that OpenCV DNN 4.x makes where they are not Caffe's, and the layers that it alone has.

All were tried out: a test loads and runs a net for each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ssdlite_caffe.prototxt.rule import MANY, Layer, Outcome, Rule, need_axes, need_equal, same, unknown
from ssdlite_caffe.prototxt.rules_pointwise import POINT_RULES
from ssdlite_caffe.prototxt.rules_ssd import RULES
from ssdlite_caffe.prototxt.sizes import Shape, ShapeError, axis_index, show

ACTIVATIONS = (
    "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Celu", "Cos", "Cosh", "Erf", "Floor", "Gelu",
    "GeluApproximation", "Identity", "Not", "Reciprocal", "Round", "Selu", "Shrink", "Sign", "Sin", "Sinh", "Softplus",
    "Softsign", "Sqrt", "Tan", "ThresholdedRelu",
)  # fmt: skip
"""Layers of OpenCV that compute each value from one value."""
UNSHAPED = {"Accum": (1, 2), "Correlation": (2, 2), "Resample": (1, 1), "MaxUnpool": (2, 2)}
"""Layers of OpenCV whose parameters Caffe's messages do not have -> least and greatest count of bottoms."""


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
    start = axis_index(axis, len(bottom))
    return any(math.prod(bottom[start:end]) == math.prod(factor) for end in range(start + 1, len(bottom) + 1))


def _scale(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    """As in Caffe, and a second bottom may have further axes, such as N x C x 1 x 1."""
    if len(bottoms) == 1:
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
    if param.pad_beg or param.pad_end or param.shrink_factor != 1:
        raise ShapeError("OpenCV does not read shrink_factor, pad_beg and pad_end; give height and width")
    if not param.HasField("zoom_factor") and (param.height < 1 or param.width < 1):
        raise ShapeError("OpenCV needs height and width, or zoom_factor")
    if param.HasField("zoom_factor") and param.height and param.width:
        raise ShapeError("OpenCV takes zoom_factor and no height and width when both are given; give one")
    return RULES["Interp"].shape(layer, bottoms)


def _reorg(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    """OpenCV calls the stride reorg_stride, 2 by default."""
    param = layer.reorg_param
    stride = param.reorg_stride or 2
    if param.reverse:
        raise ShapeError("OpenCV does not read reverse")
    if param.stride not in (0, stride):
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
    "NormalizeBBox": RULES["Normalize"],
    "SoftMax": POINT_RULES["Softmax"],
}
"""Rules of the layers that only OpenCV has."""

OPENCV_DIFFERS: dict[str, Rule] = {
    "Axpy": Rule(_axpy, (3, 3)),
    "BatchNorm": Rule(_batch_norm, in_place=True),
    "Eltwise": Rule(_eltwise, (2, MANY)),
    "Interp": Rule(_interp),
    "Permute": Rule(_permute),
    "Reorg": Rule(_reorg),
    "Scale": Rule(_scale, (1, 2), (1, 1), in_place=True),
}
"""Rules of layers of Caffe that OpenCV shapes in another way."""
