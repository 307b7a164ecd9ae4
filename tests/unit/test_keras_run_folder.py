"""The folder of a training: what can be resumed, and what cannot."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.errors import OutputError, TrainingError
from ssdlite_caffe.files import held_folder
from ssdlite_caffe.keras.run_folder import OPTIONS, Arrays, RunFolder, options_of, read_run
from tests.commands import Command

IDENTITY = {"seed": 1, "schedule": {"iterations": 6}}
OPTIONS_KEPT = {"batch_size": 4}
STATE: Arrays = {"model/0000": np.arange(6, dtype=np.float32).reshape(2, 3), "window": np.zeros(4)}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "run")
    with made.held():
        made.check_free(force=False)
        made.begin(IDENTITY, OPTIONS_KEPT)
    for step in (2, 4, 6):
        made.save(step, STATE)
        made.log({"iteration": step, "loss": 1.0})
    return made


def last(folder: RunFolder) -> Path:
    return folder.path / "checkpoints" / "iteration-00000006.npz"


def test_the_last_two_checkpoints_are_kept(folder: RunFolder) -> None:
    assert folder.iterations() == [4, 6]
    found = folder.load(6, like=STATE)
    assert found.keys() == STATE.keys()
    assert all((found[name] == STATE[name]).all() for name in STATE)


def edited(**changes: np.ndarray | None) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        arrays = {**STATE, **changes}
        np.savez(path, **{name: value for name, value in arrays.items() if value is not None})

    return edit


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda path: path.write_bytes(b""), "is damaged: .*; remove it"),
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "is damaged: .*; remove it"),
        (lambda path: path.write_bytes(path.read_bytes().replace(b"\x80?", b"\x90?", 1)), "is damaged: .*; remove it"),
        (lambda path: np.savez(path, a=np.array([{}], object)), "is damaged: .*; remove it"),
        (edited(window=None), "is of another model: window differ"),
        (edited(window=np.zeros(3)), "is of another model: window differ"),
        (edited(more=np.zeros(3)), "is of another model: more differ"),
        (edited(**{"model/0000": STATE["model/0000"].astype(np.float64)}), "is of another model: model/0000 differ"),
    ],
    ids=["empty", "cut", "changed", "objects", "missing", "shape", "more", "type"],
)
def test_bad_checkpoints_are_one_line(folder: RunFolder, damage: Callable[[Path], object], text: str) -> None:
    damage(last(folder))
    with pytest.raises(TrainingError, match=rf"iteration-00000006\.npz {text}") as error:
        folder.load(6, like=STATE)
    assert "\n" not in str(error.value)


def test_other_names_are_no_checkpoints(folder: RunFolder) -> None:
    last(folder).rename(last(folder).with_name("iteration-7.npz"))
    assert folder.iterations() == [4]


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "null", "{", "\udcff"])
def test_bad_descriptions_are_one_line(folder: RunFolder, text: str) -> None:
    (folder.path / "run.json").write_text(text, "utf-8", "surrogateescape")
    with pytest.raises(TrainingError, match=r"cannot read .*run\.json") as error:
        folder.check(IDENTITY)
    assert "\n" not in str(error.value)


def test_what_differs_is_listed(folder: RunFolder) -> None:
    folder.check(IDENTITY)
    with pytest.raises(TrainingError) as error:
        folder.check({"schedule": {"iterations": 7, "warmup": 1}})
    assert re.search(r"--warmup was null and is 1\b", str(error.value))
    assert "--iterations" not in str(error.value), "the number of iterations may change"
    assert re.search(r"seed was 1 and is null\b", str(error.value))
    assert "\n" not in str(error.value)


def test_another_number_of_iterations_is_kept(folder: RunFolder) -> None:
    longer = {"seed": 1, "schedule": {"iterations": 9}}
    assert folder.check(longer) == IDENTITY
    assert read_run(folder.path)["schedule"] == {"iterations": 6}, "not before all is checked"
    folder.resume(longer, {"batch_size": 4, "iterations": 9})
    assert read_run(folder.path)["schedule"] == {"iterations": 9}
    assert options_of(folder.path) == {"batch_size": 4, "iterations": 9}


def test_when_it_is_finished(folder: RunFolder) -> None:
    assert not folder.is_finished(6)
    (folder.path / "model.keras").write_bytes(b"")
    assert not folder.is_finished(6), "of an earlier end"
    folder.finish(6)
    assert folder.is_finished(6)
    assert not folder.is_finished(9)
    folder.check(IDENTITY)
    (folder.path / "model.keras").unlink()
    assert not folder.is_finished(6)


def test_the_last_losses_and_measures(folder: RunFolder) -> None:
    folder.log({"iteration": 6, "ap": 0.25, "ap50": None})
    folder.log({"iteration": 8, "loss": 0.5})
    assert folder.last() == {"iteration": 8, "ap": 0.25, "ap50": None, "loss": 0.5}
    assert folder.tested(6)
    assert not folder.tested(8)


def test_without_options_nothing_is_resumed(folder: RunFolder) -> None:
    (folder.path / "run.json").write_text(json.dumps(IDENTITY))
    with pytest.raises(TrainingError, match=r"run\.json keeps no options"):
        options_of(folder.path)


def test_what_a_kill_left_goes(folder: RunFolder) -> None:
    """Files cut short, and a line of metrics that is not even text."""
    half = [place / ".ssdlite-caffe.abc" for place in (folder.path, last(folder).parent)]
    for path in half:
        path.write_bytes(b"half")
    with (folder.path / "metrics.jsonl").open("ab") as stream:
        stream.write(b'{"iteration": \xff')
    folder.resume(IDENTITY, OPTIONS_KEPT)
    folder.cut_metrics(4)
    assert not any(path.exists() for path in half)
    assert (folder.path / "metrics.jsonl").read_text() == "".join(
        f'{{"iteration": {number}, "loss": 1.0}}\n' for number in (2, 4)
    )


def test_one_training_at_a_time(folder: RunFolder) -> None:
    with held_folder(folder.path):
        with pytest.raises(OutputError, match="another run is writing"), folder.held():
            pass
        with RunFolder(folder.path, writes=False).held():
            pass
    with folder.held():
        pass


def test_a_folder_that_was_made_for_nothing_goes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no data"), RunFolder(tmp_path / "a" / "b").held():
        raise ValueError("no data")
    assert not (tmp_path / "a").exists()


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    for path in (tmp_path / "a", tmp_path / "a" / "b"):
        with pytest.raises(OutputError, match=r"is (a file, )?not a folder"), RunFolder(path).held():
            pass


def test_a_new_training_takes_the_place_of_an_earlier_one_by_force(folder: RunFolder) -> None:
    with pytest.raises(OutputError, match="--resume continues it, --force replaces it"):
        folder.check_free(force=False)
    folder.check_free(force=True)
    folder.begin({"seed": 2}, {})
    assert [path.name for path in folder.path.iterdir()] == ["run.json"]
    assert json.loads((folder.path / "run.json").read_text()) == {"seed": 2, "options": {}}


def test_other_files_are_never_removed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    with pytest.raises(OutputError, match=r"holds files but no run\.json"):
        RunFolder(tmp_path).check_free(force=True)


def test_what_differs_is_called_by_an_option_that_exists(command: Command) -> None:
    named = {name for name in OPTIONS.values() if name.startswith("-")}
    known = set(re.findall(r"--[a-z-]+", command("keras", "train", "--help").out))
    assert named, "nothing would be asked"
    assert named <= known
