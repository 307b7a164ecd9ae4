"""Which file of a path is read: one rule for all commands."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ssdlite_caffe.dump.locate import locate
from ssdlite_caffe.errors import ModelError

ORDER = (
    ("weights folder", ("manifest.json",), ""),
    ("SavedModel", ("saved_model.pb",), ""),
    ("frozen graph", ("frozen_inference_graph.pb",), "frozen_inference_graph.pb"),
    ("frozen graph", ("tflite_graph.pb",), "tflite_graph.pb"),
    ("checkpoint", ("model.ckpt.index",), "model.ckpt"),
    ("TensorFlow Lite", ("model.tflite",), "model.tflite"),
)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_bytes(b"x")


@pytest.mark.parametrize("first", range(len(ORDER)))
def test_the_first_in_the_order_is_taken(tmp_path: Path, first: int) -> None:
    for _, names, _ in ORDER[first:]:
        touch(tmp_path, *names)
    touch(tmp_path, "pipeline.config")
    found = locate(tmp_path)
    kind, _, name = ORDER[first]
    assert (found.kind, found.path) == (kind, tmp_path / name)
    assert found.config == (None if kind == "weights folder" else tmp_path / "pipeline.config")
    assert [other.kind for other in found.others] == [kind for kind, _, _ in ORDER[first + 1 :]]


def test_a_file_has_the_config_beside_it_and_no_others(tmp_path: Path) -> None:
    touch(tmp_path, "a.tflite", "b.pb", "frozen_inference_graph.pb")
    assert locate(tmp_path / "b.pb").config is None
    touch(tmp_path, "pipeline.config")
    for name, kind in (("a.tflite", "TensorFlow Lite"), ("b.pb", "frozen graph")):
        found = locate(tmp_path / name)
        assert (found.kind, found.path, found.config, found.others) == (
            kind, tmp_path / name, tmp_path / "pipeline.config", (),
        )  # fmt: skip


def test_a_tensorflow_lite_file_is_known_by_its_identifier(tmp_path: Path) -> None:
    (tmp_path / "detect.bin").write_bytes(b"\x1c\0\0\0TFL3" + bytes(20))
    assert locate(tmp_path / "detect.bin").kind == "TensorFlow Lite"


@pytest.mark.parametrize(
    "text",
    [
        'model_checkpoint_path: "/elsewhere/ckpt-900"\n',
        "model_checkpoint_path: 'ckpt-900'\n",
        '\ufeffmodel_checkpoint_path: "ckpt-900"\r\nall_model_checkpoint_paths: "ckpt-1000"\r\n',
        'model_checkpoint_path: "C:\\\\runs\\\\of\\\\ckpt-900"\n',
        'all_model_checkpoint_paths: "ckpt-1000"\nmodel_checkpoint_path: "./ckpt-900/"\n',
    ],
    ids=("moved", "single quotes", "of a Windows editor", "a Windows path", "last"),
)
def test_the_checkpoint_that_the_folder_names(tmp_path: Path, text: str) -> None:
    touch(tmp_path, "ckpt-900.index", "ckpt-1000.index")
    (tmp_path / "checkpoint").write_bytes(text.encode())
    for path in (tmp_path, tmp_path / "checkpoint"):
        found = locate(path)
        assert (found.kind, found.path, found.note) == ("checkpoint", tmp_path / "ckpt-900", "")
    touch(tmp_path, "frozen_inference_graph.pb")
    assert locate(tmp_path).kind == "frozen graph"
    assert locate(tmp_path / "checkpoint").path == tmp_path / "ckpt-900"


def test_a_name_in_another_alphabet(tmp_path: Path) -> None:
    touch(tmp_path, "modèle-9.index", "modèle-10.index")
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "mod\\303\\250le-9"\n')
    assert locate(tmp_path).path == tmp_path / "modèle-9"


@pytest.mark.parametrize("list_", [None, "", "# nothing\n"])
def test_without_a_name_the_highest_step_is_taken(tmp_path: Path, list_: str | None) -> None:
    touch(tmp_path, "ckpt-900.index", "ckpt-1000.index", "ckpt-0.index", "._ckpt-2000.index")
    if list_ is not None:
        (tmp_path / "checkpoint").write_text(list_)
    found = locate(tmp_path)
    assert found.path == tmp_path / "ckpt-1000"
    assert found.note == "ckpt-1000 is the latest of 3 checkpoints by its step; no file `checkpoint` names one"
    assert locate(tmp_path / "ckpt-900").note == ""


@pytest.mark.parametrize(
    "names", [("ckpt-900.index", "model.ckpt-1000.index"), ("model.ckpt.index", "model.ckpt-9.index")]
)
def test_checkpoints_that_steps_do_not_order(tmp_path: Path, names: tuple[str, ...]) -> None:
    touch(tmp_path, *names)
    with pytest.raises(ModelError, match=r"must hold one checkpoint, found .*; give its prefix"):
        locate(tmp_path)
    touch(tmp_path, "frozen_inference_graph.pb")
    assert locate(tmp_path).kind == "frozen graph"


def test_a_name_of_a_checkpoint_that_is_not_there(tmp_path: Path) -> None:
    touch(tmp_path, "ckpt-900.index")
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "ckpt-1000"\n')
    with pytest.raises(
        ModelError, match=r"names the checkpoint ckpt-1000, which is not in the folder; it holds ckpt-900"
    ):
        locate(tmp_path)


def test_a_saved_model_in_the_exporter_s_folder(tmp_path: Path) -> None:
    (tmp_path / "saved_model").mkdir()
    touch(tmp_path, "saved_model/saved_model.pb", "pipeline.config")
    found = locate(tmp_path)
    assert (found.kind, found.path, found.config) == (
        "SavedModel", tmp_path / "saved_model", tmp_path / "pipeline.config",
    )  # fmt: skip
    touch(tmp_path, "frozen_inference_graph.pb")
    assert locate(tmp_path).kind == "frozen graph"


def test_several_tensorflow_lite_files(tmp_path: Path) -> None:
    touch(tmp_path, "b.tflite", "a.tflite")
    with pytest.raises(ModelError, match=r"2 TensorFlow Lite files \(a\.tflite, b\.tflite\); give one of them"):
        locate(tmp_path)
    touch(tmp_path, "model.tflite")
    assert locate(tmp_path).path == tmp_path / "model.tflite"


def test_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no manifest"):
        locate(tmp_path)
    with pytest.raises(ModelError, match="does not exist"):
        locate(tmp_path / "none.pb")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pb")
    assert locate(tmp_path / "pipe.pb").kind == "frozen graph"
