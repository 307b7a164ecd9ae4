"""Paths in each other's place: every command with two of them says what to type."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.commands import Command


@pytest.fixture
def here(example_model: Path, example_folder: Path, example_weights: Path, tmp_path: Path) -> Path:
    """One of each kind; names have a space, as users' folders do."""
    shutil.copytree(example_folder, tmp_path / "my out")
    shutil.copytree(example_weights, tmp_path / "weights")
    (tmp_path / "archive").mkdir()
    shutil.copy(example_model, tmp_path / "archive")
    (tmp_path / "voc" / "JPEGImages").mkdir(parents=True)
    (tmp_path / "voc" / "Annotations").mkdir()
    (tmp_path / "images").mkdir()
    for name in ("voc/JPEGImages/a.jpg", "images/a.PNG"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "instances.json").write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    (tmp_path / "net.keras").write_bytes(b"x")
    return tmp_path


CASES = (
    ("verify {my out} {archive}", "verify {archive} {my out}"),
    ("verify {my out} {archive/frozen_inference_graph.pb}", "verify {archive/frozen_inference_graph.pb} {my out}"),
    ("evaluate {voc} --data {my out}", "evaluate {my out} --data {voc}"),
    ("evaluate {voc} --data {archive}", "evaluate {archive} --data {voc}"),
    ("evaluate {instances.json} --data {my out}", "evaluate {my out} --data {instances.json}"),
    ("evaluate {my out} --data {images} --images {instances.json}", "... --data {instances.json} --images {images}"),
    ("keras test {voc} --data {net.keras}", "keras test {net.keras} --data {voc}"),
    ("keras infer {images} {net.keras}", "keras infer {net.keras} {images}"),
    ("detect {images} {my out}", "detect {my out} {images}"),
    ("detect {images/a.PNG} {my out}", "detect {my out} {images/a.PNG}"),
    ("load {my out/deploy.prototxt} {weights} -o {new}", "load {weights} {my out/deploy.prototxt} -o {new}"),
    (
        "merge-bn {my out/deploy.caffemodel} -w {my out/deploy.prototxt} -o {new}",
        "merge-bn {my out/deploy.prototxt} --weights {my out/deploy.caffemodel} -o {new}",
    ),
    ("lmdb coco {instances.json} {images} -o {new}", "lmdb coco {images} {instances.json} -o {new}"),
)


def split(text: str, folder: Path) -> list[str]:
    parts: list[str] = []
    for part in text.replace("{", "\0{").replace("}", "}\0").split("\0"):
        parts += [str(folder / part[1:-1])] if part.startswith("{") else part.split()
    return parts


@pytest.mark.parametrize(("given", "right"), CASES, ids=[given for given, _ in CASES])
def test_the_other_way_round_is_named(refused: Command, here: Path, given: str, right: str) -> None:
    said = refused(*split(given, here)).err
    assert "they are swapped; type: ssdlite-caffe " in said
    typed = said.strip().partition("type: ssdlite-caffe ")[2]
    wanted = " ".join(f"'{part}'" if " " in part else part for part in split(right, here))
    assert typed == wanted


@pytest.mark.parametrize(
    "given",
    [
        "verify {archive} {my out/nothing}",
        "detect {my out} {nothing}",
        "evaluate {my out} --data {nothing}",
        "verify {a} {b}",
    ],
)
def test_other_mistakes_keep_their_own_words(refused: Command, here: Path, given: str) -> None:
    assert "swapped" not in refused(*split(given, here)).err


@pytest.mark.parametrize(
    ("train", "test", "swapped"),
    [
        ("test_lmdb", "trainval_lmdb", True),
        ("VAL", "Train", True),
        ("trainval_lmdb", "test_lmdb", False),
        ("train", "test_of_train", False),
        ("a", "b", False),
    ],
)
def test_training_data_named_for_tests(command: Command, tmp_path: Path, train: str, test: str, swapped: bool) -> None:
    """The names are all that shows it, so it is a note, and the error is that there are no LMDBs."""
    (tmp_path / "names.txt").write_text("a\nb\n")
    data = ("--train", tmp_path / train, "--test", tmp_path / test)
    done = command("kit", tmp_path / "names.txt", "-o", tmp_path / "kit", *data)
    assert done.status == 1
    assert (f"type: --train {tmp_path / test} --test {tmp_path / train}" in done.err) == swapped
