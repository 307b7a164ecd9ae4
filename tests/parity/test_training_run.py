"""Caffe's solver trains a small net: killed, interrupted, resumed, and stopped at what is wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.coco.label_map import load_label_map
from ssdlite_caffe.commands.merge_bn import merge_bn
from ssdlite_caffe.data.encoded import ImageEncoding
from ssdlite_caffe.data.lmdb_write import Order, write_lmdb
from ssdlite_caffe.data.toy_scenes import ShapesOptions, make_shapes
from ssdlite_caffe.data.voc import open_voc
from ssdlite_caffe.errors import CaffeError, OutputError, SsdliteError, TrainingError
from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.gen_model.build import default_arch
from ssdlite_caffe.gen_model.render import Solver
from ssdlite_caffe.prototxt.binary import blob_to_array, read_caffemodel
from ssdlite_caffe.training.evaluate_kit import evaluate_kit
from ssdlite_caffe.training.kit import KitOptions, write_kit
from ssdlite_caffe.training.metrics import LOG, METRICS, PLOT, read_metrics
from ssdlite_caffe.training.run import train
from ssdlite_caffe.training.run_options import RUN, RunOptions

pytestmark = [pytest.mark.slow, pytest.mark.caffe, pytest.mark.xdist_group("caffe")]

STEPS = 30


@pytest.fixture(scope="module")
def made(caffe_prefix: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kit for a narrow V2 on small drawn scenes, and its LMDBs beside it."""
    folder = tmp_path_factory.mktemp("train")
    (folder / "names.txt").write_text("circle\nsquare\ntriangle\n")
    labels = load_label_map(folder / "names.txt")
    for split, count in (("trainval", 24), ("test", 6)):
        make_shapes(folder / "voc" / split, ShapesOptions(count, 1, split=split, side=96))
        write_lmdb(
            open_voc([folder / "voc" / split], split, label_map=labels), folder / split, ImageEncoding(), Order()
        )
    arch: ArchSpec = default_arch("v2", 4, input_size=(96, 96), width_multiplier=0.25)
    solver = Solver("train.prototxt", max_iter=STEPS, snapshot=10, display=1, base_lr=0.001, mode="CPU",
                    type="Adam", momentum=0.9, steps=(20,), gamma=0.5, random_seed=7, test_interval=1000)  # fmt: skip
    options = KitOptions((folder / "trainval", folder / "test"), batch_size=4, solver=solver)
    write_kit(str(folder / "names.txt"), arch, folder / "kit", options)
    return folder


@pytest.fixture
def kit(made: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    for name in ("trainval", "test", "kit"):
        shutil.copytree(made / name, tmp_path / name)
    return tmp_path / "kit"


def losses(kit: Path) -> dict[int, float]:
    return {entry["iteration"]: entry["loss"] for entry in read_metrics(kit / METRICS) if "loss" in entry}


def weights(path: Path) -> dict[str, list[np.ndarray]]:
    return {layer.name: [blob_to_array(blob) for blob in layer.blobs] for layer in read_caffemodel(path).layer}


@pytest.fixture(scope="module")
def whole(made: Path) -> Path:
    """A kit after one training from end to end."""
    kit = Path(shutil.copytree(made / "kit", made / "whole"))
    ended = train(kit, RunOptions())
    assert (ended.finished, ended.iteration) == (True, STEPS)
    assert ended.last is not None
    assert (ended.last.iteration, ended.last.loss) == (STEPS, losses(kit)[STEPS])
    assert ended.snapshot is not None
    assert ended.snapshot.iteration == STEPS
    return kit


def test_a_whole_training(whole: Path) -> None:
    found = losses(whole)
    assert list(found) == list(range(STEPS + 1)), "the last one, too"
    losses_now = list(found.values())
    assert np.mean(losses_now[-10:]) < 0.95 * np.mean(losses_now[:5]), "each is of four images: one alone says little"
    rates = {entry["learning_rate"] for entry in read_metrics(whole / METRICS) if "learning_rate" in entry}
    assert rates == {0.001, 0.0005}
    assert (whole / PLOT).read_bytes().startswith(b"\x89PNG")
    assert "Optimization Done." in (whole / LOG).read_text()


def test_the_same_seed_gives_the_same_losses(whole: Path, kit: Path) -> None:
    train(kit, RunOptions(iterations=10))
    found, expected = losses(kit), losses(whole)
    assert found == {iteration: expected[iteration] for iteration in range(11)}
    shutil.rmtree(kit / "snapshot")
    for name in (LOG, METRICS, PLOT, RUN):
        (kit / name).unlink()
    train(kit, RunOptions(iterations=3, seed=8))
    assert losses(kit)[0] != expected[0]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "ssdlite_caffe.cli", *map(str, arguments)]


