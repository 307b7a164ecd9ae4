"""A TensorFlow 1 checkpoint as a DumpedModel. It has variables but no graph; the rest is from the pipeline.config."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump import tensorflow_subset_pb2 as pb
from ssdlite_caffe.dump.affine import Constants
from ssdlite_caffe.dump.detector import require_detector, require_finite
from ssdlite_caffe.dump.frozen import read_bytes
from ssdlite_caffe.dump.graph import Graph
from ssdlite_caffe.dump.model import ConvUnit, DumpedModel, Settings
from ssdlite_caffe.dump.pipeline import Pipeline, fill_gaps, read_pipeline
from ssdlite_caffe.dump.pipeline_resizer import refuse_resizer
from ssdlite_caffe.dump.preprocessing import first_convolution, network_input
from ssdlite_caffe.dump.settings import class_count
from ssdlite_caffe.dump.units import find_units, strip_prefix
from ssdlite_caffe.dump.variables import Variables, hash_files, shards
from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.resizer import Resizer

_PART = re.compile(
    r"^(?P<scope>.+?)/(?:(?P<kernel>weights|depthwise_weights)|(?P<biases>biases)|"
    r"BatchNorm/(?P<norm>gamma|beta|moving_mean|moving_variance))$"
)
_LATEST = re.compile(r'^\s*model_checkpoint_path\s*:\s*"([^"]*)"', re.MULTILINE)
_FILE_TAIL = re.compile(r"\.(?:index|meta|data-\d{5}-of-\d{5})$")
_SLOT = re.compile(r"/(?:RMSProp(?:_1)?|Momentum|Adam(?:_1)?|Adagrad|.*_slot)$")
_AVERAGE = "/ExponentialMovingAverage"


def is_checkpoint(path: Path) -> bool:
    """Whether a path is a checkpoint's prefix, one of its files, or a folder with a checkpoint."""
    if path.is_dir():
        return (path / "checkpoint").is_file() or any(path.glob("*.index"))
    if _FILE_TAIL.search(path.name):
        return True
    return not path.exists() and (path.with_name(path.name + ".index").exists() or any(_data_files(path)))


def _data_files(prefix: Path) -> list[Path]:
    parent = prefix.parent
    return [p for p in parent.iterdir() if p.name.startswith(prefix.name + ".data-")] if parent.is_dir() else []


def checkpoint_prefix(path: Path) -> Path:
    """The prefix of the checkpoint at `path`.

    Raises:
        ModelError: a folder has no checkpoint, or several and no file `checkpoint` that names the latest.
    """
    if not path.is_dir():
        return path.with_name(_FILE_TAIL.sub("", path.name))
    listed = path / "checkpoint"
    if listed.is_file():
        found = _LATEST.search(listed.read_text("utf-8", "replace"))
        if found and found.group(1):
            # A path from before the folder was moved may be in there, so only its name is used.
            return path / Path(found.group(1).replace("\\", "/")).name
    indices = sorted(path.glob("*.index"))
    if len(indices) != 1:
        names = ", ".join(p.name for p in indices) or "none"
        raise ModelError(f"{path} must hold one checkpoint, found {names}; give its prefix, as in {path}/model.ckpt")
    return path / indices[0].name.removesuffix(".index")


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


def graph_outputs(prefix: Path) -> dict[str, str]:
    """Scope -> the tensor after its activation, of the graph in a checkpoint's .meta file.

    Empty if there is no such file, or if its graph is not for inference but, for instance, for training.
    """
    path = _meta_file(prefix)
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
        constants = Constants.of(Graph(meta.graph_def.node, source=str(path)))
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
