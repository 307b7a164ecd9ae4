"""Ops put between a graph's image and its first convolution, one at a time, beside the changes of `graph_changes`."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from ssdlite_caffe.dump.graph.view import Graph, Ref
from tests.graph_changes import changes

_NUMBERS = {np.dtype(np.float32): pb.DT_FLOAT, np.dtype(np.int32): pb.DT_INT32, np.dtype(np.uint8): pb.DT_UINT8}
Place = tuple[str, int, int]
"""A tensor that holds the image: node, DataType number, rank."""


def preprocessing(graph: Graph, start: Ref) -> list[str]:
    """The nodes that the network input `start` depends on, without the image's placeholder."""
    return sorted(node.name for node in graph.upstream([start]) if node.op != "Placeholder")


class Added:
    """Adds nodes behind the tensor `text` to a graph."""

    def __init__(self, graph: pb.GraphDef, text: str, dtype: int, rank: int) -> None:
        self.graph, self.text, self.dtype, self.rank = graph, text, dtype, rank
        self.count = 0
        frame = next((n for n in graph.node if n.name == text.split(":")[0]), None)
        self.inside = [] if frame is None or "/while/" not in text else [f"^{text.split(':')[0]}"]

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        array = np.asarray(value, dtype)
        # A constant in a loop has a control input that takes it into the loop.
        node = self._node("Const", self.inside)
        node.attr["dtype"].type = _NUMBERS[array.dtype]
        tensor = node.attr["value"].tensor
        tensor.dtype = _NUMBERS[array.dtype]
        for size in array.shape:
            tensor.tensor_shape.dim.add(size=size)
        tensor.tensor_content = array.tobytes()
        return node.name

    def op(self, op: str, *inputs: str, **attrs: Any) -> str:
        node = self._node(op, list(inputs))
        for name, value in attrs.items():
            attr = node.attr[name]
            if isinstance(value, bool):
                attr.b = value
            elif isinstance(value, list):
                attr.list.i.extend(value)
            elif isinstance(value, bytes):
                attr.s = value
            elif name in ("N", "num", "axis") or name.endswith("_mask"):
                attr.i = value
            else:
                attr.type = value
        return node.name

    def _node(self, op: str, inputs: list[str]) -> pb.NodeDef:
        self.count += 1
        prefix = self.text.split(":")[0].rsplit("/", 1)[0]
        return self.graph.node.add(name=f"{prefix}/added_{self.count}", op=op, input=inputs)

    def same(self, op: str, *inputs: str, dtype: int | None = None) -> str:
        """An op of one type."""
        return self.op(op, *inputs, T=self.dtype if dtype is None else dtype)

    def number(self, value: Any) -> str:
        return self.constant(value, {pb.DT_FLOAT: np.float32, pb.DT_UINT8: np.uint8, pb.DT_INT32: np.int32}[self.dtype])

    def cast(self, text: str, first: int, last: int) -> str:
        return self.op("Cast", text, SrcT=first, DstT=last)

    def shape(self) -> str:
        return self.op("Shape", self.text, T=self.dtype, out_type=pb.DT_INT32)


Insertion = Callable[[Added, random.Random], str]


def _reverse(a: Added, chance: random.Random) -> str:
    axis = chance.choice([-1, -2, -3])
    return a.op("ReverseV2", a.text, a.constant([a.rank + axis], np.int32), T=a.dtype, Tidx=pb.DT_INT32)


def _transpose(a: Added, chance: random.Random) -> str:
    order = list(range(a.rank))
    order[-3], order[-2] = order[-2], order[-3]
    return a.op("Transpose", a.text, a.constant(order, np.int32), T=a.dtype, Tperm=pb.DT_INT32)


def _roll(a: Added, chance: random.Random) -> str:
    shift, axis = a.constant(chance.choice([1, 2]), np.int32), a.constant(a.rank - chance.choice([1, 2]), np.int32)
    return a.op("Roll", a.text, shift, axis, T=a.dtype, Tshift=pb.DT_INT32, Taxis=pb.DT_INT32)


def _crop(a: Added, chance: random.Random) -> str:
    begin, size = [0] * a.rank, [-1] * a.rank
    begin[a.rank - 3] = chance.choice([0, 3])
    begin[a.rank - 2] = chance.choice([0, 5])
    return a.op("Slice", a.text, a.constant(begin, np.int32), a.constant(size, np.int32), T=a.dtype, Index=pb.DT_INT32)


