"""One model in TensorFlow, OpenCV and the built Caffe: the same average precision, and Caffe's own beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssdlite_caffe.data.encoded import ImageEncoding
from ssdlite_caffe.data.labelled_images import open_images
from ssdlite_caffe.data.lmdb_write import Order, write_lmdb
from ssdlite_caffe.data.voc import open_voc
from ssdlite_caffe.evaluation.detection_evaluate import NAME, with_detection_evaluate
from ssdlite_caffe.evaluation.evaluate import evaluate
from ssdlite_caffe.evaluation.forms import open_model_forms
from ssdlite_caffe.tools.convert import ConvertOptions, convert

pytestmark = [
    pytest.mark.slow, pytest.mark.caffe, pytest.mark.tensorflow, pytest.mark.opencv, pytest.mark.xdist_group("caffe"),
]  # fmt: skip

EQUAL = 1e-3
OWN = 0.01
"""Caffe resizes by OpenCV's rule, not TensorFlow's, and compares boxes that are not clipped; measured: 0.0021."""


def test_the_same_precision(caffe_prefix: Path, shared_models: Path, tmp_path: Path) -> None:
    bccd = shared_models.parent / "data" / "bccd"
    if not bccd.is_dir():
        pytest.skip("no shared/data/bccd beside the repository")
    (tmp_path / "names.txt").write_text("RBC\nWBC\nPlatelets\n")
    source = shared_models / "bccd_v2_ssdlite_3" / "frozen_inference_graph.pb"
    convert(source, tmp_path / "model", ConvertOptions(label_map=str(tmp_path / "names.txt")))
    model = open_model_forms(tmp_path / "model")
    write_lmdb(open_voc([bccd], "test", label_map=model.labels), tmp_path / "lmdb", ImageEncoding(), Order())
    images = open_images(tmp_path / "lmdb", model.labels)
    result = evaluate(model, images, ["tensorflow", "opencv", "caffe"], data="bccd")
    result = with_detection_evaluate(result, model, tmp_path / "lmdb")
    scores = {score.runtime: score for score in result.scores}
    assert list(scores) == ["tensorflow", "opencv", "caffe", NAME]
    reference = scores["tensorflow"]
    assert reference.ap50 > 0.8
    for runtime in ("opencv", "caffe"):
        for key in ("ap", "ap50", "ap75", "voc07", "voc12"):
            assert getattr(scores[runtime], key) == pytest.approx(getattr(reference, key), abs=EQUAL)
    own = scores[NAME]
    print(own.voc07 - reference.voc07, own.voc12 - reference.voc12)
    assert own.voc07 == pytest.approx(reference.voc07, abs=OWN)
    assert own.voc12 == pytest.approx(reference.voc12, abs=OWN)
    for row, one in own.classes.items():
        assert one.objects == reference.classes[row].objects
