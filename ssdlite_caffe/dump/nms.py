"""What a graph does with boxes and scores: thresholds and limits of its non-maximum suppression."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from ssdlite_caffe.dump.affine import Constants
from ssdlite_caffe.dump.graph import Graph, Node, Ref
from ssdlite_caffe.errors import ModelError

SINGLE_CLASS = frozenset(
    {"NonMaxSuppression", "NonMaxSuppressionV2", "NonMaxSuppressionV3", "NonMaxSuppressionV4", "NonMaxSuppressionV5"}
)
_COMBINED = "CombinedNonMaxSuppression"
_MOVING = frozenset(
    {
        "Reshape", "Slice", "StridedSlice", "Squeeze", "ExpandDims", "Identity", "Gather", "GatherV2", "Unpack",
        "Transpose", "Split",
    }
)  # fmt: skip
_STEPS = 400


@dataclass(frozen=True)
class Suppression:
    """Non-maximum suppression of a graph; None for what it does not say."""

    iou_threshold: float | None
    score_threshold: float | None
    max_per_class: int | None
    max_total: int | None
    unsupported: tuple[str, ...] = ()


def find_suppression(constants: Constants, num_classes: int | None) -> Suppression | None:
    """The non-maximum suppression of a graph; None where it has none.

    Args:
        constants: of the graph.
        num_classes: with background; tells a suppression for each class from one over all.

    Raises:
        ModelError: the classes are treated differently.
    """
    nodes = [node for node in constants.graph if node.op in SINGLE_CLASS or node.op == _COMBINED]
    if not nodes:
        return None
    found = {_one(constants, node) for node in nodes}
    if len(found) > 1:
        raise ModelError(f"{constants.graph.source} suppresses overlaps differently from class to class")
    iou, score, per_class, total, sigma = found.pop()
    unsupported = []
    if sigma:
        unsupported.append(f"soft NMS (sigma {sigma:g})")
    if nodes[0].op != _COMBINED:
        total = _max_total(constants, nodes)
        if num_classes is not None and num_classes > 2 and len(nodes) == 1:
            unsupported.append("NMS over all classes together")
    return Suppression(iou, score, per_class, total, tuple(unsupported))


_Limits = tuple[float | None, float | None, int | None, int | None, float]


def _one(constants: Constants, node: Node) -> _Limits:
    """(IoU threshold, score threshold, most a class, most in all, soft-NMS sigma) of one node."""

    def number(position: int) -> float | None:
        return constants.plain.scalar(node.inputs[position]) if position < len(node.inputs) else None

    if node.op == _COMBINED:
        return number(4), number(5), _whole(number(2)), _whole(number(3)), 0.0
    iou = node.attr_float("iou_threshold", 0.5) if node.op == "NonMaxSuppression" else number(3)
    inside = number(4) if node.op not in ("NonMaxSuppression", "NonMaxSuppressionV2") else None
    thresholds = [value for value in (inside, _filter_threshold(constants, node)) if value is not None]
    # NonMaxSuppressionV3 is often called with -inf, behind a filter of its own.
    score = max((value for value in thresholds if value > float("-inf")), default=None)
    sigma = number(5) if node.op == "NonMaxSuppressionV5" else None
    return iou, score, _limit(constants, node.inputs[2]) if len(node.inputs) > 2 else None, None, sigma or 0.0


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _limit(constants: Constants, ref: Ref) -> int | None:
    """A count, or the constant side of min(count, boxes there are)."""
    graph = constants.graph
    whole = _whole(constants.plain.scalar(ref))
    if whole is not None:
        return whole
    node = graph[graph.origin(ref)]
    if node.op != "Minimum":
        return None
    values = [value for operand in node.inputs if (value := constants.plain.get(operand)) is not None]
    if len(values) != 1 or values[0].size != 1 or values[0].dtype.kind != "i":
        return None
    return int(values[0].reshape(()))


def _filter_threshold(constants: Constants, node: Node) -> float | None:
    """The threshold of a filter of the scores before a suppression: a float Greater up the scores' way."""
    graph = constants.graph
    for count, earlier in enumerate(graph.upstream(node.inputs[1:2])):
        if count > _STEPS or earlier.op in ("Sigmoid", "Softmax", "Conv2D"):
            return None
        if earlier.op in ("Greater", "GreaterEqual") and len(earlier.inputs) == 2:
            value = constants.plain.get(earlier.inputs[1])
            if value is not None and value.size == 1 and value.dtype.kind == "f" and _is_moved(graph, earlier):
                return float(value.reshape(()))
    return None


def _is_moved(graph: Graph, comparison: Node) -> bool:
    """Whether a comparison looks at scores as they came, and not at something computed: an area, say."""
    ref = comparison.inputs[0]
    for _ in range(_STEPS):
        node = graph[ref]
        if node.op in ("Mul", "Sub", "Add", "AddV2", "RealDiv"):
            return False
        if node.op not in _MOVING or not node.inputs:
            return True
        ref = node.inputs[0]
    return False


def _max_total(constants: Constants, nodes: Iterable[Node]) -> int | None:
    """The limit on all classes together: a min(limit, boxes there are) behind the suppressions.

    Source: `multiclass_non_max_suppression` in object_detection/core/post_processing.py.
    """
    own = {constants.graph.origin(node.inputs[2]).name for node in nodes if len(node.inputs) > 2}
    behind = _downstream(constants, (node.ref for node in nodes))
    found = {_limit(constants, node.ref) for node in behind if node.op == "Minimum" and node.name not in own}
    limits = found - {None}
    return limits.pop() if len(limits) == 1 else None


def _downstream(constants: Constants, start: Iterable[Ref]) -> Iterable[Node]:
    """What depends on `start`, up to the end of the loop over the pictures of a batch."""
    graph = constants.graph
    seen: set[str] = set()
    pending = deque(ref.name for ref in start)
    while pending:
        name = pending.popleft()
        if name in seen:
            continue
        seen.add(name)
        node = graph.nodes[name]
        yield node
        if node.op not in ("TensorArrayWriteV3", "NextIteration", "Exit"):
            pending.extend(reader.name for reader in graph.readers(name))
