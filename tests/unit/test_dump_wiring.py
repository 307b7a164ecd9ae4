"""A graph with a MobileNet's kernels and other edges between them is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.dump.detector.affine import Constants
from ssdlite_caffe.dump.detector.wiring import Join, expression, join_order
from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from ssdlite_caffe.dump.graph.view import Graph, Ref
from ssdlite_caffe.dump.read import read_model
from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.load.recognise import recognise
from tests.dump_graphs import GraphBuilder, shape_proto

BODY = "FeatureExtractor/MobilenetV3"
Nodes = dict[str, pb.NodeDef]


def one_of(nodes: Nodes, *names: str) -> str:
    """The name that a graph has: ours first, then the Object Detection API's."""
    return next(name for name in names if name in nodes)


def add_of(nodes: Nodes, block: int) -> str:
    return one_of(nodes, f"{BODY}/expanded_conv_{block}/add/Add", f"{BODY}/expanded_conv_{block}/add")


def redirect(nodes: Nodes, old: str, new: str) -> None:
    """Whoever reads `old` reads `new`."""
    for node in nodes.values():
        node.input[:] = [new if name == old else name for name in node.input]


def residual_left_out(nodes: Nodes) -> None:
    redirect(nodes, add_of(nodes, 2), nodes[add_of(nodes, 2)].input[0])


def residual_turned_into_a_difference(nodes: Nodes) -> None:
    nodes[add_of(nodes, 2)].op = "Sub"


def residual_from_another_block(nodes: Nodes) -> None:
    nodes[add_of(nodes, 5)].input[1] = nodes[add_of(nodes, 4)].input[0]


def gate_left_out(nodes: Nodes) -> None:
    scope = f"{BODY}/expanded_conv_4/squeeze_excite"
    gate = one_of(nodes, f"{scope}/mul/Mul", f"{scope}/mul")
    redirect(nodes, gate, nodes[gate].input[0])


def gate_of_the_largest(nodes: Nodes) -> None:
    scope = f"{BODY}/expanded_conv_4"
    nodes[one_of(nodes, f"{scope}/squeeze/Mean", f"{scope}/squeeze_excite/Mean")].op = "Max"


def box_codes_swapped(nodes: Nodes) -> None:
    inputs = nodes[one_of(nodes, "predictions/concat", "concat")].input
    inputs[0], inputs[1] = inputs[1], inputs[0]


def class_logits_swapped(nodes: Nodes) -> None:
    inputs = nodes[one_of(nodes, "predictions/concat_1", "concat_1")].input
    inputs[0], inputs[1] = inputs[1], inputs[0]


@pytest.fixture(params=["example", "Object Detection API"])
def model(request: pytest.FixtureRequest) -> Path:
    if request.param == "example":
        return Path(request.getfixturevalue("example_model"))
    return Path(request.getfixturevalue("shared_models")) / "shapes_v3_small_3" / "frozen_inference_graph.pb"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (residual_left_out, "in the family it reads sum("),
        (residual_turned_into_a_difference, f"reads Sub {BODY}/expanded_conv_2/add"),
        (residual_from_another_block, "in the family it reads sum("),
        (gate_left_out, "in the family it reads product("),
        (gate_of_the_largest, "in the family it reads mean("),
        (box_codes_swapped, "box encodings are joined in the order BoxPredictor_1/"),
        (class_logits_swapped, "class logits are joined in the order BoxPredictor_1/"),
    ],
)
def test_other_edges_are_refused(change: Callable[[Nodes], None], message: str, model: Path, tmp_path: Path) -> None:
    definition = pb.GraphDef.FromString(model.read_bytes())
    change({node.name: node for node in definition.node})
    path = tmp_path / "changed.pb"
    path.write_bytes(definition.SerializeToString())
    with pytest.raises(ModelError, match=re.escape(message)):
        recognise(read_model(path))


def graph_of(*nodes: tuple[str, str, list[str]]) -> Constants:
    protos = [pb.NodeDef(name=name, op=op, input=inputs) for name, op, inputs in nodes]
    return Constants.of(Graph(protos, source="made"))


def test_sums_inside_one_another_are_bounded() -> None:
    """Each doubles the text; a thousand of them must not."""
    nodes = [("s0", "Placeholder", [])] + [(f"s{i}", "Add", [f"s{i - 1}"] * 2) for i in range(1, 1000)]
    text = expression(graph_of(*nodes), {}, Ref("s999"))
    assert text.count("s991") == 256
    assert "s990" not in text


def joining(*, axis: int = 1, factor: float | None = None, odd: str = "") -> Constants:
    """Two convolutions, one reshaped (and scaled), joined as b, a; with an op of another kind on the way of b."""
    b = GraphBuilder()
    b.node("x", "Placeholder", dtype=np.dtype("float32"), shape=shape_proto(1, 4, 4, 3))
    for name in "ab":
        b.conv(name, "x", np.ones((1, 1, 3, 8)), padding="SAME")
    end = b.node("r", "Reshape", "a/Conv2D", b.const("shape", [1, -1, 4], "int32"))
    if factor is not None:
        end = b.node("m", "Mul", end, b.const("factor", factor))
    other = b.node("o", odd, "b/Conv2D") if odd else "b/Conv2D"
    b.node("whole", "ConcatV2", other, end, b.const("axis", axis, "int32"))
    return Constants.of(b.graph())


ENDS = {Ref("a/Conv2D"): "A", Ref("b/Conv2D"): "B"}


def test_join_order_follows_shapes_and_factors() -> None:
    assert join_order(joining(), ENDS, Ref("whole")) == Join(("B", "A"), (1.0, 1.0))
    assert join_order(joining(axis=-2, factor=0.5), ENDS, Ref("whole")) == Join(("B", "A"), (1.0, 0.5))


@pytest.mark.parametrize(
    "constants",
    [joining(axis=0), joining(axis=2), *(joining(odd=op) for op in ("Exp", "Neg", "Cast", "Rsqrt", "Square", "Tanh"))],
)
def test_join_order_gives_up_on_anything_else(constants: Constants) -> None:
    assert join_order(constants, ENDS, Ref("whole")) is None


def test_an_average_over_windows_says_how_large_they_are() -> None:
    """It is the mean over the map only where the window is as large: `load.recognise` compares it with the map."""
    b = GraphBuilder()
    b.node("x", "Placeholder", dtype=np.dtype("float32"), shape=shape_proto(1, 4, 4, 3))
    b.conv("a", "x", np.ones((1, 1, 3, 8)), padding="SAME")
    b.node("pool", "AvgPool", "a/Conv2D", ksize=[1, 4, 3, 1], strides=[1, 1, 1, 1], padding="VALID")
    b.node("mean", "Mean", "a/Conv2D", b.const("axes", [1, 2], "int32"))
    constants = Constants.of(b.graph())
    assert expression(constants, ENDS, Ref("pool")) == "mean4x3(A)"
    assert expression(constants, ENDS, Ref("mean")) == "mean(A)"
