"""A TensorFlow graph from any kind of file: nodes, their inputs and their readers, with Identity ops skipped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from ssdlite_caffe.dump.graph.tensors import Array, static_shape
from ssdlite_caffe.errors import ModelError

CONVOLUTIONS = frozenset({"Conv2D", "DepthwiseConv2dNative"})
IDENTITIES = frozenset(
    {
        "Identity", "StopGradient", "PreventGradient", "Snapshot", "CheckNumerics", "EnsureShape", "ReadVariableOp",
        "Enter",
    }
)  # fmt: skip
"""Ops whose output 0 is their input 0. (Enter takes a value from outside into a loop.)"""

_INPUTS = {
    op: count
    for count, ops in {
        1: "Exp Neg Relu Relu6 Rsqrt Shape Sigmoid Softmax Sqrt Square Squeeze Unpack",
        2: (
            "Add AddV2 All Any BiasAdd BroadcastTo Conv2D DepthwiseConv2dNative Div Equal ExpandDims Fill FloorDiv "
            "FloorMod Gather Greater GreaterEqual Less LessEqual LogicalAnd LogicalOr Max Maximum Mean Min Minimum "
            "MirrorPad Mul NotEqual Pad Pow Prod RealDiv Reshape ResizeArea ResizeBicubic ResizeBilinear "
            "ResizeNearestNeighbor Split Sub Sum Tile TopKV2 Transpose"
        ),
        3: "ClipByValue GatherV2 NonMaxSuppression PadV2 Range Select SelectV2 Slice SpaceToBatchND SplitV",
        4: "NonMaxSuppressionV2 StridedSlice TensorArrayWriteV3",
        5: "FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 NonMaxSuppressionV3 NonMaxSuppressionV4",
        6: "CombinedNonMaxSuppression NonMaxSuppressionV5",
    }.items()
    for op in ops.split()
}
"""Least number of inputs of the ops that are read here and whose inputs have fixed positions."""

VARIABLES = frozenset({"Variable", "VariableV2", "VarHandleOp"})


class Ref(NamedTuple):
    """One output of one node."""

    name: str
    port: int = 0

    def __str__(self) -> str:
        return self.name if self.port == 0 else f"{self.name}:{self.port}"


class Use(NamedTuple):
    """One place where an output is read: input number `position` of `node`."""

    node: Node
    position: int


class Node:
    """A node with its data inputs; control inputs are skipped, since they have no values."""

    __slots__ = ("inputs", "name", "op", "proto")

    def __init__(self, proto: pb.NodeDef) -> None:
        self.name: str = proto.name
        self.op: str = proto.op
        self.inputs: tuple[Ref, ...] = tuple([_ref(text) for text in proto.input if text[:1] != "^"])
        self.proto = proto

    @property
    def ref(self) -> Ref:
        """Its output 0."""
        return Ref(self.name)

    def _attr(self, key: str) -> pb.AttrValue | None:
        return self.proto.attr.get(key)  # attr[key] would put an empty value into the message

    def attr_ints(self, key: str, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """A list of integers; the default if it is absent or empty."""
        value = self._attr(key)
        return tuple(value.list.i) if value is not None and value.list.i else default

    def attr_int(self, key: str, default: int = 0) -> int:
        """An integer."""
        value = self._attr(key)
        return value.i if value is not None else default

    def attr_float(self, key: str, default: float = 0.0) -> float:
        """A float32, as a Python float."""
        value = self._attr(key)
        return value.f if value is not None else default

    def attr_bool(self, key: str, default: bool = False) -> bool:
        """A truth value."""
        value = self._attr(key)
        return value.b if value is not None else default

    def attr_text(self, key: str, default: str = "") -> str:
        """A string."""
        value = self._attr(key)
        return value.s.decode("utf-8", "replace") if value is not None else default

    def attr_type(self, key: str) -> int:
        """A DataType number; DT_INVALID if it is absent."""
        value = self._attr(key)
        return value.type if value is not None else 0

    def attr_shape(self, key: str) -> tuple[int, ...] | None:
        """Sizes, -1 for an unknown one; None if it is absent or of unknown rank."""
        value = self._attr(key)
        return static_shape(value.shape) if value is not None and value.HasField("shape") else None

    def attr_tensor(self, key: str = "value") -> pb.TensorProto | None:
        """A constant's tensor."""
        value = self._attr(key)
        return value.tensor if value is not None and value.HasField("tensor") else None


