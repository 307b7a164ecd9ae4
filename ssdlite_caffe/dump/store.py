"""Dumped weights as a folder: one .npy per tensor, and manifest.json with everything else.

    manifest.json
    default_boxes.npy                                       if the settings have default boxes
    tensors/FeatureExtractor/MobilenetV2/Conv/weights.npy   each slash of a tensor's name is a folder

The manifest has names of tensors and not of files. The path of a file is made from its tensor's name, in which every
special character is written as %XX, so that no name can lead out of the folder.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import tokenize
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump.model import ConvUnit, DumpedModel, Settings
from ssdlite_caffe.errors import ModelError, OutputError, TensorError
from ssdlite_caffe.files import new_folder

MANIFEST = "manifest.json"
BOXES = "default_boxes.npy"
TENSORS = "tensors"
FORMAT = "ssdlite-caffe weights"
VERSION = 1
MAX_MANIFEST_BYTES = 1 << 26
MAX_ELEMENTS = 1 << 28

_PLAIN = re.compile(r"[A-Za-z0-9_\-.]")
_FLOAT32 = np.dtype("<f4")


def tensor_file(name: str) -> str:
    """The path of a tensor below the tensors folder, with slashes; `tensor_name` gives the name back."""
    return "/".join(_escape(part) for part in name.split("/")) + ".npy"


def tensor_name(file: str) -> str:
    """Inverse of `tensor_file`."""
    return re.sub(
        r"((?:%[0-9A-F]{2})+)",
        lambda found: bytes.fromhex(found.group(1).replace("%", "")).decode("utf-8", "replace"),
        file.removesuffix(".npy"),
    )


def _escape(part: str) -> str:
    escaped = "".join(c if _PLAIN.match(c) else _percent(c) for c in part)
    # "." and ".." are folders, a leading dot hides a file, and an empty part would not be in the path.
    if escaped.startswith("."):
        return _percent(".") + escaped[1:]
    return escaped or _percent("\0")


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))


def write_folder(model: DumpedModel, folder: Path, *, force: bool = False) -> None:
    """Write a model's tensors, units and settings to a new folder, in one step.

    Args:
        model: what to write.
        folder: the folder to make.
        force: replace an earlier folder of weights.

    Raises:
        OutputError: the folder exists and `force` is false, or it cannot be written.
    """
    with new_folder(folder, marker=MANIFEST, force=force) as staging:
        for name, value in model.tensors.items():
            path = staging / TENSORS / tensor_file(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            _save(path, value)
        if model.settings.default_boxes is not None:
            _save(staging / BOXES, model.settings.default_boxes)
        (staging / MANIFEST).write_text(json.dumps(manifest_of(model), indent=1) + "\n", "utf-8")


def _save(path: Path, value: FloatArray) -> None:
    if path.exists():
        raise OutputError(
            f"two tensors would be written to {path.name}, since their names differ in case only; write to a "
            "case-sensitive file system"
        )
    with path.open("wb") as stream:
        np.lib.format.write_array(stream, np.ascontiguousarray(value, _FLOAT32), allow_pickle=False)


def manifest_of(model: DumpedModel) -> dict[str, Any]:
    """Everything of a model except the values of tensors, as plain data for JSON."""
    settings = {f.name: getattr(model.settings, f.name) for f in dataclasses.fields(Settings)}
    boxes = settings.pop("default_boxes")
    nested = {
        name: dataclasses.asdict(value)
        for name, value in settings.items()
        if dataclasses.is_dataclass(value) and not isinstance(value, type)
    }
    return {
        "format": FORMAT,
        "version": VERSION,
        "source": model.source,
        "form": model.form,
        "sha256": model.sha256,
        "arch": model.arch,
        "settings": {**settings, **nested},
        "default_boxes": None if boxes is None else list(boxes.shape),
        "tensors": {name: {"shape": list(value.shape), "dtype": "float32"} for name, value in model.tensors.items()},
        "units": [dataclasses.asdict(unit) for unit in model.units],
        "skipped": model.skipped,
        "origins": model.origins,
        "notes": list(model.notes),
        "inexact": list(model.inexact),
    }


def read_folder(path: Path) -> DumpedModel:
    """Read what `write_folder` wrote; its `form` is "weights folder".

    Raises:
        ModelError: the manifest is missing or damaged, or is not one of `write_folder`.
        TensorError: tensors are missing, not in the manifest, of the wrong shape or dtype, or NaN or Inf; all are
            listed.
    """
    manifest = _manifest(path / MANIFEST)
    try:
        shapes = {name: tuple(int(n) for n in entry["shape"]) for name, entry in manifest["tensors"].items()}
        units = tuple(_typed(ConvUnit, entry) for entry in manifest["units"])
        settings = _typed(Settings, {**manifest["settings"], "default_boxes": None})
        boxes_shape = None if manifest["default_boxes"] is None else tuple(int(n) for n in manifest["default_boxes"])
        skipped = {str(name): str(reason) for name, reason in manifest["skipped"].items()}
        arch, sha256 = manifest["arch"], str(manifest["sha256"])
        # Folders of earlier versions do not have these.
        origins = {str(what): str(file) for what, file in manifest.get("origins", {}).items()}
        notes, inexact = (tuple(map(str, manifest.get(key, ()))) for key in ("notes", "inexact"))
        unknown = sorted({name for unit in units for name in unit.tensors.values()} - set(shapes))
        if unknown:
            raise ValueError(f"units name tensors that are not listed: {', '.join(unknown[:4])}")
        if not (arch is None or isinstance(arch, dict)):
            raise ValueError("arch is not an object")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ModelError(f"{path / MANIFEST} is damaged: {type(error).__name__}: {error}") from error
    problems: list[str] = []
    tensors = {}
    for name, shape in shapes.items():
        value = _load(path / TENSORS / tensor_file(name), shape, name, problems)
        if value is not None:
            tensors[name] = value
    if boxes_shape is not None:
        settings = dataclasses.replace(
            settings, default_boxes=_load(path / BOXES, boxes_shape, "default_boxes", problems)
        )
    expected = {tensor_file(name) for name in shapes}
    problems += [
        f"{tensor_name(file)} is not in the manifest" for file in _files(path / TENSORS) if file not in expected
    ]
    if problems:
        raise TensorError(f"{path} does not match its {MANIFEST}: {'; '.join(problems)}")
    return DumpedModel(
        str(path), "weights folder", sha256, tensors, units, settings, skipped, arch,
        origins=origins, notes=notes, inexact=inexact,
    )  # fmt: skip


def _manifest(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise ModelError(
                f"{path} is larger than {MAX_MANIFEST_BYTES >> 20} MiB, the most that is read as a manifest"
            )
        manifest = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ModelError(f"{path.parent} holds no {path.name}, so it is not a folder that `dump` wrote") from None
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not JSON: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ModelError(f"{path} is not the manifest of a weights folder")
    if manifest.get("version") != VERSION:
        raise ModelError(f"{path} has version {manifest.get('version')!r}; version {VERSION} is read")
    return manifest


def _files(folder: Path) -> Iterator[str]:
    return (file.relative_to(folder).as_posix() for file in sorted(folder.rglob("*")) if not file.is_dir())


def _load(path: Path, shape: tuple[int, ...], name: str, problems: list[str]) -> FloatArray | None:
    """A tensor, or None with a text added to `problems`. Memory is allocated after header and file size are checked."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        problems.append(f"{name} is a link or a special file, not a regular file")
        return None
    try:
        with path.open("rb") as stream:
            value = _read_array(stream, path.stat().st_size, shape)
    except FileNotFoundError:
        problems.append(f"{name} is missing")
        return None
    except (OSError, ValueError, SyntaxError, RecursionError, tokenize.TokenError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        problems.append(f"{name}: {reason}")
        return None
    wrong = value.size - int(np.count_nonzero(np.isfinite(value)))
    if wrong:
        problems.append(f"{name} holds {wrong} values that are NaN or Inf")
        return None
    return value


def _read_array(stream: typing.BinaryIO, size: int, shape: tuple[int, ...]) -> FloatArray:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        header = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        header = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"has version {version[0]}.{version[1]} of the .npy format; 1.0 and 2.0 are read")
    found, fortran, dtype = header
    if dtype.hasobject:
        raise ValueError("holds pickled objects, which are never loaded")
    if found != shape:
        raise ValueError(f"has the shape {found}, the manifest says {shape}")
    if dtype != _FLOAT32:
        raise ValueError(f"has dtype {dtype}, must be float32")
    count = math.prod(shape)
    if count > MAX_ELEMENTS or size != stream.tell() + count * _FLOAT32.itemsize:
        raise ValueError(f"has {size} bytes, its shape needs {stream.tell() + count * _FLOAT32.itemsize}")
    value = np.frombuffer(stream.read(), _FLOAT32)
    return np.ascontiguousarray(value.reshape(shape, order="F" if fortran else "C"))


