"""What a graph does to an image of a given size before its first convolution, followed step by step.

A letterbox's sizes are computed from the image's, in TensorFlow 1's loops and conditions. They are computed here for
one image size after the other; no pixel is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from ssdlite_caffe.dump.detector.affine import ADDS, DIVISIONS
from ssdlite_caffe.dump.graph.constant_ops import OPS, NotConstantError
from ssdlite_caffe.dump.graph.constants import Evaluator
from ssdlite_caffe.dump.graph.image_ops import METHODS
from ssdlite_caffe.dump.graph.tensors import Array
from ssdlite_caffe.dump.graph.view import IDENTITIES, Graph, Node, Ref
from ssdlite_caffe.resizer import Method

PADS = frozenset({"Pad", "PadV2"})
_AFFINE = ADDS | DIVISIONS | {"Mul", "Sub"}
_PASSED = IDENTITIES | {"Cast", "Exit", "NextIteration", "Switch"}
"""Ops whose output is their input 0, as far as an image's size matters."""
_ARRAY_VALUE = {"Scatter": 2, "Write": 2, "Gather": 2, "Read": 2}
"""Kind of a TensorArray's op -> its input that leads to the images: the values, or the flow that comes from them."""
_LIST_VALUE = {
    "TensorListFromTensor": (0, None), "TensorListGetItem": (0, 3), "TensorListSetItem": (2, None),
    "TensorListStack": (0, 4),
}  # fmt: skip
"""Op of TensorFlow 2's lists -> its input that leads to the images, and the rank of its output if that is another."""
_T = TypeVar("_T")


class UnknownStepError(Exception):
    """A node that is not understood; the text names it and its op."""


@dataclass(frozen=True)
class Resize:
    """A resize to `size`, (height, width), by the node `node`."""

    node: str
    method: Method
    align_corners: bool
    half_pixel_centers: bool
    size: tuple[int, int]


@dataclass(frozen=True)
class Padding:
    """Constant pixels around an image: (before, after) along the height and the width, and their value per channel."""

    height: tuple[int, int]
    width: tuple[int, int]
    value: tuple[float, ...]


@dataclass(frozen=True)
class Normalise:
    """An op that scales or shifts pixels."""

    node: str


Step = Resize | Padding | Normalise


