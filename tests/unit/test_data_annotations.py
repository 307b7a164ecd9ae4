"""What the readers of Pascal VOC and COCO data check alike: boxes, sizes, paths and class names."""

from __future__ import annotations

import math

import pytest

from ssdlite_caffe.coco.label_map import LabelMap
from ssdlite_caffe.data.annotations import (
    ClassIds,
    Corners,
    Problem,
    check_size,
    count_text,
    fit_box,
    is_set,
    outside_text,
    reasons,
    relative_path,
)
from ssdlite_caffe.errors import DatasetError

HEIGHT, WIDTH = 100, 200


@pytest.mark.parametrize(
    ("corners", "fitted", "says"),
    [
        ((10, 20, 30, 40), (10, 20, 30, 40), ""),
        ((0, 0, 200, 100), (0, 0, 200, 100), ""),
        ((-1, 20, 30, 101), (0, 20, 30, 100), ""),
        ((10, -1, 201, 40), (10, 0, 200, 40), ""),
        ((-1.01, 20, 30, 40), (0, 20, 30, 40), "extends beyond the image of 200x100"),
        ((10, 20, 30, 101.01), (10, 20, 30, 100), "extends beyond the image"),
        ((150, 20, 300, 40), (150, 20, 200, 40), "extends beyond the image"),
        ((200, 20, 210, 40), None, "is outside the image of 200x100"),
        ((10, 100, 20, 110), None, "is outside"),
        ((-10, 20, 0, 40), None, "is outside"),
        ((10, -10, 20, 0), None, "is outside"),
        ((30, 20, 10, 40), None, "reversed"),
        ((10, 40, 30, 20), None, "reversed"),
        ((10, 20, 10, 40), None, "empty"),
        ((10, 20, 30, 20), None, "empty"),
        ((10, 20, math.nan, 40), None, "has NaN or Inf"),
        ((10, 20, 30, math.inf), None, "has NaN or Inf"),
    ],
)
def test_a_box_against_its_image(corners: Corners, fitted: Corners | None, says: str) -> None:
    found, said = fit_box(corners, HEIGHT, WIDTH)
    assert found == fitted
    assert (says in said) if says else not said


def test_a_size_that_is_another() -> None:
    check_size("a.xml", (HEIGHT, WIDTH), HEIGHT, WIDTH)
    check_size("a.xml", (0, 0), HEIGHT, WIDTH)
    with pytest.raises(DatasetError, match=r"annotated as 50x100, but the image is 200x100 \(width x height\)$"):
        check_size("a.xml", (100, 50), HEIGHT, WIDTH)
    with pytest.raises(DatasetError, match="EXIF"):
        check_size("a.xml", (WIDTH, HEIGHT), HEIGHT, WIDTH)


@pytest.mark.parametrize("text", ["a.jpg", "deep/er/a.jpg", ".hidden/a b.jpg", "a..b.jpg"])
def test_paths_below_a_folder(text: str) -> None:
    assert relative_path(text) == text


@pytest.mark.parametrize(
    "text", ["deep/a.jpg", "deep\\a.jpg", "./deep/a.jpg", "deep//a.jpg", ".\\deep\\.\\a.jpg", ".//deep/a.jpg"]
)
def test_one_path_written_in_many_ways(text: str) -> None:
    assert relative_path(text) == "deep/a.jpg"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", ""),
        (".", ""),
        ("./", ""),
        ("a/", ""),
        ("a\nb", ""),
        ("..", ": it has '..'"),
        ("../a.jpg", ": it has '..'"),
        ("..\\a.jpg", ": it has '..'"),
        ("a/../b.jpg", ": it has '..'"),
        ("/a.jpg", ": it is absolute"),
        ("\\\\host\\a.jpg", ": it is absolute"),
        ("c:/a.jpg", ": it is absolute"),
        ("C:\\a.jpg", ": it is absolute"),
        ("./c:/a.jpg", ""),
    ],
)
def test_paths_that_lead_elsewhere(text: str, why: str) -> None:
    assert relative_path(text) is None
    assert outside_text(text) == why


@pytest.mark.parametrize("value", [1, 1.0, True, "1", " 1 "])
def test_a_flag_that_is_set(value: object) -> None:
    assert is_set("difficult", value) == (True, "")


@pytest.mark.parametrize("value", [None, 0, 0.0, False, "", "0", "False", "false", "Unspecified", "None", "0.0", "N/A"])
def test_a_flag_that_is_not_set(value: object) -> None:
    assert is_set("difficult", value) == (False, "")


@pytest.mark.parametrize("value", [2, -1, 0.5, "2", "True", "yes", "maybe", [1], {}])
def test_a_flag_that_says_neither_is_not_set_but_named(value: object) -> None:
    found, what = is_set("difficult", value)
    assert not found
    assert what == f"difficult must be 0 or 1, got {value!r}"


def test_problems_are_counted_by_what_was_done_and_why() -> None:
    problems = [Problem("a", f"box (1, {i}, 1.5, 2e-05) is empty", "object skipped") for i in range(3)]
    problems += [Problem("b", "'cat' is not in the label map", "object skipped"), Problem("c", "gone", "image skipped")]
    problems += [Problem("d", "3 of 4 lines end in -1", "lines skipped")]
    assert count_text(problems) == "1 image skipped, 4 objects skipped"
    assert count_text(problems[-1:]) == ""
    assert reasons(problems, 2) == [
        "3 times box (N, N, N, N) is empty; object skipped",
        "1 times 'cat' is not in the label map; object skipped",
    ]
    assert [problem.is_wrong for problem in problems] == [True] * 5 + [False]


def test_ids_of_class_names() -> None:
    ids = ClassIds(LabelMap.of_names(["aeroplane", "bicycle"]))
    for _ in range(2):
        assert ids.find("bicycle") == (2, "")
        row, said = ids.find("bicycel")
        assert row is None
        assert "not in the label map (did you mean 'bicycle'?)" in said
        row, said = ids.find("background")
        assert row is None
        assert "is the background of the label map" in said
        assert ids.find("BACKGROUND") == (None, said.replace("background' is", "BACKGROUND' is"))
        assert ids.find("N/A") == (None, "'N/A' is the name of no class")
