"""Matching and codes against loops over numbers."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.tensorflow
QUICK = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
VARIANCES = (0.1, 0.2, 0.3, 0.4)


@pytest.fixture(scope="module")
def targets() -> ModuleType:
    from ssdlite_caffe.imports import import_keras

    import_keras()
    from ssdlite_caffe.keras import targets

    return targets


def some_boxes(random: np.random.Generator, count: int) -> np.ndarray:
    corner = random.uniform(-0.2, 0.8, (count, 2))
    return np.concatenate([corner, corner + random.uniform(0.05, 0.6, (count, 2))], 1).astype(np.float32)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    high = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    wide = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return high * wide / (sum(areas) - high * wide)


def matched_by_loops(similarity: np.ndarray, ignored: np.ndarray, threshold: float) -> tuple[list[int], list[bool]]:
    rows, columns = similarity.shape
    matched = [-1] * columns
    counts = [True] * columns
    for column in range(columns):
        best, value = -1, -1.0
        for row in range(rows):
            if not ignored[row] and similarity[row, column] > value:
                best, value = row, similarity[row, column]
        matched[column] = best if value >= threshold else -1
    for row in reversed(range(rows)):  # of two objects that claim a box, the first has it
        if not ignored[row]:
            matched[int(np.argmax(similarity[row]))] = row
    for column in range(columns):
        hidden = any(ignored[row] and similarity[row, column] >= threshold for row in range(rows))
        counts[column] = matched[column] >= 0 or not hidden
    return matched, counts


@QUICK
@given(st.integers(0, 2**32), st.integers(0, 5), st.integers(1, 9))
def test_overlaps(targets: ModuleType, seed: int, rows: int, columns: int) -> None:
    random = np.random.default_rng(seed)
    one, other = some_boxes(random, rows), some_boxes(random, columns)
    expected = [[iou(a, b) for b in other.astype(float)] for a in one.astype(float)]
    np.testing.assert_allclose(targets.overlaps(one, other), np.reshape(expected, (rows, columns)), atol=1e-6)


def test_boxes_without_area(targets: ModuleType) -> None:
    """They overlap nothing, not even themselves, and their codes are numbers."""
    empty = np.array([[0.3, 0.3, 0.3, 0.3], [0.5, 0.2, 0.5, 0.4]], np.float32)
    assert targets.overlaps(empty, empty).numpy().tolist() == [[0.0, 0.0], [0.0, 0.0]]
    whole = np.array([[0, 0, 1, 1]] * 2, np.float32)
    assert np.isfinite(targets.encode(empty, whole, VARIANCES)).all()


@QUICK
@given(st.integers(0, 2**32), st.integers(0, 6), st.integers(1, 12), st.sampled_from([0.3, 0.5, 0.75]))
def test_match(targets: ModuleType, seed: int, rows: int, columns: int, threshold: float) -> None:
    """Quarters give many equal values, so that ties are met."""
    random = np.random.default_rng(seed)
    similarity = (random.integers(0, 5, (rows, columns)) / 4).astype(np.float32)
    ignored = random.random(rows) < 0.3
    matched, counts = targets.match(similarity, ignored, threshold)
    expected = matched_by_loops(similarity, ignored, threshold)
    assert matched.numpy().tolist() == expected[0]
    assert counts.numpy().tolist() == expected[1]


@QUICK
@given(st.integers(0, 2**32), st.integers(1, 9))
def test_encode_is_the_inverse_of_decoding(targets: ModuleType, seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    boxes, defaults = some_boxes(random, count), some_boxes(random, count)
    codes = targets.encode(boxes, defaults, VARIANCES).numpy().astype(float)
    size = (defaults[:, 2:] - defaults[:, :2]).astype(float)
    centre = (defaults[:, 2:] + defaults[:, :2]) / 2
    middle = codes[:, :2] * [VARIANCES[1], VARIANCES[0]] * size + centre
    sides = np.exp(codes[:, 2:] * [VARIANCES[3], VARIANCES[2]]) * size
    np.testing.assert_allclose(np.concatenate([middle - sides / 2, middle + sides / 2], 1), boxes, atol=3e-6)


@pytest.mark.parametrize("count", [0, 3])
def test_assign(targets: ModuleType, count: int) -> None:
    random = np.random.default_rng(count)
    boxes, defaults = some_boxes(random, count), some_boxes(random, 20)
    labels = np.arange(1, count + 1, dtype=np.int32)
    found = targets.assign(boxes, labels, np.zeros(count, bool), defaults, VARIANCES)
    matched, _ = targets.match(targets.overlaps(boxes, defaults), np.zeros(count, bool))
    rows = matched.numpy()
    assert found.labels.numpy().tolist() == [labels[row] if row >= 0 else 0 for row in rows]
    assert set(labels.tolist()) <= set(found.labels.numpy().tolist())  # every object has a box
    assert found.weights.numpy().tolist() == [1.0] * 20
    for place, row in enumerate(rows):
        expected = np.zeros(4)
        if row >= 0:
            expected = targets.encode(boxes[row : row + 1], defaults[place : place + 1], VARIANCES)[0]
        np.testing.assert_allclose(found.encodings[place], expected, atol=1e-6)


def test_what_lies_on_an_ignored_object_does_not_count(targets: ModuleType) -> None:
    boxes = np.array([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]], np.float32)
    found = targets.assign(boxes, np.array([1, 2], np.int32), np.array([True, False]), boxes, VARIANCES)
    assert found.labels.numpy().tolist() == [0, 2]
    assert found.weights.numpy().tolist() == [0.0, 1.0]
