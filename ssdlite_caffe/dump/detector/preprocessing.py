"""A graph's preprocessing of images before its first convolution: the size, and the scale and offset of pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssdlite_caffe.dump.detector.affine import ADDS, DIVISIONS, Constants
from ssdlite_caffe.dump.detector.graph_resizer import graph_resizer
from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from ssdlite_caffe.dump.graph.view import CONVOLUTIONS, IDENTITIES, Graph, Node, Ref
from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.resizer import Resizer

# Input 0 of these ops is the image; the others are sizes, amounts and conditions.
_IMAGE_FIRST = frozenset(
    {
        "ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic", "ResizeArea", "Pad", "PadV2", "Slice", "Cast",
        "StridedSlice", "Reshape", "ExpandDims", "Squeeze", "Tile", "Transpose", "GatherV2", "Identity", "Switch",
    }
)  # fmt: skip
_READ = ADDS | DIVISIONS | IDENTITIES | frozenset(
    {
        "Const", "Placeholder", "PlaceholderWithDefault", "Mul", "Sub", "Cast", "Pad", "PadV2", "Reshape", "ExpandDims",
        "Squeeze", "ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic", "ResizeArea", "Shape", "Rank", "Size",
        "Exit", "Switch", "Merge", "NextIteration", "LoopCond", "Less", "LogicalAnd", "Range", "Assert",
        "Pack", "Unpack",
    }
)  # fmt: skip
"""Ops that do not change the image's values, or whose effect is read below."""
_READ_BEGINNINGS = ("Decode", "TensorArray", "TensorList")
WHOLE_TYPES = frozenset({pb.DT_INT32, pb.DT_INT64, pb.DT_INT16, pb.DT_BOOL})
_FLOAT_TYPES = frozenset({pb.DT_FLOAT, pb.DT_HALF, pb.DT_DOUBLE, pb.DT_BFLOAT16})
_MAX_NODES = 2000
_GREY = (0.2989, 0.5870, 0.1140)
"""TensorFlow's share of red, green and blue in grey."""


@dataclass(frozen=True)
class NetworkInput:
    """The network input; None where the graph does not say it.

    Attributes:
        stem: the tensor that the first convolution reads.
        size: (height, width).
        resizer: how images are resized to it.
        scale, offset: network input = pixel * scale + offset.
    """

    stem: Ref
    size: tuple[int, int] | None
    resizer: Resizer | None
    scale: float | None
    offset: float | None


def first_convolution(graph: Graph) -> Node | None:
    """The convolution that depends on no other convolution; None if there is none."""
    tried: set[str] = set()
    node = next((n for n in graph if n.op in CONVOLUTIONS), None)
    while node is not None and node.name not in tried:
        tried.add(node.name)
        before = graph.upstream(node.inputs[:1], stop=CONVOLUTIONS)
        earlier = next((n for n in before if n.op in CONVOLUTIONS), None)
        if earlier is None:
            return node
        node = earlier
    return None


def image_path(graph: Graph, start: Ref) -> list[Node]:
    """The nodes between the image and `start`, last first, loops included."""
    found: list[Node] = []
    seen: set[str] = set()
    frontier = [start.name]
    while frontier and len(found) < _MAX_NODES:
        following: list[str] = []
        for name in frontier:
            if name in seen:
                continue
            seen.add(name)
            node = graph.nodes[name]
            found.append(node)
            inputs = node.inputs[:1] if node.op in _IMAGE_FIRST else node.inputs
            following.extend(ref.name for ref in inputs)
        frontier = following
    return found


def network_input(constants: Constants, stem: Node) -> NetworkInput:
    """Read the preprocessing between the image and the first convolution `stem`.

    Raises:
        ModelError: the channels are scaled differently, the size is not positive or not always the same, or there is
            another op.
    """
    path = image_path(constants.graph, stem.inputs[0])
    scaled = {node.name for node in path if _affine(constants, node) is not None}
    _refuse_others(constants.graph, path)

    def before(ref: Ref) -> bool | None:
        earlier = scaled & {node.name for node in image_path(constants.graph, ref)}
        return None if earlier and earlier != scaled else bool(earlier)

    read = graph_resizer(constants, stem, path, before)
    size = read.size or next((found for node in path if (found := _size(node)) is not None), None)
    affine = [step for node in path if (step := _affine(constants, node)) is not None]
    scale, offset = 1.0, 0.0
    for factor, term in reversed(affine):
        scale, offset = scale * factor, offset * factor + term
    reads_pixels = any(node.op.startswith(("Decode", "Cast")) or _is_uint8(node) for node in path)
    known = bool(affine) or reads_pixels
    origin = constants.graph.origin(stem.inputs[0])
    return NetworkInput(origin, size, read.resizer, scale if known else None, offset if known else None)


def _refuse_others(graph: Graph, path: list[Node]) -> None:
    """Refuse ops on the image that are not read here, since the net would lack them.

    Ops on integers are allowed: they compute sizes and count loops.

    Raises:
        ModelError: there is such an op; it is named.
    """
    for node in path:
        whole = node.attr_type("T") in WHOLE_TYPES or node.attr_type("dtype") in WHOLE_TYPES
        cut = (
            node.op == "Cast" and node.attr_type("SrcT") in _FLOAT_TYPES and node.attr_type("DstT") not in _FLOAT_TYPES
        )
        if cut or not (whole or is_read(node)):
            raise changes_image(graph, node)


def is_read(node: Node) -> bool:
    """Whether an op does not change the image's values, or its effect is read here."""
    return node.op in _READ or node.op.startswith(_READ_BEGINNINGS)


def changes_image(graph: Graph, node: Node) -> ModelError:
    """The error that refuses a node."""
    return ModelError(
        f"{graph.source}: {node.name} ({node.op}) changes the image before the first convolution; only "
        "resizing, one scale and one offset are supported there"
    )


def _is_uint8(node: Node) -> bool:
    return node.op == "Placeholder" and node.attr_type("dtype") == pb.DT_UINT8


def _size(node: Node) -> tuple[int, int] | None:
    if node.op == "Placeholder":
        shape = node.attr_shape("shape")
        if shape is not None and len(shape) == 4 and min(shape[1:3]) > 0 and shape[3] == 3:
            return shape[1], shape[2]
    return None


def _affine(constants: Constants, node: Node) -> tuple[float, float] | None:
    """(factor, term) of an op that maps every pixel x to factor * x + term; None for other ops."""
    if node.op not in ADDS | DIVISIONS | {"Mul", "Sub"} or len(node.inputs) != 2:
        return None
    values = [constants.plain.get(ref) for ref in node.inputs]
    if (values[0] is None) == (values[1] is None):
        return None
    first = values[0] is not None
    value = values[0] if values[0] is not None else values[1]
    if value is None or value.dtype.kind != "f" or value.size == 0:
        return None
    number = float(value.reshape(-1)[0])
    if value.shape[-1:] == (3,) and np.allclose(value.reshape(-1)[:3], _GREY, rtol=0, atol=2e-3):
        raise ModelError(
            f"{constants.graph.source}: {node.name} converts images to grayscale (convert_to_grayscale); the nets here "
            "read three channels"
        )
    if (value != value.reshape(-1)[0]).any():
        raise ModelError(
            f"{node.name} has different values for the colour channels ({value.reshape(-1)[:4].tolist()}); one value "
            "for all is supported"
        )
    if node.op == "Mul":
        return number, 0.0
    if node.op in DIVISIONS:
        return None if first or number == 0 else (1 / number, 0.0)
    if node.op == "Sub":
        return (-1.0, number) if first else (1.0, -number)
    return 1.0, number