def _mirror(a: Added, chance: random.Random) -> str:
    """Every other pixel backwards, or all: strides of a StridedSlice."""
    ones, zeros = [1] * a.rank, [0] * a.rank
    strides = list(ones)
    strides[a.rank - chance.choice([1, 2, 3])] = chance.choice([-1, 1])
    mask = (1 << a.rank) - 1
    return a.op("StridedSlice", a.text, *(a.constant(v, np.int32) for v in (zeros, zeros, strides)), T=a.dtype,
                Index=pb.DT_INT32, begin_mask=mask, end_mask=mask)  # fmt: skip


def _pad(a: Added, chance: random.Random) -> str:
    pads = np.zeros((a.rank, 2), np.int32)
    pads[a.rank - 3 :][:2] = np.random.default_rng(chance.randrange(99)).integers(0, 3, (2, 2))
    kind = chance.choice(["Pad", "MirrorPad"])
    more: dict[str, Any] = {"mode": b"REFLECT"} if kind == "MirrorPad" else {}
    return a.op(kind, a.text, a.constant(pads, np.int32), T=a.dtype, Tpaddings=pb.DT_INT32, **more)


def _arithmetic(a: Added, chance: random.Random) -> str:
    op = chance.choice(["Mul", "AddV2", "Sub", "RealDiv", "Maximum", "Minimum"])
    operands = [a.text, a.number(chance.choice([2, 3, 200]))]
    if chance.random() < 0.3:
        operands.reverse()
    return a.same(op, *operands)


def _channels(a: Added, chance: random.Random) -> str:
    values = chance.choice([[2, 1, 1], [1, 1, 1], [103, 116, 123]])
    shape = chance.choice([(3,), (1, 1, 3)])
    return a.same(chance.choice(["Mul", "AddV2", "Sub"]), a.text, a.number(np.reshape(values, shape)))


def _itself(a: Added, chance: random.Random) -> str:
    half = a.same("Mul", a.text, a.number(chance.choice([1, 2, 0.25]))) if chance.random() < 0.7 else a.text
    operands = [a.text, half]
    chance.shuffle(operands)
    return a.same(chance.choice(["Sub", "AddV2", "Mul", "Maximum"]), *operands)


def _through(a: Added, chance: random.Random) -> str:
    """Through another dtype and back."""
    other = chance.choice([pb.DT_HALF, pb.DT_INT32, pb.DT_UINT8, pb.DT_DOUBLE, pb.DT_BFLOAT16, pb.DT_INT64])
    return a.cast(a.cast(a.text, a.dtype, other), other, a.dtype)


def _whole(a: Added, chance: random.Random) -> str:
    """Whole-number arithmetic."""
    inner = a.cast(a.text, a.dtype, pb.DT_INT32)
    op = chance.choice(["FloorDiv", "Minimum", "Maximum", "Mul", "AddV2", "Sub"])
    return a.cast(a.same(op, inner, a.constant(chance.choice([1, 2, 100]), np.int32), dtype=pb.DT_INT32), pb.DT_INT32,
                  a.dtype)  # fmt: skip


def _unary(a: Added, chance: random.Random) -> str:
    op = chance.choice(
        [
            "Round",
            "Floor",
            "Square",
            "Sqrt",
            "Neg",
            "Abs",
            "Relu",
            "Relu6",
            "Tanh",
            "Sigmoid",
            "Identity",
            "StopGradient",
            "Rint",
        ]
    )
    return a.same(op, a.text)


def _reshape(a: Added, chance: random.Random) -> str:
    """To one axis and back, or with height and width exchanged but not the values."""
    shape = a.shape()
    order = list(range(a.rank))
    if chance.random() < 0.6:
        order[-3], order[-2] = order[-2], order[-3]
    changed = a.op("GatherV2", shape, a.constant(order, np.int32), a.constant(0, np.int32), Tparams=pb.DT_INT32,
                   Tindices=pb.DT_INT32, Taxis=pb.DT_INT32)  # fmt: skip
    flat = a.op("Reshape", a.text, a.constant([-1], np.int32), T=a.dtype, Tshape=pb.DT_INT32)
    return a.op("Reshape", flat, changed, T=a.dtype, Tshape=pb.DT_INT32)


def _gather(a: Added, chance: random.Random) -> str:
    order = chance.choice([[2, 1, 0], [0, 1, 2], [0, 0, 0]])
    return a.op("GatherV2", a.text, a.constant(order, np.int32), a.constant(a.rank - 1, np.int32), Tparams=a.dtype,
                Tindices=pb.DT_INT32, Taxis=pb.DT_INT32)  # fmt: skip


