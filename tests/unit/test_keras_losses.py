"""Losses against loops over numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssdlite_caffe.errors import TrainingError
from ssdlite_caffe.gen_model.arch import FAMILIES, ScoreConverter
from ssdlite_caffe.gen_model.build import default_arch

pytestmark = pytest.mark.tensorflow
SWITCHES = "by_matches", "by_codesize"
QUICK = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def losses() -> ModuleType:
    from ssdlite_caffe.imports import import_keras

    import_keras()
    from ssdlite_caffe.keras import losses

    return losses


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
    options = losses.LossOptions("focal" if kind == "focal" else "hard-negatives", negatives=1.5, least_negatives=3)
    converter = "softmax" if kind == "softmax" else "sigmoid"
    sums = losses.ssd_sums(codes, logits, (wanted, labels, weights), options, converter)
    expected = loss_by_loops(codes, logits.astype(float), wanted, labels, weights, options, kind == "softmax")
    np.testing.assert_allclose(sums.localisation, expected[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(sums.classification, expected[1], rtol=1e-4, atol=1e-5)
    assert sums.matches == expected[2]


def test_a_loss_suits_the_scores(losses: ModuleType) -> None:
    def kind(converter: ScoreConverter, wanted: str | None = None) -> str:
        arch = replace(default_arch("v2", 4), score_converter=converter)
        return losses.suited(losses.LossOptions(wanted), arch).kind

    assert (kind("sigmoid"), kind("softmax")) == ("focal", "hard-negatives")
    assert kind("sigmoid", "hard-negatives") == kind("softmax", "hard-negatives") == "hard-negatives"
    assert kind("sigmoid", "focal") == "focal"
    with pytest.raises(TrainingError, match="the focal loss needs sigmoid scores"):
        kind("softmax", "focal")


def test_a_loss_suits_the_family(losses: ModuleType) -> None:
    """Of each family what its configuration in the zoo says, unless it is given."""
    found = {}
    for arch in (default_arch(family, 4) for family in FAMILIES):
        own = losses.suited(losses.LossOptions(), arch)
        assert own.by_matches
        found[arch.family] = own.by_codesize, own.least_negatives
        for on in (True, False):
            kept = losses.suited(losses.LossOptions(by_codesize=on, by_matches=on, least_negatives=int(on)), arch)
            assert (kept.by_codesize, kept.by_matches, kept.least_negatives) == (on, on, int(on))
    v3 = {family: (True, 3) for family in FAMILIES if family.startswith("v3")}
    assert found == {**v3, "v1": (False, 0), "v2": (False, 3)}


@pytest.mark.parametrize(("matches", "by"), [(6.0, 6.0), (0.0, 1.0)])
def test_what_the_sums_are_divided_by(losses: ModuleType, matches: float, by: float) -> None:
    def found(by_matches: bool, by_codesize: bool) -> tuple[float, float]:
        options = losses.LossOptions(by_matches=by_matches, by_codesize=by_codesize)
        return tuple(map(float, losses.divisors(matches, options)))

    assert (found(True, True), found(True, False)) == ((4 * by, by), (by, by))
    assert (found(False, True), found(False, False)) == ((4, 1), (1, 1))


def test_a_loss_in_words(losses: ModuleType) -> None:
    v3, v1 = default_arch("v3-small", 4), replace(default_arch("v1", 4), score_converter="softmax")

    def line(arch: Any, *more: bool) -> str:
        return losses.described(losses.suited(losses.LossOptions(**dict(zip(SWITCHES, more, strict=False))), arch))

    focal = "the focal loss of the classes (alpha 0.75, gamma 2) and smooth L1 of the boxes, "
    by = "both divided by the number of matched boxes"
    assert line(v3) == f"{focal}{by}, that of the boxes also by 4"
    assert line(v3, True, False) == f"{focal}{by}"
    assert line(v3, False) == f"{focal}that of the boxes divided by 4"
    assert line(v3, False, False) == f"{focal}not divided by anything"
    mined = "the cross entropy of the classes (3 background boxes for each matched one, at least 0 in an image)"
    assert line(v1) == f"{mined} and smooth L1 of the boxes, {by}"


def test_weights_of_the_two_losses(losses: ModuleType) -> None:
    random = np.random.default_rng(0)
    data = random.normal(size=(1, 6, 4)).astype(np.float32), random.normal(size=(1, 6, 3)).astype(np.float32)
    wanted = np.zeros((1, 6, 4), np.float32), np.array([[0, 1, 2, 0, 0, 0]]), np.ones((1, 6), np.float32)
    plain = losses.ssd_sums(*data, wanted, losses.LossOptions("focal"), "sigmoid")
    weighted = losses.ssd_sums(
        *data, wanted, losses.LossOptions("focal", localisation=2.0, classification=3.0), "sigmoid"
    )
    assert weighted.localisation.numpy() == pytest.approx(2 * plain.localisation.numpy())
    assert weighted.classification.numpy() == pytest.approx(3 * plain.classification.numpy())


def test_more_background_boxes_than_there_are(losses: ModuleType) -> None:
    """All are taken, however many are asked for."""
    logits = np.random.default_rng(0).normal(size=(1, 6, 3)).astype(np.float32)
    targets = np.zeros((1, 6, 4), np.float32), np.array([[0, 1, 2, 0, 0, 0]]), np.ones((1, 6), np.float32)
    found = [
        float(losses.ssd_sums(targets[0], logits, targets, options, "softmax").classification[0])
        for options in (losses.LossOptions("hard-negatives", negatives=n, least_negatives=0) for n in (2.0, 1e12, 0.5))
    ]
    assert found[0] == found[1] > found[2]


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