def wait_for(kit: Path, iteration: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(1200):
        if (kit / METRICS).is_file() and max(losses(kit), default=-1) >= iteration:
            return
        assert process.poll() is None, "it ended early"
        time.sleep(0.1)
    pytest.fail("it did not get so far")


def children(pid: int) -> list[int]:
    """Processes that this one started."""
    return [int(text) for path in Path(f"/proc/{pid}/task").glob("*/children") for text in path.read_text().split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # it ended between opening and reading, too
        return False


def test_killed_and_resumed(whole: Path, kit: Path) -> None:
    """kill -9 loses what came after the last snapshot; a half-written one is skipped."""
    # Without an end near: a quick machine would else be done before it is killed.
    process = subprocess.Popen(command("train", kit, "--iterations", 100000), stderr=subprocess.DEVNULL)
    wait_for(kit, 22, process)
    (caffe,) = children(process.pid)
    process.kill()
    process.wait()
    for _ in range(50):  # Caffe ends with it
        if not is_running(caffe):
            break
        time.sleep(0.1)
    else:
        pytest.fail("Caffe goes on alone")
    for path in (kit / "snapshot").glob("mobilenet_iter_*"):
        if int(path.stem.removeprefix("mobilenet_iter_")) > 20:
            path.unlink()  # it may have gone further than was waited for
    state = kit / "snapshot" / "mobilenet_iter_20.solverstate"
    state.write_bytes(state.read_bytes()[:-1000])
    cut = (kit / "snapshot" / "mobilenet_iter_10.caffemodel").read_bytes()
    (kit / "snapshot" / "mobilenet_iter_25.caffemodel").write_bytes(cut[: len(cut) // 2])
    said: list[str] = []
    ended = train(kit, RunOptions(resume=True, iterations=STEPS), say=said.append)
    assert ended.finished
    assert ended.snapshot is not None
    assert ended.snapshot.iteration == STEPS
    assert said[0].startswith("the snapshot of iteration 25 is skipped: ")
    assert said[1].startswith("the snapshot of iteration 20 is skipped: mobilenet_iter_20.solverstate is cut short")
    assert said[3] == f"resuming from iteration 10, to {STEPS} in place of 100000 iterations"
    found = losses(kit)
    assert list(found) == list(range(STEPS + 1))
    expected = losses(whole)
    assert [found[i] for i in range(10)] == [expected[i] for i in range(10)]


def test_ctrl_c_snapshots(kit: Path) -> None:
    arguments = command("train", kit, "--iterations", 100000)
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(kit, 3, process)
    with pytest.raises(OutputError, match="another training runs in"):
        train(kit, RunOptions(resume=True))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert b"stopping after this iteration, with a snapshot" in err
    assert b"resume with: ssdlite-caffe train" in out
    assert b"--resume" in out
    done = max(losses(kit)) + 1  # iterations count from 0
    assert (kit / "snapshot" / f"mobilenet_iter_{done}.solverstate").is_file()
    said: list[str] = []
    assert train(kit, RunOptions(resume=True, iterations=done + 2), say=said.append).finished
    assert said[1] == f"resuming from iteration {done}, to {done + 2} in place of 100000 iterations"
    assert list(losses(kit)) == list(range(done + 3))


def test_a_second_beginning_is_refused(whole: Path, kit: Path) -> None:
    (kit / "snapshot").mkdir()
    shutil.copy(whole / "snapshot" / "mobilenet_iter_10.caffemodel", kit / "snapshot")
    with pytest.raises(OutputError, match="of an earlier training; --resume continues it, --force removes it"):
        train(kit, RunOptions(iterations=2))
    with pytest.raises(CaffeError, match=r"no whole snapshot to resume from \(the snapshot of iteration 10 is skipped"):
        train(kit, RunOptions(resume=True))
    train(kit, RunOptions(iterations=2, force=True))
    assert not (kit / "snapshot" / "mobilenet_iter_10.caffemodel").exists()


def change(kit: Path, name: str, old: str, new: str) -> None:
    text = (kit / name).read_text()
    assert old in text
    (kit / name).write_text(text.replace(old, new))


def test_a_loss_that_is_not_finite(kit: Path) -> None:
    change(kit, "solver_train.prototxt", "base_lr: 0.001", "base_lr: 1e30")
    change(kit, "solver_train.prototxt", 'type: "Adam"', 'type: "SGD"')
    with pytest.raises(
        CaffeError, match=r"the loss is -?(nan|inf) at iteration \d+, so training was stopped; there is no whole"
    ):
        train(kit, RunOptions())
    assert not list((kit / "snapshot").glob("*"))


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("train.prototxt", 'type: "ReLU6"', 'type: "ReLU7"', r"Unknown layer type: ReLU7 in layer Conv/relu"),
        ("train.prototxt", "trainval", "gone", r"names the LMDB .*, but there is no .*gone"),
        ("train.prototxt", "labelmap.prototxt", "gone.prototxt", r"names the label map 'gone\.prototxt'"),
        ("solver_train.prototxt", "max_iter", "max_itre", r"max_itre"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(kit: Path, name: str, old: str, new: str, said: str) -> None:
    change(kit, name, old, new)
    with pytest.raises(SsdliteError, match=said) as caught:
        train(kit, RunOptions())
    assert "\n" not in str(caught.value)


def test_two_resumed_from_one_snapshot_lose_alike(whole: Path, kit: Path, tmp_path: Path) -> None:
    (kit / "snapshot").mkdir()
    for path in (whole / "snapshot").glob("mobilenet_iter_10.*"):
        shutil.copy(path, kit / "snapshot")
    other = Path(shutil.copytree(kit, tmp_path / "other"))
    for each in (kit, other):
        train(each, RunOptions(resume=True, iterations=15))
    assert losses(kit) == losses(other)
    assert list(losses(kit)) == list(range(10, 16))


def test_a_broken_record_is_skipped_unless_strict(kit: Path) -> None:
    import lmdb

    with (
        lmdb.open(str(kit.parent / "trainval"), map_size=1 << 30) as environment,
        environment.begin(write=True) as transaction,
    ):
        key, value = next(iter(transaction.cursor()))
        transaction.put(key, value[: len(value) // 2])
    said: list[str] = []
    ended = train(kit, RunOptions(iterations=8), say=said.append)
    assert ended.finished
    assert ended.skipped == 1
    assert f"record {key.decode()} of ../trainval cannot be read: " in said[1]
    with pytest.raises(CaffeError, match=f"Check failed: .*record {re.escape(key.decode())} .* cannot be read"):
        train(kit, RunOptions(iterations=8, force=True, strict=True))


def test_a_gpu_on_a_build_without(kit: Path) -> None:
    """The solver's wish gives way, in a line; the user's is refused, in a line."""
    change(kit, "solver_train.prototxt", "solver_mode: CPU", "solver_mode: GPU")
    said: list[str] = []
    assert train(kit, RunOptions(iterations=1), say=said.append).finished
    assert re.fullmatch(
        r"training on the CPU \(.*built for the CPU alone.*\), though solver_train.prototxt has solver_mode: GPU",
        said[0],
    )
    done = subprocess.run(command("train", kit, "--gpu", 0, "--force"), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"ssdlite-caffe: cannot train on GPU 0: .*; give --cpu instead of --gpu\n", done.stderr)


def test_resume_remembers_and_extends(kit: Path) -> None:
    """Nothing is typed again, what contradicts is refused by name, and a finished training says so or goes on."""
    solver = kit / "solver_train.prototxt"
    change(kit, solver.name, 'lr_policy: "multistep"\ngamma: 0.5\nstepvalue: 20', 'lr_policy: "poly"\npower: 1.0')
    ended = train(kit, RunOptions(iterations=8, seed=3))
    shutil.copy(ended.snapshot.model if ended.snapshot else "", kit / "other.caffemodel")
    done = subprocess.run(command("train", kit, "--resume"), capture_output=True, text=True, check=True)
    assert done.stderr == "ssdlite-caffe: already at 8 of 8 iterations\n"
    assert f"8 iterations are done, loss {losses(kit)[8]:.4g}; weights: " in done.stdout
    with pytest.raises(TrainingError, match="--seed was 3 when the training was started, got 4"):
        train(kit, RunOptions(resume=True, seed=4))
    with pytest.raises(TrainingError, match="--weights was the training folder's own when the training was started"):
        train(kit, RunOptions(resume=True, weights=kit / "other.caffemodel"))
    with pytest.raises(TrainingError, match="iterations must be at least 8, which are done, got 7"):
        train(kit, RunOptions(resume=True, iterations=7))
    said: list[str] = []
    assert train(kit, RunOptions(resume=True, iterations=16), say=said.append).iteration == 16
    assert said[1] == (
        "resuming from iteration 8, to 16 in place of 8 iterations: the learning rate falls to 0 over all 16, so it "
        "continues at 0.0005, not at 0"
    )
    assert list(losses(kit)) == list(range(17))
    assert "random_seed: 3\n" in (kit / "solver_used.prototxt").read_text()
    (kit / RUN).write_text('{"seed": "x"}')
    with pytest.raises(TrainingError, match="has seed = 'x', which `ssdlite-caffe train` does not write"):
        train(kit, RunOptions(resume=True))


def test_tests_during_the_training_change_nothing(kit: Path, tmp_path: Path) -> None:
    """They are in the metrics, the last one at the end, and the weights are the same bytes without them."""
    change(kit, "solver_train.prototxt", "test_interval: 1000", "test_interval: 3")
    change(kit, "solver_train.prototxt", "display: 1\n", "display: 5\n")
    change(kit, "solver_train.prototxt", "snapshot: 10\n", "snapshot: 4\n")
    without = Path(shutil.copytree(kit, tmp_path / "without"))
    text = (without / "solver_train.prototxt").read_text()
    (without / "solver_train.prototxt").write_text(re.sub(r"(?m)^test_(net|iter|interval|init).*\n", "", text))
    models = []
    for each in (kit, without):
        ended = train(each, RunOptions(iterations=12))
        assert ended.snapshot is not None
        models.append(ended.snapshot.model.read_bytes())
        assert list(losses(each)) == [0, 4, 8, 12], "12 is no multiple of 5"
    assert models[0] == models[1]
    tests = [entry for entry in read_metrics(kit / METRICS) if "test" in entry]
    assert [(entry["iteration"], entry["test"]) for entry in tests] == [(n, "detection_eval") for n in (3, 6, 9, 12)]
    assert not any("test" in entry for entry in read_metrics(without / METRICS))
    for path in (kit / "snapshot").glob("mobilenet_iter_12.*"):
        path.unlink()
    train(kit, RunOptions(resume=True))
    again = [entry for entry in read_metrics(kit / METRICS) if "test" in entry]
    assert [entry["iteration"] for entry in again] == [3, 6, 9, 12]


def test_a_full_disk_stops_it(caffe_prefix: Path, kit: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk."""
    (tmp_path / "prefix" / "bin").mkdir(parents=True)
    wrapper = tmp_path / "prefix" / "bin" / "caffe"
    wrapper.write_text(f"#!/bin/sh\ntrap '' XFSZ\nulimit -f 1000\nexec {caffe_prefix}/bin/caffe \"$@\"\n")
    wrapper.chmod(0o755)
    said = r"the snapshot of iteration 10 is damaged, so training was stopped.*; there is no whole snapshot"
    with pytest.raises(OutputError, match=said):
        train(kit, RunOptions(prefix=tmp_path / "prefix"))
    with pytest.raises(CaffeError, match="no whole snapshot to resume from"):
        train(kit, RunOptions(resume=True))


def test_test(whole: Path) -> None:
    result = evaluate_kit(whole, None, ["caffe", "opencv"])
    scores = {score.runtime: score for score in result.scores}
    assert scores["caffe"].ap50 == pytest.approx(scores["opencv"].ap50, abs=1e-3)
    assert "caffe, DetectionEvaluate" in scores
    data = json.loads((whole / "test.json").read_text())
    assert data["model"].endswith(f"mobilenet_iter_{STEPS}.caffemodel")
    assert (whole / "precision_recall.png").read_bytes().startswith(b"\x89PNG")
    done = subprocess.run(command("test", whole, "--json"), capture_output=True, text=True, check=True,
                          env={**os.environ})  # fmt: skip
    assert set(json.loads(done.stdout)["runtimes"]) == {"caffe", "caffe, DetectionEvaluate"}


def test_merge_bn_of_a_kit_takes_its_newest_snapshot(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    merge_bn(whole, tmp_path / "out")
    assert f"mobilenet_iter_{STEPS}.caffemodel are folded" in capsys.readouterr().out
    assert (tmp_path / "out" / "deploy.caffemodel").is_file()
