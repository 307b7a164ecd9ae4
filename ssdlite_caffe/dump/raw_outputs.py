"""Where a graph exported for TensorFlow Lite gives the box codes and scores of all default boxes.

It is what TFLite_Detection_PostProcess reads; where the graph was exported without that operation, the two outputs
`raw_outputs/box_encodings` and `raw_outputs/class_predictions`, found by their ends and not by their names.

Source: object_detection/export_tflite_ssd_graph_lib.py, `export_tflite_graph`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ssdlite_caffe.dump.affine import Constants
from ssdlite_caffe.dump.graph import Graph, Node, Ref
from ssdlite_caffe.errors import ModelError

TFLITE_OP = "TFLite_Detection_PostProcess"
RAW_OUTPUTS = ("raw_outputs/box_encodings", "raw_outputs/class_predictions")
"""What the exporter calls them."""
CONVERTERS = ("Sigmoid", "Softmax")
_RESHAPING = frozenset({"Reshape", "Squeeze", "ExpandDims"})


@dataclass(frozen=True)
class RawOutputs:
    """The raw outputs of a graph.

    Attributes:
        codes: (1, N, 4) ty, tx, th, tw.
        scores: (1, N, classes with background), behind the score converter.
        operation: the operation that reads them, None where there is none.
    """

    codes: Ref
    scores: Ref
    operation: Node | None


def find_raw_outputs(constants: Constants) -> RawOutputs | None:
    """The raw outputs of a graph; None where it has none.

    Of two ends the one behind a score converter gives the scores; the other end must be joined box codes.

    Raises:
        ModelError: the operation lacks one of the two, or there are several operations.
    """
    graph = constants.graph
    operations = [node for node in graph if node.op == TFLITE_OP]
    if len(operations) > 1:
        raise ModelError(f"{graph.source} ends in {len(operations)} {TFLITE_OP} operations; one is read")
    for operation in operations:
        if len(operation.inputs) < 2:
            raise ModelError(
                f"{graph.source}: {operation.name} has {len(operation.inputs)} inputs where it takes 3: box codes, "
                "scores and default boxes (anchors)"
            )
        return RawOutputs(operation.inputs[0], operation.inputs[1], operation)
    ends = [node for node in graph if node.op != "Const" and not any(True for _ in graph.readers(node.name))]
    scores = [node for node in ends if graph[behind_reshapes(graph, node.ref)].op in CONVERTERS]
    codes = [node for node in ends if graph[behind_reshapes(graph, node.ref)].op in ("ConcatV2", "Concat")]
    return RawOutputs(codes[0].ref, scores[0].ref, None) if len(codes) == len(scores) == 1 else None


def behind_reshapes(graph: Graph, ref: Ref) -> Ref:
    """The output that `ref` is, in another shape or not, behind copies and changes of shape."""
    found = graph.origin(ref)
    while graph[found].op in _RESHAPING and graph[found].inputs:
        found = graph.origin(graph[found].inputs[0])
    return found
