"""How a training in a folder begins and ends; a script stands for Caffe."""

from __future__ import annotations

import errno
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdlite_caffe.coco.label_map import LabelMap
from ssdlite_caffe.data.lmdb_write import write_lmdb
from ssdlite_caffe.data.voc import open_voc
from ssdlite_caffe.errors import CaffeError, LabelMapError, OutputError
from ssdlite_caffe.gen_model.options import arch_from_options
from ssdlite_caffe.gen_model.render import Solver
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.binary import blob_from_array, blob_to_array, read_caffemodel, write_caffemodel
from ssdlite_caffe.prototxt.shapes import infer
from ssdlite_caffe.prototxt.text import read_net
from ssdlite_caffe.training.kit import KitOptions, write_kit
from ssdlite_caffe.training.run import train
from ssdlite_caffe.training.run_options import RunOptions
from ssdlite_caffe.training.start_weights import FIRST
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


class TestClassesOfWeights:
    """A caffemodel has no class names; a label map beside it has them."""

    @pytest.fixture
    def other(self, kit: Path, tmp_path: Path) -> Path:
        """Weights of the same net in a folder of their own."""
        (tmp_path / "other").mkdir()
        weights = read_caffemodel(model(kit))
        for layer in weights.layer:
            if layer.name.endswith("_mbox_conf"):
                for blob in layer.blobs:
                    values = np.arange(math.prod(blob.shape.dim), dtype=np.float32)
                    blob.CopyFrom(blob_from_array(values.reshape(list(blob.shape.dim))))
        write_caffemodel(tmp_path / "other" / "w.caffemodel", weights)
        return tmp_path / "other" / "w.caffemodel"

    def begun(self, kit: Path, prefix: Path, weights: Path, *, finetune: bool = False) -> tuple[Path, list[str]]:
        """What Caffe is given to start from, and what is said."""
        (prefix / "bin" / "caffe").write_text('#!/bin/sh\n[ "$1" = train ] && echo "$@" > ../given\n')
        said: list[str] = []
        train(kit, RunOptions(force=True, weights=weights, finetune=finetune, cpu=True, prefix=prefix), say=said.append)
        (given,) = (x for x in (kit.parent / "given").read_text().split() if x.startswith("-weights="))
        return Path(given.removeprefix("-weights=")), [line for line in said if "on the CPU" not in line]

    @pytest.mark.parametrize("names", [("a", "b", "c"), ("class_1", "class_2", "class_3"), (*NAMES[:2], "star")])
    def test_other_ones(self, kit: Path, prefix: Path, other: Path, names: tuple[str, ...], command: Command) -> None:
        (other.parent / "labelmap.prototxt").write_text(LabelMap.of_names(names).to_prototxt())
        before = tree(kit)
        said = f"the class predictors of {other} are for other classes than {kit}: the model has no "
        with pytest.raises(LabelMapError, match=re.escape(said) + ".*give --finetune to start them anew"):
            train(kit, RunOptions(force=True, weights=other, prefix=prefix))
        assert {name: content for name, content in tree(kit).items() if name != ".training"} == before
        given, lines = self.begun(kit, prefix, other, finetune=True)
        assert given == (kit / FIRST).resolve()
        kept, whole = ({x.name for x in read_caffemodel(path).layer} for path in (given, other))
        assert whole - kept == {name for name in whole if name.endswith("_mbox_conf")} != set()
        (line,) = lines
        assert line.startswith("6 class predictors start anew, since the model has no ")
        assert all(name in line for name in whole - kept)
        tested = command("test", kit, "--weights", other)
        assert tested.status == 1
        assert f"{other} is for other classes than {kit}: the model has no " in tested.err

    def test_in_another_order(self, kit: Path, prefix: Path, other: Path) -> None:
        turned = LabelMap.of_names((NAMES[2], *NAMES[:2]))
        (other.parent / "labelmap.prototxt").write_text(turned.to_prototxt())
        given, lines = self.begun(kit, prefix, other)
        assert lines == [f"{other} has the classes in another order: the rows of its class predictors are moved"]
        for old, new in zip(read_caffemodel(other).layer, read_caffemodel(given).layer, strict=True):
            for before, after in zip(old.blobs, new.blobs, strict=True):
                values = blob_to_array(before)
                if old.name.endswith("_mbox_conf"):
                    values = values.reshape(-1, 4, *values.shape[1:])[:, [0, 2, 3, 1]].reshape(values.shape)
                assert (blob_to_array(after) == values).all()

    def test_the_same_ones(self, kit: Path, prefix: Path, other: Path) -> None:
        (other.parent / "labelmap.prototxt").write_text(LabelMap.of_names(NAMES).to_prototxt())
        assert self.begun(kit, prefix, other) == (other, [])
        assert self.begun(kit, prefix, other, finetune=True) == (other, [])
        assert not (kit / FIRST).exists()

    @pytest.mark.parametrize("label_map", [None, "", "item {", "only\none\n"])
    def test_unknown_ones(self, kit: Path, prefix: Path, other: Path, label_map: str | None) -> None:
        """Then it is said what they are taken for."""
        if label_map is not None:
            (other.parent / "labelmap.prototxt").write_text(label_map)
        given, (line,) = self.begun(kit, prefix, other)
        assert given == other
        assert line == (
            f"{other} has no label map beside it, so its class predictors are taken to be for the classes of {kit}; "
            "--finetune starts them anew"
        )
        given, (line,) = self.begun(kit, prefix, other, finetune=True)
        assert given == (kit / FIRST).resolve()
        assert line.startswith("6 class predictors start anew, since their classes are not known: ")

    def test_of_a_snapshot(self, kit: Path, prefix: Path, tmp_path: Path) -> None:
        """Its training folder has the label map."""
        shutil.copytree(kit, tmp_path / "earlier")
        (tmp_path / "earlier" / "labelmap.prototxt").write_text(LabelMap.of_names(("a", "b", "c")).to_prototxt())
        with pytest.raises(LabelMapError, match="has no 'circle'"):
            train(kit, RunOptions(force=True, weights=model(tmp_path / "earlier"), prefix=prefix))

    def test_of_a_training_folder_whose_label_map_was_changed(self, kit: Path, prefix: Path) -> None:
        """Its first weights are for the classes that it was written for."""
        shutil.copy(model(kit), kit / "initial.caffemodel")
        known = json.loads((kit / "kit.json").read_text())
        for names, fits in ((NAMES, True), (("a", "b", "c"), False)):
            known["initial"] = {"classes": ["background", *names]}
            (kit / "kit.json").write_text(json.dumps(known))
            if fits:
                train(kit, RunOptions(force=True, prefix=prefix))
                continue
            with pytest.raises(LabelMapError, match="write the training folder again with `ssdlite-caffe kit`"):
                train(kit, RunOptions(force=True, prefix=prefix))

    def test_another_number(self, kit: Path, prefix: Path, other: Path, tmp_path: Path) -> None:
        (tmp_path / "two.txt").write_text("\n".join(NAMES[:2]))
        make_voc = open_voc([tmp_path / "voc"], "trainval", label_map=LabelMap.of_names(NAMES[:2]))
        write_lmdb(make_voc, tmp_path / "fewer")
        options = KitOptions((tmp_path / "fewer", tmp_path / "fewer"), batch_size=1, solver=Solver("", max_iter=STEPS))
        write_kit(str(tmp_path / "two.txt"), ARCH, tmp_path / "small", options)
        with pytest.raises(LabelMapError, match="do not agree; --finetune starts from weights of other classes:"):
            train(tmp_path / "small", RunOptions(weights=other, prefix=prefix))
        given, (line,) = self.begun(tmp_path / "small", prefix, other, finetune=True)
        assert not any(layer.name.endswith("_mbox_conf") for layer in read_caffemodel(given).layer)
        assert line.startswith("6 class predictors start anew, since ")

    def test_finetune_needs_weights(self, kit: Path, command: Command) -> None:
        assert command("train", kit, "--finetune").status == 2


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


