"""From a Keras model to a frozen graph with the interface and scopes of the TensorFlow OD API."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ssdlite_caffe.dump.locate import frozen_graph_of
from ssdlite_caffe.errors import OutputError
from ssdlite_caffe.files import refuse_existing, write_together
from ssdlite_caffe.imports import import_keras
from ssdlite_caffe.keras.model import KerasModel, with_threshold
from ssdlite_caffe.keras.names import BATCH_NORM, scope_of_layer
from ssdlite_caffe.keras.store import load
from ssdlite_caffe.runtimes.class_names import label_map_path

INPUT = "image_tensor"
OUTPUTS = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")
_MARK = "."
"""Suffix of the layers' names while the graph is traced: TensorFlow may append `_1` to a name, and `Conv` and `Conv_1`
can be two layers."""
_TRACED = re.compile(r"^[^/]+/(?P<layer>[^/]+)\.(?:_\d+)?/(?P<rest>.+)$")
_READS = frozenset({"Identity", "Reshape", "Squeeze"})
_PARTS: dict[str, tuple[str, ...]] = {
    "Conv2D": ("weights",),
    "DepthwiseConv2dNative": ("depthwise_weights",),
    "BiasAdd": ("biases",),
    "FusedBatchNormV3": ("gamma", "beta", "moving_mean", "moving_variance"),
}
"""The OD API's names of the constants that an operation reads after its first input."""


def export_pb(
    model: Path,
    out: Path,
    *,
    score_threshold: float | None = None,
    force: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Write a Keras model as a frozen graph, and its label map beside it, where `convert` finds it.

    Args:
        model: the Keras file.
        out: the frozen graph to write.
        score_threshold: 0 to 1, in place of the model's own.
        force: replace `out`.
        progress: called with a text when the next step begins.

    Returns:
        A report: architecture, number of nodes, size in bytes, and the path of the label map.

    Raises:
        ModelError: `model` cannot be read.
        OutputError: `out` is not a name for a frozen graph, exists and `force` is false, or cannot be written.
    """
    if frozen_graph_of(out) is None:
        raise OutputError(f"the name of a frozen graph must end in .pb and not be saved_model.pb, got {out}")
    refuse_existing(out, force=force)
    refuse_existing(label_map_path(out), force=force)
    progress(f"reading {model}")
    detector = load(model)
    if score_threshold is not None:
        detector = with_threshold(detector, score_threshold)
    progress("tracing the graph")
    graph = frozen_graph(detector)
    data = graph.SerializeToString(deterministic=True)
    write_together({label_map_path(out): [detector.labels.to_prototxt().encode()], out: [data]}, force=force)
    report = {"arch": detector.arch.to_dict(), "nodes": len(graph.node), "bytes": len(data)}
    return {**report, "label_map": str(label_map_path(out))}


def frozen_graph(detector: KerasModel) -> Any:
    """The graph: image_tensor (B, H, W, 3) uint8 RGB -> detection_boxes, _scores, _classes, num_detections.

    Convolutions and their constants have TensorFlow's scopes (`FeatureExtractor/MobilenetV2/Conv/weights`), so that
    programs which read graphs of the OD API can read this one.

    Returns:
        tf.compat.v1.GraphDef.
    """
    _, tf = import_keras()
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    model = _marked(detector.rebuilt(inputs="image", outputs="detections").model)
    image = tf.TensorSpec((None, None, None, 3), tf.uint8, name=INPUT)
    traced = tf.function(lambda image_tensor: model(image_tensor, training=False)).get_concrete_function(image)
    frozen = convert_variables_to_constants_v2(traced)
    graph = frozen.graph.as_graph_def()
    ends = dict(zip(sorted(traced.structured_outputs), (t.op.name for t in frozen.outputs), strict=True))
    for name in OUTPUTS:
        end = graph.node.add(name=name, op="Identity", input=[ends[name]])
        end.attr["T"].type = tf.float32.as_datatype_enum
    _read_constants_directly(graph)
    graph = tf.compat.v1.graph_util.extract_sub_graph(_without_control(graph), list(OUTPUTS))
    _rename(graph, _scoped)
    _rename(graph, _constant_names(graph).get)
    return graph


def _marked(model: Any) -> Any:
    """A copy of the model with `_MARK` appended to the names of its layers."""
    keras, _ = import_keras()

    def copied(layer: Any) -> Any:
        return type(layer).from_config({**layer.get_config(), "name": f"{layer.name}{_MARK}"})

    copy = keras.models.clone_model(model, clone_function=copied)
    copy.set_weights(model.get_weights())
    return copy


def _without_control(graph: Any) -> Any:
    for node in graph.node:
        inputs = [name for name in node.input if not name.startswith("^")]
        del node.input[:]
        node.input.extend(inputs)
    return graph


def _read_constants_directly(graph: Any) -> None:
    """Remove the operations that Keras puts between a variable and the operation that reads it."""
    nodes = {node.name: node for node in graph.node}
    for node in graph.node:
        for position, _ in enumerate(_PARTS.get(node.op, ()), 1):
            source = nodes[node.input[position]]
            while source.op in _READS:
                source = nodes[source.input[0]]
            assert source.op == "Const", f"{node.name} reads {source.name}, a {source.op}"
            node.input[position] = source.name


def _scoped(name: str) -> str | None:
    """The name of a traced node in TensorFlow's scopes; None if the node does not belong to a layer."""
    found = _TRACED.match(name)
    return None if found is None else f"{scope_of_layer(found['layer'])}/{found['rest']}"


def _constant_names(graph: Any) -> dict[str, str]:
    """The OD API's name for each constant that is a weight of a layer."""
    names = {}
    for node in graph.node:
        scope = node.name.rpartition("/")[0]
        for part, read in zip(_PARTS.get(node.op, ()), node.input[1:], strict=False):
            assert node.op != "FusedBatchNormV3" or scope.endswith(f"/{BATCH_NORM}")
            names[read] = f"{scope}/{part}"
    return names


def _rename(graph: Any, renamed: Callable[[str], str | None]) -> None:
    """Rename nodes, and the inputs that refer to them; None keeps a name."""
    names = {node.name: renamed(node.name) or node.name for node in graph.node}
    assert len(set(names.values())) == len(names), "two nodes of one name"
    for node in graph.node:
        node.name = names[node.name]
        for position, read in enumerate(node.input):
            source, colon, output = read.partition(":")
            node.input[position] = f"{names[source]}{colon}{output}"
