"""How a training in a folder begins and ends; a script stands for Caffe."""

from __future__ import annotations

import errno
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.data.lmdb_write import write_lmdb
from ssdlite_caffe.data.voc import open_voc
from ssdlite_caffe.errors import CaffeError, OutputError
from ssdlite_caffe.gen_model.options import arch_from_options
from ssdlite_caffe.gen_model.render import Solver
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.binary import blob_from_array, write_caffemodel
from ssdlite_caffe.prototxt.shapes import infer
from ssdlite_caffe.prototxt.text import read_net
from ssdlite_caffe.training.kit import KitOptions, write_kit
from ssdlite_caffe.training.run import train
from ssdlite_caffe.training.run_options import RunOptions
from tests.commands import Command, tree
from tests.datasets import NAMES, some_voc

pytestmark = pytest.mark.opencv

ARCH = arch_from_options("2", 2, input_size=(96, 96), width_multiplier=0.25)
STEPS = 4


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    """A training folder with a snapshot after STEPS iterations, and a file of an earlier training."""
    write_lmdb(open_voc([some_voc(tmp_path / "voc", 3)], "trainval"), tmp_path / "lmdb")
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    options = KitOptions((tmp_path / "lmdb", tmp_path / "lmdb"), batch_size=1, solver=Solver("", max_iter=STEPS))
    write_kit(str(tmp_path / "names.txt"), ARCH, tmp_path / "kit", options)
    (tmp_path / "kit" / "train.log").write_text("hours of work\n")
    (tmp_path / "kit" / "snapshot").mkdir()
    write_snapshot(tmp_path / "kit")
    return tmp_path / "kit"


