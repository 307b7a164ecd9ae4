"""Which detections are certain where boxes and scores are only known to within rounding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdlite_caffe.gen_model.arch import Nms
from ssdlite_caffe.runtimes.decode import choose_detections
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.tools.detection_check import choose, compare


def some(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, Nms]:
    """Boxes and scores with ties in half of the cases, and options."""
    count, classes = int(random.integers(1, 50)), int(random.integers(2, 5))
    centre, size = random.uniform(-0.1, 1.1, (count, 2)), random.uniform(0.05, 0.5, (count, 2))
    boxes = np.hstack([centre - size / 2, centre + size / 2])
    if random.random() < 0.5:
        boxes = np.round(boxes * 8) / 8
        boxes[:, 2:] += 0.125  # a decoded box has an area
    scores = random.uniform(0, 1, (count, classes))
    if random.random() < 0.5:
        scores = np.round(scores * 10) / 10
    nms = Nms(
        iou_threshold=float(random.choice([0.3, 0.5, 0.6])),
        score_threshold=float(random.choice([1e-8, 0.3, 0.5])),
        max_per_class=int(random.choice([3, 100])),
        max_total=int(random.choice([5, 20, 100])),
        clip_first=bool(random.random() < 0.3),
        top_k=int(random.choice([4, 30])) if random.random() < 0.3 else None,
    )
    return boxes, scores, nms


def noisy(random: np.random.Generator, values: np.ndarray, noise: float) -> np.ndarray:
    return values + random.uniform(-noise, noise, values.shape)


@settings(max_examples=150)
@given(seed=st.integers(0, 2**31))
def test_no_rounding_is_called_a_mistake(seed: int) -> None:
    random = np.random.default_rng(seed)
    boxes, scores, nms = some(random)
    box_noise, score_noise = 10 ** random.uniform(-9, -2, 2)
    wanted = choose(boxes, scores, nms, box_noise=box_noise, score_noise=score_noise)
    for _ in range(4):
        found = choose_detections(noisy(random, boxes, box_noise), noisy(random, scores, score_noise), nms)
        result = compare(found, wanted, box_noise=1.001 * box_noise + 1e-9, score_noise=1.001 * score_noise + 1e-9)
        assert result.unpaired == ()
        assert result.paired == len(found)


@settings(max_examples=100)
@given(seed=st.integers(0, 2**31))
def test_with_little_noise_nearly_all_is_certain(seed: int) -> None:
    """Where there are no ties, every detection is, and no other candidate is possible."""
    random = np.random.default_rng(seed)
    boxes, scores, nms = some(random)
    boxes, scores = noisy(random, boxes, 0.01), noisy(random, scores, 0.01)
    wanted = choose(boxes, scores, nms, box_noise=1e-12, score_noise=1e-12)
    found = choose_detections(boxes, scores, nms)
    assert wanted.certain.all()
    assert np.array_equal(wanted.detections.classes, found.classes)
    assert np.array_equal(wanted.detections.scores, found.scores)
    assert np.array_equal(wanted.detections.boxes, found.boxes)


@pytest.mark.parametrize(
    "mistake",
    [
        {"iou_threshold": 0.5},
        {"iou_threshold": 0.7},
        {"score_threshold": 0.35},
        {"max_total": 15},
        {"max_per_class": 8},
    ],
    ids=str,
)
def test_another_option_is_found(mistake: dict[str, float]) -> None:
    random = np.random.default_rng(7)
    centre, size = random.uniform(0.2, 0.8, (300, 2)), random.uniform(0.1, 0.4, (300, 2))
    boxes, scores = np.hstack([centre - size / 2, centre + size / 2]), random.uniform(0, 1, (300, 4))
    nms = Nms(iou_threshold=0.6, score_threshold=0.3, max_per_class=1000, max_total=1000)
    wanted = choose(boxes, scores, nms, box_noise=1e-5, score_noise=1e-5)
    right = compare(choose_detections(boxes, scores, nms), wanted, box_noise=2e-5, score_noise=2e-5)
    assert right.unpaired == ()
    assert right.paired > 15
    wrong = compare(choose_detections(boxes, scores, replace(nms, **mistake)), wanted, box_noise=2e-5, score_noise=2e-5)
    assert wrong.unpaired != ()


def test_equal_scores_may_come_in_any_order() -> None:
    boxes = np.asarray([[0.1, 0.1, 0.5, 0.5], [0.1, 0.1, 0.5, 0.52], [0.7, 0.7, 0.9, 0.9]])
    scores = np.asarray([[0, 0.8], [0, 0.8 + 1e-8], [0, 0.5]])
    wanted = choose(boxes, scores, Nms(), box_noise=1e-7, score_noise=1e-7)
    assert wanted.certain.tolist() == [False, False, True]
    for chosen in ([0, 2], [1, 2]):
        found = Detections(np.ones(2, np.int64), scores[chosen, 1], boxes[chosen])
        assert compare(found, wanted, box_noise=1e-7, score_noise=1e-7).unpaired == ()
    missing = Detections(np.ones(1, np.int64), scores[[0], 1], boxes[[0]])
    (text,) = compare(missing, wanted, box_noise=1e-7, score_noise=1e-7).unpaired
    assert text.startswith("only in the reference: class 1, score 0.50000")


def test_an_overlap_at_the_limit_may_fall_either_way() -> None:
    boxes = np.asarray([[0.0, 0.0, 0.4, 0.4], [0.0, 0.0, 0.4, 0.24]])  # IoU 0.6
    scores = np.asarray([[0, 0.9], [0, 0.8]])
    wanted = choose(boxes, scores, Nms(iou_threshold=0.6), box_noise=1e-7, score_noise=1e-9)
    assert wanted.certain.tolist() == [True, False]


def test_candidates_below_the_least_score_change_nothing_above() -> None:
    random = np.random.default_rng(3)
    boxes, scores, _ = some(random)
    nms = Nms(score_threshold=1e-8)
    whole, part = (choose(boxes, scores, nms, box_noise=1e-6, score_noise=1e-6, least=x) for x in (-np.inf, 0.5))
    above = whole.detections.scores > 0.5 + 1e-5
    assert above.any()
    kept = part.detections.scores > 0.5 + 1e-5
    assert np.array_equal(whole.detections.scores[above], part.detections.scores[kept])
    assert np.array_equal(whole.certain[above], part.certain[kept])
