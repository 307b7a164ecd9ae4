"""Keras models in files: `.keras`, `.weights.h5` and the older `.h5`, each with architecture and label map.

`.keras` and `.h5` have both in the configuration of the `Predictions` layer, `.weights.h5` in an attribute of the root.
"""

from __future__ import annotations

import io
import json
import logging
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ssdlite_caffe.coco.label_map import Label, LabelMap, check_classes
from ssdlite_caffe.errors import ModelError, OutputError, SsdliteError
from ssdlite_caffe.files import refuse_existing, write_bytes
from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.imports import import_keras
from ssdlite_caffe.keras.model import KerasModel, build_model, detector_of
from ssdlite_caffe.terminal import size_text

SUFFIXES = (".keras", ".weights.h5", ".h5")
ATTRIBUTE = "ssdlite_caffe"
_MAX_BYTES = 1 << 30
_MAX_CONFIG_BYTES = 1 << 26
_EPOCH = (1980, 1, 1, 0, 0, 0)


def suffix_of(path: Path) -> str:
    """Which of SUFFIXES a file name has.

    Raises:
        OutputError: it has none of them.
    """
    found = next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), None)
    if found is None:
        raise OutputError(f"the name of a Keras model must end in one of {', '.join(SUFFIXES)}, got {path}")
    return found


def save(detector: KerasModel, path: Path, *, force: bool = False) -> None:
    """Write a model in the format of its suffix, in one step; the same model gives the same bytes.

    Raises:
        OutputError: the suffix is unknown, the file exists and `force` is false, or it cannot be written.
    """
    suffix = suffix_of(path)
    refuse_existing(path, force=force)
    try:
        with tempfile.TemporaryDirectory() as folder, _quiet():
            part = Path(folder) / f"model{suffix}"
            if suffix == ".weights.h5":
                detector.model.save_weights(part)
                _write_attribute(part, detector)
            else:
                detector.model.save(part)
            data = part.read_bytes()
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    write_bytes(path, _without_dates(data) if suffix == ".keras" else data, force=force)


def load(path: Path) -> KerasModel:
    """Read a model that `save` wrote.

    Raises:
        ModelError: it cannot be read, or is not a detector that this package wrote.
        MissingRuntimeError: Keras or TensorFlow is not installed.
    """
    _check_file(path)
    described = _described(path)
    import_keras()
    try:
        with _quiet():
            found = _load_weights(path, described) if path.name.endswith(".weights.h5") else _load_whole(path)
    except SsdliteError:
        raise
    except Exception as error:  # Keras and HDF5 raise exceptions of nearly any type for a damaged file
        raise ModelError(f"{path} cannot be read as a Keras model: {_one_line(error)}") from error
    if found is None:
        raise _not_ours(path)
    return found


def description_of(path: Path) -> tuple[ArchSpec, LabelMap]:
    """Architecture and classes of a model that `save` wrote, without loading Keras where the file shows them.

    Raises:
        ModelError: see `load`.
        MissingRuntimeError: see `load`.
    """
    _check_file(path)
    described = _described(path)
    if described is not None:
        return described
    detector = load(path)
    return detector.arch, detector.labels


def _not_ours(path: Path) -> ModelError:
    return ModelError(
        f"{path} is a Keras model, but not a detector that `ssdlite-caffe keras import` or `keras train` wrote; other "
        "Keras models are not read, give the TensorFlow model that it was made from"
    )


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise ModelError(f"{path} is a folder, not a Keras model" if path.is_dir() else f"{path} does not exist")
    if not any(path.name.endswith(suffix) for suffix in SUFFIXES):
        raise ModelError(
            f"{path} does not have the name of a Keras model, which ends in {', '.join(SUFFIXES)}, or of a TensorFlow "
            "Lite model, which ends in .tflite"
        )
    if path.stat().st_size > _MAX_BYTES:
        raise ModelError(f"{path} is larger than {size_text(_MAX_BYTES)}, the limit for a MobileNet detector")


