"""The reference decoder against plain loops over the definition."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdlite_caffe.errors import TensorError
from ssdlite_caffe.gen_model.arch import Nms
from ssdlite_caffe.gen_model.build import default_arch
from ssdlite_caffe.resizer import Resizer
from ssdlite_caffe.runtimes.decode import (
    choose_detections,
    clip_detections,
    convert_scores,
    decode,
    decode_boxes,
    detections_of,
    overlap,
    parse_detection_out,
    split_priors,
)
from ssdlite_caffe.runtimes.decode_tflite import clip_keeping_all
from ssdlite_caffe.runtimes.detections import Detections

F = np.float32
Box = tuple[np.float32, ...]


def area(box: Box) -> np.float32:
    return (box[2] - box[0]) * (box[3] - box[1])


def naive_overlap(a: Box, b: Box) -> np.float32:
    width = max(min(a[2], b[2]) - max(a[0], b[0]), F(0))
    height = max(min(a[3], b[3]) - max(a[1], b[1]), F(0))
    if area(a) <= 0 or area(b) <= 0:
        return F(0)
    inside = width * height
    return inside / (area(a) + area(b) - inside)


def clip(box: Box) -> Box:
    return tuple(min(max(v, F(0)), F(1)) for v in box)


def naive_detect(boxes: list[Box], scores: np.ndarray, nms: Nms) -> list[tuple[int, np.float32, Box]]:
    """Class after class, each box against each that stayed, as the OD API's graph does."""
    found = []
    for number in range(1, scores.shape[1]):
        candidates = [
            (scores[i, number], i, clip(box) if nms.clip_first else box)
            for i, box in enumerate(boxes)
            if scores[i, number] > F(nms.score_threshold) and not (nms.clip_first and area(clip(box)) <= 0)
        ]
        candidates.sort(key=lambda c: (-c[0], c[1]))
        kept: list[tuple[np.float32, Box]] = []
        for score, _, box in candidates[: nms.top_k]:
            if len(kept) < nms.max_per_class and all(naive_overlap(k, box) <= F(nms.iou_threshold) for _, k in kept):
                kept.append((score, box))
        found += [(number, score, clip(box)) for score, box in kept if area(clip(box)) > 0]
    found.sort(key=lambda d: -d[1])
    return found[: nms.max_total]


NMS = st.builds(
    Nms,
    iou_threshold=st.sampled_from([0.0, 0.3, 0.5, 0.6, 1.0]),
    score_threshold=st.sampled_from([1e-8, 0.25, 0.5]),
    max_per_class=st.sampled_from([1, 3, 100]),
    max_total=st.sampled_from([1, 5, 100]),
    clip_first=st.booleans(),
    top_k=st.sampled_from([None, 1, 4]),
)


