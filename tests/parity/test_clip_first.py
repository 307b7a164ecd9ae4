"""Models that clip boxes to the image before suppression: their nets decode and clip with stock layers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.coco.label_map import numbered
from ssdlite_caffe.dump.read import read_model
from ssdlite_caffe.gen_model.dialect import ClipDialect, Dialect
from ssdlite_caffe.load.recognise import recognise
from ssdlite_caffe.runtimes.decode import clip_detections, decode
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.opencv_net import OpenCvNet
from ssdlite_caffe.runtimes.resize import preprocess
from ssdlite_caffe.tools.compare import compare_detections
from ssdlite_caffe.tools.convert import ConvertOptions, write_model_files
from tests.scenes import draw_scene

pytestmark = pytest.mark.opencv
SCENES = 12


@pytest.fixture(scope="module", params=["exact", "late"])
def clipping(request: pytest.FixtureRequest, example_model: Path, tmp_path_factory: pytest.TempPathFactory):
    """The example as if its graph clipped first, at a threshold low enough for boxes over the border to meet."""
    dialect: ClipDialect = request.param
    model = read_model(example_model)
    arch = recognise(model)
    arch = dataclasses.replace(arch, nms=dataclasses.replace(arch.nms, clip_first=True, score_threshold=1e-3))
    folder = tmp_path_factory.mktemp(dialect)
    options = ConvertOptions(dialect=Dialect(clip=dialect))
    report = write_model_files(folder, model, arch, numbered(arch.num_classes), options, lambda _: None)
    return dialect, ModelFolder.open(folder), report


def both(folder: ModelFolder, seed: int) -> tuple[Detections, Detections]:
    """OpenCV's detections of a scene, and the reference decoder's."""
    arch = folder.arch
    blob = preprocess(draw_scene(seed)[0], arch.input_size, mean=arch.pixel_mean, scale=arch.pixel_scale)
    got = clip_detections(OpenCvNet(folder.deploy_prototxt, folder.deploy_caffemodel).detect(blob))
    head = OpenCvNet(folder.headless_prototxt, folder.deploy_caffemodel)
    raw = head.forward(blob, ["mbox_loc", "mbox_conf", "mbox_priorbox"])
    return got, decode(
        raw["mbox_loc"], raw["mbox_conf"], raw["mbox_priorbox"], arch.nms, converter=arch.score_converter
    )


def test_only_the_exact_dialect_clips_before_suppression(clipping) -> None:
    dialect, folder, report = clipping
    differing = 0
    for seed in range(SCENES):
        got, reference = both(folder, seed)
        found = compare_detections(got, reference, box_tolerance=1e-6, score_tolerance=1e-6, max_total=100)
        differing += bool(found.unpaired)
        assert found.paired > 0
    text = folder.deploy_prototxt.read_text()
    if dialect == "exact":
        assert differing == 0
        assert report["exact"]
        assert "code_type: CORNER" in text
    else:
        assert differing > 0
        assert not report["exact"]
        assert "NOT EXACT: TensorFlow clips boxes to the image before suppression" in text


def test_only_the_exact_dialect_gives_clipped_boxes(clipping) -> None:
    dialect, folder, _ = clipping
    arch = folder.arch
    blob = preprocess(draw_scene(3)[0], arch.input_size, mean=arch.pixel_mean, scale=arch.pixel_scale)
    boxes = OpenCvNet(folder.deploy_prototxt, folder.deploy_caffemodel).detect(blob).boxes
    beyond = max(-boxes.min(), boxes.max() - 1)
    if dialect == "exact":
        assert beyond <= 1e-6
        assert np.isclose(boxes, 0, atol=1e-6).any(), "the scene has boxes at the border"
    else:
        assert beyond > 1e-3
