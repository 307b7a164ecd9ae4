"""Keras and TensorFlow Lite models of a detector that does not squash images bilinearly."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.coco.label_map import numbered
from ssdlite_caffe.errors import ArchError, SsdliteError
from ssdlite_caffe.gen_model.arch import Nms
from ssdlite_caffe.gen_model.build import default_arch
from ssdlite_caffe.keras.detectors import ExportedTfliteDetector, KerasDetector
from ssdlite_caffe.keras.export_pb import frozen_graph
from ssdlite_caffe.keras.export_tflite import tflite_model
from ssdlite_caffe.keras.model import KerasModel, build_model
from ssdlite_caffe.keras.store import load, save
from ssdlite_caffe.keras.train import NetOptions, _arch
from ssdlite_caffe.resizer import Resizer
from ssdlite_caffe.runtimes.decode import clip_detections
from ssdlite_caffe.runtimes.resize import pixels_of, window_of
from ssdlite_caffe.tools.compare import compare_detections
from ssdlite_caffe.tools.source import open_model
from tests.keras_models import bytes_of, images, lively_detector

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow, pytest.mark.xdist_group("keras resizer")]

SIDE = 96
RESIZER = Resizer("keep_aspect_ratio", "nearest", min_dimension=60, max_dimension=SIDE, pad_value=(90.0, 100.0, 110.0))


@pytest.fixture(scope="module")
def squashing() -> KerasModel:
    arch = default_arch("v3-small", 4, input_size=(SIDE, SIDE), width_multiplier=0.35)
    return lively_detector(dataclasses.replace(arch, nms=Nms(max_per_class=1000, max_total=2000)))


@pytest.fixture(scope="module")
def detector(squashing: KerasModel) -> KerasModel:
    """The same net, whose images are letterboxed."""
    return dataclasses.replace(squashing, arch=dataclasses.replace(squashing.arch, resizer=RESIZER))


def image() -> np.ndarray:
    shown = bytes_of(images(default_arch("v2", 2, input_size=(50, 70)), 1))[0]
    return np.ascontiguousarray(shown)


def test_a_letterbox_finds_what_the_padded_image_shows(squashing: KerasModel, detector: KerasModel) -> None:
    """With whole pixels the letterbox is an image itself, which a detector that squashes takes as it is."""
    shown = image()
    padded = pixels_of(detector.arch, shown[..., ::-1]).astype(np.uint8)[..., ::-1]
    assert padded.shape == (SIDE, SIDE, 3)
    window = window_of((50, 70), RESIZER)
    whole = KerasDetector(squashing)(np.ascontiguousarray(padded))
    # Its boxes are clipped to the padded image, of which the image itself is a part.
    expected, found = clip_detections(whole, window), KerasDetector(detector)(shown)
    assert 5 < len(expected) < len(whole)
    result = compare_detections(found, expected, box_tolerance=1e-5, score_tolerance=1e-5, max_total=2000)
    assert not result.unpaired
    assert found.boxes.max() <= 1


@pytest.mark.story
def test_files_keep_the_resizer(detector: KerasModel, tmp_path: Path) -> None:
    save(detector.rebuilt(), tmp_path / "m.keras")
    stored = load(tmp_path / "m.keras")
    assert stored.arch.resizer == RESIZER
    data = tflite_model(detector, inputs="network", outputs="raw")
    (tmp_path / "m.tflite").write_bytes(data)
    tflite = ExportedTfliteDetector(tmp_path / "m.tflite")
    assert tflite.arch.resizer == RESIZER
    found, expected = tflite(image()), KerasDetector(detector)(image())
    result = compare_detections(found, expected, box_tolerance=1e-5, score_tolerance=1e-5, max_total=2000)
    assert not result.unpaired
    assert result.paired > 5


def test_graphs_that_would_squash_are_refused(detector: KerasModel, tmp_path: Path) -> None:
    said = "resizes them bilinearly .*resized by keep_aspect_ratio 60..96, nearest"
    with pytest.raises(ArchError, match=said):
        build_model(detector.arch, numbered(4), inputs="image")
    with pytest.raises(SsdliteError, match=said):
        frozen_graph(detector)
    save(detector.rebuilt(), tmp_path / "m.keras")
    with pytest.raises(SsdliteError, match=said), open_model(tmp_path / "m.keras"):
        pass


def test_training_squashes_and_says_so(detector: KerasModel) -> None:
    said: list[str] = []
    arch = _arch(NetOptions(start=Path("letterbox.keras")), detector, numbered(7), said.append)
    assert arch.resizer == Resizer()
    assert arch.num_classes == 7
    assert len(said) == 1
    assert "letterbox.keras are resized by keep_aspect_ratio 60..96" in said[0]
    assert "squashes" in said[0]
