"""Finding the box encodings and scores of all default boxes in a graph exported for TensorFlow Lite.

They are the inputs of TFLite_Detection_PostProcess. A graph exported without that operation ends in
`raw_outputs/box_encodings` and `raw_outputs/class_predictions`, which are found by their ops and not by their names.

Source: object_detection/export_tflite_ssd_graph_lib.py, `export_tflite_graph`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ssdlite_caffe.dump.detector.affine import Constants
from ssdlite_caffe.dump.graph.view import Graph, Node, Ref
from ssdlite_caffe.errors import ModelError

TFLITE_OP = "TFLite_Detection_PostProcess"
RAW_OUTPUTS = ("raw_outputs/box_encodings", "raw_outputs/class_predictions")
"""The exporter's names."""
CONVERTERS = ("Sigmoid", "Softmax")
_RESHAPING = frozenset({"Reshape", "Squeeze", "ExpandDims"})


@dataclass(frozen=True)
class RawOutputs:
    """The raw outputs of a graph.

    Attributes:
        encodings: (1, N, 4) ty, tx, th, tw.
        scores: (1, N, classes with background), after the score converter.
        operation: the operation that reads them, None if there is none.
    """

    encodings: Ref
    scores: Ref
    operation: Node | None


def find_raw_outputs(constants: Constants) -> RawOutputs | None:
    """The raw outputs of a graph; None if it has none.

    Without the operation, scores are the graph's one output that comes from a score converter, and box encodings the
    one that comes from a concatenation.

    Raises:
        ModelError: the operation has fewer than two inputs, or there are several operations.
    """
    graph = constants.graph
    operations = [node for node in graph if node.op == TFLITE_OP]
    if len(operations) > 1:
        raise ModelError(f"{graph.source} must have one {TFLITE_OP} operation, got {len(operations)}")
    for operation in operations:
        if len(operation.inputs) < 2:
            raise ModelError(
                f"{graph.source}: {operation.name} must have 3 inputs (box encodings, scores, anchors), got "
                f"{len(operation.inputs)}"
            )
        return RawOutputs(operation.inputs[0], operation.inputs[1], operation)
    ends = [node for node in graph if node.op != "Const" and not graph.is_read(node.name)]
    scores = [node for node in ends if graph[behind_reshapes(graph, node.ref)].op in CONVERTERS]
    encodings = [node for node in ends if graph[behind_reshapes(graph, node.ref)].op in ("ConcatV2", "Concat")]
    return RawOutputs(encodings[0].ref, scores[0].ref, None) if len(encodings) == len(scores) == 1 else None


def behind_reshapes(graph: Graph, ref: Ref) -> Ref:
    """The output that `ref` is a copy of, with the same shape or another one."""
    found = graph.origin(ref)
    while graph[found].op in _RESHAPING and graph[found].inputs:
        found = graph.origin(graph[found].inputs[0])
    return found
