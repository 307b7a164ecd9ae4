"""Constant arithmetic: values, types, bounds and loops. Values are compared with TensorFlow's in tests/parity."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from ssdlite_caffe.dump.graph.constants import Evaluator, NotConstantError
from ssdlite_caffe.dump.graph.execution_ops import suppress
from ssdlite_caffe.dump.graph.tensors import to_array
from ssdlite_caffe.dump.graph.view import Graph, Ref
from ssdlite_caffe.errors import ModelError
from tests.dump_graphs import GraphBuilder, ref


def test_float32_arithmetic_rounds_at_each_step_and_float64_does_not() -> None:
    b = GraphBuilder()
    third = b.node("third", "RealDiv", b.const("one", 1.0), b.const("three", 3.0))
    b.node("back", "Mul", third, b.const("three_", 3.000001))
    plain = Evaluator(b.graph()).value(ref("back"))
    precise = Evaluator(b.graph(), precise=True).value(ref("back"))
    assert plain.dtype == np.float32
    assert plain == np.float32(np.float32(1) / np.float32(3)) * np.float32(3.000001)
    assert precise.dtype == np.float64
    assert precise == 1 / 3 * float(np.float32(3.000001))


def test_a_cast_from_integers_is_widened_too() -> None:
    b = GraphBuilder()
    kinds = {"SrcT": np.dtype("int32"), "DstT": np.dtype("float32")}
    b.node("one", "Cast", b.const("1", 1, "int32"), **kinds)
    b.node("part", "RealDiv", "one", b.node("twenty", "Cast", b.const("20", 20, "int32"), **kinds))
    found = Evaluator(b.graph(), precise=True).value(ref("part"))
    assert (found.dtype, float(found)) == (np.float64, 1 / 20)
    assert Evaluator(b.graph()).value(ref("part")).dtype == np.float32


def test_identities_and_ports_are_followed() -> None:
    b = GraphBuilder()
    b.node("parts", "Unpack", b.const("v", [[1.0, 2.0], [3.0, 4.0]]), num=2, axis=1)
    b.node("second", "Identity", "parts:1")
    b.node("guarded", "Add", "second", "parts:0", "^v")
    np.testing.assert_array_equal(Evaluator(b.graph()).value(ref("guarded")), [3.0, 7.0])
    with pytest.raises(NotConstantError, match="parts:2 does not exist"):
        Evaluator(b.graph()).value(Ref("parts", 2))


def test_unpack_gives_numbers_and_round_goes_to_even() -> None:
    """A vector's parts have no axes: packed again they are that vector, which a letterbox's sizes are made of."""
    b = GraphBuilder()
    b.node("parts", "Unpack", b.node("round", "Round", b.const("v", [0.5, 1.5, 2.4])), num=3)
    b.node("again", "Pack", "parts", "parts:1", "parts:2")
    np.testing.assert_array_equal(Evaluator(b.graph()).value(ref("again")), np.float32([0, 2, 2]), strict=True)
    assert Evaluator(b.graph()).value(Ref("parts", 1)).shape == ()


def test_strided_slice_masks_and_division_towards_zero() -> None:
    b = GraphBuilder()
    v = b.const("v", np.arange(24).reshape(2, 3, 4), "int32")
    begin, end, step = (b.const(n, x, "int32") for n, x in (("b", [1, 2, 1]), ("e", [0, 9, 4]), ("s", [1, -1, 2])))
    b.node("part", "StridedSlice", v, begin, end, step, shrink_axis_mask=1, begin_mask=4, end_mask=2)
    np.testing.assert_array_equal(
        Evaluator(b.graph()).value(ref("part")), np.arange(24).reshape(2, 3, 4)[1, 2::-1, :4:2]
    )
    b.node("div", "Div", b.const("x", [7, -7, 8], "int32"), b.const("y", [2, 2, -3], "int32"))
    np.testing.assert_array_equal(Evaluator(b.graph()).value(ref("div")), [3, -3, -2])


def test_loops_end_as_not_constant() -> None:
    b = GraphBuilder()
    b.node("a", "Add", "b", "c")
    b.node("b", "Identity", "a")
    b.const("c", 1.0)
    evaluator = Evaluator(b.graph())
    for name in ("a", "b"):
        with pytest.raises(NotConstantError, match="loop"):
            evaluator.value(ref(name))
    assert b.graph().origin(ref("b")) == ref("a")
    b.node("self", "Identity", "self")
    assert b.graph().origin(ref("self")) == ref("self")
    assert b.graph().uses(ref("self")) == []


def test_a_chain_of_fifty_thousand_nodes_needs_no_recursion() -> None:
    b = GraphBuilder()
    last = b.const("n0", 0, "int64")
    one = b.const("one", 1, "int64")
    for index in range(1, 50_000):
        last = b.node(f"n{index}", "Add", last, one)
    assert Evaluator(b.graph()).value(ref(last)) == 49_999


@pytest.mark.parametrize(
    ("op", "arguments"),
    [
        ("Fill", ([1 << 15, 1 << 15], 1)),
        ("Tile", ([[1, 2]], [1 << 14, 1 << 14])),
        ("Range", (0, 1 << 30, 1)),
        ("BroadcastTo", ([1], [1 << 30])),
        ("Fill", ([-1], 1)),
    ],
)
def test_sizes_are_bounded_before_anything_is_allocated(op: str, arguments: tuple[object, ...]) -> None:
    b = GraphBuilder()
    b.node("big", op, *(b.const(f"a{i}", value, "int32") for i, value in enumerate(arguments)))
    with pytest.raises(NotConstantError):
        Evaluator(b.graph()).value(ref("big"))


def test_doubling_is_stopped() -> None:
    b = GraphBuilder()
    last = b.const("start", np.ones(1 << 16), "float32")
    axis = b.const("axis", 0, "int32")
    for index in range(40):
        last = b.node(f"twice{index}", "ConcatV2", last, last, axis)
    with pytest.raises(NotConstantError):
        Evaluator(b.graph()).value(ref(last))


@pytest.mark.parametrize(
    ("op", "values"),
    [
        ("Reshape", ([1.0, 2.0, 3.0], [2, 2])),
        ("Div", ([1], [0])),
        ("Gather", ([1.0, 2.0], [5])),
        ("Slice", ([1.0, 2.0], [1], [4])),
        ("Add", ([1.0, 2.0], [1.0, 2.0, 3.0])),
        ("Transpose", ([1.0], [0, 0])),
        ("Range", (0, 5, 0)),
    ],
)
def test_what_cannot_be_computed_is_not_constant(op: str, values: tuple[object, ...]) -> None:
    b = GraphBuilder()
    kinds = ["int32" if np.asarray(v).dtype.kind == "i" else "float32" for v in values]
    b.node("bad", op, *(b.const(f"a{i}", v, k) for i, (v, k) in enumerate(zip(values, kinds, strict=True))))
    with pytest.raises(NotConstantError, match="bad"):
        Evaluator(b.graph()).value(ref("bad"))


def test_shape_of_what_is_not_constant_comes_from_outside() -> None:
    b = GraphBuilder()
    b.node("x", "Placeholder")
    b.node("shape", "Shape", "x", out_type=np.dtype("int64"))
    b.node("rank", "Rank", "x")
    b.node("size", "Size", "x")
    assert Evaluator(b.graph()).get(ref("shape")) is None
    known = Evaluator(b.graph(), shape_of=lambda _: (1, 5, 7, 3))
    np.testing.assert_array_equal(known.value(ref("shape")), np.array([1, 5, 7, 3], np.int64))
    assert known.value(ref("shape")).dtype == np.int64
    assert (known.scalar(ref("rank")), known.scalar(ref("size"))) == (4, 105)


@given(st.lists(st.floats(width=32, allow_nan=False), max_size=6), st.integers(0, 4))
def test_value_lists_repeat_their_last_value(values: list[float], more: int) -> None:
    proto = pb.TensorProto(dtype=pb.DT_FLOAT, float_val=values)
    proto.tensor_shape.dim.add(size=len(values) + more)
    expected = values + [values[-1] if values else 0.0] * more
    np.testing.assert_array_equal(to_array(proto, "c"), np.array(expected, np.float32))


def test_half_and_bfloat16_bits() -> None:
    half = pb.TensorProto(dtype=pb.DT_HALF, half_val=[int(np.float16(1.5).view(np.uint16)), 0x8000])
    half.tensor_shape.dim.add(size=2)
    np.testing.assert_array_equal(to_array(half, "h"), np.array([1.5, -0.0], np.float16))
    brain = pb.TensorProto(dtype=pb.DT_BFLOAT16, tensor_content=b"\xc0\x3f\x20\xc1")
    brain.tensor_shape.dim.add(size=2)
    np.testing.assert_array_equal(to_array(brain, "b"), np.array([1.5, -10.0], np.float32))


@pytest.mark.parametrize(
    ("proto", "text"),
    [
        (pb.TensorProto(dtype=pb.DT_STRING), "must have a numeric dtype, got DT_STRING"),
        (pb.TensorProto.FromString(b"\x08\x63"), "type 99"),
        (pb.TensorProto(dtype=pb.DT_FLOAT, tensor_content=b"123"), "3 bytes, its shape needs 4"),
        (pb.TensorProto(dtype=pb.DT_FLOAT, float_val=[1, 2]), "2 values, its shape needs 1"),
        (pb.TensorProto(dtype=pb.DT_UINT8, int_val=[300]), "outside the range of its dtype"),
        (pb.TensorProto(dtype=pb.DT_FLOAT, tensor_shape=pb.TensorShapeProto(unknown_rank=True)), "unknown shape"),
        (pb.TensorProto(dtype=pb.DT_INT8, tensor_shape=pb.TensorShapeProto(
            dim=[pb.TensorShapeProto.Dim(size=1 << 40)])), "the file is damaged"),
    ],
)  # fmt: skip
def test_damaged_constants_are_named(proto: pb.TensorProto, text: str) -> None:
    with pytest.raises(ModelError, match=text):
        to_array(proto, "node")


def test_graphs_that_contradict_themselves() -> None:
    twice = [pb.NodeDef(name="a", op="NoOp")] * 2
    with pytest.raises(ModelError, match="two nodes have the name 'a'"):
        Graph(twice, source="g.pb")
    with pytest.raises(ModelError, match="reads 'gone', which is not in the graph"):
        Graph([pb.NodeDef(name="a", op="Identity", input=["gone:1"])], source="g.pb")


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_split_into_equal_parts(axis: int) -> None:
    value = np.arange(4 * 2 * 6).reshape(4, 2, 6)
    b = GraphBuilder()
    b.node("parts", "Split", b.const("axis", axis, "int32"), b.const("value", value), num_split=2)
    for port, part in enumerate(np.split(value, 2, axis)):
        np.testing.assert_array_equal(Evaluator(b.graph()).value(Ref("parts", port)), part)


@pytest.mark.parametrize("count", [0, 4])
def test_split_into_other_parts(count: int) -> None:
    b = GraphBuilder()
    b.node("parts", "Split", b.const("axis", 0, "int32"), b.const("value", np.arange(6)), num_split=count)
    with pytest.raises(NotConstantError, match=rf"a Split of 6 into {count}"):
        Evaluator(b.graph()).value(ref("parts"))


def test_where_has_a_row_an_element() -> None:
    b = GraphBuilder()
    b.node("flat", "Where", b.const("one", [False, True, True], "bool"))
    b.node("grid", "Where", b.const("two", [[False, True], [True, False]], "bool"))
    np.testing.assert_array_equal(Evaluator(b.graph()).value(ref("flat")), np.int64([[1], [2]]), strict=True)
    np.testing.assert_array_equal(Evaluator(b.graph()).value(ref("grid")), np.int64([[0, 1], [1, 0]]), strict=True)


@pytest.mark.parametrize(("count", "limit", "kept"), [(0, 5, []), (1, 5, [0]), (1, 0, []), (2, 1, [1])])
def test_suppression_of_few_boxes(count: int, limit: int, kept: list[int]) -> None:
    boxes = np.float32([[0, 0, 1, 1], [2, 2, 3, 3]])[:count]
    found = suppress(boxes, np.float32([0.5, 0.9])[:count], limit, 0.5)
    np.testing.assert_array_equal(found, np.int32(kept), strict=True)
