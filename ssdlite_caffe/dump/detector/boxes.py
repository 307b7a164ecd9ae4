"""Default boxes and box-coder scales, found from the ops that decode the box predictor's output.

The Object Detection API's faster_rcnn_box_coder unstacks the box encodings into ty, tx, th, tw, divides each by its
scale and computes centre = t * size + default centre, size = exp(t) * default size, corners = centre -+ size / 2. Graph
optimisers multiply by reciprocals and fold constants, such as half sizes and scales, each in its own way. So the ops
are not matched one by one. They are evaluated for known box encodings, and boxes and scales follow from the results.

Source: object_detection/box_coders/faster_rcnn_box_coder.py, `_decode`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump.detector.affine import ADDS, DIVISIONS, Constants
from ssdlite_caffe.dump.graph.constants import Evaluator, ShapeOf
from ssdlite_caffe.dump.graph.tensors import Array
from ssdlite_caffe.dump.graph.view import CONVOLUTIONS, Graph, Node, Ref

Scales = tuple[float, float, float, float]
Vector = npt.NDArray[np.float64]

_BOX_KEEPING = frozenset(
    {"Sub", "Unpack", "Split", "Transpose", "Reshape", "Tile", "ExpandDims", "Squeeze", "Identity", "BroadcastTo"}
)
_ELEMENTWISE = ADDS | DIVISIONS | {"Mul", "Sub", "Exp", "Neg"}
_THREE_ROUNDINGS = 1.5 * 2.0**-23
"""Relative error of three roundings to float32 (of a reciprocal and two products), each half a unit in the last place.
"""
_ENCODINGS_OF_AN_IMAGE = (1, -1, 4)
"""Shape of the box encodings of a batch of one; graphs repeat their default boxes for every image of a batch."""
_SAME_BOXES = 1e-6
"""Largest distance of stored boxes from those that the decoder makes of encodings 0, as a fraction of the input."""


@dataclass(frozen=True)
class BoxDecoder:
    """Where a graph decodes boxes.

    Attributes:
        encodings: the node with ty, tx, th, tw as its outputs 0 to 3.
        size: the factor of exp(th): usually the heights of the default boxes.
        corners: ymin, xmin, ymax, xmax of the decoded boxes; None if they were not found.
    """

    encodings: Node
    size: Ref
    corners: tuple[Ref, ...] | None


def find_decoder(constants: Constants) -> BoxDecoder | None:
    """The box decoder of a graph; None if it has none."""
    graph = constants.graph
    sizes: dict[Ref, Ref] = {}
    for node in graph:
        if node.op != "Exp" or not node.inputs:
            continue
        encoding = _unscaled(constants, graph.origin(node.inputs[0]))
        products = [use for use in graph.uses(node.ref) if use.node.op == "Mul" and len(use.node.inputs) == 2]
        if products and graph[encoding].op in ("Unpack", "Split") and graph[encoding].inputs:
            sizes[encoding] = graph.origin(products[0].node.inputs[1 - products[0].position])
    for encoding in sizes:
        height, width = Ref(encoding.name, 2), Ref(encoding.name, 3)
        if height in sizes and width in sizes:
            return BoxDecoder(graph[encoding], sizes[height], _corners(graph, graph[encoding]))
    return None


def _unscaled(constants: Constants, ref: Ref) -> Ref:
    """The x of x / scale or x * (1 / scale) with a constant scale; `ref` itself for other nodes."""
    node = constants.graph[ref]
    if node.op in DIVISIONS | {"Mul"} and len(node.inputs) == 2:
        for encoding, scale in (node.inputs, node.inputs[::-1]):
            if constants.plain.get(scale) is not None:
                return constants.graph.origin(encoding)
    return ref


def _corners(graph: Graph, encodings: Node) -> tuple[Ref, ...] | None:
    """The four outputs that are joined after the arithmetic on `encodings`; None if not four are."""
    pending = deque(Ref(encodings.name, port) for port in range(4))
    seen = set(pending)
    while pending:
        for use in graph.uses(pending.popleft()):
            node = use.node
            if node.op in ("Pack", "ConcatV2", "Concat"):
                parts = node.inputs[1:] if node.op == "Concat" else node.inputs[:4]
                return parts if len(parts) == 4 else None
            if node.op in _ELEMENTWISE and node.ref not in seen:
                seen.add(node.ref)
                pending.append(node.ref)
    return None


def boxes_and_scales(
    constants: Constants, shape_of: ShapeOf | None, decoder: BoxDecoder
) -> tuple[FloatArray | None, Scales | None]:
    """The default boxes and box-coder scales that a decoder uses.

    Args:
        constants: of the graph.
        shape_of: shapes of feature maps; None if they are unknown.
        decoder: from `find_decoder`.

    Returns:
        Boxes, float32 (N, 4): ymin, xmin, ymax, xmax as fractions, as TensorFlow computes them, bit for bit. If folding
        has left no such constant, they are the boxes that the decoder makes of encodings 0, computed in float64 and
        rounded once. And scales (y, x, height, width). None for what cannot be found.
    """
    stored = _stored_boxes(Evaluator(constants.graph, shape_of=shape_of), decoder.size)
    still, moved = (_decoded(constants.graph, shape_of, decoder, encoding) for encoding in (0.0, 1.0))
    if still is None or moved is None:
        return stored, None
    if stored is None or stored.shape != still.shape or not np.allclose(stored, still, rtol=0, atol=_SAME_BOXES):
        with np.errstate(over="ignore"):  # boxes are checked when the net is known
            stored = still.astype(np.float32)
    return stored, _scales(still, moved)


def _stored_boxes(plain: Evaluator, ref: Ref) -> FloatArray | None:
    """The boxes (N, 4) that are a constant from which the default boxes' sizes `ref` are computed; None if none is."""
    boxes: FloatArray | None = None
    for _ in range(32):
        boxes = _as_boxes(plain.get(ref), boxes)
        node = plain.graph[ref]
        if node.op not in _BOX_KEEPING or not node.inputs:
            break
        ref = node.inputs[1 if node.op == "Split" else 0]
    return boxes


