"""torchvision's ssdlite320_mobilenet_v3_large against what it gave itself, in OpenCV and in the numpy decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.load.own_boxes import caffe_order, code_limits
from ssdlite_caffe.runtimes.decode import convert_scores, decode_boxes, split_priors
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.detector import Detector
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.opencv_net import OpenCvNet
from ssdlite_caffe.runtimes.resize import caffe_blob, input_of
from ssdlite_caffe.tools.compare import compare_detections
from ssdlite_caffe.tools.convert import ConvertOptions, convert
from ssdlite_caffe.tools.tolerances import BOX, SCORE
from tests.torch_files import random_weights, write_state_dict

pytestmark = [pytest.mark.opencv, pytest.mark.xdist_group("torchvision")]

MODELS = ("torchvision_ssdlite320_3", "torchvision_ssdlite320_full_12")
SIZE = 320
PAIRED_BOX, PAIRED_SCORE = 1e-5, 2e-5
"""Of paired detections; of all default boxes the bounds are BOX and SCORE.

Measured, 3 classes: paired 4.2e-7 and 1.4e-6, all 8.6e-7 and 2.0e-6. 12 classes: paired 3.0e-6 and 6.9e-6, all 2.0e-6
and 7.8e-6."""


@pytest.fixture(scope="module", params=MODELS)
def converted(
    request: pytest.FixtureRequest, shared_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ModelFolder, Any]:
    folder = tmp_path_factory.mktemp(request.param) / "out"
    convert(shared_models / request.param / "weights.pth", folder, ConvertOptions())
    return ModelFolder.open(folder), np.load(shared_models / request.param / "expected.npz")


def expected_boxes(folder: ModelFolder, expected: Any, index: int) -> tuple[np.ndarray, np.ndarray]:
    """torchvision's boxes, as fractions, and scores of all default boxes in Caffe's order, decoded in float64."""
    order = caffe_order(build(folder.arch))
    codes, corners = (expected[name].astype(np.float64) for name in ("bbox_regression", "default_boxes"))
    codes, corners = codes[index][order], corners.reshape(-1, 4)[order] / SIZE
    size, centre = corners[:, 2:] - corners[:, :2], (corners[:, 2:] + corners[:, :2]) / 2
    centre = centre + codes[:, :2] / 10 * size
    half = np.exp(np.minimum(codes[:, 2:] / 5, np.log(1000 / 16))) * size / 2
    scores = convert_scores(expected["cls_logits"][index][order], "softmax", np.float64)
    return np.concatenate([centre - half, centre + half], axis=1), scores


def own(expected: Any, index: int) -> Detections:
    """torchvision's detections; one that clipping left without area it counts among its 300, and we drop it then."""
    count = int(expected["count"][index])
    found = Detections(
        expected["labels"][index][:count].astype(np.int64),
        expected["scores"][index][:count],
        (expected["boxes"][index][:count] / SIZE).astype(np.float32),
    )
    return found.select(np.flatnonzero((found.boxes[:, 2:] > found.boxes[:, :2]).all(axis=1)))


def test_boxes_and_scores_of_all_default_boxes(converted: tuple[ModelFolder, Any]) -> None:
    folder, expected = converted
    net = OpenCvNet(folder.deploy_prototxt, folder.deploy_caffemodel)
    for index in range(len(expected["bbox_regression"])):
        blob = caffe_blob(input_of(folder.arch, expected["images"][index]))
        got = net.forward(blob, ["mbox_loc", "mbox_conf_flatten", "mbox_priorbox"])
        corners, variances = split_priors(got["mbox_priorbox"])
        limits = code_limits(build(folder.arch), corners)
        boxes = decode_boxes(got["mbox_loc"], corners, variances, limits=limits)
        scores = got["mbox_conf_flatten"].reshape(len(boxes), -1)
        wanted = expected_boxes(folder, expected, index)
        assert np.abs(boxes - wanted[0]).max() < BOX
        assert np.abs(scores - wanted[1]).max() < SCORE


