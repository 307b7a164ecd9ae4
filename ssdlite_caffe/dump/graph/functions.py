"""Functions of a graph, put in the place of their calls: TensorFlow 2's control flow as TensorFlow 1's.

TensorFlow 2 writes a loop as `StatelessWhile` and a condition as `StatelessIf`, whose parts are functions in the file's
library, and TensorFlow 1 writes them as Switch, Merge, Enter, NextIteration and Exit. A graph is read in the latter
form, into which TensorFlow itself turns the former before it runs a graph.

Source: tensorflow/core/common_runtime/{inline_function_utils,lower_while_op,lower_if_op}.cc; the inputs of a function's
nodes: tensorflow/core/framework/function.proto.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from ssdlite_caffe.errors import ModelError

CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
CONDITIONS = frozenset({"If", "StatelessIf"})
LOOPS = frozenset({"While", "StatelessWhile"})
FUNCTIONAL = CALLS | CONDITIONS | LOOPS | {"Case", "StatelessCase", "For", "RemoteCall", "SymbolicGradient"}
_DEPTH = 16
"""Most calls in each other."""
_MAX_NODES = 1 << 18
"""Most nodes and calls together: calls of functions without nodes take time too, and their number multiplies."""
_OUTPUTS = {
    "Switch": ("output_false", "output_true"),
    "Merge": ("output", "value_index"),
    "TopKV2": ("values", "indices"),
    "NonMaxSuppressionV4": ("selected_indices", "valid_outputs"),
    "NonMaxSuppressionV5": ("selected_indices", "selected_scores", "valid_outputs"),
    "CombinedNonMaxSuppression": ("nmsed_boxes", "nmsed_scores", "nmsed_classes", "valid_detections"),
    "TensorArrayV3": ("handle", "flow"),
    "TensorListPopBack": ("output_handle", "tensor"),
}
"""Names of the outputs of ops that have several; others have one, or one list."""

Names = dict[str, list[str]]
"""Name of a node that was replaced -> the tensors that stand for its outputs."""


def without_functions(definition: pb.GraphDef, source: str) -> pb.GraphDef:
    """A graph with the bodies of its functions in place of their calls; the same graph if it calls none.

    Args:
        definition: the graph, with its library.
        source: path, for messages.

    Raises:
        ModelError: a function is missing or of a kind that is not read here; the node that calls it is named.
    """
    functions = {function.signature.name: function for function in definition.library.function}
    if not any(node.op in FUNCTIONAL or node.op in functions for node in definition.node):
        return definition
    inlined = pb.GraphDef()
    body = _Body(inlined, functions, source, {node.name for node in definition.node})
    replaced: Names = {}
    for node in definition.node:
        outputs = body.add(node, list(node.input), node.name, 0)
        if outputs is not None:
            replaced[node.name] = outputs
    for node in inlined.node:
        inputs = [_redirected(text, replaced, source) for text in node.input]
        del node.input[:]
        node.input.extend(text for text in inputs if text)
    return inlined


def _redirected(text: str, replaced: Names, source: str) -> str:
    """An input, or what stands for it; empty for a control input from a call."""
    seen = 0
    while True:
        name, _, port = text.lstrip("^").partition(":")
        if name not in replaced:
            return text
        if text.startswith("^"):
            return ""
        outputs = replaced[name]
        number = int(port) if port.isdecimal() else 0
        seen += 1
        if number >= len(outputs) or seen > _MAX_NODES:
            raise ModelError(f"{source}: a node reads output {number} of {name}, which does not exist")
        text = outputs[number]


class _Body:
    """Writes nodes, and the bodies of the functions that they call, into a graph."""

    def __init__(
        self, graph: pb.GraphDef, functions: Mapping[str, pb.FunctionDef], source: str, names: set[str]
    ) -> None:
        self._graph, self._functions, self._source, self._names = graph, functions, source, names
        self._calls = 0

    def add(self, node: pb.NodeDef, inputs: list[str], name: str, depth: int, pivot: str = "") -> list[str] | None:
        """Write a node or what it calls.

        Args:
            node: to copy.
            inputs: in place of its own.
            name: in place of its own.
            depth: of calls.
            pivot: the tensor that decides whether a constant has a value, in a condition's branch.

        Returns:
            The outputs that stand for those of a call; None if it is no call.
        """
        if depth > _DEPTH:
            raise ModelError(f"{self._source}: {name} ({node.op}) calls more than {_DEPTH} functions in each other")
        if len(self._graph.node) + self._calls > _MAX_NODES:
            raise ModelError(
                f"{self._source} has more than {_MAX_NODES} nodes and calls, with those inside its functions"
            )
        data = [text for text in inputs if not text.startswith("^")]
        if node.op in CALLS or node.op in self._functions:
            return self._called(self._function(node, "f"), data, name, depth, pivot)
        if node.op in CONDITIONS and data:
            return self._condition(node, data, name, depth)
        if node.op in LOOPS:
            return self._loop(node, data, name, depth)
        if node.op in FUNCTIONAL:
            raise ModelError(f"{self._source}: {name} ({node.op}) calls functions in a way that is not read here")
        copy = self._graph.node.add()
        copy.CopyFrom(node)
        copy.name = name
        del copy.input[:]
        copy.input.extend(inputs)
        if pivot and not inputs:
            copy.input.append(f"^{pivot}")
        return None

    def _function(self, node: pb.NodeDef, attribute: str) -> pb.FunctionDef:
        name = node.op if node.op in self._functions else node.attr[attribute].func.name
        found = self._functions.get(name)
        if found is None:
            raise ModelError(
                f"{self._source}: {node.name} ({node.op}) calls the function {name!r}, which is not in the file"
            )
        for argument in (*found.signature.input_arg, *found.signature.output_arg):
            if argument.number_attr or argument.type_list_attr:
                raise ModelError(
                    f"{self._source}: the function {name!r} of {node.name} ({node.op}) has a list as its argument "
                    f"{argument.name!r}, which is not read here"
                )
        return found

    def _new(self, name: str, op: str, *inputs: str, **attrs: str) -> str:
        while name in self._names:
            name += "_"
        self._names.add(name)
        node = self._graph.node.add(name=name, op=op, input=inputs)
        for key, value in attrs.items():
            node.attr[key].s = value.encode()
        return name

    def _called(self, function: pb.FunctionDef, inputs: list[str], name: str, depth: int, pivot: str = "") -> list[str]:
        """Write the body of a function, and return its outputs."""
        self._calls += 1
        arguments = [argument.name for argument in function.signature.input_arg]
        if len(arguments) != len(inputs):
            raise ModelError(
                f"{self._source}: {name} calls the function {function.signature.name!r} with {len(inputs)} inputs, "
                f"which takes {len(arguments)}"
            )
        known: dict[str, str] = dict(zip(arguments, inputs, strict=True))
        ops = {node.name: node.op for node in function.node_def}
        names = {inner: self._free(f"{name}/{inner}") for inner in ops}
        replaced: Names = {}

        def tensor(text: str) -> str:
            if text in known:
                return known[text]
            node, _, rest = text.partition(":")
            output, _, index = rest.partition(":")
            if node not in ops or not (index or "0").isdecimal():
                raise ModelError(f"{self._source}: {name} has an input {text!r}, which is not in its function")
            places = _OUTPUTS.get(ops[node], ())
            port = int(index or 0) + (places.index(output) if output in places else 0)
            if node in replaced and port < len(replaced[node]):
                return replaced[node][port]
            return f"{names[node]}:{port}" if port else names[node]

        for node in _in_order(function):
            inputs = [tensor(text) for text in node.input if not text.startswith("^")]
            outputs = self.add(node, inputs, names[node.name], depth + 1, pivot)
            if outputs is not None:
                replaced[node.name] = outputs
        return [tensor(function.ret.get(argument.name, "")) for argument in function.signature.output_arg]

    def _free(self, name: str) -> str:
        while name in self._names:
            name += "_"
        self._names.add(name)
        return name

    def _condition(self, node: pb.NodeDef, inputs: list[str], name: str, depth: int) -> list[str]:
        truth, arguments = inputs[0], inputs[1:]
        decision = self._new(f"{name}/cond/Switch", "Switch", truth, truth)
        switches = [self._new(f"{name}/Switch_{number}", "Switch", text, truth) for number, text in
                    enumerate(arguments)]  # fmt: skip
        found = []
        for branch, port in (("else_branch", ""), ("then_branch", ":1")):
            pivot = self._new(f"{name}/{branch}/pivot", "Identity", decision + port)
            outputs = self._called(
                self._function(node, branch), [text + port for text in switches], f"{name}/{branch}", depth + 1, pivot
            )
            found.append(outputs)
        if len(found[0]) != len(found[1]):
            raise ModelError(f"{self._source}: the branches of {name} ({node.op}) have different numbers of outputs")
        return [self._new(f"{name}/Merge_{number}", "Merge", *pair) for number, pair in
                enumerate(zip(*found, strict=True))]  # fmt: skip

    def _loop(self, node: pb.NodeDef, inputs: list[str], name: str, depth: int) -> list[str]:
        condition, body = self._function(node, "cond"), self._function(node, "body")
        frame = self._free(f"{name}/frame")
        arguments = [argument.name for argument in body.signature.input_arg]
        results = [body.ret.get(argument.name, "") for argument in body.signature.output_arg]
        if not len(arguments) == len(results) == len(inputs):
            raise ModelError(f"{self._source}: {name} ({node.op}) has {len(inputs)} variables, and its body "
                             f"{len(arguments)} inputs and {len(results)} outputs")  # fmt: skip
        fixed = [_passed(body, result) == argument for result, argument in zip(results, arguments, strict=True)]
        enters = [self._new(f"{name}/Enter_{number}", "Enter", text, frame_name=frame) for number, text in
                  enumerate(inputs)]  # fmt: skip
        values, nexts = list(enters), {}
        for number, is_fixed in enumerate(fixed):
            if not is_fixed:
                nexts[number] = self._free(f"{name}/NextIteration_{number}")
                values[number] = self._new(f"{name}/Merge_{number}", "Merge", enters[number], nexts[number])
        truth = self._called(condition, values, f"{name}/cond", depth + 1)
        if len(truth) != 1:
            raise ModelError(f"{self._source}: the condition of {name} ({node.op}) must have one output, it has "
                             f"{len(truth)}")  # fmt: skip
        decision = self._new(f"{name}/LoopCond", "LoopCond", *truth)
        exits = list(inputs)
        for number in nexts:
            switch = self._new(f"{name}/Switch_{number}", "Switch", values[number], decision)
            values[number] = self._new(f"{name}/Identity_{number}", "Identity", f"{switch}:1")
            exits[number] = self._new(f"{name}/Exit_{number}", "Exit", switch)
        outputs = self._called(body, values, f"{name}/body", depth + 1)
        for number, after in nexts.items():
            self._graph.node.add(name=after, op="NextIteration", input=[outputs[number]])
        return exits


def _passed(function: pb.FunctionDef, text: str) -> str:
    """The argument that a result is a copy of; the result if it is none."""
    nodes = {node.name: node for node in function.node_def}
    for _ in range(len(nodes) + 1):
        node = nodes.get(text.partition(":")[0])
        if node is None or node.op != "Identity" or not node.input:
            break
        text = node.input[0]
    return text


def _in_order(function: pb.FunctionDef) -> Iterator[pb.NodeDef]:
    """The nodes, each behind those that it reads."""
    nodes = {node.name: node for node in function.node_def}
    done: set[str] = set()
    for start in nodes:
        stack = [start]
        while stack:
            name = stack[-1]
            missing = [other for text in nodes[name].input if not text.startswith("^")
                       and (other := text.partition(":")[0]) in nodes and other not in done]  # fmt: skip
            if name in done or not missing or any(other in stack for other in missing):
                stack.pop()
                if name not in done:
                    done.add(name)
                    yield nodes[name]
            else:
                stack.extend(missing)
