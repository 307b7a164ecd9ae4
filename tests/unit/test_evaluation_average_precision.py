"""Average precision against a loop that follows VOC's text word by word, and against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdlite_caffe.evaluation.average_precision import Boxes, Curve, ScoredBoxes, curve, iou, of_verdicts

Corners = tuple[float, float, float, float]


def boxes(*corners: Corners, difficult: tuple[bool, ...] = ()) -> Boxes:
    return Boxes(np.asarray(corners, float).reshape(-1, 4), np.asarray(difficult or [False] * len(corners), bool))


def found(*items: tuple[float, Corners]) -> ScoredBoxes:
    corners = np.asarray([box for _, box in items], float).reshape(-1, 4)
    return ScoredBoxes(corners, np.asarray([score for score, _ in items], float))


A, B, C = (0.0, 0.0, 10.0, 20.0), (30.0, 5.0, 50.0, 15.0), (70.0, 70.0, 80.0, 95.0)


def test_iou_by_hand() -> None:
    np.testing.assert_allclose(
        iou(np.asarray([A, (0.0, 0.0, 5.0, 20.0), (5.0, 10.0, 15.0, 30.0)]), np.asarray([A, B])),
        [[1, 0], [0.5, 0], [50 / 350, 0]],
    )
    assert iou(np.asarray([(3.0, 3.0, 3.0, 9.0)]), np.asarray([(3.0, 3.0, 3.0, 9.0)])) == 0


def test_all_found() -> None:
    result = curve([(boxes(A, B), found((0.9, A), (0.8, B))), (boxes(C), found((0.7, C)))])
    assert result.area == result.eleven_point == 1


def test_one_of_two_and_a_wrong_one_before_it() -> None:
    """Precision 1/2 at recall 1/2, nothing beyond: 6 of the 11 recalls (0 to 0.5) have 1/2, the area is 1/2 * 1/2."""
    result = curve([(boxes(A, B), found((0.9, C), (0.8, A)))])
    assert result.eleven_point == pytest.approx(6 * 0.5 / 11)
    assert result.area == pytest.approx(0.25)
    np.testing.assert_array_equal(result.precision, [0, 0.5])
    np.testing.assert_array_equal(result.recall, [0, 0.5])


def test_precision_that_rises_again_counts_from_its_best() -> None:
    """Right, wrong, right, right of 3 objects: precision 1, 1/2, 2/3, 3/4; the best from the second on is 3/4."""
    result = of_verdicts(np.asarray([0.9, 0.8, 0.7, 0.6]), np.asarray([True, False, True, True]), 3)
    assert result.area == pytest.approx((1 + 0.75 + 0.75) / 3)
    assert result.eleven_point == pytest.approx((4 * 1 + 7 * 0.75) / 11)


def test_a_recall_of_three_tenths_reaches_three_tenths() -> None:
    """3 of 10 found, all right: 4 of the 11 recalls."""
    assert Curve(np.asarray([1, 2, 3]), np.asarray([0.9, 0.8, 0.7]), 10).eleven_point == pytest.approx(4 / 11)


def test_the_second_on_an_object_is_wrong() -> None:
    result = curve([(boxes(A), found((0.5, A), (0.9, A)))])
    np.testing.assert_array_equal(result.hits, [1, 1])
    np.testing.assert_array_equal(result.scores, [0.9, 0.5])


def test_a_detection_belongs_to_the_object_it_overlaps_most() -> None:
    """Though another, free one overlaps enough."""
    near = (0.0, 0.0, 10.0, 18.0)
    result = curve([(boxes(A, near), found((0.9, A), (0.8, A)))])
    np.testing.assert_array_equal(result.hits, [1, 1])


def test_difficult_objects_do_not_count() -> None:
    result = curve([(boxes(A, B, difficult=(True, False)), found((0.9, A), (0.8, A), (0.7, B)))])
    assert result.positives == 1
    np.testing.assert_array_equal(result.hits, [1])
    assert result.area == 1


def test_half_overlap_is_enough() -> None:
    half = (0.0, 0.0, 5.0, 20.0)
    assert curve([(boxes(A), found((0.9, half)))]).area == 1
    assert curve([(boxes(A), found((0.9, half)))], overlap=0.51).area == 0


def test_nothing_to_find_and_nothing_found() -> None:
    assert np.isnan(curve([(boxes(), found((0.9, A)))]).area)
    assert np.isnan(curve([(boxes(), found((0.9, A)))]).eleven_point)
    assert curve([(boxes(A), found())]).area == curve([(boxes(A), found())]).eleven_point == 0
    assert np.isnan(curve([]).area)


def naive(images: list[tuple[Boxes, ScoredBoxes]]) -> tuple[float, float]:
    """Eleven points and area, straight from VOC's text, one detection after the other."""
    ranked = sorted(
        ((-score, p, i) for p, (_, f) in enumerate(images) for i, score in enumerate(f.scores)),
        key=lambda item: (item[0], item[1], item[2]),
    )
    used: set[tuple[int, int]] = set()
    points: list[tuple[float, float]] = []
    right = counted = 0
    total = sum(not d for b, _ in images for d in b.difficult)
    for _, p, i in ranked:
        truth, detections = images[p]
        best, which = 0.0, -1
        for g, box in enumerate(truth.corners):
            x0, y0, x1, y1 = detections.corners[i]
            width, height = min(x1, box[2]) - max(x0, box[0]), min(y1, box[3]) - max(y0, box[1])
            shared = max(width, 0) * max(height, 0)
            union = (x1 - x0) * (y1 - y0) + (box[2] - box[0]) * (box[3] - box[1]) - shared
            if shared / union > best:
                best, which = shared / union, g
        if best >= 0.5 and truth.difficult[which]:
            continue
        counted += 1
        if best >= 0.5 and (p, which) not in used:
            used.add((p, which))
            right += 1
        points.append((right / total, right / counted))
    eleven = sum(max((p for r, p in points if r >= t / 10 - 1e-9), default=0) for t in range(11)) / 11
    area, before = 0.0, 0.0
    for k, (r, _) in enumerate(points):
        area += (r - before) * max(p for _, p in points[k:])
        before = r
    return eleven, area


side = st.integers(0, 12)
corner = st.tuples(side, side, st.integers(1, 8), st.integers(1, 8)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
image = st.tuples(
    st.lists(st.tuples(corner, st.booleans()), max_size=4),
    st.lists(st.tuples(st.integers(0, 8).map(lambda s: s / 8), corner), max_size=6),
)


@given(st.lists(image, min_size=1, max_size=4))
def test_the_same_as_the_naive_loop(
    images: list[tuple[list[tuple[Corners, bool]], list[tuple[float, Corners]]]],
) -> None:
    made = [
        (boxes(*(box for box, _ in truth), difficult=tuple(hard for _, hard in truth)), found(*detections))
        for truth, detections in images
    ]
    result = curve(made)
    if not result.positives:
        assert np.isnan(result.area)
        return
    assert (result.eleven_point, result.area) == pytest.approx(naive(made))


def test_verdicts_are_ranked() -> None:
    result = of_verdicts(np.asarray([0.1, 0.9, 0.5]), np.asarray([True, True, False]), 3)
    np.testing.assert_array_equal(result.hits, [1, 1, 2])
