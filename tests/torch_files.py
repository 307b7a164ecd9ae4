"""Files as torch.save writes them, made without PyTorch."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump.torch.torchvision import layers
from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.gen_model.torchvision import torchvision_arch

STORAGES = {
    "f4": "FloatStorage",
    "f8": "DoubleStorage",
    "f2": "HalfStorage",
    "i8": "LongStorage",
    "u2": "BFloat16Storage",
}
"""numpy's type -> the class of a storage; uint16 holds bfloat16."""


class Raw(bytes):
    """Instructions of a pickle that push one value."""


def value(one: Any) -> bytes:
    """Instructions that push a value, in protocol 2."""
    if isinstance(one, Raw):
        return bytes(one)
    if one is None:
        return b"N"
    if isinstance(one, bool):
        return b"\x88" if one else b"\x89"
    if isinstance(one, int):
        return b"J" + struct.pack("<i", one) if -(1 << 31) <= one < 1 << 31 else b"\x8a\x09" + one.to_bytes(9, "little")
    if isinstance(one, float):
        return b"G" + struct.pack(">d", one)
    if isinstance(one, str):
        return b"X" + struct.pack("<I", len(one.encode())) + one.encode()
    if isinstance(one, tuple):
        return b"(" + b"".join(map(value, one)) + b"t"
    if isinstance(one, list):
        return b"](" + b"".join(map(value, one)) + b"e"
    if isinstance(one, Mapping):
        return b"}(" + b"".join(value(key) + value(held) for key, held in one.items()) + b"u"
    raise TypeError(type(one))


def pickled(one: Any) -> bytes:
    """A whole pickle."""
    return b"\x80\x02" + value(one) + b"."


def named(module: str, name: str) -> Raw:
    """A class or function."""
    return Raw(b"c" + module.encode() + b"\n" + name.encode() + b"\n")


def call(function: Raw, *arguments: Any) -> Raw:
    """A call of a function."""
    return Raw(function + value(tuple(arguments)) + b"R")


def new(made: Raw, state: Any) -> Raw:
    """An object of a class, with a state."""
    return Raw(made + b")\x81" + value(state) + b"b")


ORDERED_DICT = call(named("collections", "OrderedDict"))


def tensor(
    key: str, dtype: str, numbers: int, shape: Sequence[int], strides: Sequence[int] | None = None, offset: int = 0
) -> Raw:
    """A tensor on a storage."""
    kind = named("torch", STORAGES[dtype])
    storage = Raw(value(("storage", kind, key, "cpu", numbers)) + b"Q")
    if strides is None:
        strides = [int(np.prod(shape[i + 1 :])) for i in range(len(shape))]
    return call(
        named("torch._utils", "_rebuild_tensor_v2"), storage, offset, tuple(shape), tuple(strides), False, ORDERED_DICT
    )


def tensors_of(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, Raw], dict[str, bytes]]:
    """Each array as a tensor on a storage of its own, and the storages."""
    made, storages = {}, {}
    for key, (name, array) in enumerate(arrays.items()):
        dtype = array.dtype.str[1:]
        made[name] = tensor(str(key), dtype, array.size, array.shape)
        storages[str(key)] = array.tobytes()
    return made, storages


def zip_file(
    path: Path, content: Any, storages: Mapping[str, bytes], *, compression: int = zipfile.ZIP_STORED,
    more: Mapping[str, bytes] | None = None,
) -> Path:  # fmt: skip
    """A file of torch.save; `content` is an object or a whole pickle."""
    whole = content if isinstance(content, bytes) and not isinstance(content, Raw) else pickled(content)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("weights/data.pkl", whole)
        archive.writestr("weights/byteorder", b"little")
        for key, data in storages.items():
            archive.writestr(f"weights/data/{key}", data)
        archive.writestr("weights/version", b"3\n")
        for name, data in (more or {}).items():
            archive.writestr(name, data)
    return path


def legacy_file(path: Path, content: Any, storages: Mapping[str, bytes], itemsize: int = 4) -> Path:
    """A file of torch.save before PyTorch 1.6."""
    stream = io.BytesIO()
    stream.write(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
    stream.write(pickled(1001) + pickled({"protocol_version": 1001, "little_endian": True}))
    stream.write(pickled(content) + pickled(list(storages)))
    for data in storages.values():
        stream.write(struct.pack("<q", len(data) // itemsize) + data)
    path.write_bytes(stream.getvalue())
    return path


def random_weights(classes: int, *, full_tail: bool = False, seed: int = 0) -> dict[str, FloatArray]:
    """A state_dict of torchvision's net with random weights, without the counts of training steps.

    Args:
        classes: with background.
        full_tail: see ArchSpec.
        seed: of the random numbers.
    """
    random = np.random.default_rng(seed)
    net = build(torchvision_arch(classes, full_tail=full_tail))
    found = {}
    for layer, conv in zip(layers(), net.convolutions, strict=True):
        shape = (conv.num_output, conv.in_channels // conv.group, *conv.kernel)
        for part, name in layer.parts.items():
            if part == "weights":
                made = random.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape)
            elif part in ("gamma", "moving_variance"):
                made = random.uniform(0.6, 1.4, shape[0])
            else:
                made = random.normal(0, 0.1, shape[0])
            found[name] = made.astype(np.float32)
    return found


def write_state_dict(path: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    """A state_dict as torch.save writes it."""
    made, storages = tensors_of(arrays)
    return zip_file(path, made, storages)
