"""How class logits become scores: score converter, logit scale, and whether there is a background column."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

from ssdlite_caffe.dump.detector.affine import DIVISIONS, Constants
from ssdlite_caffe.dump.graph.view import Ref, Use

_REARRANGING = frozenset({"Reshape", "ConcatV2", "Concat", "Squeeze", "ExpandDims", "Transpose", "Pack"})
_CONVERTERS: dict[str, Literal["sigmoid", "softmax"]] = {"Sigmoid": "sigmoid", "Softmax": "softmax"}


@dataclass(frozen=True)
class Conversion:
    """A score converter.

    Attributes:
        converter: its kind.
        logit_scale: logits are multiplied by this before the converter.
        scores: the converter's output.
    """

    converter: Literal["sigmoid", "softmax"]
    logit_scale: float
    scores: Ref


def find_conversion(constants: Constants, logits: Ref) -> Conversion | None:
    """The Sigmoid or Softmax that the class predictor's output `logits` leads to; None if there is none."""
    pending = deque([(logits, 1.0)])
    seen: set[Ref] = set()
    while pending:
        ref, scale = pending.popleft()
        if ref in seen:
            continue
        seen.add(ref)
        for use in constants.graph.uses(ref):
            node = use.node
            if node.op in _CONVERTERS:
                return Conversion(_CONVERTERS[node.op], scale, node.ref)
            if node.op in _REARRANGING:
                pending.append((node.ref, scale))
            factor = _factor(constants, use)
            if factor is not None:
                pending.append((node.ref, scale * factor))
    return None


def _factor(constants: Constants, use: Use) -> float | None:
    """The c of logits * c, or of logits / (1 / c)."""
    node = use.node
    if len(node.inputs) != 2 or node.op not in DIVISIONS | {"Mul"}:
        return None
    value = constants.plain.scalar(node.inputs[1 - use.position])
    if value is None or node.op == "Mul":
        return value
    return 1 / value if value and use.position == 0 else None


def cuts_background(constants: Constants, scores: Ref) -> bool:
    """Whether column 0 of the scores, the background, is cut off before NMS."""
    pending = [scores]
    seen: set[Ref] = set()
    while pending:
        ref = pending.pop()
        if ref in seen:
            continue
        seen.add(ref)
        for use in constants.graph.uses(ref):
            if use.node.op in ("Slice", "StridedSlice") and use.position == 0 and len(use.node.inputs) > 1:
                begin = constants.plain.get(use.node.inputs[1])
                if begin is not None and begin.size and begin.reshape(-1)[-1] == 1:
                    return True
            if use.node.op in _REARRANGING:
                pending.append(use.node.ref)
    return False
