"""What feeds a convolution, and in which order the predictors' outputs are joined.

Kernels alone do not tell a net: one with a residual sum left out, turned into a difference, or fed from another block
has the same shapes. So each convolution's input is written as an expression over the convolutions before it:

    <scope>                                what a convolution gives, behind its activation
    sum(<a>, <b>)                          a residual sum
    product(<a>, <b>)                      a squeeze-excite's gate
    mean(<a>)                              the mean over a whole map

Anything else is named by its op (`Sub node_name`), which no net's own expression equals.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ssdlite_caffe.dump.affine import Constants
from ssdlite_caffe.dump.graph import Node, Ref

_PADS = frozenset({"Pad", "PadV2"})
_SUMS = frozenset({"Add", "AddV2", "AddN"})
_JOINED = {**dict.fromkeys(_SUMS, "sum"), "Mul": "product"}
_REARRANGING = frozenset({"Reshape", "Squeeze", "ExpandDims", "Transpose", "StridedSlice", "Pack", "Unpack", "Cast"})
_DEPTH = 8
"""Operands inside one another; at most three residual sums follow each other in a MobileNet."""
_LINKS = 64
"""Ops between a convolution and what is joined, at most; OD API graphs have about five."""


def joined(kind: str, operands: Iterable[str]) -> str:
    """`sum(a, b)`: the operands in alphabetical order, since neither sum nor product minds theirs."""
    return f"{kind}({', '.join(sorted(operands))})"


def renamed_expression(text: str, names: Mapping[str, str]) -> str:
    """An expression with scopes by other names (old -> new); a scope that is not in `names` stays.

    Scopes hold neither commas nor brackets.
    """
    kind, bracket, inner = text.partition("(")
    if not bracket or kind not in ("sum", "product", "mean") or not inner.endswith(")"):
        return names.get(text, text)
    return joined(kind, (renamed_expression(operand, names) for operand in _operands(inner[:-1])))


def scopes_in(text: str) -> set[str]:
    """The scopes that an expression names; other operands are in it, too, under what they are called there."""
    kind, bracket, inner = text.partition("(")
    if not bracket or kind not in ("sum", "product", "mean") or not inner.endswith(")"):
        return {text}
    return {scope for operand in _operands(inner[:-1]) for scope in scopes_in(operand)}


def _operands(text: str) -> Iterator[str]:
    """The parts of `a, b` at the outermost level."""
    depth = start = 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            yield text[start:place].strip()
            start = place + 1
    yield text[start:].strip()


def expression(constants: Constants, outputs: Mapping[Ref, str], ref: Ref, depth: int = 0) -> str:
    """Where `ref` comes from; see the module.

    Args:
        constants: of the graph.
        outputs: what each convolution gives, behind its activation -> its scope.
        ref: the output asked for.
        depth: for recursion.
    """
    graph = constants.graph
    for _ in range(_LINKS):
        ref = graph.origin(ref)
        if ref in outputs:
            return outputs[ref]
        node = graph[ref]
        if node.op not in _PADS or not node.inputs:
            break
        ref = node.inputs[0]  # its zeros are read with the convolution's own padding
    if depth == _DEPTH:
        return f"{node.op} {node.name}"
    if node.op in _JOINED and len(node.inputs) == 2:
        return joined(_JOINED[node.op], (expression(constants, outputs, i, depth + 1) for i in node.inputs))
    if _is_global_mean(constants, node):
        return f"mean({expression(constants, outputs, node.inputs[0], depth + 1)})"
    return f"{node.op} {node.name}"


def _is_global_mean(constants: Constants, node: Node) -> bool:
    """Mean over height and width, or an average over windows; a gate's product broadcasts only from a single one."""
    if node.op == "AvgPool":
        return True
    axes = constants.plain.get(node.inputs[1]) if node.op == "Mean" and len(node.inputs) == 2 else None
    return axes is not None and sorted(int(a) % 4 for a in axes.reshape(-1)) == [1, 2]


def join_order(constants: Constants, ends: Mapping[Ref, str], ref: Ref) -> tuple[str, ...] | None:
    """The scopes whose outputs are joined, one after the other, into `ref`; None where that cannot be followed.

    Args:
        constants: of the graph.
        ends: the end of each convolution -> its scope.
        ref: joined box codes or class logits.
    """
    found: list[str] = []
    pending = [ref]
    for _ in range(len(ends) * _LINKS):
        if not pending:
            return tuple(found)
        current = constants.graph.origin(pending.pop())
        if current in ends:
            found.append(ends[current])
            continue
        node = constants.graph[current]
        if node.op == "ConcatV2":
            pending.extend(reversed(node.inputs[:-1]))
        elif node.op == "Concat":
            pending.extend(reversed(node.inputs[1:]))
        elif (node.op in _REARRANGING or _is_scaled(constants, node)) and node.inputs:
            pending.append(node.inputs[0])
        else:
            return None
    return None


def _is_scaled(constants: Constants, node: Node) -> bool:
    return node.op in ("Mul", "RealDiv", "Div") and constants.plain.scalar(node.inputs[1]) is not None
