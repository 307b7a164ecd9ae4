"""Computing the constant parts of a graph without TensorFlow: BatchNorm constants, default boxes, thresholds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np

from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from ssdlite_caffe.dump.graph.constant_ops import OPS, NotConstantError, Op
from ssdlite_caffe.dump.graph.tensors import Array, repeated, to_array
from ssdlite_caffe.dump.graph.view import IDENTITIES, VARIABLES, Graph, Node, Ref
from ssdlite_caffe.errors import ModelError

__all__ = ["Evaluator", "NotConstantError"]

ShapeOf = Callable[[Ref], tuple[int, ...] | None]
_SHAPE_OPS = frozenset({"Shape", "Size", "Rank"})
_FREE = IDENTITIES | {"Const"}
"""Ops that add nothing to what is computed in total."""
_BUDGET = 1 << 26
_REPEATED = 1 << 22
"""Most elements of the constants that repeat one value, together: a file of a few bytes can ask for any number."""
_SMALL = 64


class Evaluator:
    """Computes outputs of a graph that depend on constants alone, each node once.

    The graph is walked without recursion, so it may be of any depth. Nodes in a loop are not constant. The number of
    elements that are computed in total is limited.

    Args:
        graph: the graph.
        precise: compute in float64 what TensorFlow computes in float32, for folds that are rounded once at the end.
            Otherwise every operation rounds as TensorFlow's does.
        shape_of: returns the shape of an output that is not constant (a feature map), or None if it is unknown.
        given: node name -> its outputs, which are used as constants.
    """

    ops: ClassVar[Mapping[str, Op]] = OPS
    """Ops that are computed."""

    def __init__(
        self,
        graph: Graph,
        *,
        precise: bool = False,
        shape_of: ShapeOf | None = None,
        given: Mapping[str, tuple[Array, ...]] | None = None,
    ) -> None:
        self.graph = graph
        self._precise = precise
        self._shape_of = shape_of
        self._values: dict[str, tuple[Array, ...]] = dict(given or {})
        self._failed: dict[str, str] = {}
        self._budget, self._repeated = _BUDGET, _REPEATED

    def value(self, ref: Ref) -> Array:
        """The value of an output.

        Raises:
            NotConstantError: it depends on the image, or on an op that is not known here.
        """
        if ref.name not in self._values:
            with np.errstate(all="ignore"):
                self._run(ref.name)
        outputs = self._values[ref.name]
        if ref.port >= len(outputs):
            raise NotConstantError(f"{ref} does not exist")
        return outputs[ref.port]

    def get(self, ref: Ref | None) -> Array | None:
        """The value of an output; None if it is not constant."""
        if ref is None:
            return None
        try:
            return self.value(ref)
        except NotConstantError:
            return None

    def scalar(self, ref: Ref | None) -> float | None:
        """The value of `ref` as one number; None if it is not constant or has not exactly one element."""
        value = self.get(ref)
        return float(value.reshape(())) if value is not None and value.size == 1 else None

    def has_computed(self, name: str) -> bool:
        """Whether the value of the node `name` has been computed so far."""
        return name in self._values

    def _run(self, start: str) -> None:
        """Compute `start` and all nodes that it depends on, inputs first."""
        stack = [start]
        open_nodes: set[str] = set()
        nodes, values = self.graph.nodes, self._values
        while stack:
            name = stack[-1]
            if name in values:
                stack.pop()
                continue
            node = nodes[name]
            needed = self._needed(node)
            failed = None
            if self._failed:
                failed = next((self._failed[n] for n in [name, *needed] if n in self._failed), None)
            if failed is None and name not in open_nodes:
                missing = [n for n in needed if n not in values]
                if missing and any(n in open_nodes or n == name for n in missing):
                    failed = f"{name} is in a loop"
                elif missing:
                    open_nodes.add(name)
                    stack.extend(missing)
                    continue
            if failed is None:
                failed = self._compute(node)
            if failed is not None:
                # All open nodes depend on this node, so none of them is constant.
                for waiting in (*open_nodes, name):
                    self._failed[waiting] = failed
                raise NotConstantError(failed)
            open_nodes.discard(name)
            stack.pop()

    def _needed(self, node: Node) -> list[str]:
        if node.op == "Const" or node.op in VARIABLES:
            return []
        if node.op not in self.ops and node.op not in IDENTITIES and node.op not in _SHAPE_OPS:
            return []
        if node.op in _SHAPE_OPS and self._shape_of is not None and self._known_shape(node) is not None:
            return []
        return [ref.name for ref in node.inputs]

    def _known_shape(self, node: Node) -> tuple[int, ...] | None:
        return self._shape_of(node.inputs[0]) if self._shape_of is not None and node.inputs else None

    def _compute(self, node: Node) -> str | None:
        """Compute and store the outputs of a node whose inputs are known; returns an error text, or None."""
        try:
            outputs = self._outputs(node)
        except NotConstantError as error:
            return f"{node.name} ({node.op}): {error}"
        except (ValueError, IndexError, TypeError, OverflowError, ZeroDivisionError) as error:
            return f"{node.name} ({node.op}) cannot be computed: {error}"
        if node.op not in _FREE:
            self._budget -= outputs[0].size if len(outputs) == 1 else sum([value.size for value in outputs])
            if self._budget < 0:
                return f"{node.name}: the graph's constants are too large"
        self._values[node.name] = outputs
        return None

    def _outputs(self, node: Node) -> tuple[Array, ...]:
        op = self.ops.get(node.op)
        if op is not None:  # nearly all
            values = self._values
            result = op(node, [values[name][port] for name, port in node.inputs])
            outputs = result if isinstance(result, tuple) else (result,)
            return tuple([self._widen(value) for value in outputs]) if self._precise else outputs
        if node.op == "Const":
            return (self._widen(self._constant(node)),)
        if node.op in VARIABLES:
            variable = self.graph.variables.get(node.name)
            if variable is None:
                raise NotConstantError("a variable, whose value is not in the graph")
            return (self._widen(variable),)
        if node.op in _SHAPE_OPS:
            return (self._shape(node),)
        if node.op not in IDENTITIES:
            raise NotConstantError("an op that is not implemented")
        name, port = node.inputs[0]
        return (self._values[name][port],)

    def _constant(self, node: Node) -> Array:
        kept = self.graph.small_constants.get(node.name)
        if kept is not None:
            return kept
        proto = node.attr_tensor()
        if proto is None:
            raise NotConstantError("a Const without a value")
        if proto.dtype == pb.DT_STRING:
            raise NotConstantError("a string")
        content = proto.tensor_content
        self._repeated -= 0 if content else repeated(proto)
        if self._repeated < 0:
            raise ModelError(
                f"{self.graph.source}: the constant {node.name} repeats one value {repeated(proto)} times; at most "
                f"{_REPEATED} such elements are read of a graph"
            )
        try:
            value = to_array(proto, node.name, content)
        except ModelError as error:
            raise ModelError(f"{self.graph.source}: {error}") from error
        if value.size <= _SMALL:
            value.flags.writeable = False
            self.graph.small_constants[node.name] = value
        return value

    def _widen(self, value: Array) -> Array:
        return value.astype(np.float64) if self._precise and value.dtype == np.float32 else value

    def _shape(self, node: Node) -> Array:
        """Shape, Size and Rank: of a constant, or of a feature map whose shape is known."""
        shape = self._known_shape(node)
        if shape is None:
            shape = self._values[node.inputs[0].name][node.inputs[0].port].shape
        dtype = np.int64 if node.attr_type("out_type") == pb.DT_INT64 else np.int32
        if node.op == "Shape":
            return np.array(shape, dtype)
        return np.array(len(shape) if node.op == "Rank" else np.prod(shape, dtype=np.int64), dtype)
