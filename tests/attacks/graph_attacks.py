"""Hostile frozen graphs and .tflite files: one function makes one file; test_graph_files.py shows what it does."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from tests.dump_graphs import GraphBuilder
from tests.keras_checkpoints import varint
from tests.tflite_files import OperatorSpec, TensorSpec, tflite_file

_STEM = "FeatureExtractor/MobilenetV2/Conv"
_CONV = {"Padding": 0, "StrideH": 2, "StrideW": 2, "DilationHFactor": 1, "DilationWFactor": 1,
         "FusedActivationFunction": 3}  # fmt: skip


def _graph(path: Path, kernel: str, builder: GraphBuilder) -> Path:
    """A graph whose stem has the node `kernel` as its kernel."""
    builder.node("image_tensor", "Placeholder")
    builder.node(f"{_STEM}/Conv2D", "Conv2D", "image_tensor", kernel, strides=[1, 1, 1, 1], padding="SAME")
    return builder.write(path)


def constant_of_a_shape_alone(path: Path, *sizes: int) -> Path:
    """A number, and a shape that repeats it."""
    b = GraphBuilder()
    b.const("kernel", 1.0)
    tensor = b.definition.node[-1].attr["value"].tensor
    tensor.tensor_content = b""
    tensor.float_val.append(1.0)
    for size in sizes:
        tensor.tensor_shape.dim.add(size=size)
    return _graph(path, "kernel", b)


def filled(path: Path) -> Path:
    """2**40 values that an op makes of one."""
    b = GraphBuilder()
    return _graph(path, b.node("kernel", "Fill", b.const("size", [1 << 20, 1 << 20], "int32"), b.const("x", 1.0)), b)


def doubled_forty_times(path: Path) -> Path:
    """Each node joins the one before with itself."""
    b = GraphBuilder()
    last, axis = b.const("start", np.ones((1, 1, 1, 1 << 12))), b.const("axis", 3, "int32")
    for number in range(40):
        last = b.node(f"twice{number}", "ConcatV2", last, last, axis)
    return _graph(path, last, b)


def chain_of_nodes(path: Path) -> Path:
    """50000 nodes, one behind the other: too many for a function that calls itself."""
    b = GraphBuilder()
    last, one = b.const("start", np.ones((1, 1, 3, 2))), b.const("one", 1.0)
    for number in range(50_000):
        last = b.node(f"n{number}", "Add", last, one)
    return _graph(path, last, b)


def nodes_in_a_ring(path: Path) -> Path:
    b = GraphBuilder()
    b.node("a", "Add", "b", b.const("c", 1.0))
    return _graph(path, b.node("b", "Identity", "a"), b)


def functions_that_double(path: Path) -> Path:
    """Fourteen functions that call the next one eight times: 8**14 calls in a few kilobytes, and no other node."""
    graph = pb.GraphDef()
    for number in range(15):
        made = graph.library.function.add()
        made.signature.name = f"f{number}"
        made.signature.input_arg.add(name="x")
        made.signature.output_arg.add(name="r")
        made.ret["r"] = "x"
        for copy in range(8 * (number < 14)):
            node = made.node_def.add(name=f"c{copy}", op="PartitionedCall", input=["x"])
            node.attr["f"].func.name = f"f{number + 1}"
    graph.node.add(name="start", op="PartitionedCall", input=["start"]).attr["f"].func.name = "f0"
    path.write_bytes(graph.SerializeToString())
    return path


def messages_in_each_other(path: Path) -> Path:
    """A list of an attribute that is a function with a list ...: a parser that calls itself runs out of stack."""
    data = b""
    while len(data) < 1 << 16:
        for tag in (b"\x52", b"\x12", b"\x12"):  # func of AttrValue, value of the map, attr of NameAttrList
            data = tag + varint(len(data)) + data
    for tag in (b"\x52", b"\x12", b"\x2a", b"\x0a"):  # and attr of NodeDef, node of GraphDef
        data = tag + varint(len(data)) + data
    path.write_bytes(data)
    return path


def tflite_offset_beyond_the_end(path: Path) -> Path:
    path.write_bytes((1 << 30).to_bytes(4, "little") + b"TFL3" + bytes(64))
    return path


def tflite_vector_of_all_memory(path: Path) -> Path:
    """A whole file whose every length is 2**31."""
    tensors = [TensorSpec((1, 8, 6, 3)), TensorSpec((5, 3, 3, 3), np.ones((5, 3, 3, 3), np.float32)),
               TensorSpec((1, 4, 3, 5))]  # fmt: skip
    data = tflite_file(tensors, [OperatorSpec("CONV_2D", (0, 1), (2,), _CONV, "Conv2DOptions")], [0], [2])
    path.write_bytes(data.replace((1).to_bytes(4, "little"), (1 << 31).to_bytes(4, "little")))
    return path


def tflite_kernel_that_thousands_read(path: Path) -> Path:
    """4 MiB that 200 convolutions read."""
    kernel = np.zeros((64, 16, 16, 64), np.float32)
    tensors, operators = [TensorSpec((1, 8, 8, 64)), TensorSpec(kernel.shape, kernel)], []
    for number in range(200):
        tensors.append(TensorSpec((1, 4, 4, 64)))
        operators.append(OperatorSpec("CONV_2D", (0, 1), (2 + number,), _CONV, "Conv2DOptions"))
    path.write_bytes(tflite_file(tensors, operators, [0], [2]))
    return path
