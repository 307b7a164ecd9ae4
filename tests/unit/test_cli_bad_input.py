"""Input that is none: one message, status 1, nothing written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.prototxt.binary import read_caffemodel
from ssdlite_caffe.prototxt.text import read_net
from tests.commands import Command, graph_with_nan
from tests.dump_graphs import GraphBuilder
from tests.tflite_files import OperatorSpec, TensorSpec, tflite_file


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
        assert "is not a complete TensorFlow graph (1000000 bytes)" in convert(path)

    def test_that_is_empty(self, convert: Callable[[Path], str], tmp_path: Path) -> None:
        (tmp_path / "empty.pb").touch()
        assert "is empty (0 bytes)" in convert(tmp_path / "empty.pb")

    def test_that_is_text(self, convert: Callable[[Path], str], tmp_path: Path) -> None:
        (tmp_path / "text.pb").write_text("hello world\n")
        assert "is a text file, not a binary graph" in convert(tmp_path / "text.pb")

    def test_of_another_kind(self, convert: Callable[[Path], str], tmp_path: Path) -> None:
        message = convert(resnet(tmp_path / "resnet.pb"))
        assert "is not an SSD MobileNet: it has neither a MobileNet backbone nor box predictors" in message
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
        assert "holds NaN or Inf in 2 tensors" in message
        assert all(f"{name} (1 of " in message for name in names)

    def test_a_folder_that_holds_none(self, convert: Callable[[Path], str], tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        assert "holds no manifest.json, saved_model.pb, frozen" in convert(tmp_path / "empty")

    def test_a_checkpoint_that_is_not_whole(self, convert: Callable[[Path], str], tmp_path: Path) -> None:
        folder = tmp_path / "checkpoint"
        folder.mkdir()
        for name in ("model.ckpt.index", "model.ckpt.data-00000-of-00002"):
            (folder / name).write_bytes(b"x")
        assert "is not complete: model.ckpt.data-00001-of-00002 missing" in convert(folder / "model.ckpt")
        (folder / "model.ckpt.data-00001-of-00002").write_bytes(b"x")
        message = convert(folder / "model.ckpt")
        assert "holds no input size, default boxes or thresholds, and there is no " in message
        assert "pipeline.config; give its pipeline.config with --pipeline-config" in message

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
            ("item { id: 7 name: 'a' }", "map.pbtxt has 8 classes but the model has 4"),
            ("", "holds no item"),
        ],
    )
    def test_that_contradict_themselves(
        self, refused: Command, example_model: Path, tmp_path: Path, text: str, message: str
    ) -> None:
        path = tmp_path / "map.pbtxt"
        path.write_text(text)
        said = refused("convert", example_model, "-o", tmp_path / "out", "--label-map", path).err
        assert message in said

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
            (np.ones((3, 3, 3, 16), np.float64), "has dtype float64, must be float32"),
            (np.full((3, 3, 3, 16), np.inf, np.float32), "holds 432 values that are NaN or Inf"),
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
        assert "bytes, its shape needs" in self.damaged(refused, weights, example_folder)

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
        assert first.endswith(f"do not fit the net, {len(rest)} problems:")
        assert any("Conv/BatchNorm/gamma' has the shape (7,), its kernel needs (15,)" in line for line in rest)

    def test_class_counts_that_differ(self, command: Command, refused: Command, weights: Path, tmp_path: Path) -> None:
        net = tmp_path / "net.prototxt"
        assert command("gen", "-c", 9, "-v", "3-small", "-o", net).status == 0
        first, *rest = self.run(refused, weights, net)
        assert first.endswith("6 problems:")
        assert all("mbox_conf' has" in line for line in rest)
        result = command("load", weights, net, "-o", tmp_path / "out.caffemodel", "--finetune")
        assert result.status == 0
        assert result.out.count("keeps its filler: ") == 6
        named = {layer.name for layer in read_caffemodel(tmp_path / "out.caffemodel").layer}
        wanted = {layer.name for layer in read_net(net).layer}
        left = wanted - named
        assert len(left) == 6
        assert all(name.endswith("_mbox_conf") for name in left)


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
        assert result.err.startswith("ssdlite-caffe: the layers do not fit together:\n")
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

    def test_unknown_fields_of_layers_that_are_not_filled(
        self, command: Command, refused: Command, example_weights: Path, example_folder: Path, tmp_path: Path
    ) -> None:
        path = self.edited(example_folder, tmp_path, "keep_top_k:", "objectness_score: 0.01 keep_top_k:")
        assert command("load", example_weights, path, "-o", tmp_path / "out").status == 0
        path = self.edited(example_folder, tmp_path, "kernel_size: 1", "kernel_size: 1 sparsity: 2")
        said = refused("load", example_weights, path, "-o", tmp_path / "other").err
        assert "ConvolutionParameter has no field 'sparsity'" in said

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


class TestTensorFlowLiteFiles:
    """One line, status 1, nothing written; what is wrong with the bytes themselves is in test_dump_tflite.py."""

    @pytest.mark.parametrize(
        ("data", "says"),
        [
            (b"", "is empty"),
            (b"\x1c\0\0\0TFL3" + b"\xff" * 64, "cut short or damaged"),
            (b"model { ssd { } }", "is not a TensorFlow Lite model: it is a pipeline.config"),
            (tflite_file([TensorSpec((1,)), TensorSpec((1,))], [OperatorSpec("RELU", (0,), (1,))], [0], [1]),
             "it holds no convolution"),
        ],
        ids=["empty", "damaged", "config", "other"],
    )  # fmt: skip
    @pytest.mark.parametrize("verb", ["convert", "dump"])
    def test_are_refused(self, refused: Command, tmp_path: Path, verb: str, data: bytes, says: str) -> None:
        (tmp_path / "model.tflite").write_bytes(data)
        for source in (tmp_path / "model.tflite", tmp_path):
            assert says in refused(verb, source, "-o", tmp_path / "out").err

    def test_a_converted_folder_is_no_source(self, refused: Command, example_folder: Path, tmp_path: Path) -> None:
        assert "is a converted model" in refused("convert", example_folder, "-o", tmp_path / "out").err

    def test_a_phone_s_decoder_needs_its_options(self, refused: Command, example_folder: Path, tmp_path: Path) -> None:
        image = Path(__file__).resolve().parents[2] / "examples" / "shapes.png"
        said = refused("detect", example_folder, image, "--decoder", "tflite")
        assert "has no options for --decoder tflite" in said.err


@pytest.mark.tensorflow
def test_what_is_not_a_keras_file(refused: Command, tmp_path: Path) -> None:
    (tmp_path / "bad.keras").write_bytes(b"no archive")
    assert "bad.keras" in refused("convert", tmp_path / "bad.keras", "-o", tmp_path / "out").err
    assert "nothing.h5 does not exist" in refused("convert", tmp_path / "nothing.h5", "-o", tmp_path / "out").err
