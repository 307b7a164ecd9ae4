"""The loss of a training against the Object Detection API's, written again in numpy from its sources.

SSDMetaArch.loss, HardExampleMiner with loss_type CLASSIFICATION, and the losses of core/losses.py; the miner's
suppression at an IoU of 0.99, which ours leaves out, is in it.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from tests.oracles import api_losses

pytestmark = pytest.mark.tensorflow

Array = npt.NDArray[Any]
KINDS = {"focal": "sigmoid", "sigmoid": "sigmoid", "softmax": "softmax"}
MINED_IOU = 0.99
API_LOSS = 1e-6
"""Relative; measured: 1.2e-7."""


class Batch(NamedTuple):
    """What a loss is made from; encodings and wanted are (B, N, 4), logits (B, N, C), labels (B, N)."""

    defaults: Array
    encodings: Array
    logits: Array
    wanted: Array
    labels: Array


class Mined(NamedTuple):
    """Boxes that count in the loss of an image, and how many the suppression dropped."""

    kept: Array
    dropped: int


def batch(seed: int, *, count: int = 60, classes: int = 5, share: float = 0.15) -> Batch:
    """Three images, the last one without objects."""
    random = np.random.default_rng(seed)
    shape = 3, count
    centres, sides = random.uniform(0.1, 0.9, (count, 2)), random.uniform(0.05, 0.4, (count, 2))
    labels = np.where(random.random(shape) < share, random.integers(1, classes, shape), 0)
    labels[-1] = 0
    return Batch(
        np.concatenate([centres - sides / 2, centres + sides / 2], 1),
        random.normal(0, 2, (*shape, 4)),
        random.normal(-1, 3, (*shape, classes)),
        np.where(labels[..., None] > 0, random.normal(0, 2, (*shape, 4)), 0.0),
        labels,
    )


def api_loss(
    data: Batch, kind: str, *, by_matches: bool, by_codesize: bool, ratio: float = 3.0, least: int = 3
) -> tuple[float, float, int]:
    """The API's localisation and classification loss, and how many boxes its miner's suppression dropped."""
    positive = data.labels > 0
    size = np.abs(data.encodings - data.wanted)
    place = np.where(size <= 1, size**2 / 2, size - 0.5).sum(2) * positive
    targets = np.eye(data.logits.shape[2])[data.labels]
    if kind == "focal":
        targets[..., 0] = 0  # encode_background_as_zeros
    score = 1 / (1 + np.exp(-data.logits))
    entropy = -targets * np.log(score) - (1 - targets) * np.log(1 - score)
    if kind == "focal":
        sure = targets * score + (1 - targets) * (1 - score)
        entropy = entropy * (1 - sure) ** 2.0 * (targets * 0.75 + (1 - targets) * 0.25)
    if kind == "softmax":
        total = np.log(np.exp(data.logits).sum(2, keepdims=True))
        entropy = targets * (total - data.logits)
    classes = entropy.sum(2)
    dropped = 0
    if kind == "focal":
        localisation, classification = place.sum(), classes.sum()
    else:
        localisation = classification = 0.0
        for i in range(len(place)):
            mined = mine(decoded(data.encodings[i], data.defaults), classes[i], positive[i], ratio, least)
            localisation += place[i][mined.kept].sum()
            classification += classes[i][mined.kept].sum()
            dropped += mined.dropped
    normaliser = max(float(positive.sum()), 1.0) if by_matches else 1.0
    return localisation / (normaliser * 4 if by_codesize else normaliser), classification / normaliser, dropped


def mine(boxes: Array, losses: Array, positive: Array, ratio: float, least: int) -> Mined:
    """Greedy suppression by loss, then all that are matched and the first `ratio` times as many others."""
    chosen: list[int] = []
    for n in np.argsort(-losses, kind="stable"):
        if all(iou(boxes[n], boxes[m]) <= MINED_IOU for m in chosen):
            chosen.append(n)
    left = max(int(ratio * sum(positive[n] for n in chosen)), least)
    kept: list[int] = []
    for n in chosen:
        if positive[n]:
            kept.append(n)
        elif left:
            kept.append(n)
            left -= 1
    return Mined(np.array(kept, int), len(losses) - len(chosen))


def decoded(codes: Array, defaults: Array) -> Array:
    """Boxes of a faster_rcnn_box_coder with scales 10, 10, 5, 5."""
    sides, centres = defaults[:, 2:] - defaults[:, :2], (defaults[:, 2:] + defaults[:, :2]) / 2
    middles, halves = centres + codes[:, :2] / 10 * sides, sides * np.exp(codes[:, 2:] / 5) / 2
    return np.concatenate([middles - halves, middles + halves], 1)


def iou(one: Array, other: Array) -> float:
    shared = np.prod(np.maximum(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0))
    return float(shared / (np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - shared))


def our_loss(data: Batch, kind: str, *, by_matches: bool, by_codesize: bool, least: int = 3) -> tuple[float, float]:
    from ssdlite_caffe.imports import import_keras

    import_keras()
    from ssdlite_caffe.keras.losses import LossOptions, divisors, ssd_sums

    options = LossOptions(
        "focal" if kind == "focal" else "hard-negatives",
        least_negatives=least, by_matches=by_matches, by_codesize=by_codesize,
    )  # fmt: skip
    targets = data.wanted.astype(np.float32), data.labels.astype(np.int32), np.ones(data.labels.shape, np.float32)
    sums = ssd_sums(data.encodings, data.logits, targets, options, KINDS[kind])  # type: ignore[arg-type]
    place, classes = divisors(sums.matches, options)
    return float(sum(sums.localisation) / place), float(sum(sums.classification) / classes)


@pytest.mark.oracle
@pytest.mark.slow
def test_the_api_itself(tmp_path: Path) -> None:
    """Matching and encoding, too; of these boxes the suppression drops none."""
    from ssdlite_caffe.imports import import_keras

    _, tf = import_keras()
    from ssdlite_caffe.keras.targets import assign

    random = np.random.default_rng(5)
    data = batch(5, count=400, share=0.0)
    defaults = data.defaults.astype(np.float32)
    objects = [defaults[i::90] + random.uniform(-0.03, 0.03, defaults[i::90].shape).astype(np.float32) for i in (0, 1)]
    objects.append(np.zeros((0, 4), np.float32))
    ids = [random.integers(1, 5, len(boxes)).astype(np.int32) for boxes in objects]
    given = {f"boxes{i}": boxes for i, boxes in enumerate(objects)} | {f"labels{i}": one for i, one in enumerate(ids)}
    encodings, logits = data.encodings.astype(np.float32), data.logits.astype(np.float32)
    np.savez(tmp_path / "batch.npz", defaults=defaults, encodings=encodings, logits=logits, **given)
    api_losses(tmp_path / "batch.npz", tmp_path / "losses.json")

    variances = 0.1, 0.1, 0.2, 0.2
    assigned = [
        assign(tf.constant(boxes), tf.constant(one), tf.zeros(len(one), tf.bool), defaults, variances)
        for boxes, one in zip(objects, ids, strict=True)
    ]
    wanted, labels, _ = (np.stack([np.asarray(part) for part in parts]) for parts in zip(*assigned, strict=True))
    compared = Batch(defaults, encodings, logits, wanted, labels)
    assert (labels > 0).sum() > 20
    worst = 0.0
    cases = json.loads((tmp_path / "losses.json").read_text())
    assert len(cases) == 36
    for kind, mined, (by_matches, by_codesize), expected in cases:
        least = mined[1] if mined else 3
        found = our_loss(compared, kind, by_matches=by_matches, by_codesize=by_codesize, least=least)
        worst = max(worst, *(abs(one / other - 1) for one, other in zip(found, expected, strict=True)))
    print(worst)
    assert worst < API_LOSS


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("by_matches", "by_codesize"), list(itertools.product((True, False), repeat=2)))
def test_both_switches(kind: str, by_matches: bool, by_codesize: bool) -> None:
    data = batch(1)
    localisation, classification, dropped = api_loss(data, kind, by_matches=by_matches, by_codesize=by_codesize)
    found = our_loss(data, kind, by_matches=by_matches, by_codesize=by_codesize)
    assert not dropped, "boxes that the API's miner drops are left out of the comparison"
    assert found == pytest.approx((localisation, classification), rel=1e-5)  # measured: below 1e-6


@pytest.mark.parametrize("least", [0, 3])
@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
def test_images_without_objects(kind: str, least: int) -> None:
    """The lowest number of background boxes of an image, as of V1's and of V2's configuration in the zoo."""
    data = batch(2, share=0.0)
    expected = api_loss(data, kind, by_matches=True, by_codesize=True, least=least)[:2]
    assert our_loss(data, kind, by_matches=True, by_codesize=True, least=least) == pytest.approx(expected, rel=1e-5)
    assert (expected[1] > 0) == (least > 0)
