"""Real models, converted: TensorFlow and OpenCV agree on every layer, default box and detection of real images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.gen_model.default_boxes import tf_default_boxes
from ssdlite_caffe.gen_model.netdesc import NetDesc
from ssdlite_caffe.gen_model.prior_boxes import cell_sizes
from ssdlite_caffe.imports import import_opencv
from ssdlite_caffe.load.boxes import match_cell
from ssdlite_caffe.prototxt.binary import blob_to_array, read_caffemodel, unknown_fields
from ssdlite_caffe.runtimes.decode import convert_scores, decode_boxes, split_priors
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.opencv_net import OpenCvNet
from ssdlite_caffe.runtimes.resize import caffe_blob, network_input
from ssdlite_caffe.runtimes.tensorflow_detector import TensorFlowDetector
from ssdlite_caffe.tools.comparison import Bounds, Row
from ssdlite_caffe.tools.convert import ConvertOptions, convert
from ssdlite_caffe.tools.tolerances import LAYER_RELATIVE
from ssdlite_caffe.tools.verify import NamedImage, VerifyReport, verify
from tests.real_models import real_models

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow, pytest.mark.opencv]

IMAGES = 8
TRAINED, RANDOM = 2e-5, 1e-4
"""Bounds of boxes (fractions of the image) and scores; measured maxima stand in tools/tolerances.py."""
MODELS = {
    "example": TRAINED,
    "shapes_v3_small_3": TRAINED,
    "bccd_v2_ssdlite_3": TRAINED,
    "zoo2018_v2_ssdlite_90": TRAINED,
    "random_v3_large_90": RANDOM,
}


@dataclass(frozen=True)
class Case:
    """A model, what convert made of it, and the comparison of both on all images."""

    source: Path
    folder: ModelFolder
    images: list[NamedImage]
    report: VerifyReport
    bound: float

    @property
    def net(self) -> NetDesc:
        return build(self.folder.arch)

    def row(self, stage: str) -> Row:
        return next(row for row in self.report.rows if row.stage == stage)

    def fed(self, index: int) -> np.ndarray:
        arch = self.folder.arch
        return network_input(self.images[index][1], arch.input_size, mean=arch.pixel_mean, scale=arch.pixel_scale)


@pytest.fixture(scope="module", params=real_models(MODELS, group=True))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    name: str = request.param
    if name == "example":
        source = request.getfixturevalue("example_model")
    else:
        source = request.getfixturevalue("shared_models") / name / "frozen_inference_graph.pb"
    drawn = name in ("example", "shapes_v3_small_3")
    images: list[NamedImage] = request.getfixturevalue("scene_images" if drawn else "bccd_images")[:IMAGES]
    assert len(images) == IMAGES
    out = tmp_path_factory.mktemp(name) / "out"
    convert(source, out, ConvertOptions())
    folder = ModelFolder.open(out)
    bound = MODELS[name]
    return Case(source, folder, images, verify(source, folder, images, bounds=Bounds(box=bound, score=bound)), bound)


def test_every_stage_is_within_its_bound(case: Case, record_property: Callable[[str, object], None]) -> None:
    rows = case.report.rows
    layers = [row for row in rows if row.relative_bound]
    assert len(layers) == len(case.net.convolutions) - len(case.net.feature_maps)  # of the predictors, the logits alone
    assert [row.stage for row in rows if row.section == "detections"] == ["headless", "boxes", "scores", "detections"]
    for what, value in (
        ("layers", max(row.relative for row in layers)),
        *((stage, case.row(stage).absolute) for stage in ("boxes", "scores", "detections")),
    ):
        record_property(what, value)
        print(f"{case.folder.path.parent.name}: largest difference of {what}: {value:.2g}")
    assert case.report.first_failure is None
    assert all(row.relative <= LAYER_RELATIVE or row.absolute <= 1e-5 for row in layers)
    assert case.row("boxes").shape == (case.net.num_default_boxes, 4)
    assert case.row("scores").shape == (case.net.num_default_boxes, case.folder.arch.num_classes)
    assert max(case.row(stage).absolute for stage in ("boxes", "scores", "detections")) <= case.bound
    assert len(case.report.names) == IMAGES
    assert case.report.exact


def test_there_is_something_to_compare(case: Case) -> None:
    """Activations that live, scores that reach far and detections that are found: zeros would agree as well."""
    net = OpenCvNet(case.folder.deploy_prototxt, case.folder.deploy_caffemodel)
    found, best = 0, 0.0
    for index in range(2):
        detections = net.detect(caffe_blob(case.fed(index)))
        found += len(detections)
        best = max(best, float(detections.scores.max(initial=0)))
    assert found >= 6
    assert best > 0.5


@pytest.fixture(scope="module")
def tensorflow(case: Case) -> Iterator[TensorFlowDetector]:
    with TensorFlowDetector(case.source) as detector:
        yield detector


def caffe_order(net: NetDesc) -> np.ndarray:
    """For each of Caffe's default boxes the number of TensorFlow's."""
    order, start = [], 0
    for m in net.feature_maps:
        cell = np.asarray(match_cell(m.tf_boxes, cell_sizes(m.prior, net.arch.input_size)).source)
        assert sorted(cell.tolist()) == list(range(len(m.tf_boxes)))
        cells = m.size[0] * m.size[1]
        order.append((start + np.arange(cells)[:, None] * len(cell) + cell).ravel())
        start += cells * len(cell)
    return np.concatenate(order)


def test_headless_outputs_decode_to_tensorflows_own_boxes(case: Case, tensorflow: TensorFlowDetector) -> None:
    """All default boxes: what TensorFlow's graph itself decodes against mbox_loc, mbox_conf and mbox_priorbox."""
    net = OpenCvNet(case.folder.headless_prototxt, case.folder.deploy_caffemodel)
    order = caffe_order(case.net)
    worst = np.zeros(2)
    for index in range(IMAGES):
        fed = case.fed(index)
        raw = tensorflow.raw(fed)
        loc, conf, priors = net.forward(caffe_blob(fed), ["mbox_loc", "mbox_conf", "mbox_priorbox"]).values()
        boxes = decode_boxes(loc, *split_priors(priors))
        scores = convert_scores(conf.reshape(len(boxes), -1), case.folder.arch.score_converter)
        assert np.abs(raw.scores[order] - scores).max() < np.abs(raw.scores - scores).max(), "the orders differ"
        difference = np.abs(boxes - raw.boxes[order][:, [1, 0, 3, 2]]).max(), np.abs(scores - raw.scores[order]).max()
        worst = np.maximum(worst, difference)
    print(f"{case.folder.path.parent.name}: raw boxes {worst[0]:.2g}, scores {worst[1]:.2g}")
    assert worst.max() <= case.bound


