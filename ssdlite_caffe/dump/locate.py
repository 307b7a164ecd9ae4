"""Finding the file of a model in a folder, by one rule for all commands.

The first of these in a folder is read:

    manifest.json                  weights that `dump` wrote
    saved_model.pb                 a SavedModel
    frozen_inference_graph.pb      a frozen graph, exported for TensorFlow, or (the zoo's V3 archives) TensorFlow Lite
    tflite_graph.pb                a frozen graph exported for TensorFlow Lite
    model.ckpt.*                   a TF1 checkpoint; of several the one that the file `checkpoint` names, and where
                                   there is no such file the one of the highest step
    model.tflite                   a TensorFlow Lite file; any other name if it is the only one
    saved_model/saved_model.pb     a SavedModel in the folder that the exporter puts it in

Settings that this file does not have are taken from the pipeline.config beside it, then from the folder's other files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ssdlite_caffe.dump.foreign import what_else_is_in
from ssdlite_caffe.dump.model_bytes import SAVED_MODEL_START, starts_with
from ssdlite_caffe.dump.store import MANIFEST
from ssdlite_caffe.dump.tf1.checkpoint import choose_checkpoint, is_checkpoint
from ssdlite_caffe.dump.tf1.saved_model import is_saved_model_folder
from ssdlite_caffe.errors import ModelError

Kind = Literal["weights folder", "SavedModel", "frozen graph", "checkpoint", "TensorFlow Lite"]
FROZEN = "frozen_inference_graph.pb"
TFLITE_GRAPH = "tflite_graph.pb"
CONFIG = "pipeline.config"
SAVED_MODEL = "saved_model.pb"
SAVED_MODEL_FOLDER = "saved_model"
TFLITE_SUFFIX = ".tflite"
_OF_CAFFE = (".caffemodel", ".prototxt", ".solverstate")


@dataclass(frozen=True)
class Located:
    """A model's file.

    Attributes:
        kind: the reader for it.
        path: a file; the folder of a SavedModel or of dumped weights; the prefix of a checkpoint.
        config: the pipeline.config beside it, None if there is none.
        others: the folder's other model files; empty if a file was given.
        note: a sentence on why this file, where the user should know; else empty.
    """

    kind: Kind
    path: Path
    config: Path | None
    others: tuple[Located, ...] = ()
    note: str = ""


def locate(path: Path | str) -> Located:
    """The model at a path: a file, a folder, or the prefix of a checkpoint.

    Raises:
        ModelError: the path does not exist, or no model is found there.
    """
    path = Path(path)
    if path.is_dir():
        found = all_of(path)
        if not found:
            what = what_else_is_in(path)
            raise ModelError(
                f"{path} {what}"
                if what
                else f"{path} holds no {MANIFEST}, {SAVED_MODEL}, {FROZEN}, {TFLITE_GRAPH}, checkpoint or "
                f"{TFLITE_SUFFIX} file"
            )
        return dataclasses.replace(found[0], others=tuple(found[1:]))
    if path.name == MANIFEST:
        return Located("weights folder", path.parent, None)
    if is_checkpoint(path):
        prefix, note = choose_checkpoint(path)
        return Located("checkpoint", prefix, _config(prefix.parent), note=note)
    if not path.exists():
        raise ModelError(f"{path} does not exist")
    return _file(path)


def all_of(folder: Path) -> list[Located]:
    """All model files of a folder, the one that is read first."""
    return list(_in_folder(folder))


def frozen_graph_of(path: Path) -> Path | None:
    """The frozen graph at `path`: a .pb file, or the folder's if that is read first; else None."""
    if path.is_dir():
        first = next(_in_folder(path), None)
        return first.path if first is not None and first.kind == "frozen graph" else None
    return path if path.suffix == ".pb" and path.name != SAVED_MODEL else None


def _file(path: Path) -> Located:
    config = _config(path.parent)
    if path.suffix == TFLITE_SUFFIX or starts_with(path, b"TFL3", at=4):
        return Located("TensorFlow Lite", path, config)
    if path.suffix.lower() in _OF_CAFFE:
        raise ModelError(f"{path} is a file of Caffe already; give the TensorFlow model")
    if starts_with(path, SAVED_MODEL_START):
        if path.name != SAVED_MODEL:
            raise ModelError(f"{path} is the graph of a SavedModel; give the SavedModel's folder")
        return Located("SavedModel", path.parent, config)
    return Located("frozen graph", path, config)


def _in_folder(folder: Path) -> Iterator[Located]:
    """The models in a folder, in the order of the rule; an ambiguous file is an error only if it would be the first."""
    config = _config(folder)
    before = False
    if (folder / MANIFEST).is_file():
        before = True
        yield Located("weights folder", folder, None)
    if is_saved_model_folder(folder):
        before = True
        yield Located("SavedModel", folder, config)
    for name in (FROZEN, TFLITE_GRAPH):
        if (folder / name).is_file():
            before = True
            yield Located("frozen graph", folder / name, config)
    for choose in (_checkpoint, _tflite):
        try:
            chosen = choose(folder, config)
        except ModelError:
            if not before:
                raise
            continue
        if chosen is not None:
            before = True
            yield chosen
    if is_saved_model_folder(folder / SAVED_MODEL_FOLDER):
        yield Located("SavedModel", folder / SAVED_MODEL_FOLDER, _config(folder / SAVED_MODEL_FOLDER) or config)


def _checkpoint(folder: Path, config: Path | None) -> Located | None:
    if not is_checkpoint(folder):
        return None
    prefix, note = choose_checkpoint(folder)
    return Located("checkpoint", prefix, config, note=note)


def _tflite(folder: Path, config: Path | None) -> Located | None:
    found = sorted(folder.glob(f"*{TFLITE_SUFFIX}"))
    usual = folder / f"model{TFLITE_SUFFIX}"
    if usual not in found and len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ModelError(f"{folder} holds {len(found)} TensorFlow Lite files ({names}); give one of them")
    return Located("TensorFlow Lite", usual if usual in found else found[0], config) if found else None


def _config(folder: Path) -> Path | None:
    return folder / CONFIG if (folder / CONFIG).is_file() else None
