"""Reading VOC data: what is read, and that each fault is named with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdlite_caffe.coco.label_map import LabelMap, builtin
from ssdlite_caffe.data.annotations import Box, fit_box, relative_path
from ssdlite_caffe.data.voc import open_voc
from ssdlite_caffe.errors import DatasetError
from tests.datasets import NAMES, SIZE, Object, pixels, some_voc, voc_xml, write_voc

GOOD: Object = ("circle", (1, 2, 30, 40), 0)


def test_a_split(tmp_path: Path) -> None:
    data = open_voc([some_voc(tmp_path)], "trainval")
    assert data.label_map == LabelMap.of_names(NAMES)
    assert [entry.id for entry in data.entries] == ["p0", "p1", "p2", "p3", "p4"]
    entry = data.entries[1]
    assert (entry.name, entry.path) == ("JPEGImages/p1.jpg", tmp_path / "JPEGImages" / "p1.jpg")
    assert data.objects(entry, *SIZE) == ([Box(2, 1, 5, 12, 25, True), Box(3, 8, 5, 21, 25, False)], [])
    assert data.objects(data.entries[4], *SIZE) == ([], [])
    assert data.problems == []


def test_two_roots(tmp_path: Path) -> None:
    write_voc(tmp_path / "VOC2007", {"a": [GOOD]})
    write_voc(tmp_path / "VOC2012", {"a": [GOOD], "b": []})
    data = open_voc([tmp_path / "VOC2007", tmp_path / "VOC2012"], "trainval")
    names = ["VOC2007/JPEGImages/a.jpg", "VOC2012/JPEGImages/a.jpg", "VOC2012/JPEGImages/b.jpg"]
    assert [entry.name for entry in data.entries] == names


def test_a_class_list_leaves_out_images_without_it(tmp_path: Path) -> None:
    write_voc(tmp_path, {"a": [GOOD], "b": [GOOD], "c": [GOOD]})
    (tmp_path / "ImageSets" / "Main" / "circle_train.txt").write_text("a  1\nb -1\nc  0\n")
    assert [entry.id for entry in open_voc([tmp_path], "circle_train").entries] == ["a", "c"]


def test_a_class_list_says_how_many_lines_it_skips(tmp_path: Path) -> None:
    write_voc(tmp_path, {"a": [GOOD], "b": [GOOD]})
    path = tmp_path / "ImageSets" / "Main" / "circle_train.txt"
    path.write_text("a  1\nb -1\nelsewhere -1\n")
    data = open_voc([tmp_path], "circle_train")
    assert data.problems == [(str(path), "2 of 3 lines end in -1: images without the class", "lines skipped")]
    assert not data.problems[0].is_wrong
    path.write_text("a\nb -1\n")
    data = open_voc([tmp_path], "circle_train")
    assert [problem.what for problem in data.problems] == [
        "'b -1' is marked -1, as in the list of a class, but other lines have no mark"
    ]
    assert data.problems[0].is_wrong


NAMES_WITH_SPACES = ["photo 0", "photo 1", "shot -1", "a", "b c 1"]


def test_a_line_that_is_an_image_is_no_name_and_flag(tmp_path: Path) -> None:
    write_voc(tmp_path, {name: [GOOD] for name in [*NAMES_WITH_SPACES, "photo"]})
    split = tmp_path / "ImageSets" / "Main" / "trainval.txt"
    split.write_text("\r\n".join(f"{name} \t" for name in [*NAMES_WITH_SPACES, "photo 7", "gone -1"]))
    data = open_voc([tmp_path], "trainval")
    assert [entry.id for entry in data.entries] == NAMES_WITH_SPACES
    assert [problem.where for problem in data.problems] == [f"{split}:6", f"{split}:7"]
    assert [problem.what.split(" has ")[1] for problem in data.problems] == [
        "no image 'photo 7'", "no image 'gone -1'",
    ]  # fmt: skip
    (tmp_path / "ImageSets" / "Main" / "circle_train.txt").write_text("b c 1  1\nphoto\t0\nphoto 0 -1\n")
    data = open_voc([tmp_path], "circle_train")
    assert [entry.id for entry in data.entries] == ["b c 1", "photo"]
    assert [problem.effect for problem in data.problems] == ["lines skipped"]


@pytest.mark.parametrize(
    "line", ["a.b.jpg", "a.b", "a.b.xml", "a.b.JPG", "JPEGImages/a.b.jpg", "JPEGImages\\a.b.jpg", "./a.b", "a.b.jpg  1"]
)
def test_a_line_may_have_suffix_and_folder(tmp_path: Path, line: str) -> None:
    write_voc(tmp_path, {"a.b": [GOOD], "a": [GOOD]})
    (tmp_path / "ImageSets" / "Main" / "trainval.txt").write_text(f"{line}\n")
    data = open_voc([tmp_path], "trainval")
    assert data.problems == []
    assert [(entry.id, entry.name) for entry in data.entries] == [("a.b", "JPEGImages/a.b.jpg")]


def test_a_suffix_says_which_of_two_images(tmp_path: Path) -> None:
    write_voc(tmp_path, {"a": [GOOD]})
    (tmp_path / "JPEGImages" / "a.PNG").write_bytes(b"")
    split = tmp_path / "ImageSets" / "Main" / "trainval.txt"
    split.write_text("a.jpg\n")
    assert [entry.name for entry in open_voc([tmp_path], "trainval").entries] == ["JPEGImages/a.jpg"]
    split.write_text("a\n")
    with pytest.raises(DatasetError, match=r"'a' is ambiguous: a\.PNG, a\.jpg; give the suffix too"):
        open_voc([tmp_path], "trainval")


def test_a_list_of_pairs_with_spaces_and_backslashes(tmp_path: Path) -> None:
    write_voc(tmp_path, {"photo 1": [GOOD], "b": [GOOD]})
    listed = tmp_path / "list.txt"
    listed.write_text(
        "JPEGImages/photo 1.jpg Annotations/photo 1.xml\nJPEGImages\\b.jpg\t./Annotations\\b.xml\n"
        "JPEGImages/photo 2.jpg Annotations/photo 2.xml\n"
    )
    data = open_voc([tmp_path], list_file=listed)
    assert [(entry.id, entry.name) for entry in data.entries] == [
        ("photo 1", "JPEGImages/photo 1.jpg"), ("b", "JPEGImages/b.jpg"),
    ]  # fmt: skip
    assert [problem.where for problem in data.problems] == [f"{listed}:3"]
    assert "which is no pair of files below" in data.problems[0].what


def test_a_list_of_pairs(tmp_path: Path) -> None:
    some_voc(tmp_path)
    listed = tmp_path / "list.txt"
    listed.write_text(
        "JPEGImages/p3.jpg Annotations/p3.xml\nJPEGImages/p1.jpg\tAnnotations/p0.xml\n../x.jpg Annotations/p0.xml\n"
        "one\n/etc/passwd Annotations/p0.xml\nJPEGImages/p3.jpg Annotations/p3.xml\n"
        "JPEGImages/no.jpg Annotations/p0.xml\n"
    )
    data = open_voc([tmp_path], list_file=listed)
    assert [(entry.id, Path(str(entry.annotations)).stem) for entry in data.entries] == [("p3", "p3"), ("p1", "p0")]
    assert [problem.where for problem in data.problems] == [f"{listed}:{line}" for line in (3, 4, 5, 6, 7)]
    whats = ["not inside", "must be IMAGE ANNOTATION, got", "not inside", "is listed twice", "is missing"]
    assert all(what in problem.what for what, problem in zip(whats, data.problems, strict=True))


def test_names_that_give_no_image(tmp_path: Path) -> None:
    write_voc(tmp_path, {"a": [GOOD], "b": [GOOD], "c": [GOOD]})
    (tmp_path / "JPEGImages" / "b.PNG").write_bytes(b"")
    (tmp_path / "Annotations" / "c.xml").unlink()
    split = tmp_path / "ImageSets" / "Main" / "trainval.txt"
    split.write_text("a\nb\nc\nd\n\n../Annotations/a\na\n")
    data = open_voc([tmp_path], "trainval")
    assert [entry.id for entry in data.entries] == ["a"]
    assert [problem.where for problem in data.problems] == [f"{split}:{line}" for line in (2, 3, 4, 6, 7)]
    whats = ["is ambiguous: b.PNG, b.jpg", "c.xml is missing", "no image 'd'", "is not a file name", "listed twice"]
    assert all(what in problem.what for what, problem in zip(whats, data.problems, strict=True))


@pytest.mark.parametrize(
    ("change", "line", "what"),
    [
        ({"<name>circle</name>": "<name>cirle</name>"}, 7, "'cirle' is not in the label map (did you mean 'circle'?)"),
        ({"<name>circle</name>": "<name>background</name>"}, 7, "'background' is the background"),
        ({"<name>circle</name>": ""}, 7, "object without name"),
        ({"<xmax>30</xmax>": ""}, 7, "object without xmax"),
        ({"<xmax>30</xmax>": "<xmax/>"}, 7, "object without xmax"),
        ({"<xmax>30</xmax>": "<xmax>3 0</xmax>"}, 7, "xmax must be a number, got '3 0'"),
        ({"<xmax>30</xmax>": "<xmax>nan</xmax>"}, 7, "xmax must be a number, got 'nan'"),
        ({"<xmax>30</xmax>": "<xmax>1e999</xmax>"}, 7, "has NaN or Inf"),
        ({"<xmax>30</xmax>": "<xmax>1_0</xmax>"}, 7, "xmax must be a number, got '1_0'"),
        ({"<xmax>30</xmax>": "<xmax>\u0663</xmax>"}, 7, r"xmax must be a number, got '\u0663'"),
        ({"<xmax>30</xmax>": "<xmax>0.5</xmax>"}, 7, "box (1, 2, 0.5, 40) is reversed"),
        ({"<ymax>40</ymax>": "<ymax>2</ymax>"}, 7, "box (1, 2, 30, 2) is empty"),
        ({"<xmin>1<": "<xmin>81<", "<xmax>30<": "<xmax>90<"}, 7, "is outside the image of 80x48"),
        ({"<xmax>30</xmax>": "<xmax>30</xmax><xmax>31</xmax>"}, 7, "object with two 'xmax'"),
        ({"</bndbox>": "</bndbox><bndbox/>"}, 7, "object with two 'bndbox'"),
        ({"<name>circle</name>": "<name>_Background_</name>"}, 7, "'_Background_' is the background"),
        ({"<bndbox>": "<polygon>", "</bndbox>": "</polygon>"}, 7, "object without bndbox, but with polygon"),
    ],
)
def test_objects_left_out(tmp_path: Path, change: dict[str, str], line: int, what: str) -> None:
    write_voc(tmp_path, {"a": [GOOD, ("circle", (5, 6, 7, 8), 1)]})
    path = tmp_path / "Annotations" / "a.xml"
    text = path.read_text()
    for old, new in change.items():
        assert old in text
        text = text.replace(old, new, 1)
    path.write_text(text)
    data = open_voc([tmp_path], "trainval", label_map=LabelMap.of_names(NAMES))
    boxes, problems = data.objects(data.entries[0], *SIZE)
    assert boxes == [Box(1, 5, 6, 7, 8, True)]
    assert [(p.where, p.effect) for p in problems] == [(f"{path}:{line}", "object skipped")]
    assert what in problems[0].what


@pytest.mark.parametrize("text", ["0", "", "Unspecified", "False", "2", "True", "maybe"])
def test_only_1_is_difficult_as_for_convert_annoset(tmp_path: Path, text: str) -> None:
    write_voc(tmp_path, {"a": [("circle", (5, 6, 7, 8), 1), GOOD]})
    path = tmp_path / "Annotations" / "a.xml"
    path.write_text(path.read_text().replace("<difficult>0", f"<difficult>{text}"))
    data = open_voc([tmp_path], "trainval")
    boxes, problems = data.objects(data.entries[0], *SIZE)
    assert [box.difficult for box in boxes] == [True, False]
    named = [(f"{path}:17", f"difficult must be 0 or 1, got {text!r}", "flag taken as 0")]
    assert problems == (named if text in ("2", "True", "maybe") else [])


def test_objects_of_no_class_give_none(tmp_path: Path) -> None:
    names = ["dog", "Background", "N/A", "__background__", "UNLABELED", "cat"]
    write_voc(tmp_path, {"a": [(name, (1, 2, 30, 40), 0) for name in names]})
    data = open_voc([tmp_path], "trainval")
    assert data.label_map == LabelMap.of_names(["cat", "dog"])
    boxes, problems = data.objects(data.entries[0], *SIZE)
    assert [box.label for box in boxes] == [2, 1]
    assert [problem.what.split("'")[1] for problem in problems] == names[1:5]


def test_parts_of_an_object_are_no_objects(tmp_path: Path) -> None:
    write_voc(tmp_path, {"a": [GOOD]})
    path = tmp_path / "Annotations" / "a.xml"
    part = "<part><name>head</name><bndbox><xmin>0</xmin><xmax>9</xmax></bndbox></part>"
    path.write_text(path.read_text().replace("</object>", part + "</object>"))
    data = open_voc([tmp_path], "trainval")
    assert data.label_map.display_names == ("background", "circle")
    assert data.objects(data.entries[0], *SIZE) == ([Box(1, 1, 2, 30, 40, False)], [])


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("", 1, "not valid XML"),
        ("<annotation>\n<object>\n", 3, "not valid XML"),
        ("<annotation>\n</object></annotation>", 2, "not valid XML: mismatched tag"),
        ("<html/>", 1, "the root element must be 'annotation', got 'html'"),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', 1, "not valid XML"),
        (
            '\n<!DOCTYPE annotation [<!ENTITY a "b">]><annotation>&a;</annotation>',
            2,
            "DOCTYPE declarations are not allowed",
        ),
        ('<!DOCTYPE annotation SYSTEM "file:///etc/passwd"><annotation/>', 1, "DOCTYPE declarations are not allowed"),
        ("<annotation>\n&undefined;</annotation>", 2, "not valid XML: undefined entity"),
        (
            voc_xml([GOOD], (80, 48)),
            None,
            "annotated as 48x80, but the image is 80x48 (width x height) (rotated by its EXIF",
        ),
        (voc_xml([GOOD], (50, 50)), None, "annotated as 50x50, but the image is 80x48"),
    ],
)
def test_annotations_that_cannot_be_used(tmp_path: Path, text: str, line: int | None, what: str) -> None:
    write_voc(tmp_path, {"a": [GOOD]})
    path = tmp_path / "Annotations" / "a.xml"
    path.write_text(text)
    data = open_voc([tmp_path], "trainval", label_map=builtin("voc"))
    with pytest.raises(DatasetError) as caught:
        data.objects(data.entries[0], *SIZE)
    assert str(caught.value).startswith(f"{path}:{'' if line is None else f'{line}: '}")
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_size_of_zero_or_none_is_the_images(tmp_path: Path) -> None:
    write_voc(tmp_path, {"a": [GOOD], "b": [GOOD]})
    (tmp_path / "Annotations" / "a.xml").write_text(voc_xml([GOOD], (0, 0)))
    (tmp_path / "Annotations" / "b.xml").write_text(voc_xml([GOOD], None))
    data = open_voc([tmp_path], "trainval")
    assert all(data.objects(entry, 60, 90) == ([Box(1, 1, 2, 30, 40, False)], []) for entry in data.entries)


@pytest.mark.parametrize(
    ("split", "what"),
    [("none", "has no split 'none'; it has: trainval"), ("../../x", "has no split"), ("", "has no split")],
)
def test_no_such_split(tmp_path: Path, split: str, what: str) -> None:
    some_voc(tmp_path)
    with pytest.raises(DatasetError, match=what):
        open_voc([tmp_path], split)


def test_a_folder_of_another_layout(tmp_path: Path) -> None:
    some_voc(tmp_path / "VOC2007")
    with pytest.raises(DatasetError, match=r"has no folder JPEGImages; did you mean .*VOC2007\?"):
        open_voc([tmp_path], "trainval")
    with pytest.raises(DatasetError, match="VOC data has JPEGImages"):
        open_voc([tmp_path / "nowhere"], "trainval")


def test_nothing_to_name_classes_by(tmp_path: Path) -> None:
    write_voc(tmp_path, {"a": [], "b": [("", (1, 2, 3, 4), 0), ("background", (1, 2, 3, 4), 0)]})
    with pytest.raises(DatasetError, match=r"no class name found in 2 annotations"):
        open_voc([tmp_path], "trainval")
    for path in (tmp_path / "Annotations").iterdir():
        path.write_text('<!DOCTYPE annotation [<!ENTITY a "a">]><annotation/>')
    with pytest.raises(
        DatasetError, match=r"no class name found in 2 annotations; the first problem: .*a\.xml:1: DOCTYPE"
    ):
        open_voc([tmp_path], "trainval")


def test_a_split_without_one_good_name(tmp_path: Path) -> None:
    write_voc(tmp_path, {"a": []})
    (tmp_path / "ImageSets" / "Main" / "val.txt").write_text("b\n")
    with pytest.raises(DatasetError, match=r"lists no image that can be used: .*val.txt:1: .* has no image 'b'"):
        open_voc([tmp_path], "val")
    (tmp_path / "ImageSets" / "Main" / "val.txt").write_bytes(b"a\n\xff\n")
    with pytest.raises(DatasetError, match=r"val\.txt:2: not UTF-8"):
        open_voc([tmp_path], "val")


sides = st.floats(-200, 300, allow_nan=False)


@given(sides, sides, sides, sides, st.integers(1, 200), st.integers(1, 200))
def test_a_box_is_refused_or_lies_inside(
    xmin: float, ymin: float, xmax: float, ymax: float, height: int, width: int
) -> None:
    box, what = fit_box((xmin, ymin, xmax, ymax), height, width)
    if box is None:
        inside = min(xmax, width) > max(xmin, 0) and min(ymax, height) > max(ymin, 0)
        assert what
        assert not inside
        return
    assert 0 <= box[0] < box[2] <= width
    assert 0 <= box[1] < box[3] <= height
    assert box == (max(xmin, 0), max(ymin, 0), min(xmax, width), min(ymax, height))
    assert bool(what) == (max(-xmin, -ymin, xmax - width, ymax - height) > 1)


@pytest.mark.parametrize(("over", "told"), [(0, False), (1, False), (1.01, True)])
def test_a_pixel_past_an_edge_is_not_told(over: float, told: bool) -> None:
    boxes = [(-over, 2, 9, 8), (1, -over, 9, 8), (1, 2, 20 + over, 8), (1, 2, 9, 10 + over)]
    assert [bool(fit_box(box, 10, 20)[1]) for box in boxes] == [told] * 4


@given(st.text(alphabet="ab./\\:\x00\n", max_size=8))
def test_a_relative_path_stays_below(text: str) -> None:
    found = relative_path(text)
    if found is not None:
        assert relative_path(found) == found
        assert (Path("/root") / found).resolve().is_relative_to("/root")
        assert len(Path("/root", found).parts) > 2
    else:
        assert not text or set(text) & set("./\\:\x00\n")


def test_images_differ() -> None:
    assert (pixels(0) != pixels(1)).any()
