"""Matching, codes and losses against loops over numbers."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssdlite_caffe.errors import TrainingError
from ssdlite_caffe.keras.schedule import Schedule

pytestmark = pytest.mark.tensorflow
QUICK = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
VARIANCES = (0.1, 0.2, 0.3, 0.4)


@pytest.fixture(scope="module")
def targets() -> ModuleType:
    from ssdlite_caffe.imports import import_keras

    import_keras()
    from ssdlite_caffe.keras import targets

    return targets


@pytest.fixture(scope="module")
def losses(targets: ModuleType) -> ModuleType:
    from ssdlite_caffe.keras import losses

    return losses


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


def smooth(error: float) -> float:
    return 0.5 * error**2 if abs(error) <= 1 else abs(error) - 0.5


def sigmoid_entropy(logit: float, target: float) -> float:
    score = 1 / (1 + math.exp(-logit))
    return -target * math.log(score) - (1 - target) * math.log(1 - score)


def loss_by_loops(
    codes: np.ndarray, logits: np.ndarray, wanted: np.ndarray, labels: np.ndarray, weights: np.ndarray,
    options: Any, softmax: bool,
) -> tuple[list[float], list[float], int]:  # fmt: skip
    localisation, classification, matches = [], [], 0
    classes = logits.shape[2]
    for b in range(len(codes)):
        place, entropies, positives = 0.0, [], 0
        for n in range(codes.shape[1]):
            if labels[b, n]:
                positives += 1
                place += sum(smooth(codes[b, n, i] - wanted[b, n, i]) for i in range(4))
            one_hot = [float(c == labels[b, n]) for c in range(classes)]
            if options.kind == "focal":
                total = 0.0
                for c in range(classes):
                    target = one_hot[c] if c else 0.0
                    score = 1 / (1 + math.exp(-logits[b, n, c]))
                    sure, weight = (score, options.alpha) if target else (1 - score, 1 - options.alpha)
                    total += -weight * (1 - sure) ** options.gamma * math.log(sure)
                entropies.append(total)
            elif softmax:
                entropies.append(math.log(sum(np.exp(logits[b, n]))) - logits[b, n, labels[b, n]])
            else:
                entropies.append(sum(sigmoid_entropy(logits[b, n, c], one_hot[c]) for c in range(classes)))
        if options.kind == "focal":
            classification.append(sum(e * w for e, w in zip(entropies, weights[b], strict=True)))
        else:
            background = [e for n, e in enumerate(entropies) if not labels[b, n] and weights[b, n]]
            count = max(int(positives * options.negatives), options.least_negatives)
            hard = sorted(background, reverse=True)[:count]
            classification.append(sum(hard) + sum(e for n, e in enumerate(entropies) if labels[b, n]))
        localisation.append(place)
        matches += positives
    return localisation, classification, matches


@QUICK
@given(st.integers(0, 2**32), st.sampled_from(["focal", "sigmoid", "softmax"]), st.floats(0.0, 0.4))
def test_ssd_loss(losses: ModuleType, seed: int, kind: str, share: float) -> None:
    random = np.random.default_rng(seed)
    shape = 2, 17
    codes, wanted = (random.normal(0, 2, (*shape, 4)).astype(np.float32) for _ in range(2))
    logits = random.normal(0, 3, (*shape, 5)).astype(np.float32)
    labels = np.where(random.random(shape) < share, random.integers(1, 5, shape), 0).astype(np.int32)
    weights = np.where(labels > 0, 1, random.random(shape) < 0.8).astype(np.float32)
    options = losses.LossOptions(kind="focal" if kind == "focal" else "hard-negatives", negatives=1.5)
    converter = "softmax" if kind == "softmax" else "sigmoid"
    sums = losses.ssd_sums(codes, logits, (wanted, labels, weights), options, converter)
    expected = loss_by_loops(codes, logits.astype(float), wanted, labels, weights, options, kind == "softmax")
    np.testing.assert_allclose(sums.localisation, expected[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(sums.classification, expected[1], rtol=1e-4, atol=1e-5)
    assert sums.matches == expected[2]


def test_a_loss_suits_the_scores(losses: ModuleType) -> None:
    def kind(converter: str, wanted: str | None = None) -> str:
        return losses.suited(losses.LossOptions(wanted), converter).kind

    assert (kind("sigmoid"), kind("softmax")) == ("focal", "hard-negatives")
    assert kind("sigmoid", "hard-negatives") == kind("softmax", "hard-negatives") == "hard-negatives"
    assert kind("sigmoid", "focal") == "focal"
    with pytest.raises(TrainingError, match="focal loss is one of sigmoid scores"):
        kind("softmax", "focal")


def test_weights_of_the_two_losses(losses: ModuleType) -> None:
    random = np.random.default_rng(0)
    data = random.normal(size=(1, 6, 4)).astype(np.float32), random.normal(size=(1, 6, 3)).astype(np.float32)
    wanted = np.zeros((1, 6, 4), np.float32), np.array([[0, 1, 2, 0, 0, 0]]), np.ones((1, 6), np.float32)
    plain = losses.ssd_sums(*data, wanted, losses.LossOptions(), "sigmoid")
    weighted = losses.ssd_sums(*data, wanted, losses.LossOptions(localisation=2.0, classification=3.0), "sigmoid")
    assert weighted.localisation.numpy() == pytest.approx(2 * plain.localisation.numpy())
    assert weighted.classification.numpy() == pytest.approx(3 * plain.classification.numpy())


def test_hardest_takes_the_first_of_equal_ones(losses: ModuleType) -> None:
    found = losses.hardest(
        np.array([[1.0, 2.0, 2.0, 2.0]], np.float32), np.array([[True] * 4]), np.array([2], np.int32)
    )
    assert found.numpy().tolist() == [[False, True, True, False]]


def test_decay_is_of_full_and_pointwise_kernels(losses: ModuleType) -> None:
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3),
            layers.DepthwiseConv2D(3),
            layers.BatchNormalization(),
            layers.Conv2D(2, 1),
        ]
    )
    for variable in model.weights:
        variable.assign(np.full(variable.shape, 3.0))
    assert float(losses.kernel_decay(model, 0.25)) == pytest.approx(0.25 * (3 * 3 * 3 * 4 + 4 * 2) * 9 / 2)


def test_cosine_with_warm_up() -> None:
    schedule = Schedule(2.0, 110, "cosine", warmup=10)
    rates = [schedule.at(step) for step in range(111)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[5] == pytest.approx(1.1)
    assert rates[10] == pytest.approx(2.0)
    assert rates[60] == pytest.approx(1.0)
    assert rates[110] == pytest.approx(0.0)
    assert max(rates) == rates[10]
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_steps() -> None:
    schedule = Schedule(1.0, 100, "step", drops=(10, 20))
    assert [schedule.at(step) for step in (0, 9, 10, 19, 20, 99)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert Schedule(0.5, 100, "constant").at(99) == 0.5
