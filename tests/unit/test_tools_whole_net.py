"""The whole net in float64: its weights before their rounding, and what passes as the same boxes and scores."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.dump.model import DumpedModel
from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.prototxt.binary import blob_from_array, blob_to_array, read_caffemodel, write_caffemodel
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.reference_net import ReferenceNet
from ssdlite_caffe.tools.comparison import Row
from ssdlite_caffe.tools.convert import ConvertOptions, convert
from ssdlite_caffe.tools.judge import judged
from ssdlite_caffe.tools.local_check import LocalDifference
from ssdlite_caffe.tools.proof import Image
from ssdlite_caffe.tools.source import open_model
from ssdlite_caffe.tools.tolerances import DOUBLE_BOX, DOUBLE_SCORE
from ssdlite_caffe.tools.verify import VerifyReport
from ssdlite_caffe.tools.verify_text import verdict
from ssdlite_caffe.tools.whole_net import OUTPUTS, Unrounded, WholeDifference, WholeNet, boxes_of, unrounded


@pytest.fixture(scope="module")
def model(example_model: Path) -> DumpedModel:
    with open_model(example_model) as opened:
        return opened.model


@pytest.fixture
def copy(example_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(example_folder, tmp_path / "copy"))


def net_of(path: Path) -> ReferenceNet:
    folder = ModelFolder.open(path)
    return ReferenceNet(folder.deploy_prototxt, folder.deploy_caffemodel, double=True)


def unrounded_of(path: Path, model: DumpedModel) -> tuple[ReferenceNet, Unrounded]:
    net = net_of(path)
    return net, unrounded(net, build(ModelFolder.open(path).arch), model)


def change(path: Path, layer: str, factor: float) -> None:
    """Multiply a layer's first bias."""
    content = read_caffemodel(path / "deploy.caffemodel")
    blob = next(found for found in content.layer if found.name == layer).blobs[1]
    values = blob_to_array(blob)
    values[0] *= np.float32(factor)
    blob.CopyFrom(blob_from_array(values))
    write_caffemodel(path / "deploy.caffemodel", content, force=True)


class TestUnrounded:
    @pytest.mark.parametrize("batch_norm", ["fold", "keep"])
    def test_every_weight_of_the_file_is_the_rounding_of_one(
        self, example_model: Path, model: DumpedModel, tmp_path: Path, batch_norm: str
    ) -> None:
        convert(example_model, tmp_path / "out", ConvertOptions(dialect=Dialect(batch_norm=batch_norm)))  # type: ignore[arg-type]
        net, found = unrounded_of(tmp_path / "out", model)
        assert (found.problem, found.others) == ("", {})
        pairs = [pair for name in net.weights for pair in zip(found.net.weights[name], net.weights[name], strict=True)]
        assert all(np.array_equal(exact.astype(np.float32), written) for exact, written in pairs)
        assert found.folded == sum(int((exact != written).sum()) for exact, written in pairs) > 1000
        for exact, written in pairs:
            assert np.abs(exact - written).max() <= 2**-24 * np.abs(exact).max()

    def test_what_is_moved_is_the_model_bit_for_bit(self, example_folder: Path, model: DumpedModel) -> None:
        """A class predictor has no BatchNorm, and its rows are only put in another order."""
        net, found = unrounded_of(example_folder, model)
        for exact, written in zip(found.net.weights["Conv_1_mbox_conf"], net.weights["Conv_1_mbox_conf"], strict=True):
            assert np.array_equal(exact, written)

    @pytest.mark.parametrize("factor", [1 + 2.0**-22, 1.5, math.nan])
    def test_a_weight_that_the_conversion_does_not_make_is_the_files(
        self, copy: Path, model: DumpedModel, factor: float
    ) -> None:
        change(copy, "conv_4/expand", factor)
        net, found = unrounded_of(copy, model)
        assert found.others == {"conv_4/expand": 1}
        assert np.array_equal(found.net.weights["conv_4/expand"][1][0], net.weights["conv_4/expand"][1][0], True)

    @pytest.mark.parametrize(
        ("old", "new", "problem"),
        [
            ('type: "Sigmoid"', 'type: "Softmax"', "the net makes scores by Softmax, the model by sigmoid"),
            ("clip: false\n", "clip: true\n", "_mbox_priorbox' sets clip: its boxes are not"),
        ],
    )
    def test_a_net_that_the_model_does_not_fit_has_the_files_weights(
        self, copy: Path, model: DumpedModel, old: str, new: str, problem: str
    ) -> None:
        prototxt = copy / "deploy.prototxt"
        text = prototxt.read_text()
        assert old in text
        prototxt.write_text(text.replace(old, new))
        net, found = unrounded_of(copy, model)
        assert found.net is net
        assert problem in found.problem


@pytest.fixture(scope="module")
def whole(example_folder: Path, model: DumpedModel) -> WholeNet:
    return WholeNet(net_of(example_folder), build(ModelFolder.open(example_folder).arch), model)


@pytest.fixture(scope="module")
def blob() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (1, 3, 320, 320)).astype(np.float32)


