"""Functions of a graph are put in the place of their calls."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from ssdlite_caffe.dump.graph.constant_ops import NotConstantError
from ssdlite_caffe.dump.graph.execution import Execution
from ssdlite_caffe.dump.graph.functions import without_functions
from ssdlite_caffe.dump.graph.view import Graph, Ref
from ssdlite_caffe.errors import ModelError
from tests.dump_graphs import GraphBuilder


def function(
    builder: GraphBuilder, name: str, arguments: str, results: dict[str, str], write: Callable[[GraphBuilder], object]
) -> None:
    """Add a function to the library: `write` adds its nodes, and `results` are its outputs' tensors."""
    made = builder.definition.library.function.add()
    made.signature.name = name
    for argument in arguments.split():
        made.signature.input_arg.add(name=argument)
    body = GraphBuilder()
    write(body)
    made.node_def.extend(body.definition.node)
    for result, text in results.items():
        made.signature.output_arg.add(name=result)
        made.ret[result] = text


def call(builder: GraphBuilder, name: str, op: str, *inputs: str, **functions: str) -> str:
    builder.node(name, op, *inputs)
    for key, value in functions.items():
        builder.definition.node[-1].attr[key].func.name = value
    return name


def value(builder: GraphBuilder, name: str) -> np.ndarray:
    graph = Graph(without_functions(builder.definition, "graph.pb").node, source="graph.pb")
    wanted = {node.name for node in graph.upstream([Ref(name)])}
    return Execution(graph, {}, wanted).value(Ref(name))


def arithmetic(name: str, op: str, other: float) -> Callable[[GraphBuilder], object]:
    """A body: the argument `x` and a constant."""
    return lambda b: b.node(name, op, "x", b.const("c", other) + ":output:0")


@pytest.fixture
def builder() -> GraphBuilder:
    made = GraphBuilder()
    made.const("three", 3.0)
    function(made, "less", "x", {"r": "s:z:0"}, arithmetic("s", "Sub", 1.0))
    function(made, "twice", "x", {"r": "m:z:0"}, arithmetic("m", "Mul", 2.0))
    return made


def test_a_graph_without_calls_stays_the_same(builder: GraphBuilder) -> None:
    assert without_functions(builder.definition, "graph.pb") is builder.definition


@pytest.mark.parametrize("op", ["PartitionedCall", "StatefulPartitionedCall"])
def test_calls_in_calls(builder: GraphBuilder, op: str) -> None:
    def write(b: GraphBuilder) -> None:
        call(b, "one", op, "x", f="less")
        call(b, "other", op, "one:output:0", f="twice")

    function(builder, "both", "x", {"r": "other:output:0"}, write)
    builder.node("end", "Identity", call(builder, "c", op, "three", f="both"))
    assert value(builder, "end") == (3 - 1) * 2


def test_a_function_that_is_an_op(builder: GraphBuilder) -> None:
    builder.node("end", "Identity", builder.node("c", "less", "three"))
    assert value(builder, "end") == 2


@pytest.mark.parametrize(("truth", "found"), [(True, 2.0), (False, 6.0)])
@pytest.mark.parametrize("op", ["If", "StatelessIf"])
def test_conditions(builder: GraphBuilder, op: str, truth: bool, found: float) -> None:
    builder.const("truth", truth, "bool")
    call(builder, "c", op, "truth", "three", then_branch="less", else_branch="twice")
    builder.node("end", "Identity", "c")
    assert value(builder, "end") == found


def test_a_branch_that_is_a_constant(builder: GraphBuilder) -> None:
    function(builder, "seven", "x", {"r": "c:output:0"}, lambda b: b.const("c", 7.0))
    for truth, name in ((True, "yes"), (False, "no")):
        builder.const(f"truth_{name}", truth, "bool")
        call(builder, name, "StatelessIf", f"truth_{name}", "three", then_branch="seven", else_branch="twice")
        builder.node(f"end_{name}", "Identity", name)
    assert value(builder, "end_yes") == 7
    assert value(builder, "end_no") == 6


@pytest.mark.parametrize("op", ["While", "StatelessWhile"])
def test_loops(builder: GraphBuilder, op: str) -> None:
    """i = 0, y = 3; while i < 4: i, y, step = i + 1, y + step, step."""
    function(builder, "goes", "i y step", {"r": "l:z:0"}, lambda b: b.node("l", "Less", "i", b.const("n", 4.0)))

    def write(b: GraphBuilder) -> None:
        b.node("next", "AddV2", "i", b.const("one", 1.0) + ":output:0")
        b.node("sum", "AddV2", "y", "step")
        b.node("same", "Identity", "step")

    function(builder, "body", "i y step", {"a": "next:z:0", "b": "sum:z:0", "c": "same:output:0"}, write)
    builder.const("zero", 0.0)
    builder.const("step", 0.5)
    call(builder, "c", op, "zero", "three", "step", cond="goes", body="body")
    for port, name in enumerate(("i", "y", "step")):
        builder.node(f"end_{name}", "Identity", f"c:{port}" if port else "c")
    assert value(builder, "end_i") == 4
    assert value(builder, "end_y") == 3 + 4 * 0.5
    assert value(builder, "end_step") == 0.5


