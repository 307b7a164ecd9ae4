"""decode.py and decode.c on the raw outputs of real models, against TensorFlow's own detections."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.opencv_net import OpenCvNet
from ssdlite_caffe.runtimes.resize import caffe_blob, input_of
from ssdlite_caffe.runtimes.tensorflow_detector import TensorFlowDetector
from ssdlite_caffe.tools.compare import compare_detections
from ssdlite_caffe.tools.convert import ConvertOptions, convert
from tests.decoders import c_decoder, python_decoder, reference
from tests.real_models import real_models

pytestmark = [pytest.mark.tensorflow, pytest.mark.opencv, pytest.mark.slow]

MODELS = (
    "example",
    *real_models(["bccd_v2_ssdlite_3", "zoo2018_v2_ssdlite_90", "shapes_v3_small_3", "random_v3_large_90"]),
)
HEADS = ["mbox_loc", "mbox_conf", "mbox_priorbox"]


@pytest.mark.parametrize("name", MODELS)
def test_detections_are_tensorflow_s(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """zoo2018 clips boxes before suppression."""
    if name == "example":
        graph = request.getfixturevalue("example_model")
    else:
        graph = request.getfixturevalue("shared_models") / name / "frozen_inference_graph.pb"
    drawn = name in ("example", "shapes_v3_small_3")
    images = request.getfixturevalue("scene_images" if drawn else "bccd_images")
    convert(graph, tmp_path / "out", ConvertOptions())
    folder = ModelFolder.open(tmp_path / "out")
    net = build(folder.arch)
    assert net.arch.nms.clip_first == (name == "zoo2018_v2_ssdlite_90")
    module, library = python_decoder(net, tmp_path), c_decoder(net, tmp_path)
    running = OpenCvNet(folder.headless_prototxt, folder.deploy_caffemodel)
    bound = 1e-4 if name.startswith("random") else 2e-5  # those of test_convert_models
    pairs = 0
    with TensorFlowDetector(graph) as tensorflow:
        for label, image in images[:3]:
            outputs = tuple(running.forward(caffe_blob(input_of(net.arch, image)), HEADS)[head] for head in HEADS)
            ours = Detections(*module.decode(*outputs))
            again = reference(net, outputs)  # type: ignore[arg-type]
            assert ours.classes.tolist() == again.classes.tolist()
            assert ours.scores.tobytes() == again.scores.tobytes()
            assert ours.boxes.tobytes() == again.boxes.tobytes()
            in_c = library(outputs)  # type: ignore[arg-type]
            assert in_c.classes.tolist() == ours.classes.tolist()
            np.testing.assert_allclose(in_c.scores, ours.scores, rtol=0, atol=3e-7)  # measured 1.2e-7
            np.testing.assert_allclose(in_c.boxes, ours.boxes, rtol=0, atol=1e-6)  # measured 1.2e-7
            expected = tensorflow.detect_image(image)
            for got in (ours, in_c):
                difference = compare_detections(
                    got, expected, box_tolerance=bound, score_tolerance=bound, max_total=net.arch.nms.max_total,
                    score_threshold=net.arch.nms.score_threshold,
                )  # fmt: skip
                assert not difference.unpaired, (label, difference.unpaired[:3])
                pairs += difference.paired
    assert pairs > 0
