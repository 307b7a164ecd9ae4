"""Small changes of a graph's post-processing, one at a time: an edge, an op, a constant or an attribute."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np

from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from ssdlite_caffe.dump.graph.tensors import to_array
from ssdlite_caffe.dump.graph.view import Graph, Ref

OUTPUTS = ("num_detections", "detection_classes", "detection_scores", "detection_boxes")

_OTHERS = {
    "Minimum": ("Maximum", "AddV2"), "Maximum": ("Minimum", "AddV2"), "Greater": ("GreaterEqual", "Less"),
    "GreaterEqual": ("Less", "Greater"), "Less": ("Greater", "GreaterEqual"), "Add": ("Sub", "Mul"),
    "AddV2": ("Sub", "Mul"), "Sub": ("AddV2", "Mul", "RealDiv"), "Mul": ("AddV2", "RealDiv", "Maximum"),
    "RealDiv": ("Mul", "Sub"), "LogicalAnd": ("LogicalOr",), "Exp": ("Sigmoid", "Neg"), "Sigmoid": ("Softmax", "Exp"),
    "Softmax": ("Sigmoid",), "Sum": ("Max", "Prod"), "Relu": ("Neg",), "Squeeze": ("Identity",),
    "ResizeBilinear": ("ResizeArea", "ResizeBicubic"), "ResizeArea": ("ResizeBilinear",), "Round": ("Floor", "Ceil"),
    "ResizeBicubic": ("ResizeArea",),
}  # fmt: skip
_FLAGS = {
    "CombinedNonMaxSuppression": ("clip_boxes", "pad_per_class"),
    "TopKV2": ("sorted",),
    "Sum": ("keep_dims",),
    **dict.fromkeys(
        ("ResizeBilinear", "ResizeBicubic", "ResizeNearestNeighbor"), ("align_corners", "half_pixel_centers")
    ),
    "ResizeArea": ("align_corners",),
}
_MASKS = ("begin_mask", "end_mask", "shrink_axis_mask")


def post_processing(graph: Graph, ends: set[str]) -> list[str]:
    """The nodes between the predictors `ends` and the detections, without those of the preprocessing."""
    pending, found = [Ref(name) for name in OUTPUTS], set[str]()
    while pending:
        name = pending.pop().name
        if name in found or name in ends or name.startswith(("Preprocessor", "FeatureExtractor")):
            continue
        found.add(name)
        pending.extend(graph.nodes[name].inputs)
    return sorted(found)


def changes(definition: pb.GraphDef, names: list[str], seed: int) -> Iterator[tuple[str, pb.GraphDef]]:
    """Changed copies of a graph, each with a sentence about its change, without end.

    Args:
        definition: the graph.
        names: of the nodes that may be changed.
        seed: of the changes.
    """
    chance = random.Random(seed)
    own = {node.name: node for node in definition.node if node.name in set(names)}
    edges = [text for node in own.values() for text in node.input if not text.startswith("^")]
    kinds = (_edge, _edge, _op, _constant, _constant, _attribute)
    while True:
        node = pb.NodeDef()
        node.CopyFrom(own[chance.choice(names)])
        what = chance.choice(kinds)(node, chance, edges)
        if what is None or node == own[node.name]:
            continue
        changed = pb.GraphDef()
        changed.CopyFrom(definition)
        next(other for other in changed.node if other.name == node.name).CopyFrom(node)
        yield f"{node.name} ({own[node.name].op}): {what}", changed


def _edge(node: pb.NodeDef, chance: random.Random, edges: list[str]) -> str | None:
    places = [place for place, text in enumerate(node.input) if not text.startswith("^")]
    if not places:
        return None
    place = chance.choice(places)
    old = node.input[place]
    if len(places) > 1 and chance.random() < 0.3:
        other = chance.choice([p for p in places if p != place])
        node.input[place], node.input[other] = node.input[other], node.input[place]
        return f"inputs {place} and {other} change places"
    near = [text for text in edges if text.rsplit("/", 1)[0] == old.rsplit("/", 1)[0]]
    node.input[place] = chance.choice(near if near and chance.random() < 0.7 else edges)
    return f"input {place} is {node.input[place]}, not {old}"


def _op(node: pb.NodeDef, chance: random.Random, edges: list[str]) -> str | None:
    if node.op not in _OTHERS:
        return None
    node.op = chance.choice(_OTHERS[node.op])
    return f"is {node.op}"


def _constant(node: pb.NodeDef, chance: random.Random, edges: list[str]) -> str | None:
    if node.op != "Const" or node.attr["value"].tensor.dtype not in (pb.DT_FLOAT, pb.DT_INT32, pb.DT_INT64):
        return None
    tensor = node.attr["value"].tensor
    value = to_array(tensor, node.name).copy()
    if value.size == 0:
        return None
    place = chance.randrange(value.size)
    old = value.reshape(-1)[place]
    new = chance.choice([old + 1, old - 1, old * 2, -old, 0, 1] if tensor.dtype != pb.DT_FLOAT else
                        [old + 0.25, old * 0.5, old * 1.5, -old, 0, 1])  # fmt: skip
    value.reshape(-1)[place] = new
    for field in ("float_val", "int_val", "int64_val"):
        tensor.ClearField(field)
    tensor.tensor_content = np.ascontiguousarray(value).tobytes()
    return f"element {place} is {new}, not {old}" if new != old else None


def _attribute(node: pb.NodeDef, chance: random.Random, edges: list[str]) -> str | None:
    if node.op in _FLAGS:
        name = chance.choice(_FLAGS[node.op])
        node.attr[name].b = not node.attr[name].b
    elif node.op == "StridedSlice":
        name = chance.choice(_MASKS)
        node.attr[name].i ^= 1 << chance.randrange(3)
    elif node.op in ("Unpack", "Pack"):
        name = "axis"
        node.attr[name].i = 1 - node.attr[name].i
    else:
        return None
    return f"another {name}"
