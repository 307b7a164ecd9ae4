"""Reading and writing caffemodels, and converting blobs to and from numpy arrays without a Python loop over values."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.errors import PrototxtError
from ssdlite_caffe.files import write_bytes, write_parts
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.sizes import MAX_AXES, MAX_COUNT, show

MAX_BYTES = 2**31 - 1
"""Largest message that protobuf reads or writes, in bytes."""
_BYTES_FIELD = 2
"""Wire type of bytes, strings, messages and packed numbers (protobuf's encoding guide)."""
_WIRE_TYPES = {0: "number", 1: "64 bits", _BYTES_FIELD: "bytes", 3: "group", 5: "32 bits"}


def read_caffemodel(path: Path) -> caffe_pb2.NetParameter:
    """Read a caffemodel: its `layer` entries with their blobs.

    Raises:
        PrototxtError: the file cannot be read, is not a caffemodel, is cut short, or was written before 2014 (with
            `layers` and not `layer`); Caffe's `upgrade_net_proto_binary` converts such a file.
    """
    data = _read_bytes(path)
    try:
        net = caffe_pb2.NetParameter.FromString(data)
    except DecodeError as error:
        raise PrototxtError(f"{path} is not a caffemodel, or is cut short (it cannot be decoded)") from error
    if net.layers and not net.layer:
        raise PrototxtError(
            f"{path} is a caffemodel of the format before 2014 (V1 layers); convert it with Caffe's "
            "upgrade_net_proto_binary first"
        )
    if not net.layer:
        raise PrototxtError(f"{path} is not a caffemodel: it holds no layers")
    return net


def write_caffemodel(path: Path, net: caffe_pb2.NetParameter, *, force: bool = False) -> None:
    """Write a net with its blobs; the same net gives the same bytes.

    Raises:
        PrototxtError: the net is larger than protobuf can write.
        OutputError: `path` exists and `force` is false, or writing fails.
    """
    size = net.ByteSize()
    if size > MAX_BYTES:
        raise PrototxtError(f"the net takes {size} bytes, more than the {MAX_BYTES} that a caffemodel can hold")
    write_bytes(path, net.SerializeToString(deterministic=True), force=force)


def write_filled(
    path: Path, net: caffe_pb2.NetParameter, blobs: Mapping[str, Sequence[FloatArray]], *, force: bool = False
) -> str:
    """Write a caffemodel from a net without blobs and the arrays of its layers; the same input gives the same bytes.

    The arrays' memory is written directly. Putting the values into protobuf messages first would take three times the
    memory of the weights.

    Args:
        path: the file.
        net: a parsed prototxt.
        blobs: layer name -> its blobs, float32, in Caffe's order; other layers get none.
        force: replace a file.

    Returns:
        The SHA-256 of the file, hex.

    Raises:
        PrototxtError: the net is larger than protobuf can write.
        OutputError: `path` exists and `force` is false, or writing fails.
    """
    return write_layers(path, net, ((layer.name, blobs.get(layer.name, ())) for layer in net.layer), force=force)


def write_layers(
    path: Path,
    net: caffe_pb2.NetParameter,
    layers: Iterable[tuple[str, Sequence[FloatArray]]],
    *,
    force: bool = False,
) -> str:
    """The same from the blobs of one layer after the other; those of a layer are written before the next is asked for.

    Args:
        path: the file. If `layers` raises an error, nothing is written.
        net: a parsed prototxt.
        layers: name and blobs of every layer of the net, in its order.
        force: replace a file.

    Returns, Raises: as `write_filled`.
    """
    digest, size = hashlib.sha256(), 0

    def counted() -> Iterator[bytes | memoryview]:
        nonlocal size
        for part in _filled_parts(net, layers):
            size += len(part)
            if size > MAX_BYTES:
                raise PrototxtError(f"the net takes more than the {MAX_BYTES} bytes that a caffemodel can hold")
            digest.update(part)
            yield part

    write_parts(path, counted(), force=force)
    return digest.hexdigest()


def blob_from_array(array: FloatArray) -> caffe_pb2.BlobProto:
    """Blob with the shape and values of a float32 array, in C order. Exact: values are copied, never computed."""
    return caffe_pb2.BlobProto.FromString(b"".join(_blob_parts(array)))


def blob_shape(blob: caffe_pb2.BlobProto) -> tuple[int, ...]:
    """Shape of a blob: `shape`, or in old files num, channels, height, width (Caffe's Blob::FromProto)."""
    if any(blob.HasField(name) for name in ("num", "channels", "height", "width")):
        return blob.num, blob.channels, blob.height, blob.width
    return tuple(blob.shape.dim)


def blob_to_array(blob: caffe_pb2.BlobProto, name: str = "blob") -> FloatArray:
    """Values of a blob as a float32 array of its shape; double_data is rounded to float32, as Caffe does.

    Args:
        blob: the blob.
        name: what to call it in errors.

    Raises:
        PrototxtError: the shape is impossible, or does not match the count of values.
    """
    shape = blob_shape(blob)
    if len(shape) > MAX_AXES or any(n < 0 for n in shape) or math.prod(shape) > MAX_COUNT:
        raise PrototxtError(
            f"{name} has the impossible shape {show(shape)}; a blob has at most {MAX_AXES} axes and {MAX_COUNT} values"
        )
    count = len(blob.double_data) or len(blob.data)
    if count != math.prod(shape):
        raise PrototxtError(f"{name} holds {count} values, but its shape {show(shape)} has {math.prod(shape)}")
    if blob.double_data:
        return np.array(blob.double_data, np.float64).astype(np.float32).reshape(shape)
    wire = _only_data(blob).SerializeToString()
    return np.frombuffer(wire, "<f4", count, len(wire) - 4 * count).astype(np.float32).reshape(shape)


def unknown_fields(message: Message) -> list[str]:
    """One sentence for each field of a parsed binary message that caffe.proto does not have."""
    return list(_unknown(message, ""))


def _unknown(message: Message, place: str) -> Iterator[str]:
    where = place or message.DESCRIPTOR.name
    fields = UnknownFieldSet(message)
    for field in (fields[i] for i in range(len(fields))):
        kind = _WIRE_TYPES.get(field.wire_type, "?")
        yield f"{where} has field {field.field_number} ({kind}), which caffe.proto does not have"
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None:
            continue
        path = f"{place}.{descriptor.name}" if place else descriptor.name
        if isinstance(value, Message):
            yield from _unknown(value, path)
        else:
            for index, item in enumerate(value):
                yield from _unknown(item, f"{path}[{index}]")


def _only_data(blob: caffe_pb2.BlobProto) -> caffe_pb2.BlobProto:
    """A copy whose serialised bytes end with its values; copying the field alone is slow in protobuf 6."""
    copy = caffe_pb2.BlobProto()
    copy.MergeFrom(blob)
    copy.DiscardUnknownFields()
    for field, _ in copy.ListFields():
        if field.name != "data":
            copy.ClearField(field.name)
    return copy


def _read_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise PrototxtError(f"cannot read {path}: {error.strerror or error}") from error
    if not data:
        raise PrototxtError(f"{path} is empty; a caffemodel is needed")
    if len(data) > MAX_BYTES:
        raise PrototxtError(f"{path} is larger than the {MAX_BYTES} bytes that a caffemodel can hold")
    return data


def _blob_parts(array: FloatArray) -> tuple[bytes, memoryview, bytes]:
    """A serialised BlobProto: the bytes before its values, the values, the bytes after them.

    The packed field is written here as bytes, since adding five million values to a message one by one takes a second.

    Source: BlobProto in caffe.proto; protobuf's encoding guide.
    """
    assert array.dtype == np.float32, f"a blob holds float32, got {array.dtype}"
    little = np.ascontiguousarray(array, "<f4").reshape(-1).view(np.uint8).data
    dims = b"".join(_varint(n) for n in array.shape)
    shape = _bytes_field(caffe_pb2.BlobShape.DIM_FIELD_NUMBER, dims) if dims else b""
    head = _tag(caffe_pb2.BlobProto.DATA_FIELD_NUMBER) + _varint(len(little))
    return head, little, _bytes_field(caffe_pb2.BlobProto.SHAPE_FIELD_NUMBER, shape)


def _filled_parts(
    net: caffe_pb2.NetParameter, layers: Iterable[tuple[str, Sequence[FloatArray]]]
) -> Iterator[bytes | memoryview]:
    """A serialised NetParameter in parts; protobuf allows the fields of a message in any order."""
    head = caffe_pb2.NetParameter()
    head.CopyFrom(net)
    head.ClearField("layer")
    yield head.SerializeToString(deterministic=True)
    for layer, (name, blobs) in zip(net.layer, layers, strict=True):  # strict: `layers` goes on to its own last check
        assert layer.name == name, f"blobs of {name} for layer {layer.name}"
        assert not layer.blobs, f"layer {layer.name} has blobs already"
        inside: list[bytes | memoryview] = [layer.SerializeToString(deterministic=True)]
        for array in blobs:
            blob = _blob_parts(array)
            length = sum(len(part) for part in blob)
            inside += (_tag(caffe_pb2.LayerParameter.BLOBS_FIELD_NUMBER) + _varint(length), *blob)
        yield _tag(caffe_pb2.NetParameter.LAYER_FIELD_NUMBER) + _varint(sum(len(part) for part in inside))
        yield from inside


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _tag(number: int) -> bytes:
    return _varint(number << 3 | _BYTES_FIELD)


def _bytes_field(number: int, content: bytes) -> bytes:
    return _tag(number) + _varint(len(content)) + content