def write_snapshot(kit: Path) -> None:
    weights = caffe_pb2.NetParameter()
    state = caffe_pb2.SolverState(iter=STEPS, learned_net=f"snapshot/{model(kit).name}")
    for name, shapes in infer(read_net(kit / "train.prototxt"), phase="TRAIN").param_shapes.items():
        layer = weights.layer.add(name=name)
        for shape in shapes:
            layer.blobs.add().CopyFrom(blob_from_array(np.zeros(shape, np.float32)))
    for _ in range(2):  # Adam's moments
        for layer in weights.layer:
            for blob in layer.blobs:
                state.history.add(data=[0.0] * math.prod(blob.shape.dim))
    write_caffemodel(model(kit), weights)
    model(kit).with_suffix(".solverstate").write_bytes(state.SerializeToString())


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A Caffe that trains at once, and has no GPU."""
    program = tmp_path / "caffe" / "bin" / "caffe"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\n[ "$1" = train ]\n')
    program.chmod(0o755)
    return tmp_path / "caffe"


def model(kit: Path) -> Path:
    return kit / "snapshot" / f"mobilenet_iter_{STEPS}.caffemodel"


class TestForce:
    def test_an_earlier_training_is_removed(self, kit: Path, prefix: Path) -> None:
        assert train(kit, RunOptions(force=True, prefix=prefix)).finished
        assert not model(kit).exists()
        assert "hours of work" not in (kit / "train.log").read_text()

    def test_not_the_weights_to_start_from(self, kit: Path, prefix: Path, tmp_path: Path) -> None:
        (kit / ".training").touch()
        before = tree(kit)
        (tmp_path / "link").symlink_to(model(kit))
        for path in (model(kit), kit / ".." / "kit" / "snapshot" / model(kit).name, tmp_path / "link"):
            with pytest.raises(OutputError, match="is of the training that --force removes; copy it to another folder"):
                train(kit, RunOptions(force=True, weights=path, prefix=prefix))
        assert tree(kit) == before

    def test_not_before_all_else_is_checked(self, kit: Path, prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (kit / ".training").touch()
        before = tree(kit)
        with pytest.raises(CaffeError, match="cannot train on GPU 7"):
            train(kit, RunOptions(force=True, gpu=7, prefix=prefix))
        assert tree(kit) == before
        monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 0}))
        monkeypatch.setattr("ssdlite_caffe.training.run.bytes_of_snapshot", lambda *_: 1 << 40)
        with pytest.raises(OutputError, match="MiB free, for two snapshots"):
            train(kit, RunOptions(force=True, prefix=prefix))
        assert tree(kit) == before

    def test_what_is_removed_counts_as_free(self, kit: Path, prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        needed = model(kit).stat().st_size // 2
        monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 0}))
        monkeypatch.setattr("ssdlite_caffe.training.run.bytes_of_snapshot", lambda *_: needed)
        assert train(kit, RunOptions(force=True, prefix=prefix)).finished


def test_weights_may_be_given_again_each_time(kit: Path, prefix: Path, tmp_path: Path) -> None:
    """They are the same ones, so nothing contradicts, however often the training is resumed."""
    weights = model(kit).rename(tmp_path / "w.caffemodel")
    train(kit, RunOptions(force=True, weights=weights, prefix=prefix))
    write_snapshot(kit)
    for iterations in (STEPS + 1, STEPS + 2, STEPS + 3):
        train(kit, RunOptions(resume=True, weights=weights, iterations=iterations, prefix=prefix))
    weights.unlink()
    train(kit, RunOptions(resume=True, prefix=prefix))


def test_on_a_file_system_without_locks(kit: Path, prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def refuse(number: int) -> None:
        def flock(*_: object) -> None:
            raise OSError(number, "no")

        monkeypatch.setattr(fcntl, "flock", flock)

    refuse(errno.ENOLCK)
    assert train(kit, RunOptions(force=True, prefix=prefix)).finished
    refuse(errno.EIO)
    with pytest.raises(OutputError, match=r"cannot lock .*kit: no"):
        train(kit, RunOptions(force=True, prefix=prefix))


@pytest.mark.parametrize("quiet", [(), ("--quiet",)])
def test_quiet(
    command: Command, kit: Path, prefix: Path, monkeypatch: pytest.MonkeyPatch, quiet: tuple[str, ...]
) -> None:
    monkeypatch.setenv("SSDLITE_CAFFE_PREFIX", str(prefix))
    line = "I20240102 03:04:05.678901  4321 solver.cpp:240]"
    (prefix / "bin" / "caffe").write_text(
        '#!/bin/sh\n[ "$1" = train ] || exit 1\n'
        f'echo "{line} Iteration 3, loss = 2.5" >&2\necho "{line} Iteration 3, lr = 0.001" >&2\n'
    )
    done = command("train", kit, "--force", "--cpu", *quiet)
    assert done.status == 0
    said = "ssdlite-caffe: training on the CPU\nssdlite-caffe: iteration 3 of 4, loss 2.5, rate 0.001\n"
    assert done.err == ("" if quiet else said)
    assert ("trained 4 iterations" in done.out) == (not quiet)
    refused = command("train", kit, *quiet)
    assert (refused.status, refused.err.count("\n")) == (1, 1)


@pytest.mark.parametrize("iterations", [STEPS, STEPS + 1])
def test_ctrl_c_in_the_last_iteration(kit: Path, prefix: Path, iterations: int) -> None:
    """Nothing is left to resume; an iteration earlier there is."""
    shutil.copytree(kit / "snapshot", kit.parent / "saved")
    line = "I20240102 03:04:05.678901  4321 solver.cpp:450]"
    (prefix / "bin" / "caffe").write_text(
        '#!/bin/sh\n[ "$1" = train ] || exit 1\n'
        f"trap 'cp ../saved/* snapshot; echo \"{line} Snapshotting to binary proto file "
        f"snapshot/mobilenet_iter_{STEPS}.caffemodel\" >&2; exit 0' INT\n"
        "echo started >&2\nuntil grep -q started train.log; do sleep 0.1; done\n"  # now Ctrl-C is handled
        "kill -INT $PPID\nwhile :; do sleep 0.1; done\n"
    )
    ended = train(kit, RunOptions(force=True, iterations=iterations, prefix=prefix))
    assert (ended.iteration, ended.finished) == (STEPS, iterations == STEPS)


class TestTest:
    def test_before_training(self, kit: Path, command: Command) -> None:
        shutil.rmtree(kit / "snapshot")
        result = command("test", kit)
        assert result.status == 1
        assert f"train it first with `ssdlite-caffe train {kit}`" in result.err

    def test_caffe_is_missed_before_the_weights_are_folded(
        self, kit: Path, command: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SSDLITE_CAFFE_PREFIX", str(kit / "nowhere"))
        monkeypatch.setattr("ssdlite_caffe.training.evaluate_kit.merge_folder", lambda *_: pytest.fail("folded"))
        result = command("test", kit, "--runtime", "opencv")
        assert result.status == 1
        assert "no Caffe is built in" in result.err
        assert "ssdlite-caffe caffe build" in result.err
