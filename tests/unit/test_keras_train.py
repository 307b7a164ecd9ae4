"""Training: that it learns, is resumed exactly after a kill, and says what is wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdlite_caffe.coco.label_map import load_label_map
from ssdlite_caffe.data.toy_scenes import ShapesOptions, make_shapes
from ssdlite_caffe.errors import OutputError, SsdliteError, TrainingError
from ssdlite_caffe.files import held_folder
from tests.commands import Command, tree

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow, pytest.mark.xdist_group("keras-train")]
SMALL = ("-v", "3-small-minimalistic", "--width-multiplier", "0.35", "--input-size", "64", "--batch-size", "4",
         "--log-every", "1")  # fmt: skip
STEPS = (
    "--iterations",
    "6",
    "--checkpoint-every",
    "2",
    "--optimizer",
    "adam",
    "--learning-rate",
    "0.003",
    "--warmup",
    "2",
    "--seed",
    "7",
)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    make_shapes(folder, ShapesOptions(10, 2, side=64))
    return folder


@pytest.fixture(scope="module")
def finished(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of six steps, in a process of its own as any training."""
    folder = tmp_path_factory.mktemp("run") / "whole"
    process = start(scenes, folder)
    assert process.wait(600) == 0
    return folder


def start(
    scenes: Path, folder: Path, *more: str, cluster: str | None = None, errors: int | None = None
) -> subprocess.Popen[str]:
    return run(["--data", scenes, "-o", folder, *SMALL, *STEPS, *more], cluster, errors)


def resumed(folder: Path, *more: str, errors: int | None = None) -> subprocess.Popen[str]:
    """Nothing is typed again."""
    return run(["-o", folder, "--resume", *more], None, errors)


