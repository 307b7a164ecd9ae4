"""Reading what a board or another program gave for a net's blobs: .npy, .npz, flat .bin, and numbers as text.

Nothing is unpickled, and no file is read beyond what the blob's shape needs.
"""

from __future__ import annotations

import io
import math
import re
import struct
import tokenize
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.errors import DeviceError
from ssdlite_caffe.tools.output_format import DTYPES, OutputFormat

Array = npt.NDArray[np.float64]
Shape = tuple[int, ...]

_FLAT_SUFFIXES = (".bin", ".raw", ".dat", "")
_TEXT_SUFFIXES = (".txt", ".csv")
_SUFFIXES = (".npy", *_FLAT_SUFFIXES, *_TEXT_SUFFIXES)
_BY_SIZE = {4: "float32", 2: "float16", 8: "float64"}
"""The dtype of a flat file of which nothing is said, by the bytes of a value."""
_TEXT_BYTES, _HEADER_BYTES = 64, 1 << 16
_MAX_FILES = 10_000
MAX_ROWS = 10_000


@dataclass(frozen=True)
class DeviceOutputs:
    """What was read.

    Attributes:
        values: of each blob, in the blob's shape.
        notes: what was assumed, and what was skipped.
    """

    values: dict[str, Array]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Entry:
    """A file, or an array in an .npz.

    Attributes:
        label: for messages.
        name: without folder and suffix.
        suffix: in lower case.
        size: in bytes.
        open: opens it.
    """

    label: str
    name: str
    suffix: str
    size: int
    open: Callable[[], BinaryIO]


def read_outputs(
    path: Path, shapes: Mapping[str, Shape], order: Sequence[str], formats: Sequence[OutputFormat] = ()
) -> DeviceOutputs:
    """Read the outputs of a device.

    A file belongs to the blob that has its name; other characters than letters and digits may differ (`conv_3_expand`
    for `conv_3/expand`). If no file has a blob's name, files belong to the net's outputs in the order of their names,
    arrays of an .npz in the file's order.

    Args:
        path: a folder, an .npz, or a single file.
        shapes: of the blobs that may be there; 4 axes are N, C, H, W; a first axis of -1 has any length up to MAX_ROWS.
        order: names of the net's outputs, in the net's order.
        formats: what the user says of some of them.

    Raises:
        DeviceError: nothing fits, or a file cannot be read, is too large or too small, or has integers without a scale.
    """
    said = {one.name: one for one in formats}
    unknown = next((name for name in said if name not in shapes), None)
    if unknown is not None:
        raise DeviceError(f"--output {unknown}: the net has no blob of this name")
    entries, notes = _entries(path)
    chosen = _chosen(path, entries, shapes, order, said, notes)
    values = {}
    for name, entry in chosen.items():
        values[name] = _read(entry, name, shapes[name], said.get(name, OutputFormat(name)), notes)
    return DeviceOutputs(values, tuple(notes))


def _entries(path: Path) -> tuple[list[_Entry], list[str]]:
    if not path.exists():
        raise DeviceError(f"{path} does not exist; give a folder of outputs, or an .npz")
    if path.is_file():
        return (_members(path) if path.suffix.lower() == ".npz" else [_of_file(path, path.parent)]), []
    found: list[_Entry] = []
    skipped: list[str] = []
    for file in sorted(path.rglob("*"), key=lambda one: _natural(str(one.relative_to(path)))):
        if file.is_dir():
            continue
        relative = file.relative_to(path)
        if len(found) + len(skipped) >= _MAX_FILES:
            raise DeviceError(f"{path} has more than {_MAX_FILES} files; give a folder of outputs alone")
        if file.is_file() and file.suffix.lower() in _SUFFIXES and not file.name.startswith("."):
            found.append(_of_file(file, path))
        else:
            skipped.append(str(relative))
    if not found:
        raise DeviceError(f"{path} has no file that ends in {', '.join(s for s in _SUFFIXES if s)}")
    shown = ", ".join(skipped[:5]) + (f" and {len(skipped) - 5} more" if len(skipped) > 5 else "")
    return found, [f"skipped, not outputs by their suffix: {shown}"] if skipped else []


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A key that puts out2 before out10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.findall(r"[0-9]{1,18}|[^0-9]+", name)]


