"""Running part of a graph without TensorFlow, loops and conditions included: before the net, or behind its predictors.

Loops and conditions are those of TensorFlow 1. A condition's `Switch` gives its value to one of two branches, and none
to the other; an op without a value for one of its inputs gives none, and `Merge` takes the branch that has one. A loop
has for each of its variables a `Merge` of the value before the loop (through an `Enter`) and the one of the previous
round (through a `NextIteration`), a `Switch` by its `LoopCond`, and an `Exit` behind it.

Source: tensorflow/core/common_runtime/executor.cc; tensorflow/python/ops/control_flow_ops.py (`cond`, `while_loop`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar, NamedTuple

import numpy as np

from ssdlite_caffe.dump.graph.constant_ops import NotConstantError, Op
from ssdlite_caffe.dump.graph.constants import Evaluator, ShapeOf
from ssdlite_caffe.dump.graph.execution_ops import POST_OPS
from ssdlite_caffe.dump.graph.tensors import Array
from ssdlite_caffe.dump.graph.view import Graph, Node, Ref

_ROUNDS = 100
"""Most rounds of a loop; the loops of a detector go over the images of a batch, of which there is one."""
_ALL_ROUNDS = 1000
"""Most rounds of all loops together."""
_DEPTH = 4
"""Most loops in each other."""
_NO_VALUE: Array = np.empty(0, object)
_NO_VALUES = (_NO_VALUE,) * 64
_TENSOR_ARRAYS = ("TensorArrayV3", "TensorArrayWriteV3", "TensorArrayReadV3", "TensorArrayScatterV3",
                  "TensorArrayGatherV3", "TensorArraySizeV3")  # fmt: skip
_FLOW = frozenset({"Switch", "Merge", "Enter", "Exit", "NextIteration", "LoopCond", *_TENSOR_ARRAYS})
"""Ops whose value depends on the branch that is taken, the round of a loop, or what was written before."""


class _Loop(NamedTuple):
    """A loop's name, the Merges of its variables by name, and the name of each Exit's Merge."""

    frame: str
    merges: dict[str, Node]
    exits: dict[str, str]


class _Order(NamedTuple):
    """In which order nodes were computed for one of them, and the names of those that were known before."""

    nodes: list[Node]
    before: set[str]


class _Common:
    """What executions of one graph have in common if values of the same nodes are given, those of rounds included.

    Attributes:
        fixed: values that depend on no given value, and on no loop or condition.
        moving: names of nodes whose value is another one.
        constants: the nodes that decide whether constants are in the branch that is taken -> these constants' values.
        needed: what each node needs.
        orders: (frame, node) -> the order of an earlier execution.
        loops: LoopCond -> its loop.
    """

    def __init__(self) -> None:
        self.fixed: dict[str, tuple[Array, ...]] = {}
        self.moving: set[str] = set()
        self.constants: dict[tuple[str, ...], dict[str, tuple[Array, ...]]] = {}
        self.needed: dict[str, list[str]] = {}
        self.orders: dict[tuple[str, str], _Order] = {}
        self.loops: dict[Ref, _Loop] = {}


class Execution(Evaluator):
    """Computes outputs of a graph for given values of some of its nodes, such as the predictors' convolutions.

    Args:
        graph: the graph.
        given: node name -> its outputs.
        wanted: names of all nodes that the wanted outputs depend on.
        shape_of: shapes of feature maps.
        like: an earlier execution with the same arguments but for other values of the same nodes; what depends on none
            of these nodes is taken from it.
        outside: for a round of a loop: the execution that the loop is in.
        frame: the loop's name.
    """

    ops: ClassVar[Mapping[str, Op]] = POST_OPS

    def __init__(
        self,
        graph: Graph,
        given: Mapping[str, tuple[Array, ...]],
        wanted: Collection[str],
        *,
        shape_of: ShapeOf | None = None,
        like: Execution | None = None,
        outside: Execution | None = None,
        frame: str = "",
    ) -> None:
        kin = outside or like
        self._common: _Common = _Common() if kin is None else kin._common
        super().__init__(graph, shape_of=shape_of, given={**self._common.fixed, **given})
        self._given = dict(given)
        self._wanted = wanted
        self._outside = outside
        self._frame = frame
        self._arrays: dict[int, tuple[int, dict[int, Array]]] = {} if outside is None else outside._arrays
        self._depth: int = 0 if outside is None else outside._depth + 1
        self._rounds: list[Ref] = [] if outside is None else outside._rounds
        self._begun: set[Ref] = set()
        """Loops whose first values are being computed."""
        self._computed: list[Node] = []
        """Nodes in the order in which they are computed for the value that is asked for."""

    def _run(self, start: str) -> None:
        """Compute `start` in the order of an earlier execution, or else in the order that its inputs show."""
        key = self._frame, start
        order = self._common.orders.get(key)
        if order is not None and order.before <= self._values.keys():
            for node in order.nodes:
                failed = None if node.name in self._values else self._compute(node)
                if failed is not None:
                    self._failed[node.name] = failed
                    raise NotConstantError(failed)
            return
        others, self._computed = self._computed, []
        try:
            super()._run(start)
            if order is None:
                needed = set().union(*map(self._needed, self._computed))
                self._common.orders[key] = _Order(self._computed, needed - {node.name for node in self._computed})
        finally:
            self._computed = others

    def _is_from_outside(self, node: Node) -> bool:
        return node.op == "Enter" and self._outside is not None and node.attr_text("frame_name") == self._frame

    def _needed(self, node: Node) -> list[str]:
        needed = self._common.needed.get(node.name)
        if needed is not None:
            return needed
        if node.op == "Exit" or self._is_from_outside(node):
            return []
        if node.op == "Const":
            needed = self._switches(node)
        elif node.op in ("Switch", "Merge") or node.op in _TENSOR_ARRAYS:
            needed = [ref.name for ref in node.inputs]
        else:
            needed = super()._needed(node)
        if node.op != "Enter":  # which another round, or what the loop is in, takes from elsewhere
            self._common.needed[node.name] = needed
        return needed

    def _compute(self, node: Node) -> str | None:
        failed, common = super()._compute(node), self._common
        if failed is not None:
            return failed
        self._computed.append(node)
        if node.name not in common.moving:
            if node.op in _FLOW or not common.fixed.keys() >= {*self._needed(node)}:
                common.moving.add(node.name)
            else:
                common.fixed[node.name] = self._values[node.name]
        return None

    def _switches(self, node: Node) -> list[str]:
        """The nodes that decide whether a constant is in the branch that is taken."""
        controls = (Ref(text[1:]) for text in node.proto.input if text.startswith("^"))
        return [ref.name for ref in controls if self.graph[self.graph.origin(ref)].op == "Switch"]

    def _outputs(self, node: Node) -> tuple[Array, ...]:
        values, op = self._values, self.ops.get(node.op)
        if op is not None:  # nearly all
            args = []
            for name, port in node.inputs:
                value = values[name][port]
                if value is _NO_VALUE:
                    return _NO_VALUES
                args.append(value)
            result = op(node, args)
            return result if isinstance(result, tuple) else (result,)
        if node.op == "Const":
            return self._constant_in_branch(node)
        if node.op == "Exit":
            return (self._after_loop(node),)
        if self._is_from_outside(node) and self._outside is not None:
            return (self._outside.value(node.inputs[0]),)
        if node.op == "Merge":
            alive = [(place, ref) for place, ref in enumerate(node.inputs) if not self._is_dead(ref)]
            if not alive:
                return _NO_VALUES
            return self._stored(alive[0][1]), np.asarray(alive[0][0], np.int32)
        for name, port in node.inputs:
            if name in values and values[name][port] is _NO_VALUE:
                return _NO_VALUES
        if node.op == "Switch":
            value, chosen = (self._stored(ref) for ref in node.inputs)
            return (_NO_VALUE, value) if bool(chosen.reshape(())) else (value, _NO_VALUE)
        if node.op in _TENSOR_ARRAYS:
            return self._tensor_array(node, [self._stored(ref) for ref in node.inputs])
        return super()._outputs(node)

    def _constant_in_branch(self, node: Node) -> tuple[Array, ...]:
        """A constant's value, or none. All that are in the same branch are taken together: loops have thousands."""
        switches = tuple(self._needed(node))
        known = self._common.constants.setdefault(switches, {})
        dead = any(self._values[name][0] is _NO_VALUE for name in switches)
        if node.name in known:
            for name, outputs in known.items():
                self._values.setdefault(name, _NO_VALUES if dead else outputs)
        elif not dead:
            known[node.name] = super()._outputs(node)
        return _NO_VALUES if dead else known[node.name]

    def _stored(self, ref: Ref) -> Array:
        return self._values[ref.name][ref.port]

    def _is_dead(self, ref: Ref) -> bool:
        return self._stored(ref) is _NO_VALUE

    def _after_loop(self, node: Node) -> Array:
        """The value of a loop's variable after the last round; those of its other variables are kept."""
        graph = self.graph
        condition = self._condition(node)
        if condition is None:
            raise NotConstantError("an Exit without a loop")
        if condition not in self._common.loops:
            self._common.loops[condition] = self._loop(condition)
        frame, merges, exits = self._common.loops[condition]
        if self._depth == _DEPTH:
            raise NotConstantError(f"more than {_DEPTH} loops in each other")
        if condition in self._begun:
            raise NotConstantError(f"the loop {frame} begins with its own end")
        self._begun.add(condition)
        try:
            state = {name: self.value(merge.inputs[0]) for name, merge in merges.items()}
        finally:
            self._begun.discard(condition)
        if any(value is _NO_VALUE for value in state.values()):  # the loop is in the branch that is not taken
            self._values.update(dict.fromkeys(exits, _NO_VALUES))
            return _NO_VALUE
        for _ in range(_ROUNDS):
            self._rounds.append(condition)
            if len(self._rounds) > _ALL_ROUNDS:
                raise NotConstantError(f"loops of more than {_ALL_ROUNDS} rounds together")
            given = {name: (value, np.asarray(0, np.int32)) for name, value in state.items()}
            inside = type(self)(
                graph, {**self._given, **given}, self._wanted, shape_of=self._shape_of, outside=self, frame=frame
            )
            if not bool(inside.value(condition).reshape(())):
                break
            state = {name: inside.value(merge.inputs[1]) for name, merge in merges.items()}
        else:
            raise NotConstantError(f"a loop of more than {_ROUNDS} rounds")
        self._values.update({name: (state[merge],) for name, merge in exits.items()})
        return state[exits[node.name]]

    def _loop(self, condition: Ref) -> _Loop:
        """The loop with this LoopCond; its exits are those that are wanted."""
        graph = self.graph
        exits = {}
        for other in graph:
            if other.op == "Exit" and other.name in self._wanted and self._condition(other) == condition:
                exits[other.name] = graph.origin(graph[graph.origin(other.inputs[0])].inputs[0]).name
        before = graph.upstream([condition, *(Ref(name) for name in exits)])
        merges = {merge.name: merge for merge in before if self._is_variable(merge, condition)}
        frames = {graph[ref].attr_text("frame_name") for merge in merges.values() for ref in merge.inputs[:1]}
        if len(frames) != 1 or not set(exits.values()) <= set(merges):
            raise NotConstantError("a loop that is not whole")
        return _Loop(frames.pop(), merges, exits)

    def _condition(self, node: Node) -> Ref | None:
        """The LoopCond of an Exit; None if it is in no loop."""
        graph = self.graph
        switch = graph[node.inputs[0]] if node.inputs else node
        if switch.op != "Switch" or len(switch.inputs) != 2:
            return None
        condition = graph.origin(switch.inputs[1])
        return condition if graph[condition].op == "LoopCond" else None

    def _is_variable(self, node: Node, condition: Ref) -> bool:
        """Whether a node is the Merge of a variable of the loop with this LoopCond."""
        graph = self.graph
        if node.op != "Merge" or [graph[ref].op for ref in node.inputs] != ["Enter", "NextIteration"]:
            return False
        switches = (use.node for use in graph.uses(node.ref) if use.node.op == "Switch")
        return any(graph.origin(switch.inputs[1]) == condition for switch in switches if len(switch.inputs) == 2)

    def _tensor_array(self, node: Node, args: list[Array]) -> tuple[Array, ...]:
        flow = np.zeros((), np.float32)
        if node.op == "TensorArrayV3":
            number = len(self._arrays)
            self._arrays[number] = (int(args[0].reshape(())), {})
            return np.asarray(number, np.int64), flow
        if args[0].dtype != np.int64 or int(args[0].reshape(())) not in self._arrays:
            raise NotConstantError("no TensorArray")
        size, parts = self._arrays[int(args[0].reshape(()))]
        if node.op == "TensorArraySizeV3":
            return (np.asarray(size, np.int32),)
        indices = [int(index) for index in args[1].reshape(-1)]
        if any(not 0 <= index < size for index in indices):
            raise NotConstantError(f"element {indices} of {size}")
        if node.op == "TensorArrayWriteV3":
            parts[indices[0]] = args[2]
        elif node.op == "TensorArrayScatterV3":
            parts.update(zip(indices, args[2], strict=True))
        elif any(index not in parts for index in indices):
            raise NotConstantError(f"element {indices}, which was not written")
        elif node.op == "TensorArrayReadV3":
            return (parts[indices[0]],)
        else:
            return (np.stack([parts[index] for index in indices]),)
        return (flow,)
