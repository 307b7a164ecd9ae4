"""TensorFlow's ops on constants, in numpy with TensorFlow's dtypes and rounding.

Each function takes a node and its input values, and returns output 0 or a tuple of all outputs. Float arithmetic has
the dtype of its inputs. So +, -, *, / and sqrt of float32, which are IEEE operations, equal TensorFlow's results bit
for bit; Rsqrt, Exp, Log and Pow differ by about one unit in the last place.

Source: the op definitions of tensorflow/core/ops/{math,array}_ops.cc.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from ssdlite_caffe.dump.graph.tensors import DTYPES, Array
from ssdlite_caffe.dump.graph.view import Node

Output = Array | tuple[Array, ...]
Op = Callable[[Node, list[Array]], Output]

MAX_OUTPUT = 1 << 24
"""Most elements of one computed value; default boxes have a few thousand, kernels a few million."""


class NotConstantError(Exception):
    """A value that depends on the image, or on an op that is not implemented here."""


def bounded(count: int) -> None:
    """Refuse a result of more than MAX_OUTPUT elements before it is allocated."""
    if count > MAX_OUTPUT:
        raise NotConstantError(f"a constant may have at most {MAX_OUTPUT} elements, got {count}")


def _integers(value: Array) -> list[int]:
    return [int(v) for v in value.reshape(-1).tolist()]


def _binary(function: Callable[[Any, Any], Any]) -> Op:
    def apply(node: Node, args: list[Array]) -> Output:
        left, right = args
        if left.shape == right.shape or left.size == 1 or right.size == 1:  # np.broadcast_shapes takes longer than most
            bounded(max(left.size, right.size))
        else:
            bounded(math.prod(np.broadcast_shapes(left.shape, right.shape)))
        return np.asarray(function(left, right))

    return apply


def _unary(function: Callable[[Any], Any]) -> Op:
    def apply(node: Node, args: list[Array]) -> Output:
        (value,) = args
        return np.asarray(function(value))

    return apply


def _divide(left: Array, right: Array) -> Array:
    """`Div` of integers rounds towards zero, as in C; of floats it is an ordinary division."""
    if not np.issubdtype(left.dtype, np.integer):
        return np.asarray(np.divide(left, right))
    if not np.all(right):
        raise NotConstantError("a division of integers by zero")
    sign = np.sign(left) * np.sign(right)
    return np.asarray(sign * (np.abs(left) // np.abs(right)), left.dtype)


def _floor_divide(left: Array, right: Array) -> Array:
    if np.issubdtype(left.dtype, np.integer) and not np.all(right):
        raise NotConstantError("a division of integers by zero")
    return np.asarray(np.floor_divide(left, right))


def _floor_mod(left: Array, right: Array) -> Array:
    if np.issubdtype(left.dtype, np.integer) and not np.all(right):
        raise NotConstantError("a division of integers by zero")
    return np.asarray(np.mod(left, right))


def _rsqrt(value: Array) -> Array:
    return np.asarray(value.dtype.type(1) / np.sqrt(value))


def _range(node: Node, args: list[Array]) -> Output:
    start, limit, delta = (value.reshape(()) for value in args)
    if delta == 0:
        raise NotConstantError("a range with step 0")
    count = max(0, math.ceil((float(limit) - float(start)) / float(delta)))
    bounded(count)
    return np.asarray(start + np.arange(count).astype(start.dtype) * delta, start.dtype)


def _reshape(node: Node, args: list[Array]) -> Output:
    value, shape = args
    return value.reshape(_integers(shape))


def _tile(node: Node, args: list[Array]) -> Output:
    value, multiples = args
    repeats = _integers(multiples)
    if len(repeats) != value.ndim or min(repeats, default=0) < 0:
        raise NotConstantError("a Tile whose multiples do not fit")
    bounded(value.size * math.prod(repeats))
    return np.tile(value, repeats)


def _fill(node: Node, args: list[Array]) -> Output:
    shape, value = args
    sizes = _integers(shape)
    if min(sizes, default=0) < 0:
        raise NotConstantError("a Fill of negative size")
    bounded(math.prod(sizes))
    return np.full(sizes, value.reshape(()), value.dtype)


def _broadcast_to(node: Node, args: list[Array]) -> Output:
    value, shape = args
    sizes = _integers(shape)
    bounded(math.prod(sizes))
    return np.broadcast_to(value, sizes)


def _pack(node: Node, args: list[Array]) -> Output:
    bounded(sum(value.size for value in args))
    return np.stack(args, axis=node.attr_int("axis"))


def _unpack(node: Node, args: list[Array]) -> Output:
    (value,) = args
    axis = node.attr_int("axis")
    # np.ascontiguousarray would make an array of one element of a number.
    return tuple(np.array(part) for part in np.moveaxis(value, axis, 0))


def _concat(values: list[Array], axis: Array) -> Array:
    bounded(sum(value.size for value in values))
    return np.concatenate(values, axis=int(axis.reshape(())))


def _slice(node: Node, args: list[Array]) -> Output:
    value, begin, size = args
    parts = []
    for length, first, count in zip(value.shape, _integers(begin), _integers(size), strict=True):
        last = length if count == -1 else first + count
        if not 0 <= first <= last <= length:
            raise NotConstantError("a Slice outside its input")
        parts.append(slice(first, last))
    return value[tuple(parts)]


def _strided_slice(node: Node, args: list[Array]) -> Output:
    value, begin, end, strides = args
    masks = {name: node.attr_int(f"{name}_mask") for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}
    index: list[Any] = []
    for bit, (first, last, step) in enumerate(zip(_integers(begin), _integers(end), _integers(strides), strict=True)):
        flag = 1 << bit
        if masks["ellipsis"] & flag:
            index.append(Ellipsis)
        elif masks["new_axis"] & flag:
            index.append(None)
        elif masks["shrink_axis"] & flag:
            index.append(first)
        else:
            index.append(slice(None if masks["begin"] & flag else first, None if masks["end"] & flag else last, step))
    return np.asarray(value[tuple(index)])


def _expand_dims(node: Node, args: list[Array]) -> Output:
    value, axis = args
    return np.expand_dims(value, int(axis.reshape(())))


def _squeeze(node: Node, args: list[Array]) -> Output:
    (value,) = args
    axes = node.attr_ints("squeeze_dims") or node.attr_ints("axis")
    return np.squeeze(value, axis=axes or None)


def _transpose(node: Node, args: list[Array]) -> Output:
    value, permutation = args
    return value.transpose(_integers(permutation))


def _cast(node: Node, args: list[Array]) -> Output:
    (value,) = args
    target = node.attr_type("DstT")
    if target not in DTYPES:
        raise NotConstantError("a Cast to a dtype that is not numeric")
    # In a float64 evaluation float32 values are held as float64 (see Evaluator).
    if value.dtype == np.float64 and target == pb.DT_FLOAT and node.attr_type("SrcT") == pb.DT_FLOAT:
        return value
    return value.astype(DTYPES[target])


def _gather(node: Node, args: list[Array]) -> Output:
    value, indices = args[:2]
    axis = int(args[2].reshape(())) if len(args) > 2 else 0
    if node.attr_int("batch_dims"):
        raise NotConstantError("a GatherV2 with batch_dims")
    bounded(value.size // max(1, value.shape[axis]) * indices.size)
    if indices.size and (indices.min() < 0 or indices.max() >= value.shape[axis]):
        raise NotConstantError("a Gather outside its input")
    return np.asarray(value.take(indices, axis))


def _select(node: Node, args: list[Array]) -> Output:
    condition, chosen, other = args
    if node.op == "Select" and condition.ndim == 1 and chosen.ndim > 1:
        condition = condition.reshape([-1] + [1] * (chosen.ndim - 1))
    bounded(math.prod(np.broadcast_shapes(condition.shape, chosen.shape, other.shape)))
    return np.where(condition, chosen, other)


def _where(node: Node, args: list[Array]) -> Output:
    (condition,) = args
    if condition.ndim == 1:
        return condition.nonzero()[0].astype(np.int64)[:, None]
    return np.argwhere(condition).astype(np.int64)


def _split(node: Node, args: list[Array]) -> Output:
    axis, count = int(args[0].reshape(())), node.attr_int("num_split", 1)
    value = args[1]
    if count < 1 or value.shape[axis] % count:
        raise NotConstantError(f"a Split of {value.shape[axis]} into {count}")
    # np.split takes longer than all else here.
    step, before = value.shape[axis] // count, (slice(None),) * (axis % value.ndim)
    return tuple([value[(*before, slice(part * step, (part + 1) * step))] for part in range(count)])


def _split_v(node: Node, args: list[Array]) -> Output:
    value, sizes, axis = args
    return tuple(np.split(value, np.cumsum(_integers(sizes))[:-1], axis=int(axis.reshape(()))))


def _reduce(function: Callable[..., Any]) -> Op:
    def apply(node: Node, args: list[Array]) -> Output:
        value, axes = args
        keep = node.attr_bool("keep_dims")
        result = np.asarray(function(value, axis=tuple(_integers(axes)), keepdims=keep))
        return result if result.dtype == np.bool_ else result.astype(value.dtype)

    return apply


OPS: dict[str, Op] = {
    "Add": _binary(np.add),
    "AddV2": _binary(np.add),
    "BiasAdd": _binary(np.add),
    "Sub": _binary(np.subtract),
    "Mul": _binary(np.multiply),
    "RealDiv": _binary(np.divide),
    "Div": _binary(_divide),
    "FloorDiv": _binary(_floor_divide),
    "FloorMod": _binary(_floor_mod),
    "Minimum": _binary(np.minimum),
    "Maximum": _binary(np.maximum),
    "Pow": _binary(np.power),
    "Greater": _binary(np.greater),
    "GreaterEqual": _binary(np.greater_equal),
    "Less": _binary(np.less),
    "LessEqual": _binary(np.less_equal),
    "Equal": _binary(np.equal),
    "NotEqual": _binary(np.not_equal),
    "LogicalAnd": _binary(np.logical_and),
    "LogicalOr": _binary(np.logical_or),
    "LogicalNot": _unary(np.logical_not),
    "Sqrt": _unary(np.sqrt),
    "Rsqrt": _unary(_rsqrt),
    "Square": _unary(np.square),
    "Neg": _unary(np.negative),
    "Reciprocal": _unary(lambda value: value.dtype.type(1) / value),
    "Exp": _unary(np.exp),
    "Log": _unary(np.log),
    "Floor": _unary(np.floor),
    "Round": _unary(np.round),  # halves to even, as TensorFlow's
    "Ceil": _unary(np.ceil),
    "ZerosLike": _unary(np.zeros_like),
    "OnesLike": _unary(np.ones_like),
    "Range": _range,
    "Reshape": _reshape,
    "Tile": _tile,
    "Fill": _fill,
    "BroadcastTo": _broadcast_to,
    "Pack": _pack,
    "Unpack": _unpack,
    "ConcatV2": lambda node, args: _concat(args[:-1], args[-1]),
    "Concat": lambda node, args: _concat(args[1:], args[0]),
    "Slice": _slice,
    "StridedSlice": _strided_slice,
    "ExpandDims": _expand_dims,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Cast": _cast,
    "Gather": _gather,
    "GatherV2": _gather,
    "Select": _select,
    "SelectV2": _select,
    "Where": _where,
    "Split": _split,
    "SplitV": _split_v,
    "Sum": _reduce(np.sum),
    "Prod": _reduce(np.prod),
    "Mean": _reduce(np.mean),
    "Max": _reduce(np.max),
    "Min": _reduce(np.min),
    "All": _reduce(np.all),
    "Any": _reduce(np.any),
}
