"""Shapes of the layers that keep the shape of their bottom: activations, normalization, scales, sums."""

from __future__ import annotations

from collections.abc import Sequence

from ssdlite_caffe.prototxt.rule import MANY, Layer, Outcome, Rule, need_axes, need_equal, nothing, same
from ssdlite_caffe.prototxt.sizes import Shape, ShapeError, axis_index, show


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
    if any(len(b) == 4 and b[:2] == bottoms[0][:2] and b[2:] == (1, 1) != bottoms[0][2:] for b in bottoms):
        raise ShapeError(
            f"Eltwise does not repeat one value for a whole map, got {' and '.join(show(b) for b in bottoms[:8])}: "
            "OpenCV does, Caffe stops, and MNN computes something else; --gate has other layers for it"
        )
    need_equal(bottoms)
    coefficients = len(layer.eltwise_param.coeff)
    if coefficients not in (0, len(bottoms)):
        raise ShapeError(f"{coefficients} coeff are given for {len(bottoms)} bottoms")
    return Outcome((bottoms[0],))


def _softmax(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    axis_index(layer.softmax_param.axis, len(bottoms[0]))
    return Outcome((bottoms[0],))


def _lrn(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    need_axes(bottoms[0], 4, 4)
    if layer.lrn_param.local_size % 2 == 0:
        raise ShapeError(f"local_size must be odd, got {layer.lrn_param.local_size}")
    return same(layer, bottoms)


def _exponential(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    """Exp and Log; a base of -1 stands for e."""
    base = layer.exp_param.base if layer.type == "Exp" else layer.log_param.base
    if base <= 0 and base != -1:
        raise ShapeError(f"base must be positive, or -1 for e, got {base:g}")
    return same(layer, bottoms)


ELEMENTWISE = (
    "ReLU", "ReLU6", "ELU", "Clip", "Power", "Sigmoid", "TanH", "HardSwish", "HardSigmoid", "Swish", "Dropout",
    "BNLL", "Threshold",
)  # fmt: skip

POINT_RULES: dict[str, Rule] = {
    **{name: Rule(same, in_place=True) for name in ELEMENTWISE},
    **{name: Rule(_exponential, in_place=True) for name in ("Exp", "Log")},
    "AbsVal": Rule(same),
    "LRN": Rule(_lrn),
    "MVN": Rule(same),
    "Split": Rule(same, (1, 1), (1, MANY)),
    "Silence": Rule(nothing, (1, MANY), (0, 0)),
    "BatchNorm": Rule(_batch_norm, in_place=True),
    "Scale": Rule(_scaling, (1, 2), (1, 1), in_place=True),
    "Bias": Rule(_scaling, (1, 2), (1, 1), in_place=True),
    "PReLU": Rule(_prelu, in_place=True),
    "Eltwise": Rule(_eltwise, (2, MANY)),
    "Softmax": Rule(_softmax, in_place=True),
}
