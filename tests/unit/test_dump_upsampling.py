"""Maps made twice as large: the forms that graphs have, and what is none of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from ssdlite_caffe.dump.detector.affine import Constants
from ssdlite_caffe.dump.detector.map_sizes import FeatureMaps
from ssdlite_caffe.dump.detector.wiring import expression, scopes_in
from ssdlite_caffe.dump.graph.constants import Evaluator
from ssdlite_caffe.dump.graph.view import Ref
from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.load.graph_check import _expressions, check_graph
from ssdlite_caffe.load.recognise import recognise
from tests.dump_graphs import GraphBuilder
from tests.models import model_of
from tests.unit.test_gen_model_pyramid import fpnlite


def doubled(form: str, *, size: tuple[int, int] = (8, 12), axes: tuple[int, int] = (3, 2), **options: bool) -> str:
    """A 4x6 map made twice as large; gives its expression."""
    b = graph(form, size=size, axes=axes, **options)
    return expression(Constants.of(b.graph()), {Ref("map"): "a/conv"}, Ref("end"))


def graph(
    form: str, *, size: tuple[int, int] = (8, 12), axes: tuple[int, int] = (3, 2), **options: bool
) -> GraphBuilder:
    b = GraphBuilder()
    b.node("map", "Placeholder")
    if form == "packed":
        last = "map"
        for axis, shape in zip(axes, ((1, 4, 12, 5), (1, 8, 12, 5)), strict=True):
            b.node(f"pack{axis}", "Pack", last, last, axis=axis)
            last = b.node(f"reshape{axis}", "Reshape", f"pack{axis}", b.const(f"shape{axis}", shape, "int32"))
        b.node("end", "Identity", last)
        return b
    if form == "constant":
        wanted = b.const("size", size, "int32")
    else:
        b.node("shape", "Shape", "map")
        sides = []
        for place in (1, 2):
            ends = [b.const(f"{name}{place}", [at], "int32") for name, at in (("from", place), ("to", place + 1))]
            b.node(
                f"side{place}", "StridedSlice", "shape", *ends, b.const(f"by{place}", [1], "int32"), shrink_axis_mask=1
            )
            factor = b.const(f"factor{place}", size[place - 1] // (4, 6)[place - 1], "int32")
            sides.append(b.node(f"times{place}", "Mul", f"side{place}", factor))
        wanted = b.node("size", "Pack", *sides)
    b.node("end", "ResizeNearestNeighbor", "map", wanted, **options)
    return b


@pytest.mark.parametrize(
    ("form", "text"), [("packed", "doubled"), ("times two", "doubled"), ("constant", "doubled8x12")]
)
def test_forms(form: str, text: str) -> None:
    assert doubled(form) == f"{text}(a/conv)"
    assert scopes_in(doubled(form)) == {"a/conv"}
    b = graph(form)
    maps = FeatureMaps(b.graph(), Evaluator(b.graph()), Ref("map"), (4, 6))
    assert maps.shape(Ref("end")) == (1, 8, 12, 3)


def cut(
    size: tuple[int, ...] = (0, 8, 12, 0), *, begin: tuple[int, ...] = (0, 0, 0, 0), step: int = 1, **masks: int
) -> GraphBuilder:
    """A doubled map cut as with use_explicit_padding."""
    b = graph("packed")
    edges = [b.const(name, value, "int32") for name, value in (("begin", begin), ("to", size), ("by", [1, step, 1, 1]))]
    b.node("cut", "StridedSlice", "end", *edges, **{"begin_mask": 15, "end_mask": 9, **masks})
    return b


@pytest.mark.parametrize("size", [(8, 12), (7, 11), (9, 12)])
def test_a_cut_has_its_size(size: tuple[int, int]) -> None:
    b = cut((0, *size, 0))
    text = expression(Constants.of(b.graph()), {Ref("map"): "a/conv"}, Ref("cut"))
    assert text == f"doubled{size[0]}x{size[1]}(a/conv)"
    maps = FeatureMaps(b.graph(), Evaluator(b.graph()), Ref("map"), (4, 6))
    assert maps.shape(Ref("cut")) == (1, min(size[0], 8), size[1], 3)


@pytest.mark.parametrize(
    "other",
    [
        {"step": 2},
        {"size": (0, -1, 12, 0)},
        {"size": (0, 8, 12)},
        {"end_mask": 0},
        {"end_mask": 15},
        {"begin": (0, 1, 0, 0), "begin_mask": 0},
        {"shrink_axis_mask": 1},
        {"new_axis_mask": 1},
    ],
)
def test_other_cuts(other: dict[str, Any]) -> None:
    b = cut(**other)
    assert expression(Constants.of(b.graph()), {Ref("map"): "a/conv"}, Ref("cut")) == "StridedSlice cut"


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("packed", {"axes": (2, 3)}),
        ("times two", {"size": (12, 18)}),
        ("times two", {"half_pixel_centers": True}),
        ("constant", {"half_pixel_centers": True}),
        ("constant", {"align_corners": True}),
    ],
)
def test_others(form: str, options: dict[str, object]) -> None:
    assert not doubled(form, **options).startswith("doubled")  # type: ignore[arg-type]


def test_constant_sizes_are_compared_with_the_maps() -> None:
    arch = dataclasses.replace(fpnlite((96, 160), classes=3), residuals="tf2")
    net = build(arch)
    model = model_of(arch, seed=None)

    def read(sizes: bool, *changes: str) -> None:
        inputs = _expressions(net, sizes=sizes)
        convs = {conv.tf_scope: inputs.get(conv.bottom) for conv in net.convolutions}
        assert sum("doubled" in (text or "") for text in convs.values()) == 2
        units = [
            dataclasses.replace(unit, input=text and text.replace(*changes) if changes else text)
            for unit, text in zip(model.units, convs.values(), strict=True)
        ]
        check_graph(dataclasses.replace(model, units=tuple(units)), net)

    read(False)
    read(True)
    with pytest.raises(ModelError, match=r"smoothing_2_depthwise reads sum\(.*doubled6x11\("):
        read(True, "doubled6x10(", "doubled6x11(")


def test_one_changed_edge_is_all_that_is_named() -> None:
    """With TensorFlow 2's rule of residual sums too: the sums of the other rule are not listed."""
    arch = dataclasses.replace(fpnlite((96, 160), classes=3), residuals="tf2")
    net, model = build(arch), model_of(arch, seed=None)
    inputs = _expressions(net)
    wanted = (inputs.get(conv.bottom) for conv in net.convolutions)
    units = tuple(
        dataclasses.replace(unit, input="StridedSlice cut" if "doubled" in (text or "") else text)
        for unit, text in zip(model.units, wanted, strict=True)
    )
    with pytest.raises(ModelError) as error:
        recognise(dataclasses.replace(model, units=units))
    assert str(error.value).count(" reads StridedSlice cut") == 2
    assert str(error.value).count("in the family") == 2


def test_both_resizes_repeat_each_value() -> None:
    """floor(i * (4 / 8)) in float32 is i // 2 for every i, which is what Deconvolution writes."""
    for size in range(1, 200):
        scale = np.float32(size) / np.float32(2 * size)
        assert [int(np.float32(i) * scale) for i in range(2 * size)] == [i // 2 for i in range(2 * size)]
