"""The tensors of a PyTorch file by name: a state_dict, one inside of a training checkpoint, or a .safetensors file."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump.model_bytes import FileBytes
from ssdlite_caffe.dump.torch.archive import Archive
from ssdlite_caffe.dump.torch.legacy import read_legacy
from ssdlite_caffe.dump.torch.names import LEGACY_START, ZIP_START
from ssdlite_caffe.dump.torch.pickles import ITEM_SIZES, SAVE, Opaque, TensorRef, load
from ssdlite_caffe.errors import ModelError, TensorError
from ssdlite_caffe.imports import import_safetensors

_WEIGHTS = ("model", "state_dict", "model_state_dict", "module", "net", "network", "weights")
_AVERAGES = ("model_ema", "ema_state_dict", "state_dict_ema", "model_ema_state_dict", "ema", "ema_model")
"""Keys under which training scripts keep the weights, and their moving averages (EMA)."""
_SAFE_DTYPES = {
    "F64": "f8", "F32": "f4", "F16": "f2", "BF16": "bfloat16", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1",
    "U8": "u1", "BOOL": "?",
}  # fmt: skip
_FLOATS = ("f8", "f4", "f2", "bfloat16")


@dataclass(frozen=True)
class Tensor:
    """A tensor that is not read yet.

    Attributes:
        shape: of it.
        dtype: of `pickles.DTYPES`.
        values: reads it, in its own type (bfloat16 as the upper halves of float32, uint16).
    """

    shape: tuple[int, ...]
    dtype: str
    values: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        """Bytes of its values."""
        return math.prod(self.shape) * ITEM_SIZES[self.dtype]

    @property
    def is_float(self) -> bool:
        """Whether it holds floating-point numbers."""
        return self.dtype in _FLOATS

    def as_float32(self) -> FloatArray:
        """The values as float32: exact for float16 and bfloat16, rounded once for float64."""
        found = self.values()
        if self.dtype == "bfloat16":
            return (found.astype(np.uint32) << 16).view(np.float32)
        with np.errstate(over="ignore"):
            return found.astype(np.float32, copy=False)


@dataclass(frozen=True)
class StateDict:
    """The weights of a file.

    Attributes:
        tensors: by name, as in the file.
        sha256: of the file, hex.
        size: of the file, in bytes.
        notes: sentences for the user about which weights they are.
    """

    tensors: Mapping[str, Tensor]
    sha256: str
    size: int
    notes: tuple[str, ...] = ()


def read_state_dict(path: Path, *, ema: bool = False) -> StateDict:
    """The tensors of a file.

    Args:
        path: a .pth or .pt file of torch.save, or a .safetensors file.
        ema: take the moving averages of a training checkpoint.

    Raises:
        ModelError: the file is damaged or of another kind, asks for code to be run, or holds no tensors.
        MissingRuntimeError: it is a .safetensors file, and the library safetensors is not installed.
    """
    file, source = FileBytes(path), str(path)
    digest, start = file.sha256(), file.read(0, max(len(ZIP_START), len(LEGACY_START)))
    if start.startswith((ZIP_START, LEGACY_START)):
        read: Callable[[str], bytes | memoryview]
        if start.startswith(ZIP_START):  # its tensors are read one at a time, so that they are in memory once
            archive = Archive(file)
            found, little = load(io.BytesIO(archive.pickle()), source), archive.little_endian()
            read = functools.partial(_member, archive)
        else:
            found, storages, little = read_legacy(file.read(), source)
            read = functools.partial(_stored, storages, source)
        chosen, notes = _chosen(found, source, ema)
        return StateDict(_tensors(chosen, read, little, source), digest, file.size, notes)
    data = file.read()
    if _looks_safe(data, path):
        if ema:
            raise ModelError(f"--ema is for training checkpoints; {path} is a .safetensors file, which holds one model")
        return StateDict(_safetensors(data, source), digest, file.size)
    from ssdlite_caffe.dump.foreign import foreign_kind

    kind = foreign_kind(data)
    if data.startswith((b"\x80\x02", b"\x80\x04", b"\x80\x05")):
        kind = f"a pickle, but not one of torch.save; in Python, {SAVE}"
    elif b"\0ustar" in data[:512]:
        kind = f"a file of torch.save before PyTorch 0.1.10; load it in PyTorch, and {SAVE}"
    raise ModelError(f"{path} is {kind or 'not a file of torch.save or safetensors: it was cut short or damaged'}")


def _looks_safe(data: bytes, path: Path) -> bool:
    return path.suffix.lower() == ".safetensors" or (data[8:9] == b"{" and b'"dtype"' in data[:4096])


def _member(archive: Archive, key: str) -> bytes:
    return archive.read(f"data/{key}")


def _stored(storages: Mapping[str, memoryview], source: str, key: str) -> memoryview:
    if key not in storages:
        raise ModelError(f"{source} is not complete: it has no storage {key[:40]!a}")
    return storages[key]


def _chosen(found: Any, source: str, ema: bool) -> tuple[dict[str, TensorRef], tuple[str, ...]]:
    """The state_dict that an object is, or that is in a training checkpoint, and notes on the choice."""
    if isinstance(found, Opaque):
        raise ModelError(_whole_module(source, found.name))
    if not isinstance(found, dict):
        raise ModelError(f"{source} holds a {type(found).__name__}, not a state_dict; in Python, {SAVE}")
    held = {key: _state_of(found.get(key)) for key in (*_WEIGHTS, *_AVERAGES)}
    there = {key: one for key, one in held.items() if one}
    averages = [key for key in _AVERAGES if key in there]
    weights = [key for key in _WEIGHTS if key in there]
    own = _state_of(found)
    if ema:
        if not averages:
            raise ModelError(f"{source} has no moving averages (EMA) of weights; leave --ema out")
        return there[averages[0]], (f"the moving averages {averages[0]!r} of a training checkpoint",)
    if own and not (weights or averages):
        return own, ()
    if not (weights or averages):
        modules = [(key, one.name) for key, one in found.items() if isinstance(one, Opaque) and key in held]
        if modules:
            raise ModelError(_whole_module(source, modules[0][1], f" under {modules[0][0]!r}"))
        keys = ", ".join(ascii(str(key)[:40]) for key in list(found)[:6])
        raise ModelError(f"{source} holds no tensors by name, but {keys or 'nothing'}; in Python, {SAVE}")
    key = (weights or averages)[0]
    notes = [f"the weights {key!r} of a training checkpoint"]
    if weights and averages:
        notes.append(f"the checkpoint has moving averages too, {averages[0]!r}; --ema takes these")
    return there[key], tuple(notes)


def _whole_module(source: str, name: str, where: str = "") -> str:
    return (
        f"{source} holds a whole pickled module{where}, {name}, which only its own code can make; load it where that "
        f"code is, and {SAVE}"
    )


def _state_of(found: Any, depth: int = 0) -> dict[str, TensorRef]:
    """The tensors by name in a dict, or in the state_dict that lies in it; empty if it is none."""
    if not isinstance(found, dict):
        return {}
    tensors = {key: one for key, one in found.items() if isinstance(key, str) and isinstance(one, TensorRef)}
    if len(tensors) > 1:
        return tensors
    inner = [found[key] for key in ("state_dict", "module", "model") if key in found] if depth < 2 else []
    return next((state for one in inner if (state := _state_of(one, depth + 1))), {})


def _tensors(
    chosen: dict[str, TensorRef], read: Callable[[str], bytes | memoryview], little: bool, source: str
) -> dict[str, Tensor]:
    return {
        name: Tensor(ref.shape, ref.storage.dtype, lambda name=name, ref=ref: _values(name, ref, read, little, source))  # type: ignore[misc]
        for name, ref in chosen.items()
    }


def _values(
    name: str, ref: TensorRef, read: Callable[[str], bytes | memoryview], little: bool, source: str
) -> np.ndarray:
    """The values of a tensor; all of it must lie within its storage, which must lie within the file.

    Raises:
        TensorError: it does not.
    """
    kind = np.dtype(("<" if little else ">") + ("u2" if ref.storage.dtype == "bfloat16" else ref.storage.dtype))
    count = math.prod(ref.shape)
    last = ref.offset + sum((size - 1) * stride for size, stride in zip(ref.shape, ref.strides, strict=True))
    shown = f"tensor {name[:80]!a} in {source}, of the shape {ref.shape},"
    if count > ref.storage.numbers:  # with a stride of 0 a few numbers would make a huge tensor
        raise TensorError(f"{shown} has more values than its storage, which has {ref.storage.numbers}")
    if count and last >= ref.storage.numbers:
        raise TensorError(f"{shown} reaches beyond its storage: to number {last} of {ref.storage.numbers}")
    found = read(ref.storage.key)
    if len(found) != ref.storage.numbers * kind.itemsize:
        raise TensorError(
            f"{shown} has a storage of {len(found)} bytes, {ref.storage.numbers} numbers need "
            f"{ref.storage.numbers * kind.itemsize}"
        )
    if not count:
        return np.zeros(ref.shape, kind)
    flat = np.frombuffer(found, kind)[ref.offset :]
    steps = [stride * kind.itemsize for stride in ref.strides]
    values = np.lib.stride_tricks.as_strided(flat, ref.shape, steps, writeable=False)
    return values.astype(kind.newbyteorder("="), copy=False)


def _safetensors(data: bytes, source: str) -> dict[str, Tensor]:
    safetensors = import_safetensors()
    try:
        found = safetensors.deserialize(data)
    except (safetensors.SafetensorError, ValueError, OverflowError) as error:
        reason = str(error).removeprefix("Error while deserializing header: ")[:160]
        raise ModelError(f"{source} is cut short or damaged, or is no .safetensors file: {reason}") from error
    return dict(_safe(found, source))


def _safe(found: list[tuple[str, dict[str, Any]]], source: str) -> Iterator[tuple[str, Tensor]]:
    for name, entry in found:
        dtype = _SAFE_DTYPES.get(entry["dtype"])
        if dtype is None:
            raise ModelError(f"tensor {name[:80]!a} in {source} has the type {entry['dtype']}, which is not read")
        kind = np.dtype("<u2" if dtype == "bfloat16" else f"<{dtype}")
        values = np.frombuffer(entry["data"], kind).reshape(entry["shape"])
        yield name, Tensor(tuple(entry["shape"]), dtype, lambda values=values: values)  # type: ignore[misc]
