"""The resizer of a graph, recognised without TensorFlow."""

from __future__ import annotations

import numpy as np
import pytest

from ssdlite_caffe.dump.detector.take_apart import take_apart
from ssdlite_caffe.dump.model import Settings
from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.resizer import Method, Resizer
from tests.dump_graphs import GraphBuilder, mini_detector


def settings_of(builder: GraphBuilder) -> Settings:
    return take_apart(builder.graph())[1]


def resizing(op: str, *, normalise_first: bool = False, **attrs: bool) -> GraphBuilder:
    """The small detector with another resize, before or after its pixels are normalised."""
    graph = mini_detector()
    nodes = {node.name: node for node in graph.definition.node}
    node = nodes["resize"]
    node.op = op
    for name, value in attrs.items():
        node.attr[name].b = value
    if normalise_first:
        nodes["Preprocessor/mul"].input[1] = "Cast"
        node.input[0] = "Preprocessor/sub"
        next(n for n in graph.definition.node if n.name.endswith("Conv/Conv2D")).input[0] = "resize"
    return graph


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(
    ("op", "method"),
    [("ResizeBicubic", "bicubic"), ("ResizeNearestNeighbor", "nearest"), ("ResizeArea", "area")],
)
def test_method_and_order(op: str, method: Method, first: bool) -> None:
    settings = settings_of(resizing(op, normalise_first=first))
    assert settings.resizer == Resizer(method=method, normalise_first=first)
    assert settings.input_size == (24, 32)
    assert (settings.pixel_scale, settings.pixel_offset) == (float(np.float32(2 / 255)), -1.0)


@pytest.mark.parametrize("first", [False, True])
def test_the_usual_resize_is_plain_in_either_order(first: bool) -> None:
    assert settings_of(resizing("ResizeBilinear", normalise_first=first)).resizer == Resizer()


@pytest.mark.parametrize("name", ["align_corners", "half_pixel_centers"])
def test_corners(name: str) -> None:
    found = settings_of(resizing("ResizeBilinear", **{name: True})).resizer
    assert found == Resizer(align_corners=name == "align_corners", half_pixel_centers=name == "half_pixel_centers")


def test_corners_that_no_op_has() -> None:
    with pytest.raises(ModelError, match=r"test\.pb: resize: align_corners and half_pixel_centers must not both"):
        settings_of(resizing("ResizeBilinear", align_corners=True, half_pixel_centers=True))


def test_a_resize_between_scale_and_offset() -> None:
    graph = resizing("ResizeArea")
    nodes = {node.name: node for node in graph.definition.node}
    nodes["Preprocessor/mul"].input[1] = "Cast"
    nodes["resize"].input[0] = "Preprocessor/mul"
    nodes["Preprocessor/sub"].input[0] = "resize"
    with pytest.raises(ModelError, match=r"fixed_shape, area.* between scaling and shifting"):
        settings_of(graph)


# ---- letterboxes: sizes computed from the image's ----


def letterbox(side: int = 24, *, pads: str = "after", wide: int = 32, bounds: str = "Minimum") -> GraphBuilder:
    """The image resized with its shape kept, to fit into side x side, and padded to it, or to side x wide."""
    b = GraphBuilder()
    detector = mini_detector(resize=(side, side))
    b.definition.node.extend(n for n in detector.definition.node if n.name not in ("resize", "resize/size"))
    zero, one, two, three = (b.const(f"at/{i}", [i], "int32") for i in range(4))
    b.node("shape", "Shape", "Cast")

    def as_float(name: str) -> str:
        return b.node(f"{name}/float", "Cast", name, SrcT=np.dtype("int32"), DstT=np.dtype("float32"))

    kept = []
    for name, start, end in (("height", one, two), ("width", two, three)):
        b.node(f"image/{name}", "StridedSlice", "shape", start, end, one, shrink_axis_mask=1)
        as_float(f"image/{name}")
        b.node(f"factor/{name}", "RealDiv", b.const(f"side/{name}", float(side)), f"image/{name}/float")
    b.node("factor", bounds, "factor/height", "factor/width")
    for name in ("height", "width"):
        b.node(f"kept/{name}/exact", "Mul", "factor", f"image/{name}/float")
        rounded = b.node(f"kept/{name}/round", "Round", f"kept/{name}/exact")
        kept.append(b.node(f"kept/{name}", "Cast", rounded, SrcT=np.dtype("float32"), DstT=np.dtype("int32")))
    b.node("inner", "ResizeBilinear", "Cast", b.node("kept", "Pack", *kept))
    rest = []
    for name, full in (("height", side), ("width", wide if pads == "wide" else side)):
        left = b.node(f"rest/{name}", "Sub", b.const(f"full/{name}", full, "int32"), f"kept/{name}")
        none = b.const(f"none/{name}", 0, "int32")
        rest.append(b.node(f"pads/{name}", "Pack", *((none, left) if pads != "before" else (left, none))))
    nothing = b.const("pads/nothing", [0, 0], "int32")
    pad = b.node("pads", "Pack", nothing, *rest, nothing)
    b.node("resize", "PadV2", "inner", pad, b.const("pad/value", 7.0))
    assert zero
    return b


def test_a_letterbox() -> None:
    settings = settings_of(letterbox())
    expected = Resizer("keep_aspect_ratio", min_dimension=24, max_dimension=24, pad_value=(7.0, 7.0, 7.0))
    assert settings.resizer == expected
    assert settings.input_size == (24, 24)


@pytest.mark.parametrize("other", [{"pads": "before"}, {"pads": "wide"}])
def test_padded_otherwise(other: dict[str, str]) -> None:
    with pytest.raises(ModelError, match="padded at the bottom and on the right"):
        settings_of(letterbox(**other))  # type: ignore[arg-type]


def test_an_image_that_would_not_fit() -> None:
    with pytest.raises(ModelError, match="pads images in another way"):
        settings_of(letterbox(bounds="Maximum"))


def test_a_size_that_depends_on_the_image() -> None:
    graph = letterbox()
    next(n for n in graph.definition.node if n.name == "Preprocessor/mul").input[1] = "inner"
    with pytest.raises(ModelError, match=r"1000x1000 to 24x24, 480x640 to 18x24; only one size"):
        settings_of(graph)


def test_a_size_that_is_computed_from_something_else() -> None:
    graph = letterbox()
    graph.node("secret", "Placeholder", dtype=np.dtype("int32"))
    next(n for n in graph.definition.node if n.name == "inner").input[1] = "secret"
    with pytest.raises(ModelError, match=r"secret \(Placeholder\) is not understood"):
        settings_of(graph)
