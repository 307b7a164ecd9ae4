"""What verify refuses before TensorFlow is loaded."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from tests.commands import Command


@pytest.fixture(autouse=True)
def no_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)


@pytest.fixture
def copy(example_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(example_folder, tmp_path / "out"))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """The files of a checkpoint, with nothing in them that only TensorFlow can read."""
    for name in ("model.ckpt.index", "model.ckpt.data-00000-of-00001"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path / "model.ckpt"


def meta_graph(prefix: Path, op: str, **flags: bool) -> None:
    meta = pb.MetaGraphDef()
    node = meta.graph_def.node.add(name="a", op=op)
    for name, value in flags.items():
        node.attr[name].b = value
    prefix.with_name(prefix.name + ".meta").write_bytes(meta.SerializeToString())


def test_a_checkpoint_without_a_graph(refused: Command, checkpoint: Path, example_folder: Path) -> None:
    assert "without model.ckpt.meta, so it has no graph to run" in refused("verify", checkpoint, example_folder).err


@pytest.mark.parametrize(
    ("op", "flags"), [("FusedBatchNormV3", {"is_training": True}), ("ApplyMomentum", {}), ("ResourceApplyAdam", {})]
)
def test_the_graph_of_a_training(
    refused: Command, checkpoint: Path, example_folder: Path, op: str, flags: dict[str, bool]
) -> None:
    meta_graph(checkpoint, op, **flags)
    said = refused("verify", checkpoint, example_folder).err
    assert "model.ckpt.meta is the graph of a training, so this checkpoint has no graph to run; give" in said


def test_a_graph_for_inference_is_left_to_tensorflow(refused: Command, checkpoint: Path, example_folder: Path) -> None:
    meta_graph(checkpoint, "FusedBatchNormV3", is_training=False)
    resizer = "image_resizer { fixed_shape_resizer { height: 320 width: 320 } }"
    (checkpoint.parent / "pipeline.config").write_text(f"model {{ ssd {{ num_classes: 3 {resizer} }} }}")
    assert "needs TensorFlow" in refused("verify", checkpoint, example_folder).err


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("remapped_from", "has remapped classes; give the folder"),
        ("merged_from", "its report does not say that they are a TensorFlow model's"),
    ],
)
def test_folders_that_no_model_was_converted_to(
    refused: Command, checkpoint: Path, copy: Path, key: str, text: str
) -> None:
    report = json.loads((copy / "report.json").read_text())
    del report["tensors"]
    (copy / "report.json").write_text(json.dumps({**report, key: {"weights": "a"}}))
    assert text in refused("verify", checkpoint, copy).err


def test_dumped_weights(refused: Command, weights: Path, example_folder: Path) -> None:
    assert f"TensorFlow cannot run {weights}, a weights folder" in refused("verify", weights, example_folder).err


@pytest.mark.opencv
def test_a_net_that_cannot_be_loaded(refused: Command, example_model: Path, copy: Path) -> None:
    (copy / "headless.prototxt").write_text("layer {")
    assert "headless.prototxt" in refused("verify", example_model, copy).err


def test_a_video(refused: Command, example_model: Path, example_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    assert (
        "is a video; verify compares images"
        in refused("verify", example_model, example_folder, "--images", tmp_path / "a.mp4").err
    )


@pytest.mark.parametrize("more", [("--runtime", "reference"), ("--quick",), ("--limit", 2)], ids=str)
@pytest.mark.parametrize("asked", [("--dump", "a.npz"), ("--first-departure", "run {output}")], ids=str)
def test_options_that_a_comparison_with_a_device_does_not_have(
    command: Command, example_model: Path, example_folder: Path, asked: tuple[str, str], more: tuple[object, ...]
) -> None:
    result = command("verify", example_model, example_folder, *asked, *more)
    assert result.status == 2
    assert f"{more[0]} does not apply to" in " ".join(result.err.replace("│", " ").split())
