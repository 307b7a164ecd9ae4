"""Caffe's solver trains a small kit: killed, interrupted, gone on with, and stopped at what is wrong."""

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
from ssdlite_caffe.errors import CaffeError, OutputError, SsdliteError
from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.gen_model.build import default_arch
from ssdlite_caffe.gen_model.render import Solver
from ssdlite_caffe.prototxt.binary import blob_to_array, read_caffemodel
from ssdlite_caffe.training.evaluate_kit import evaluate_kit
from ssdlite_caffe.training.kit import KitOptions, write_kit
from ssdlite_caffe.training.run import LOG, METRICS, PLOT, SolverOptions, read_metrics, train

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
    ended = train(kit, SolverOptions())
    assert ended.finished
    assert ended.snapshot is not None
    assert ended.snapshot.iteration == STEPS
    return kit


def test_a_whole_training(whole: Path) -> None:
    found = losses(whole)
    assert list(found) == list(range(STEPS))
    losses_now = list(found.values())
    assert np.mean(losses_now[-10:]) < 0.95 * np.mean(losses_now[:5]), "each is of four images: one alone says little"
    rates = {entry["lr"] for entry in read_metrics(whole / METRICS) if "lr" in entry}
    assert rates == {0.001, 0.0005}
    assert (whole / PLOT).read_bytes().startswith(b"\x89PNG")
    assert "Optimization Done." in (whole / LOG).read_text()


def test_the_same_seed_gives_the_same_losses(whole: Path, kit: Path) -> None:
    train(kit, SolverOptions(max_iter=10))
    found, expected = losses(kit), losses(whole)
    assert found == {iteration: expected[iteration] for iteration in range(10)}
    shutil.rmtree(kit / "snapshot")
    for name in (LOG, METRICS, PLOT):
        (kit / name).unlink()
    train(kit, SolverOptions(max_iter=3, seed=8))
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


def test_killed_and_gone_on_with(whole: Path, kit: Path) -> None:
    """kill -9 loses what came after the last snapshot; a half-written one is passed over."""
    # Without an end near: a quick machine would else be done before it is killed.
    process = subprocess.Popen(command("train", kit, "--max-iter", 100000), stderr=subprocess.DEVNULL)
    wait_for(kit, 22, process)
    (caffe,) = children(process.pid)
    process.kill()
    process.wait()
    for _ in range(50):  # Caffe ends with it
        if not Path(f"/proc/{caffe}").exists() or "Z" in Path(f"/proc/{caffe}/stat").read_text().split()[2]:
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
    ended = train(kit, SolverOptions(resume=True), say=said.append)
    assert ended.finished
    assert ended.snapshot is not None
    assert ended.snapshot.iteration == STEPS
    assert said[0].startswith("the snapshot of iteration 25 is passed over: ")
    assert said[1].startswith("the snapshot of iteration 20 is passed over: mobilenet_iter_20.solverstate is cut short")
    assert said[2] == "going on from iteration 10"
    found = losses(kit)
    assert list(found) == list(range(STEPS))
    expected = losses(whole)
    assert [found[i] for i in range(10)] == [expected[i] for i in range(10)]


def test_ctrl_c_snapshots(kit: Path) -> None:
    arguments = command("train", kit, "--max-iter", 100000)
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(kit, 3, process)
    with pytest.raises(OutputError, match="another training runs in"):
        train(kit, SolverOptions(resume=True))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert b"stopping after this iteration, with a snapshot" in err
    assert b"go on with: ssdlite-caffe train" in out
    assert b"--resume" in out
    done = max(losses(kit)) + 1  # iterations count from 0
    assert (kit / "snapshot" / f"mobilenet_iter_{done}.solverstate").is_file()
    said: list[str] = []
    assert train(kit, SolverOptions(resume=True, max_iter=done + 2), say=said.append).finished
    assert said[0] == f"going on from iteration {done}"
    assert list(losses(kit)) == list(range(done + 2))


