"""Thresholds and limits of a graph's non-maximum suppression (NMS)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from ssdlite_caffe.dump.detector.affine import Constants
from ssdlite_caffe.dump.graph.view import Graph, Node, Ref
from ssdlite_caffe.errors import ModelError

_SINGLE_CLASS = frozenset(
    {"NonMaxSuppression", "NonMaxSuppressionV2", "NonMaxSuppressionV3", "NonMaxSuppressionV4", "NonMaxSuppressionV5"}
)
DT_FLOAT = 1
"""From TensorFlow's types.proto."""
_COMBINED = "CombinedNonMaxSuppression"
SUPPRESSIONS = _SINGLE_CLASS | {_COMBINED}
_MOVING = frozenset(
    {
        "Reshape", "Slice", "StridedSlice", "Squeeze", "ExpandDims", "Identity", "Gather", "GatherV2", "Unpack",
        "Transpose", "Split",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Suppression:
    """Settings of a graph's NMS, None where unknown; see `model.Settings`."""

    iou_threshold: float | None
    score_threshold: float | None
    max_per_class: int | None
    max_total: int | None
    clip_first: bool
    unsupported: tuple[str, ...] = ()


def find_suppression(constants: Constants, num_classes: int | None) -> Suppression | None:
    """The NMS of a graph; None if it has none.

    Args:
        constants: of the graph.
        num_classes: counts background; it shows whether there is an NMS for each class or one over all.

    Raises:
        ModelError: the classes have different settings.
    """
    nodes = [node for node in constants.graph if node.op in SUPPRESSIONS]
    if not nodes:
        return None
    filters = _score_filters(constants)
    found = {_one(constants, node, filters) for node in nodes}
    if len(found) > 1:
        raise ModelError(
            f"{constants.graph.source} has {len(found)} different NMS settings for its classes; a Caffe net has one"
        )
    iou, score, per_class, total, sigma = found.pop()
    unsupported = []
    if sigma:
        unsupported.append(f"soft NMS (sigma {sigma:g})")
    if nodes[0].op == _COMBINED:
        total = min([count for count in (total, _best_of(constants, nodes)) if count is not None], default=None)
    else:
        total = _max_total(constants, nodes)
        if num_classes is not None and num_classes > 2 and len(nodes) == 1:
            unsupported.append("NMS over all classes together")
    return Suppression(iou, score, per_class, total, _clips_first(constants, nodes), tuple(unsupported))


def _clips_first(constants: Constants, nodes: Iterable[Node]) -> bool:
    """Whether boxes are clipped, by max(min(box, window), window), before they are compared.

    Graphs exported early in 2018 clip them there; later ones clip the detections.
    """
    before = constants.graph.upstream([node.inputs[0] for node in nodes], stop=("Exp", "Conv2D"))
    graph = constants.graph
    return any(
        node.op == "Maximum"
        and node.attr_type("T") == DT_FLOAT
        and any(graph[ref].op == "Minimum" for ref in node.inputs)
        for node in before
    )


_Limits = tuple[float | None, float | None, int | None, int | None, float]


def _one(constants: Constants, node: Node, filters: dict[str, float]) -> _Limits:
    """(IoU threshold, score threshold, most per class, most in total, soft-NMS sigma) of one NMS node."""

    def number(position: int) -> float | None:
        return constants.plain.scalar(node.inputs[position])

    if node.op == _COMBINED:
        return number(4), number(5), _whole(number(2)), _whole(number(3)), 0.0
    iou = node.attr_float("iou_threshold", 0.5) if node.op == "NonMaxSuppression" else number(3)
    inside = number(4) if node.op not in ("NonMaxSuppression", "NonMaxSuppressionV2") else None
    thresholds = [value for value in (inside, _filter_threshold(constants, node, filters)) if value is not None]
    # NonMaxSuppressionV3 often has the threshold -inf, after a filter of scores in the graph.
    score = max((value for value in thresholds if value != -math.inf), default=None)
    sigma = number(5) if node.op == "NonMaxSuppressionV5" else None
    return iou, score, _limit(constants, node.inputs[2]), None, sigma or 0.0


def _whole(value: float | None) -> int | None:
    """A finite value as an integer; None for others."""
    return None if value is None or not math.isfinite(value) else int(value)


def _limit(constants: Constants, ref: Ref) -> int | None:
    """The constant limit of `ref`: a constant, or the constant operand of min(limit, number of boxes)."""
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


def _score_filters(constants: Constants) -> dict[str, float]:
    """Name of a node that compares scores with a constant float -> the constant."""
    filters = {}
    for node in constants.graph:
        if node.op in ("Greater", "GreaterEqual") and len(node.inputs) == 2:
            value = constants.plain.get(node.inputs[1])
            if value is not None and value.size == 1 and value.dtype.kind == "f" and _is_moved(constants.graph, node):
                filters[node.name] = float(value.reshape(()))
    return filters


def _filter_threshold(constants: Constants, node: Node, filters: dict[str, float]) -> float | None:
    """The threshold of the filter that scores pass before an NMS node; None if there is none."""
    if not filters:
        return None
    before = constants.graph.upstream(node.inputs[1:2], stop=("Sigmoid", "Softmax", "Conv2D"))
    return next((filters[earlier.name] for earlier in before if earlier.name in filters), None)


def _is_moved(graph: Graph, comparison: Node) -> bool:
    """Whether a comparison reads values as they are, and not computed ones such as areas of boxes."""
    ref = comparison.inputs[0]
    for _ in range(len(graph.nodes)):
        node = graph[ref]
        if node.op in ("Mul", "Sub", "Add", "AddV2", "RealDiv"):
            return False
        if node.op not in _MOVING or not node.inputs:
            return True
        ref = node.inputs[0]
    return False


def _max_total(constants: Constants, nodes: Iterable[Node]) -> int | None:
    """The limit on detections of all classes: of a min(limit, number of boxes) after the NMS nodes.

    Source: `multiclass_non_max_suppression` in object_detection/core/post_processing.py.
    """
    behind = _downstream(constants, (node.ref for node in nodes))
    found = {_limit(constants, node.ref) for node in behind if node.op == "Minimum"}
    limits = found - {None}
    return limits.pop() if len(limits) == 1 else None


def _best_of(constants: Constants, nodes: Iterable[Node]) -> int | None:
    """The k of a top-k after a combined NMS; None if there is none."""
    behind = _downstream(constants, (node.ref for node in nodes))
    counts = [_whole(constants.plain.scalar(node.inputs[1])) for node in behind if node.op == "TopKV2"]
    return min([count for count in counts if count is not None], default=None)


def _downstream(constants: Constants, start: Iterable[Ref]) -> Iterable[Node]:
    """Nodes that depend on `start`, up to the end of the loop over the images of a batch."""
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