def test_default_boxes_are_tensorflows(case: Case) -> None:
    """PriorBox's in OpenCV, in TensorFlow's order, have the centres that the model's have."""
    net = OpenCvNet(case.folder.headless_prototxt, case.folder.deploy_caffemodel)
    corners, _ = split_priors(net.forward(caffe_blob(case.fed(0)), ["mbox_priorbox"])["mbox_priorbox"])
    expected = tf_default_boxes(case.net)[caffe_order(case.net)][:, [1, 0, 3, 2]]
    centres = (corners[:, :2] + corners[:, 2:]) / 2, (expected[:, :2] + expected[:, 2:]) / 2
    np.testing.assert_allclose(*centres, rtol=0, atol=2e-7)


@pytest.mark.parametrize("name", ["deploy.caffemodel", "train.caffemodel"])
def test_caffemodels_read_back(case: Case, name: str) -> None:
    path = case.folder.path / name
    assert unknown_fields(read_caffemodel(path)) == []
    if name != "deploy.caffemodel":
        return
    net = import_opencv().dnn.readNetFromCaffe(str(case.folder.deploy_prototxt), str(path))
    names = set(net.getLayerNames())
    for layer in read_caffemodel(path).layer:
        known = layer.name if layer.name in names else layer.top[0]  # what OpenCV calls it where the two differ
        for number, blob in enumerate(layer.blobs):
            found = net.getParam(known, number)
            expected = blob_to_array(blob)
            assert found.size == expected.size, layer.name
            np.testing.assert_array_equal(found.ravel(), expected.ravel(), err_msg=layer.name)
