"""The command from outside: exit statuses, one line for each error, nothing written by a run that fails."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from ssdlite_caffe import __version__
from ssdlite_caffe.prototxt.text import parse_net, read_net
from tests.commands import Command, Result, graph_with_nan

COMMANDS = (
    "gen", "dump", "load", "convert", "verify", "remap", "detect", "lint",
    "lmdb", "kit", "train", "test", "evaluate", "merge-bn", "cut", "caffe", "keras", "shapes",
)  # fmt: skip


class TestHelp:
    @pytest.mark.parametrize("name", COMMANDS)
    def test_of_each_subcommand(self, command: Command, name: str) -> None:
        result = command(name, "--help")
        assert (result.status, result.err) == (0, "")
        assert f"ssdlite-caffe {name}" in result.out

    def test_of_the_command_names_all(self, command: Command) -> None:
        for arguments in (["--help"], []):
            result = command(*arguments)
            assert result.status == (0 if arguments else 2)
            assert all(name in result.out for name in COMMANDS)

    def test_version(self, command: Command) -> None:
        assert command("--version") == (0, f"ssdlite-caffe {__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        ["gen"],
        ["gen", "-c", "x"],
        ["gen", "-c", "4", "-s", "nowhere"],
        ["gen", "-c", "4", "--input", "0x3"],
        ["gen", "-c", "4", "--scales", "0.1,zero"],
        ["gen", "-c", "4", "--variances", "1"],
        ["dump", "model.pb"],
        ["dump", "model.pb", "--list", "-o", "out"],
        ["load", "weights", "net.prototxt"],
        ["convert", "model.pb"],
        ["convert", "model.pb", "-o", "out", "--padding", "some"],
        ["convert", "model.pb", "-o", "out", "--score-threshold", "1.5"],
        ["convert", "model.pb", "-o", "out", "--batch-size", "-1"],
        ["verify", "model.pb"],
        ["verify", "model.pb", "out", "--limit", "0"],
        ["remap", "out", "-o", "other"],
        ["detect", "out"],
        ["detect", "out", "image.png", "--json", "--csv"],
        ["detect", "out", "image.png", "--score-threshold", "-1"],
        ["detect", "out", "image.png", "--decoder", "magic"],
        ["lint", "net.prototxt", "--runtime", "word"],
        ["lint", "net.prototxt", "more.prototxt"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_status_2(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = command(*arguments)
    assert result.status == 2
    assert result.out == ""
    assert "Usage: ssdlite-caffe" in result.err
    assert "Error" in result.err
    assert list(tmp_path.iterdir()) == []


class TestOutputs:
    def cases(self, example_model: Path, example_folder: Path, example_weights: Path, mapping: Path) -> list[list[Any]]:
        """Every command that writes, up to its -o."""
        return [
            ["convert", example_model],
            ["dump", example_model],
            ["remap", example_folder, "--map", mapping],
            ["load", example_weights, example_folder / "deploy.prototxt"],
            ["gen", "-c", "4"],
        ]

    @pytest.fixture
    def commands(
        self, example_model: Path, example_folder: Path, example_weights: Path, tmp_path: Path
    ) -> list[list[Any]]:
        (tmp_path / "map.yaml").write_text("round: [class_1]\n")
        return self.cases(example_model, example_folder, example_weights, tmp_path / "map.yaml")

    def test_that_exist(self, refused: Command, commands: list[list[Any]], tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "thesis.tex").write_text("years of work")
        (tmp_path / "file").write_text("x")
        for arguments in commands:
            for name in ("folder", "file"):
                wrong_kind = (name == "file") == (arguments[0] in ("convert", "dump", "remap"))
                said = refused(*arguments, "-o", tmp_path / name).err
                assert str(tmp_path / name) in said
                assert wrong_kind or "--force" in said
                if name == "folder" or wrong_kind:
                    assert str(tmp_path / name) in refused(*arguments, "-o", tmp_path / name, "--force").err

    def test_that_cannot_be_written(self, refused: Command, commands: list[list[Any]], tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        for arguments in commands:
            for target in (tmp_path / "file" / "below" / "out", Path("/proc/nowhere/out"), tmp_path / ("x" * 300)):
                said = refused(*arguments, "-o", target).err
                assert said.count(str(target)) == 1

    def test_with_a_missing_parent(self, command: Command, commands: list[list[Any]], tmp_path: Path) -> None:
        for arguments in commands:
            target = tmp_path / "a" / str(arguments[0]) / "out"
            assert command(*arguments, "-o", target).status == 0
            assert target.exists()
            assert [path.name for path in target.parent.iterdir()] == ["out"]

    @pytest.mark.parametrize("given", [".", "./", "../here", "sub/", "sub/../sub//out/", "{absolute}"])
    def test_oddly_written(
        self, command: Command, example_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
    ) -> None:
        here = tmp_path / "here"
        here.mkdir()
        monkeypatch.chdir(here)
        out = given.format(absolute=here / "absolute")
        if given == "sub/../sub//out/":
            (here / "sub").mkdir()
        assert command("convert", example_model, "-o", out).status == 0
        assert Path(out, "report.json").is_file()
        assert command("convert", example_model, "-o", out).status == 1
        assert command("convert", example_model, "-o", out, "--force").status == 0
        assert command("lint", Path(out, "deploy.prototxt")).status == 0
        assert not list(tmp_path.rglob(".ssdlite*"))


class TestDetect:
    @pytest.fixture
    def images(self, example_model: Path, tmp_path: Path) -> Path:
        folder = tmp_path / "images"
        folder.mkdir()
        for name in ("a.png", "c.png"):
            shutil.copy(example_model.parent / "shapes.png", folder / name)
        (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:999])
        (folder / "d.jpg").write_text("no image")
        return folder

    @pytest.mark.opencv
    def test_an_unreadable_image_among_many(
        self, command: Command, example_folder: Path, images: Path, tmp_path: Path
    ) -> None:
        result = command("detect", example_folder, images, tmp_path / "none.png", "-o", tmp_path / "out", "--json")
        assert result.status == 1
        said = result.err.splitlines()
        assert len(said) == 3
        assert all(line.startswith("ssdlite-caffe: ") for line in said)
        for name in ("b.png", "d.jpg", "none.png"):
            assert sum(name in line for line in said) == 1
        data = json.loads(result.out)
        assert [Path(p["image"]).name for p in data["images"]] == ["a.png", "c.png"]
        assert all(len(p["detections"]) >= 5 for p in data["images"])
        assert len(data["errors"]) == 3
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "c.png"]

    @pytest.mark.opencv
    def test_csv(self, command: Command, example_folder: Path, images: Path) -> None:
        result = command("detect", example_folder, images / "a.png", "--csv")
        rows = list(csv.DictReader(io.StringIO(result.out)))
        assert result.status == 0
        assert len(rows) >= 5
        assert {row["name"] for row in rows} == {"class_1", "class_2", "class_3"}

    @pytest.mark.parametrize("damage", ["missing", "report", "caffemodel", "prototxt"])
    @pytest.mark.opencv
    def test_a_folder_that_is_no_model(
        self, refused: Command, example_folder: Path, images: Path, tmp_path: Path, damage: str
    ) -> None:
        folder = Path(shutil.copytree(example_folder, tmp_path / "model"))
        if damage == "missing":
            (folder / "deploy.caffemodel").unlink()
        else:
            name = {"report": "report.json", "caffemodel": "deploy.caffemodel", "prototxt": "deploy.prototxt"}[damage]
            (folder / name).write_text("layer {")
        refused("detect", folder, images / "a.png", "-o", tmp_path / "out")


def test_verify_refuses_before_tensorflow_starts(
    refused: Command, example_model: Path, example_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert "does not exist" in refused("verify", example_model, tmp_path / "none").err
    other = graph_with_nan(example_model, tmp_path / "other.pb", {"BoxPredictor_2/ClassPredictor/weights": 0.25})
    assert "was converted from another model" in refused("verify", other, example_folder).err
    (tmp_path / "page.html").write_text("old")
    assert "exists already" in refused("verify", example_model, example_folder, "--html", tmp_path / "page.html").err
    assert "this needs TensorFlow" in refused("verify", example_model, example_folder).err


class TestJson:
    """Every --json prints one valid object and nothing else."""

    def parsed(self, result: Result) -> Any:
        assert (result.status, result.err) == (0, "")
        return json.loads(result.out)

    def test_of_the_commands_that_write(self, command: Command, example_model: Path, tmp_path: Path) -> None:
        dumped = self.parsed(command("dump", example_model, "-o", tmp_path / "weights", "--json"))
        assert dumped["tensors"] == 350
        converted = self.parsed(command("convert", example_model, "-o", tmp_path / "model", "--json"))
        assert converted == json.loads((tmp_path / "model" / "report.json").read_text())
        net = tmp_path / "model" / "train.prototxt"
        loaded = self.parsed(command("load", tmp_path / "weights", net, "-o", tmp_path / "x.caffemodel", "--json"))
        assert loaded["left"] == {}
        assert (tmp_path / "x.caffemodel").read_bytes() == (tmp_path / "model" / "train.caffemodel").read_bytes()
        (tmp_path / "map.yaml").write_text("round: [class_1]\n")
        options = ("--map", tmp_path / "map.yaml", "-o", tmp_path / "remapped", "--json")
        remapped = self.parsed(command("remap", tmp_path / "model", *options))
        assert remapped == json.loads((tmp_path / "remapped" / "report.json").read_text())
        assert remapped["arch"]["num_classes"] == 2

    def test_of_the_commands_that_look(self, command: Command, example_model: Path, example_folder: Path) -> None:
        listed = self.parsed(command("dump", example_model, "--list", "--json"))
        assert len(listed["tensors"]) == 350
        assert listed["tensors"][0] == {
            "name": "FeatureExtractor/MobilenetV3/Conv/weights", "shape": [3, 3, 3, 16], "dtype": "float32",
        }  # fmt: skip
        linted = self.parsed(command("lint", example_folder / "deploy.prototxt", "--json", "--runtime", "opencv"))
        assert linted["ok"] is True
        assert len(linted["layers"]) == len(read_net(example_folder / "deploy.prototxt").layer)

    @pytest.mark.slow
    @pytest.mark.tensorflow
    @pytest.mark.opencv
    @pytest.mark.xdist_group("verify")
    def test_of_verify(self, command: Command, example_model: Path, example_folder: Path) -> None:
        report = self.parsed(command("verify", example_model, example_folder, "--limit", 1, "--json"))
        assert report["ok"] is True
        result = command("verify", example_model, example_folder, "--limit", 1, "--json", "--tolerance", 0)
        assert result.status == 1
        assert json.loads(result.out)["first_failure"] in ("boxes", "scores")
        result = command("verify", example_model, example_folder, "--limit", 1, "--tolerance", 0)
        assert result.status == 1
        assert "the first stage beyond its bound is " in result.out


def test_list_is_readable(command: Command, example_model: Path) -> None:
    result = command("dump", example_model, "--list")
    lines = result.out.splitlines()
    assert (result.status, len(lines)) == (0, 350)
    assert lines[0].split() == ["FeatureExtractor/MobilenetV3/Conv/weights", "float32", "3x3x3x16"]


def test_gen_prints_what_it_writes(command: Command, tmp_path: Path) -> None:
    printed = command("gen", "-s", "deploy", "-c", 91)
    assert (printed.status, printed.err) == (0, "")
    assert command("gen", "-s", "deploy", "-c", 91, "-o", tmp_path / "net").status == 0
    assert (tmp_path / "net").read_text() == printed.out
    assert len(parse_net(printed.out).layer) > 100


def test_out_of_memory_is_one_line(
    command: Command, example_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ssdlite_caffe.tools import convert

    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(convert, "render", fail)
    result = command("convert", example_model, "-o", tmp_path / "out")
    assert result == (1, "", "ssdlite-caffe: not enough memory\n")
    assert list(tmp_path.iterdir()) == []
