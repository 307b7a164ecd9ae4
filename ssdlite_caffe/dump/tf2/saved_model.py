"""The serving function of a TensorFlow 2 SavedModel as one graph, without TensorFlow.

The main graph holds one VarHandleOp a variable and the calls of three functions: serve, save and restore. All layers
are in the first one, to which the variables are passed as arguments. Its body is put in place of its call, and the
values of variables are read from the variables folder.
"""

from __future__ import annotations

from pathlib import Path

from ssdlite_caffe.dump.detector.raw_outputs import TFLITE_OP
from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from ssdlite_caffe.dump.graph.functions import without_functions
from ssdlite_caffe.dump.graph.tensors import Array
from ssdlite_caffe.dump.graph.view import VARIABLES, Graph
from ssdlite_caffe.dump.tf2.bundle import Bundle
from ssdlite_caffe.errors import ModelError

_SIGNATURE = "serving_default"
_TFLITE_OUTPUTS = ("detection_boxes", "detection_classes", "detection_scores", "num_detections")


def serving_graph(meta: pb.MetaGraphDef, folder: Path, prefix: Path) -> Graph:
    """The graph that a SavedModel serves, with functions in the place of their calls; `meta` is changed.

    Its outputs have the names that the signature gives them, such as `detection_boxes`.

    Args:
        meta: of the SavedModel.
        folder: the SavedModel's, for messages.
        prefix: of its variables.

    Raises:
        ModelError: it has no signature to serve, its functions are not read here, or a variable's value is missing or
            damaged.
    """
    definition = meta.graph_def
    for function in definition.library.function:
        _implement(function)
    _keep(definition, _signature_outputs(meta, folder))
    inlined = without_functions(definition, str(folder))
    return Graph(inlined.node, source=str(folder), variables=_values(inlined, prefix))


def _implement(function: pb.FunctionDef) -> None:
    """Give a function that stands for TensorFlow Lite's post-processing that operation as its body.

    TensorFlow has no such operation, so the exporter (export_tflite_graph_tf2.py) writes a function that returns zeros,
    and puts name and options of the operation into its attribute `_implements`.
    """
    stands_for = function.attr["_implements"].func if "_implements" in function.attr else None
    if stands_for is None or stands_for.name != TFLITE_OP:
        return
    node = pb.NodeDef(name=TFLITE_OP, op=TFLITE_OP, attr=stands_for.attr)
    node.input.extend(argument.name for argument in function.signature.input_arg)
    del function.node_def[:]
    function.node_def.append(node)
    for port, argument in enumerate(function.signature.output_arg):
        function.ret[argument.name] = f"{TFLITE_OP}:{_TFLITE_OUTPUTS[port % len(_TFLITE_OUTPUTS)]}:0"


def _signature_outputs(meta: pb.MetaGraphDef, folder: Path) -> dict[str, str]:
    """Name of each output -> the tensor."""
    known = [name for name, signature in meta.signature_def.items() if signature.outputs and not name.startswith("__")]
    name = _SIGNATURE if _SIGNATURE in known else known[0] if len(known) == 1 else None
    if name is None:
        listed = ", ".join(sorted(known)) or "none"
        raise ModelError(f"{folder} must have the signature {_SIGNATURE}, got {listed}")
    return {output: info.name for output, info in sorted(meta.signature_def[name].outputs.items())}


def _keep(definition: pb.GraphDef, outputs: dict[str, str]) -> None:
    """Remove the nodes on which the outputs do not depend, and add a node for each output, with its name."""
    nodes = {node.name: node for node in definition.node}
    kept: dict[str, pb.NodeDef] = {}
    pending = [_node_of(text) for text in outputs.values()]
    while pending:
        name = pending.pop()
        if name in kept or name not in nodes:
            continue
        kept[name] = nodes[name]
        pending.extend(_node_of(text) for text in nodes[name].input if not text.startswith("^"))
    copies = [pb.NodeDef(name=node.name, op=node.op, attr=node.attr) for node in kept.values()]
    for copy in copies:
        copy.input.extend(text for text in kept[copy.name].input if not text.startswith("^"))
    copies += [pb.NodeDef(name=name, op="Identity", input=[text]) for name, text in outputs.items() if name not in kept]
    del definition.node[:]
    definition.node.extend(copies)


def _node_of(text: str) -> str:
    return text.partition(":")[0]


def _values(graph: pb.GraphDef, prefix: Path) -> dict[str, Array]:
    """Node name -> value of the graph's float variables."""
    holders = [node for node in graph.node if node.op in VARIABLES]
    if not holders:
        return {}
    bundle = Bundle(prefix)
    values: dict[str, Array] = {}
    for node in holders:
        shared = node.attr["shared_name"].s.decode("utf-8", "replace") if "shared_name" in node.attr else ""
        key = next((bundle.keys[name] for name in (shared, node.name) if name in bundle.keys), None)
        if key is None:
            raise ModelError(f"{prefix} has no value of the variable {shared or node.name}")
        if bundle.is_float(key):
            values[node.name] = bundle.value(key)
    return values
