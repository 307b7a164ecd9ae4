"""A TensorFlow 1 checkpoint as a DumpedModel. It has variables but no graph; the rest is from the pipeline.config."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError
from google.protobuf.text_encoding import CUnescape

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump.detector.affine import Constants
from ssdlite_caffe.dump.detector.preprocessing import first_convolution, network_input
from ssdlite_caffe.dump.detector.settings import class_count
from ssdlite_caffe.dump.detector.take_apart import require_detector, require_finite
from ssdlite_caffe.dump.detector.units import find_units, strip_prefix
from ssdlite_caffe.dump.foreign import refuse_object_based
from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from ssdlite_caffe.dump.graph.functions import without_functions
from ssdlite_caffe.dump.graph.view import Graph
from ssdlite_caffe.dump.model import ConvUnit, DumpedModel, Settings
from ssdlite_caffe.dump.model_bytes import read_bytes
from ssdlite_caffe.dump.pipeline.config import Pipeline, fill_gaps, read_pipeline
from ssdlite_caffe.dump.pipeline.resizer import refuse_resizer
from ssdlite_caffe.dump.tf1.variables import Variables, hash_files, shards
from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.resizer import Resizer

_PART = re.compile(
    r"^(?P<scope>.+?)/(?:(?P<kernel>weights|depthwise_weights)|(?P<biases>biases)|"
    r"BatchNorm/(?P<norm>gamma|beta|moving_mean|moving_variance))$"
)
_LATEST = re.compile(r"""^\s*model_checkpoint_path\s*:\s*(["'])((?:\\.|(?!\1).)*)\1""", re.MULTILINE)
_STEP = re.compile(r"^(.*)-(\d+)$")
_LIST = "checkpoint"
"""Name of the file in which TensorFlow names a folder's latest checkpoint."""
_FILE_TAIL = re.compile(r"\.(?:index|meta|data-\d{5}-of-\d{5})$")
_SLOT = re.compile(r"/(?:RMSProp(?:_1)?|Momentum|Adam(?:_1)?|Adagrad|.*_slot)$")
_UPDATES = ("Apply", "ResourceApply", "FusedBatchNormGrad", "Conv2DBackprop")
"""Operations of a graph that trains, or how their names begin."""
_AVERAGE = "/ExponentialMovingAverage"


def is_checkpoint(path: Path) -> bool:
    """Whether a path is a checkpoint's prefix, one of its files, or a folder with a checkpoint or its `checkpoint`."""
    if path.is_dir():
        return (path / _LIST).is_file() or any(_indices(path))
    if _FILE_TAIL.search(path.name):
        return True
    if path.name == _LIST and path.is_file():
        return _listed(path) is not None
    return not path.exists() and (path.with_name(path.name + ".index").exists() or any(_data_files(path)))


def _indices(folder: Path) -> list[Path]:
    """The indices of a folder's checkpoints; other systems' hidden files are none."""
    return [path for path in sorted(folder.glob("*.index")) if not path.name.startswith(".")]


def _listed(file: Path) -> str | None:
    """The name of the checkpoint that a file `checkpoint` names, without folders; None if it names none.

    The path is that of the training, which may have been on another machine.
    """
    try:
        found = _LATEST.search(file.read_bytes().decode("utf-8-sig", "replace"))
        text = "" if found is None else CUnescape(found.group(2)).decode("utf-8", "surrogateescape")
    except (OSError, ValueError):
        return None
    return text.replace("\\", "/").rstrip("/").rpartition("/")[2] or None


def _data_files(prefix: Path) -> list[Path]:
    parent = prefix.parent
    return [p for p in parent.iterdir() if p.name.startswith(prefix.name + ".data-")] if parent.is_dir() else []


def checkpoint_prefix(path: Path) -> Path:
    """The prefix of the checkpoint at `path`; see `choose_checkpoint`."""
    return choose_checkpoint(path)[0]


def choose_checkpoint(path: Path) -> tuple[Path, str]:
    """The prefix of the checkpoint at `path`, and a sentence on the choice where a folder's steps decided.

    Of several in a folder it is the one that the file `checkpoint` names, as for TensorFlow. Without that file it is
    the one of the highest step, if their names differ only in the step.

    Raises:
        ModelError: a folder has no checkpoint, or not the one that is named, or several and nothing says which.
    """
    if path.name == _LIST and path.is_file():
        path = path.parent
    if not path.is_dir():
        return path.with_name(_FILE_TAIL.sub("", path.name)), ""
    prefixes = [index.with_name(index.name.removesuffix(".index")) for index in _indices(path)]
    names = [prefix.name for prefix in prefixes]
    latest = _listed(path / _LIST)
    if latest is not None:
        if latest not in names and prefixes:
            raise ModelError(
                f"{path / _LIST} names the checkpoint {latest}, which is not in the folder; it holds "
                f"{', '.join(names)}; give a prefix, as in {prefixes[-1]}"
            )
        return path / latest, ""
    if len(prefixes) == 1:
        return prefixes[0], ""
    steps = [match for name in names if (match := _STEP.match(name))]
    if not steps or len(steps) != len(names) or len({match.group(1) for match in steps}) != 1:
        found = ", ".join(names) or "none"
        raise ModelError(f"{path} must hold one checkpoint, found {found}; give its prefix, as in {path}/model.ckpt")
    best = max(range(len(steps)), key=lambda number: int(steps[number].group(2)))
    return prefixes[best], (
        f"{names[best]} is the latest of {len(names)} checkpoints by its step; no file `checkpoint` names one"
    )


def find_pipeline(prefix: Path, given: Path | None) -> Path:
    """The pipeline.config that was given, or the one beside a checkpoint.

    Raises:
        ModelError: there is none.
    """
    beside = prefix.parent / "pipeline.config"
    if given is None and not beside.is_file():
        raise ModelError(
            f"the checkpoint {prefix} holds no input size, default boxes or thresholds, and there is no {beside}; "
            "give its pipeline.config with --pipeline-config"
        )
    return given or beside


def read_checkpoint(path: Path, *, pipeline_config: Path | None = None) -> DumpedModel:
    """A detector from a checkpoint and its pipeline.config.

    Raises:
        ModelError: a file is missing or damaged, or the model is not an SSD MobileNet.
        TensorError: a weight is NaN or Inf.
        MissingRuntimeError: TensorFlow is not installed.
    """
    prefix = checkpoint_prefix(path)
    refuse_object_based(prefix)
    data = shards(prefix)
    config = find_pipeline(prefix, pipeline_config)
    pipeline = read_pipeline(config)
    refuse_resizer(pipeline.refused_resizer, config)
    variables = Variables(prefix, "a checkpoint")
    chosen, skipped = choose_variables(variables, moving_averages=pipeline.moving_averages)
    require_detector(str(path), (match.group("scope") for name in chosen if (match := _PART.match(name))))
    tensors = {name: variables.value(stored).astype(np.float32, copy=False) for name, stored in chosen.items()}
    require_finite(str(path), tensors)
    units = units_of_variables(tensors, pipeline, str(path))
    count = Settings(num_classes=class_count(str(path), units, tensors), unsupported=pipeline.settings.unsupported)
    settings = fill_gaps(count, pipeline.settings, source=str(path), config=str(config))
    origins = {"settings": str(config)}
    return DumpedModel(str(path), "checkpoint", hash_files(data), tensors, units, settings, skipped, origins=origins)


def meta_graph_of(prefix: Path) -> Path:
    """Where the graph of a checkpoint is, if it has one."""
    return prefix.with_name(prefix.name + ".meta")


def refuse_training_graph(meta: Path) -> None:
    """Refuse a .meta file that clearly holds the graph of a training; one that cannot be read is left to its reader.

    Raises:
        ModelError: it updates variables, or its BatchNorms use the statistics of a batch.
    """
    try:
        graph = pb.MetaGraphDef.FromString(read_bytes(meta)).graph_def
    except (ModelError, DecodeError, RecursionError):
        return
    if any(node.op.startswith(_UPDATES) or _of_batch(node) for node in graph.node):
        raise ModelError(
            f"{meta} is the graph of a training, so this checkpoint has no graph to run; give the frozen graph or "
            "SavedModel of the same weights"
        )


def _of_batch(node: pb.NodeDef) -> bool:
    return node.op.startswith("FusedBatchNorm") and "is_training" in node.attr and node.attr["is_training"].b


def graph_outputs(prefix: Path) -> dict[str, str]:
    """Scope -> the tensor after its activation, of the graph in a checkpoint's .meta file.

    Empty if there is no such file, or if its graph is not for inference but, for instance, for training.
    """
    path = meta_graph_of(prefix)
    try:
        meta = pb.MetaGraphDef.FromString(read_bytes(path))
        stored = Variables(prefix, "a checkpoint")
        values = {name: stored.value(name) for name in stored.shapes if stored.is_float(name)}
        graph = Graph(meta.graph_def.node, source=str(path), variables=values)
        return {unit.scope: str(unit.output) for unit in find_units(Constants.of(graph)).units}
    except (ModelError, DecodeError, RecursionError):
        return {}


def meta_resizer(prefix: Path) -> Resizer | None:
    """The resizer of the graph in a checkpoint's .meta file.

    None if there is no such file, or if its graph does not read images of any size, as a graph for training.
    """
    path = _meta_file(prefix)
    try:
        meta = pb.MetaGraphDef.FromString(read_bytes(path))
        constants = Constants.of(Graph(without_functions(meta.graph_def, str(path)).node, source=str(path)))
        stem = first_convolution(constants.graph)
        return None if stem is None else network_input(constants, stem).resizer
    except (ModelError, DecodeError, RecursionError):
        return None


def _meta_file(prefix: Path) -> Path:
    return prefix.with_name(prefix.name + ".meta")


def choose_variables(variables: Variables, *, moving_averages: bool) -> tuple[dict[str, str], dict[str, str]]:
    """(tensor name -> variable with its values, variable -> why it is skipped), sorted by name.

    Args:
        variables: of a checkpoint.
        moving_averages: use a variable's moving average, if there is one, and not the variable itself.
    """
    chosen: dict[str, str] = {}
    skipped: dict[str, str] = {}
    for name in sorted(variables.shapes):
        average = name + _AVERAGE
        if name.endswith(_AVERAGE):
            if not moving_averages:
                skipped[name] = "a moving average; the pipeline.config says to use the variable itself"
        elif _SLOT.search(name):
            skipped[name] = "an optimiser's state"
        elif not _PART.match(name) or not strip_prefix(name).startswith(("FeatureExtractor/", "BoxPredictor_")):
            skipped[name] = "not part of the detector"
        elif not variables.is_float(name):
            skipped[name] = "not float32"
        elif moving_averages and average in variables.shapes:
            chosen[strip_prefix(name)] = average
            skipped[name] = "its moving average is used"
        else:
            chosen[strip_prefix(name)] = name
    return chosen, skipped


def units_of_variables(tensors: dict[str, FloatArray], pipeline: Pipeline, source: str) -> tuple[ConvUnit, ...]:
    """The convolutions that named variables belong to, sorted by scope.

    Raises:
        ModelError: parts of a convolution are missing.
    """
    scopes: dict[str, dict[str, str]] = {}
    kinds: dict[str, str] = {}
    for name in tensors:
        match = _PART.match(name)
        assert match is not None, f"{name} is not a name that choose_variables takes"
        scope = match.group("scope")
        part = match.group("norm") or match.group("biases") or "weights"
        scopes.setdefault(scope, {})[part] = name
        if part == "weights":
            kinds[scope] = match.group("kernel")
    units = []
    for scope in sorted(scopes):
        parts = scopes[scope]
        if "weights" not in parts:
            raise ModelError(f"{source}: {scope} has {', '.join(sorted(parts))} but no kernel")
        if tensors[parts["weights"]].ndim != 4:
            shape = tensors[parts["weights"]].shape
            raise ModelError(f"{source}: {parts['weights']} must have 4 axes, as a kernel has, got the shape {shape}")
        if ("moving_mean" in parts) != ("moving_variance" in parts):
            raise ModelError(f"{source}: the BatchNorm of {scope} has only one of moving_mean and moving_variance")
        units.append(
            ConvUnit(
                scope=scope,
                kind="depthwise" if kinds[scope] == "depthwise_weights" else "conv",
                tensors=parts,
                epsilon=_epsilon(scope, pipeline) if "moving_mean" in parts else None,
            )
        )
    return tuple(units)


def _epsilon(scope: str, pipeline: Pipeline) -> float:
    """The BatchNorm epsilon of a convolution; the config has one for heads, extra layers and backbone each."""
    if scope.startswith("BoxPredictor_"):
        return pipeline.head_epsilon
    return pipeline.extra_epsilon if "_Conv2d_" in scope else pipeline.backbone_epsilon
