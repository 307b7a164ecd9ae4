"""Opening what convert wrote, and what is said of a folder that is not that."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ssdlite_caffe.errors import ArchError, LabelMapError, PrototxtError
from ssdlite_caffe.runtimes.model_folder import NEEDED, REPORT, ModelFolder


@pytest.fixture
def copy(example_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(example_folder, tmp_path / "out"))


def test_a_converted_folder_opens(example_folder: Path) -> None:
    model = ModelFolder.open(example_folder)
    assert model.arch.num_classes == 4
    assert model.arch.input_size == (320, 320)
    assert len(model.labels) == 4
    for path in (model.deploy_prototxt, model.deploy_caffemodel, model.headless_prototxt):
        assert path.is_file()


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(PrototxtError, match=r"none does not exist; give a folder"):
        ModelFolder.open(tmp_path / "none")
    (tmp_path / "file").write_text("x")
    with pytest.raises(PrototxtError, match=r"file is a file; give a folder"):
        ModelFolder.open(tmp_path / "file")


def test_all_missing_files_are_named(copy: Path) -> None:
    (copy / "deploy.caffemodel").unlink()
    (copy / "labelmap.prototxt").unlink()
    with pytest.raises(PrototxtError, match=r"not a converted model: deploy\.caffemodel, labelmap\.prototxt missing;"):
        ModelFolder.open(copy)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "[]", "{}", '{"arch": 3}', "\udcff"])
def test_a_broken_report_is_one_line(copy: Path, text: str) -> None:
    (copy / REPORT).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(PrototxtError, match=r"report\.json") as caught:
        ModelFolder.open(copy)
    assert "\n" not in str(caught.value)


def test_an_architecture_with_an_unknown_field(copy: Path) -> None:
    report = json.loads((copy / REPORT).read_text())
    report["arch"]["colour"] = "red"
    (copy / REPORT).write_text(json.dumps(report))
    with pytest.raises(ArchError, match="colour"):
        ModelFolder.open(copy)


def test_a_label_map_of_another_model(copy: Path) -> None:
    report = json.loads((copy / REPORT).read_text())
    report["arch"]["num_classes"] = 7
    (copy / REPORT).write_text(json.dumps(report))
    with pytest.raises(LabelMapError, match="4 classes but the model has 7"):
        ModelFolder.open(copy)


def test_train_files_may_be_missing(copy: Path) -> None:
    for path in copy.iterdir():
        if path.name not in NEEDED:
            path.unlink()
    assert ModelFolder.open(copy).path == copy
