"""Maps made twice as high and wide by nearest neighbour, in the forms that feature pyramids have."""

from __future__ import annotations

from ssdlite_caffe.dump.graph.constants import Evaluator
from ssdlite_caffe.dump.graph.view import Graph, Node, Ref


def doubled_input(graph: Graph, plain: Evaluator, node: Node) -> Ref | None:
    """What a node makes twice as high and wide by nearest neighbour; None for other nodes.

    The Object Detection API packs a map with itself behind its columns, reshapes it, and does the same with its rows,
    or, with use_native_resize_op, resizes it.

    Args:
        graph: of the node.
        plain: its evaluator.
        node: the last one of these.

    Source: `nearest_neighbor_upsampling` in object_detection/utils/ops.py; feature_map_generators.py.
    """
    if node.op == "ResizeNearestNeighbor":
        return _resized_twice(graph, plain, node)
    ref = node.ref
    for axis in (2, 3):
        reshape = graph[graph.origin(ref)]
        if reshape.op != "Reshape" or not reshape.inputs:
            return None
        pack = graph[graph.origin(reshape.inputs[0])]
        parts = {graph.origin(part) for part in pack.inputs}
        if pack.op != "Pack" or len(pack.inputs) != 2 or len(parts) != 1 or pack.attr_int("axis") != axis:
            return None
        shape = plain.get(reshape.inputs[1])
        if shape is not None and len(shape) != 4:
            return None
        (ref,) = parts
    return ref


def resized_input(plain: Evaluator, node: Node) -> tuple[Ref, tuple[int, int]] | None:
    """What a node resizes by nearest neighbour to a size that is a constant, and this (height, width); else None.

    A graph for images of one size has no other sign of use_native_resize_op: whether it is twice the size of the map is
    for the reader to compare.
    """
    if node.op != "ResizeNearestNeighbor" or not _is_plain(node):
        return None
    size = plain.get(node.inputs[1])
    return None if size is None or size.shape != (2,) else (node.inputs[0], (int(size[0]), int(size[1])))


def cut_input(plain: Evaluator, node: Node) -> tuple[Ref, tuple[int, int]] | None:
    """What a node cuts to its first rows and columns, if their numbers are constants, and this (height, width).

    With use_explicit_padding the Object Detection API cuts each doubled map to the size of the finer one, which changes
    a map only where that one's sides are odd: for the reader to compare.

    Source: `slice_top_down` in `KerasFpnTopDownFeatureMaps` of object_detection/models/feature_map_generators.py.
    """
    if node.op != "StridedSlice" or any(
        node.attr_int(f"{name}_mask") for name in ("ellipsis", "new_axis", "shrink_axis")
    ):
        return None
    values = [plain.get(ref) for ref in node.inputs[1:4]]
    begin, end, strides = ([] if value is None else [int(v) for v in value.reshape(-1)] for value in values)
    if (len(begin), len(end), strides) != (4, 4, [1, 1, 1, 1]):
        return None
    from_start, to_end = node.attr_int("begin_mask"), node.attr_int("end_mask")
    if any(first and not from_start >> axis & 1 for axis, first in enumerate(begin)):
        return None
    if [to_end >> axis & 1 for axis in range(4)] != [1, 0, 0, 1] or min(end[1:3]) < 1:
        return None
    return node.inputs[0], (end[1], end[2])


def _is_plain(node: Node) -> bool:
    """Whether a resize is without corners and half pixels: output i is input floor(i / 2) at twice the size."""
    return not (node.attr_bool("align_corners") or node.attr_bool("half_pixel_centers"))


def _resized_twice(graph: Graph, plain: Evaluator, node: Node) -> Ref | None:
    """The input of a resize to twice its size, without corners or half pixels; None for others."""
    if not _is_plain(node):
        return None
    size = graph[graph.origin(node.inputs[1])]
    operands = size.inputs if size.op == "Pack" else (node.inputs[1],)
    twice = operands and all(_is_twice(graph[graph.origin(ref)], plain) for ref in operands)
    return node.inputs[0] if twice else None


def _is_twice(node: Node, plain: Evaluator) -> bool:
    values = [plain.get(ref) for ref in node.inputs]
    return node.op == "Mul" and any(value is not None and bool((value == 2).all()) for value in values)
