"""Options of `keras train`: what they mean together, what is kept of them, and what is printed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import typer

from ssdlite_caffe.coco.label_map import Label, LabelMap
from ssdlite_caffe.commands.keras_train import _tests
from ssdlite_caffe.commands.keras_train_values import kept
from ssdlite_caffe.data.lmdb_write import write_lmdb
from ssdlite_caffe.data.voc import open_voc
from ssdlite_caffe.gen_model.build import default_arch
from ssdlite_caffe.keras.run_folder import RunFolder
from tests.commands import Command, tree
from tests.datasets import NAMES, some_voc

pytestmark = [pytest.mark.tensorflow, pytest.mark.opencv, pytest.mark.xdist_group("keras commands")]
LABELS = LabelMap.of_names(NAMES)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    return some_voc(tmp_path / "voc", 3)


@pytest.fixture
def lmdb(voc: Path, tmp_path: Path) -> Path:
    write_lmdb(open_voc([voc], "trainval"), tmp_path / "lmdb")
    return tmp_path / "lmdb"


def values(data: Path, **more: Any) -> dict[str, Any]:
    names = ("test_data", "test_split", "test_images", "test_every", "images")
    return {**dict.fromkeys(names), "data": data, "split": "trainval", "iterations": 10, "test_limit": 5, **more}


class TestTests:
    def test_never_on_the_training_data(self, voc: Path, lmdb: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (voc.parent / "instances.json").write_text("{}")
        for data in (lmdb, voc, voc.parent / "instances.json"):
            opened = _tests(values(data), lambda _: None)
            assert opened is None or opened(LABELS) is None
            said = capsys.readouterr().err
            line = f"no tests during the training: {data} has no list of other images; name some with --test-data"
            assert said == f"ssdlite-caffe: {line}\n"

    @pytest.mark.parametrize("option", [{"test_every": 5}, {"test_split": "test"}, {"test_images": Path("x")}])
    def test_asked_for_without_images(self, lmdb: Path, option: dict[str, Any]) -> None:
        with pytest.raises(typer.BadParameter) as caught:
            _tests(values(lmdb, **option), lambda _: None)
        named = "--" + next(iter(option)).replace("_", "-")
        assert (
            str(caught.value)
            == f"{named} needs --test-data: {lmdb} has no list of other images; --test-every 0: no tests"
        )

    def test_images_that_are_named(self, voc: Path, lmdb: Path) -> None:
        lists = voc / "ImageSets" / "Main"
        (lists / "test.txt").write_text((lists / "trainval.txt").read_text())
        for found in (
            values(voc), values(voc, test_every=5), values(voc, test_split="test"), values(lmdb, test_data=lmdb),
            values(lmdb, test_data=voc), values(voc, test_data=lmdb, test_every=5),
        ):  # fmt: skip
            opened = _tests(found, lambda _: None)
            assert opened is not None
            assert callable(opened(LABELS))

    def test_none(self, lmdb: Path) -> None:
        assert _tests(values(lmdb, test_every=0), lambda _: None) is None


def test_names_of_label_maps_are_no_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("coco", "voc", "own"):
        (tmp_path / name).mkdir()
    assert [kept({"label_map": name})["label_map"] for name in ("coco", "voc")] == ["coco", "voc"]
    assert kept({"label_map": "own", "data": Path("voc")}) == {
        "label_map": str(tmp_path / "own"), "data": str(tmp_path / "voc"),
    }  # fmt: skip


def test_drops_need_their_schedule(command: Command, voc: Path, tmp_path: Path) -> None:
    arguments = ("keras", "train", "--data", voc, "-o", tmp_path / "run", "--drops", "5")
    for schedule in ((), ("--schedule", "constant")):
        done = command(*arguments, *schedule)
        assert done.status == 2
        assert "--drops needs --schedule step" in " ".join(done.err.replace("│", " ").split())
    assert not (tmp_path / "run").exists()


def test_data_that_are_not_there(command: Command, tmp_path: Path) -> None:
    done = command("keras", "train", "--data", tmp_path / "none", "-o", tmp_path / "run", "--test-every", "5")
    assert (done.status, done.err.count("\n")) == (1, 1)
    assert "none does not exist" in done.err


def test_quiet(command: Command, tmp_path: Path) -> None:
    arguments = ("keras", "train", "--data", tmp_path / "none", "-o", tmp_path / "run", "--freeze-bn")
    loud, quiet = command(*arguments), command(*arguments, "--quiet")
    assert (loud.status, quiet.status) == (1, 1)
    assert "which has learned nothing" in loud.err
    assert quiet.err.count("\n") == 1
    assert loud.err.endswith(quiet.err)


@pytest.mark.parametrize("option", ["--from", "--label-map"])
def test_what_force_would_remove_is_not_taken(command: Command, voc: Path, tmp_path: Path, option: str) -> None:
    folder = tmp_path / "run"
    with RunFolder(folder).held():
        RunFolder(folder).begin({}, {})
    name = "model.keras" if option == "--from" else "labelmap.prototxt"
    (folder / name).write_text("item { }")
    (tmp_path / "link").symlink_to(folder / name)
    before = tree(folder)
    for path in (folder / name, folder / ".." / "run" / name, tmp_path / "link"):
        done = command("keras", "train", "--data", voc, "-o", folder, "--force", option, path)
        assert done.status == 1
        assert done.err == (
            f"ssdlite-caffe: {path} is of the training in {folder} that --force removes; copy it to another folder and "
            "give the copy\n"
        )
    assert tree(folder) == before


class TestClassPredictors:
    """Which a training starts with that takes a model's weights."""

    def begun(self, start: LabelMap, labels: LabelMap) -> tuple[dict[str, Any], dict[str, Any], list[str], list[str]]:
        """The class predictors of the start and of the training, which layers start anew, and what is said."""
        from ssdlite_caffe.keras.import_model import import_detector
        from ssdlite_caffe.keras.model import KerasModel, build_model
        from ssdlite_caffe.keras.train import _begin_with
        from ssdlite_caffe.keras.weights import get_values
        from tests.models import model_of

        arch = default_arch("v2", len(start), input_size=(64, 64), width_multiplier=0.35)
        old = import_detector(model_of(arch), labels=start)
        new = build_model(replace(arch, num_classes=len(labels)), labels)
        trainer: Any = SimpleNamespace(
            labels=labels, arch=replace(arch, num_classes=len(labels)), model=new, restart_averages=lambda: None
        )
        said: list[str] = []
        anew = _begin_with(trainer, KerasModel(old.model, old.arch, start), said.append)
        before, after = get_values(old.model), get_values(new)
        predictors = {name for name in after if "ClassPredictor/" in name}
        assert all((before[name] == after[name]).all() for name in after.keys() - predictors)
        return *({name: values[name] for name in sorted(predictors)} for values in (before, after)), anew, said

    def test_of_the_same_classes_are_kept(self) -> None:
        other = LabelMap((Label(0, "background", "nothing"), *(Label(i, f"/m/{i}", n) for i, n in enumerate(NAMES, 1))))
        before, after, anew, said = self.begun(other, LABELS)
        assert all((before[name] == after[name]).all() for name in before)
        assert (anew, said) == ([], [])

    @pytest.mark.parametrize("names", [("star", *NAMES[1:]), NAMES[:2], (*NAMES, "star"), ("class_1", "class_2")])
    def test_of_other_classes_start_anew(self, names: tuple[str, ...]) -> None:
        """As many classes or not: which layers these are, and why, is said."""
        before, after, anew, said = self.begun(LabelMap.of_names(names), LABELS)
        assert {name.rpartition("/")[0] for name in after} == set(anew)
        assert all(before[n].shape != after[n].shape or (before[n] != after[n]).any() for n in after if "kernel" in n)
        assert len(said) == 1
        assert said[0].startswith("6 class predictors start anew, since the model to start from ")
        assert said[0].endswith(": " + ", ".join(anew))

    def test_of_another_order_are_moved(self) -> None:
        before, after, anew, said = self.begun(LabelMap.of_names((NAMES[2].upper(), *NAMES[:2])), LABELS)
        for name, value in after.items():
            rows = before[name].reshape(*value.shape[:-1], -1, 4)[..., [0, 2, 3, 1]]
            assert (value == rows.reshape(value.shape)).all()
        assert anew == []
        assert said == [
            f"taken as the same classes as in the model to start from: 3 is {NAMES[2]!r}, was {NAMES[2].upper()!r}",
            "the model to start from has the classes in another order: the rows of its class predictors are moved",
        ]


def test_a_late_test_takes_no_time_from_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed training makes up for the test that a kill prevented; images/s do not count it."""
    from ssdlite_caffe.keras import loop
    from ssdlite_caffe.keras.schedule import Schedule

    now = 0.0

    def passes(seconds: float, result: Any) -> Any:
        nonlocal now
        now += seconds
        return result

    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: now))
    trainer: Any = SimpleNamespace(
        batches=lambda first: None, step=lambda *_: passes(1.0, (1.0, 1.0, 1.0)), options=SimpleNamespace(batch=1),
        strategy=SimpleNamespace(cluster_resolver=None), state=dict, restore=lambda _: None, detector=lambda: None,
    )  # fmt: skip
    folder = RunFolder(tmp_path / "run")
    with folder.held():
        folder.begin({}, {})
    folder.save(2, {"window": np.zeros(4)})
    loop.Loop(
        folder, trainer, Schedule(0.1, 4), loop.Intervals(log=1, test=2), lambda _: passes(100.0, {"ap": 0.5}),
        lambda _: None, lambda _: None,
    ).run()  # fmt: skip
    assert [line["images_per_second"] for line in folder.metrics() if "loss" in line] == [1.0, 1.0]