def run(arguments: list[object], cluster: str | None, errors: int | None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ssdlite_caffe.cli", "keras", "train", *arguments]
    # Another process may have set for itself which kernels it runs; those of a training are part of its course.
    settings = {"TF_NUM_INTRAOP_THREADS": "2", "TF_ENABLE_ONEDNN_OPTS": "1"}
    if cluster is not None:
        settings["TF_CONFIG"] = cluster
    environment = {**os.environ, **settings}
    return subprocess.Popen([str(part) for part in command], text=True, env=environment, stderr=errors)


def curve(folder: Path) -> list[dict[str, float]]:
    """The lines of metrics, but for what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "images_per_second"} for line in lines]


def test_what_a_training_leaves(finished: Path) -> None:
    from ssdlite_caffe.keras.store import load

    lines = curve(finished)
    assert [line["iteration"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert (finished / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert lines[2]["learning_rate"] == pytest.approx(0.003)
    parts = ("localisation", "classification", "regularisation")
    assert all(line["loss"] == pytest.approx(sum(line[part] for part in parts)) for line in lines)
    assert sorted(path.name for path in (finished / "checkpoints").iterdir()) == [
        "iteration-00000004.npz",
        "iteration-00000006.npz",
    ]
    detector = load(finished / "model.keras")
    assert detector.labels.display_names == ("background", "circle", "square", "triangle")
    assert detector.arch.input_size == (64, 64)
    assert load_label_map(finished / "labelmap.prototxt") == detector.labels
    assert points(finished) == pytest.approx([line["loss"] for line in lines])


def points(folder: Path) -> list[float]:
    """The curve of the loss that TensorBoard will show."""
    from tensorflow.core.util import event_pb2

    from ssdlite_caffe.imports import import_keras

    _, tf = import_keras()
    found = []
    for record in tf.data.TFRecordDataset([str(path) for path in (folder / "tensorboard").iterdir()]):
        event = event_pb2.Event.FromString(record.numpy())
        found += [float(tf.make_ndarray(value.tensor)) for value in event.summary.value if value.tag == "loss"]
    return found


@pytest.mark.story
def test_a_training_that_was_killed_and_stopped_goes_on_exactly(scenes: Path, finished: Path, tmp_path: Path) -> None:
    """Killed before its first checkpoint, stopped by Ctrl-C, killed behind that checkpoint: as if nothing had been."""
    folder = tmp_path / "run"
    metrics, checkpoints, events = (folder / name for name in ("metrics.jsonl", "checkpoints", "tensorboard"))
    often = ("--log-every", "3", "--checkpoint-every", "100")

    process = start(scenes, folder, *often)
    wait_for(process, lambda: events.is_dir() and any(events.iterdir()))
    process.kill()
    process.wait()
    assert not checkpoints.exists(), "it was too fast for this test"
    # What a kill leaves of a line and of a file.
    metrics.write_text('{"iteration": 3, "loss": 0}\n{"iteration": 6, "lo')
    (folder / ".ssdlite-caffe.model").write_bytes(b"PK")

    process = resumed(folder, errors=subprocess.PIPE)
    wait_for(process, lambda: len(list(events.iterdir())) == 2)
    time.sleep(0.5)  # now it waits for Ctrl-C, and takes seconds for its first step
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=600)[1]
    assert process.returncode == 130
    assert "from the beginning" in said
    (checkpoint,) = checkpoints.iterdir()
    step = int(checkpoint.stem.removeprefix("iteration-"))
    assert 1 <= step < 6, "it was too fast for this test"
    assert step % 3, "the mean of three losses is begun"
    assert f"stopped at iteration {step} of 6; --resume continues" in said

    metrics.write_text(metrics.read_text() + '{"iteration": 6, "loss": 0}\n')
    process = resumed(folder, errors=subprocess.PIPE)
    assert f"resuming from iteration {step}\n" in process.communicate(timeout=600)[1]
    assert process.returncode == 0
    found, whole = curve(folder), curve(finished)
    assert [line["iteration"] for line in found] == [3, 6]
    for name in ("localisation", "classification", "regularisation"):
        means = [np.mean([line[name] for line in whole[at : at + 3]]) for at in (0, 3)]
        assert [line[name] for line in found] == pytest.approx(means, rel=1e-12)
    assert {path.name for path in checkpoints.iterdir()} == {checkpoint.name, "iteration-00000006.npz"}
    assert not (folder / ".ssdlite-caffe.model").exists()
    one, other = (np.load(path / "checkpoints" / "iteration-00000006.npz") for path in (finished, folder))
    assert one.files == other.files
    assert all((one[name] == other[name]).all() for name in one.files)
    assert (finished / "model.keras").read_bytes() == (folder / "model.keras").read_bytes()


@pytest.mark.story
def test_tests_change_nothing(scenes: Path, finished: Path, tmp_path: Path) -> None:
    """Their measures are in the metrics and in the plot; model and losses are the same bytes without them."""
    folder = tmp_path / "tested"
    make_shapes(tmp_path / "other", ShapesOptions(5, 9, split="val", side=64))
    tests = ("--test-data", str(tmp_path / "other"), "--test-split", "val", "--test-every", "4")
    process = start(scenes, folder, *tests, errors=subprocess.PIPE)
    said = process.communicate(timeout=600)[1]
    assert process.returncode == 0, said
    lines = curve(folder)
    measured = [line for line in lines if "loss" not in line]
    assert [line["iteration"] for line in measured] == [4, 6]
    assert all(0 <= line["ap"] <= line["ap50"] <= 1 for line in measured)
    assert f"iteration 4: ap {measured[0]['ap']:.4f}, ap50 {measured[0]['ap50']:.4f}\n" in said
    assert [line for line in lines if "loss" in line] == curve(finished)
    assert (finished / "model.keras").read_bytes() == (folder / "model.keras").read_bytes()
    from ssdlite_caffe.data.labelled_images import open_images
    from ssdlite_caffe.evaluation.evaluate import evaluate
    from ssdlite_caffe.evaluation.forms import open_model_forms

    opened = open_model_forms(folder / "model.keras")
    images = open_images(tmp_path / "other", opened.labels, split="val")
    (score,) = evaluate(opened, images, ["keras"]).scores
    assert measured[-1]["ap50"] == pytest.approx(score.ap50, abs=1e-9)


def test_held_out_lists(tmp_path: Path) -> None:
    """A list whose images are trained on is no test."""
    from ssdlite_caffe.commands.keras_train import _held_out

    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for name in ("train", "val", "trainval"):
        (lists / f"{name}.txt").write_text("")
    assert [_held_out(tmp_path, split, None) for split in ("train", "trainval", "val")] == ["val", None, None]
    (lists / "test.txt").write_text("")
    assert [_held_out(tmp_path, split, None) for split in ("train", "trainval", "test")] == ["val", "test", None]


@pytest.mark.story
def test_a_finished_training_is_extended(scenes: Path, finished: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    before = tree(folder)
    process = resumed(folder, errors=subprocess.PIPE)
    assert process.communicate(timeout=600)[1] == "ssdlite-caffe: already at 6 of 6 iterations\n"
    assert process.returncode == 0
    assert tree(folder) == before
    process = resumed(folder, "--iterations", "9", errors=subprocess.PIPE)
    said = process.communicate(timeout=600)[1]
    assert process.returncode == 0, said
    assert (
        "9 in place of 6 iterations: the learning rate follows the cosine schedule of 9, so it continues at 0.00117, "
        "not at 0\n"
    ) in said
    lines = curve(folder)
    assert lines[:6] == curve(finished)
    assert [line["iteration"] for line in lines[6:]] == [7, 8, 9]
    assert lines[6]["learning_rate"] == pytest.approx(0.003 * 0.5 * (1 + np.cos(np.pi * 4 / 7)))
    process = resumed(folder, errors=subprocess.PIPE)
    assert process.communicate(timeout=600)[1] == "ssdlite-caffe: already at 9 of 9 iterations\n"
    before = tree(folder)
    process = resumed(folder, "--iterations", "8", errors=subprocess.PIPE)
    assert "iterations must be at least 9" in process.communicate(timeout=600)[1]
    assert tree(folder) == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": "many"}, "--batch-size 'many', which is not allowed"),
        ({"version": "9"}, "--version '9', which is not allowed"),
        ({"gone": None}, "keeps no --gamma: it was written by another version"),
    ],
)  # fmt: skip
def test_options_that_were_changed_by_hand(
    finished: Path, command: Command, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    known = json.loads((finished / "run.json").read_text())
    known["options"] = {**known["options"], **options}
    if "gone" in options:
        del known["options"]["gamma"]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps(known))
    result = command("keras", "train", "-o", tmp_path / "run", "--resume")
    assert (result.status, result.err.count("\n")) == (1, 1)
    assert said in result.err


def wait_for(process: subprocess.Popen[str], happened: Callable[[], bool]) -> None:
    """Until something has happened, which it must before the process ends."""
    limit = time.monotonic() + 1500
    while not happened():
        assert process.poll() is None, "it ended by itself"
        assert time.monotonic() < limit
        time.sleep(0.01)


@pytest.mark.rare
@pytest.mark.story
def test_two_hosts_do_what_one_does(scenes: Path, tmp_path: Path) -> None:
    """Each has half of every batch. BatchNorm is left alone: its statistics are those of a host's own images."""
    more = ("--freeze-bn", "--iterations", "3", "--optimizer", "sgd", "--learning-rate", "0.01")
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        workers = [f"127.0.0.1:{each.getsockname()[1]}" for each in (one, other)]
    together = [
        start(
            scenes, tmp_path / "two", *more,
            cluster=json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": number}}),
        )
        for number in (0, 1)
    ]  # fmt: skip
    try:
        assert [process.wait(600) for process in together] == [0, 0]
    finally:
        for process in together:
            process.kill()
    assert start(scenes, tmp_path / "one", *more).wait(600) == 0
    for found, expected in zip(curve(tmp_path / "two"), curve(tmp_path / "one"), strict=True):
        assert found == pytest.approx(expected, rel=1e-5)
    one_, two = (np.load(tmp_path / name / "checkpoints" / "iteration-00000003.npz") for name in ("one", "two"))
    assert one_.files == two.files
    for name in one_.files:
        np.testing.assert_allclose(two[name], one_[name], rtol=1e-3, atol=1e-5, err_msg=name)


def test_a_folder_of_another_training(scenes: Path, finished: Path, command: Command) -> None:
    again = command("keras", "train", "--data", scenes, "-o", finished, *SMALL, *STEPS)
    assert again.status == 1
    assert "--resume continues it" in again.err
    other = command("keras", "train", "-o", finished, "--seed", "8", "--learning-rate", "1", "--resume")
    assert other.status == 1
    assert "--learning-rate was 0.003 and is 1.0" in other.err
    assert "--seed was 7 and is 8" in other.err


@pytest.mark.parametrize("more", [("-v", "2"), ("--width-multiplier", "0.5", "--type", "ssd"), ("--input-size", "64")])
def test_a_model_s_net_is_not_to_be_chosen(scenes: Path, more: tuple[str, ...], command: Command) -> None:
    refused = command("keras", "train", "--data", scenes, "-o", scenes / "run", "--from", "a.keras", *more)
    assert refused.status == 2
    named = "--version" if more[0] == "-v" else ", ".join(sorted(more[::2]))
    assert f"--from gives the net; leave out {named}" in " ".join(refused.err.replace("│", " ").split())
    assert not (scenes / "run").exists()


def test_other_kernels_are_refused(scenes: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would go on nearly as the first ones, and nearly is not exactly."""
    from ssdlite_caffe.keras.train import train

    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    with pytest.raises(TrainingError, match=r"kernels\.onednn was .1. and is .0."):
        train(finished, some_options(scenes), resume=True)


def some_options(scenes: Path, **changes: Any) -> Any:
    from dataclasses import replace

    from ssdlite_caffe.imports import import_keras

    import_keras()
    from ssdlite_caffe.keras.loop import Intervals
    from ssdlite_caffe.keras.schedule import Schedule
    from ssdlite_caffe.keras.train import DataOptions, NetOptions, TrainOptions
    from ssdlite_caffe.keras.trainer import StepOptions

    options = TrainOptions(
        DataOptions(scenes), Schedule(0.003, 2),
        NetOptions(version="3-small-minimalistic", width_multiplier=0.35, input_size=(64, 64)),
        StepOptions(batch=4, optimizer="adam"), intervals=Intervals(log=1),
    )  # fmt: skip
    return replace(options, **changes)


def test_fine_tuning_keeps_all_but_the_class_predictors(finished: Path, tmp_path: Path) -> None:
    from ssdlite_caffe.keras.schedule import Schedule
    from ssdlite_caffe.keras.store import load
    from ssdlite_caffe.keras.train import NetOptions, train
    from ssdlite_caffe.keras.trainer import StepOptions
    from ssdlite_caffe.keras.weights import get_values

    make_shapes(tmp_path / "more", ShapesOptions(4, 3, side=64))
    for path in (tmp_path / "more" / "Annotations").iterdir():
        path.write_text(path.read_text().replace("triangle", "circle").replace("square", "circle"))
    options = some_options(
        tmp_path / "more", net=NetOptions(start=finished / "model.keras"), schedule=Schedule(1e-12, 1, "constant"),
        step=StepOptions(batch=4, freeze_batch_norm=True),
    )  # fmt: skip
    train(tmp_path / "out", options)
    before, after = (load(folder / "model.keras") for folder in (finished, tmp_path / "out"))
    assert after.labels.display_names == ("background", "circle")
    old, new = get_values(before.model), get_values(after.model)
    for name, value in old.items():
        if "ClassPredictor/" in name:
            assert new[name].shape[-1] == value.shape[-1] // 2
            if name.endswith("bias"):
                np.testing.assert_allclose(new[name], -4.6, atol=1e-5)
        else:
            np.testing.assert_allclose(new[name], value, atol=1e-6, err_msg=name)


@pytest.fixture
def built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All trainings of a test take one Trainer, as it was at first: to trace its step takes seconds."""
    from ssdlite_caffe.imports import import_keras

    import_keras()
    from ssdlite_caffe.keras import trainer

    real = trainer.Trainer
    made: list[tuple[Any, Any]] = []

    def build(*arguments: Any) -> Any:
        if not made:
            kept = real(*arguments)
            made.append((kept, kept.state()))
        kept, state = made[0]
        kept.restore(state)
        return kept

    monkeypatch.setattr(trainer, "Trainer", build)


@pytest.mark.usefixtures("built_once")
def test_nan_and_inf_stop_it_and_are_not_kept(scenes: Path, tmp_path: Path) -> None:
    """The loss of the first iteration is finite, and its step makes weights of NaN or Inf."""
    from dataclasses import replace

    from ssdlite_caffe.keras.schedule import Schedule
    from ssdlite_caffe.keras.train import train
    from ssdlite_caffe.keras.trainer import StepOptions

    steps = some_options(scenes, schedule=Schedule(3e38, 5, "constant"), step=StepOptions(batch=4, optimizer="sgd"))
    with pytest.raises(TrainingError, match=r"loss of iteration 1 is NaN or Inf .*JPEGImages/00000\d\.jpg, JPEG"):
        train(tmp_path / "loss", steps)
    with pytest.raises(TrainingError, match="have NaN or Inf after 1 iterations; lower --learning-rate"):
        train(tmp_path / "weights", replace(steps, schedule=Schedule(3e38, 1, "constant")))
    for folder in (tmp_path / "loss", tmp_path / "weights"):
        assert not (folder / "model.keras").exists()
        assert not (folder / "checkpoints").exists()


@pytest.mark.rare
@pytest.mark.story
@pytest.mark.usefixtures("built_once")
def test_images_are_decoded_once(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the first start, not by one that resumes it, or starts over; one that begins wrongly decodes none."""
    from ssdlite_caffe.keras.schedule import Schedule
    from ssdlite_caffe.keras.train import NetOptions, train

    folder = tmp_path / "run"
    options = some_options(scenes, schedule=Schedule(0.003, 1))
    with pytest.raises(SsdliteError, match="does not exist"):
        train(folder, some_options(scenes, net=NetOptions(start=tmp_path / "no.keras")))
    assert not folder.exists()
    first = train(folder, options)
    assert (first["images"], first["images_decoded"]) == (10, 10)
    assert (folder / "scan.npz").is_file()
    with pytest.raises(OutputError, match="--resume continues it"):
        train(folder, options)
    assert train(folder, options, resume=True)["images_decoded"] == 0
    again = train(folder, options, force=True)
    assert (again["images"], again["images_decoded"], again["loss"]) == (10, 0, first["loss"])
    (folder / "scan.npz").write_bytes(b"PK")
    said: list[str] = []
    assert train(folder, options, force=True, say=said.append)["images_decoded"] == 10
    assert f"{folder / 'scan.npz'} is damaged: " in said[0]


def test_tensorflow_says_nothing_by_itself(tmp_path: Path) -> None:
    """In a process that imports it anew, with the kernels of a training."""
    command = [sys.executable, "-m", "ssdlite_caffe.cli", "keras", "train", "-o", tmp_path / "run",
               "--data", tmp_path / "none"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TF_ENABLE_ONEDNN_OPTS": "1"})
    assert done.returncode == 1
    assert (done.stdout, done.stderr.count("\n")) == ("", 1), done.stderr


def test_fewer_iterations_than_are_done(scenes: Path, finished: Path, command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    known = json.loads((folder / "run.json").read_text())
    known["kernels"]["onednn"] = os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1")  # as if this process had run it
    (folder / "run.json").write_text(json.dumps(known))
    last = folder / "checkpoints" / "iteration-00000006.npz"
    last.rename(last.with_name("iteration-00000009.npz"))
    (folder / "model.keras").unlink()
    result = command("keras", "train", "-o", folder, "--resume")
    assert result.status == 1
    assert "iterations must be at least 9, for which there is a checkpoint, got 6; give --iterations" in result.err


@pytest.mark.rare
@pytest.mark.story
def test_without_matplotlib(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ssdlite_caffe.keras.train import train

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said: list[str] = []
    train(tmp_path / "run", some_options(scenes), say=said.append)
    assert any(line.startswith("no loss.png is drawn: this needs matplotlib") for line in said)
    assert (tmp_path / "run" / "model.keras").is_file()
    assert not (tmp_path / "run" / "loss.png").exists()


def test_one_training_at_a_time(scenes: Path, finished: Path, command: Command) -> None:
    before = tree(finished)
    with held_folder(finished):
        for option in ("--resume", "--force"):
            result = command("keras", "train", "--data", scenes, "-o", finished, *SMALL, *STEPS, option)
            assert (result.status, result.err.count("\n")) == (1, 1)
            assert f"another run is writing {finished}" in result.err
    assert tree(finished) == before


@pytest.mark.parametrize(
    "number",
    [
        "--learning-rate nan",
        "--learning-rate 0",
        "--learning-rate -1",
        "--gamma inf",
        "--zoom nan",
        "--drops 1,x",
        "--drops 5,3",
        "--input-size 0",
    ],
)
def test_numbers_that_are_refused(scenes: Path, number: str, command: Command, tmp_path: Path) -> None:
    assert command("keras", "train", "--data", scenes, "-o", tmp_path / "run", *number.split()).status == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.rare
@pytest.mark.story
def test_softmax_with_hard_negatives_learns(scenes: Path, tmp_path: Path) -> None:
    from ssdlite_caffe.keras.augment import NONE
    from ssdlite_caffe.keras.schedule import Schedule
    from ssdlite_caffe.keras.train import NetOptions, train
    from ssdlite_caffe.keras.trainer import StepOptions

    net = NetOptions(version="3-small-minimalistic", width_multiplier=0.35, input_size=(64, 64), scores="softmax")
    step = StepOptions(batch=10, optimizer="adam", augment=NONE, momentum=0.5)
    options = some_options(scenes, net=net, step=step, schedule=Schedule(0.01, 25, "constant"))
    train(tmp_path / "out", options)
    lines = curve(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "run.json").read_text())["step"]["loss"]["kind"] == "hard-negatives"
    assert lines[-1]["classification"] < 0.5 * lines[0]["classification"]
    assert lines[-1]["localisation"] < 0.7 * lines[0]["localisation"]


@pytest.mark.rare
@pytest.mark.story
def test_what_the_losses_are_divided_by(scenes: Path, tmp_path: Path) -> None:
    """By the command's options, of the first iteration, which no earlier one changes; a V3's as in the zoo."""
    once = ("--iterations", "1", "--warmup", "0", "--test-every", "0")
    found, said = {}, {}
    for name, options in {
        "zoo": (), "sum": ("--no-by-codesize",), "whole": ("--no-by-matches",),
    }.items():  # fmt: skip
        process = start(scenes, tmp_path / name, *once, *options, errors=subprocess.PIPE)
        said[name] = process.communicate(timeout=600)[1]
        assert process.returncode == 0, said[name]
        loss = json.loads((tmp_path / name / "run.json").read_text())["step"]["loss"]
        assert (loss["by_matches"], loss["by_codesize"]) == (name != "whole", name != "sum")
        (found[name],) = curve(tmp_path / name)
    assert "both divided by the number of matched boxes, that of the boxes also by 4\n" in said["zoo"]
    assert found["sum"]["localisation"] == pytest.approx(4 * found["zoo"]["localisation"], rel=1e-6)
    assert found["sum"]["classification"] == pytest.approx(found["zoo"]["classification"], rel=1e-6)
    matches = found["whole"]["classification"] / found["zoo"]["classification"]
    assert matches > 1
    assert matches == pytest.approx(round(matches), rel=1e-4)
    assert found["whole"]["localisation"] == pytest.approx(matches * found["zoo"]["localisation"], rel=1e-5)


def test_what_does_not_go_together(scenes: Path, tmp_path: Path) -> None:
    from ssdlite_caffe.keras.losses import LossOptions
    from ssdlite_caffe.keras.train import NetOptions, train
    from ssdlite_caffe.keras.trainer import StepOptions

    focal = StepOptions(batch=4, loss=LossOptions("focal"))
    with pytest.raises(TrainingError, match="focal loss"):
        train(tmp_path / "out", some_options(scenes, net=NetOptions(scores="softmax"), step=focal))
    with pytest.raises(TrainingError, match="no training to resume"):
        train(tmp_path / "out", some_options(scenes), resume=True)
    with pytest.raises(SsdliteError, match="does not exist"):
        train(tmp_path / "out", some_options(scenes, net=NetOptions(start=tmp_path / "no.keras")))
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("dear")
    with pytest.raises(OutputError, match="holds files"):
        train(tmp_path / "letters", some_options(scenes), force=True)
    assert not (tmp_path / "out").exists()