def _as_boxes(value: Array | None, otherwise: FloatArray | None) -> FloatArray | None:
    if value is None or value.dtype.kind != "f" or value.ndim < 2 or value.shape[-1] != 4:
        return otherwise
    if value.size != 4 * value.shape[-2]:
        return otherwise
    return np.ascontiguousarray(value.reshape(-1, 4), np.float32)


def _decoded(graph: Graph, shape_of: ShapeOf | None, decoder: BoxDecoder, encoding: float) -> Vector | None:
    """The boxes (N, 4) that the decoder makes if all box encodings are `encoding`; None if they cannot be computed.

    Encodings are float64, and so is all that depends on them; constants are float32, as in TensorFlow.
    """
    if decoder.corners is None:
        return None
    before = {node.name for node in graph.upstream(decoder.encodings.inputs, stop=CONVOLUTIONS)}

    def shape(ref: Ref) -> tuple[int, ...] | None:
        known = None if shape_of is None else shape_of(ref)
        return _ENCODINGS_OF_AN_IMAGE if known is None and ref.name in before else known

    encodings = (np.asarray([encoding], np.float64),) * 4
    evaluator = Evaluator(graph, shape_of=shape, given={decoder.encodings.name: encodings})
    parts = [evaluator.get(ref) for ref in decoder.corners]
    corners = [part.astype(np.float64).reshape(-1) for part in parts if part is not None and part.dtype.kind == "f"]
    if len(corners) != 4 or len({corner.size for corner in corners}) != 1 or not corners[0].size:
        return None
    return np.stack(corners, axis=1)


def _scales(still: Vector, moved: Vector) -> Scales | None:
    """Scales, from the boxes of encodings 0 (`still`) and 1 (`moved`); None if they differ from box to box.

    Encodings of 1 move a centre by size / scale, and make a size exp(1 / scale) times as large.
    """
    with np.errstate(all="ignore"):
        size, grown = (boxes[:, 2:] - boxes[:, :2] for boxes in (still, moved))
        steps = (moved[:, 2:] + moved[:, :2] - still[:, 2:] - still[:, :2]) / 2
        found = [_one_number(values) for values in (*(size / steps).T, *(1 / np.log(grown / size)).T)]
    y, x, height, width = found
    return None if y is None or x is None or height is None or width is None else (y, x, height, width)


def _one_number(values: Vector) -> float | None:
    """The number with the fewest digits that equals all values up to their roundings to float32; None if none does."""
    if not np.isfinite(values).all():
        return None
    ordered = np.sort(values)
    # The median; np.median imports numpy's masked arrays, which takes longer than this whole function.
    middle = float((ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2)
    for digits in range(1, 10):
        number = float(f"{middle:.{digits}g}")
        if np.allclose(values, number, rtol=_THREE_ROUNDINGS, atol=0):
            return number
    return None


def corners_of(y: Array, x: Array, height: Array, width: Array) -> FloatArray:
    """float32 (N, 4): ymin, xmin, ymax, xmax of centres and sizes, computed in float64 and rounded once."""
    y, x, height, width = (np.asarray(v, np.float64) for v in (y, x, height, width))
    with np.errstate(over="ignore", invalid="ignore"):
        corners = [y - height / 2, x - width / 2, y + height / 2, x + width / 2]
        return np.stack(corners, axis=1).astype(np.float32)