def test_a_loop_in_a_branch(builder: GraphBuilder) -> None:
    function(builder, "small", "x", {"r": "l:z:0"}, lambda b: b.node("l", "Less", "x", b.const("n", 100.0)))
    function(
        builder, "until", "x", {"r": "w:output:0"}, lambda b: call(b, "w", "While", "x", cond="small", body="twice")
    )
    for truth, name in ((True, "yes"), (False, "no")):
        builder.const(f"truth_{name}", truth, "bool")
        call(builder, name, "If", f"truth_{name}", "three", then_branch="until", else_branch="less")
        builder.node(f"end_{name}", "Identity", name)
    assert value(builder, "end_yes") == 192
    assert value(builder, "end_no") == 2


def test_lists_of_tensors(builder: GraphBuilder) -> None:
    builder.const("count", 2, "int32")
    builder.const("shape", [], "int32")
    builder.const("rows", [[1.0, 2.0], [3.0, 4.0]])
    builder.const("first", 0, "int32")
    builder.const("last", 1, "int32")
    builder.node("list", "TensorListFromTensor", "rows", "shape")
    builder.node("row", "TensorListGetItem", "list", "last", "shape")
    builder.node("empty", "TensorListReserve", "shape", "count")
    builder.node("half", "TensorListSetItem", "empty", "first", "row")
    builder.node("full", "TensorListSetItem", "half", "last", "row")
    builder.node("end", "TensorListStack", "full", "shape")
    np.testing.assert_array_equal(value(builder, "end"), [[3, 4], [3, 4]])
    builder.node("not_whole", "TensorListStack", "half", "shape")
    with pytest.raises(NotConstantError, match="element 1 of a list of 2, which was not set"):
        value(builder, "not_whole")


@pytest.mark.parametrize(
    ("op", "functions", "said"),
    [
        ("PartitionedCall", {"f": "none"}, "c (PartitionedCall) calls the function 'none', which is not in the file"),
        ("StatelessIf", {"then_branch": "less"}, "c (StatelessIf) calls the function '', which is not in the file"),
        ("Case", {}, "c (Case) calls functions in a way that is not read here"),
        ("PartitionedCall", {"f": "itself"}, "calls more than 16 functions in each other"),
        ("PartitionedCall", {"f": "two"}, "calls the function 'two' with 1 inputs, which takes 2"),
        ("PartitionedCall", {"f": "listed"}, "has a list as its argument 'x', which is not read here"),
        ("PartitionedCall", {"f": "broken"}, "has an input 'absent:z:0', which is not in its function"),
        ("While", {"cond": "none_out", "body": "less"}, "the condition of c (While) must have one output, it has 0"),
        (
            "StatelessWhile",
            {"cond": "less", "body": "two"},
            "c (StatelessWhile) has 1 variables, and its body 2 inputs",
        ),
    ],
)
def test_what_is_refused(builder: GraphBuilder, op: str, functions: dict[str, str], said: str) -> None:
    function(builder, "two", "x y", {"r": "x"}, lambda b: None)
    function(builder, "itself", "x", {"r": "c:output:0"}, lambda b: call(b, "c", "PartitionedCall", "x", f="itself"))
    function(builder, "none_out", "x", {}, lambda b: None)
    function(builder, "listed", "x", {"r": "x"}, lambda b: None)
    builder.definition.library.function[-1].signature.input_arg[0].number_attr = "N"
    function(builder, "broken", "x", {"r": "n:y:0"}, lambda b: b.node("n", "Neg", "absent:z:0"))
    builder.const("truth", True, "bool")
    inputs = ("truth", "three") if op == "StatelessIf" else ("three",)
    builder.node("end", "Identity", call(builder, "c", op, *inputs, **functions))
    with pytest.raises(ModelError, match=re.escape(said)):
        without_functions(builder.definition, "graph.pb")


def test_an_output_that_a_call_does_not_have(builder: GraphBuilder) -> None:
    builder.node("end", "Identity", call(builder, "c", "PartitionedCall", "three", f="less") + ":1")
    with pytest.raises(ModelError, match="reads output 1 of c, which does not exist"):
        without_functions(builder.definition, "graph.pb")