@given(
    nms=NMS,
    count=st.integers(1, 40),
    classes=st.integers(2, 5),
    levels=st.sampled_from([3, 1000]),
    grid=st.sampled_from([4, 1000]),
    seed=st.integers(0, 10_000),
)
def test_detect_equals_plain_loops(nms: Nms, count: int, classes: int, levels: int, grid: int, seed: int) -> None:
    """Coarse grids and few score levels give equal boxes, overlaps at the threshold and tied scores."""
    random = np.random.default_rng(seed)
    corners = random.integers(-grid // 2, grid + grid // 2, (count, 2)) / grid
    boxes = np.concatenate([corners, corners + random.integers(1, grid + 1, (count, 2)) / grid], axis=1).astype(F)
    scores = (random.integers(0, levels + 1, (count, classes)) / levels).astype(F)
    expected = naive_detect([tuple(b) for b in boxes], scores, nms)
    found = choose_detections(boxes, scores, nms)
    assert found.classes.tolist() == [d[0] for d in expected]
    assert found.scores.tolist() == [d[1] for d in expected]
    assert found.boxes.tolist() == [list(d[2]) for d in expected]
    assert (found.scores.dtype, found.boxes.dtype, found.boxes.shape) == (F, F, (len(expected), 4))


def test_many_candidates_cross_the_blocks() -> None:
    """More than one block, so that kept boxes suppress in later blocks too."""
    random = np.random.default_rng(1)
    corners = random.uniform(0, 0.9, (700, 2))
    boxes = np.concatenate([corners, corners + random.uniform(0.02, 0.3, (700, 2))], axis=1).astype(F)
    scores = random.uniform(0, 1, (700, 3)).astype(F)
    nms = Nms(max_per_class=1000, max_total=1000)
    found = choose_detections(boxes, scores, nms)
    expected = naive_detect([tuple(b) for b in boxes], scores, nms)
    assert len(found) > 256
    assert found.classes.tolist() == [d[0] for d in expected]
    assert found.boxes.tolist() == [list(d[2]) for d in expected]


def test_overlap_of_exactly_the_threshold_does_not_suppress() -> None:
    boxes = np.array([[0, 0, 1, 1], [0, 0, 0.5, 1]], F)
    scores = np.array([[0, 0.9], [0, 0.8]], F)
    assert overlap(boxes[0], boxes[1]) == 0.5
    assert len(choose_detections(boxes, scores, Nms(iou_threshold=0.5))) == 2
    assert len(choose_detections(boxes, scores, Nms(iou_threshold=0.49))) == 1


def test_the_threshold_holds_alike_in_later_blocks() -> None:
    """Between the two boxes of class 1 come enough of class 2 to put them into different blocks."""
    between = np.stack([np.linspace(0, 0.9, 300), np.zeros(300), np.linspace(0.001, 0.901, 300), np.ones(300)], axis=1)
    boxes = np.concatenate([[[0, 0, 1, 1]], between, [[0, 0, 0.5, 1]]]).astype(F)
    scores = np.zeros((302, 3), F)
    scores[[0, -1], 1] = 0.9, 0.1
    scores[1:-1, 2] = 0.5
    for threshold, expected in ((0.5, 2), (0.49, 1)):
        found = choose_detections(boxes, scores, Nms(iou_threshold=threshold, max_per_class=400, max_total=400))
        assert (found.classes == 2).sum() > 256
        assert (found.classes == 1).sum() == expected


def test_clip_first_changes_what_is_suppressed() -> None:
    boxes = np.array([[0, 0, 0.5, 1], [-0.5, 0, 0.5, 1]], F)
    scores = np.array([[0, 0.9], [0, 0.8]], F)
    assert len(choose_detections(boxes, scores, Nms(iou_threshold=0.6))) == 2
    assert len(choose_detections(boxes, scores, Nms(iou_threshold=0.6, clip_first=True))) == 1


def test_a_box_outside_the_image_is_dropped_but_does_not_take_a_place() -> None:
    boxes = np.array([[1.1, 0, 1.5, 1], [0, 0, 0.5, 0.5]], F)
    scores = np.array([[0, 0.9], [0, 0.8]], F)
    found = choose_detections(boxes, scores, Nms(max_total=1))
    assert found.boxes.tolist() == [[0, 0, 0.5, 0.5]]
    unclipped = choose_detections(boxes, scores, Nms(max_total=1), clip=False)
    assert unclipped.boxes.tolist() == [[1.100000023841858, 0, 1.5, 1]]


def test_a_score_of_exactly_the_threshold_is_not_detected() -> None:
    boxes = np.array([[0, 0, 0.4, 1], [0.5, 0, 1, 1]], F)
    scores = np.array([[0, 0.3], [0, np.nextafter(F(0.3), F(1))]], F)
    found = choose_detections(boxes, scores, Nms(score_threshold=0.3))
    assert found.boxes.tolist() == [[0.5, 0, 1, 1]]


def test_inverted_boxes_neither_suppress_nor_are_suppressed() -> None:
    boxes = np.array([[0.6, 0.1, 0.2, 0.9], [0.2, 0.1, 0.6, 0.9]], F)
    scores = np.array([[0, 0.9], [0, 0.8]], F)
    found = choose_detections(boxes, scores, Nms(), clip=False)
    assert found.scores.tolist() == [F(0.9), F(0.8)]


def test_nan_scores_are_never_detected() -> None:
    boxes = np.array([[0, 0, 1, 1], [0, 0, 0.5, 0.5]], F)
    found = choose_detections(boxes, np.array([[0, math.nan], [0, 0.5]], F), Nms())
    assert found.scores.tolist() == [0.5]


@given(logits=st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=2, max_size=6))
def test_scores_are_those_of_float64_without_overflow(logits: list[float]) -> None:
    values = np.array([logits], F)
    exact = values.astype(np.float64)
    with np.errstate(over="ignore"):
        sigmoid = 1 / (1 + np.exp(-exact))
    np.testing.assert_allclose(convert_scores(values, "sigmoid"), sigmoid, rtol=3e-7, atol=1e-38)
    powers = np.exp(exact - exact.max())
    np.testing.assert_allclose(convert_scores(values, "softmax"), powers / powers.sum(), rtol=1e-6, atol=1e-37)
    np.testing.assert_array_equal(convert_scores(values, "identity"), values)


