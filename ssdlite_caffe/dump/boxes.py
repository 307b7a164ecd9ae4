"""Default boxes and box-coder scales, read from the ops that decode the box predictor's output.

The Object Detection API's faster_rcnn_box_coder unstacks the codes into ty, tx, th, tw, divides each by its scale and
computes centre = t * size + default centre, size = exp(t) * default size, corners = centre -+ size / 2. Optimisers
multiply by reciprocals and draw constants together, half sizes and scales among them, each in its own way. So the ops
are not read one by one: they are computed, with codes of our own, and what comes out tells boxes and scales.

Source: object_detection/box_coders/faster_rcnn_box_coder.py, `_decode`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump.affine import ADDS, DIVISIONS, Constants
from ssdlite_caffe.dump.constants import Evaluator, ShapeOf
from ssdlite_caffe.dump.graph import CONVOLUTIONS, Graph, Node, Ref
from ssdlite_caffe.dump.tensors import Array

Scales = tuple[float, float, float, float]
Vector = npt.NDArray[np.float64]

_BOX_KEEPING = frozenset(
    {"Sub", "Unpack", "Split", "Transpose", "Reshape", "Tile", "ExpandDims", "Squeeze", "Identity", "BroadcastTo"}
)
_ELEMENTWISE = ADDS | DIVISIONS | {"Mul", "Sub", "Exp", "Neg"}
_THREE_ROUNDINGS = 1.5 * 2.0**-23
"""Relative: of a reciprocal and of two products to float32, half a unit in the last place each."""
_CODES_OF_A_IMAGE = (1, -1, 4)
"""Shape of what the codes are taken from; graphs repeat their default boxes for every image of a batch."""
_SAME_BOXES = 1e-6
"""How far boxes may lie from those that a decoder with float32 centres makes of codes 0, as a fraction of the input."""


@dataclass(frozen=True)
class BoxDecoder:
    """Where a graph decodes boxes.

    Attributes:
        codes: the node that gives ty, tx, th, tw as its outputs 0 to 3.
        size: what exp(th) is multiplied by: heights of the default boxes, as a rule.
        corners: ymin, xmin, ymax, xmax of the decoded boxes; None where they were not found.
    """

    codes: Node
    size: Ref
    corners: tuple[Ref, ...] | None


def find_decoder(constants: Constants) -> BoxDecoder | None:
    """The box decoder of a graph; None where it has none."""
    graph = constants.graph
    sizes: dict[Ref, Ref] = {}
    for node in graph:
        if node.op != "Exp" or not node.inputs:
            continue
        code = _unscaled(constants, graph.origin(node.inputs[0]))
        products = [use for use in graph.uses(node.ref) if use.node.op == "Mul" and len(use.node.inputs) == 2]
        if products and graph[code].op in ("Unpack", "Split") and graph[code].inputs:
            sizes[code] = graph.origin(products[0].node.inputs[1 - products[0].position])
    for code in sizes:
        height, width = Ref(code.name, 2), Ref(code.name, 3)
        if height in sizes and width in sizes:
            return BoxDecoder(graph[code], sizes[height], _corners(graph, graph[code]))
    return None


def _unscaled(constants: Constants, ref: Ref) -> Ref:
    """The code of code / scale or code * (1 / scale); `ref` itself where it is no such thing."""
    node = constants.graph[ref]
    if node.op in DIVISIONS | {"Mul"} and len(node.inputs) == 2:
        for code, scale in (node.inputs, node.inputs[::-1]):
            if constants.plain.get(scale) is not None:
                return constants.graph.origin(code)
    return ref


def _corners(graph: Graph, codes: Node) -> tuple[Ref, ...] | None:
    """The four that are joined behind the arithmetic on `codes`."""
    pending = deque(Ref(codes.name, port) for port in range(4))
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
        shape_of: shapes of feature maps, where they are known.
        decoder: from `find_decoder`.

    Returns:
        Boxes, float32 (N, 4): ymin, xmin, ymax, xmax, as TensorFlow computes them, bit for bit; or, where folding has
        left no such constant, what the decoder makes of codes 0, computed in float64 and rounded once. And scales (y,
        x, height, width). None for what cannot be told.
    """
    stored = _stored_boxes(Evaluator(constants.graph, shape_of=shape_of), decoder.size)
    still, moved = (_decoded(constants.graph, shape_of, decoder, code) for code in (0.0, 1.0))
    if still is None or moved is None:
        return stored, None
    if stored is None or stored.shape != still.shape or not np.allclose(stored, still, rtol=0, atol=_SAME_BOXES):
        with np.errstate(over="ignore"):  # whether they are boxes at all is told when the net is known
            stored = still.astype(np.float32)
    return stored, _scales(still, moved)


def _stored_boxes(plain: Evaluator, ref: Ref) -> FloatArray | None:
    """Boxes as a constant, from which the default boxes' sizes `ref` are computed."""
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


def _decoded(graph: Graph, shape_of: ShapeOf | None, decoder: BoxDecoder, code: float) -> Vector | None:
    """The boxes (N, 4) of which every code is `code`; None where they cannot be computed.

    Codes of float64 make float64 of all that depends on them; constants come as float32, as TensorFlow has them.
    """
    if decoder.corners is None:
        return None
    before = {node.name for node in graph.upstream(decoder.codes.inputs, stop=CONVOLUTIONS)}

    def shape(ref: Ref) -> tuple[int, ...] | None:
        known = None if shape_of is None else shape_of(ref)
        return _CODES_OF_A_IMAGE if known is None and ref.name in before else known

    codes = (np.asarray([code], np.float64),) * 4
    evaluator = Evaluator(graph, shape_of=shape, given={decoder.codes.name: codes})
    parts = [evaluator.get(ref) for ref in decoder.corners]
    corners = [part.astype(np.float64).reshape(-1) for part in parts if part is not None and part.dtype.kind == "f"]
    if len(corners) != 4 or len({corner.size for corner in corners}) != 1 or not corners[0].size:
        return None
    return np.stack(corners, axis=1)


def _scales(still: Vector, moved: Vector) -> Scales | None:
    """Scales, from the boxes of codes 0 and of codes 1; None where they are not the same for all boxes.

    Codes of 1 move a centre by size / scale, and make a size exp(1 / scale) times as large.
    """
    with np.errstate(all="ignore"):
        size, grown = (boxes[:, 2:] - boxes[:, :2] for boxes in (still, moved))
        steps = (moved[:, 2:] + moved[:, :2] - still[:, 2:] - still[:, :2]) / 2
        found = [_one_number(values) for values in (*(size / steps).T, *(1 / np.log(grown / size)).T)]
    y, x, height, width = found
    return None if y is None or x is None or height is None or width is None else (y, x, height, width)


def _one_number(values: Vector) -> float | None:
    """The number with the fewest digits that all values are, each but for its roundings to float32; None if none is."""
    if not np.isfinite(values).all():
        return None
    middle = float(np.median(values))
    for digits in range(1, 10):
        number = float(f"{middle:.{digits}g}")
        if np.allclose(values, number, rtol=_THREE_ROUNDINGS, atol=0):
            return number
    return None


def corners_of(y: Array, x: Array, height: Array, width: Array) -> FloatArray:
    """(N, 4) ymin, xmin, ymax, xmax of centres and sizes, computed in float64 and rounded once."""
    y, x, height, width = (np.asarray(v, np.float64) for v in (y, x, height, width))
    with np.errstate(over="ignore", invalid="ignore"):
        corners = [y - height / 2, x - width / 2, y + height / 2, x + width / 2]
        return np.stack(corners, axis=1).astype(np.float32)
