from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdlite_caffe.coco.label_map import (
    BACKGROUND,
    Label,
    LabelMap,
    builtin,
    check_classes,
    load_label_map,
    numbered,
    parse_label_map,
)
from ssdlite_caffe.coco.no_class import is_background
from ssdlite_caffe.errors import LabelMapError

GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=12).filter(
    lambda name: not is_background(name)
)
CAFFE_BACKGROUND = 'item { name: "none_of_the_above" label: 0 display_name: "background" }\n'


def test_coco_keeps_the_ids_of_the_annotations() -> None:
    coco = builtin("coco")
    assert len(coco) == 91
    assert {e.id for e in coco.entries if e.display_name.startswith("unused_")} == GAPS
    assert all(e.name == str(e.id) for e in coco.entries[1:])
    known = {
        0: "background",
        1: "person",
        13: "stop sign",
        44: "bottle",
        67: "dining table",
        72: "tv",
        90: "toothbrush",
    }
    assert {row: coco.entries[row].display_name for row in known} == known


def test_voc_is_alphabetical_after_background() -> None:
    names = builtin("voc").display_names
    assert len(names) == 21
    assert names[0] == "background"
    assert list(names[1:]) == sorted(names[1:])
    assert builtin("voc").entries[0] == BACKGROUND


@given(st.lists(st.tuples(NAMES, NAMES), unique_by=lambda pair: pair[0], max_size=8))
def test_a_written_map_reads_back(pairs: list[tuple[str, str]]) -> None:
    label_map = LabelMap((BACKGROUND, *(Label(i, name, shown) for i, (name, shown) in enumerate(pairs, 1))))
    assert parse_label_map(label_map.to_prototxt(), "x.prototxt") == label_map


def test_entries_are_put_in_the_order_of_their_ids() -> None:
    text = 'item { name: "b" label: 2 }\n' + CAFFE_BACKGROUND + 'item { name: "a" label: 1 display_name: "A" }'
    assert parse_label_map(text, "x") == LabelMap((BACKGROUND, Label(1, "a", "A"), Label(2, "b", "b")))


def test_od_api_map_gets_background_and_rows_for_unused_ids() -> None:
    text = """
    item: { id: 3, name: '/m/0c', display_name: 'car', frequency: FREQUENT
            keypoints { id: 1 label: "wheel" } }
    item { name: "/m/01" id: 1 }  # label: none
    """
    label_map = parse_label_map(text, "x.pbtxt")
    assert label_map.entries == (
        BACKGROUND, Label(1, "/m/01", "/m/01"), Label(2, "unused_2", "unused_2"), Label(3, "/m/0c", "car"),
    )  # fmt: skip


def test_od_api_map_may_hold_background() -> None:
    text = "item { id: 0 name: 'background' } item { id: 1 display_name: 'x' }"
    assert parse_label_map(text, "x").entries == (Label(0, "background", "background"), Label(1, "x", "x"))


@pytest.mark.parametrize(
    "first",
    [
        "", "background\n", "???\n", "none_of_the_above\r\n", "BACKGROUND\n", "Background \r\n", "__background__\n",
        "_background_\n", "unlabeled\n", "N/A\n", "__ignore__\n", "__ignore__\n_background_\n",
    ],
)  # fmt: skip
def test_plain_text_with_and_without_background(first: str) -> None:
    label_map = parse_label_map(f"{first}cat\n???\nguide dog \n\n", "names.txt")
    assert label_map.display_names == ("background", "cat", "unused_2", "guide dog")


@pytest.mark.parametrize("name", ["none_of_the_above", "BACKGROUND", "__background__", "_background_", "Unlabeled"])
def test_each_of_backgrounds_names_in_an_item(name: str) -> None:
    for key, file in (("id", "x.pbtxt"), ("label", "x.prototxt")):
        label_map = parse_label_map(f"item {{ {key}: 0 name: '{name}' }} item {{ {key}: 1 name: 'x' }}", file)
        assert label_map.entries == (Label(0, name, name), Label(1, "x", "x"))
        assert label_map.find("background") == 0
        with pytest.raises(LabelMapError, match=f"id 1 is '{name}', but background always has id 0; remove it"):
            parse_label_map(f"item {{ {key}: 0 name: 'background' }} item {{ {key}: 1 name: '{name}' }}", file)