@dataclass(frozen=True)
class Image:
    """An image, or one of its channels.

    Attributes:
        size: (height, width).
        rank: of the tensor: 4 with a batch of 1, 3 without, 2 for a channel.
        channel: index of the channel; None for all three.
        steps: what was done to it, in order.
    """

    size: tuple[int, int]
    rank: int
    channel: int | None = None
    steps: tuple[Step, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor."""
        return {4: (1, *self.size, 3), 3: (*self.size, 3)}.get(self.rank, self.size)

    def after(self, step: Step, size: tuple[int, int] | None = None) -> Image:
        """The image after one more step."""
        return replace(self, steps=(*self.steps, step), size=size or self.size)


class ImageSteps:
    """Follows an image of one size through a graph.

    Args:
        graph: the graph.
        constants: its evaluator.
        size: (height, width) of the image.
    """

    def __init__(self, graph: Graph, constants: Evaluator, size: tuple[int, int]) -> None:
        self._graph, self._constants, self._size = graph, constants, size
        self._images: dict[Ref, Image] = {}
        self._values: dict[Ref, Array] = {}

    def image(self, ref: Ref) -> Image:
        """The image at a tensor.

        Raises:
            UnknownStepError: an op before it is not understood, or the graph is too deep.
        """
        try:
            return self._image(ref)
        except RecursionError as error:
            raise UnknownStepError(f"{ref} is computed in too many steps") from error

    def _image(self, ref: Ref) -> Image:
        return _once(self._images, ref, self._image_at)

    def _image_at(self, ref: Ref) -> Image:
        node = self._graph[ref]
        if node.op.startswith(("Placeholder", "Decode")):
            return Image(self._size, 3 if node.op.startswith("Decode") else 4)
        if node.op == "Merge":
            return self._image(self._merged(node))
        if node.op in METHODS:
            return self._resized(node)
        if node.op in PADS:
            return self._padded(node)
        if node.op == "Pack":
            return self._joined(node)
        if node.op in _AFFINE and len(node.inputs) == 2:
            other = [r for r in node.inputs if self._constants.get(r) is None]
            if len(other) == 1:
                return self._image(other[0]).after(Normalise(node.name))
        if node.op in _LIST_VALUE:
            place, rank = _LIST_VALUE[node.op]
            image = self._image(node.inputs[place])
            return replace(image, rank=rank or image.rank)
        if node.op.startswith("TensorArray"):
            at = next((at for kind, at in _ARRAY_VALUE.items() if node.op.startswith(f"TensorArray{kind}")), None)
            if at is not None and at < len(node.inputs):
                image = self._image(node.inputs[at])
                # A loop goes over the images of a batch.
                return replace(image, rank={"Read": 3, "Gather": 4}.get(node.op[11:].rstrip("V23"), image.rank))
        if not node.inputs or node.op not in _PASSED | {"ExpandDims", "Squeeze", "Unpack"}:
            raise _unknown(node)
        image = self._image(node.inputs[0])
        if node.op == "ExpandDims":
            return replace(image, rank=image.rank + 1)
        if node.op == "Squeeze":
            return replace(image, rank=image.rank - 1)
        if node.op == "Unpack":
            return self._channel(node, image, ref.port)
        return image

    def _resized(self, node: Node) -> Image:
        image, size = self._image(node.inputs[0]), self._value(node.inputs[1])
        if size.shape != (2,) or size.dtype.kind != "i" or image.rank != 4:
            raise _unknown(node)
        height, width = int(size[0]), int(size[1])
        corners = node.attr_bool("align_corners"), node.attr_bool("half_pixel_centers")
        return image.after(Resize(node.name, METHODS[node.op], *corners, (height, width)), (height, width))

    def _padded(self, node: Node) -> Image:
        image, pads = self._image(node.inputs[0]), self._value(node.inputs[1])
        value = self._value(node.inputs[2]) if node.op == "PadV2" else np.zeros(())
        first = 1 if image.rank == 4 else 0
        if pads.shape != (image.rank, 2) or value.size != 1 or np.delete(pads, [first, first + 1], 0).any():
            raise _unknown(node)
        (top, bottom), (left, right) = ((int(a), int(b)) for a, b in pads[first : first + 2])
        size = image.size[0] + top + bottom, image.size[1] + left + right
        return image.after(Padding((top, bottom), (left, right), (float(value.reshape(())),)), size)

    def _channel(self, node: Node, image: Image, port: int) -> Image:
        if image.rank != 3 or image.channel is not None or node.attr_int("axis") not in (2, -1):
            raise _unknown(node)
        return replace(image, rank=2, channel=port)

    def _joined(self, node: Node) -> Image:
        """Three channels of an image, in their order, as one; they may have been padded with different values."""
        parts = [self._image(ref) for ref in node.inputs]
        if [part.channel for part in parts] != [0, 1, 2] or node.attr_int("axis") not in (2, -1):
            raise _unknown(node)
        if any(part.size != parts[0].size or len(part.steps) != len(parts[0].steps) for part in parts):
            raise _unknown(node)
        steps: list[Step] = []
        for step, *others in zip(*(part.steps for part in parts), strict=True):
            pads = [one for one in (step, *others) if isinstance(one, Padding)]
            if any(pad.height != pads[0].height or pad.width != pads[0].width for pad in pads):
                raise _unknown(node)
            if len(pads) == len(parts):
                steps.append(replace(pads[0], value=tuple(value for pad in pads for value in pad.value)))
            elif all(other == step for other in others):
                steps.append(step)
            else:
                raise _unknown(node)
        return Image(parts[0].size, 3, None, tuple(steps))

    def _value(self, ref: Ref) -> Array:
        """A value that depends on the image's size alone."""
        return _once(self._values, ref, self._value_at)

    def _value_at(self, ref: Ref) -> Array:
        constant = self._constants.get(ref)
        if constant is not None:
            return constant
        node = self._graph[ref]
        if node.op == "Merge":
            return self._value(self._merged(node))
        if node.op == "Shape":
            return np.asarray(self._image(node.inputs[0]).shape, np.int32)
        if node.op in _PASSED and node.op != "Cast" and node.inputs:
            return self._value(node.inputs[0])
        if node.op not in OPS:
            raise _unknown(node)
        args = [self._value(r) for r in node.inputs]
        try:
            outputs = OPS[node.op](node, args)
            return outputs[ref.port] if isinstance(outputs, tuple) else outputs
        except (NotConstantError, ValueError, IndexError, TypeError, OverflowError, ZeroDivisionError) as error:
            raise _unknown(node) from error

    def _merged(self, node: Node) -> Ref:
        """The input of a Merge that is taken: of a loop, what its body gives; of a condition, the branch that is true.

        Raises:
            UnknownStepError: it is neither.
        """
        again = [ref for ref in node.inputs if self._graph[ref].op == "NextIteration"]
        if again:
            return again[0]
        for ref in node.inputs:
            switch = self._switch(ref)
            if switch is not None:
                truth = self._value(self._graph[switch].inputs[1])
                if truth.size == 1 and bool(truth.reshape(())) == bool(switch.port):
                    return ref
        raise _unknown(node)

    def _switch(self, ref: Ref) -> Ref | None:
        """The output of a condition's Switch that a branch begins at: port 1 where the condition is true."""
        seen: set[str] = set()
        pending = [ref]
        while pending:
            current = pending.pop(0)
            node = self._graph[current]
            if node.op == "Switch" and len(node.inputs) == 2:
                return current
            if current.name not in seen and node.op != "Merge":
                seen.add(current.name)
                pending.extend(node.inputs)
        return None


def _once(known: dict[Ref, _T], ref: Ref, compute: Callable[[Ref], _T]) -> _T:
    if ref not in known:
        known[ref] = compute(ref)
    return known[ref]


def _unknown(node: Node) -> UnknownStepError:
    return UnknownStepError(f"{node.name} ({node.op})")
