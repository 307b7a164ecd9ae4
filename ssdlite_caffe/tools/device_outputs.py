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
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.errors import DeviceError

Array = npt.NDArray[np.float64]
Shape = tuple[int, ...]

DTYPES = {
    "float32": "<f4", "float16": "<f2", "float64": "<f8", "bfloat16": "<u2", "int8": "<i1", "uint8": "<u1",
    "int16": "<i2", "uint16": "<u2", "int32": "<i4",
}  # fmt: skip
"""Names of dtypes in --output, as little endian files have them."""
_FLAT_SUFFIXES = (".bin", ".raw", ".dat", "")
_TEXT_SUFFIXES = (".txt", ".csv")
_SUFFIXES = (".npy", *_FLAT_SUFFIXES, *_TEXT_SUFFIXES)
_BY_SIZE = {4: "float32", 2: "float16", 8: "float64"}
"""The dtype of a flat file of which nothing is said, by the bytes of a value."""
_TEXT_BYTES, _HEADER_BYTES = 64, 1 << 16
_MAX_FILES = 10_000
_MAX_LIST_BYTES = 1 << 20
MAX_ROWS = 10_000
_KEYS = ("file", "dtype", "scale", "zero", "layout")


@dataclass(frozen=True)
class OutputFormat:
    """What the user says of an output.

    Attributes:
        name: of the blob.
        file: name of the file in the folder, or of the array in the .npz; "" to find it by the blob's name.
        dtype: a key of DTYPES, for flat files; "" if not said.
        scale, zero: value = scale * (stored - zero); scale None if the values are not quantised.
        layout: `nchw` or `nhwc`; "" if not said.
    """

    name: str
    file: str = ""
    dtype: str = ""
    scale: float | None = None
    zero: float = 0.0
    layout: str = ""


def parse_formats(texts: Sequence[str]) -> list[OutputFormat]:
    """Read values of --output; `@FILE` stands for the lines of a file, of which empty ones and `# ...` are skipped.

    Raises:
        DeviceError: a file cannot be read, or a value is not valid, or two are for one blob.
    """
    lines: list[str] = []
    for text in texts:
        lines += _lines(Path(text[1:])) if text.startswith("@") else [text]
    formats = [parse_format(line) for line in lines]
    twice = next((name for name, count in Counter(one.name for one in formats).items() if count > 1), None)
    if twice is not None:
        raise DeviceError(f"--output {twice} is given twice")
    return formats


def _lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_LIST_BYTES + 1)
        if len(data) > _MAX_LIST_BYTES:
            raise DeviceError(f"--output: {path} is larger than {_MAX_LIST_BYTES >> 20} MiB, the limit for a list")
        stripped = [line.strip() for line in data.decode("utf-8-sig").splitlines()]
    except OSError as error:
        raise DeviceError(f"--output: cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DeviceError(f"--output: {path} is not UTF-8 text; it has a BLOB:key=value,... on each line") from error
    return [line for line in stripped if line and not line.startswith("#")]


def parse_format(text: str) -> OutputFormat:
    """Read `NAME:key=value,...`, with the keys file, dtype, scale, zero and layout.

    Raises:
        DeviceError: it has another form, or a value that is not allowed.
    """
    found = re.fullmatch(r"(.+?):([a-z_]+=.*)", text, re.DOTALL)
    if found is None:
        raise DeviceError(f"--output takes BLOB:key=value,... with the keys {', '.join(_KEYS)}, got {text!r}")
    said: dict[str, str] = {}
    for part in found[2].split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or key not in _KEYS:
            raise DeviceError(f"--output {text}: the keys are {', '.join(_KEYS)}, got {part!r}")
        if key in said:
            raise DeviceError(f"--output {text}: {key} is given twice")
        said[key] = value
    if said.get("dtype", "float32") not in DTYPES:
        raise DeviceError(f"--output {text}: dtype must be one of {', '.join(DTYPES)}, got {said['dtype']!r}")
    if said.get("layout", "nchw") not in ("nchw", "nhwc"):
        raise DeviceError(f"--output {text}: layout must be nchw or nhwc, got {said['layout']!r}")
    scale = _number(text, said, "scale")
    if scale is not None and scale <= 0:
        raise DeviceError(f"--output {text}: scale must be positive, got {said['scale']}")
    zero = _number(text, said, "zero")
    if zero is not None and scale is None:
        raise DeviceError(f"--output {text}: zero needs scale; a value is scale * (stored - zero)")
    return OutputFormat(
        found[1], said.get("file", ""), said.get("dtype", ""), scale, zero or 0.0, said.get("layout", "")
    )


def _number(text: str, said: Mapping[str, str], key: str) -> float | None:
    if key not in said:
        return None
    try:
        value = float(said[key])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DeviceError(f"--output {text}: {key} must be a number, got {said[key]!r}")
    return value


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
