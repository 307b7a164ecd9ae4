"""Loops, conditions and TensorArrays of TensorFlow 1, run without it."""

from __future__ import annotations

import numpy as np
import pytest

from ssdlite_caffe.dump.graph.constant_ops import NotConstantError
from ssdlite_caffe.dump.graph.execution import Execution
from ssdlite_caffe.dump.graph.tensors import Array
from ssdlite_caffe.dump.graph.view import Node
from tests.dump_graphs import GraphBuilder, ref


def value(b: GraphBuilder, name: str, **given: Array) -> Array:
    graph = b.graph()
    wanted = {node.name for node in graph.upstream([ref(name)])}
    return Execution(graph, {key: (array,) for key, array in given.items()}, wanted).value(ref(name))


def loop(b: GraphBuilder, rounds: str, *, limit: int = 1000) -> None:
    """Twice each row of `rows`, written to a TensorArray: `out`; and the sum of the numbers of the rounds: `sum`."""
    b.node("rows", "Placeholder")
    b.node("in", "TensorArrayV3", rounds)
    b.node("range", "Range", b.const("zero", 0, "int32"), rounds, b.const("one", 1, "int32"))
    b.node("scattered", "TensorArrayScatterV3", "in", "range", "rows", "in:1")
    b.node("array", "TensorArrayV3", rounds)
    starts = {"i": "zero", "total": "zero", "flow": "array:1"}
    for name, start in starts.items():
        b.node(f"{name}/enter", "Enter", start, frame_name="loop")
        b.node(f"{name}/merge", "Merge", f"{name}/enter", f"{name}/next")
    b.node("rounds/enter", "Enter", rounds, frame_name="loop", is_constant=True)
    b.node("go", "LoopCond", b.node("less", "Less", "i/merge", "rounds/enter"))
    for name in starts:
        b.node(f"{name}/switch", "Switch", f"{name}/merge", "go")
        b.node(f"{name}/now", "Identity", f"{name}/switch:1")
        b.node(f"{name}/exit", "Exit", f"{name}/switch")
    step = b.const("step", 1, "int32")
    b.definition.node[-1].input.append("^i/now")
    b.node("i/next", "NextIteration", b.node("i+1", "Add", "i/now", step))
    b.node("total/next", "NextIteration", b.node("total+i", "Add", "total/now", "i/now"))
    for name in ("in", "scattered", "array"):
        b.node(f"{name}/enter", "Enter", name, frame_name="loop", is_constant=True)
    b.node("row", "TensorArrayReadV3", "in/enter", "i/now", "scattered/enter")
    b.node("written", "TensorArrayWriteV3", "array/enter", "i/now", b.node("twice", "Add", "row", "row"), "flow/now")
    b.node("flow/next", "NextIteration", "written")
    b.node("out", "TensorArrayGatherV3", "array", "range", "flow/exit")
    b.node("sum", "Identity", "total/exit")
    b.node("size", "TensorArraySizeV3", "array", "flow/exit")


@pytest.mark.parametrize("rounds", [1, 4])
def test_a_loop_over_rows(rounds: int) -> None:
    b = GraphBuilder()
    loop(b, b.const("rounds", rounds, "int32"))
    rows = np.arange(3 * rounds, dtype=np.float32).reshape(rounds, 3)
    np.testing.assert_array_equal(value(b, "out", rows=rows), 2 * rows)
    assert value(b, "sum", rows=rows) == sum(range(rounds))
    assert value(b, "size", rows=rows) == rounds


def test_a_loop_of_no_round_gives_what_was_before_it() -> None:
    b = GraphBuilder()
    loop(b, b.const("rounds", 0, "int32"))
    assert value(b, "sum", rows=np.zeros((0, 3), np.float32)) == 0


def test_a_loop_without_end_is_given_up() -> None:
    b = GraphBuilder()
    loop(b, b.const("rounds", 10**6, "int32"))
    with pytest.raises(NotConstantError, match="more than 100 rounds"):
        value(b, "sum")


def test_a_loop_that_begins_with_its_own_end() -> None:
    b = GraphBuilder()
    loop(b, b.const("rounds", 4, "int32"))
    (enter,) = (node for node in b.definition.node if node.name == "total/enter")
    enter.input[0] = "total/exit"
    with pytest.raises(NotConstantError, match="the loop loop begins with its own end"):
        value(b, "sum", rows=np.zeros((4, 3), np.float32))


def test_a_row_that_was_not_written() -> None:
    b = GraphBuilder()
    b.node("array", "TensorArrayV3", b.const("two", 2, "int32"))
    b.node("written", "TensorArrayWriteV3", "array", b.const("zero", 0, "int32"), b.const("x", 1.0), "array:1")
    b.node("read", "TensorArrayReadV3", "array", b.const("one", 1, "int32"), "written")
    with pytest.raises(NotConstantError, match=r"\[1\], which was not written"):
        value(b, "read")