def test_a_second_beginning_is_refused(whole: Path, kit: Path) -> None:
    (kit / "snapshot").mkdir()
    shutil.copy(whole / "snapshot" / "mobilenet_iter_10.caffemodel", kit / "snapshot")
    with pytest.raises(OutputError, match="of an earlier training; --resume goes on with it, --force begins anew"):
        train(kit, SolverOptions(max_iter=2))
    with pytest.raises(CaffeError, match=r"no whole snapshot to go on from \(the snapshot of iteration 10 is passed"):
        train(kit, SolverOptions(resume=True))
    train(kit, SolverOptions(max_iter=2, force=True))
    assert not (kit / "snapshot" / "mobilenet_iter_10.caffemodel").exists()


def change(kit: Path, name: str, old: str, new: str) -> None:
    text = (kit / name).read_text()
    assert old in text
    (kit / name).write_text(text.replace(old, new))


def test_a_loss_that_is_not_finite(kit: Path) -> None:
    change(kit, "solver_train.prototxt", "base_lr: 0.001", "base_lr: 1e30")
    change(kit, "solver_train.prototxt", 'type: "Adam"', 'type: "SGD"')
    with pytest.raises(
        CaffeError, match=r"the loss is -?(nan|inf) at iteration \d+, so training was stopped; there is no good"
    ):
        train(kit, SolverOptions())
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
        train(kit, SolverOptions())
    assert "\n" not in str(caught.value)


def test_two_that_go_on_from_one_snapshot_lose_alike(whole: Path, kit: Path, tmp_path: Path) -> None:
    (kit / "snapshot").mkdir()
    for path in (whole / "snapshot").glob("mobilenet_iter_10.*"):
        shutil.copy(path, kit / "snapshot")
    other = Path(shutil.copytree(kit, tmp_path / "other"))
    for each in (kit, other):
        train(each, SolverOptions(resume=True, max_iter=15))
    assert losses(kit) == losses(other)
    assert list(losses(kit)) == list(range(10, 15))


def test_a_broken_record_is_left_out_unless_strict(kit: Path) -> None:
    import lmdb

    with (
        lmdb.open(str(kit.parent / "trainval"), map_size=1 << 30) as environment,
        environment.begin(write=True) as transaction,
    ):
        key, value = next(iter(transaction.cursor()))
        transaction.put(key, value[: len(value) // 2])
    said: list[str] = []
    ended = train(kit, SolverOptions(max_iter=8), say=said.append)
    assert ended.finished
    assert ended.left_out == 1
    assert f"record {key.decode()} of ../trainval cannot be read: " in said[0]
    with pytest.raises(CaffeError, match=f"Check failed: .*record {re.escape(key.decode())} .* cannot be read"):
        train(kit, SolverOptions(max_iter=8, force=True, strict=True))


def test_a_gpu_on_a_build_without(kit: Path) -> None:
    change(kit, "solver_train.prototxt", "solver_mode: CPU", "solver_mode: GPU")
    with pytest.raises(CaffeError, match=r"asks for a GPU|Cannot use GPU in CPU-only|built for the CPU"):
        train(kit, SolverOptions())
    assert train(kit, SolverOptions(cpu=True, max_iter=1, force=True)).finished


def test_a_full_disk_stops_it(caffe_prefix: Path, kit: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk."""
    (tmp_path / "prefix" / "bin").mkdir(parents=True)
    wrapper = tmp_path / "prefix" / "bin" / "caffe"
    wrapper.write_text(f"#!/bin/sh\ntrap '' XFSZ\nulimit -f 1000\nexec {caffe_prefix}/bin/caffe \"$@\"\n")
    wrapper.chmod(0o755)
    said = r"the snapshot of iteration 10 is no good, so training was stopped.*; there is no good snapshot"
    with pytest.raises(OutputError, match=said):
        train(kit, SolverOptions(prefix=tmp_path / "prefix"))
    with pytest.raises(CaffeError, match="no whole snapshot to go on from"):
        train(kit, SolverOptions(resume=True))


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
