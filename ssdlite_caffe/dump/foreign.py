"""Recognising what is not a model that is read here, without loading it: by first bytes, names and files."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from ssdlite_caffe.errors import ModelError

_OBJECT_GRAPH = b"_CHECKPOINTABLE_OBJECT_GRAPH"
"""The variable that every object-based checkpoint has; its name stands in the index in one piece, since it is first."""
_TENSORFLOW_2 = "detectors of TensorFlow 2 are not read; give one of the TensorFlow 1 Object Detection API"
_KERAS_EXTRACTOR = re.compile(r"(?:^|/)(\w+_keras_feature_extractor)(?:/|$)")
_TENSORFLOW_1_BACKBONE = re.compile(r"(?:^|/)FeatureExtractor/MobilenetV[123]/")
_OLD_PYTORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""A pickled magic number, with which files of torch.save began before PyTorch 1.6."""
_PYTORCH = "a PyTorch file; models of PyTorch are not read, give the TensorFlow detector"
_OTHER_SUFFIXES = {
    ".pth": "PyTorch", ".pt": "PyTorch", ".safetensors": "safetensors", ".onnx": "ONNX", ".caffemodel": "Caffe",
    ".mlmodel": "Core ML", ".pbtxt": "text", ".keras": "Keras", ".h5": "Keras", ".hdf5": "Keras",
}  # fmt: skip
_MOST_NAMED = 4


def foreign_kind(data: bytes) -> str | None:
    """The kind of a file that is not a binary TensorFlow graph, with advice; None if it is not recognised."""
    head = data[:512].lstrip()
    lowered = head.lower()
    if data.startswith(b"\x89HDF\r\n\x1a\n"):
        return f"a Keras or HDF5 file (.h5); {_keras_advice('.h5')}"
    if data.startswith(b"PK\x03\x04"):
        return _zip_kind(data)
    if data.startswith(_OLD_PYTORCH):
        return _PYTORCH
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data) - 8 and b'"dtype"' in data[:512]:
        return "a safetensors file; models of PyTorch are not read, give the TensorFlow detector"
    if data.startswith(b"\x1f\x8b"):
        return "a gzip archive; unpack it (tar xzf) and give the frozen_inference_graph.pb inside"
    if data[4:8] == b"TFL3":
        return "a TensorFlow Lite model, where a graph was expected"
    if data[:1] == b"\x08" and any(name in data[:64].lower() for name in (b"onnx", b"pytorch")):
        return "an ONNX model; give the TensorFlow graph that it was converted from"
    if lowered.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page (HTML or XML); the download failed"
    if b"version https://git-lfs" in lowered:
        return "a Git LFS pointer; fetch the file itself (git lfs pull)"
    if lowered.startswith((b"node {", b"node{")):
        return "a text graph (.pbtxt), which holds no weights; give the binary frozen_inference_graph.pb"
    if lowered.startswith((b"model {", b"model{")):
        return "a pipeline.config; give the frozen graph, checkpoint or SavedModel beside it"
    if lowered.startswith(b"model_checkpoint_path"):
        return "the list of a folder's checkpoints; give the folder"
    if all(byte >= 0x20 or byte in b"\t\r\n\f" for byte in data[:512]):
        return "a text file, not a binary graph; give the .pb, the .tflite or the folder that they are in"
    return None


def _zip_kind(data: bytes) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, OSError, RuntimeError, NotImplementedError):
        names = []
    if any(name.split("/")[-1] == "data.pkl" for name in names):
        return _PYTORCH
    if {"config.json", "metadata.json"} <= set(names):
        return f"a Keras model; {_keras_advice('.keras')}"
    if names and all(name.endswith(".npy") for name in names):
        return "a NumPy archive (.npz), which holds no graph; give the model that the arrays were taken from"
    return "a zip archive; unpack it, and give the model inside"


def _keras_advice(suffix: str) -> str:
    return (
        f"if `keras import` or `keras train` wrote it, give it a name that ends in {suffix}, which convert takes; if "
        "not, give the detector's frozen graph"
    )


def refuse_object_based(prefix: Path) -> None:
    """Refuse an object-based checkpoint, from its index alone; one that cannot be read is left to its reader.

    Raises:
        ModelError: TensorFlow 2 wrote the checkpoint, which names objects where a TensorFlow 1 checkpoint names scopes.
    """
    index = prefix.with_name(prefix.name + ".index")
    try:
        known = index.is_file() and _OBJECT_GRAPH in index.read_bytes()
    except OSError:
        return
    if known:
        raise ModelError(f"{prefix} is an object-based checkpoint of TensorFlow 2; {_TENSORFLOW_2}")


def refuse_tensorflow_2(graph: pb.GraphDef, source: Path) -> None:
    """Refuse a SavedModel whose functions hold a detector of TensorFlow 2, or none.

    A detector of TensorFlow 1 that TensorFlow 2 wrapped and saved is in functions too, under its old names.

    Raises:
        ModelError: no function has convolutions of a TensorFlow 1 detector.
    """
    if any(node.op == "Conv2D" for node in graph.node):
        return
    names = [node.name for function in graph.library.function for node in function.node_def]
    if any(_TENSORFLOW_1_BACKBONE.search(name) for name in names):
        return
    found = next((match.group(1) for name in names if (match := _KERAS_EXTRACTOR.search(name))), None)
    if found is not None:
        raise ModelError(f"{source} is a SavedModel of TensorFlow 2's Object Detection API ({found}); {_TENSORFLOW_2}")
    if any(node.op == "Conv2D" for function in graph.library.function for node in function.node_def):
        raise ModelError(f"{source} is a SavedModel of TensorFlow 2, and not an SSD MobileNet; {_TENSORFLOW_2}")


def what_else_is_in(folder: Path) -> str:
    """What a folder without a model holds instead, with advice; empty if nothing is recognised."""
    for marker, what in (
        ("deploy.prototxt", "is a converted model; give the TensorFlow model that it was made from"),
        ("kit.json", "is a training folder, which holds Caffe nets; give the TensorFlow model"),
    ):
        if (folder / marker).is_file():
            return what
    if any((folder / name).is_dir() for name in ("JPEGImages", "Annotations", "ImageSets")):
        return "holds annotated images, not a model; are the arguments swapped?"
    if (folder / "data.mdb").is_file():
        return "is an LMDB, not a model; are the arguments swapped?"
    graphs = sorted(path.name for path in folder.glob("*.pb"))
    if graphs:
        return f"holds graphs of other names ({_listed(graphs)}); give the file, as in {folder / graphs[0]}"
    others = sorted(path.name for path in folder.iterdir() if path.suffix in _OTHER_SUFFIXES and path.is_file())
    if others:
        kind = _OTHER_SUFFIXES[Path(others[0]).suffix]
        return f"holds {_listed(others)}, no TensorFlow model ({kind}); give the TensorFlow detector"
    return ""


def _listed(names: list[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