def _packed(a: Added, chance: random.Random) -> str:
    parts = a.op("Unpack", a.text, T=a.dtype, num=3, axis=a.rank - 1)
    order = chance.choice([[2, 1, 0], [0, 1, 2], [1, 1, 1]])
    return a.op("Pack", *(f"{parts}:{port}" for port in order), T=a.dtype, N=3, axis=a.rank - 1)


def _resize(a: Added, chance: random.Random) -> str:
    if a.rank != 4 or a.dtype == pb.DT_INT32:
        return a.text
    op = chance.choice(["ResizeBilinear", "ResizeNearestNeighbor", "ResizeArea"])
    found = a.op(op, a.text, a.constant(chance.choice([(100, 100), (300, 300), (320, 320)]), np.int32), T=a.dtype,
                 align_corners=chance.random() < 0.5)  # fmt: skip
    return a.cast(found, pb.DT_FLOAT, a.dtype) if op != "ResizeNearestNeighbor" and a.dtype != pb.DT_FLOAT else found


def _pool(a: Added, chance: random.Random) -> str:
    return a.op(chance.choice(["AvgPool", "MaxPool"]), a.text, T=a.dtype, ksize=[1, 3, 3, 1], strides=[1, 1, 1, 1],
                padding=b"SAME", data_format=b"NHWC")  # fmt: skip


def _mean(a: Added, chance: random.Random) -> str:
    axes = a.constant(list(range(a.rank)), np.int32)
    mean = a.op(chance.choice(["Mean", "Max"]), a.text, axes, T=a.dtype, Tidx=pb.DT_INT32, keep_dims=True)
    return a.same(chance.choice(["Sub", "RealDiv"]), a.text, mean)


def _clip(a: Added, chance: random.Random) -> str:
    return a.same("ClipByValue", a.text, a.number(0), a.number(chance.choice([1, 100, 255])))


def _conditional(a: Added, chance: random.Random) -> str:
    """Another branch for images of some sizes."""
    shape = a.shape()
    first = [a.constant([a.rank - side], np.int32) for side in (3, 2)]
    one = a.constant([1], np.int32)
    height, width = (a.op("Slice", shape, begin, one, T=pb.DT_INT32, Index=pb.DT_INT32) for begin in first)
    other = width if chance.random() < 0.5 else a.constant([chance.choice([64, 300, 400])], np.int32)
    truth = a.op("Squeeze", a.op("Greater", height, other, T=pb.DT_INT32), T=pb.DT_BOOL)
    switch = a.op("Switch", a.text, truth, T=a.dtype)
    a.inside = [f"^{switch}"] if a.inside else a.inside
    text, a.text = a.text, f"{switch}:1"
    branch = chance.choice([_unary, _reverse, _itself])(a, chance)
    a.text = text
    return a.op("Merge", switch, branch, T=a.dtype, N=2)


INSERTIONS: Sequence[Insertion] = (
    _reverse, _transpose, _roll, _crop, _mirror, _pad, _arithmetic, _channels, _itself, _through, _whole, _unary,
    _reshape, _gather, _packed, _resize, _pool, _mean, _clip, _conditional,
)  # fmt: skip


def inserted(definition: pb.GraphDef, places: Sequence[Place], seed: int) -> Iterator[tuple[str, pb.GraphDef]]:
    """Copies of a graph with ops behind one of `places`, each with a sentence about it, without end."""
    chance = random.Random(seed)
    while True:
        name, dtype, rank = chance.choice(places)
        text = name
        insertion = chance.choice(INSERTIONS)
        changed = pb.GraphDef()
        changed.CopyFrom(definition)
        readers = [node for node in changed.node if text in node.input or f"{text}:0" in node.input]
        added = Added(changed, text, dtype, rank)
        found = insertion(added, chance)
        for node in readers:
            if node.op in ("Shape",):
                continue
            for place, old in enumerate(node.input):
                if old in (text, f"{text}:0"):
                    node.input[place] = found
        yield f"{insertion.__name__[1:]} behind {name}: {_shown(changed, added)}", changed


def _shown(graph: pb.GraphDef, added: Added) -> str:
    return ", ".join(node.op for node in graph.node[len(graph.node) - added.count :])


def any_changes(
    definition: pb.GraphDef, names: list[str], places: Sequence[Place], seed: int
) -> Iterator[tuple[str, pb.GraphDef]]:
    """Insertions and the changes of `graph_changes`, in turn."""
    for one, other in zip(inserted(definition, places, seed), changes(definition, names, seed), strict=False):
        yield one
        yield other
