"""The file of torch.save before PyTorch 1.6: pickles one after the other, then the numbers of each storage."""

from __future__ import annotations

import io
import struct
from typing import Any

from ssdlite_caffe.dump.torch.pickles import ITEM_SIZES, StorageRef, load
from ssdlite_caffe.errors import ModelError

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


def read_legacy(data: bytes, source: str) -> tuple[Any, dict[str, memoryview], bool]:
    """Read such a file.

    Returns:
        Its object, the bytes of each storage, and whether numbers have their least byte first.

    Raises:
        ModelError: it is damaged or cut short, or calls something.
    """
    stream = io.BytesIO(data)
    magic, protocol, system = (load(stream, source) for _ in range(3))
    if magic != _MAGIC or protocol != _PROTOCOL or not isinstance(system, dict):
        raise ModelError(f"{source} is not a file of torch.save: its beginning is another one")
    found, keys = load(stream, source), load(stream, source)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ModelError(f"{source} is damaged: its list of storages is no list of names")
    little = system.get("little_endian", True) is not False
    types = {ref.key: ITEM_SIZES[ref.dtype] for ref in _storages(found)}
    place, storages = stream.tell(), {}
    for key in keys:
        if place + 8 > len(data):
            raise ModelError(f"{source} is cut short: the storage {key[:40]!a} is not in it")
        (count,) = struct.unpack_from("<q" if little else ">q", data, place)
        end = place + 8 + count * types.get(key, 0)
        if count < 0 or end > len(data) or key not in types:
            raise ModelError(f"{source} is cut short or damaged: the storage {key[:40]!a} is not in it whole")
        storages[key] = memoryview(data)[place + 8 : end]
        place = end
    return found, storages, little


def _storages(found: Any) -> list[StorageRef]:
    """The storages of all tensors in an object, each container looked at once."""
    seen: set[int] = set()
    waiting, storages = [found], []
    while waiting:
        one = waiting.pop()
        if isinstance(one, StorageRef):
            storages.append(one)
        elif isinstance(one, (dict, list, tuple)) and id(one) not in seen:
            seen.add(id(one))
            waiting += one.values() if isinstance(one, dict) else one
    return storages