def _of_file(file: Path, folder: Path) -> _Entry:
    name = file.relative_to(folder).as_posix()
    suffix = file.suffix.lower() if file.suffix.lower() in _SUFFIXES else ""
    return _Entry(
        str(file), name[: len(name) - len(suffix)], suffix, file.stat().st_size, lambda: io.BytesIO(file.read_bytes())
    )


def _members(path: Path) -> list[_Entry]:
    try:
        archive = zipfile.ZipFile(path)
        infos = archive.infolist()
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise DeviceError(f"cannot read {path} as .npz: {error}") from error

    def opening(name: str) -> Callable[[], BinaryIO]:
        return lambda: archive.open(name)  # type: ignore[return-value]

    if not infos or len(infos) > _MAX_FILES:
        raise DeviceError(f"{path} has {len(infos)} arrays; 1 to {_MAX_FILES} are read")
    other = next((info.filename for info in infos if not info.filename.endswith(".npy")), None)
    if other is not None:
        raise DeviceError(f"{path} has {other!r}, which is no array; write it with numpy.savez")
    return [
        _Entry(f"{path}: {i.filename}", i.filename.removesuffix(".npy"), ".npy", i.file_size, opening(i.filename))
        for i in infos
    ]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _chosen(
    path: Path, entries: Sequence[_Entry], shapes: Mapping[str, Shape], order: Sequence[str],
    said: Mapping[str, OutputFormat], notes: list[str],
) -> dict[str, _Entry]:  # fmt: skip
    """The file of each blob that has one."""
    chosen: dict[str, _Entry] = {}
    left = list(entries)
    for name, one in said.items():
        if one.file:
            entry = next((e for e in entries if one.file in (e.name, e.name + e.suffix)), None)
            if entry is None:
                raise DeviceError(f"--output {name}: {path} has no {one.file!r}; it has {_listed(entries)}")
            if entry not in left:
                raise DeviceError(f"--output {name}: {one.file!r} is given to two blobs")
            chosen[name] = entry
            left.remove(entry)
    plain: dict[str, list[str]] = {}
    for name in shapes:
        plain.setdefault(_plain(name), []).append(name)
    unnamed = []
    for entry in left:
        names = [entry.name] if entry.name in shapes else plain.get(_plain(entry.name), [])
        if len(names) > 1:
            raise DeviceError(f"{entry.label} may be {' or '.join(names)}; say which with --output BLOB:file=...")
        if not names:
            unnamed.append(entry)
        elif names[0] in chosen:
            raise DeviceError(
                f"{chosen[names[0]].label} and {entry.label} are both {names[0]}; say which with --output BLOB:file=..."
            )
        else:
            chosen[names[0]] = entry
    if unnamed and chosen:
        notes.append(f"skipped, not named as a blob of the net: {_listed(unnamed)}")
    elif unnamed:
        if len(unnamed) > len(order):
            raise DeviceError(
                f"{path} has {_listed(unnamed)}: no name is a blob's, and the net has {len(order)} outputs "
                f"({', '.join(order)}); name the files, or say which with --output BLOB:file=..."
            )
        chosen = dict(zip(order, unnamed, strict=False))
        pairs = ", ".join(f"{entry.name} is {name}" for name, entry in chosen.items())
        notes.append(f"by order, since no file is named as a blob: {pairs}")
    return chosen


def _listed(entries: Sequence[_Entry]) -> str:
    names = ", ".join(entry.name + entry.suffix for entry in entries[:6])
    return names + (f" and {len(entries) - 6} more" if len(entries) > 6 else "")


