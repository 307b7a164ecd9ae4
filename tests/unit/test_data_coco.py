"""Reading COCO's instances: what is read, and that each fault is named with file and entry."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssdlite_caffe.coco.label_map import LabelMap, builtin
from ssdlite_caffe.data.annotations import Box
from ssdlite_caffe.data.coco import open_coco, read_coco_ids
from ssdlite_caffe.data.coco_values import id_key
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
        ("bbox", [1, 2, 3, "x"], "is not a list of four numbers"),
        ("bbox", [1, 2, 3, None], "is not a list of four numbers"),
        ("bbox", "1, 2, 3, 4", "is not a list of four numbers"),
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
        ("category_id", "02", "category_id '02' is not in"),
        ("category_id", None, "category_id None is not in"),
        ("category_id", 2.5, "category_id 2.5 is not in"),
        ("category_id", [2], "category_id [2] is not in"),
        ("category_id", True, "category_id True is not in"),
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
        ("id", 1.5, "it needs id, a whole number"),
        ("id", "", "it needs id, a whole number"),
        ("id", "100", "an earlier image has the same id '100'"),
        ("file_name", "./a//p0.jpg", "an earlier image has the same file_name './a//p0.jpg'"),
        ("file_name", "C:\\a\\p2.jpg", "is not a path inside the folder of images: it is absolute"),
        ("id", 101, "an earlier image has the same id 101"),
        ("file_name", "a/p0.jpg", "an earlier image has the same file_name 'a/p0.jpg'"),
        ("file_name", "../p0.jpg", "is not a path inside the folder"),
        ("file_name", "/etc/passwd", "is not a path inside the folder"),
        ("file_name", "a/\ud800.jpg", "is not a path inside the folder"),
        ("file_name", 7, "is not a path inside the folder"),
        ("file_name", None, "is not a path inside the folder"),
        ("height", "tall", "height must be a number, got 'tall'"),
        ("width", [48], "width must be a number, got [48]"),
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


def test_what_is_lost_with_an_image_is_counted(tmp_path: Path) -> None:
    content = coco_content()
    content["images"][2]["file_name"] = "../p2.jpg"
    content["images"][1]["id"] = 100
    data = open_coco(*write_coco(tmp_path, content))
    assert [problem.what for problem in data.problems] == [
        "an earlier image has the same id 100",
        "file_name '../p2.jpg' is not a path inside the folder of images: it has '..' (with 2 objects)",
        "image_id 101 is not in images",
        "image_id 101 is not in images",
    ]


@pytest.mark.parametrize("written", [str, float, lambda value: f" {value} "])
def test_ids_and_numbers_that_are_text_or_floats(tmp_path: Path, written: Callable[[int], object]) -> None:
    """VGG's tool writes image_id as text and id as a number, and pandas writes 1.0."""
    content = coco_content()
    expected = open_coco(*write_coco(tmp_path / "plain", content))
    for item in content["annotations"]:
        item["image_id"], item["category_id"] = written(item["image_id"]), written(item["category_id"])
        item["bbox"] = [written(value) for value in item["bbox"]]
    content["images"][0]["height"], content["images"][1]["width"] = written(SIZE[0]), written(SIZE[1])
    data = open_coco(*write_coco(tmp_path / "written", content))
    assert data.problems == []
    for entry, plain in zip(data.entries, expected.entries, strict=True):
        assert (entry.id, entry.numbered) == (plain.id, True)
        assert data.objects(entry, *SIZE) == expected.objects(plain, *SIZE)


def test_ids_of_images_and_categories_may_be_names(tmp_path: Path) -> None:
    content = coco_content()
    for item in (*content["images"], *content["categories"]):
        item["id"] = f"{item['id']:06}" if item["id"] != 9 else 9.0
    for item in content["annotations"]:
        item["image_id"] = f"{item['image_id']:06}"
        item["category_id"] = "000002" if item["category_id"] == 2 else "9"
    images, path = write_coco(tmp_path, content)
    data = open_coco(images, path)
    assert data.label_map == LabelMap.of_names(["square", "circle"])  # numbers first
    assert data.category_ids == {1: 9, 2: "000002"}
    assert [(entry.id, entry.numbered) for entry in data.entries] == [(f"{100 + i:06}", False) for i in range(4)]
    assert sum(len(data.objects(entry, *SIZE)[0]) for entry in data.entries) == 6
    assert read_coco_ids(path) == (
        [(f"{100 + i:06}", f"a/p{i}.jpg") for i in range(4)], {"000002": "circle", 9: "square"},
    )  # fmt: skip


