"""What a graph does to images is run, and held against the settings that are read of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.dump.detector.affine import Constants
from ssdlite_caffe.dump.detector.image_check import check_preprocessing
from ssdlite_caffe.dump.detector.preprocessing import first_convolution, network_input
from ssdlite_caffe.dump.detector.take_apart import take_apart
from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from ssdlite_caffe.dump.graph.view import Graph
from ssdlite_caffe.dump.model import Settings
from ssdlite_caffe.errors import ModelError
from tests.conftest import ROOT
from tests.preprocessing_changes import Added

EXAMPLE = ROOT / "examples" / "frozen_inference_graph.pb"
IMAGE, FLOATS, RESIZED, END = ("image_tensor", "Preprocessor/Cast", "Preprocessor/ResizeBilinear", "Preprocessor/sub")


@pytest.fixture
def example() -> pb.GraphDef:
    return pb.GraphDef.FromString(EXAMPLE.read_bytes())


def node_of(definition: pb.GraphDef, name: str) -> pb.NodeDef:
    return next(node for node in definition.node if node.name == name)


def read(definition: pb.GraphDef) -> tuple[str, ...]:
    """The notes about a graph's preprocessing."""
    constants = Constants.of(Graph(definition.node, source="graph.pb"))
    stem = first_convolution(constants.graph)
    assert stem is not None
    found = network_input(constants, stem)
    settings = Settings(found.size, found.resizer, found.scale, found.offset)
    return check_preprocessing(constants, settings)


def put(definition: pb.GraphDef, behind: str, make: Callable[[Added], str]) -> None:
    """Add nodes behind one, whose readers read the new ones."""
    readers = [(node, place) for node in definition.node for place, text in enumerate(node.input) if text == behind]
    found = make(Added(definition, behind, pb.DT_UINT8 if behind == IMAGE else pb.DT_FLOAT, 4))
    for node, place in readers:
        node.input[place] = found


def test_the_example_is_checked_without_a_note(example: pb.GraphDef) -> None:
    assert take_apart(Graph(example.node, source="graph.pb")).notes == ()
    assert read(example) == ()


def _less_itself(a: Added) -> str:
    return a.same("Sub", a.text, a.same("Mul", a.text, a.number(0.25)))


def _inverse(a: Added) -> str:
    return a.same("RealDiv", a.number(1), a.text)


def _wrapped(a: Added) -> str:
    return a.same("AddV2", a.text, a.number(200))


def _per_channel(a: Added) -> str:
    return a.same("AddV2", a.text, a.number([3, 2, 1]))


def _whole(op: str, value: int) -> Callable[[Added], str]:
    def make(a: Added) -> str:
        inner = a.cast(a.text, a.dtype, pb.DT_INT32)
        return a.cast(a.same(op, inner, a.constant(value, np.int32), dtype=pb.DT_INT32), pb.DT_INT32, a.dtype)

    return make


def _turned(a: Added) -> str:
    """Height and width exchanged by a Reshape, which moves no value."""
    shape = a.shape()
    exchanged = a.op("GatherV2", shape, a.constant([0, 2, 1, 3], np.int32), a.constant(0, np.int32),
                     Tparams=pb.DT_INT32, Tindices=pb.DT_INT32, Taxis=pb.DT_INT32)  # fmt: skip
    return a.op("Reshape", a.text, exchanged, T=a.dtype, Tshape=pb.DT_INT32)


def _half(a: Added) -> str:
    return a.cast(a.cast(a.text, a.dtype, pb.DT_HALF), pb.DT_HALF, a.dtype)


def _for_tall_images(a: Added) -> str:
    """Another branch for images that are higher than wide."""
    shape, one = a.shape(), a.constant([1], np.int32)
    height, width = (
        a.op("Slice", shape, a.constant([axis], np.int32), one, T=pb.DT_INT32, Index=pb.DT_INT32) for axis in (1, 2)
    )
    truth = a.op("Squeeze", a.op("Greater", height, width, T=pb.DT_INT32), T=pb.DT_BOOL)
    switch = a.op("Switch", a.text, truth, T=a.dtype)
    twice = a.same("AddV2", f"{switch}:1", f"{switch}:1")
    return a.op("Merge", switch, twice, T=a.dtype, N=2)


@pytest.mark.parametrize(
    ("behind", "make"),
    [
        (RESIZED, _less_itself),
        (FLOATS, _less_itself),
        (RESIZED, _inverse),
        (IMAGE, _wrapped),
        (IMAGE, _per_channel),
        (IMAGE, _whole("AddV2", 100)),
        (IMAGE, _whole("Mul", 2)),
        (FLOATS, _turned),
        (RESIZED, _half),
        (FLOATS, _for_tall_images),
        (END, _less_itself),
    ],
)
def test_another_preprocessing_is_refused(example: pb.GraphDef, behind: str, make: Callable[[Added], str]) -> None:
    put(example, behind, make)
    with pytest.raises(ModelError, match="does not prepare images as it was read") as caught:
        read(example)
    added = [node.name for node in example.node if "/added_" in node.name]
    assert any(name in str(caught.value) for name in added), "a new node is among those that may be the cause"


