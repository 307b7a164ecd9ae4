"""A graph with a MobileNet's kernels and other edges between them is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ssdlite_caffe.dump import tensorflow_subset_pb2 as pb
from ssdlite_caffe.dump.affine import Constants
from ssdlite_caffe.dump.graph import Graph, Ref
from ssdlite_caffe.dump.read import read_model
from ssdlite_caffe.dump.wiring import expression, join_order
from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.load.recognise import recognise

BODY = "FeatureExtractor/MobilenetV3"
Nodes = dict[str, pb.NodeDef]


def redirect(nodes: Nodes, old: str, new: str) -> None:
    """Whoever reads `old` reads `new`."""
    for node in nodes.values():
        node.input[:] = [new if name == old else name for name in node.input]


def swap(nodes: Nodes, name: str) -> None:
    inputs = nodes[name].input
    inputs[0], inputs[1] = inputs[1], inputs[0]


def residual_left_out(nodes: Nodes) -> None:
    add = f"{BODY}/expanded_conv_2/add"
    redirect(nodes, add, nodes[add].input[0])


def residual_turned_into_a_difference(nodes: Nodes) -> None:
    nodes[f"{BODY}/expanded_conv_2/add"].op = "Sub"


def residual_from_another_block(nodes: Nodes) -> None:
    nodes[f"{BODY}/expanded_conv_5/add"].input[1] = nodes[f"{BODY}/expanded_conv_4/add"].input[0]


def gate_left_out(nodes: Nodes) -> None:
    gate = f"{BODY}/expanded_conv_4/squeeze_excite/mul"
    redirect(nodes, gate, nodes[gate].input[0])


def gate_of_the_largest(nodes: Nodes) -> None:
    nodes[f"{BODY}/expanded_conv_4/squeeze_excite/Mean"].op = "Max"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (residual_left_out, "in the family sum("),
        (residual_turned_into_a_difference, "reads Sub FeatureExtractor/MobilenetV3/expanded_conv_2/add"),
        (residual_from_another_block, "in the family sum("),
        (gate_left_out, "in the family product("),
        (gate_of_the_largest, "in the family mean("),
        (lambda nodes: swap(nodes, "concat"), "box codes are joined in the order BoxPredictor_1/"),
        (lambda nodes: swap(nodes, "concat_1"), "class logits are joined in the order BoxPredictor_1/"),
    ],
)
def test_other_edges_are_refused(
    change: Callable[[Nodes], None], message: str, example_model: Path, tmp_path: Path
) -> None:
    definition = pb.GraphDef.FromString(example_model.read_bytes())
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


def test_join_order_follows_scaling_and_gives_up_on_other_ops() -> None:
    constants = graph_of(
        ("a", "Conv2D", []),
        ("b", "Conv2D", []),
        ("r", "Reshape", ["a"]),
        ("e", "Exp", ["b"]),
        ("axis", "Const", []),
        ("whole", "ConcatV2", ["b", "r", "axis"]),
        ("odd", "ConcatV2", ["r", "e", "axis"]),
    )
    ends = {Ref("a"): "A", Ref("b"): "B"}
    assert join_order(constants, ends, Ref("whole")) == ("B", "A")
    assert join_order(constants, ends, Ref("odd")) is None