def _typed(cls: type[Any], data: dict[str, Any]) -> Any:
    """A dataclass made from plain data, each value checked against the field's annotation.

    Raises:
        ValueError: a key is unknown, or a value has the wrong type.
        TypeError: a key is missing.
    """
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(data) - set(hints))
    if unknown:
        raise ValueError(f"unknown fields {', '.join(unknown)}")
    return cls(**{name: _value(value, hints[name], name) for name, value in data.items()})


def _value(value: Any, hint: Any, name: str) -> Any:
    """A JSON value converted to the annotation `hint`: lists become tuples, objects become dataclasses."""
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        if value in get_args(hint):
            return value
    elif isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return _typed(hint, value)
    elif origin is tuple and isinstance(value, list):
        kinds = get_args(hint)
        if kinds[-1] is Ellipsis:
            return tuple(_value(v, kinds[0], name) for v in value)
        if len(kinds) == len(value):
            return tuple(_value(v, kind, name) for v, kind in zip(value, kinds, strict=True))
    elif origin is dict and isinstance(value, dict):
        return {str(k): _value(v, get_args(hint)[1], name) for k, v in value.items()}
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    elif origin not in (None, tuple, dict):
        for kind in get_args(hint):
            try:
                return _value(value, kind, name)
            except ValueError:
                continue
    raise ValueError(f"{name} has the wrong type or value: {value!r}")