def test_decode_boxes_by_hand() -> None:
    priors = np.array([[0.2, 0.3, 0.6, 0.5]], F)
    codes = np.array([1.0, -2.0, math.log(2) / 0.2, 0.0], F)
    box = decode_boxes(codes, priors, np.array([0.1, 0.1, 0.2, 0.2], F))
    # centre (0.4 + 0.1 * 0.4, 0.4 - 0.2 * 0.2), size (0.4 * 2, 0.2)
    np.testing.assert_allclose(box, [[0.44 - 0.4, 0.36 - 0.1, 0.44 + 0.4, 0.36 + 0.1]], atol=1e-7)


@given(count=st.integers(1, 9), seed=st.integers(0, 99))
def test_encoded_boxes_decode_to_themselves(count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    low = random.uniform(0, 0.5, (2, count, 2))
    priors, boxes = np.concatenate([low, low + random.uniform(0.1, 0.5, (2, count, 2))], axis=2)
    variances = random.uniform(0.1, 0.3, (count, 4))
    size, wanted = priors[:, 2:] - priors[:, :2], boxes[:, 2:] - boxes[:, :2]
    shift = (boxes[:, 2:] + boxes[:, :2] - priors[:, 2:] - priors[:, :2]) / 2 / size
    codes = np.concatenate([shift, np.log(wanted / size)], axis=1) / variances
    np.testing.assert_allclose(decode_boxes(codes, priors, variances), boxes, atol=5e-7)


def test_decode_joins_the_steps() -> None:
    random = np.random.default_rng(3)
    priors = random.uniform(0, 1, (1, 2, 20)).astype(F)
    loc, conf = random.normal(size=(1, 20)).astype(F), random.normal(size=(1, 15)).astype(F)
    corners, variances = split_priors(priors)
    np.testing.assert_array_equal(corners[1], priors[0, 0, 4:8])
    np.testing.assert_array_equal(variances[4], priors[0, 1, 16:])
    expected = choose_detections(
        decode_boxes(loc, corners, variances), convert_scores(conf.reshape(5, 3), "softmax"), Nms(), clip=False
    )
    found = decode(loc, conf, priors, Nms(), converter="softmax", clip=False)
    assert len(found)
    assert found.scores.tolist() == expected.scores.tolist()
    assert found.boxes.tolist() == expected.boxes.tolist()


ZEROS = np.zeros


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: split_priors(ZEROS((1, 3, 8), F)), r"got \(1, 3, 8\)"),
        (lambda: split_priors(ZEROS((2, 2, 8), F)), r"got \(2, 2, 8\)"),
        (lambda: split_priors(ZEROS((1, 2, 6), F)), r"got \(1, 2, 6\)"),
        (lambda: decode_boxes(ZEROS(12, F), ZEROS((2, 4), F), F([1] * 4)), r"12 values of box encodings .* \(2, 4\)"),
        (lambda: choose_detections(ZEROS((2, 4), F), ZEROS((3, 2), F), Nms()), r"\(2, 4\) .* \(3, 2\)"),
        (lambda: decode(ZEROS(8, F), ZEROS(5, F), ZEROS((2, 8), F), Nms(), converter="sigmoid"), "5 class logits"),
        (lambda: parse_detection_out(ZEROS((1, 1, 2, 6), F)), r"shape \(1, 1, 2, 6\)"),
    ],
)
def test_what_does_not_fit_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(TensorError, match=message):
        call()


def test_detection_rows_are_read_best_first() -> None:
    rows = np.array([[0, 1, 0.5, 0.1, 0.2, 0.3, 0.4], [0, 2, 0.9, -0.1, 0, 1.2, 1], [0, 2, 0.5, 0, 0, 1, 1]], F)
    found = parse_detection_out(rows.reshape(1, 1, 3, 7))
    assert found.classes.tolist() == [2, 1, 2]
    assert found.boxes[0].tolist() == rows[1, 3:].tolist()
    clipped = clip_detections(found)
    assert clipped.boxes[0].tolist() == [0, 0, 1, 1]
    assert len(clipped.above(0.6)) == 1


# The image is in the upper left corner of its letterbox, half as wide as the input.
SEEN = (1.0, 0.5)
LETTERBOXED = Detections(
    np.array([1, 1, 2, 1], np.int64),
    np.array([0.9, 0.8, 0.7, 0.6], F),
    np.array([[0.1, 0.2, 0.3, 0.4], [0.6, 0, 0.9, 1], [0.4, 0.5, 0.8, 1.5], [0, 0, 0.5, 1]], F),
)


