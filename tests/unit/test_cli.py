"""The command from outside: exit statuses, one line for each error, nothing written by a run that fails."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from ssdlite_caffe import __version__, cli
from ssdlite_caffe.dump import tensorflow_subset_pb2 as pb
from ssdlite_caffe.prototxt.text import parse_net, read_net
from tests.dump_graphs import GraphBuilder

COMMANDS = ("gen", "dump", "load", "convert", "verify", "remap", "detect", "lint")


class Result(NamedTuple):
    status: int
    out: str
    err: str


Command = Callable[..., Result]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command in this process."""

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["ssdlite-caffe", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert isinstance(end.value.code, int)
        return Result(end.value.code, *capsys.readouterr())

    return run


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder, hidden files too: path -> content, None for a folder."""
    paths = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes() for path in paths}


@pytest.fixture
def refused(command: Command, tmp_path: Path) -> Command:
    """Run a command that must fail: status 1, one message on stderr, nothing on stdout, nothing written."""

    def run(*arguments: object) -> Result:
        before = tree(tmp_path)
        result = command(*arguments)
        assert result.status == 1, result
        first, *more = result.err.splitlines()
        assert first.startswith("ssdlite-caffe: ")
        assert all(line.startswith("  ") for line in more), "only a list of problems goes on below"
        assert bool(more) == first.endswith(":")
        assert result.out == ""
        assert tree(tmp_path) == before
        return result

    return run


@pytest.fixture(scope="session")
def example_weights(example_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `dump` writes of the example model."""
    from ssdlite_caffe.tools.dump import dump

    folder = tmp_path_factory.mktemp("weights") / "out"
    dump(example_model, folder, progress=lambda _: None)
    return folder


@pytest.fixture
def weights(example_weights: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(example_weights, tmp_path / "weights"))


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
        ["detect", "out", "picture.png", "--json", "--csv"],
        ["detect", "out", "picture.png", "--min-score", "-1"],
        ["detect", "out", "picture.png", "--decoder", "magic"],
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


def graph_with_nan(source: Path, path: Path, names: dict[str, float]) -> Path:
    """A copy of a frozen graph with a bad value in each of these constants."""
    graph = pb.GraphDef.FromString(source.read_bytes())
    found = 0
    for node in graph.node:
        if node.name in names:
            tensor = node.attr["value"].tensor
            values = np.frombuffer(tensor.tensor_content, "<f4").copy()
            values[len(values) // 2] = names[node.name]
            tensor.tensor_content = values.tobytes()
            found += 1
    assert found == len(names)
    path.write_bytes(graph.SerializeToString())
    return path


def resnet(path: Path) -> Path:
    """A detector of another kind."""
    graph = GraphBuilder()
    graph.node("image_tensor", "Placeholder")
    for scope in ("FirstStageFeatureExtractor/resnet_v1_50/conv1", "SecondStageBoxPredictor/Conv"):
        graph.conv(scope, "image_tensor", np.ones((1, 1, 3, 2), np.float32))
    return graph.write(path)


class TestModels:
    """What convert says of a model that is none; dump and verify read by the same function."""

    @pytest.fixture
    def convert(self, refused: Command, tmp_path: Path) -> Callable[[Path], str]:
        def run(model: Path) -> str:
            message = refused("convert", model, "-o", tmp_path / "out").err
            assert str(model) in message
            assert refused("dump", model, "-o", tmp_path / "out").err == message
            assert refused("dump", model, "--list").err == message or "do not fit" in message
            return message

        return run

    def test_that_is_not_there(self, convert: Callable[[Path], str], tmp_path: Path) -> None:
        assert convert(tmp_path / "none.pb").endswith("none.pb does not exist\n")

    def test_that_was_cut_short(self, convert: Callable[[Path], str], example_model: Path, tmp_path: Path) -> None:
        path = tmp_path / "cut.pb"
        path.write_bytes(example_model.read_bytes()[:1_000_000])
        assert "is not a whole TensorFlow graph (1000000 bytes)" in convert(path)

    def test_that_is_empty(self, convert: Callable[[Path], str], tmp_path: Path) -> None:
        (tmp_path / "empty.pb").touch()
        assert "is empty (0 bytes)" in convert(tmp_path / "empty.pb")

    def test_that_is_text(self, convert: Callable[[Path], str], tmp_path: Path) -> None:
        (tmp_path / "text.pb").write_text("hello world\n")
        assert "is a text file, not a binary graph" in convert(tmp_path / "text.pb")

    def test_of_another_kind(self, convert: Callable[[Path], str], tmp_path: Path) -> None:
        message = convert(resnet(tmp_path / "resnet.pb"))
        assert "is not an SSD MobileNet: it has neither the backbone nor the box predictors of one" in message
        assert "found FirstStageFeatureExtractor/resnet_v1_50, SecondStageBoxPredictor" in message

    def test_without_heads(self, convert: Callable[[Path], str], tmp_path: Path) -> None:
        graph = GraphBuilder()
        graph.node("image_tensor", "Placeholder")
        graph.conv("FeatureExtractor/MobilenetV2/Conv", "image_tensor", np.ones((1, 1, 3, 2), np.float32))
        assert "it has no box predictors (found FeatureExtractor/MobilenetV2)" in convert(
            graph.write(tmp_path / "a.pb")
        )

    def test_with_bad_weights(self, convert: Callable[[Path], str], example_model: Path, tmp_path: Path) -> None:
        names = {
            "FeatureExtractor/MobilenetV3/expanded_conv_3/depthwise/BatchNorm/gamma": np.nan,
            "BoxPredictor_2/ClassPredictor/weights": -np.inf,
        }
        message = convert(graph_with_nan(example_model, tmp_path / "nan.pb", names))
        assert "holds NaN or infinite values in 2 tensors" in message
        assert all(f"{name} (1 of " in message for name in names)

    def test_a_folder_that_holds_none(self, convert: Callable[[Path], str], tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        assert "holds no manifest.json, saved_model.pb, frozen" in convert(tmp_path / "empty")

    def test_a_checkpoint_that_is_not_whole(self, convert: Callable[[Path], str], tmp_path: Path) -> None:
        folder = tmp_path / "checkpoint"
        folder.mkdir()
        for name in ("model.ckpt.index", "model.ckpt.data-00000-of-00002"):
            (folder / name).write_bytes(b"x")
        assert "is not whole: model.ckpt.data-00001-of-00002 missing" in convert(folder / "model.ckpt")
        (folder / "model.ckpt.data-00001-of-00002").write_bytes(b"x")
        message = convert(folder / "model.ckpt")
        assert "holds no input size, default boxes or thresholds, and there is no " in message
        assert "pipeline.config; name one with --pipeline-config" in message

    def test_a_pipeline_config_that_is_none(self, refused: Command, example_model: Path, tmp_path: Path) -> None:
        (tmp_path / "pipeline.config").write_text("model {\n  ssd {\n    num_classes 3\n")
        options = ("-o", tmp_path / "out", "--pipeline-config", tmp_path / "pipeline.config")
        assert "pipeline.config is not a pipeline.config: 3:17" in refused("convert", example_model, *options).err


class TestLabelMaps:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('item { id: 1 name: "a" }\nitem { id: 1 name: "b" }', "id 1 is given twice: 'a' and 'b'"),
            ('item { id: 1 name: "a" }\nitem { id: 2 name: "a" }', "name 'a' is given twice: ids 1 and 2"),
            ("item {\n  id: 1\n  name: a\n}", "map.pbtxt:3:"),
            ("item { id: 7 name: 'a' }", "map.pbtxt has 8 classes and the model 4"),
            ("", "holds no item"),
        ],
    )
    def test_that_contradict_themselves(
        self, refused: Command, example_model: Path, tmp_path: Path, text: str, message: str
    ) -> None:
        path = tmp_path / "map.pbtxt"
        path.write_text(text)
        said = refused("convert", example_model, "-o", tmp_path / "out", "--label-map", path).err
        assert message.replace("map.pbtxt has", "the label map has") in said

    @pytest.mark.parametrize("name", ["cocoa", "none.pbtxt"])
    def test_that_are_not_there(self, refused: Command, example_model: Path, tmp_path: Path, name: str) -> None:
        assert name in refused("convert", example_model, "-o", tmp_path / "out", "--label-map", name).err

    def test_mappings(self, refused: Command, example_folder: Path, tmp_path: Path) -> None:
        path = tmp_path / "map.yaml"
        for text, message in (
            ("round: [circle]\n", "circle"),
            ("round: [class_1]\nround: [class_2]\n", "map.yaml:2: "),
            ("round\n", "map.yaml:1: "),
        ):
            path.write_text(text)
            assert message in refused("remap", example_folder, "--map", path, "-o", tmp_path / "out").err
        said = refused("remap", example_folder, "--map", "coco2voc", "-o", tmp_path / "out").err
        assert "aeroplane" in said or "airplane" in said


@pytest.mark.parametrize(
    "options", [("-c", 1), ("-c", 4, "--size", "nan"), ("-c", 4, "--scales", "0.1"), ("-c", 4, "--input", 3)], ids=str
)
def test_a_net_that_cannot_be_built(refused: Command, tmp_path: Path, options: tuple[object, ...]) -> None:
    refused("gen", *options)
    refused("gen", *options, "-o", tmp_path / "net.prototxt")


class TestWeights:
    def run(self, refused: Command, weights: Path, net: Path) -> list[str]:
        return refused("load", weights, net, "-o", weights.parent / "made" / "out.caffemodel").err.splitlines()

    def damaged(self, refused: Command, weights: Path, example_folder: Path) -> str:
        (line,) = self.run(refused, weights, example_folder / "deploy.prototxt")
        return line

    STEM = "tensors/FeatureExtractor/MobilenetV3/Conv/weights.npy"

    def test_missing_and_additional(self, refused: Command, weights: Path, example_folder: Path) -> None:
        (weights / self.STEM).unlink()
        np.save(weights / "tensors" / "more.npy", np.ones(3, np.float32))
        line = self.damaged(refused, weights, example_folder)
        assert "FeatureExtractor/MobilenetV3/Conv/weights is missing" in line
        assert "more is not in the manifest" in line

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (np.ones((3, 3, 3, 15), np.float32), "has the shape (3, 3, 3, 15), the manifest says (3, 3, 3, 16)"),
            (np.ones((3, 3, 3, 16), np.float64), "has the type float64, not float32"),
            (np.full((3, 3, 3, 16), np.inf, np.float32), "holds 432 NaN or infinite values"),
            (np.array([{"a": 1}], object), "holds pickled objects, which are never loaded"),
        ],
        ids=["shape", "type", "infinite", "pickle"],
    )
    def test_other_arrays(
        self, refused: Command, weights: Path, example_folder: Path, array: np.ndarray, message: str
    ) -> None:
        np.save(weights / self.STEM, array)
        assert message in self.damaged(refused, weights, example_folder)

    def test_cut_short(self, refused: Command, weights: Path, example_folder: Path) -> None:
        path = weights / self.STEM
        path.write_bytes(path.read_bytes()[:-4])
        assert "bytes where its shape asks for" in self.damaged(refused, weights, example_folder)

    def test_a_manifest_that_is_none(self, refused: Command, weights: Path, example_folder: Path) -> None:
        (weights / "manifest.json").write_text("{")
        assert "manifest.json is not JSON" in self.damaged(refused, weights, example_folder)

    def test_a_manifest_that_agrees_with_a_wrong_shape(
        self, refused: Command, weights: Path, example_folder: Path
    ) -> None:
        """What only filling finds."""
        manifest = json.loads((weights / "manifest.json").read_text())
        for name, shape in (("Conv/weights", [3, 3, 3, 15]), ("Conv/BatchNorm/gamma", [7])):
            full = f"FeatureExtractor/MobilenetV3/{name}"
            manifest["tensors"][full]["shape"] = shape
            np.save(weights / "tensors" / f"{full}.npy", np.ones(shape, np.float32))
        (weights / "manifest.json").write_text(json.dumps(manifest))
        first, *rest = self.run(refused, weights, example_folder / "deploy.prototxt")
        assert first == f"ssdlite-caffe: the weights do not fit the net, {len(rest)} problems:"
        assert any("Conv/BatchNorm/gamma' has the shape (7,), its kernel takes (15,)" in line for line in rest)

    def test_class_counts_that_differ(self, command: Command, refused: Command, weights: Path, tmp_path: Path) -> None:
        net = tmp_path / "net.prototxt"
        assert command("gen", "-c", 9, "-v", "3-small", "-o", net).status == 0
        first, *rest = self.run(refused, weights, net)
        assert first.endswith("6 problems:")
        assert all("mbox_conf' has" in line for line in rest)
        result = command("load", weights, net, "-o", tmp_path / "out.caffemodel", "--finetune")
        assert result.status == 0
        assert result.out.count("left to its filler: ") == 6