@pytest.mark.parametrize("name", ["background_noise", "my background", "unlabeled car", "backgrounds"])
def test_names_with_background_in_them_are_classes(name: str) -> None:
    assert parse_label_map(f"{name}\nx\n", "x.txt").display_names == ("background", name, "x")


def test_rows_of_a_placeholder_are_unused() -> None:
    text = "".join(f'item {{ name: "N/A" label: {i} display_name: "N/A" }}\n' for i in (2, 3))
    text = CAFFE_BACKGROUND + 'item { name: "person" label: 1 }\n' + text
    expected = (BACKGROUND, Label(1, "person", "person"), *(Label(i, f"unused_{i}", f"unused_{i}") for i in (2, 3)))
    assert parse_label_map(text, "x.prototxt").entries == expected
    assert parse_label_map("item { id: 1 name: 'person' } item { id: 3 name: 'n/a' }", "x.pbtxt").entries == expected
    for word in ("N/A", "???", "none", "-", "Unused"):
        assert parse_label_map(f"person\n{word}\n{word}\n", "x.txt").entries == expected


def test_a_display_name_alone_may_be_a_placeholder() -> None:
    items = [f'item {{ name: "{i}" label: {i} display_name: "{shown}" }}' for i, shown in ((1, "cat"), (2, "N/A"))]
    label_map = parse_label_map(CAFFE_BACKGROUND + "\n".join(items), "x.prototxt")
    assert label_map.entries == (BACKGROUND, Label(1, "1", "cat"), Label(2, "2", "unused_2"))


def test_a_word_that_is_given_once_is_a_class() -> None:
    assert parse_label_map("none\n-\nunknown\n", "x.txt").display_names == ("background", "none", "-", "unknown")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "cat\nbackground\ndog", "a.txt:2: 'background' is background, which always has id 0"),
        ("a.txt", "cat\ndog\n__BACKGROUND__", "a.txt:3: '__BACKGROUND__' is background, which always has id 0"),
        ("a.txt", "background\nBackground\ncat", "a.txt:2: 'Background' is background"),
        ("a.txt", "0 background\n1 cat", "a.txt:1: '0 background' is background with a number; write names alone"),
        ("a.txt", "0: _background_\n1: cat", "a.txt:1: '0: _background_' is background with a number"),
        ("a.pbtxt", "item { id: 0 name: 'N/A' display_name: 'cat' }", "id 0 is 'N/A'; it must be background"),
        ("a.pbtxt", "item { id: 1 name: '7' display_name: 'Background' }", "id 1 is 'Background', but background"),
        ("a.prototxt", CAFFE_BACKGROUND + 'item { name: "a" label: 0 }', "a.prototxt: id 0 is given twice"),
        ("a.pbtxt", "item { id: 1 name: 'a' } item { id: 1 name: 'b' }", "a.pbtxt: id 1 is given twice: 'a' and 'b'"),
        ("a.pbtxt", "item { id: 1 name: 'a' } item { id: 4 name: 'a' }", "name 'a' is given twice: ids 1 and 4"),
        ("a.prototxt", CAFFE_BACKGROUND + 'item { name: "a" label: 2 }', "id 1 is missing"),
        ("a.prototxt", 'item { name: "a" label: 1 }', "id 0 (background) is missing"),
        ("a.prototxt", 'item { name: "a" label: 0 }', "id 0 is 'a'; it must be background"),
        ("a.prototxt", CAFFE_BACKGROUND + '\nitem { name "a" label: 1 }', "a.prototxt:3:13: "),
        (
            "a.prototxt",
            CAFFE_BACKGROUND + 'item { nam: "a" label: 1 }',
            "a.prototxt:2:8: LabelMapItem has no field 'nam'",
        ),
        ("a.prototxt", CAFFE_BACKGROUND + 'item { name: "a" }', "item 2 ('a') has no label"),
        ("a.pbtxt", "item { name: 'a' }", "item 1 ('a') has no id"),
        ("a.pbtxt", "item {\n id: 1\n name: 'a' ]", "a.pbtxt:3:"),
        ("a.pbtxt", "item { id: 2000000000 name: 'a' }", "has id 2000000000, outside 0..65536"),
        ("a.pbtxt", "item { id: -1 name: 'a' }", "has id -1, outside"),
        ("a.pbtxt", "item { id: 1 }", "'' is not a class name"),
        ("a.pbtxt", "item { id: 1 name: 'a\\nb' }", "is not a class name"),
        ("a.txt", "a\x85b", "'a\\x85b' is not a class name"),
        ("a.txt", "a\u2028b", "'a\\u2028b' is not a class name"),
        ("a.txt", "a\u2029b", "'a\\u2029b' is not a class name"),
        ("a.pbtxt", "items { }", "holds no item"),
        ("a.pbtxt", "item { id: 1 name: 'a' x " + "{" * 5000, "a.pbtxt:1:"),
        ("a.txt", "", "a.txt:1: empty line"),
        ("a.txt", "a\n\nb", "a.txt:2: empty line"),
        ("a.txt", "a\nb\na", "name 'a' is given twice: ids 1 and 3"),
        ("a.txt", "a\n<html>", "a.txt:2: '<html>' is not a class name"),
    ],
)
def test_a_wrong_file_is_one_line(name: str, text: str, message: str) -> None:
    with pytest.raises(LabelMapError) as error:
        parse_label_map(text, name)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary.txt").write_bytes(b"a\n\xff\n")
    (tmp_path / "zeros.txt").write_bytes(b"a\n\0\n")
    (tmp_path / "large.txt").write_bytes(b"a\n" * (1 << 19) + b"b")
    for name, message in {
        "binary.txt": "binary.txt:2: not UTF-8",
        "zeros.txt": "not a text file",
        "large.txt": "larger than 1 MiB",
        "absent.txt": "cannot read",
        "": "cannot read",
    }.items():
        with pytest.raises(LabelMapError, match=message):
            load_label_map(tmp_path / name)


