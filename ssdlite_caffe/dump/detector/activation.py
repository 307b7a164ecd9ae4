"""The activation after a convolution, found from the ops and constants of the graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ssdlite_caffe.dump.detector.affine import ADDS, DIVISIONS, Constants
from ssdlite_caffe.dump.graph.view import Node, Ref, Use
from ssdlite_caffe.errors import ModelError

Kind = Literal["relu6", "relu", "hard_swish", "hard_sigmoid", "none"]
_SIXTH = float(np.float32(1 / 6))
_UNKNOWN = frozenset(
    {
        "Elu", "Selu", "LeakyRelu", "Sigmoid", "Tanh", "Softplus", "Softsign", "Erf", "Minimum", "Maximum",
        "ClipByValue",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Found:
    """An activation.

    Attributes:
        kind: none if no activation follows.
        end: the activation's output.
        gate_scale: the factor of a hard_sigmoid, relu6(x + 3) * gate_scale.
        shift: to add to x: -3 where constant folding has put the gate's + 3 into the bias before it, else 0.
        scale: `end` is the activation times this: 6 for a hard swish whose factor 1/6 a converter has folded into the
            kernels after it, as TOCO, TensorFlow Lite's first converter, does; else 1.
    """

    kind: Kind
    end: Ref
    gate_scale: float | None = None
    shift: float = 0.0
    scale: float = 1.0


def activation_at(constants: Constants, ref: Ref, scope: str) -> Found | None:
    """The activation that reads `ref`; None if another op reads it, after which the search continues.

    Raises:
        ModelError: an activation that a MobileNet SSD does not have.
    """
    uses = constants.graph.uses(ref)
    swish = next((found for use in uses if (found := _hard_swish(constants, ref, use, scope)) is not None), None)
    if swish is not None:
        return swish
    if len(uses) != 1:
        return Found("none", ref)
    use = uses[0]
    found = _gate(constants, use) or _plain(constants, ref)
    if found is None and use.node.op in _UNKNOWN:
        raise ModelError(
            f"{scope} is followed by {use.node.name}, the activation {use.node.op}, which no MobileNet SSD has"
        )
    return found


def _sole_use(constants: Constants, ref: Ref) -> Use | None:
    uses = constants.graph.uses(ref)
    return uses[0] if len(uses) == 1 else None


def _constant_operand(constants: Constants, use: Use, ops: frozenset[str]) -> float | None:
    """The constant operand of a two-input op of `ops` whose other operand is read at `use`; None if there is none."""
    node = use.node
    if node.op not in ops or len(node.inputs) != 2:
        return None
    return constants.plain.scalar(node.inputs[1 - use.position])


def _factor(constants: Constants, use: Use) -> float | None:
    """The c of x * c, or of x / (1 / c)."""
    value = _constant_operand(constants, use, frozenset({"Mul"}))
    if value is None and use.position == 0:
        divisor = _constant_operand(constants, use, DIVISIONS)
        value = 1 / divisor if divisor else None
    return value


def _clipped(constants: Constants, ref: Ref) -> Ref | None:
    """The end of a relu6 of `ref`: Relu6, or minimum and maximum against 6 and 0 in either order."""
    use = _sole_use(constants, ref)
    if use is None:
        return None
    if use.node.op == "Relu6":
        return use.node.ref
    if use.node.op == "ClipByValue" and use.position == 0 and len(use.node.inputs) == 3:
        bounds = [constants.plain.scalar(bound) for bound in use.node.inputs[1:]]
        return use.node.ref if bounds == [0.0, 6.0] else None
    first = _bound(constants, use)
    if first is None:
        return None
    second_use = _sole_use(constants, use.node.ref)
    second = None if second_use is None else _bound(constants, second_use)
    if second_use is not None and {first, second} == {"above 0", "below 6"}:
        return second_use.node.ref
    return None


def _bound(constants: Constants, use: Use) -> str | None:
    if use.node.op == "Relu" or _constant_operand(constants, use, frozenset({"Maximum"})) == 0.0:
        return "above 0"
    return "below 6" if _constant_operand(constants, use, frozenset({"Minimum"})) == 6.0 else None


def _plain(constants: Constants, ref: Ref) -> Found | None:
    """relu6 or relu; None when neither follows."""
    end = _clipped(constants, ref)
    if end is not None:
        after = _sole_use(constants, end)
        factor = None if after is None else _factor(constants, after)
        if after is not None and factor is not None and abs(factor - 1 / 6) < 1e-3:
            return Found("hard_sigmoid", after.node.ref, factor, shift=-3.0)
        return Found("relu6", end)
    use = _sole_use(constants, ref)
    return Found("relu", use.node.ref) if use is not None and _bound(constants, use) == "above 0" else None


def _shifted_relu6(constants: Constants, use: Use) -> Ref | None:
    """The end of relu6(x + 3), read at `use`."""
    if _constant_operand(constants, use, ADDS) != 3.0:
        return None
    return _clipped(constants, use.node.ref)


def _gate(constants: Constants, use: Use) -> Found | None:
    """relu6(x + 3) * c."""
    end = _shifted_relu6(constants, use)
    after = None if end is None else _sole_use(constants, end)
    factor = None if after is None else _factor(constants, after)
    return None if after is None or factor is None else Found("hard_sigmoid", after.node.ref, factor)


def _hard_swish(constants: Constants, ref: Ref, use: Use, scope: str) -> Found | None:
    """The hard swish x * relu6(x + 3) * (1/6), multiplied in any order, where `use` is the + 3; or 6 times that.

    Raises:
        ModelError: another factor.
    """
    end = _shifted_relu6(constants, use)
    product = None if end is None else _product(constants, ref, end)
    if product is None:
        return None
    if abs(product[1] - _SIXTH) <= 1e-7:
        return Found("hard_swish", product[0])
    if product[1] != 1.0:
        raise ModelError(f"{scope} ends in a hard swish with the factor {product[1]:.8g}; it must be 1/6")
    return Found("hard_swish", product[0], scale=6.0)


def _product(constants: Constants, ref: Ref, end: Ref) -> tuple[Ref, float] | None:
    """(output of the product, c) if the graph computes end * ref * c, in any order; else None."""
    first = _sole_use(constants, end)
    if first is None:
        return None
    factor = _factor(constants, first)
    second = _sole_use(constants, first.node.ref)
    if factor is not None:
        return (second.node.ref, factor) if second is not None and _times(constants, second) == ref else None
    other = _times(constants, first)
    if other is None:
        return None
    if other == ref:
        factor = None if second is None else _factor(constants, second)
        return (first.node.ref, 1.0) if second is None or factor is None else (second.node.ref, factor)
    scaled: Node = constants.graph[other]
    for position, operand in enumerate(scaled.inputs):
        if constants.graph.origin(operand) == ref:
            factor = _factor(constants, Use(scaled, position))
            return None if factor is None else (first.node.ref, factor)
    return None


def _times(constants: Constants, use: Use) -> Ref | None:
    """The other operand of a Mul."""
    if use.node.op != "Mul" or len(use.node.inputs) != 2:
        return None
    return constants.graph.origin(use.node.inputs[1 - use.position])
