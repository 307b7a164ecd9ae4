"""Reading COCO's instances: what is read, and that each fault is named with file and entry."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from ssdlite_caffe.coco.label_map import LabelMap, builtin
from ssdlite_caffe.data.annotations import Box
from ssdlite_caffe.data.coco import open_coco
from ssdlite_caffe.errors import DatasetError
from tests.datasets import SIZE, coco_content, write_coco


def test_images_and_objects(tmp_path: Path) -> None:
    images, path = write_coco(tmp_path, coco_content())
    data = open_coco(images, path)
    assert data.label_map == LabelMap.of_names(["circle", "square"])  # by id: 2, 9
    assert [(entry.id, entry.name) for entry in data.entries] == [(str(100 + i), f"a/p{i}.jpg") for i in range(4)]
    assert data.entries[1].path == images / "a" / "p1.jpg"
    expected = [Box(2, 3.25, 2.5, 13.375, 11.25, False), Box(1, 13.0, 2.5, 23.125, 14.25, False)]
    assert data.objects(data.entries[1], *SIZE) == (expected, [])
    assert [box.difficult for box in data.objects(data.entries[0], *SIZE)[0]] == [False, True]
    assert data.objects(data.entries[3], *SIZE) == ([], [])
    assert data.problems == []


def test_the_built_in_label_map_goes_by_name(tmp_path: Path) -> None:
    content = coco_content()
    content["categories"] = [{"id": 9, "name": "person"}, {"id": 2, "name": "toothbrush"}]
    data = open_coco(*write_coco(tmp_path, content), label_map=builtin("coco"))
    assert [box.label for box in data.objects(data.entries[0], *SIZE)[0]] == [90, 1]


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("bbox", [1, 2, 3], "is not a list of four numbers"),
        ("bbox", [1, 2, 3, "4"], "is not a list of four numbers"),
        ("bbox", [1, 2, True, 4], "is not a list of four numbers"),
        ("bbox", None, "bbox None is not a list of four numbers"),
        ("bbox", {"x": 1}, "is not a list of four numbers"),
        ("bbox", [float("nan"), 2, 3, 4], "is not a list of four numbers"),
        ("bbox", [1, 2, float("inf"), 4], "is not a list of four numbers"),
        ("bbox", [1, 2, 10**400, 4], "is not a list of four numbers"),
        ("bbox", [1, 2, -3, 4], "has a negative width"),
        ("bbox", [1, 2, 0, 4], "is empty"),
        ("bbox", [100, 2, 3, 4], "is outside"),
        ("category_id", 3, "category_id 3 is not in categories"),
        ("category_id", "2", "category_id '2' is not in"),
        ("category_id", [2], "category_id [2] is not in"),
        ("category_id", True, "category_id True is not in"),
        ("iscrowd", 7, "iscrowd must be 0 or 1, got 7"),
        ("iscrowd", "0", "iscrowd must be 0 or 1, got '0'"),
    ],
)
def test_objects_left_out(tmp_path: Path, key: str, value: object, what: str) -> None:
    content = coco_content()
    content["annotations"][0][key] = value
    images, path = write_coco(tmp_path, content)
    data = open_coco(images, path)
    boxes, problems = data.objects(data.entries[0], *SIZE)
    assert boxes == [Box(2, 9.75, 2.5, 19.875, 13.25, True)]
    assert [(p.where, p.effect) for p in problems] == [(f"{path}: annotations[0] (id 0)", "object skipped")]
    assert what in problems[0].what


def test_a_box_past_the_edge_is_clipped(tmp_path: Path) -> None:
    content = coco_content()
    content["annotations"][0]["bbox"] = [70, -5, 20, 30]
    data = open_coco(*write_coco(tmp_path, content))
    boxes, problems = data.objects(data.entries[0], *SIZE)
    assert boxes[0] == Box(1, 70, 0, 80, 25, False)
    assert [problem.effect for problem in problems] == ["box clipped"]


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("id", None, "it needs id, a whole number"),
        ("id", "100", "it needs id, a whole number"),
        ("id", 101, "an earlier image has the same id 101"),
        ("file_name", "a/p0.jpg", "an earlier image has the same file_name 'a/p0.jpg'"),
        ("file_name", "../p0.jpg", "is not a path inside the folder"),
        ("file_name", "/etc/passwd", "is not a path inside the folder"),
        ("file_name", "a/\ud800.jpg", "is not a path inside the folder"),
        ("file_name", 7, "is not a path inside the folder"),
        ("height", "48", "height must be a number, got '48'"),
    ],
)
def test_images_left_out(tmp_path: Path, key: str, value: object, what: str) -> None:
    content = coco_content()
    content["images"][2][key] = value
    images, path = write_coco(tmp_path, content)
    data = open_coco(images, path)
    assert [entry.id for entry in data.entries] == ["100", "101", "103"]
    problem = data.problems[0]
    assert problem.where.startswith(f"{path}: images[2]")
    assert problem.effect == "image skipped"
    assert what in problem.what


def test_objects_of_no_image(tmp_path: Path) -> None:
    content = coco_content()
    content["annotations"] += [{"id": 1, "image_id": 5, "category_id": 2, "bbox": [1, 2, 3, 4]}, [], {"image_id": "5"}]
    data = open_coco(*write_coco(tmp_path, content))
    assert [problem.what for problem in data.problems] == [
        "image_id 5 is not in images", "image_id None is not in images", "image_id '5' is not in images",
    ]  # fmt: skip


def test_another_size(tmp_path: Path) -> None:
    images, path = write_coco(tmp_path, coco_content())
    data = open_coco(images, path)
    with pytest.raises(DatasetError, match=r"images\[1\]: annotated as 80x48, but the image is 48x80"):
        data.objects(data.entries[1], SIZE[1], SIZE[0])


def _without(key: str) -> dict[str, Any]:
    content = copy.deepcopy(coco_content())
    del content[key]
    return content


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", r"instances.json:1: not valid JSON"),
        ('{"images":\n[}', r"instances.json:2: not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"images": [' + "9" * 5000 + "]}", "not valid JSON"),
        ("[]", "has no list 'images'"),
        ("null", "has no list 'images'"),
        (_without("annotations"), "has no list 'annotations'"),
        (_without("categories"), "has no list 'categories'"),
        (coco_content() | {"images": {}}, "has no list 'images'"),
        (coco_content() | {"images": []}, "lists no image that can be used"),
        (coco_content() | {"categories": []}, "has no categories"),
        (coco_content() | {"categories": [3]}, r"categories\[0\] needs id"),
        (coco_content() | {"categories": [{"id": 1, "name": None}]}, r"categories\[0\] needs id"),
        (
            coco_content() | {"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]},
            "id 1, which 'a' has already",
        ),
        (coco_content() | {"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}, "given twice"),
        (coco_content() | {"categories": [{"id": 1, "name": "a\nb"}]}, "is not a class name"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, content: object, what: str) -> None:
    images, path = write_coco(tmp_path, content)
    with pytest.raises(DatasetError, match=what) as caught:
        open_coco(images, path)
    assert "\n" not in str(caught.value)


def test_other_encodings(tmp_path: Path) -> None:
    images, path = write_coco(tmp_path, coco_content())
    path.write_bytes(b"\xff\xfe\xfd" + json.dumps(coco_content()).encode())
    with pytest.raises(DatasetError, match="not valid JSON"):
        open_coco(images, path)
    path.write_bytes(json.dumps(coco_content()).encode("utf-16"))
    assert len(open_coco(images, path).entries) == 4
    with pytest.raises(DatasetError, match="is not a folder; give"):
        open_coco(tmp_path / "none", path)
    with pytest.raises(DatasetError, match="No such file"):
        open_coco(images, tmp_path / "none.json")