class TestLastLoss:
    """What is printed at the end: the loss of the last iteration, or of which one it is."""

    LINE = "I20240102 03:04:05.678901  4321 solver.cpp:240]"

    def caffe(self, prefix: Path, *texts: str) -> None:
        lines = "".join(f'echo "{self.LINE} {text}" >&2\n' for text in texts)
        (prefix / "bin" / "caffe").write_text(f'#!/bin/sh\n[ "$1" = train ] || exit 1\n{lines}')

    def ended(self, command: Command, kit: Path, *more: str) -> tuple[str, dict[str, Any]]:
        """What is printed, and the loss and its iteration in JSON."""
        text, as_json = (command("train", kit, "--cpu", *more, *end) for end in ((), ("--json",)))
        assert (text.status, as_json.status) == (0, 0)
        report = json.loads(as_json.out)
        return text.out, {name: report[name] for name in ("iteration", "loss", "loss_iteration")}

    @pytest.fixture(autouse=True)
    def found(self, prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SSDLITE_CAFFE_PREFIX", str(prefix))

    def test_of_the_last_iteration(self, kit: Path, prefix: Path, command: Command) -> None:
        steps = ("Iteration 2 (1.5 iter/s, 1.3s/2 iters), loss = 2.5", "Iteration 2, lr = 0.001")
        self.caffe(prefix, *steps, "Iteration 4, loss = 1.5", "Optimization Done.")
        said, report = self.ended(command, kit, "--force")
        assert ", loss 1.5; " in said
        assert report == {"iteration": 4, "loss": 1.5, "loss_iteration": 4}

    def test_of_an_earlier_one(self, kit: Path, prefix: Path, command: Command) -> None:
        """Caffe shows no loss at the end of a training that Ctrl-C stopped, nor where it was killed."""
        self.caffe(prefix, "Iteration 2, loss = 2.5", "Iteration 2, lr = 0.001")
        said, report = self.ended(command, kit, "--force")
        assert ", loss 2.5 at iteration 2; " in said
        assert report == {"iteration": 4, "loss": 2.5, "loss_iteration": 2}

    def test_of_none(self, kit: Path, prefix: Path, command: Command) -> None:
        self.caffe(prefix)
        said, report = self.ended(command, kit, "--force")
        assert ", no loss was logged; " in said
        assert report == {"iteration": 4, "loss": None, "loss_iteration": None}

    def test_of_a_finished_training(self, kit: Path, command: Command) -> None:
        """It is in the metrics, or without them in the log; one of an iteration that is not done does not count."""
        (kit / "train.log").write_text(
            "".join(f"{self.LINE} {text}\n" for text in (
                "Iteration 2, loss = 3.5", "Iteration 2, lr = 0.1", "Iteration 4, loss = 1.5", "Optimization Done.",
                "Iteration 6, loss = 0.5", "Iteration 6, lr = 0.1",
            ))
        )  # fmt: skip
        said, report = self.ended(command, kit, "--resume")
        assert f"{STEPS} iterations are done, loss 1.5; " in said
        assert report == {"iteration": 4, "loss": 1.5, "loss_iteration": 4}
        (kit / "metrics.jsonl").write_text(
            '{"iteration": 3, "loss": 2.25}\n{"iteration": 4, "loss": NaN}\n{"iteration": 9, "loss": 9.25}\n\xff'
        )
        assert f"{STEPS} iterations are done, loss 2.25 at iteration 3; " in self.ended(command, kit, "--resume")[0]
        for name in ("metrics.jsonl", "train.log"):
            (kit / name).unlink()
        said, report = self.ended(command, kit, "--resume")
        assert f"{STEPS} iterations are done, no loss was logged; " in said
        assert report["loss"] is None

    def test_a_rate_that_was_not_shown(self, kit: Path, prefix: Path, command: Command) -> None:
        self.caffe(prefix, "Iteration 4, loss = 1.5", "Optimization Done.")
        done = command("train", kit, "--cpu", "--force")
        assert "iteration 4 of 4, loss 1.5\n" in done.err
