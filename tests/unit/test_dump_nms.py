"""Thresholds and limits of non-maximum suppressions, each read from its own input."""

from __future__ import annotations

import numpy as np
import pytest

from ssdlite_caffe.dump.detector.affine import Constants
from ssdlite_caffe.dump.detector.nms import Suppression, find_suppression
from tests.dump_graphs import GraphBuilder, shape_proto

FLOAT, WHOLE = np.dtype("float32"), np.dtype("int32")


def found_in(b: GraphBuilder, classes: int | None = None) -> Suppression:
    found = find_suppression(Constants.of(b.graph()), classes)
    assert found is not None
    return found


def boxes_and_scores() -> GraphBuilder:
    b = GraphBuilder()
    b.node("decoded", "Placeholder", dtype=FLOAT, shape=shape_proto(-1, 4))
    b.node("scores", "Placeholder", dtype=FLOAT, shape=shape_proto(-1))
    return b


def suppressed(b: GraphBuilder, boxes: str = "decoded", scores: str = "scores", *, threshold: float = 0.25) -> str:
    """One suppression of a class: 11 boxes at most, an overlap of 0.5."""
    count, iou, least = b.const("count", 11, "int32"), b.const("iou", 0.5), b.const("least", threshold)
    return b.node("nms", "NonMaxSuppressionV3", boxes, scores, count, iou, least)


@pytest.mark.parametrize(("outside", "inside"), [(0.125, 0.375), (0.375, 0.125)])
def test_of_two_thresholds_the_larger_one_counts(outside: float, inside: float) -> None:
    b = boxes_and_scores()
    b.node("above", "Greater", "scores", b.const("above/y", outside))
    b.node("kept", "Gather", "scores", b.node("where", "Where", "above"))
    suppressed(b, scores="kept", threshold=inside)
    found = found_in(b)
    assert (found.score_threshold, found.iou_threshold, found.max_per_class) == (0.375, 0.5, 11)


def test_a_threshold_below_every_score_is_none() -> None:
    b = boxes_and_scores()
    suppressed(b, threshold=-np.inf)
    assert found_in(b).score_threshold is None


@pytest.mark.parametrize(
    ("inner", "outer", "dtype", "clips"),
    [
        ("Minimum", "Maximum", FLOAT, True),
        ("Identity", "Maximum", FLOAT, False),
        ("Minimum", "Identity", FLOAT, False),
        ("Minimum", "Maximum", WHOLE, False),
    ],
    ids=["both sides", "below alone", "above alone", "of counts"],
)
def test_boxes_clipped_before_they_are_compared(inner: str, outer: str, dtype: np.dtype, clips: bool) -> None:
    def between(name: str, op: str, value: str, bound: float) -> str:
        if op == "Identity":
            return b.node(name, op, value, T=dtype)
        return b.node(name, op, value, b.const(f"{name}/bound", bound, dtype.name), T=dtype)

    b = boxes_and_scores()
    boxes = between("lower", outer, between("upper", inner, "decoded", 1), 0)
    suppressed(b, boxes)
    assert found_in(b).clip_first is clips


def test_all_classes_at_once() -> None:
    b = boxes_and_scores()
    limits = [b.const("per class", 7, "int32"), b.const("total", 13, "int32"), b.const("iou", 0.5)]
    b.node("nms", "CombinedNonMaxSuppression", "decoded", "scores", *limits, b.const("score", 0.25))
    assert found_in(b, 5) == Suppression(0.5, 0.25, 7, 13, clip_first=False)
    b.node("best", "TopKV2", "nms", b.const("k", 9, "int32"))
    assert found_in(b, 5).max_total == 9, "the least of the limits"


@pytest.mark.parametrize(("limits", "total"), [((13,), 13), ((13, 17), None), ((), None)])
def test_the_limit_on_all_classes_is_the_one_behind(limits: tuple[int, ...], total: int | None) -> None:
    """Where there are two, none is known to be it."""
    b = boxes_and_scores()
    suppressed(b)
    b.node("n", "Size", "nms")
    for limit in limits:
        b.node(f"at most {limit}", "Minimum", b.const(f"{limit}", limit, "int32"), "n")
    assert found_in(b).max_total == total