def test_load_takes_names_and_paths(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("\ufeffcat\ndög\n", "utf-8")
    assert load_label_map(path).display_names == ("background", "cat", "dög")
    assert load_label_map("voc") is builtin("voc")
    with pytest.raises(LabelMapError, match=r"neither a file nor a built-in label map \(coco, voc\)"):
        load_label_map("cocoa")
    with pytest.raises(LabelMapError, match="no built-in label map"):
        builtin("cocoa")


def test_classes_have_to_fit_the_model() -> None:
    assert numbered(3).display_names == ("background", "class_1", "class_2")
    check_classes(builtin("coco"), 91)
    with pytest.raises(LabelMapError, match="has 91 classes but the model has 90"):
        check_classes(builtin("coco"), 90)


def test_find_by_name_then_by_display_name() -> None:
    label_map = LabelMap((BACKGROUND, Label(1, "a", "b"), Label(2, "b", "c"), Label(3, "d", "c")))
    assert [label_map.find(name) for name in ("a", "b", "d", "e", "background")] == [1, 2, 3, None, 0]
    with pytest.raises(LabelMapError, match="'c' is the display name of 2 classes; give one of their names: 'b', 'd'"):
        label_map.find("c")
    assert builtin("coco").nearest("Persn") == "person"
    assert builtin("coco").nearest("zzzz") is None


def test_a_field_given_twice_is_read_as_by_the_program_that_the_file_is_for() -> None:
    """The OD API takes the last one (text_format.Merge); Caffe refuses the file."""
    api = parse_label_map("item { id: 2 id: 1 name: 'first' name: 'cat' }", "map.pbtxt")
    assert api.display_names == ("background", "cat")
    caffe = 'item { name: "none_of_the_above" label: 0 } item { name: "a" label: 1 label: 2 }'
    with pytest.raises(LabelMapError, match='should not have multiple "label" fields'):
        parse_label_map(caffe, "map.prototxt")
