"""The inputs of convolutions, and the order in which the predictors' outputs are joined.

Different nets can have the same kernels: a net without a residual sum, with a difference in its place, or with a block
that reads another one has the same shapes. So each convolution's input is written as an expression over the
convolutions before it, and compared:

    <scope>                                the output of a convolution, after its activation
    sum(<a>, <b>)                          a residual sum
    product(<a>, <b>)                      a squeeze-excite's gate
    mean(<a>)                              the mean over a whole map
    mean7x5(<a>)                           means over windows of 7 by 5, which usually are the whole map
    doubled(<a>)                           twice as high and wide, by nearest neighbour
    doubled20x30(<a>)                      resized to 20 by 30 by nearest neighbour, or doubled and cut to
                                           20 by 30; usually twice its size

Any other op is written with its name (`Sub node_name`), which no expression of a net equals.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ssdlite_caffe.dump.detector.affine import Constants
from ssdlite_caffe.dump.detector.upsampling import cut_input, doubled_input, resized_input
from ssdlite_caffe.dump.graph.view import Node, Ref

_PADS = frozenset({"Pad", "PadV2"})
_SUMS = frozenset({"Add", "AddV2", "AddN"})
_JOINED = {**dict.fromkeys(_SUMS, "sum"), "Mul": "product"}
_RESHAPING = frozenset({"Reshape", "Squeeze", "ExpandDims"})
_BOX_AXIS = (1, -2, -3)
"""The axis of boxes in (1, boxes, values) and (1, boxes, 1, values)."""
_KIND = re.compile(r"sum|product|doubled(?:\d+x\d+)?|mean(?:\d+x\d+)?")
_DEPTH = 8
"""Deepest nesting of operands; in a MobileNet at most three residual sums follow each other."""
_LINKS = 64
"""Most ops between a convolution and the joined output; OD API graphs have about five."""


def joined(kind: str, operands: Iterable[str]) -> str:
    """`sum(a, b)`, with the operands in alphabetical order, since their order changes neither a sum nor a product."""
    return f"{kind}({', '.join(sorted(operands))})"


def renamed_expression(text: str, names: Mapping[str, str]) -> str:
    """An expression with renamed scopes; `names`: old -> new, other scopes stay.

    Scopes have neither commas nor brackets in them.
    """
    kind, bracket, inner = text.partition("(")
    if not bracket or not _KIND.fullmatch(kind) or not inner.endswith(")"):
        return names.get(text, text)
    return joined(kind, (renamed_expression(operand, names) for operand in _operands(inner[:-1])))


def scopes_in(text: str) -> set[str]:
    """The scopes in an expression, and the texts of operands that are other ops."""
    kind, bracket, inner = text.partition("(")
    if not bracket or not _KIND.fullmatch(kind) or not inner.endswith(")"):
        return {text}
    return {scope for operand in _operands(inner[:-1]) for scope in scopes_in(operand)}


def _operands(text: str) -> Iterator[str]:
    """The operands of `a, b` at the outermost level."""
    depth = start = 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            yield text[start:place].strip()
            start = place + 1
    yield text[start:].strip()


def expression(constants: Constants, outputs: Mapping[Ref, str], ref: Ref, depth: int = 0) -> str:
    """The expression of `ref`; see the module.

    Args:
        constants: of the graph.
        outputs: output of a convolution, after its activation -> its scope.
        ref: an output of the graph.
        depth: of the recursion.
    """
    graph = constants.graph
    for _ in range(_LINKS):
        ref = graph.origin(ref)
        if ref in outputs:
            return outputs[ref]
        node = graph[ref]
        if node.op not in _PADS or not node.inputs:
            break
        ref = node.inputs[0]  # the Pad's zeros are in ConvUnit.padding
    if depth == _DEPTH:
        return f"{node.op} {node.name}"
    if node.op in _JOINED and len(node.inputs) == 2:
        return joined(_JOINED[node.op], (expression(constants, outputs, i, depth + 1) for i in node.inputs))
    mean = _mean(constants, node)
    if mean is not None:
        return f"{mean}({expression(constants, outputs, node.inputs[0], depth + 1)})"
    doubled = doubled_input(graph, constants.plain, node)
    if doubled is not None:
        return f"doubled({expression(constants, outputs, doubled, depth + 1)})"
    resized = resized_input(constants.plain, node) or _doubled_and_cut(constants, node)
    if resized is not None:
        ref, (height, width) = resized
        return f"doubled{height}x{width}({expression(constants, outputs, ref, depth + 1)})"
    return f"{node.op} {node.name}"


def _doubled_and_cut(constants: Constants, node: Node) -> tuple[Ref, tuple[int, int]] | None:
    """What is doubled and then cut to a size, and this (height, width); None for other nodes."""
    cut = cut_input(constants.plain, node)
    if cut is None:
        return None
    graph = constants.graph
    doubled = doubled_input(graph, constants.plain, graph[graph.origin(cut[0])])
    return None if doubled is None else (doubled, cut[1])


def _mean(constants: Constants, node: Node) -> str | None:
    """`mean` over height and width, `mean7x5` over windows of 7 by 5; None for other nodes."""
    if node.op == "AvgPool":
        window = node.attr_ints("ksize")
        return f"mean{window[1]}x{window[2]}" if len(window) == 4 and window[0] == window[3] == 1 else None
    axes = constants.plain.get(node.inputs[1]) if node.op == "Mean" and len(node.inputs) == 2 else None
    return "mean" if axes is not None and sorted(int(a) % 4 for a in axes.reshape(-1)) == [1, 2] else None


@dataclass(frozen=True)
class Join:
    """Convolutions whose outputs are joined.

    Attributes:
        scopes: of the convolutions, in order.
        factors: by which each output is multiplied before it is joined.
    """

    scopes: tuple[str, ...]
    factors: tuple[float, ...]


def join_order(constants: Constants, ends: Mapping[Ref, str], ref: Ref) -> Join | None:
    """The convolutions whose outputs are joined into `ref`, map after map; None if there is another op in between.

    Reshaping does not change the order of values. Maps are joined along axis 1 of (1, boxes, ..).

    Args:
        constants: of the graph.
        ends: output of a convolution, before its activation -> its scope.
        ref: joined box encodings or class logits.
    """
    scopes: list[str] = []
    factors: list[float] = []
    pending = [(ref, 1.0)]
    for _ in range(len(ends) * _LINKS):
        if not pending:
            return Join(tuple(scopes), tuple(factors))
        current, factor = pending.pop()
        current = constants.graph.origin(current)
        if current in ends:
            scopes.append(ends[current])
            factors.append(factor)
            continue
        node = constants.graph[current]
        scale = _scale(constants, node)
        if node.op in ("ConcatV2", "Concat"):
            parts, axis = (
                (node.inputs[1:], node.inputs[0]) if node.op == "Concat" else (node.inputs[:-1], node.inputs[-1])
            )
            if constants.plain.scalar(axis) not in _BOX_AXIS:
                return None
            pending.extend((part, factor) for part in reversed(parts))
        elif node.op in _RESHAPING and node.inputs:
            pending.append((node.inputs[0], factor))
        elif scale is not None:
            pending.append((scale[0], factor * scale[1]))
        else:
            return None
    return None


def _scale(constants: Constants, node: Node) -> tuple[Ref, float] | None:
    """(x, c) of x * c or x / (1 / c); None for other nodes."""
    if node.op not in ("Mul", "RealDiv", "Div") or len(node.inputs) != 2:
        return None
    value = constants.plain.scalar(node.inputs[1])
    if value is not None:
        return (node.inputs[0], value if node.op == "Mul" else 1 / value) if value else None
    value = constants.plain.scalar(node.inputs[0]) if node.op == "Mul" else None
    return None if value is None else (node.inputs[1], value)
