"""Default boxes and box-coder scales, read from the ops that decode the box predictor's output.

The Object Detection API's faster_rcnn_box_coder unstacks the codes into ty, tx, th, tw, divides each by its scale and
computes centre = t * size + default centre, size = exp(t) * default size. Optimisers multiply by the reciprocal, or
draw constants together, up to the scale being part of the sizes that ty and tx are multiplied by; all are followed.

Source: object_detection/box_coders/faster_rcnn_box_coder.py, `_decode`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssdlite_caffe.dump.affine import ADDS, DIVISIONS, Constants
from ssdlite_caffe.dump.evaluate import Evaluator
from ssdlite_caffe.dump.graph import Graph, Node, Ref, Use
from ssdlite_caffe.dump.model import FloatArray
from ssdlite_caffe.dump.tensors import Array

Scales = tuple[float, float, float, float]

_BOX_KEEPING = frozenset(
    {"Sub", "Unpack", "Split", "Transpose", "Reshape", "Tile", "ExpandDims", "Squeeze", "Identity", "BroadcastTo"}
)

_TWO_ROUNDINGS = 2.0**-23
"""Relative: of a reciprocal and of a product to float32, half a unit in the last place each."""


@dataclass(frozen=True)
class Decoder:
    """Where a graph decodes boxes.

    Attributes:
        codes: the node that gives ty, tx, th, tw as its outputs 0 to 3.
        scales: box-coder scales (y, x, height, width); None where they cannot be told.
        sizes: what exp(th) and exp(tw) are multiplied by: heights and widths of the default boxes.
        centres: what is added to ty * height and tx * width; None where that was not found.
    """

    codes: Node
    scales: Scales | None
    sizes: tuple[Ref, Ref]
    centres: tuple[Ref | None, Ref | None]


def find_decoder(constants: Constants, shapes: Evaluator) -> Decoder | None:
    """The box decoder of a graph; None where it has none.

    Args:
        constants: of the graph.
        shapes: an evaluator that knows the shapes of feature maps.
    """
    graph = constants.graph
    sizes: dict[Ref, Ref] = {}
    scales: dict[Ref, float] = {}
    for node in graph:
        if node.op != "Exp" or not node.inputs:
            continue
        code, scale = _unscaled(constants, graph.origin(node.inputs[0]))
        size = next((_other(graph, use) for use in graph.uses(node.ref) if use.node.op == "Mul"), None)
        if size is not None and graph[code].op in ("Unpack", "Split"):
            sizes[code], scales[code] = size, scale
    for code in sizes:
        height, width = Ref(code.name, 2), Ref(code.name, 3)
        if height in sizes and width in sizes:
            y_scale, y_centre = _centre(constants, Ref(code.name, 0), sizes[height], shapes)
            x_scale, x_centre = _centre(constants, Ref(code.name, 1), sizes[width], shapes)
            return Decoder(
                graph[code],
                None if y_scale is None or x_scale is None else (y_scale, x_scale, scales[height], scales[width]),
                (sizes[height], sizes[width]),
                (y_centre, x_centre),
            )
    return None


def default_boxes(constants: Constants, shapes: Evaluator, decoder: Decoder) -> FloatArray | None:
    """The default boxes that a decoder uses, float32 (N, 4): ymin, xmin, ymax, xmax.

    Args:
        constants: of the graph.
        shapes: an evaluator that knows the shapes of feature maps.
        decoder: from `find_decoder`.

    Returns:
        The boxes as TensorFlow computes them, bit for bit; or, where folding has left only centres and sizes, the
        corners computed of these in float64 and rounded once. None where they are not constant.
    """
    ref = decoder.sizes[0]
    boxes: FloatArray | None = None
    for _ in range(32):
        boxes = _as_boxes(shapes.get(ref), boxes)
        node = constants.graph[ref]
        if node.op not in _BOX_KEEPING or not node.inputs:
            break
        ref = node.inputs[1 if node.op == "Split" else 0]
    return boxes if boxes is not None else _corners(shapes, decoder)


def _as_boxes(value: Array | None, otherwise: FloatArray | None) -> FloatArray | None:
    if value is None or value.dtype.kind != "f" or value.ndim < 2 or value.shape[-1] != 4:
        return otherwise
    if value.size != 4 * value.shape[-2]:
        return otherwise
    return np.ascontiguousarray(value.reshape(-1, 4), np.float32)


def _corners(shapes: Evaluator, decoder: Decoder) -> FloatArray | None:
    parts = [shapes.get(ref) for ref in (*decoder.centres, *decoder.sizes)]
    vectors = [part.astype(np.float64).reshape(-1) for part in parts if part is not None and part.dtype.kind == "f"]
    if len(vectors) != 4 or len({vector.size for vector in vectors}) != 1 or vectors[0].size < 2:
        return None
    return corners_of(*vectors)


def corners_of(y: Array, x: Array, height: Array, width: Array) -> FloatArray:
    """(N, 4) ymin, xmin, ymax, xmax of centres and sizes, computed in float64 and rounded once."""
    y, x, height, width = (np.asarray(v, np.float64) for v in (y, x, height, width))
    corners = [y - height / 2, x - width / 2, y + height / 2, x + width / 2]
    return np.stack(corners, axis=1).astype(np.float32)


def _unscaled(constants: Constants, ref: Ref) -> tuple[Ref, float]:
    """(code, scale) of code / scale or code * (1 / scale); scale 1 where it is the code itself."""
    node = constants.graph[ref]
    for position in range(len(node.inputs)):
        scale = _scale(constants, Use(node, position))
        if scale is not None:
            return constants.graph.origin(node.inputs[position]), scale
    return ref, 1.0


def _scale(constants: Constants, use: Use) -> float | None:
    """The box-coder scale by which `use` divides what it reads; float32, so that 1 / 0.1 is 10."""
    node = use.node
    if len(node.inputs) != 2:
        return None
    number = constants.plain.scalar(node.inputs[1 - use.position])
    if number is None or number == 0:
        return None
    if node.op in DIVISIONS and use.position == 0:
        return number
    return float(np.float32(1 / number)) if node.op == "Mul" else None


def _centre(constants: Constants, code: Ref, size: Ref, shapes: Evaluator) -> tuple[float | None, Ref | None]:
    """(scale, default centre) of ty or tx: code / scale * size + centre; None for what cannot be told."""
    graph = constants.graph
    scale = 1.0
    uses = graph.uses(code)
    if len(uses) == 1:
        found = _scale(constants, uses[0])
        if found is not None:
            scale = found
            uses = graph.uses(uses[0].node.ref)
    products = [use for use in uses if use.node.op == "Mul"]
    rest = _quotient(size, _other(graph, products[0]), shapes) if len(products) == 1 else None
    sums = [use for product in products for use in graph.uses(product.node.ref) if use.node.op in ADDS]
    return None if rest is None else scale * rest, _other(graph, sums[0]) if len(sums) == 1 else None


def _quotient(size: Ref, factor: Ref | None, shapes: Evaluator) -> float | None:
    """The number by which `size` was divided to give `factor`, each element rounded to float32; None if it was not.

    Of the numbers that explain the elements, the one with the fewest digits.
    """
    if factor == size:
        return 1.0
    whole, part = shapes.get(size), shapes.get(factor)
    if whole is None or part is None or whole.size != part.size or not whole.size or not np.all(part):
        return None
    whole, part = whole.astype(np.float64).reshape(-1), part.astype(np.float64).reshape(-1)
    middle = float(np.median(whole / part))
    for digits in range(1, 10):
        number = float(f"{middle:.{digits}g}")
        if np.allclose(whole, part * number, rtol=_TWO_ROUNDINGS, atol=0):
            return number
    return None


def _other(graph: Graph, use: Use) -> Ref | None:
    inputs = use.node.inputs
    return graph.origin(inputs[1 - use.position]) if len(inputs) == 2 else None
