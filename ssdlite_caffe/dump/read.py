"""Reading a TensorFlow detector from whatever holds it: `read_model`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ssdlite_caffe.dump.detector import take_apart
from ssdlite_caffe.dump.frozen import graph_of, is_saved_model, parse_graph_def, read_bytes
from ssdlite_caffe.dump.model import DumpedModel
from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.files import Sha256

MANIFEST = "manifest.json"
FROZEN = "frozen_inference_graph.pb"


def read_model(path: Path | str, *, pipeline_config: Path | str | None = None) -> DumpedModel:
    """Read a detector from a frozen graph, TF1 checkpoint, SavedModel or dumped weights folder.

    A graph's own settings win; the pipeline.config given fills what it does not say. A checkpoint needs a
    pipeline.config and takes the one beside it if none is given.

    Args:
        path: a file or folder, or the prefix of a checkpoint.
        pipeline_config: a pipeline.config.

    Raises:
        ModelError: `path` is something else, damaged, or not an SSD MobileNet; or contradicts the pipeline.config.
        TensorError: a weight is NaN or infinite, or a weights folder is not what its manifest says.
        MissingRuntimeError: TensorFlow is needed and not installed.
    """
    from ssdlite_caffe.dump.checkpoint import is_checkpoint, read_checkpoint

    path = Path(path)
    config = None if pipeline_config is None else Path(pipeline_config)
    if not path.is_dir() and path.name != MANIFEST and is_checkpoint(path):
        return read_checkpoint(path, pipeline_config=config)
    if not path.exists():
        raise ModelError(f"{path} does not exist")
    model = _read_folder(path, config) if path.is_dir() else _read_file(path)
    if config is None or model.form == "checkpoint":
        return model
    from ssdlite_caffe.dump.pipeline import fill_gaps, settings_from_pipeline

    settings = fill_gaps(model.settings, settings_from_pipeline(config), source=str(path), config=str(config))
    return dataclasses.replace(model, settings=settings)


def _read_folder(path: Path, config: Path | None) -> DumpedModel:
    """The model of a folder: dumped weights, a SavedModel, a frozen graph, or else a checkpoint.

    The public zoo's folders hold a frozen graph beside the checkpoint; it says more, and needs no TensorFlow.
    """
    from ssdlite_caffe.dump.checkpoint import is_checkpoint, read_checkpoint
    from ssdlite_caffe.dump.saved_model import is_saved_model_folder, read_saved_model
    from ssdlite_caffe.dump.store import read_folder

    if (path / MANIFEST).is_file():
        return read_folder(path)
    if is_saved_model_folder(path):
        return read_saved_model(path)
    graph = frozen_graph_of(path)
    if graph is not None:
        return _read_file(graph)
    if is_checkpoint(path):
        return read_checkpoint(path, pipeline_config=config)
    raise ModelError(f"{path} holds no {MANIFEST}, saved_model.pb, {FROZEN} or checkpoint")


def frozen_graph_of(path: Path) -> Path | None:
    """The frozen graph that `path` is by its name, or that `read_model` takes of a folder; None where there is none."""
    from ssdlite_caffe.dump.saved_model import is_saved_model_folder

    if path.is_dir():
        comes_first = (path / MANIFEST).is_file() or is_saved_model_folder(path)
        return path / FROZEN if (path / FROZEN).is_file() and not comes_first else None
    return path if path.suffix == ".pb" and path.name != "saved_model.pb" else None


def _read_file(path: Path) -> DumpedModel:
    if path.name == MANIFEST:
        return _read_folder(path.parent, None)
    data = read_bytes(path)
    if is_saved_model(data):
        from ssdlite_caffe.dump.saved_model import read_saved_model

        if path.name != "saved_model.pb":
            raise ModelError(f"{path} is the graph of a SavedModel; give the folder that it is saved_model.pb of")
        return read_saved_model(path.parent)
    digest = Sha256([data])
    graph = graph_of(parse_graph_def(data, path), path)
    sha256 = digest.hexdigest()
    del data, digest  # as large as the weights
    units, settings, skipped = take_apart(graph)
    return DumpedModel(str(path), "frozen graph", sha256, units.tensors, units.units, settings, skipped)