@pytest.fixture(scope="module")
def ends(whole: WholeNet, blob: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    blobs = whole.unrounded.net.forward(blob, OUTPUTS)
    return boxes_of(blobs, whole.net), blobs["mbox_conf_flatten"].reshape(-1, 4)


def moved(values: np.ndarray, at: tuple[int, int], by: float) -> np.ndarray:
    changed = values.copy()
    changed[at] += by
    return changed


class TestCompared:
    def test_the_same_is_the_same(self, whole: WholeNet, blob: np.ndarray, ends: tuple[np.ndarray, np.ndarray]) -> None:
        boxes, scores = whole.compare(blob, *ends, ends)
        assert (boxes.name, scores.name) == ("boxes in float64", "scores in float64")
        assert (boxes.difference.share, scores.difference.share) == (0, 0)
        assert (boxes.difference.allowed, scores.difference.allowed) == pytest.approx((1e-7, 1e-9), rel=0.01)
        assert (boxes.remark, scores.remark) == ("", "")

    @pytest.mark.parametrize(("by", "ok"), [(0.9, True), (1.1, False), (math.nan, False)])
    def test_scores(
        self, whole: WholeNet, blob: np.ndarray, ends: tuple[np.ndarray, np.ndarray], by: float, ok: bool
    ) -> None:
        found = whole.compare(blob, ends[0], moved(ends[1], (7, 2), by * DOUBLE_SCORE), ends)[1]
        assert (found.difference.ok, found.difference.at) == (ok, (7, 2))

    def test_a_small_box_at_the_near_corner_is_held_at_the_bound(
        self, whole: WholeNet, blob: np.ndarray, ends: tuple[np.ndarray, np.ndarray]
    ) -> None:
        for by, ok in ((0.9, True), (1.1, False)):
            found = whole.compare(blob, moved(ends[0], (0, 0), by * DOUBLE_BOX), ends[1], ends)[0]
            assert found.difference.ok == ok
            assert found.difference.allowed == pytest.approx(DOUBLE_BOX, rel=0.01)

    def test_a_box_at_the_far_corner_is_allowed_its_default_boxes_roundings_and_no_more(
        self, whole: WholeNet, blob: np.ndarray, ends: tuple[np.ndarray, np.ndarray]
    ) -> None:
        far = int(ends[0][:1200, 3].argmax()), 3
        for by, ok in ((1.5, True), (6.0, False)):
            found = whole.compare(blob, moved(ends[0], far, by * DOUBLE_BOX), ends[1], ends)[0]
            assert found.difference.ok == ok
            assert found.difference.at == far
            allowed = found.difference.allowed / DOUBLE_BOX
            assert 1.5 < allowed < 6 if ok else allowed == pytest.approx(1, rel=0.01)

    @pytest.mark.parametrize(("by", "ok"), [(2e-9, True), (1e-7, False)])
    def test_a_net_that_amplifies_is_allowed_float64s_own_rounding(
        self, whole: WholeNet, blob: np.ndarray, ends: tuple[np.ndarray, np.ndarray], by: float, ok: bool
    ) -> None:
        """Where rounding the weights moves scores by 1e-3."""
        written = ends[0], moved(ends[1], (3, 3), 1e-3)
        found = whole.compare(blob, ends[0], moved(ends[1], (7, 2), by), written)[1]
        assert found.difference.ok == ok
        allowed = found.difference.allowed / DOUBLE_SCORE
        assert 2 < allowed < 50 if ok else allowed == pytest.approx(1, rel=0.01)

    def test_what_rounding_of_the_weights_does_is_told(
        self, whole: WholeNet, blob: np.ndarray, ends: tuple[np.ndarray, np.ndarray]
    ) -> None:
        boxes, scores = whole.compare(blob, *ends, (moved(ends[0], (3, 3), 1e-3), moved(ends[1], (3, 3), 1e-4)))
        assert (boxes.difference.ok, scores.difference.ok) == (True, True)
        assert (boxes.written, scores.written) == pytest.approx((1e-3, 1e-4))


def difference(share: float, absolute: float = 1e-10) -> LocalDifference:
    return LocalDifference((9, 4), absolute, share, (0, 0), 0.25, 0.25 + absolute, 1e-9)


def test_the_worst_image_counts() -> None:
    one, other = (WholeDifference("scores in float64", difference(s), 1.0, w) for s, w in ((0.5, 2e-7), (0.9, 1e-7)))
    for found in (one.with_image(other), other.with_image(one)):
        assert (found.difference.share, found.written) == (0.9, 2e-7)
    assert math.isnan(one.with_image(replace(other, written=math.nan)).written)
    assert math.isnan(replace(one, written=math.nan).with_image(other).written)


@pytest.mark.parametrize("wrong", ["", "boxes in float64", "scores in float64"])
def test_the_rows_follow_the_scores_and_decide(wrong: str) -> None:
    def whole(name: str) -> WholeDifference:
        found = difference(3.0, 3e-9) if name == wrong else difference(0.5)
        return WholeDifference(name, found, 1.0, 2e-7, "2 weights of Conv are odd" if name == wrong else "")

    rows = [
        Row(name, "detections", (9, 4), 1e-7, 1e-7, 2e-5, False, True) for name in ("boxes", "scores", "detections")
    ]
    found = judged(rows, Image((), (whole("boxes in float64"), whole("scores in float64"))))
    assert [row.stage for row in found] == ["boxes", "scores", "boxes in float64", "scores in float64", "detections"]
    assert {row.section for row in found[2:4]} == {"float64"}
    assert [row.stage for row in found if not row.ok] == [name for name in (wrong,) if name]
    report = VerifyReport("a.pb", "out", "opencv", found, ("a.png",), True)
    if wrong:
        assert verdict(report) == (
            f"not the same net: the first stage that differs is {wrong}: 0.25 here, 0.250000003 in the model; "
            "2 weights of Conv are odd"
        )
    else:
        assert verdict(report) == "equal on 1 image"
        assert found[2].note == "weights before their rounding to float32; after it 2.0e-07"


def test_without_float64_the_rows_stay() -> None:
    row = Row("scores", "detections", (9, 4), 1e-7, 1e-7, 2e-5, False, True)
    assert judged([row], None) == (row,)
