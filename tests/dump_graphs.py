"""Small TensorFlow graphs made without TensorFlow, for the tests of dump."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from ssdlite_caffe.dump.graph.view import Graph, Ref

TYPES = {
    "float32": pb.DT_FLOAT,
    "float64": pb.DT_DOUBLE,
    "float16": pb.DT_HALF,
    "int32": pb.DT_INT32,
    "int64": pb.DT_INT64,
    "uint8": pb.DT_UINT8,
    "bool": pb.DT_BOOL,
}


class GraphBuilder:
    """Nodes one after another; every method gives the node's name back."""

    def __init__(self) -> None:
        self.definition = pb.GraphDef()

    def node(self, name: str, op: str, *inputs: str, **attrs: Any) -> str:
        node = self.definition.node.add(name=name, op=op, input=inputs)
        for key, value in attrs.items():
            attr = node.attr[key]
            if isinstance(value, bool):
                attr.b = value
            elif isinstance(value, int):
                attr.i = value
            elif isinstance(value, float):
                attr.f = value
            elif isinstance(value, str):
                attr.s = value.encode()
            elif isinstance(value, np.dtype):
                attr.type = TYPES[value.name]
            elif isinstance(value, pb.TensorShapeProto):
                attr.shape.CopyFrom(value)
            else:
                attr.list.i.extend(value)
        return name

    def const(self, name: str, value: Any, dtype: str = "float32") -> str:
        array = np.asarray(value, dtype)
        node = self.definition.node.add(name=name, op="Const")
        node.attr["dtype"].type = TYPES[array.dtype.name]
        tensor = node.attr["value"].tensor
        tensor.dtype = TYPES[array.dtype.name]
        for size in array.shape:
            tensor.tensor_shape.dim.add(size=size)
        tensor.tensor_content = array.tobytes()
        return name

    def conv(self, scope: str, source: str, kernel: Any, **attrs: Any) -> str:
        weights = self.const(f"{scope}/weights", kernel)
        options: dict[str, Any] = {"strides": [1, 1, 1, 1], "padding": "SAME", **attrs}
        return self.node(
            f"{scope}/Conv2D", "Conv2D", source, self.node(f"{weights}/read", "Identity", weights), **options
        )

    def graph(self) -> Graph:
        return Graph(self.definition.node, source="test.pb")

    def write(self, path: Path) -> Path:
        path.write_bytes(self.definition.SerializeToString())
        return path


def shape_proto(*sizes: int) -> pb.TensorShapeProto:
    return pb.TensorShapeProto(dim=[pb.TensorShapeProto.Dim(size=size) for size in sizes])


def ref(name: str) -> Ref:
    return Ref(name)


def mini_detector(
    *,
    classes: int = 3,
    resize: tuple[int, int] = (24, 32),
    score_threshold: float = 0.25,
    sigma: float = 0.0,
    class_nodes: int | None = None,
    reciprocal: bool = False,
    logit_divisor: float = 2.0,
    converter: str = "Sigmoid",
) -> GraphBuilder:
    """A detector in small: image, resize, stem, one predictor of two boxes a cell, decoder and suppression.

    `classes` leaves out background. The numbers in it are all different, so that none can stand for another.
    """
    b = GraphBuilder()
    rng = np.random.default_rng(7)
    b.node("image_tensor", "Placeholder", dtype=np.dtype("uint8"), shape=shape_proto(-1, -1, -1, 3))
    b.node("Cast", "Cast", "image_tensor", SrcT=np.dtype("uint8"), DstT=np.dtype("float32"))
    b.node("resize", "ResizeBilinear", "Cast", b.const("resize/size", resize, "int32"))
    b.node("Preprocessor/mul", "Mul", b.const("Preprocessor/mul/x", 2 / 255), "resize")
    b.node("Preprocessor/sub", "Sub", "Preprocessor/mul", b.const("Preprocessor/sub/y", 1.0))
    stem = "FeatureExtractor/MobilenetV2/Conv"
    b.conv(stem, "Preprocessor/sub", rng.normal(size=(3, 3, 3, 5)), strides=[1, 2, 2, 1])
    b.node(f"{stem}/BiasAdd", "BiasAdd", f"{stem}/Conv2D", b.const(f"{stem}/biases", rng.normal(size=5)))
    b.node(f"{stem}/Relu6", "Relu6", f"{stem}/BiasAdd")
    for kind, columns in (("BoxEncodingPredictor", 8), ("ClassPredictor", 2 * (classes + 1))):
        scope = f"BoxPredictor_0/{kind}"
        b.conv(scope, f"{stem}/Relu6", rng.normal(size=(1, 1, 5, columns)))
        b.node(f"{scope}/BiasAdd", "BiasAdd", f"{scope}/Conv2D", b.const(f"{scope}/biases", rng.normal(size=columns)))
        last = 4 if columns == 8 else classes + 1
        b.node(f"{kind}/Reshape", "Reshape", f"{scope}/BiasAdd", b.const(f"{kind}/shape", [1, -1, last], "int32"))
    _decoder(b, "BoxEncodingPredictor/Reshape", rng, resize, reciprocal=reciprocal)
    b.node("scale", "RealDiv", "ClassPredictor/Reshape", b.const("scale/y", logit_divisor))
    b.node("scores", converter, "scale")
    b.node(
        "cut", "Slice", "scores", b.const("cut/begin", [0, 0, 1], "int32"), b.const("cut/size", [-1, -1, -1], "int32")
    )
    for index in range(classes if class_nodes is None else class_nodes):
        _suppression(b, f"nms_{index}", score_threshold, sigma)
    b.node("total", "Minimum", b.const("total/x", 13, "int32"), "nms_0")
    return b


