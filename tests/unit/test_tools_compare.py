"""How two sides' outputs are compared."""

from __future__ import annotations

import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.tools.compare import compare_detections, difference
from ssdlite_caffe.tools.comparison import Row, worse
from ssdlite_caffe.tools.verify import VerifyReport

F = np.float32


def detections(*rows: tuple[int, float, tuple[float, float, float, float]]) -> Detections:
    """From (class, score, box), best first."""
    classes, scores, boxes = ([row[i] for row in rows] for i in range(3))
    return Detections(np.asarray(classes, np.int64), np.asarray(scores, F), np.asarray(boxes, F).reshape(-1, 4))


BOX, FAR = (0.1, 0.2, 0.3, 0.4), (0.5, 0.5, 0.9, 0.9)


def compare(got: Detections, reference: Detections, *, total: int = 100):  # type: ignore[no-untyped-def]
    return compare_detections(got, reference, box_tolerance=1e-3, score_tolerance=1e-2, max_total=total)


class TestDifference:
    def test_of_arrays(self) -> None:
        found = difference(np.asarray([[1, 2, -8]], F), np.asarray([[1, 3, -10]], F))
        assert (found.shape, found.absolute, found.relative) == ((1, 3), 2.0, 0.2)

    def test_of_nothing_and_of_zeros(self) -> None:
        assert difference(np.zeros((0, 4), F), np.zeros((0, 4), F)).absolute == 0
        assert difference(np.full(3, 0.5, F), np.zeros(3, F)).relative == 0.5

    def test_other_shapes_differ_infinitely(self) -> None:
        assert difference(np.zeros((2, 3), F), np.zeros((3, 2), F)).absolute == math.inf

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_what_is_not_finite_is_never_small(self, value: float) -> None:
        for got, reference in (([1, value], [1, 2]), ([1, 2], [1, value])):
            assert not difference(np.asarray(got, F), np.asarray(reference, F)).absolute <= 1e9


class TestDetections:
    def test_in_another_order(self) -> None:
        one, two, three = (1, 0.9, BOX), (2, 0.9, BOX), (1, 0.895, FAR)
        found = compare(detections(three, two, one), detections(one, two, three))
        assert (found.paired, found.unpaired) == (3, ())
        assert (found.box, found.score) == (0, 0)

    def test_largest_differences_of_the_pairs(self) -> None:
        moved = tuple(v + 0.0005 for v in BOX)
        found = compare(detections((1, 0.9, moved)), detections((1, 0.895, BOX)))  # type: ignore[arg-type]
        assert found.paired == 1
        assert found.box == pytest.approx(0.0005, rel=1e-3)
        assert found.score == pytest.approx(0.005, rel=1e-3)

    @pytest.mark.parametrize("other", [(2, 0.9, BOX), (1, 0.92, BOX), (1, 0.9, FAR), (1, 0.9, (0.1, 0.2, 0.3, 0.402))])
    def test_another_class_score_or_box_is_no_partner(self, other: tuple[int, float, tuple[float, ...]]) -> None:
        found = compare(detections(other), detections((1, 0.9, BOX)))  # type: ignore[arg-type]
        assert found.paired == 0
        assert (
            found.unpaired[0] == "only in the reference: class 1, score 0.90000, box (0.1000, 0.2000, 0.3000, 0.4000)"
        )
        assert found.unpaired[1].startswith(f"not in the reference: class {other[0]}, ")

    def test_each_has_one_partner(self) -> None:
        found = compare(detections((1, 0.9, BOX)), detections((1, 0.9, BOX), (1, 0.9, BOX)))
        assert (found.paired, len(found.unpaired)) == (1, 1)

    def test_the_nearest_is_the_partner(self) -> None:
        near = (0.1, 0.2, 0.3, 0.4005)
        found = compare(detections((1, 0.9, near), (1, 0.9, BOX)), detections((1, 0.9, BOX), (1, 0.9, near)))
        assert (found.paired, found.box) == (2, 0)

    def test_a_tie_with_the_last_of_a_full_side_is_no_miss(self) -> None:
        full = detections((1, 0.9, BOX), (1, 0.5, BOX))
        other = detections((1, 0.9, BOX), (2, 0.505, FAR))
        assert compare(full, other, total=2).unpaired == ()
        assert len(compare(full, other, total=3).unpaired) == 2, "neither side is full"
        better = detections((1, 0.9, BOX), (2, 0.52, FAR))
        assert compare(full, better, total=2).unpaired == (
            "only in the reference: class 2, score 0.52000, box (0.5000, 0.5000, 0.9000, 0.9000)",
        )

    def test_nothing_found(self) -> None:
        empty = detections()
        assert compare(empty, empty).unpaired == ()
        assert len(compare(empty, detections((1, 0.9, BOX))).unpaired) == 1
        assert len(compare(detections((1, 0.9, BOX)), empty).unpaired) == 1


def row(absolute: float, *, ok: bool, stage: str = "conv") -> Row:
    return Row(stage, "section", (1,), absolute, absolute, 1.0, False, ok)


@hypothesis.given(
    st.floats(0, 10) | st.just(math.nan) | st.just(math.inf),
    st.floats(0, 10) | st.just(math.nan),
    st.booleans(),
    st.booleans(),
)
def test_the_worse_of_two_images_is_shown(one: float, other: float, one_ok: bool, other_ok: bool) -> None:
    """Whatever their order: a failure before what is well, then the larger difference, and NaN before all."""
    rows = row(one, ok=one_ok), row(other, ok=other_ok)
    for found in (worse(*rows), worse(*rows[::-1])):
        assert found.ok == (one_ok and other_ok)
        candidates = [r.absolute for r in rows if r.ok == found.ok]
        if any(math.isnan(value) for value in candidates):
            assert math.isnan(found.absolute) or found.absolute == math.inf
        else:
            assert found.absolute == max(candidates)


def test_the_first_failure_is_the_first_in_the_net() -> None:
    rows = row(0, ok=True, stage="a"), row(3, ok=False, stage="b"), row(9, ok=False, stage="c")
    report = VerifyReport("model", "folder", "opencv", rows, ("image",), exact=True)
    assert report.first_failure is rows[1]
    assert report.to_dict()["first_failure"] == "b"
    assert rows[1].share == 3
