"""The serving function of a TensorFlow 2 SavedModel as TensorFlow freezes it, for its own session."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssdlite_caffe.dump.graph.view import CONVOLUTIONS
from ssdlite_caffe.errors import ModelError


@dataclass(frozen=True)
class FrozenSignature:
    """A function with its variables as constants.

    Attributes:
        definition: TensorFlow's GraphDef.
        outputs: name that the signature gives an output -> its tensor (`Identity_1:0`).
    """

    definition: Any
    outputs: dict[str, str]


def frozen_signature(tf: Any, folder: Path) -> FrozenSignature | None:
    """Load a SavedModel, and freeze the function that it serves.

    It is for a caller in eager execution, outside of any graph.

    Returns:
        None for a SavedModel of TensorFlow 1, whose own graph has the convolutions.

    Raises:
        ModelError: it has no such function.
    """
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
    from tensorflow.python.saved_model import loader_impl

    meta = loader_impl.parse_saved_model(str(folder)).meta_graphs[0]
    if any(node.op in CONVOLUTIONS for node in meta.graph_def.node):
        return None
    loaded = tf.saved_model.load(str(folder), tags=list(meta.meta_info_def.tags))
    names = list(loaded.signatures)
    name = "serving_default" if "serving_default" in names else names[0] if len(names) == 1 else None
    if name is None:
        raise ModelError(f"{folder} must have the signature serving_default, got {', '.join(names) or 'none'}")
    function = loaded.signatures[name]
    frozen = convert_variables_to_constants_v2(function, lower_control_flow=False)
    outputs = dict(zip(sorted(function.structured_outputs), (tensor.name for tensor in frozen.outputs), strict=False))
    definition = _called(frozen.graph.as_graph_def())
    if not any(node.op in CONVOLUTIONS for node in definition.node):
        raise ModelError(
            f"TensorFlow cannot run {folder}: no output depends on a convolution, as in a SavedModel exported for "
            "TensorFlow Lite; give the SavedModel that exporter_main_v2.py writes of the same weights"
        )
    return FrozenSignature(definition, outputs)


def _called(definition: Any) -> Any:
    """A GraphDef, or, if it has no convolutions itself, the body of its one function with convolutions.

    Freezing inlines functions, except those with TensorFlow 1 loops. A TensorFlow 1 graph that was wrapped and saved by
    TensorFlow 2 is such a function.
    """
    from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

    bodies = [f for f in definition.library.function if any(node.op == "Conv2D" for node in f.node_def)]
    if any(node.op == "Conv2D" for node in definition.node) or len(bodies) != 1:
        return definition
    return function_def_to_graph(bodies[0]).as_graph_def()
