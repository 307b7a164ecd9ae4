"""The values of an object-based checkpoint, or of a SavedModel's variables folder, without TensorFlow.

`<prefix>.index` is a table (see `table`) of names and places; the values lie in `<prefix>.data-?????-of-?????`. The
variable _CHECKPOINTABLE_OBJECT_GRAPH says which Keras variable is stored under which name.

Source: tensorflow/core/util/tensor_bundle/tensor_bundle.{h,cc}; tensorflow/core/protobuf/trackable_object_graph.proto.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError

from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from ssdlite_caffe.dump.graph.tensors import DTYPES, Array, dtype_name
from ssdlite_caffe.dump.model_bytes import read_bytes, shards
from ssdlite_caffe.dump.tf2.crc32c import crc32c, masked
from ssdlite_caffe.dump.tf2.table import DamagedError, read_table, varint
from ssdlite_caffe.errors import ModelError

OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_MOST_BYTES = 1 << 31
_BEFORE_STRING = 8
"""Bytes of what `_one_string` puts before the string."""


class Bundle:
    """A checkpoint that is open for reading; a value is read when `value` is called.

    Attributes:
        keys: full name of a variable, as Keras names it -> the key under which its value is stored.
        shapes: key -> shape.
    """

    def __init__(self, prefix: Path) -> None:
        """Read the index of the checkpoint at `prefix`.

        Raises:
            ModelError: a file is missing or damaged, or it is not object-based.
        """
        self._prefix, self._shards = prefix, shards(prefix)
        self._index = prefix.with_name(prefix.name + ".index")
        self._entries = self._read_index()
        self.shapes = {key: tuple(dim.size for dim in entry.shape.dim) for key, entry in self._entries.items()}
        self.keys = self._full_names()

    def is_float(self, key: str) -> bool:
        """Whether a key's values are float32."""
        return self._entries[key].dtype == pb.DT_FLOAT

    def value(self, key: str) -> Array:
        """The value of a key.

        Raises:
            ModelError: its bytes are damaged or cut short, or of a type that is not read.
        """
        entry, shape = self._entries[key], self.shapes[key]
        if entry.dtype not in DTYPES or entry.slices:
            what = "it is stored in slices" if entry.slices else f"it is of the type {dtype_name(entry.dtype)}"
            raise self._damaged(key, what)
        dtype = np.dtype(DTYPES[entry.dtype])
        count = 1
        for size in shape:
            count *= size
        if min(shape, default=0) < 0 or count * dtype.itemsize != entry.size:
            raise self._damaged(key, f"it has {entry.size} bytes, and the shape {list(shape)}")
        return np.frombuffer(self._bytes(key), dtype).reshape(shape)

    def _damaged(self, key: str, what: str) -> ModelError:
        return ModelError(f"cannot read {key} from the checkpoint {self._prefix}: {what}")

    def _bytes(self, key: str) -> bytes:
        entry = self._entries[key]
        if not (0 <= entry.shard_id < len(self._shards) and entry.offset >= 0 and 0 <= entry.size <= _MOST_BYTES):
            raise self._damaged(key, "its place is not in the data files")
        try:
            if entry.offset + entry.size > self._length(entry.shard_id):
                data = b""
            else:
                with self._shards[entry.shard_id].open("rb") as stream:
                    stream.seek(entry.offset)
                    data = stream.read(entry.size)
        except OSError as error:
            raise self._damaged(key, error.strerror or str(error)) from error
        if len(data) != entry.size:
            raise self._damaged(key, f"{self._shards[entry.shard_id].name} is cut short")
        summed = _one_string(data) if entry.dtype == pb.DT_STRING else data
        if masked(crc32c(summed)) != entry.crc32c:
            raise self._damaged(key, "its bytes differ from their checksum")
        return data

    def _length(self, shard: int) -> int:
        return self._shards[shard].stat().st_size

    def _read_index(self) -> dict[str, pb.BundleEntryProto]:
        try:
            table = read_table(read_bytes(self._index))
            header = pb.BundleHeaderProto.FromString(table.pop(b"", b""))
            entries = {key.decode(): pb.BundleEntryProto.FromString(value) for key, value in table.items()}
        except (DamagedError, DecodeError, UnicodeDecodeError) as error:
            raise ModelError(f"{self._index} is damaged, or not the index of a checkpoint: {error}") from error
        if header.endianness != 0 or header.num_shards != len(self._shards):
            raise ModelError(
                f"{self._index} is for {header.num_shards} little-endian data files, there are {len(self._shards)}"
                if header.endianness == 0
                else f"{self._index} is of a big-endian machine, which is not read"
            )
        needed = sum(max(entry.size, 0) for entry in entries.values())
        present = sum(self._length(shard) for shard in range(len(self._shards)))
        if needed > present:  # values that lie over each other would be copied, each for itself
            raise ModelError(
                f"{self._index} is damaged: its values have {needed} bytes together, the data files {present}"
            )
        return entries

    def _full_names(self) -> dict[str, str]:
        if OBJECT_GRAPH not in self._entries:
            raise ModelError(f"{self._prefix} is not an object-based checkpoint of TensorFlow 2: no {OBJECT_GRAPH}")
        try:
            graph = pb.TrackableObjectGraph.FromString(_one_string(self._bytes(OBJECT_GRAPH))[_BEFORE_STRING:])
        except (DamagedError, DecodeError) as error:
            raise self._damaged(OBJECT_GRAPH, str(error)) from error
        found: dict[str, str] = {}
        for node in graph.nodes:
            for attribute in node.attributes:
                key = attribute.checkpoint_key
                if ".OPTIMIZER_SLOT" in key or key not in self._entries:
                    continue
                if attribute.full_name and found.setdefault(attribute.full_name, key) != key:
                    raise ModelError(
                        f"{self._prefix} holds two variables named {attribute.full_name}: {found[attribute.full_name]} "
                        f"and {key}"
                    )
        return found


def _one_string(data: bytes) -> bytes:
    """What the checksum of a tensor of one string is over: its length in four bytes, their checksum, the string.

    `data` has the length as a varint. Source: WriteStringTensor in tensor_bundle.cc.

    Raises:
        DamagedError: the length is not the string's.
    """
    length, place = varint(memoryview(data), 0)
    if place + 4 + length != len(data):
        raise DamagedError("its length is another one")
    return length.to_bytes(4, "little") + data[place:]