def test_boxes_of_a_letterbox_become_fractions_of_the_image() -> None:
    found = clip_detections(LETTERBOXED, SEEN)
    assert found.scores.tolist() == LETTERBOXED.scores[[0, 2, 3]].tolist()
    expected = np.array([[0.2, 0.2, 0.6, 0.4], [0.8, 0.5, 1, 1], [0, 0, 1, 1]], F)
    np.testing.assert_allclose(found.boxes, expected, rtol=0, atol=1e-7)
    kept = clip_keeping_all(LETTERBOXED, SEEN)
    np.testing.assert_allclose(kept.boxes[[0, 2, 3]], expected, rtol=0, atol=1e-7)
    assert kept.boxes[1].tolist() == [1, 0, 1, 1]


def test_limits_count_a_box_in_the_padding_for_its_class_and_not_in_all() -> None:
    """As TensorFlow does: suppression keeps `max_per_class`, then boxes are clipped, then `max_total` are kept."""
    limits = Nms(max_per_class=2, max_total=2)
    assert clip_detections(LETTERBOXED, SEEN, limits).scores.tolist() == LETTERBOXED.scores[[0, 2]].tolist()
    apart = choose_detections(
        LETTERBOXED.boxes, np.array([[0, 0.9, 0], [0, 0.8, 0], [0, 0, 0.7], [0, 0.6, 0]], F), limits, window=SEEN
    )
    assert apart.scores.tolist() == LETTERBOXED.scores[[0, 2]].tolist()
    np.testing.assert_array_equal(apart.boxes, clip_detections(LETTERBOXED, SEEN, limits).boxes)


def test_only_a_letterbox_leaves_its_limits_to_us() -> None:
    arch = default_arch("v2", 3, input_size=(320, 320))
    arch = dataclasses.replace(arch, nms=Nms(max_per_class=1, max_total=9))
    assert len(detections_of(arch, LETTERBOXED, SEEN)) == 3
    resizer = Resizer("keep_aspect_ratio", min_dimension=320, max_dimension=320)
    assert len(detections_of(dataclasses.replace(arch, resizer=resizer), LETTERBOXED, SEEN)) == 2


@pytest.mark.parametrize("rows", [np.full((1, 1, 1, 7), -1, F), np.zeros((1, 1, 1, 7), F), np.zeros((1, 1, 0, 7), F)])
def test_empty_results_are_no_detections(rows: np.ndarray) -> None:
    assert len(parse_detection_out(rows)) == 0


def test_no_candidate_gives_no_detection() -> None:
    found = choose_detections(np.zeros((3, 4), F), np.zeros((3, 2), F), Nms())
    assert isinstance(found, Detections)
    assert (len(found), found.boxes.shape) == (0, (0, 4))


class TestTorchvision:
    """What torchvision does otherwise than TensorFlow."""

    def test_boxes_without_area_count_and_are_dropped(self) -> None:
        """The best box is left of the image: with `keep_empty` it takes one of two places."""
        boxes = np.asarray([[-0.5, 0.1, -0.1, 0.4], [0.1, 0.1, 0.3, 0.3], [0.6, 0.6, 0.8, 0.8]], F)
        scores = np.asarray([[0, 0.9], [0, 0.8], [0, 0.7]], F)
        nms = Nms(score_threshold=0.1, max_per_class=2, max_total=2, clip_first=True)
        kept = choose_detections(boxes, scores, dataclasses.replace(nms, keep_empty=True))
        np.testing.assert_array_equal(kept.scores, scores[1:2, 1])
        np.testing.assert_array_equal(choose_detections(boxes, scores, nms).scores, scores[1:, 1])

    def test_limits_cut_sizes_and_nothing_else(self) -> None:
        random = np.random.default_rng(0)
        priors = np.asarray([[0.4, 0.4, 0.6, 0.6]] * 50, F)
        loc = random.normal(0, 20, (50, 4)).astype(F)
        variances = np.asarray([0.1, 0.1, 0.2, 0.2], F)
        limits = np.full((50, 2), 1.5)
        free, cut = (decode_boxes(loc, priors, variances, np.float64, each) for each in (None, limits))
        sizes, cut_sizes = (one[:, 2:] - one[:, :2] for one in (free, cut))
        np.testing.assert_allclose(cut_sizes, np.minimum(sizes, np.exp(1.5) * 0.2), rtol=1e-6)
        np.testing.assert_allclose(free[:, :2] + free[:, 2:], cut[:, :2] + cut[:, 2:], rtol=1e-6, atol=1e-6)
        assert (cut_sizes < sizes * 0.99).any()
        assert (cut_sizes == sizes).any()
