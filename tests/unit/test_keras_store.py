"""What is said of a Keras file, and of other mistakes in its commands, without loading Keras."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from ssdlite_caffe.data.toy_scenes import ShapesOptions, make_shapes
from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.gen_model.build import default_arch
from ssdlite_caffe.keras.store import description_of, load
from tests.commands import Command

LABELS = [["none_of_the_above", "background"], ["circle", "circle"], ["square", "square"], ["triangle", "triangle"]]
DESCRIPTION = {"arch": default_arch("v2", 4).to_dict(), "labels": LABELS}


@pytest.fixture(autouse=True)
def no_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorflow", "keras"):
        monkeypatch.setitem(sys.modules, name, None)


def layers(*, ours: bool = True, name: str = "Predictions") -> dict[str, Any]:
    dense = {"module": "keras.layers", "class_name": "Dense", "config": {"units": 3}}
    own = {"module": "ssdlite_caffe.keras.layers", "class_name": name, "config": DESCRIPTION}
    return {"class_name": "Functional", "config": {"layers": [dense, *([own] if ours else [])]}}


def keras_file(path: Path, content: dict[str, Any]) -> Path:
    if path.suffix == ".h5":
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            for name, value in content.items():
                file.attrs[name] = json.dumps(value)
        return path
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", json.dumps(content))
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return keras_file(tmp_path / "net.keras", layers())


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scenes") / "voc"
    make_shapes(out, ShapesOptions(3, 5, split="test"))
    return out


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.keras", layers()),
        ("a.h5", {"model_config": layers(name="ssdlite_caffe>Predictions")}),
        ("a.weights.h5", {"ssdlite_caffe": DESCRIPTION}),
    ],
)
def test_each_format_describes_itself(tmp_path: Path, name: str, content: dict[str, Any]) -> None:
    arch, labels = description_of(keras_file(tmp_path / name, content))
    assert arch == default_arch("v2", 4)
    assert labels.display_names == ("background", "circle", "square", "triangle")


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.keras", layers(ours=False), "is a Keras model, but not a detector that"),
        ("a.h5", {"model_config": layers(ours=False)}, "is a Keras model, but not a detector that"),
        ("a.weights.h5", {}, "has weights without the description of their net; give the .keras file"),
    ],
)
def test_other_keras_models(tmp_path: Path, name: str, content: dict[str, Any], text: str) -> None:
    path = keras_file(tmp_path / name, content)
    for opened in (description_of, load):
        with pytest.raises(ModelError, match=text):
            opened(path)


@pytest.mark.parametrize(
    "arguments",
    ["convert {} -o {out}", "dump {} -o {out}", "evaluate {} --data {data}", "keras test {} --data {data}",
     "keras infer {} {data}/JPEGImages", "keras export pb {} -o {out}.pb", "keras export tflite {} -o {out}.tflite"],
)  # fmt: skip
def test_every_command_refuses_another_model(refused: Command, tmp_path: Path, scenes: Path, arguments: str) -> None:
    path = keras_file(tmp_path / "other.keras", layers(ours=False))
    filled = (word.format(path, out=tmp_path / "out", data=scenes) for word in arguments.split())
    assert "is a Keras model, but not a detector that" in refused(*filled).err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("keras infer {} {tmp}/none", "none does not exist; give an image"),
        ("keras infer {} {data}/Annotations", "has no images or videos"),
        ("keras infer {} {data}/JPEGImages --coco {tmp}/r.json --annotations {tmp}/none", "none: No such file"),
        ("keras infer {} {data}/JPEGImages --coco {}", "net.keras exists already"),
        ("keras test {} --data {tmp}/none", "none does not exist; give a folder in VOC's layout"),
        ("keras test {} --data {data} --split none", "has no split 'none'"),
        ("keras test {} --data {data} -l coco", "has 91 classes but the model has 4"),
        ("keras test {} --data {data} -l {other}", "has no object of the model's classes"),
        ("evaluate {} --data {data} -l {other}", "has no object of the model's classes"),
        ("evaluate {} --data {data} --tflite {tmp}/none.tflite", "none.tflite does not exist"),
        ("keras export tflite {} -o {tmp}/a.tflite --data {data} --split none", "has no split 'none'"),
        ("keras import {} -o {tmp}/b.keras", "type: ssdlite-caffe keras export pb {} -o frozen_inference_graph.pb"),
        ("keras import {data} -o {}", "net.keras exists already"),
    ],
)
def test_mistakes_are_told_before_keras_is_loaded(
    refused: Command, model: Path, tmp_path: Path, scenes: Path, arguments: str, text: str
) -> None:
    other = tmp_path / "other.txt"
    other.write_text("cat\ndog\nbird\n")
    filled = (word.format(model, tmp=tmp_path, data=scenes, other=other) for word in arguments.split())
    assert text.format(model) in refused(*filled).err


@pytest.mark.parametrize("words", ["keras test {} --data", "keras export tflite {} -o {tmp}/a.tflite --data"])
def test_the_folder_of_a_training(refused: Command, model: Path, tmp_path: Path, scenes: Path, words: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.keras").write_bytes(model.read_bytes())
    filled = (word.format(tmp_path / "run", tmp=tmp_path) for word in words.split())
    assert "has no split 'none'" in refused(*filled, scenes, "--split", "none").err


@pytest.mark.parametrize(("name", "kind"), [("a.keras", "a zip archive"), ("a.h5", "an HDF5 file")])
def test_other_files_with_such_a_name(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).write_text("<html>not found</html>")
    with pytest.raises(ModelError, match=f"cannot be read as a Keras model: it is not {kind}"):
        load(tmp_path / name)