class TestNets:
    def edited(self, example_folder: Path, tmp_path: Path, old: str, new: str) -> Path:
        text = (example_folder / "deploy.prototxt").read_text()
        assert old in text
        path = tmp_path / "net.prototxt"
        path.write_text(text.replace(old, new, 1))
        return path

    def test_a_syntax_error_has_its_line(
        self, refused: Command, example_weights: Path, example_folder: Path, tmp_path: Path
    ) -> None:
        path = self.edited(example_folder, tmp_path, 'type: "ReLU"', 'type "ReLU"')
        line = 1 + path.read_text().split('type "ReLU"')[0].count("\n")
        for arguments in (("load", example_weights, path, "-o", tmp_path / "out"), ("lint", path)):
            assert refused(*arguments).err.startswith(f"ssdlite-caffe: {path}:{line}:")

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ('type: "ReLU"', 'type: "RELU"', "there is no layer type 'RELU'; the nearest is 'ReLU'"),
            ('bottom: "conv_1/expand"', 'bottom: "nowhere"', "'nowhere'"),
        ],
    )
    def test_layers_that_do_not_fit(
        self, command: Command, refused: Command, example_weights: Path, example_folder: Path, tmp_path: Path, old: str,
        new: str, message: str,
    ) -> None:  # fmt: skip
        path = self.edited(example_folder, tmp_path, old, new)
        result = refused("load", example_weights, path, "-o", tmp_path / "out")
        assert result.err.startswith("ssdlite-caffe: the net does not fit together:\n")
        assert message in result.err
        line = 1 + next(i for i, text in enumerate(path.read_text().splitlines()) if new in text)
        linted = command("lint", path)
        assert linted.status == 1
        found = [text for text in linted.out.splitlines() if message in text and text.startswith(f"{path}:")]
        assert found
        assert 0 <= line - int(found[0].split(":")[1]) <= 4, "the line is the layer's"
        assert not json.loads(command("lint", path, "--json").out)["ok"]

    def test_unknown_fields(self, command: Command, example_folder: Path, tmp_path: Path) -> None:
        path = self.edited(example_folder, tmp_path, "kernel_size: 1", "kernel_sice: 1")
        assert "has no field 'kernel_sice'" in command("lint", path).out

    @pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"layer { name: 'a' "])
    def test_files_that_are_none(self, command: Command, example_weights: Path, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "net.prototxt"
        path.write_bytes(content)
        result = command("load", example_weights, path, "-o", tmp_path / "out")
        assert result.status == 1
        assert result.err.startswith("ssdlite-caffe: ")
        assert not (tmp_path / "out").exists()

    def test_a_file_that_is_not_there(self, refused: Command, example_weights: Path, tmp_path: Path) -> None:
        path = tmp_path / "none.prototxt"
        for arguments in (("load", example_weights, path, "-o", tmp_path / "out"), ("lint", path)):
            assert refused(*arguments).err == f"ssdlite-caffe: cannot read {path}: No such file or directory\n"


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
    def test_oddly_spelled(
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
    def pictures(self, example_model: Path, tmp_path: Path) -> Path:
        folder = tmp_path / "pictures"
        folder.mkdir()
        for name in ("a.png", "c.png"):
            shutil.copy(example_model.parent / "shapes.png", folder / name)
        (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:999])
        (folder / "d.jpg").write_text("no picture")
        return folder

    @pytest.mark.opencv
    def test_an_unreadable_picture_among_many(
        self, command: Command, example_folder: Path, pictures: Path, tmp_path: Path
    ) -> None:
        result = command("detect", example_folder, pictures, tmp_path / "none.png", "-o", tmp_path / "out", "--json")
        assert result.status == 1
        said = result.err.splitlines()
        assert len(said) == 3
        assert all(line.startswith("ssdlite-caffe: ") for line in said)
        for name in ("b.png", "d.jpg", "none.png"):
            assert sum(name in line for line in said) == 1
        data = json.loads(result.out)
        assert [Path(p["picture"]).name for p in data["pictures"]] == ["a.png", "c.png"]
        assert all(len(p["detections"]) >= 5 for p in data["pictures"])
        assert len(data["errors"]) == 3
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "c.png"]

    @pytest.mark.opencv
    def test_csv(self, command: Command, example_folder: Path, pictures: Path) -> None:
        result = command("detect", example_folder, pictures / "a.png", "--csv")
        rows = list(csv.DictReader(io.StringIO(result.out)))
        assert result.status == 0
        assert len(rows) >= 5
        assert {row["name"] for row in rows} == {"class_1", "class_2", "class_3"}

    @pytest.mark.parametrize("damage", ["missing", "report", "caffemodel", "prototxt"])
    @pytest.mark.opencv
    def test_a_folder_that_is_no_model(
        self, refused: Command, example_folder: Path, pictures: Path, tmp_path: Path, damage: str
    ) -> None:
        folder = Path(shutil.copytree(example_folder, tmp_path / "model"))
        if damage == "missing":
            (folder / "deploy.caffemodel").unlink()
        else:
            name = {"report": "report.json", "caffemodel": "deploy.caffemodel", "prototxt": "deploy.prototxt"}[damage]
            (folder / name).write_text("layer {")
        refused("detect", folder, pictures / "a.png", "-o", tmp_path / "out")


def test_verify_refuses_before_tensorflow_starts(
    refused: Command, example_model: Path, example_folder: Path, tmp_path: Path
) -> None:
    assert "does not exist" in refused("verify", example_model, tmp_path / "none").err
    other = graph_with_nan(
        example_model, tmp_path / "other.pb", {"BoxPredictor_2/ClassPredictor/weights": 0.25}
    )  # another model, with a finite value
    assert "was converted from another model" in refused("verify", other, example_folder).err
    (tmp_path / "page.html").write_text("old")
    assert "exists already" in refused("verify", example_model, example_folder, "--html", tmp_path / "page.html").err


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
