"""The resizer of a graph: recognised by what it does to images of several sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

from ssdlite_caffe.dump.detector.affine import Constants
from ssdlite_caffe.dump.detector.image_steps import (
    PADS,
    Image,
    ImageSteps,
    Normalise,
    Padding,
    Resize,
    UnknownStepError,
)
from ssdlite_caffe.dump.graph.image_ops import METHODS
from ssdlite_caffe.dump.graph.view import Node, Ref
from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.resizer import Resizer, shape_kept

_SQUARE = (1000, 1000)
SIZES = (
    _SQUARE, (480, 640), (640, 480), (1080, 1920), (1920, 1080), (333, 500), (375, 300), (97, 53), (64, 301),
    (3000, 2000),
)  # fmt: skip
"""Sizes of images that are followed through the graph, the square one first."""


Before = Callable[[Ref], bool | None]
"""Whether pixels are normalised before a tensor; None if partly before and partly after it."""


class GraphResizer(NamedTuple):
    """A graph's resizer and the (height, width) that it gives; None where the graph resizes nothing."""

    size: tuple[int, int] | None
    resizer: Resizer | None


def graph_resizer(constants: Constants, stem: Node, path: list[Node], before: Before) -> GraphResizer:
    """The resizer between the image and the first convolution.

    Args:
        constants: evaluators of the graph.
        stem: the first convolution.
        path: the nodes between the image and it.
        before: see Before.

    Raises:
        ModelError: the size is not always the same, or the graph resizes, pads or joins in another way than the Object
            Detection API; the node is named.
    """
    start = _before_padding(constants, stem.inputs[0])
    own = {node.name for node in _paddings(constants, stem.inputs[0])}
    resizes = [node for node in path if node.op in METHODS]
    others = [node for node in path if (node.op in PADS and node.name not in own) or node.op in ("Pack", "Unpack")]
    if not resizes and not others:
        return GraphResizer(None, None)
    if len(resizes) == 1 and not others and constants.plain.get(resizes[0].inputs[1]) is not None:
        found = _fixed(constants, resizes[0])
    else:
        found = _recognised(constants, [_followed(constants, start, size) for size in SIZES])
    if found.resizer is None or found.resizer.plain:
        return found
    first = before(resizes[0].inputs[0])
    if first is None:
        raise ModelError(
            f"{constants.graph.source} resizes images ({found.resizer.text()}) between scaling and shifting their "
            "pixels; that is not supported"
        )
    return found._replace(resizer=dataclasses.replace(found.resizer, normalise_first=first))


def _paddings(constants: Constants, ref: Ref) -> list[Node]:
    """The Pad ops directly before the first convolution, which are part of that convolution."""
    found: list[Node] = []
    node = constants.graph[constants.graph.origin(ref)]
    while node.op in PADS and constants.plain.get(node.inputs[1]) is not None:
        found.append(node)
        node = constants.graph[constants.graph.origin(node.inputs[0])]
    return found


def _before_padding(constants: Constants, ref: Ref) -> Ref:
    paddings = _paddings(constants, ref)
    return constants.graph.origin(paddings[-1].inputs[0] if paddings else ref)


def _fixed(constants: Constants, node: Node) -> GraphResizer:
    """A single resize to a constant size."""
    value = constants.plain.get(node.inputs[1])
    if value is None or value.shape != (2,) or value.dtype.kind != "i":
        return GraphResizer(None, None)
    if value.min() <= 0:
        raise ModelError(
            f"{constants.graph.source}: {node.name} must resize to a positive size, got {value[0]}x{value[1]}"
        )
    corners = node.attr_bool("align_corners"), node.attr_bool("half_pixel_centers")
    return GraphResizer((int(value[0]), int(value[1])), _resizer(constants, node.name, METHODS[node.op], *corners))


def _resizer(constants: Constants, name: str, method: str, align_corners: bool, half_pixel_centers: bool) -> Resizer:
    data = {"method": method, "align_corners": align_corners, "half_pixel_centers": half_pixel_centers}
    try:
        return Resizer.from_dict(data)
    except ValueError as error:
        raise ModelError(f"{constants.graph.source}: {name}: {error}") from error


def _followed(constants: Constants, start: Ref, size: tuple[int, int]) -> Image:
    try:
        return ImageSteps(constants.graph, constants.plain, size).image(start)
    except UnknownStepError as error:
        raise ModelError(
            f"{constants.graph.source} resizes images in a way that is not read here: {error} is not understood; "
            "a fixed size is, and keep_aspect_ratio_resizer with pad_to_max_dimension"
        ) from error


def _recognised(constants: Constants, images: list[Image]) -> GraphResizer:
    source = constants.graph.source
    sizes = {image.size for image in images}
    if len(sizes) != 1:
        one, other = SIZES[0], SIZES[1]
        raise ModelError(
            f"{source} resizes images to different sizes: {one[0]}x{one[1]} to {_text(images[0].size)}, "
            f"{other[0]}x{other[1]} to {_text(images[1].size)}; only one size for all images is supported, as of "
            "fixed_shape_resizer, or of keep_aspect_ratio_resizer with pad_to_max_dimension: true"
        )
    kinds = [tuple(type(step) for step in image.steps if not isinstance(step, Normalise)) for image in images]
    resizes = [[step for step in image.steps if isinstance(step, Resize)] for image in images]
    if not all(kind in ((Resize,), (Resize, Padding)) for kind in kinds):
        raise ModelError(
            f"{source} resizes or pads images more than once, or in another order than the Object Detection API"
        )
    first = resizes[0][0]
    (size,) = sizes
    ways = {(step.method, step.align_corners, step.half_pixel_centers) for (step,) in resizes}
    if len(ways) != 1:
        raise ModelError(f"{source} resizes different images in different ways, at {first.node} and elsewhere")
    resizer = _resizer(constants, first.node, *next(iter(ways)))
    if {step.size for (step,) in resizes} == {size}:
        return GraphResizer(size, resizer)
    return GraphResizer(size, _letterbox(source, resizer, images, size))


def _letterbox(source: str, resizer: Resizer, images: list[Image], size: tuple[int, int]) -> Resizer:
    wrong = ModelError(
        f"{source} pads images in another way than the Object Detection API's keep_aspect_ratio_resizer: only a square "
        "input, padded at the bottom and on the right after the image was resized with its shape kept, is supported"
    )
    pads = [step for image in images for step in image.steps if isinstance(step, Padding)]
    contents = [step.size for image in images for step in image.steps if isinstance(step, Resize)]
    values = {pad.value if len(pad.value) == 3 else pad.value * 3 for pad in pads}
    if len(pads) != len(images) or len(values) != 1 or size[0] != size[1] or contents[0][0] != contents[0][1]:
        raise wrong
    least, most = contents[0][0], size[0]
    expected = [shape_kept(image, least, most) for image in SIZES]
    if contents != expected or any(pad.height[0] or pad.width[0] for pad in pads):
        raise wrong
    red, green, blue = values.pop()
    try:
        return dataclasses.replace(
            resizer,
            kind="keep_aspect_ratio",
            min_dimension=least,
            max_dimension=most,
            pad_value=(red, green, blue),
        )
    except ValueError as error:
        raise ModelError(f"{source}: {error}") from error


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