def mini_boxes(resize: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The default boxes of `mini_detector`."""
    count = 2 * ((resize[0] + 1) // 2) * ((resize[1] + 1) // 2)
    return np.random.default_rng(3).uniform(-0.1, 1.1, (count, 4)).astype(np.float32)


def _decoder(
    b: GraphBuilder, codes: str, rng: np.random.Generator, resize: tuple[int, int], *, reciprocal: bool
) -> None:
    boxes = mini_boxes(resize)
    half = len(boxes) // 2
    axis = b.const("boxes/axis", 0, "int32")
    b.node("boxes", "ConcatV2", b.const("boxes/0", boxes[:half]), b.const("boxes/1", boxes[half:]), axis)
    b.node("boxes/batch", "ExpandDims", "boxes", axis)
    b.node("boxes/shape", "Shape", codes)
    first, second = b.const("boxes/first", [0], "int32"), b.const("boxes/second", [1], "int32")
    b.node("boxes/count", "StridedSlice", "boxes/shape", first, second, second, shrink_axis_mask=1)
    one = b.const("boxes/one", 1, "int32")
    b.node("boxes/tiled", "Tile", "boxes/batch", b.node("boxes/multiples", "Pack", "boxes/count", one, one))
    flat = b.const("flat", [-1, 4], "int32")
    turn = b.const("turn", [1, 0], "int32")
    b.node(
        "anchors",
        "Unpack",
        b.node("anchors/t", "Transpose", b.node("anchors/r", "Reshape", "boxes/tiled", flat), turn),
        num=4,
    )
    b.node("codes", "Unpack", b.node("codes/t", "Transpose", b.node("codes/r", "Reshape", codes, flat), turn), num=4)
    b.node("width", "Sub", "anchors:3", "anchors:1")
    b.node("height", "Sub", "anchors:2", "anchors")
    for port, (name, scale) in enumerate({"ty": 10.0, "tx": 8.0, "th": 5.0, "tw": 4.0}.items()):
        source = "codes" if port == 0 else f"codes:{port}"
        op, value = ("Mul", np.float32(1 / scale)) if reciprocal else ("RealDiv", np.float32(scale))
        b.node(name, op, source, b.const(f"{name}/y", value))
    b.node("h", "Mul", b.node("exp_h", "Exp", "th"), "height")
    b.node("w", "Mul", b.node("exp_w", "Exp", "tw"), "width")
    two = b.const("two", 2.0)
    centres = {}
    for side, start, size, moved in (("y", "anchors", "height", "ty"), ("x", "anchors:1", "width", "tx")):
        middle = b.node(f"{side}/centre", "AddV2", start, b.node(f"{side}/default_half", "RealDiv", size, two))
        centres[side] = b.node(side, "AddV2", b.node(f"{side}/product", "Mul", moved, size), middle)
    halves = {side: b.node(f"{side}/half", "RealDiv", size, two) for side, size in (("y", "h"), ("x", "w"))}
    corners = [b.node(f"{side}min", "Sub", centres[side], halves[side]) for side in centres]
    corners += [b.node(f"{side}max", "AddV2", centres[side], halves[side]) for side in centres]
    b.node("decoded", "Pack", *corners)


def _suppression(b: GraphBuilder, name: str, score_threshold: float, sigma: float) -> None:
    b.node(f"{name}/flat", "Reshape", "cut", b.const(f"{name}/flat/shape", [-1], "int32"))
    b.node(f"{name}/above", "Greater", f"{name}/flat", b.const(f"{name}/above/y", score_threshold))
    b.node(f"{name}/where", "Where", f"{name}/above")
    b.node(f"{name}/scores", "Gather", f"{name}/flat", f"{name}/where")
    b.node(f"{name}/limit", "Minimum", b.const(f"{name}/limit/x", 11, "int32"), b.node(f"{name}/n", "Size", "decoded"))
    b.node(
        name,
        "NonMaxSuppressionV5",
        "decoded",
        f"{name}/scores",
        f"{name}/limit",
        b.const(f"{name}/iou", 0.55),
        b.const(f"{name}/score", -np.inf),
        b.const(f"{name}/sigma", sigma),
    )