def _large(a: Added) -> str:
    """Whether an image has more than 1000 rows."""
    shape, one = a.shape(), a.constant([1], np.int32)
    rows = a.op("Slice", shape, a.constant([1], np.int32), one, T=pb.DT_INT32, Index=pb.DT_INT32)
    return a.op("Squeeze", a.op("Greater", rows, a.constant([1000], np.int32), T=pb.DT_INT32), T=pb.DT_BOOL)


def test_another_branch_for_large_images_alone_is_refused(example: pb.GraphDef) -> None:
    def make(a: Added) -> str:
        switch = a.op("Switch", a.text, _large(a), T=a.dtype)
        return a.op("Merge", switch, a.same("Mul", f"{switch}:1", a.number(1.0)), T=a.dtype, N=2)

    put(example, FLOATS, make)
    with pytest.raises(
        ModelError, match=r"graph.pb scales or shifts images of 1000x1000 .* in another way than those of"
    ):
        read(example)


def test_whole_numbers_chosen_for_large_images_alone_are_refused(example: pb.GraphDef) -> None:
    def make(a: Added) -> str:
        whole = a.cast(a.text, a.dtype, pb.DT_INT32)
        half = a.same("FloorDiv", whole, a.constant(2, np.int32), dtype=pb.DT_INT32)
        return a.cast(a.op("SelectV2", _large(a), half, whole, T=pb.DT_INT32), pb.DT_INT32, a.dtype)

    put(example, IMAGE, make)
    with pytest.raises(ModelError, match=r"\((FloorDiv|SelectV2)\) changes the image before the first convolution"):
        read(example)


@pytest.mark.parametrize("other", [pb.DT_INT32, pb.DT_INT64, pb.DT_HALF, pb.DT_DOUBLE])
def test_a_number_format_that_holds_every_pixel_changes_nothing(example: pb.GraphDef, other: int) -> None:
    put(example, IMAGE, lambda a: a.cast(a.cast(a.text, a.dtype, other), other, pb.DT_FLOAT))
    assert node_of(example, FLOATS).op == "Cast"
    node_of(example, FLOATS).attr["SrcT"].type = pb.DT_FLOAT
    assert read(example) == ()


def test_an_op_that_cannot_be_run_is_noted_by_name(example: pb.GraphDef) -> None:
    put(example, IMAGE, lambda a: a.op("TensorListConcat", a.text))
    (note,) = read(example)
    assert "it was not checked whether the graph prepares images as it was read" in note
    assert "image_tensor/added_1 (TensorListConcat)" in note


def test_a_decoded_image(example: pb.GraphDef) -> None:
    """A graph that decodes image files is run from the decoded image on."""
    text = node_of(example, IMAGE)
    text.attr["dtype"].type = pb.DT_STRING
    text.attr["shape"].shape.Clear()
    put(example, IMAGE, _decoded)
    assert read(example) == ()
    node_of(example, "Preprocessor/Cast").op = "Snapshot"
    node_of(example, "Preprocessor/mul").input[1] = "Preprocessor/ResizeBilinear"
    with pytest.raises(ModelError, match="does not prepare images"):
        read(example)


def _decoded(a: Added) -> str:
    image = a.op("DecodeJpeg", a.text)
    return a.op("ExpandDims", image, a.constant(0, np.int32), T=pb.DT_UINT8, Tdim=pb.DT_INT32)


def test_two_images_are_noted(example: pb.GraphDef) -> None:
    def second(a: Added) -> str:
        node = a.graph.node.add(name="other_image", op="Placeholder")
        node.attr["dtype"].type = pb.DT_FLOAT
        return a.same("AddV2", a.text, "other_image")

    put(example, RESIZED, second)
    (note,) = read(example)
    assert "2 placeholders" in note


def test_a_loop_that_reads_its_own_end_is_noted(shared_models: Path) -> None:
    path = shared_models / "shapes_v3_small_3/frozen_inference_graph.pb"
    definition = pb.GraphDef.FromString(path.read_bytes())
    end = next(node.name for node in definition.node if node.op == "Exit" and node.name.startswith("Preprocessor/map"))
    node_of(definition, "Preprocessor/map/while/Less").input[1] = end
    (note,) = read(definition)
    assert "more than 4 loops in each other" in note