@pytest.mark.parametrize("value", [None, "", "absent"])
def test_sizes_and_flags_that_are_not_stated(tmp_path: Path, value: object) -> None:
    content = coco_content()
    for item, keys in ((content["images"][0], ("height", "width")), (content["annotations"][3], ("iscrowd", "area"))):
        for key in keys:
            item[key] = value
            if value == "absent":
                del item[key]
    data = open_coco(*write_coco(tmp_path, content))
    assert (data.problems, data.entries[0].id) == ([], "100")
    boxes, problems = data.objects(data.entries[0], *SIZE)
    assert (len(boxes), [box.difficult for box in boxes], problems) == (2, [False, False], [])


def test_a_crowd_that_is_neither_0_nor_1_is_none(tmp_path: Path) -> None:
    content = coco_content()
    content["annotations"][0]["iscrowd"], content["annotations"][3]["iscrowd"] = 7, "1"
    images, path = write_coco(tmp_path, content)
    data = open_coco(images, path)
    boxes, problems = data.objects(data.entries[0], *SIZE)
    assert [box.difficult for box in boxes] == [False, True]
    assert problems == [(f"{path}: annotations[0] (id 0)", "iscrowd must be 0 or 1, got 7", "flag taken as 0")]


@pytest.mark.parametrize("written", ["a\\p{}.jpg", "./a/p{}.jpg", "a//p{}.jpg", ".\\a\\p{}.jpg"])
def test_paths_as_other_programs_write_them(tmp_path: Path, written: str) -> None:
    content = coco_content()
    for number, item in enumerate(content["images"]):
        item["file_name"] = written.format(number)
    data = open_coco(*write_coco(tmp_path, content))
    assert [entry.name for entry in data.entries] == [f"a/p{i}.jpg" for i in range(4)]
    assert all(entry.path.is_file() for entry in data.entries)


def _categories(*names: tuple[int, str], supercategory: str = "") -> list[dict[str, object]]:
    return [{"id": number, "name": name, "supercategory": supercategory} for number, name in names]


CLASSES = _categories((2, "circle"), (9, "square"))
ROBOFLOW = [{"id": 0, "name": "set", "supercategory": "none"}]


@pytest.mark.parametrize(
    ("categories", "what"),
    [
        (_categories((0, "_background_")) + CLASSES, "'_background_' is background, which always has class id 0"),
        (CLASSES + _categories((90, "BACKGROUND")), "'BACKGROUND' is background, which always has class id 0"),
        (_categories((1, "N/A"), (3, "N/A")) + CLASSES, "'N/A' is the name of no class"),
        (_categories((1, "none"), (3, "none")) + CLASSES, "'none' is the name of no class"),
        (
            ROBOFLOW + _categories((2, "circle"), (9, "square"), supercategory="set"),
            "'set' is the supercategory of all others and has no objects",
        ),
    ],
)
def test_categories_that_are_no_class(tmp_path: Path, categories: list[dict[str, object]], what: str) -> None:
    images, path = write_coco(tmp_path, coco_content() | {"categories": categories})
    data = open_coco(images, path)
    assert data.label_map == LabelMap.of_names(["circle", "square"])
    assert {problem.what for problem in data.problems} == {what}
    assert {problem.effect for problem in data.problems} == {"category skipped"}
    assert not any(problem.is_wrong for problem in data.problems)
    assert len(data.objects(data.entries[0], *SIZE)[0]) == 2
    given = open_coco(images, path, label_map=LabelMap.of_names(["square", "circle"]))
    assert given.problems == []


