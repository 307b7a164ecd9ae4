"""Annotated images that are known by the names of their files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ssdlite_caffe.coco.label_map import LabelMap
from ssdlite_caffe.data.labelled_images import open_named
from ssdlite_caffe.errors import DatasetError
from ssdlite_caffe.evaluation.named_truth import read_truth
from tests.datasets import NAMES, SIZE, encoded, pixels, write_voc

LABELS = LabelMap.of_names(list(NAMES))
OBJECT = ("circle", (1, 2, 30, 40), 0)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    images = {"a": [OBJECT], "b.c": [("square", (5, 6, 7, 8), 0)], "d": [("circle", (1, 1, 9, 9), 1)]}
    return write_voc(tmp_path / "voc", images, "val")


def coco(folder: Path, *names: str, **more: Any) -> Path:
    """COCO's annotations of images, with one object in each, and these images in `images`."""
    for seed, name in enumerate(names):
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "images" / name).write_bytes(encoded(pixels(seed)))
    content = {
        "images": [{"id": 7 + number, "file_name": name} for number, name in enumerate(names)],
        "annotations": [{"id": n, "image_id": 7 + n, "category_id": 3, "bbox": [1, 2, 3 + n, 4]}
                        for n in range(len(names))],
        "categories": [{"id": 3, "name": "square"}],
        **more,
    }  # fmt: skip
    (folder / "all.json").write_text(json.dumps(content))
    return folder / "all.json"


def test_voc_needs_no_list(voc: Path) -> None:
    for file in (voc / "ImageSets" / "Main").iterdir():
        file.unlink()
    (voc / "ImageSets" / "Main").rmdir()
    truth = read_truth(voc, LABELS, ["b.c", "a"])
    assert [[tuple(box) for box in boxes] for boxes in truth.boxes] == [
        [(2, 5, 6, 7, 8, False)], [(1, 1, 2, 30, 40, False)],
    ]  # fmt: skip
    assert (truth.sizes, truth.problems) == ((SIZE, SIZE), ())


def test_coco_by_file_name_in_any_folder(tmp_path: Path) -> None:
    path = coco(tmp_path, "x/a.jpg", "b.jpg", "c.d.jpg")
    truth = read_truth(path, LABELS, ["c.d", "a"], images=tmp_path / "images")
    assert [[tuple(box) for box in boxes] for boxes in truth.boxes] == [
        [(2, 1, 2, 6, 6, False)], [(2, 1, 2, 4, 6, False)],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a", "e"], "has no annotations of 1 of 2 images: e"),
        (list("efghij"), "has no annotations of 6 of 6 images: e, f, g, h, ..."),
        (["A"], "has no annotations of 1 of 1 images: A"),
    ],
)
def test_images_without_annotations(voc: Path, names: list[str], said: str) -> None:
    with pytest.raises(DatasetError, match=said):
        open_named(voc, LABELS, names)


def test_a_missing_file_of_annotations(voc: Path) -> None:
    (voc / "Annotations" / "a.xml").unlink()
    with pytest.raises(DatasetError, match=r"a\.xml is missing"):
        open_named(voc, LABELS, ["a"])


def test_two_images_of_a_name(voc: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"more than one image named a: x/a\.jpg and y/a\.jpg"):
        open_named(coco(tmp_path, "x/a.jpg", "y/a.jpg"), LABELS, ["a"], images=tmp_path / "images")
    (voc / "JPEGImages" / "a.png").write_bytes(encoded(pixels(0), ".png"))
    with pytest.raises(DatasetError, match="'a' is ambiguous"):
        open_named(voc, LABELS, ["a"])


def test_no_object(voc: Path) -> None:
    with pytest.raises(DatasetError, match=r"has no object of the classes circle, square, triangle in these images$"):
        read_truth(voc, LABELS, ["d"])
    with pytest.raises(DatasetError, match=r"classes cat in these images; 1 problems, the first: .*'circle' is not in"):
        read_truth(voc, LabelMap.of_names(["cat"]), ["a"])


def test_other_data(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path, said in ((tmp_path / "empty", "has no folder JPEGImages"), (tmp_path / "no", "does not exist")):
        with pytest.raises(DatasetError, match=said):
            open_named(path, LABELS, ["a"])
