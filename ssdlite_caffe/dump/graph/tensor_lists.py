"""TensorFlow 2's lists of tensors, in which its loops keep their results, in numpy.

A list is an array of objects with one axis; an element that was not set is None.

Source: tensorflow/core/ops/list_ops.cc.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ssdlite_caffe.dump.graph.constant_ops import NotConstantError, Op, Output, bounded
from ssdlite_caffe.dump.graph.tensors import Array
from ssdlite_caffe.dump.graph.view import Node


def _list(values: list[Any]) -> Array:
    found = np.empty(len(values), object)
    for index, value in enumerate(values):
        found[index] = value
    return found


def _number(value: Array) -> int:
    return int(value.reshape(()))


def _element(values: Array, index: int) -> Any:
    if not 0 <= index < len(values) or values[index] is None:
        raise NotConstantError(f"element {index} of a list of {len(values)}, which was not set")
    return values[index]


def _reserve(node: Node, args: list[Array]) -> Output:
    bounded(_number(args[1]))
    return _list([None] * max(0, _number(args[1])))


def _set(node: Node, args: list[Array]) -> Output:
    values, index = args[0].copy(), _number(args[1])
    if not 0 <= index < len(values):
        raise NotConstantError(f"element {index} of a list of {len(values)}")
    values[index] = args[2]
    return values


def _stack(node: Node, args: list[Array]) -> Output:
    if not len(args[0]):
        raise NotConstantError("an empty list")
    return np.stack([_element(args[0], index) for index in range(len(args[0]))])


LIST_OPS: dict[str, Op] = {
    "TensorListReserve": _reserve,
    "EmptyTensorList": lambda node, args: _list([]),
    "TensorListFromTensor": lambda node, args: _list(list(np.asarray(args[0]))),
    "TensorListSetItem": _set,
    "TensorListGetItem": lambda node, args: np.asarray(_element(args[0], _number(args[1]))),
    "TensorListPushBack": lambda node, args: _list([*args[0], args[1]]),
    "TensorListLength": lambda node, args: np.asarray(len(args[0]), np.int32),
    "TensorListStack": _stack,
}
