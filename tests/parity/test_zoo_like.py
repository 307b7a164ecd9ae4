"""A folder laid out as the zoo's V3 archives are, against the ordinary export of the same weights: every command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.coco.label_map import LabelMap
from ssdlite_caffe.dump.read import read_model
from ssdlite_caffe.evaluation.detectors import RUNTIMES
from ssdlite_caffe.evaluation.forms import ModelForms, open_model_forms
from ssdlite_caffe.keras.import_model import import_detector
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.detector import Detector
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.tools.compare import compare_detections
from ssdlite_caffe.tools.convert import ConvertOptions, convert
from ssdlite_caffe.tools.verify import verify
from tests.commands import Command

pytestmark = [pytest.mark.tensorflow, pytest.mark.opencv]

Images = list[tuple[str, np.ndarray]]
FORMS = {
    "folder": ("frozen_inference_graph.pb", "model.ckpt.index", "model.ckpt.data-00000-of-00001", "model.ckpt.meta",
               "checkpoint", "pipeline.config", "model.tflite"),
    "graph and config": ("frozen_inference_graph.pb", "pipeline.config"),
    "graph": ("frozen_inference_graph.pb",),
    "file and config": ("model.tflite", "pipeline.config"),
    "file": ("model.tflite",),
    "checkpoint": ("model.ckpt.index", "model.ckpt.data-00000-of-00001", "model.ckpt.meta", "pipeline.config"),
}  # fmt: skip
STORIES = ("graph and config", "graph", "file and config")
LABELS = LabelMap.of_names(["circle", "square", "triangle"])


@pytest.fixture(
    params=[
        pytest.param(form, marks=[pytest.mark.story, pytest.mark.rare] if form in STORIES else []) for form in FORMS
    ]
)
def moved(request: pytest.FixtureRequest, shared_models: Path, tmp_path: Path) -> Path:
    """The files of one form, in a folder of their own."""
    source = shared_models / "zoo_like_v3_small_3"
    if not source.is_dir():
        pytest.skip("no zoo_like_v3_small_3 among the shared models")
    folder = tmp_path / request.param.replace(" ", "_")
    folder.mkdir()
    for name in FORMS[request.param]:
        shutil.copy(source / name, folder)
    return folder


def same(found: Detections, wanted: Detections, total: int) -> None:
    """The same detections; of one that keeps fewer, the best."""
    result = compare_detections(
        found.select(np.arange(min(total, len(found)))), wanted.select(np.arange(min(total, len(wanted)))),
        box_tolerance=2e-6, score_tolerance=2e-6, max_total=total,
    )  # fmt: skip
    assert not result.unpaired
    assert result.paired >= total - 1


def test_every_command(moved: Path, shared_models: Path, tmp_path: Path, scene_images: Images) -> None:
    """Measured: boxes 3e-7, scores 9e-7 from the ordinary graph's."""
    names = tmp_path / "names.txt"
    names.write_text("circle\nsquare\ntriangle\n")
    ordinary = shared_models / "shapes_v3_small_3" / "frozen_inference_graph.pb"
    convert(ordinary, tmp_path / "ordinary", ConvertOptions())
    convert(moved, tmp_path / "out", ConvertOptions())
    folder = ModelFolder.open(tmp_path / "out")
    alone = not (moved / "pipeline.config").exists()
    total = 10 if alone else 100
    assert folder.arch.nms.max_total == total

    report = verify(moved, folder, scene_images[:2])
    assert report.first_failure is None
    rows = {row.stage: row for row in report.rows}
    assert rows["boxes"].absolute <= 5e-7
    assert rows["scores"].absolute <= 2e-6
    assert ("TensorFlow Lite" in rows) == (moved.name.startswith("file"))

    opened = open_model_forms(moved, label_map=str(names))
    assert (opened.tflite is not None) == moved.name.startswith("file")

    wanted_by = Detector(ModelFolder.open(tmp_path / "ordinary"))
    runtime = "tflite" if moved.name.startswith("file") else "tensorflow"
    path = moved / "model.tflite" if runtime == "tflite" else moved
    detectors = [(Detector(folder), total), (Detector(folder, "numpy"), total)]
    keras = import_detector(read_model(moved), labels=LABELS)
    from ssdlite_caffe.keras.detectors import KerasDetector

    detectors.append((KerasDetector(keras), total))
    with RUNTIMES[runtime](ModelForms(LABELS, None, path, tflite=path)) as evaluated:
        # TensorFlow Lite's fast NMS keeps ten, one class a box: the best of each box are the same.
        for _, image in scene_images[:3]:
            wanted = wanted_by(image[..., ::-1])
            for detector, most in detectors:
                same(detector(image[..., ::-1]), wanted, most)
            best = evaluated(image[..., ::-1]).above(0.3)
            same(best, wanted.above(0.3), len(best))
            assert len(best) == len(wanted.above(0.3)) > 0


def test_a_phone_s_detections(shared_models: Path, tmp_path: Path, scene_images: Images) -> None:
    """`detect --decoder tflite` on the converted folder gives what the interpreter gives."""
    source = shared_models / "zoo_like_v3_small_3"
    if not source.is_dir():
        pytest.skip("no zoo_like_v3_small_3 among the shared models")
    convert(source, tmp_path / "out", ConvertOptions())
    ours = Detector(ModelFolder.open(tmp_path / "out"), "tflite")
    tflite = source / "model.tflite"
    with RUNTIMES["tflite"](ModelForms(LABELS, None, None, tflite=tflite)) as phone:
        for _, image in scene_images:
            same(ours(image[..., ::-1]), phone(image[..., ::-1]), 10)


def test_dump_and_load(moved: Path, tmp_path: Path, command: Command) -> None:
    """What dump writes of any form, convert and load take: the same caffemodel as of the form itself."""
    assert command("dump", moved, "-o", tmp_path / "weights").status == 0
    assert command("convert", tmp_path / "weights", "-o", tmp_path / "a").status == 0
    assert command("convert", moved, "-o", tmp_path / "b").status == 0
    for name in ("deploy.prototxt", "deploy.caffemodel", "train.caffemodel"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    loaded = command("load", tmp_path / "weights", tmp_path / "b" / "deploy.prototxt", "-o", tmp_path / "c.caffemodel")
    assert loaded.status == 0
    assert (tmp_path / "c.caffemodel").read_bytes() == (tmp_path / "b" / "deploy.caffemodel").read_bytes()
    reports = [json.loads((tmp_path / name / "report.json").read_text()) for name in ("a", "b")]
    assert reports[0]["tflite_nms"] == reports[1]["tflite_nms"]
    assert reports[0]["notes"] == reports[1]["notes"]