@pytest.mark.parametrize("decoder", ["caffe", "numpy"])
def test_detections(decoder: Any, converted: tuple[ModelFolder, Any]) -> None:
    """All 300 of each image are torchvision's own."""
    folder, expected = converted
    detector = Detector(folder, decoder)
    for index, image in enumerate(expected["images"]):
        got, wanted = detector(np.ascontiguousarray(image[..., ::-1])), own(expected, index)
        found = compare_detections(got, wanted, box_tolerance=BOX, score_tolerance=SCORE, max_total=300)
        assert not found.unpaired
        assert found.paired >= 250
        assert found.box < PAIRED_BOX
        assert found.score < PAIRED_SCORE


def test_an_image_of_another_size(converted: tuple[ModelFolder, Any]) -> None:
    """The model resizes it itself, with half-pixel centres on floats; a TensorFlow 1 resize is off by 0.1."""
    folder, expected = converted
    image = expected["large"]
    got = Detector(folder)(np.ascontiguousarray(image[..., ::-1]))
    count, (height, width) = int(expected["large_count"]), image.shape[:2]
    wanted = Detections(
        expected["large_labels"][:count].astype(np.int64),
        expected["large_scores"][:count],
        (expected["large_boxes"][:count] / np.asarray([width, height] * 2)).astype(np.float32),
    )
    found = compare_detections(got, wanted, box_tolerance=BOX, score_tolerance=SCORE, max_total=300)
    assert not found.unpaired
    assert found.paired >= 250


class TestLimit:
    """dw and dh are cut: in the numpy decoder, and in a deploy net with constant default boxes."""

    LOGARITHM = 8.0
    """Of the width of the last map's first box over its default box's."""

    @pytest.fixture(scope="class")
    @staticmethod
    def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelFolder, ModelFolder]:
        """A model with such a box, with PriorBox layers and with constant default boxes."""
        path, weights = tmp_path_factory.mktemp("limit"), random_weights(3)
        for part, value in (("weight", 0.0), ("bias", 5 * TestLimit.LOGARITHM)):
            weights[f"head.regression_head.module_list.5.1.{part}"][2] = value
        source = write_state_dict(path / "weights.pth", weights)
        made = []
        for priors in ("layer", "constant"):
            convert(source, path / priors, ConvertOptions(dialect=Dialect(priors=priors)))  # type: ignore[arg-type]
            made.append(ModelFolder.open(path / priors))
        return made[0], made[1]

    @staticmethod
    def run(folder: ModelFolder, *names: str) -> list[np.ndarray]:
        image = np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
        net = OpenCvNet(folder.deploy_prototxt, folder.deploy_caffemodel)
        return list(net.forward(caffe_blob(input_of(folder.arch, image)), names).values())

    def test_is_said_where_the_net_does_not_do_it(self, folders: tuple[ModelFolder, ModelFolder]) -> None:
        said = [[note for note in one.report["notes"] if "cuts boxes to 62.5 times" in note] for one in folders]
        assert [len(notes) for notes in said] == [1, 0]

    def test_is_in_the_net_with_constant_boxes(self, folders: tuple[ModelFolder, ModelFolder]) -> None:
        layer, constant = (self.run(folder, "box_size")[0].reshape(-1, 2) for folder in folders)
        width = build(folders[0].arch).feature_maps[-1].tf_boxes[0][1]
        assert layer.max() == pytest.approx(width * np.exp(self.LOGARITHM), rel=1e-4)
        assert constant.max() == pytest.approx(width * 62.5, rel=1e-5)

    def test_is_in_the_decoder_for_both(self, folders: tuple[ModelFolder, ModelFolder]) -> None:
        found = []
        for folder in folders:
            loc, priors = self.run(folder, "mbox_loc", "mbox_priorbox")
            corners, variances = split_priors(priors)
            limits = code_limits(build(folder.arch), corners)
            found.append(decode_boxes(loc, corners, variances, limits=limits))
        assert np.abs(found[0]).max() > 25
        np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-5)
