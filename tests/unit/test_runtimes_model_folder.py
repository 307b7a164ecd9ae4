"""Opening what convert wrote, and what is said of a folder that is not that."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ssdlite_caffe.dump.read import ReadOptions
from ssdlite_caffe.errors import ArchError, LabelMapError, PrototxtError
from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.runtimes.model_folder import NEEDED, REPORT, ModelFolder
from ssdlite_caffe.tools.convert import ConvertOptions, convert
from ssdlite_caffe.tools.remap import remap_folder


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


@pytest.mark.parametrize(
    ("name", "given", "kind"),
    [
        ("frozen_inference_graph.pb", "", "frozen graph"),
        ("my graph.pb", "my graph.pb", "frozen graph"),
        ("model.ckpt.index", "model.ckpt", "checkpoint"),
        ("net.tflite", "", "TensorFlow Lite"),
        ("net.keras", "net.keras", "Keras model"),
        ("model.keras", "", "Keras model"),
    ],
)
def test_a_model_that_was_not_converted(tmp_path: Path, name: str, given: str, kind: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(PrototxtError, match=rf"is a {kind}, not a converted model; .* convert '?{tmp_path}"):
        ModelFolder.open(tmp_path / given)


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


class TestThePipelineConfig:
    """With which a folder was converted: found from any working directory and after a move."""

    @pytest.fixture
    def project(self, example_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        root = tmp_path / "a"
        root.mkdir()
        (root / "my.config").write_bytes((example_model.parent / "pipeline.config").read_bytes())
        with monkeypatch.context() as here:
            here.chdir(root)
            options = ConvertOptions(reading=ReadOptions(Path("my.config")))
            convert(example_model, Path("out"), options)
        return root

    def test_from_anywhere(self, project: Path) -> None:
        assert ModelFolder.open(project / "out").reading.pipeline_config == project / "my.config"

    def test_after_a_move(self, project: Path) -> None:
        moved = project.rename(project.parent / "b")
        assert ModelFolder.open(moved / "out").reading.pipeline_config == moved / "my.config"

    def test_that_is_gone(self, project: Path) -> None:
        (project / "my.config").unlink()
        folder = ModelFolder.open(project / "out")
        with pytest.raises(PrototxtError, match=r"pipeline\.config with which .*out was converted is gone from .*my"):
            assert folder.reading
        other = Path("other.config")
        assert folder.reading_with(other).pipeline_config == other

    def test_after_a_remap(self, project: Path) -> None:
        (project / "map.txt").write_text("round: class_1\n")
        remap_folder(project / "out", project / "map.txt", project / "deeper" / "remapped")
        moved = ModelFolder.open(project.rename(project.parent / "b") / "deeper" / "remapped")
        assert moved.reading.pipeline_config == project.parent / "b" / "my.config"
        assert moved.source is not None
        assert moved.source.path is not None


@pytest.mark.parametrize("source", [3, {}, {"path": 3}, {"path": "a", "sha256": 1}, {"path": "a", "relative": []}])
def test_a_source_that_is_none(copy: Path, source: object) -> None:
    report = json.loads((copy / REPORT).read_text())
    (copy / REPORT).write_text(json.dumps({**report, "source": source}))
    with pytest.raises(PrototxtError, match="what is under 'source' is not valid"):
        assert ModelFolder.open(copy).source


def test_a_report_of_an_early_version(copy: Path, example_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its path is as seen from the working directory of then."""
    report = json.loads((copy / REPORT).read_text())
    report["source"] = {"path": example_model.name, "form": "frozen graph", "origins": {}}
    (copy / REPORT).write_text(json.dumps(report))
    source = ModelFolder.open(copy).source
    assert source is not None
    assert source.path is None
    monkeypatch.chdir(example_model.parent)
    source = ModelFolder.open(copy).source
    assert source is not None
    assert source.path == Path(example_model.name)


def test_a_report_from_before_input_layers(copy: Path) -> None:
    """Its nets have the `input` fields, and remap writes them so again."""
    report = json.loads((copy / REPORT).read_text())
    for entry in report["files"].values():
        for field in ("linear", "gate", "coefficients", "names", "outputs", "fields", "input_form"):
            entry.get("dialect", {}).pop(field, None)
    (copy / REPORT).write_text(json.dumps(report))
    written = ModelFolder.open(copy).written_as("deploy.prototxt")
    assert written is not None
    assert written[0] == Dialect(input_form="fields")
