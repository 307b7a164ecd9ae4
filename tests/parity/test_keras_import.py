"""Imported models against TensorFlow's own graphs, and Keras -> frozen graph -> Caffe against both."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdlite_caffe.dump.read import read_model
from ssdlite_caffe.gen_model.arch import ArchSpec, Nms
from ssdlite_caffe.gen_model.build import default_arch
from ssdlite_caffe.imports import import_tensorflow
from ssdlite_caffe.keras.export_pb import export_pb
from ssdlite_caffe.keras.import_model import import_detector, import_file
from ssdlite_caffe.keras.model import KerasModel
from ssdlite_caffe.keras.store import load, save
from ssdlite_caffe.keras.weights import get_values
from ssdlite_caffe.load.recognise import recognise
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.resize import network_input
from ssdlite_caffe.runtimes.tensorflow_detector import TensorFlowDetector
from ssdlite_caffe.tools.compare import compare_detections, difference
from ssdlite_caffe.tools.comparison import Bounds
from ssdlite_caffe.tools.convert import ConvertOptions, convert
from ssdlite_caffe.tools.verify import NamedImage, verify
from tests.keras_models import bytes_of, images, lively_detector
from tests.real_models import real_models

pytestmark = [pytest.mark.tensorflow, pytest.mark.xdist_group("keras import")]

RAW, RAW_RANDOM = 1e-5, 2e-5
"""Of raw outputs, over the largest magnitude. Measured: trained 7e-7. Random weights (random_v3_large_90) magnify
rounding: 6.5e-6, and 1.3e-5 with TensorFlow's own kernels on a processor with AVX-512 (with oneDNN's below 1e-5).
"""
RAW_FLOAT64 = 1e-11
MODELS = {
    "shapes_v3_small_3": 2e-5,
    "bccd_v2_ssdlite_3": 2e-5,
    "zoo2018_v2_ssdlite_90": 2e-5,
    "random_v3_large_90": 1e-4,
}
"""And the bound of boxes and scores in Caffe; see tools/tolerances.py."""


def fed_with(arch: ArchSpec, image: np.ndarray) -> np.ndarray:
    return network_input(image, arch.input_size, mean=arch.pixel_mean, scale=arch.pixel_scale)


def detections_of(found: dict[str, Any]) -> Detections:
    values = {name: np.asarray(value)[0] for name, value in found.items()}
    count = int(values["num_detections"])
    return Detections(
        values["detection_classes"][:count].astype(np.int64),
        values["detection_scores"][:count],
        values["detection_boxes"][:count][:, [1, 0, 3, 2]],
    )


def compare_with_graph(source: Path, detector: KerasModel, shown: list[NamedImage], bound: float = RAW) -> None:
    tf = import_tensorflow()
    arch = detector.arch
    raw, whole = tf.function(detector.model), tf.function(detector.rebuilt(outputs="detections").model)
    with TensorFlowDetector(source) as graph:
        for _, image in shown:
            fed = fed_with(arch, image)
            wanted, got = graph.raw(fed), raw(fed)
            codes, logits = got["box_encodings"], got["class_predictions_with_background"]
            assert difference(np.asarray(codes)[0], wanted.encodings).relative < bound
            assert difference(np.asarray(logits)[0], wanted.logits).relative < bound
            found = compare_detections(
                detections_of(whole(fed)), graph.detect(fed), box_tolerance=bound, score_tolerance=bound,
                max_total=arch.nms.max_total, score_threshold=arch.nms.score_threshold,
            )  # fmt: skip
            assert not found.unpaired
            assert found.paired > 0


def compare_in_float64(source: Path, detector: KerasModel, image: np.ndarray) -> None:
    """Where rounding hides nothing."""
    fed = fed_with(detector.arch, image)
    outputs = ["Postprocessor/Decode/transpose", "Postprocessor/convert_scores"]
    with TensorFlowDetector(source) as graph, graph.in_double(outputs) as double:
        codes, scores = double.run(fed, outputs).values()
    assert codes.dtype == scores.dtype == np.float64
    model = detector.rebuilt(outputs="raw", dtype="float64").model
    got = model(fed.astype(np.float64))
    wanted = codes.reshape(4, -1).T if codes.shape[0] == 4 else codes.reshape(-1, 4)
    assert np.abs(got["box_encodings"][0] - wanted).max() < RAW_FLOAT64 * np.abs(wanted).max()
    logits = np.asarray(got["class_predictions_with_background"][0])
    assert np.abs(1 / (1 + np.exp(-logits)) - scores[0]).max() < RAW_FLOAT64


def compare_in_caffe(source: Path, graph: Path, folder: Path, shown: list[NamedImage], bound: float) -> None:
    """The net converted from the exported graph does what that graph and the one it came from do."""
    convert(graph, folder, ConvertOptions())
    for origin in {source, graph}:
        report = verify(origin, ModelFolder.open(folder), shown, bounds=Bounds(box=bound, score=bound))
        assert report.first_failure is None, report.first_failure


@pytest.mark.opencv
def test_the_example_to_keras_and_to_caffe(example_model: Path, scene_images: list[NamedImage], tmp_path: Path) -> None:
    file, graph = tmp_path / "a.keras", tmp_path / "a.pb"
    report = import_file(example_model, file, label_map=str(example_model.parent / "labelmap.pbtxt"))
    assert report["tensors"] == {"used": report["variables"], "skipped": {}}
    detector = load(file)
    assert detector.labels.display_names == ("background", "circle", "square", "triangle")
    compare_with_graph(example_model, detector, scene_images[:2])
    compare_in_float64(example_model, detector, scene_images[0][1])
    export_pb(file, graph)
    one, other = read_model(example_model), read_model(graph)
    assert one.tensors.keys() == other.tensors.keys()
    for name, value in one.tensors.items():
        np.testing.assert_array_equal(value, other.tensors[name])
    compare_in_caffe(example_model, graph, tmp_path / "caffe", scene_images[:2], 2e-5)


@pytest.mark.story
@pytest.mark.opencv
@pytest.mark.parametrize("name", real_models(MODELS, large=pytest.mark.rare))
def test_real_models(
    name: str, shared_models: Path, bccd_images: list[NamedImage], scene_images: list[NamedImage], tmp_path: Path
) -> None:
    source = shared_models / name / "frozen_inference_graph.pb"
    shown = (scene_images if name.startswith("shapes") else bccd_images)[:4]
    detector = import_detector(read_model(source))
    compare_with_graph(source, detector, shown, RAW_RANDOM if name.startswith("random") else RAW)
    compare_in_float64(source, detector, shown[0][1])
    save(detector, tmp_path / "a.keras")
    export_pb(tmp_path / "a.keras", tmp_path / "a.pb")
    compare_in_caffe(source, tmp_path / "a.pb", tmp_path / "caffe", shown, MODELS[name])


@pytest.mark.parametrize("form", ["", "saved_model"])
def test_every_form_gives_the_same_weights(shared_models: Path, form: str) -> None:
    folder = shared_models / "shapes_v3_small_3"
    frozen = get_values(import_detector(read_model(folder / "frozen_inference_graph.pb")).model)
    other = get_values(import_detector(read_model(folder / (form or "model.ckpt"))).model)
    assert frozen.keys() == other.keys()
    assert all((frozen[name] == other[name]).all() for name in frozen)


@pytest.mark.parametrize(
    "arch",
    [
        dataclasses.replace(
            default_arch("v2", 4, input_size=(96, 128), width_multiplier=0.35),
            nms=Nms(0.45, 1e-3, 20, 30, clip_first=True),
        ),
        dataclasses.replace(
            default_arch("v3-small", 3, input_size=(96, 80), width_multiplier=0.35, score_converter="softmax"),
            nms=Nms(0.5, 0.01, 100, 100),
            variances=(1.0, 1.0, 1.0, 1.0),
        ),
        dataclasses.replace(
            default_arch("v1", 2, input_size=(80, 80), width_multiplier=0.25, head="ssd"),
            pixel_mean=100.0,
            pixel_scale=0.0125,
            batch_norm_epsilon=0.01,
            explicit_padding=True,
        ),
    ],
    ids=["v2", "v3-small", "v1"],
)
@pytest.mark.opencv
def test_exported_graphs(arch: ArchSpec, tmp_path: Path) -> None:
    """What `dump` reads in the graph is what the model was built of, and the graph detects what the model detects."""
    detector = lively_detector(arch)
    save(detector, tmp_path / "a.keras")
    graph = tmp_path / "a.pb"
    export_pb(tmp_path / "a.keras", graph)
    found = recognise(read_model(graph))
    close = {"boxes", "nms", "variances", "pixel_mean", "pixel_scale", "batch_norm_epsilon", "gate_scale", "min_depth"}
    for field in dataclasses.fields(ArchSpec):
        if field.name not in close:
            assert getattr(found, field.name) == getattr(arch, field.name), field.name
    for name in ("variances", "pixel_mean", "pixel_scale", "batch_norm_epsilon", "gate_scale"):
        np.testing.assert_allclose(getattr(found, name), getattr(arch, name), rtol=1e-6)
    for one, other in zip(found.boxes, arch.boxes, strict=True):
        np.testing.assert_allclose(one.sizes, other.sizes, rtol=1e-6)
    assert dataclasses.astuple(found.nms)[:5] == pytest.approx(dataclasses.astuple(arch.nms)[:5], rel=1e-6)

    image = bytes_of(images(arch, 1))[0]
    whole = detector.rebuilt(inputs="image", outputs="detections").model
    wanted = detections_of(whole(image[None]))
    with TensorFlowDetector(graph) as session:
        got = session.detect_image(image)
        names = {operation.name for operation in session._graph.get_operations()}
    scope = "BoxPredictor_0/BoxEncodingPredictor"
    assert {f"{scope}/weights", f"{scope}/biases", "image_tensor", "num_detections"} <= names
    compared = compare_detections(
        got, wanted, box_tolerance=1e-4, score_tolerance=1e-4, max_total=arch.nms.max_total,
        score_threshold=arch.nms.score_threshold,
    )  # fmt: skip
    assert not compared.unpaired
    assert compared.paired > 5
    compare_in_caffe(graph, graph, tmp_path / "caffe", [("drawn", image)], 1e-4)