@pytest.mark.parametrize(("outer", "inner", "wanted"), [(True, True, 7.0), (True, False, 8.0), (False, True, 9.0)])
def test_conditions_in_each_other_take_the_branches_of_tensorflow(outer: bool, inner: bool, wanted: float) -> None:
    """The constants are in branches by control inputs; the one of the branch that is not taken cannot be computed."""
    b = GraphBuilder()
    for name, chosen in (("outer", outer), ("inner", inner)):
        b.const(f"{name}/chosen", chosen, "bool")
    b.node("outer/switch", "Switch", "outer/chosen", "outer/chosen")
    b.node("outer/true", "Identity", "outer/switch:1")
    b.node("outer/false", "Identity", "outer/switch")
    b.node("inner/within", "Switch", "inner/chosen", "outer/chosen")
    b.node("inner/switch", "Switch", "inner/within:1", "inner/within:1")
    b.node("inner/true", "Identity", "inner/switch:1")
    b.node("inner/false", "Identity", "inner/switch")
    for name, number, branch in (("a", 7.0, "inner/true"), ("b", 8.0, "inner/false"), ("c", 9.0, "outer/false")):
        b.const(name, number)
        b.definition.node[-1].input.append(f"^{branch}")
    b.node("inner/merge", "Merge", "b", "a")
    b.node("outer/merge", "Merge", "c", "inner/merge")
    assert value(b, "outer/merge") == wanted


def like(
    b: GraphBuilder, name: str, *, seen: list[str] | None = None, all_given: list[dict[str, Array]]
) -> list[Array]:
    """The values of `name` for several given values, each execution like the one before it."""

    class Watched(Execution):
        def _outputs(self, node: Node) -> tuple[Array, ...]:
            if seen is not None:
                seen.append(node.name)
            return super()._outputs(node)

    graph = b.graph()
    wanted = {node.name for node in graph.upstream([ref(name)])}
    execution, found = None, []
    for given in all_given:
        execution = Watched(graph, {key: (array,) for key, array in given.items()}, wanted, like=execution)
        found.append(execution.value(ref(name)))
    return found


def test_a_loop_for_other_rows_like_an_earlier_execution() -> None:
    b = GraphBuilder()
    loop(b, b.const("rounds", 3, "int32"))
    rows = np.arange(9, dtype=np.float32).reshape(3, 3)
    one, other = like(b, "out", all_given=[{"rows": rows}, {"rows": rows[::-1] - 5}])
    np.testing.assert_array_equal(one, 2 * rows)
    np.testing.assert_array_equal(other, 2 * (rows[::-1] - 5))


def test_other_branches_and_numbers_of_rounds_like_an_earlier_execution() -> None:
    b = GraphBuilder()
    b.node("rounds", "Placeholder")
    b.node("chosen", "Placeholder")
    loop(b, "rounds")
    b.node("switch", "Switch", "sum", "chosen")
    b.node("true", "Identity", "switch:1")
    b.node("false", "Identity", "switch")
    hundred = b.const("hundred", 100, "int32")
    b.definition.node[-1].input.append("^false")
    b.node("more", "Add", hundred, "false")
    b.node("merge", "Merge", "true", "more")
    given = [
        {"rounds": np.int32(rounds), "chosen": np.asarray(chosen), "rows": np.zeros((rounds, 3), np.float32)}
        for rounds, chosen in ((4, True), (0, False), (2, False), (5, True), (5, False))
    ]
    assert [int(found) for found in like(b, "merge", all_given=given)] == [6, 100, 101, 10, 110]


def test_what_depends_on_no_given_value_is_computed_once() -> None:
    b = GraphBuilder()
    b.node("x", "Placeholder")
    b.node("two", "Add", b.const("one", 1.0), "one")
    b.node("sum", "Add", "x", b.node("four", "Mul", "two", "two"))
    seen: list[str] = []
    found = like(b, "sum", seen=seen, all_given=[{"x": np.float32(1)}, {"x": np.float32(2)}, {"x": np.float32(3)}])
    assert found == [5, 6, 7]
    assert sorted(seen) == ["four", "one", "sum", "sum", "sum", "two"]


def test_an_earlier_order_is_left_where_something_is_not_known() -> None:
    """Here `b` was computed before `c`, so that it is not in c's order."""
    b = GraphBuilder()
    b.node("x", "Placeholder")
    b.node("c", "Neg", b.node("b", "Square", "x"))
    graph = b.graph()
    first = Execution(graph, {"x": (np.float32(2),)}, ["b", "c"])
    assert [first.value(ref(name)) for name in "bc"] == [4, -4]
    second = Execution(graph, {"x": (np.float32(3),)}, ["b", "c"], like=first)
    assert second.value(ref("c")) == -9


def test_what_fails_like_an_earlier_execution_fails() -> None:
    b = GraphBuilder()
    b.node("x", "Placeholder")
    b.node("shaped", "Reshape", "x", b.const("sizes", [2, 2], "int32"))
    b.node("twice", "Add", "shaped", "shaped")
    with pytest.raises(NotConstantError, match=r"shaped \(Reshape\) cannot be computed"):
        like(b, "twice", all_given=[{"x": np.arange(4)}, {"x": np.arange(3)}])
