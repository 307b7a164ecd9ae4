"""A SavedModel as a DumpedModel: with constants or variables (TensorFlow 1), or with functions (TensorFlow 2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from ssdlite_caffe.dump.detector.take_apart import take_apart
from ssdlite_caffe.dump.foreign import refuse_tensorflow_2
from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from ssdlite_caffe.dump.graph.functions import without_functions
from ssdlite_caffe.dump.graph.tensors import Array
from ssdlite_caffe.dump.graph.view import VARIABLES, Graph
from ssdlite_caffe.dump.model import DumpedModel
from ssdlite_caffe.dump.model_bytes import read_bytes, sha256
from ssdlite_caffe.dump.tf1.frozen import graph_of
from ssdlite_caffe.dump.tf1.variables import WITHOUT_TENSORFLOW, Variables, hash_files, shards
from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.imports import import_tensorflow

_NEEDED = "a SavedModel with variables"


def is_saved_model_folder(path: Path) -> bool:
    """Whether a folder holds a SavedModel."""
    return (path / "saved_model.pb").is_file() or (path / "saved_model.pbtxt").is_file()


def read_saved_model(folder: Path) -> DumpedModel:
    """A detector from a SavedModel folder.

    TensorFlow is needed only where the weights are not constants of the graph itself.

    Raises:
        ModelError: a file is missing or damaged, or the model is not an SSD MobileNet.
        TensorError: a weight is NaN or Inf.
        MissingRuntimeError: TensorFlow is needed and not installed.
    """
    path, data, meta = _opened(folder)
    digest = _digest(path, data, meta)
    if _has_convolutions(meta.graph_def):
        values: dict[str, Array] = {}
        if any(node.op in VARIABLES for node in meta.graph_def.node):
            values = _variables(meta.graph_def, _prefix(folder))
        definition = without_functions(meta.graph_def, str(folder))
        graph = Graph(definition.node, source=str(folder), variables=values)
    else:
        graph = graph_of(_frozen(folder, meta), folder)
    units, settings, skipped, notes = take_apart(graph)
    return DumpedModel(str(folder), "SavedModel", digest, units.tensors, units.units, settings, skipped, notes=notes)


def refuse_unreadable_saved_model(folder: Path) -> None:
    """Refuse a SavedModel that is damaged or a detector of TensorFlow 2, without TensorFlow.

    Raises:
        ModelError: it is one of these.
    """
    _opened(folder)


def saved_model_sha256(folder: Path) -> str:
    """`DumpedModel.sha256` of a SavedModel, without TensorFlow.

    Raises:
        ModelError: a file is missing or damaged.
    """
    return _digest(*_opened(folder))


def _digest(path: Path, data: bytes, meta: pb.MetaGraphDef) -> str:
    prefix = _prefix(path.parent)
    needed = any(node.op in VARIABLES for node in meta.graph_def.node)
    if needed if _has_convolutions(meta.graph_def) else prefix.with_name("variables.index").is_file():
        return hash_files([path, *shards(prefix)])
    return sha256(data)


def _prefix(folder: Path) -> Path:
    return folder / "variables" / "variables"


def _opened(folder: Path) -> tuple[Path, bytes, pb.MetaGraphDef]:
    """The file of a SavedModel, its bytes, and its graph for serving."""
    path = folder / "saved_model.pb"
    if not path.is_file():
        raise ModelError(f"{folder} is a SavedModel in text form (saved_model.pbtxt); export it in binary form")
    data = read_bytes(path)
    meta = _serving_graph(data, path)
    refuse_tensorflow_2(meta.graph_def, folder)
    return path, data, meta


def _has_convolutions(definition: Any) -> bool:
    return any(node.op == "Conv2D" for node in definition.node)


def _serving_graph(data: bytes, path: Path) -> pb.MetaGraphDef:
    """The graph with the tag serve, or the only graph."""
    saved = pb.SavedModel()
    try:
        saved.ParseFromString(data)
    except (DecodeError, RecursionError) as error:
        raise ModelError(f"{path} is not a complete SavedModel ({len(data)} bytes): cut short or damaged") from error
    if not saved.meta_graphs:
        raise ModelError(f"{path} is not a SavedModel: it holds no graph")
    serving = [meta for meta in saved.meta_graphs if "serve" in meta.meta_info_def.tags]
    chosen = serving or list(saved.meta_graphs)
    if len(chosen) != 1:
        tags = "; ".join(",".join(meta.meta_info_def.tags) for meta in saved.meta_graphs)
        raise ModelError(f"{path} must have one graph with the tag serve, got {len(saved.meta_graphs)} graphs ({tags})")
    return chosen[0]


def _variables(definition: pb.GraphDef, prefix: Path) -> dict[str, Array]:
    """Node name -> value of the graph's float variables; a resource variable is stored under its shared name."""
    stored = Variables(prefix, _NEEDED)
    values = {}
    for node in definition.node:
        if node.op not in VARIABLES:
            continue
        shared = node.attr["shared_name"].s.decode("utf-8", "replace") if "shared_name" in node.attr else ""
        key = next((name for name in (shared, node.name) if name in stored.shapes), None)
        if key is not None and stored.is_float(key):
            values[node.name] = stored.value(key)
    return values


def _frozen(folder: Path, meta: pb.MetaGraphDef) -> pb.GraphDef:
    """The serving function of a TensorFlow 2 SavedModel, with its variables as constants."""
    tf = import_tensorflow("a TensorFlow 2 SavedModel", WITHOUT_TENSORFLOW)
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    try:
        loaded = tf.saved_model.load(str(folder), tags=list(meta.meta_info_def.tags))
        function = _signature(loaded.signatures, folder)
        definition = _called(convert_variables_to_constants_v2(function).graph.as_graph_def())
    except (tf.errors.OpError, OSError, ValueError, KeyError, AttributeError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(f"{folder} cannot be loaded as a SavedModel: {reason}") from error
    return pb.GraphDef.FromString(definition.SerializeToString())


def _called(definition: Any) -> Any:
    """A GraphDef, or, if it has no convolutions itself, the body of its one function with convolutions.

    Freezing inlines functions, except those with TensorFlow 1 loops. A TensorFlow 1 graph that was wrapped and saved by
    TensorFlow 2 is such a function.
    """
    from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

    bodies = [f for f in definition.library.function if any(node.op == "Conv2D" for node in f.node_def)]
    if _has_convolutions(definition) or len(bodies) != 1:
        return definition
    return function_def_to_graph(bodies[0]).as_graph_def()


def _signature(signatures: Any, folder: Path) -> Any:
    names = list(signatures)
    name = "serving_default" if "serving_default" in names else names[0] if len(names) == 1 else None
    if name is None:
        raise ModelError(f"{folder} must have the signature serving_default, got {', '.join(names) or 'none'}")
    return signatures[name]