def test_roboflows_first_category_may_have_the_name_of_a_class(tmp_path: Path) -> None:
    content = coco_content()
    content["categories"] = _categories((9, "circle"), (2, "square"), supercategory="circle")
    content["categories"].append({"id": 0, "name": "circle", "supercategory": "none"})
    images, path = write_coco(tmp_path, content)
    for label_map in (None, LabelMap.of_names(["square", "circle"])):
        data = open_coco(images, path, label_map=label_map)
        assert data.label_map == LabelMap.of_names(["square", "circle"])
        assert data.category_ids == {1: 2, 2: 9}
        assert len(data.objects(data.entries[0], *SIZE)[0]) == 2


@pytest.mark.parametrize(
    "categories",
    [
        [
            {"id": 0, "name": "set", "supercategory": "all"},
            *_categories((2, "circle"), (9, "square"), supercategory="set"),
        ],
        [*ROBOFLOW, *_categories((2, "circle"), supercategory="set"), *_categories((9, "square"))],
        [
            {"id": 1, "name": "set", "supercategory": "none"},
            *_categories((2, "circle"), (9, "square"), supercategory="set"),
        ],
    ],
)
def test_a_category_without_objects_is_a_class(tmp_path: Path, categories: list[dict[str, object]]) -> None:
    data = open_coco(*write_coco(tmp_path, coco_content() | {"categories": categories}))
    assert data.label_map == LabelMap.of_names(["set", "circle", "square"])
    assert data.problems == []


def test_objects_of_a_category_that_is_no_class(tmp_path: Path) -> None:
    content = coco_content()
    content["categories"][0]["name"] = "Background"
    images, path = write_coco(tmp_path, content)
    data = open_coco(images, path)
    found = [data.objects(entry, *SIZE) for entry in data.entries]
    assert sum(len(boxes) for boxes, _ in found) == 3
    problems = [problem for _, problems in found for problem in problems]
    assert [problem.effect for problem in problems] == ["object skipped"] * 3
    assert all("'Background' is the background of the label map" in problem.what for problem in problems)
    content["categories"] = [{"id": 9, "name": "unlabeled"}, {"id": 2, "name": "N/A"}]
    path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"has no category that is a class; the first problem: .*categories\[1\]"):
        open_coco(images, path)


ODD = st.one_of(
    st.sampled_from(
        [None, True, "", "100", "101.0", " 102 ", "x", 100.0, 1e300, float("nan"), -1, 10**30, [], {}, "2", 9.0]
    ),
    st.sampled_from(["a\\p1.jpg", "./a/p2.jpg", "../a/p0.jpg", "C:\\p.jpg", "a/p0.jpg", "a/\ud800.jpg", [1, 2, 3, 4]]),
    st.sampled_from([[1, 2, 3, None], ["1", "2", "3", "4"], [1, 2, -3, 4], [1e300, 1, 1e308, 1], [200, 1, 2, 2]]),
)
PLACES = st.tuples(
    st.sampled_from(["images", "annotations", "categories"]),
    st.integers(0, 5),
    st.sampled_from(["id", "image_id", "category_id", "bbox", "iscrowd", "file_name", "height", "width", "name"]),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(PLACES, ODD), max_size=4))
def test_each_object_is_returned_or_counted(tmp_path: Path, changes: list[tuple[tuple[str, int, str], object]]) -> None:
    content = coco_content()
    for (part, index, key), value in changes:
        content[part][index % len(content[part])][key] = value
    (tmp_path / "images").mkdir(exist_ok=True)
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    try:
        data = open_coco(tmp_path / "images", path)
    except DatasetError:
        return
    boxes, problems = 0, list(data.problems)
    for entry in data.entries:
        try:
            found, wrong = data.objects(entry, *SIZE)
        except DatasetError:  # another size
            objects = [item for item in content["annotations"] if id_key(item["image_id"]) == id_key(entry.id)]
            boxes += len(objects)
            continue
        boxes += len(found)
        problems += wrong
        assert "\\" not in entry.name
    lost = sum(problem.effect == "object skipped" for problem in problems)
    with_images = sum(int(n) for problem in problems for n in re.findall(r"\(with (\d+) objects?\)", problem.what))
    assert boxes + lost + with_images == len(content["annotations"])
    images = sum(problem.effect == "image skipped" for problem in problems)
    assert images + len(data.entries) == len(content["images"])


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
