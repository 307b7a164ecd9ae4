"""A frozen graph (`frozen_inference_graph.pb`) as a Graph."""

from __future__ import annotations

from pathlib import Path

from google.protobuf.message import DecodeError

from ssdlite_caffe.dump.foreign import foreign_kind
from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from ssdlite_caffe.dump.graph.functions import without_functions
from ssdlite_caffe.dump.graph.view import Graph
from ssdlite_caffe.errors import ModelError


def parse_graph_def(data: bytes, path: Path) -> pb.GraphDef:
    """A GraphDef of a file's bytes.

    Raises:
        ModelError: the bytes are something else, or an incomplete graph; the text says what, if it is recognised.
    """
    kind = foreign_kind(data)
    if kind is not None:
        raise ModelError(f"{path} is {kind}")
    graph = pb.GraphDef()
    try:
        graph.ParseFromString(data)
    except (DecodeError, RecursionError) as error:
        raise ModelError(
            f"{path} is not a complete TensorFlow graph ({len(data)} bytes): "
            "it was cut short or damaged, or is another kind of file"
        ) from error
    if not graph.node:
        raise ModelError(f"{path} is not a TensorFlow graph: it holds no nodes")
    return graph


def graph_of(definition: pb.GraphDef, path: Path) -> Graph:
    """The Graph of a frozen GraphDef.

    Raises:
        ModelError: the graph is not frozen, its convolutions are inside functions, or it calls functions in a way that
            is not read here.
    """
    if not any(node.op == "Conv2D" for node in definition.node) and any(
        node.op == "Conv2D" for function in definition.library.function for node in function.node_def
    ):
        raise ModelError(
            f"{path} has its convolutions inside functions, as TensorFlow 2 writes them; give the SavedModel folder"
        )
    graph = Graph(without_functions(definition, str(path)).node, source=str(path))
    ops = graph.ops()
    unfrozen = [op for op in ("VariableV2", "Variable", "VarHandleOp") if ops[op]]
    if unfrozen:
        raise ModelError(
            f"{path} is not frozen: it holds {ops[unfrozen[0]]} {unfrozen[0]} nodes without their values; "
            "give the checkpoint, or the frozen_inference_graph.pb"
        )
    return graph
