"""TensorFlow 2's detectors, converted: OpenCV detects what the real models gave, from every form that is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdlite_caffe.dump.read import read_model
from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.keras.import_model import import_detector
from ssdlite_caffe.load.own_boxes import caffe_order
from ssdlite_caffe.runtimes.decode import decode_boxes, split_priors
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.opencv_net import OpenCvNet
from ssdlite_caffe.runtimes.resize import caffe_blob, network_input
from ssdlite_caffe.runtimes.tensorflow_detector import TensorFlowDetector
from ssdlite_caffe.tools.convert import ConvertOptions, convert
from tests.commands import Command
from tests.in_double import box_order, decoded_by_caffe, decoded_by_tensorflow
from tests.parity.test_every_dialect import difference

pytestmark = pytest.mark.opencv

MODELS = ("tf2_v2_ssd_300_3", "tf2_v2_fpnlite_320_3")
BOUND = 2e-5
"""Of scores, and of boxes as fractions of the image.

Measured: scores 4.6e-6 (SSD) and 2.0e-6 (FPNLite), boxes 8.0e-7 and 6.0e-7; raw outputs of 2 images: 5e-6.
"""
BOXES, SCORES = 2e-7, 1e-9
"""In float64, with BatchNorm kept. Measured: boxes 9.1e-8, scores 9.3e-15."""


def input_of(folder: ModelFolder, image: np.ndarray) -> np.ndarray:
    arch = folder.arch
    return network_input(image, arch.input_size, mean=arch.pixel_mean, scale=arch.pixel_scale)


def paired(found: Any, boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray) -> tuple[float, float]:
    """Largest differences of scores and boxes, each detection paired with the nearest one of its class."""
    left = list(range(len(found)))
    worst = np.zeros(2)
    for score, box, class_id in zip(scores, boxes, classes, strict=True):
        distances = [
            (max(abs(float(found.scores[i]) - score), float(np.abs(found.boxes[i] - box).max())), i)
            for i in left
            if found.classes[i] == class_id
        ]
        assert distances, f"no detection of class {class_id} is left"
        _, nearest = min(distances)
        left.remove(nearest)
        differences = abs(found.scores[nearest] - score), np.abs(found.boxes[nearest] - box).max()
        worst = np.maximum(worst, differences)
    return float(worst[0]), float(worst[1])


@pytest.mark.parametrize("form", ["saved_model", "checkpoint"])
@pytest.mark.parametrize("name", MODELS)
def test_opencv_detects_what_tensorflow_detected(name: str, form: str, shared_models: Path, tmp_path: Path) -> None:
    expected = np.load(shared_models / name / "expected.npz")
    convert(shared_models / name / form, tmp_path / "out", ConvertOptions())
    folder = ModelFolder.open(tmp_path / "out")
    net = OpenCvNet(folder.deploy_prototxt, folder.deploy_caffemodel)
    assert len(expected["images"]) == 6
    for index, image in enumerate(expected["images"]):
        found = net.detect(caffe_blob(input_of(folder, image)))
        scores = expected["scores"][index]
        kept = scores > 0
        assert len(found) == kept.sum() == 100
        boxes = np.clip(found.boxes, 0, 1)
        differences = paired(
            type(found)(found.classes, found.scores, boxes),
            expected["boxes"][index][kept][:, [1, 0, 3, 2]],
            scores[kept],
            expected["classes"][index][kept].astype(int),
        )
        assert max(differences) <= BOUND


@pytest.mark.parametrize("priors", ["layer", "constant"])
@pytest.mark.parametrize("name", MODELS)
def test_all_default_boxes_and_scores(name: str, priors: str, shared_models: Path, tmp_path: Path) -> None:
    expected = np.load(shared_models / name / "expected.npz")
    dialect = Dialect(priors=priors)  # type: ignore[arg-type]
    convert(shared_models / name / "saved_model", tmp_path / "out", ConvertOptions(dialect=dialect))
    folder = ModelFolder.open(tmp_path / "out")
    net = OpenCvNet(folder.deploy_prototxt, folder.deploy_caffemodel)
    order = caffe_order(build(folder.arch))
    for boxes, scores, image in zip(expected["raw_boxes"], expected["raw_scores"], expected["images"], strict=False):
        blobs = net.forward(caffe_blob(input_of(folder, image)), ("mbox_loc", "mbox_conf_flatten", "mbox_priorbox"))
        ours = decode_boxes(blobs["mbox_loc"].reshape(-1, 4), *split_priors(blobs["mbox_priorbox"]))
        assert np.abs(ours - boxes[order][:, [1, 0, 3, 2]]).max() <= BOUND
        assert np.abs(blobs["mbox_conf_flatten"].reshape(len(ours), -1) - scores[order]).max() <= BOUND


@pytest.mark.parametrize("name", MODELS)
def test_dumped_weights_fill_every_net(name: str, command: Command, shared_models: Path, tmp_path: Path) -> None:
    for words in (
        ("convert", shared_models / name / "checkpoint", "-o", tmp_path / "out"),
        ("dump", shared_models / name / "checkpoint", "-o", tmp_path / "dumped"),
        ("convert", tmp_path / "dumped", "-o", tmp_path / "again"),
    ):
        assert command(*words).status == 0
    for net in ("deploy", "headless", "train", "test"):
        stored = tmp_path / "out" / ("train.caffemodel" if net in ("train", "test") else "deploy.caffemodel")
        loaded = tmp_path / f"{net}.caffemodel"
        assert command("load", tmp_path / "dumped", tmp_path / "out" / f"{net}.prototxt", "-o", loaded).status == 0
        assert difference(loaded, stored) == 0
    assert difference(tmp_path / "again" / "deploy.caffemodel", tmp_path / "out" / "deploy.caffemodel") == 0


def test_keras_import_refuses_a_pyramid(command: Command, shared_models: Path, tmp_path: Path) -> None:
    result = command("keras", "import", shared_models / MODELS[1] / "checkpoint", "-o", tmp_path / "a.keras")
    assert result.status == 1
    assert "is an FPNLite, whose feature pyramid and shared predictors the Keras model has not" in result.err
    assert not list(tmp_path.iterdir())


@pytest.mark.tensorflow
def test_a_keras_model_detects_what_tensorflow_detected(shared_models: Path) -> None:
    """Measured: scores 4.7e-6, boxes 9.5e-7."""
    expected = np.load(shared_models / MODELS[0] / "expected.npz")
    detector = import_detector(read_model(shared_models / MODELS[0] / "checkpoint"))
    model, arch = detector.rebuilt(outputs="detections").model, detector.arch
    for index, image in enumerate(expected["images"][:2]):
        fed = network_input(image, arch.input_size, mean=arch.pixel_mean, scale=arch.pixel_scale)
        found = {key: np.asarray(value)[0] for key, value in model(fed).items()}
        kept = found["detection_scores"] > 0
        detections = Detections(
            found["detection_classes"][kept].astype(np.int64),
            found["detection_scores"][kept],
            found["detection_boxes"][kept][:, [1, 0, 3, 2]],
        )
        wanted = (expected[key][index] for key in ("boxes", "scores", "classes"))
        boxes, scores, classes = wanted
        assert max(paired(detections, boxes[:, [1, 0, 3, 2]], scores, classes.astype(int))) <= BOUND


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.parametrize("name", MODELS)
def test_in_float64_both_are_the_same_net(name: str, shared_models: Path, tmp_path: Path) -> None:
    source = shared_models / name / "saved_model"
    convert(source, tmp_path / "out", ConvertOptions(dialect=Dialect(batch_norm="keep")))
    folder = ModelFolder.open(tmp_path / "out")
    fed = input_of(folder, np.load(shared_models / name / "expected.npz")["images"][0])
    with TensorFlowDetector(source) as detector:
        (theirs,) = decoded_by_tensorflow(detector, [fed])
    (ours,), order = decoded_by_caffe(folder, [fed]), box_order(folder)
    boxes, scores = (float(abs(a - b[order]).max()) for a, b in zip(ours, theirs, strict=True))
    assert boxes < BOXES
    assert scores < SCORES
