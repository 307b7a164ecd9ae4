"""What is between a graph's predictors and its detections is run, and held against the settings that are read of it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ssdlite_caffe.dump.detector.scenes import Rules, encodings_of, expected, logits_of, scenes
from ssdlite_caffe.dump.detector.take_apart import Parts, take_apart
from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from ssdlite_caffe.dump.graph.tensors import to_array
from ssdlite_caffe.dump.graph.view import Graph
from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.gen_model.arch import Nms
from ssdlite_caffe.runtimes.decode import choose_detections, convert_scores, decode_boxes
from tests.conftest import ROOT
from tests.dump_graphs import mini_boxes

EXAMPLE = ROOT / "examples" / "frozen_inference_graph.pb"


@pytest.fixture
def example() -> pb.GraphDef:
    return pb.GraphDef.FromString(EXAMPLE.read_bytes())


def node_of(definition: pb.GraphDef, name: str) -> pb.NodeDef:
    return next(node for node in definition.node if node.name == name)


def put(definition: pb.GraphDef, name: str, value: float, place: int = 0) -> None:
    tensor = node_of(definition, name).attr["value"].tensor
    array = to_array(tensor, name).copy()
    assert array.reshape(-1)[place] != value
    array.reshape(-1)[place] = value
    for field in ("float_val", "int_val"):
        tensor.ClearField(field)
    tensor.tensor_content = array.tobytes()


def read(definition: pb.GraphDef) -> Parts:
    return take_apart(Graph(definition.node, source="graph.pb"))


def test_the_example_is_checked_without_a_note(example: pb.GraphDef) -> None:
    assert read(example).notes == ()


@pytest.mark.parametrize(
    ("name", "value", "place"),
    [
        ("NMS/Minimum/y", 0.5, "detection_boxes"),  # the window that boxes are clipped to
        ("NMS/Maximum/y", 0.25, "detection_boxes"),
        ("NMS/add/y", 0.0, "detection_boxes"),  # the first class
        ("NMS/Greater/y", 0.01, "detection_boxes"),  # the area below which a box is dropped
        ("NMS/GreaterEqual/y", 0.5, "detection_boxes"),
        ("Decode/truediv_4/y", 3.0, "Postprocessor/Decode/stack"),
    ],
)
def test_a_changed_constant(example: pb.GraphDef, name: str, value: float, place: str) -> None:
    put(example, f"Postprocessor/{name}", value)
    with pytest.raises(ModelError, match=f"does not choose detections as .* the cause is between .*{place}"):
        read(example)


@pytest.mark.parametrize(
    ("name", "op"),
    [("Minimum", "Maximum"), ("sub", "AddV2"), ("and", "LogicalOr"), ("Less", "Greater"), ("add", "Mul")],
)
def test_another_op(example: pb.GraphDef, name: str, op: str) -> None:
    node_of(example, f"Postprocessor/NMS/{name}").op = op
    with pytest.raises(ModelError, match="does not choose detections"):
        read(example)


@pytest.mark.parametrize(
    ("name", "place", "other"),
    [
        ("unstack", 0, "Minimum"),
        ("sub_1", 1, "unstack"),
        ("SelectV2_3", 1, "GreaterEqual"),
        ("GatherV2", 0, "combined_non_max_suppression/CombinedNonMaxSuppression"),
    ],
)
def test_another_edge(example: pb.GraphDef, name: str, place: int, other: str) -> None:
    """Boxes not clipped, areas of other corners, scores of none, boxes before they were clipped."""
    node = node_of(example, f"Postprocessor/NMS/{name}")
    assert node.input[place] != f"Postprocessor/NMS/{other}"
    node.input[place] = f"Postprocessor/NMS/{other}"
    with pytest.raises(ModelError, match="does not choose detections"):
        read(example)


def test_two_corners_of_boxes_that_change_places(example: pb.GraphDef) -> None:
    inputs = node_of(example, "Postprocessor/Decode/stack").input
    inputs[0], inputs[1] = inputs[1], inputs[0]
    (note,) = read(example).notes
    assert "not all of its default boxes have an area" in note


def test_an_op_that_cannot_be_run_is_noted(example: pb.GraphDef) -> None:
    node_of(example, "Postprocessor/NMS/Minimum").op = "Atan2"
    (note,) = read(example).notes
    assert "was not checked" in note
    assert "Postprocessor/NMS/Minimum (Atan2)" in note


def test_other_names_of_outputs_are_noted(example: pb.GraphDef) -> None:
    node_of(example, "num_detections").name = "count"
    (note,) = read(example).notes
    assert "it has no outputs detection_boxes" in note


# ---- scenes ----

RULES = Rules(mini_boxes((24, 32)), (10.0, 10.0, 5.0, 5.0), 4, "sigmoid", 1.0, 0.6, 1e-8, 20, 30, False)


@pytest.fixture
def boxes() -> np.ndarray:
    corners = np.sort(mini_boxes((48, 64)).reshape(-1, 2, 2), axis=1)
    return corners.reshape(-1, 4)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"converter": "softmax", "score_threshold": 0.3},
        {"logit_scale": 0.5, "clip_first": True},
        {"classes": 2, "iou_threshold": 0.3},
        {"classes": 91, "max_per_class": 100, "max_total": 100, "score_threshold": 0.0},
        {"converter": "identity", "max_total": 5, "max_per_class": 40, "score_threshold": 0.5},
    ],
)
def test_the_detections_of_scenes_are_those_of_the_reference_decoder(
    boxes: np.ndarray, changes: dict[str, object]
) -> None:
    rules = dataclasses.replace(RULES, default_boxes=boxes, **changes)  # type: ignore[arg-type]
    nms = Nms(rules.iou_threshold, rules.score_threshold, rules.max_per_class, rules.max_total, rules.clip_first)
    counts = []
    for scene in scenes(rules):
        codes = encodings_of(rules, scene)[:, [1, 0, 3, 2]]
        decoded = decode_boxes(codes, boxes[:, [1, 0, 3, 2]], np.asarray([0.1, 0.1, 0.2, 0.2]))
        scores = convert_scores(logits_of(rules, scene) * np.float32(rules.logit_scale), rules.converter)  # type: ignore[arg-type]
        found = choose_detections(decoded, scores, nms)
        ours, values, classes = expected(rules, scene)
        np.testing.assert_array_equal(found.classes, classes)
        np.testing.assert_allclose(found.scores, values, atol=1e-5)
        np.testing.assert_allclose(found.boxes[:, [1, 0, 3, 2]], ours, atol=1e-5)
        counts.append(len(classes))
    assert counts[0] == min(rules.max_total, rules.max_per_class * (rules.classes - 1))
    assert 0 < counts[1] < rules.max_total
    assert counts[3] == 0


@pytest.mark.parametrize("pairs", [1, 700])
def test_scenes_are_the_same_with_few_pairs_of_boxes_at_a_time(
    pairs: int, boxes: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssdlite_caffe.dump.detector.scenes._MARGIN", 0.05)
    rules = dataclasses.replace(RULES, default_boxes=boxes)
    whole = scenes(rules)
    monkeypatch.setattr("ssdlite_caffe.dump.detector.scenes._PAIRS", pairs)
    for one, other in zip(whole, scenes(rules), strict=True):
        np.testing.assert_array_equal(one.boxes, other.boxes)
        np.testing.assert_array_equal(one.scores, other.scores)


def test_no_two_boxes_of_a_scene_overlap_by_about_the_threshold(
    boxes: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As computed pair by pair here; for a margin within which some boxes are."""
    monkeypatch.setattr("ssdlite_caffe.dump.detector.scenes._MARGIN", 0.05)
    rules = dataclasses.replace(RULES, default_boxes=boxes, max_per_class=60)
    scene = scenes(rules)[0]
    placed = scene.boxes[(scene.scores[:, 1:] > 0).any(axis=1)]
    ious = []
    for both in (placed, placed.clip(0, 1)):
        for index, (y0, x0, y1, x1) in enumerate(both):
            for top, left, bottom, right in both[:index]:
                inside = max(min(y1, bottom) - max(y0, top), 0) * max(min(x1, right) - max(x0, left), 0)
                ious.append(inside / ((y1 - y0) * (x1 - x0) + (bottom - top) * (right - left) - inside or 1))
    assert (np.abs(np.asarray(ious) - 0.6) < 0.1).any()
    assert (np.abs(np.asarray(ious) - 0.6) >= 0.05).all()


def test_boxes_of_a_padded_image_are_fractions_of_the_image(boxes: np.ndarray) -> None:
    """Boxes are clipped to the image, which is the upper left part of the input, and then measured in it."""
    rules = dataclasses.replace(RULES, default_boxes=boxes)
    edges = []
    for scene in (scene for seed in range(5) for scene in scenes(rules, [(1.0, 0.75)], seed)[:3]):
        found, _, _ = expected(rules, scene)
        assert found.min() >= 0
        edges.append(found[:, 3].max())
        whole = scene.boxes.clip(0, [1, 0.75, 1, 0.75])
        for box in found * [1, 0.75, 1, 0.75]:
            assert np.abs(whole - box).max(axis=1).min() < 1e-9
    assert max(edges) == 1.0, "some box reaches across the image's right edge"
