"""Labels of drawn boxes: inside the image, none on another, readable."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.draw import class_colour, contrast, draw_detections, draw_labelled, text_colour
from ssdlite_caffe.runtimes.draw_labels import Rectangle, place_labels

HEIGHT, WIDTH = 24, 32


@st.composite
def boxes_and_sizes(draw: st.DrawFn) -> tuple[list[Rectangle], list[tuple[int, int]]]:
    """Boxes inside an image of HEIGHT x WIDTH, and label sizes of which some do not fit into it."""
    boxes, sizes = [], []
    for _ in range(draw(st.integers(0, 12))):
        x, y = draw(st.integers(0, WIDTH - 1)), draw(st.integers(0, HEIGHT - 1))
        boxes.append(Rectangle(x, y, draw(st.integers(x + 1, WIDTH)), draw(st.integers(y + 1, HEIGHT))))
        sizes.append((draw(st.integers(1, WIDTH + 2)), draw(st.integers(1, HEIGHT // 2))))
    return boxes, sizes


@given(boxes_and_sizes())
def test_labels_are_inside_the_image_and_none_covers_another(
    given_boxes: tuple[list[Rectangle], list[tuple[int, int]]],
) -> None:
    boxes, sizes = given_boxes
    places = place_labels(boxes, sizes, HEIGHT, WIDTH)
    taken = np.zeros((HEIGHT, WIDTH), int)
    for place, (wide, high) in zip(places, sizes, strict=True):
        if place is None:
            for y, x in itertools.product(range(HEIGHT - high + 1), range(WIDTH - wide + 1)):
                assert taken[y : y + high, x : x + wide].any(), "a label is missing although there is room for it"
            continue
        assert (place.right - place.left, place.bottom - place.top) == (wide, high)
        assert 0 <= place.left < place.right <= WIDTH
        assert 0 <= place.top < place.bottom <= HEIGHT
        taken[place.top : place.bottom, place.left : place.right] += 1
    assert taken.max() <= 1, "labels cover each other"


@pytest.mark.parametrize(
    ("box", "place"),
    [
        (Rectangle(10, 10, 20, 20), (10, 6)),  # above
        (Rectangle(28, 10, 32, 20), (24, 6)),  # above, moved to the left
        (Rectangle(10, 1, 20, 20), (10, 0)),  # no room above: moved into the box
    ],
)
def test_a_label_alone_stands_above_its_box_in_the_image(box: Rectangle, place: tuple[int, int]) -> None:
    [found] = place_labels([box], [(8, 4)], HEIGHT, WIDTH)
    assert found == (*place, place[0] + 8, place[1] + 4)


def test_the_same_box_again_and_again_has_its_labels_around_it() -> None:
    box = Rectangle(8, 8, 24, 16)
    places = place_labels([box] * 5, [(16, 3)] * 5, HEIGHT, WIDTH)
    assert [(p.left, p.top) for p in places if p] == [(8, 5), (8, 8), (8, 16), (8, 13), (8, 2)]


def test_the_best_detection_has_its_label_placed_first() -> None:
    """Two of one box: the better one's label is above it at the left, the other's at the right."""
    box = np.array([[0.2, 0.4, 0.8, 0.9]] * 2, np.float32)
    found = Detections(np.array([1, 2]), np.array([0.9, 0.5], np.float32), box)
    drawn = draw_detections(np.zeros((300, 300, 3), np.uint8), found, ["background", "cat", "dog"])
    above = {n: np.flatnonzero((drawn[:118] == class_colour(n)).all(axis=-1).sum(axis=0) > 3) for n in (1, 2)}
    assert above[1].min() == 60
    assert above[1].max() < 150 < above[2].min()


def test_all_labels_of_boxes_at_one_place_are_drawn() -> None:
    boxes = np.tile(np.array([[0.45, 0.45, 0.55, 0.55]]), (12, 1))
    drawn = draw_labelled(np.zeros((300, 300, 3), np.uint8), boxes, range(1, 13), ["a long name"] * 12)
    for number in range(1, 13):
        mask = (drawn == class_colour(number)).all(axis=-1)
        assert mask.sum() > 100, f"label {number} is missing"


@pytest.mark.parametrize("side", [64, 320, 720, 2160])
def test_letters_are_readable_at_the_size_of_the_image(side: int) -> None:
    """The label is at least 12 pixels high, and between 1/40 and 1/16 of an image that is not tiny."""
    drawn = draw_labelled(np.zeros((side, side, 3), np.uint8), np.array([[0, 0.5, 1, 1]]), [1], ["dog"])
    rows = np.flatnonzero((drawn[: side // 2] == class_colour(1)).all(axis=-1).sum(axis=1) > 3)
    assert len(rows) >= 12
    assert side < 320 or side / 40 < len(rows) < side / 16


def test_colours_are_the_same_in_every_version() -> None:
    assert [class_colour(n) for n in (1, 2, 3)] == [(242, 96, 36), (36, 242, 157), (217, 36, 242)]


def test_text_stands_out_from_every_colour() -> None:
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert min(contrast(text_colour(class_colour(n)), class_colour(n)) for n in range(1000)) >= 4.5
