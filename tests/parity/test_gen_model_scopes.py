"""Every convolution kernel of the real graphs is one of build()'s, with its shape, and the other way round."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssdlite_caffe.dump.graph.tensorflow_subset_pb2 import GraphDef
from ssdlite_caffe.gen_model.arch import FamilyName
from ssdlite_caffe.gen_model.build import build, default_arch

CONVOLUTIONS = {"Conv2D", "DepthwiseConv2dNative"}
MODELS: list[tuple[str, FamilyName, int]] = [
    ("zoo2018_v2_ssdlite_90", "v2", 91),
    ("bccd_v2_ssdlite_3", "v2", 4),
    ("random_v3_large_90", "v3-large", 91),
    ("shapes_v3_small_3", "v3-small", 4),
]


def kernels(path: Path) -> dict[str, tuple[tuple[int, ...], tuple[int, ...], str]]:
    """Variable scope -> kernel shape (HWIO, HWCM), strides, padding."""
    graph = GraphDef()
    graph.ParseFromString(path.read_bytes())
    nodes = {node.name: node for node in graph.node}
    found = {}
    for node in graph.node:
        if node.op in CONVOLUTIONS:
            kernel = nodes[node.input[1]]
            while kernel.op == "Identity":
                kernel = nodes[kernel.input[0]]
            shape = tuple(d.size for d in kernel.attr["value"].tensor.tensor_shape.dim)
            strides = tuple(node.attr["strides"].list.i)[1:3]
            found[kernel.name.rpartition("/")[0]] = shape, strides, node.attr["padding"].s.decode()
    return found


@pytest.mark.parametrize(("model", "family", "classes"), MODELS)
def test_convolutions_are_the_graph_s(shared_models: Path, model: str, family: FamilyName, classes: int) -> None:
    net = build(default_arch(family, classes))
    ours = {
        c.tf_scope: ((*c.kernel, c.in_channels, 1 if c.depthwise else c.num_output), c.stride, "SAME")
        for c in net.convolutions
    }
    assert kernels(shared_models / model / "frozen_inference_graph.pb") == ours