def _read(entry: _Entry, name: str, shape: Shape, said: OutputFormat, notes: list[str]) -> Array:
    count = math.prod((MAX_ROWS, *shape[1:]) if shape[0] < 0 else shape)
    if entry.size > count * _TEXT_BYTES + _HEADER_BYTES:
        raise DeviceError(f"{entry.label} has {entry.size} bytes, more than {name} ({_sizes(shape)}) can need")
    try:
        with entry.open() as stream:
            data = stream.read(entry.size + 1)
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
        raise DeviceError(f"cannot read {entry.label}: {error}") from error
    found: Shape = ()
    if data.startswith(b"\x93NUMPY"):
        stored = _npy(entry.label, data)
        found = stored.shape
        if shape[0] >= 0 and stored.size != count:
            raise DeviceError(
                f"{entry.label} has the shape {_sizes(found) or 'of one value'}; {name} has {_sizes(shape)}"
            )
    elif entry.suffix in _TEXT_SUFFIXES:
        stored = _text(entry.label, data)
    else:
        size = np.dtype(DTYPES[said.dtype or "float32"]).itemsize
        stored = _flat(entry.label, data, count if shape[0] >= 0 else len(data) // size, name, said, notes)
    if shape[0] < 0:
        row = math.prod(shape[1:])
        if stored.size % row or stored.size > count:
            raise DeviceError(f"{entry.label} has {stored.size} values; {name} has rows of {row}, {MAX_ROWS} at most")
        shape, count = (stored.size // row, *shape[1:]), stored.size
    if stored.size != count:
        raise DeviceError(f"{entry.label} has {stored.size} values; {name} has {count} ({_sizes(shape)})")
    if said.scale is None and stored.dtype.kind in "iu":
        raise DeviceError(
            f"{entry.label} has {stored.dtype} values; give their scale and zero point, as in "
            f"--output {name}:scale=0.05,zero=-3"
        )
    values = stored.astype(np.float64)
    if said.scale is not None:
        values = said.scale * (values - said.zero)
    return _arranged(values, found, shape, said.layout, entry.label, notes)


def _sizes(shape: Shape) -> str:
    return "x".join(map(str, shape))


def _npy(label: str, data: bytes) -> npt.NDArray[Any]:
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            header = np.lib.format.read_array_header_1_0(stream)
        elif version == (2, 0):
            header = np.lib.format.read_array_header_2_0(stream)
        else:
            raise ValueError(f"version {version[0]}.{version[1]} of the .npy format is not read")
    except (ValueError, SyntaxError, RecursionError, struct.error, tokenize.TokenError) as error:
        raise DeviceError(f"cannot read {label} as .npy: {error}") from error
    found, fortran, dtype = header
    if dtype.kind not in "fiu":
        raise DeviceError(f"{label} has the dtype {dtype}; floats and integers are read")
    body, count = data[stream.tell() :], math.prod(found)
    if len(body) != count * dtype.itemsize:
        raise DeviceError(f"{label} is damaged: {len(body)} bytes of values, {count * dtype.itemsize} needed")
    return np.frombuffer(body, dtype).reshape(found, order="F" if fortran else "C")


def _flat(
    label: str, data: bytes, count: int, name: str, said: OutputFormat, notes: list[str]
) -> npt.NDArray[Any]:  # fmt: skip
    dtype = said.dtype
    if not dtype:
        dtype = _BY_SIZE.get(len(data) // count if count and len(data) % count == 0 else 0, "")
        if not dtype:
            raise DeviceError(
                f"{label} has {len(data)} bytes, {name} has {count} values; say what they are, as in --output "
                f"{name}:dtype=int8,scale=0.05,zero=-3 (dtypes: {', '.join(DTYPES)})"
            )
        if dtype != "float32":
            notes.append(f"{label}: taken as {dtype} by its size")
    size = np.dtype(DTYPES[dtype]).itemsize
    if len(data) != count * size:
        raise DeviceError(f"{label} has {len(data)} bytes; {name} has {count} values, of {dtype} {count * size} bytes")
    stored = np.frombuffer(data, DTYPES[dtype])
    if dtype == "bfloat16":
        return (stored.astype("<u4") << 16).view("<f4")
    return stored


def _text(label: str, data: bytes) -> npt.NDArray[Any]:
    try:
        words = re.split(r"[\s,;\[\]]+", data.decode("utf-8-sig"))
        return np.array([float(word) for word in words if word], np.float64)
    except ValueError as error:  # UnicodeDecodeError is one
        raise DeviceError(f"{label} is not a text of numbers: {error}") from error


def _arranged(values: Array, found: Shape, shape: Shape, layout: str, label: str, notes: list[str]) -> Array:
    """Values in a blob's shape; those of N, H, W, C are moved."""
    if len(shape) == 4:
        last = (shape[0], shape[2], shape[3], shape[1])
        long = tuple(size for size in found if size != 1)
        by_shape = long == tuple(s for s in last if s != 1) != tuple(s for s in shape if s != 1)
        if layout == "nhwc" or (not layout and by_shape):
            if not layout:
                notes.append(f"{label}: taken as N, H, W, C by its shape {_sizes(found)}")
            return values.reshape(last).transpose(0, 3, 1, 2)
    return values.reshape(shape)