def _described(path: Path) -> tuple[ArchSpec, LabelMap] | None:
    """What a file says of itself; None if that cannot be read without Keras.

    Raises:
        ModelError: the file says that it is a model of another kind.
    """
    start, kind = (b"PK", "a zip archive") if path.suffix == ".keras" else (b"\x89HDF", "an HDF5 file")
    with path.open("rb") as file:
        if file.read(len(start)) != start:
            raise ModelError(f"{path} cannot be read as a Keras model: it is not {kind}")
    try:
        layers = _layers_in_zip(path) if path.suffix == ".keras" else _layers_in_hdf5(path)
    except SsdliteError:
        raise
    except Exception:  # h5py is missing, or the file is damaged, for which zipfile and HDF5 raise nearly any exception
        return None
    if layers is None:
        return None
    # A .h5 file has the package before the name.
    named = [(layer, str(layer.get("class_name"))) for layer in layers if isinstance(layer, dict)]
    found = [layer for layer, name in named if name.rpartition(">")[2] == "Predictions"]
    if not found:
        raise _not_ours(path)
    try:
        known = found[0]["config"]
        labels = LabelMap(tuple(Label(i, name, shown) for i, (name, shown) in enumerate(known["labels"])))
        arch = ArchSpec.from_dict(known["arch"])
        check_classes(labels, arch.num_classes, "the model's label map")
    except (SsdliteError, KeyError, TypeError, ValueError):
        return None
    return arch, labels


def _layers_in_zip(path: Path) -> list[Any] | None:
    with zipfile.ZipFile(path) as archive:
        if archive.getinfo("config.json").file_size > _MAX_CONFIG_BYTES:
            return None
        content = json.loads(archive.read("config.json"))
    return list(content.get("config", {}).get("layers", []))


def _layers_in_hdf5(path: Path) -> list[Any] | None:
    """The layers of a .h5 file; of a .weights.h5 file one that stands for the description in its attribute."""
    import h5py

    with h5py.File(path, "r") as file:
        text, own = file.attrs.get("model_config"), file.attrs.get(ATTRIBUTE)
    if own is None and path.name.endswith(".weights.h5"):
        raise ModelError(f"{path} has weights without the description of their net; give the .keras file")
    if own is not None:
        return [{"class_name": "Predictions", "config": json.loads(own)}]
    return None if text is None else list(json.loads(text).get("config", {}).get("layers", []))


def _load_whole(path: Path) -> KerasModel | None:
    keras, _ = import_keras()
    from ssdlite_caffe.keras import layers

    assert layers.PACKAGE  # the import registers our layers
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > _MAX_BYTES:
            raise ModelError(f"{path} unpacks to more than {size_text(_MAX_BYTES)}, the limit for a MobileNet detector")
    return detector_of(keras.saving.load_model(path, compile=False, safe_mode=True))


def _load_weights(path: Path, described: tuple[ArchSpec, LabelMap] | None) -> KerasModel:
    if described is None:
        raise ModelError(f"{path} cannot be read as weights with a description of their net; give the .keras file")
    arch, labels = described
    model = build_model(arch, labels)
    model.load_weights(path)
    return KerasModel(model, arch, labels)


def _write_attribute(path: Path, detector: KerasModel) -> None:
    import h5py

    labels = [[entry.name, entry.display_name] for entry in detector.labels.entries]
    with h5py.File(path, "r+") as file:
        file.attrs[ATTRIBUTE] = json.dumps({"arch": detector.arch.to_dict(), "labels": labels})


def _without_dates(data: bytes) -> bytes:
    """The same archive without dates, so that the same model gives the same bytes."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(made, "w") as target:
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename == "metadata.json":
                content = json.dumps({**json.loads(content), "date_saved": ""}).encode()
            target.writestr(zipfile.ZipInfo(entry.filename, _EPOCH), content)
    return made.getvalue()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Keras' warnings: its advice on file formats, and what it warns of before it raises."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
