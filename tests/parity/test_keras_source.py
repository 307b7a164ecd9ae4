"""Keras files as the source of the other commands: what `keras` writes, `convert`, `dump` and `verify` read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ssdlite_caffe import convert, verify
from ssdlite_caffe.dump.read import ReadOptions
from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.keras.import_model import import_file
from ssdlite_caffe.prototxt.binary import blob_to_array, read_caffemodel
from ssdlite_caffe.runtimes.keras_file import keras_file
from ssdlite_caffe.tools.dump import dump
from ssdlite_caffe.tools.source import open_model

pytestmark = [pytest.mark.tensorflow, pytest.mark.opencv]


@pytest.fixture(scope="module")
def files(example_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example as Keras files of each form."""
    folder = tmp_path_factory.mktemp("keras")
    labels = str(example_model.parent / "labelmap.pbtxt")
    for name in ("model.keras", "model.weights.h5", "model.h5"):
        import_file(example_model, folder / name, label_map=labels)
    return folder


@pytest.mark.parametrize(
    "name", ["model.keras", *(pytest.param(x, marks=pytest.mark.story) for x in ("model.weights.h5", "model.h5"))]
)
def test_convert_and_verify(files: Path, name: str, tmp_path: Path) -> None:
    report = convert(files / name, tmp_path / "out")
    assert report["source"]["form"] == "Keras model"
    assert report["source"]["path"] == str(files / name)
    names = json.dumps((tmp_path / "out" / "labelmap.prototxt").read_text())
    assert all(one in names for one in ("circle", "square", "triangle"))
    assert verify(files / name, tmp_path / "out", limit=1).first_failure is None


def test_weights_are_those_of_the_graph(files: Path, example_model: Path, tmp_path: Path) -> None:
    """Train nets keep BatchNorm apart, so weights move and are not computed."""
    convert(files / "model.keras", tmp_path / "keras")
    convert(example_model, tmp_path / "graph")
    sides = [read_caffemodel(tmp_path / side / "train.caffemodel") for side in ("keras", "graph")]
    for one, other in zip(*(side.layer for side in sides), strict=True):
        assert one.name == other.name
        if not one.name.endswith("_mbox_loc"):  # the boxes' last digits are folded into their bias
            for left, right in zip(one.blobs, other.blobs, strict=True):
                assert (blob_to_array(left, "") == blob_to_array(right, "")).all()


def test_dumped_weights_convert_to_the_same(files: Path, tmp_path: Path) -> None:
    dump(files / "model.keras", tmp_path / "weights", progress=lambda _: None)
    convert(tmp_path / "weights", tmp_path / "one")
    convert(files / "model.keras", tmp_path / "other")
    assert (tmp_path / "one" / "deploy.caffemodel").read_bytes() == (
        tmp_path / "other" / "deploy.caffemodel"
    ).read_bytes()


def test_the_folder_of_a_training(files: Path, tmp_path: Path) -> None:
    shutil.copy(files / "model.keras", tmp_path / "model.keras")
    assert keras_file(tmp_path) == tmp_path / "model.keras"
    (tmp_path / "frozen_inference_graph.pb").write_bytes(b"")
    assert keras_file(tmp_path) is None


def test_options_that_do_not_apply(files: Path) -> None:
    with (
        pytest.raises(ModelError, match="do not apply to a Keras model"),
        open_model(files / "model.keras", ReadOptions(nms="regular")),
    ):
        pass
