"""Whether what a graph does to an image before its first convolution is what its settings say.

Settings are read from single ops: one resize, padding, scales and offsets. Other ops may change the image too, or apply
to some images alone. So the graph's preprocessing is run on made-up images of several sizes, and must give the network
inputs that a converted net is fed with.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump.detector.affine import Constants
from ssdlite_caffe.dump.detector.graph_resizer import SIZES
from ssdlite_caffe.dump.detector.image_steps import ImageSteps, Normalise, UnknownStepError, batch_axis
from ssdlite_caffe.dump.detector.preprocessing import WHOLE_TYPES, changes_image, first_convolution, image_path, is_read
from ssdlite_caffe.dump.graph.constant_ops import MAX_OUTPUT, NotConstantError
from ssdlite_caffe.dump.graph.execution import Execution
from ssdlite_caffe.dump.graph.image_ops import IMAGE_OPS
from ssdlite_caffe.dump.graph.tensors import DTYPES, Array
from ssdlite_caffe.dump.graph.view import IDENTITIES, Node, Ref
from ssdlite_caffe.dump.model import Settings
from ssdlite_caffe.errors import ImageError, ModelError
from ssdlite_caffe.image_input import network_input

_UNKNOWN_SIZE = (96, 64)
"""Of an image for a graph that takes any size and does not resize."""
_SMALL, _WIDE = (61, 43), (40, 127)
"""(height, width) of two made-up images, which are larger than the input on no side or on one side of few detectors."""
_LARGE = 1 << 20
"""Pixels of an input for which no larger image is made up."""
_MOST_PIXELS = 1 << 22
"""Of a network input that images are made for."""
_BOUND = 1e-4
"""Largest difference, as a share of half the range of network inputs. Rounding gives up to 3e-5, see Resizer."""
_NAMED = 8
_QUIET = IDENTITIES | {"Const", "Exit", "NextIteration", "Switch", "Merge", "LoopCond", "ExpandDims", "Squeeze"}
"""Ops that are not worth a name in an error."""


class ImageExecution(Execution):
    """Computes what a graph makes of an image.

    Raises, while it does:
        ModelError: an op that is not read is applied to the image. Such ops are allowed on sizes alone, and only the
            values show which they are.
    """

    ops = IMAGE_OPS

    def _outputs(self, node: Node) -> tuple[Array, ...]:
        found = super()._outputs(node)
        if is_read(node) or (node.op == "StridedSlice" and batch_axis(self, node) is not None):
            return found
        if node.op != "Const" and any(value.ndim > 2 for value in found):
            raise changes_image(self.graph, node)
        return found


def check_preprocessing(constants: Constants, settings: Settings) -> tuple[str, ...]:
    """Run a graph's preprocessing on made-up images, and compare with what its settings say.

    Args:
        constants: of the graph.
        settings: what was read of it.

    Returns:
        Notes: why it was not checked. Empty if it was, or if the graph has no preprocessing.

    Raises:
        ModelError: the network inputs differ.
    """
    graph, stem = constants.graph, first_convolution(constants.graph)
    if stem is None:
        return ()
    start = _before_padding(constants, stem)
    if graph[start].op.startswith("Placeholder"):
        return ()
    scale, offset = _affine(settings)
    if not (scale and math.isfinite(scale) and math.isfinite(offset)):
        return ()  # refused where the net is recognised
    before = list(graph.upstream([start]))
    holders = _holders(before)
    if isinstance(holders, str):
        return _unchecked(holders)
    wanted = {node.name for node in before}
    height, width = settings.input_size or (1, 1)
    if height * width > _MOST_PIXELS:
        return _unchecked(f"its input of {height}x{width} pixels is too large to try")
    execution = None
    for size in _sizes(holders, settings):
        image = np.random.default_rng(size).integers(0, 256, (*size, 3)).astype(np.uint8)
        try:
            expected = _expected(image, settings, scale, offset)
        except ImageError:
            continue  # too narrow for its letterbox
        execution = ImageExecution(graph, _given(holders, image), wanted, like=execution)
        try:
            found = execution.value(start)
        except NotConstantError as error:
            return _unchecked(str(error))
        problem = _difference(found, expected, 127.5 * abs(scale))
        if problem is not None:
            raise ModelError(
                f"{graph.source} does not prepare images as it was read, and a net made from it would be fed with "
                f"something else: of a made-up image of {size[1]}x{size[0]} (width x height) it makes {problem}; the "
                f"cause is between {holders[0].name} and {start}{_named(constants, start)}"
            )
    return _by_size(constants, start, before)


def _by_size(constants: Constants, start: Ref, before: list[Node]) -> tuple[str, ...]:
    """Follow images of many sizes, without their pixels, through a graph with conditions.

    Returns:
        A note if that is not possible.

    Raises:
        ModelError: images of some sizes are scaled and shifted otherwise.
    """
    graph = constants.graph
    conditions = [
        node for node in before if node.op == "Merge" and all(graph[r].op != "NextIteration" for r in node.inputs)
    ]
    if not conditions:
        return ()
    found: dict[tuple[str, ...], tuple[int, int]] = {}
    for size in SIZES:
        try:
            image = ImageSteps(graph, constants.plain, size).image(start)
        except UnknownStepError as error:
            return _unchecked(f"{error} is not understood, for images of all sizes")
        found.setdefault(tuple(step.node for step in image.steps if isinstance(step, Normalise)), size)
    if len(found) > 1:
        (one, first), (other, second) = list(found.items())[:2]
        differing = ", ".join(sorted(set(one) ^ set(other)))
        raise ModelError(
            f"{graph.source} scales or shifts images of {first[1]}x{first[0]} (width x height) in another way than "
            f"those of {second[1]}x{second[0]}: {differing}; one way for all is supported"
        )
    return ()


def _before_padding(constants: Constants, stem: Node) -> Ref:
    """What a convolution reads, before the zeros that a Pad adds for it."""
    ref = constants.graph.origin(stem.inputs[0])
    node = constants.graph[ref]
    # The amounts, and that the value is 0, are checked with the convolution.
    if node.op in ("Pad", "PadV2") and constants.plain.get(node.inputs[1]) is not None:
        ref = constants.graph.origin(node.inputs[0])
    return ref


def _affine(settings: Settings) -> tuple[float, float]:
    scale, offset = settings.pixel_scale, settings.pixel_offset
    return (1.0, 0.0) if scale is None or offset is None else (scale, offset)


def _holders(before: list[Node]) -> list[Node] | str:
    """The nodes that give the image, the same one; a phrase if it is not clear which do."""
    decoded = [node for node in before if node.op.startswith("Decode")]
    placeholders = [node for node in before if node.op == "Placeholder"]
    if decoded:
        return decoded
    if len(placeholders) != 1:
        names = ", ".join(node.name for node in placeholders[:_NAMED])
        return f"it reads {len(placeholders)} placeholders ({names})" if names else "no placeholder gives its image"
    if placeholders[0].attr_type("dtype") not in DTYPES:
        return f"{placeholders[0].name} (Placeholder) holds no numbers"
    return placeholders


def _sizes(holders: list[Node], settings: Settings) -> Iterator[tuple[int, int]]:
    """(height, width) of images: the input's size, smaller, wide and larger ones, as far as the graph takes them."""
    height, width = settings.input_size or _UNKNOWN_SIZE
    shape = holders[0].attr_shape("shape") if holders[0].op == "Placeholder" else None
    wanted = [(height, width)]
    if settings.input_size is not None:
        larger = (height + height // 4 + 3, width + width // 9 + 1)
        wanted += [_SMALL, _WIDE, *([larger] if math.prod(larger) < _LARGE else [])]
    for size in wanted:
        fixed = (-1, -1) if shape is None or len(shape) not in (3, 4) else shape[-3:-1]
        if all(side in (-1, own) for side, own in zip(fixed, size, strict=True)) and math.prod(size) * 3 <= MAX_OUTPUT:
            yield size


def _given(holders: list[Node], image: npt.NDArray[np.uint8]) -> dict[str, tuple[Array, ...]]:
    """Node -> the image as its output."""
    given: dict[str, tuple[Array, ...]] = {}
    for node in holders:
        if node.op == "Placeholder":
            shape = node.attr_shape("shape")
            value: Array = image.astype(DTYPES[node.attr_type("dtype")])
            given[node.name] = (value if shape is not None and len(shape) == 3 else value[None],)
        else:
            given[node.name] = (image,)
    return given


def _expected(image: npt.NDArray[np.uint8], settings: Settings, scale: float, offset: float) -> FloatArray:
    """What a converted net is fed with."""
    size = (image.shape[0], image.shape[1])
    with np.errstate(all="ignore"):  # a damaged graph's factors may be too large for float32
        if settings.resizer is None or settings.input_size is None:
            return network_input(image, size, mean=-offset / scale, scale=scale)
        return network_input(image, settings.input_size, mean=-offset / scale, scale=scale, resizer=settings.resizer)


def _difference(found: npt.NDArray[Any], expected: FloatArray, half_range: float) -> str | None:
    """How a network input differs, as a phrase; None if it does not."""
    if found.shape != expected.shape or found.dtype.kind != "f":
        return f"a network input of the shape {found.shape}, not {expected.shape}"
    with np.errstate(invalid="ignore", over="ignore"):
        wrong = ~(np.abs(found - expected) <= _BOUND * max(half_range, 1.0))
    if not wrong.any():
        return None
    place = tuple(int(index) for index in np.unravel_index(int(np.argmax(wrong)), wrong.shape))
    y, x, channel = place[1:]
    return (
        f"{found[place]:.6g}, not {expected[place]:.6g}, at row {y}, column {x}, channel {channel} of the network "
        f"input ({int(wrong.sum())} of {wrong.size} values differ)"
    )


def _named(constants: Constants, start: Ref) -> str:
    """The nodes that may be the cause, as a phrase."""
    nodes = [
        f"{node.name} ({node.op})"
        for node in reversed(image_path(constants.graph, start))
        if node.op not in _QUIET and not node.op.startswith(("Placeholder", "TensorArray", "TensorList"))
        and node.attr_type("T") not in WHOLE_TYPES and constants.plain.get(node.ref) is None
    ]  # fmt: skip
    more = f" and {len(nodes) - _NAMED} more" if len(nodes) > _NAMED else ""
    return f": {', '.join(nodes[:_NAMED])}{more}" if nodes else ""


def _unchecked(reason: str) -> tuple[str, ...]:
    return (f"it was not checked whether the graph prepares images as it was read: {reason}",)