def _ref(text: str) -> Ref:
    if ":" not in text:
        return Ref(text)
    name, colon, port = text.rpartition(":")
    return Ref(name, int(port)) if colon and port.isascii() and port.isdigit() else Ref(text)


class Graph:
    """All nodes of a graph by name.

    Args:
        nodes: in file order.
        variables: name of a variable's node -> the variable's value.
        source: path, for messages.

    Raises:
        ModelError: two nodes have the same name, a node has too few inputs, or an input is not in the graph.
    """

    def __init__(
        self, nodes: Iterable[pb.NodeDef], *, source: str, variables: Mapping[str, Array] | None = None
    ) -> None:
        self.source = source
        self.variables: Mapping[str, Array] = variables or {}
        self.nodes: dict[str, Node] = {}
        self.small_constants: dict[str, Array] = {}
        """Values of small constants, which are read again for every round of a loop."""
        for proto in nodes:
            node = Node(proto)
            if node.name in self.nodes:
                raise ModelError(f"{source}: two nodes have the name {node.name!r}; the graph is damaged")
            self.nodes[node.name] = node
        self._uses: dict[str, list[tuple[int, Use]]] = {}
        for node in self.nodes.values():
            if len(node.inputs) < _INPUTS.get(node.op, 0):
                raise ModelError(
                    f"{source}: the node {node.name!r} ({node.op}) must have {_INPUTS[node.op]} inputs, got "
                    f"{len(node.inputs)}; the graph is damaged"
                )
            for position, ref in enumerate(node.inputs):
                if ref.name not in self.nodes:
                    raise ModelError(f"{source}: the node {node.name!r} reads {ref.name!r}, which is not in the graph")
                self._uses.setdefault(ref.name, []).append((ref.port, Use(node, position)))

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())

    def __getitem__(self, ref: Ref) -> Node:
        return self.nodes[ref.name]

    def ops(self) -> Counter[str]:
        """How often each op occurs."""
        return Counter(node.op for node in self)

    def origin(self, ref: Ref) -> Ref:
        """The output that `ref` is a copy of: back through Identity and similar ops. Ends in a loop of Identities."""
        seen = set()
        while ref.port == 0 and ref not in seen:
            node = self.nodes[ref.name]
            if node.op not in IDENTITIES or not node.inputs:
                break
            seen.add(ref)
            ref = node.inputs[0]
        return ref

    def input(self, node: Node, position: int) -> Ref | None:
        """The origin of input `position` of `node`; None if there is no such input."""
        return self.origin(node.inputs[position]) if position < len(node.inputs) else None

    def uses(self, ref: Ref) -> list[Use]:
        """Where `ref` or a copy of it is read, except by ops that only read its shape."""
        found: list[Use] = []
        seen = {ref}
        pending = [ref]
        while pending:
            current = pending.pop()
            for port, use in self._uses.get(current.name, ()):
                if port != current.port or use.node.op in _SHAPE_ONLY:
                    continue
                if use.node.op in IDENTITIES:
                    if use.node.ref not in seen:
                        seen.add(use.node.ref)
                        pending.append(use.node.ref)
                else:
                    found.append(use)
        return found

    def is_read(self, name: str) -> bool:
        """Whether a node reads any output of `name`."""
        return name in self._uses

    def readers(self, name: str) -> Iterator[Node]:
        """The nodes that read any output of `name`."""
        return (use.node for _, use in self._uses.get(name, ()))

    def upstream(self, start: Iterable[Ref], *, stop: Collection[str] = ()) -> Iterator[Node]:
        """Nodes that `start` depends on, nearest first, each once; inputs of nodes with an op in `stop` are skipped."""
        seen: set[str] = set()
        frontier = [ref.name for ref in start]
        while frontier:
            following: list[str] = []
            for name in frontier:
                if name in seen:
                    continue
                seen.add(name)
                node = self.nodes[name]
                yield node
                if node.op not in stop:
                    following += [source for source, _ in node.inputs if source not in seen]
            frontier = following


_SHAPE_ONLY = frozenset({"Shape", "ShapeN", "Rank", "Size", "Assert", "NoOp", "ZerosLike", "OnesLike"})
