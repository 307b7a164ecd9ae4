"""Which classes of a model are those that it is to be trained for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdlite_caffe.coco.label_map import BACKGROUND, Label, LabelMap, builtin, numbered
from ssdlite_caffe.coco.same_classes import match_classes

SHAPES, CELLS = LabelMap.of_names(("circle", "square", "triangle")), LabelMap.of_names(("Platelets", "RBC", "WBC"))


def with_ids(*pairs: tuple[str, str]) -> LabelMap:
    """A label map of keys and display names."""
    return LabelMap((BACKGROUND, *(Label(i, name, shown) for i, (name, shown) in enumerate(pairs, 1))))


def test_other_classes_of_the_same_number() -> None:
    match = match_classes(SHAPES, CELLS)
    assert (match.same, match.moved, match.remarks("m")) == (False, None, [])
    assert match.difference("m") == "m has no 'Platelets', 'RBC', 'WBC', but 'circle', 'square', 'triangle'"


@given(st.permutations(range(1, 8)))
def test_another_order(order: list[int]) -> None:
    names = [f"name {n}" for n in range(8)]
    match = match_classes(LabelMap.of_names(names[1:]), LabelMap.of_names(names[n] for n in order))
    assert match.rows == (0, *order)
    assert match.same
    assert match.moved == (None if order == sorted(order) else (0, *order))
    assert bool(match.remarks("m")) == (match.moved is not None)


@pytest.mark.parametrize(
    "names", [("rbc", "wbc", "PLATELETS"), (" RBC", "W-BC", "plate_lets"), ("\uff32\uff22\uff23", "WBC", "Platelets")]
)
def test_names_written_otherwise(names: tuple[str, ...]) -> None:
    match = match_classes(LabelMap.of_names(names), CELLS)
    assert match.moved == (0, 3, 1, 2)
    assert f"2 is 'RBC', was {names[0]!r}" in match.remarks("m")[0]


def test_names_that_differ_in_capitals_alone_are_two_classes() -> None:
    both = LabelMap.of_names(("A", "a", "b"))
    assert match_classes(both, both).moved is None
    assert match_classes(both, LabelMap.of_names(("a", "A", "b"))).moved == (0, 2, 1, 3)
    assert match_classes(both, LabelMap.of_names(("a ", "A ", "b"))).rows == (0, None, None, 3)
    assert match_classes(LabelMap.of_names(("a ", "c", "b")), both).rows == (0, None, None, 3)


def test_keys_and_display_names() -> None:
    ids = with_ids(("/m/1", "circle"), ("/m/2", "square"), ("/m/3", "triangle"))
    assert match_classes(ids, SHAPES).moved is match_classes(SHAPES, ids).moved is None
    assert match_classes(ids, SHAPES).same
    plain = with_ids(("/m/1", "/m/1"), ("/m/2", "/m/2"), ("/m/3", "/m/3"))
    assert match_classes(plain, ids).same
    # the same keys for other things, as numbers are
    assert match_classes(with_ids(("1", "cat")), with_ids(("1", "dog"))).rows == (0, None)
    # display names given twice
    twice = with_ids(("/m/1", "box"), ("/m/2", "box"))
    assert match_classes(twice, twice).moved is None
    assert match_classes(twice, twice).same
    assert match_classes(twice, with_ids(("/m/2", "box"), ("/m/1", "box"))).moved == (0, 2, 1)
    assert match_classes(twice, with_ids(("x", "box"), ("y", "ball"))).rows == (0, 1, None)
    assert match_classes(twice, with_ids(("x", "ball"), ("y", "car"), ("z", "box"))).rows == (0, None, None, None)


def test_subsets_supersets_and_no_names() -> None:
    fewer = LabelMap.of_names(("square",))
    assert match_classes(SHAPES, fewer).difference("m") == "m also has 'circle', 'triangle'"
    assert match_classes(fewer, SHAPES).difference("m") == "m has no 'circle', 'triangle'"
    assert match_classes(builtin("coco"), CELLS).difference("m").endswith("'person', 'bicycle', 'car' and 87 more")
    match = match_classes(numbered(4), CELLS)
    assert match.difference("m") == "m has no class names (only class_1, class_2, ...)"
    assert match_classes(numbered(4), numbered(4)).same


def test_background_is_background() -> None:
    other = LabelMap((Label(0, "__background__", "nothing"), *SHAPES.entries[1:]))
    assert match_classes(other, SHAPES).same
    assert match_classes(other, SHAPES).remarks("m") == []
