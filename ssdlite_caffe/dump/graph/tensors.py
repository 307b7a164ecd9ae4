"""Converting a TensorProto to a numpy array without TensorFlow."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from ssdlite_caffe.errors import ModelError

Array = npt.NDArray[Any]

DTYPES: dict[int, str] = {
    pb.DT_FLOAT: "<f4",
    pb.DT_DOUBLE: "<f8",
    pb.DT_HALF: "<f2",
    pb.DT_INT8: "<i1",
    pb.DT_INT16: "<i2",
    pb.DT_INT32: "<i4",
    pb.DT_INT64: "<i8",
    pb.DT_UINT8: "<u1",
    pb.DT_UINT16: "<u2",
    pb.DT_UINT32: "<u4",
    pb.DT_UINT64: "<u8",
    pb.DT_BOOL: "?",
}
_LISTS: dict[int, str] = {
    pb.DT_FLOAT: "float_val",
    pb.DT_DOUBLE: "double_val",
    pb.DT_HALF: "half_val",
    pb.DT_BFLOAT16: "half_val",
    pb.DT_INT8: "int_val",
    pb.DT_INT16: "int_val",
    pb.DT_INT32: "int_val",
    pb.DT_UINT8: "int_val",
    pb.DT_UINT16: "int_val",
    pb.DT_INT64: "int64_val",
    pb.DT_BOOL: "bool_val",
    pb.DT_UINT32: "uint32_val",
    pb.DT_UINT64: "uint64_val",
}

MAX_ELEMENTS = 1 << 28
"""Most elements of a tensor: far more than a detector has, so a larger shape is damaged or malicious."""


def dtype_name(dtype: int) -> str:
    """TensorFlow's name of a DataType number, for messages."""
    return pb.DataType.Name(dtype) if dtype in pb.DataType.values() else f"type {dtype}"


def static_shape(proto: pb.TensorShapeProto) -> tuple[int, ...] | None:
    """The sizes, -1 for an unknown one; None if the rank is unknown."""
    return None if proto.unknown_rank else tuple(dim.size for dim in proto.dim)


def to_array(proto: pb.TensorProto, name: str, content: bytes | None = None) -> Array:
    """The values of a constant; the array is read-only if it was not copied.

    bfloat16 becomes float32, which has the same value for every bfloat16.

    Args:
        proto: the constant.
        name: its node, for messages.
        content: its `tensor_content`, for a caller that has it: each time that protobuf gives it, it copies it.

    Raises:
        ModelError: the dtype is not numeric, the shape is unknown or too large, or the data do not match the shape.

    Source: tensorflow/core/framework/tensor.proto; `MakeNdarray` in tensorflow/python/framework/tensor_util.py.
    """
    shape = static_shape(proto.tensor_shape)
    dtype = proto.dtype
    if dtype not in _LISTS:
        raise ModelError(f"the constant {name} must have a numeric dtype, got {dtype_name(dtype)}")
    if shape is None or any(size < 0 for size in shape):
        raise ModelError(f"the constant {name} has an unknown shape; the file is damaged")
    count = math.prod(shape)
    if count > MAX_ELEMENTS:
        raise ModelError(
            f"the constant {name} may have at most {MAX_ELEMENTS} elements, got {count}; the file is damaged"
        )
    stored = np.dtype("<u2" if dtype == pb.DT_BFLOAT16 else DTYPES[dtype])
    content = proto.tensor_content if content is None else content
    if content:
        values = _from_bytes(content, stored, count, name)
    else:
        values = _from_list(getattr(proto, _LISTS[dtype]), stored, count, name, bits=_LISTS[dtype] == "half_val")
    if dtype == pb.DT_BFLOAT16:
        values = (values.astype("<u4") << 16).view("<f4")
    return values.reshape(shape)


def repeated(proto: pb.TensorProto) -> int:
    """How many elements of a constant without `tensor_content` repeat its last one, or are zeros without any."""
    sizes = static_shape(proto.tensor_shape)
    if sizes is None or any(size < 0 for size in sizes):
        return 0
    return max(math.prod(sizes) - len(getattr(proto, _LISTS.get(proto.dtype, "float_val"))), 0)


def _from_bytes(content: bytes, stored: np.dtype[Any], count: int, name: str) -> Array:
    if len(content) != count * stored.itemsize:
        raise ModelError(
            f"the constant {name} holds {len(content)} bytes, its shape needs {count * stored.itemsize}; "
            "the file is damaged"
        )
    return np.frombuffer(content, stored)


def _from_list(listed: Any, stored: np.dtype[Any], count: int, name: str, *, bits: bool) -> Array:
    """Values from a *_val list; the last value of a shorter list is repeated, an empty list means zeros."""
    given = len(listed)
    if given > count:
        raise ModelError(f"the constant {name} lists {given} values, its shape needs {count}; the file is damaged")
    if given == 0:
        return np.zeros(count, stored)
    read = np.array(listed)
    values = read.astype(np.uint16 if bits else stored)
    if stored.kind in "iu" and (values != read).any():
        raise ModelError(
            f"the constant {name} lists a value outside the range of its dtype {stored}; the file is damaged"
        )
    values = values.view(stored)
    if given < count:
        full = np.empty(count, stored)
        full[:given] = values
        full[given:] = values[-1]
        return full
    return values
