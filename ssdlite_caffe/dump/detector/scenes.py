"""Made-up outputs of a detector's predictors, and the detections that the settings say they lead to.

A scene has boxes at chosen places: in cells of a grid, where none overlaps, and anywhere, also across the image's edges
and outside of it. No two scores are equal, and no overlap is close to the IoU threshold, so that rounding decides
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.dump.graph.execution_ops import Corners, overlaps, suppress
from ssdlite_caffe.dump.graph.tensors import Array

Vector = npt.NDArray[np.float64]
Scales = tuple[float, float, float, float]
Window = tuple[float, float]

WHOLE: Window = (1.0, 1.0)

NEVER = -1e4
"""A logit whose sigmoid is 0 in float32."""
_MARGIN = 1e-3
"""Least distance of an overlap from the IoU threshold."""
_PAIRS = 1 << 16
"""Most pairs of boxes that are compared at a time."""


@dataclass(frozen=True)
class Rules:
    """How detections are chosen: a detector's settings, all of which are known.

    Attributes:
        default_boxes: (N, 4), ymin, xmin, ymax, xmax.
        scales: of the box coder, (y, x, height, width).
        classes: counts background.
        converter: from logits to scores.
        logit_scale: factor of logits before it.
        iou_threshold, score_threshold, max_per_class, max_total, clip_first: see `gen_model.arch.Nms`.
    """

    default_boxes: Array
    scales: Scales
    classes: int
    converter: str
    logit_scale: float
    iou_threshold: float
    score_threshold: float
    max_per_class: int
    max_total: int
    clip_first: bool


@dataclass(frozen=True)
class Scene:
    """One image's boxes and scores.

    Attributes:
        boxes: float64 (N, 4), ymin, xmin, ymax, xmax as fractions of the network input.
        scores: float64 (N, classes); 0 is a score that no detection has. Column 0, the background, is not one.
        window: (height, width) of the image within the network input, as fractions; less than 1 where it is padded.
    """

    boxes: Vector
    scores: Vector
    window: Window = WHOLE


def scenes(rules: Rules, windows: Sequence[Window] = (WHOLE,), seed: int = 0) -> list[Scene]:
    """A crowded image with more detections than the limits allow, two with few, and one without.

    Args:
        rules: how detections are chosen.
        windows: of the images, used in turn.
        seed: of boxes and scores.
    """
    rng = np.random.default_rng(seed)
    count = len(rules.default_boxes)
    crowd = min(count, 2 * rules.max_per_class + 2 * rules.max_total + 40)
    few = max(1, min(count, rules.max_total // 2, rules.max_per_class, 40))
    counts = (crowd, few, few, 0)
    return [
        _scene(rules, rng, count, windows[number % len(windows)], crowded=number == 0)
        for number, count in enumerate(counts)
    ]


def _scene(rules: Rules, rng: np.random.Generator, count: int, window: Window, *, crowded: bool) -> Scene:
    size = len(rules.default_boxes)
    boxes, scores = rules.default_boxes.astype(np.float64), np.zeros((size, rules.classes))
    scores[:, 0] = rng.uniform(0.5, 0.99, size)
    rows = rng.permutation(size)[:count]
    single = np.arange(count) % 8 < 4 if crowded else np.arange(count) % 4 == 0
    placed = np.where(single[:, None], _in_cells(rng, count), _anywhere(rng, count))
    keep = _without_doubt(placed, rules, window)
    rows, placed, single = rows[keep], placed[keep], single[keep]
    boxes[rows] = placed
    least = max(rules.score_threshold, 0.0)
    levels = least + (0.98 - least) * np.linspace(0.05, 1, max(2, 2 * len(rows)))[::-1]
    if least > 0.01:  # the last ones are below the threshold
        levels[-max(1, len(levels) // 8) :] = least * np.linspace(0.9, 0.6, max(1, len(levels) // 8))
    classes = rng.integers(1, rules.classes, len(rows))
    if crowded:  # the best are of one class, more of them than its limit
        best = np.argsort(~single, kind="stable")[: rules.max_per_class + 5]
        classes[best] = 1
        others = np.ones(len(rows), bool)
        others[best] = False
        order = np.concatenate([best, rng.permutation(np.flatnonzero(others))])
    else:
        order = rng.permutation(len(rows))
    taken = levels[: 2 * len(rows) : 2]
    if not crowded:
        taken = levels[rng.permutation(len(levels))[: len(rows)]]
    scores[rows[order], classes[order]] = taken
    if rules.converter != "softmax" and rules.classes > 2:  # some boxes are of two classes
        second = 1 + classes % (rules.classes - 1)
        twice = np.flatnonzero(rng.random(len(rows)) < 0.2)
        spare = np.asarray(sorted({*levels} - {*taken}))  # np.setdiff1d imports numpy's masked arrays, which takes long
        twice = twice[: len(spare)]
        scores[rows[twice], second[twice]] = rng.permutation(spare)[: len(twice)]
    return Scene(boxes, scores, window)


def _in_cells(rng: np.random.Generator, count: int) -> Vector:
    """Boxes (count, 4), each in a cell of its own of a grid over the image."""
    side = int(np.ceil(np.sqrt(max(count, 1))))
    y, x = np.divmod(rng.permutation(side * side)[:count], side)
    low = np.stack([y, x], axis=1) + rng.uniform(0.05, 0.25, (count, 2))
    return np.concatenate([low, low + rng.uniform(0.3, 0.7, (count, 2))], axis=1) / side


def _anywhere(rng: np.random.Generator, count: int) -> Vector:
    """Boxes (count, 4) in the image and across its edges, and two of eight outside, on each side in turn."""
    centre = rng.uniform(-0.05, 1.05, (count, 2))
    half = rng.uniform(0.02, 0.4, (count, 2)) / 2
    outside = np.arange(6, count, 8)
    sides = (np.arange(len(outside)) + rng.integers(4)) % 4
    centre[outside, sides // 2] = np.where(sides % 2, 1.5, -0.5)
    pairs = np.arange(1, count, 2)  # every other box lies close to the one before it
    centre[pairs] = centre[pairs - 1] + rng.uniform(-0.25, 0.25, (len(pairs), 2)) * half[pairs - 1]
    half[pairs] = half[pairs - 1] * rng.uniform(0.8, 1.25, (len(pairs), 2))
    return np.concatenate([centre - half, centre + half], axis=1)


def _without_doubt(boxes: Vector, rules: Rules, window: Window) -> npt.NDArray[np.intp]:
    """The boxes of which no two overlap by about the IoU threshold, clipped to the image or not."""
    corners = Corners.of(np.stack([boxes, np.clip(boxes, 0, np.asarray(2 * window))]))
    kept = np.zeros(len(boxes), bool)
    rows = max(1, _PAIRS // max(1, len(boxes)))
    for start in range(0, len(boxes), rows):
        end = min(start + rows, len(boxes))
        ious = overlaps(corners.at(np.s_[:, start:end, None]), corners.at(np.s_[:, None, :end]))
        doubtful = np.any((ious > 0) & (np.abs(ious - rules.iou_threshold) < _MARGIN), axis=0)
        for index in range(start, end):
            kept[index] = not (doubtful[index - start, :index] & kept[:index]).any()
    return np.flatnonzero(kept)


def encodings_of(rules: Rules, scene: Scene) -> Array:
    """float32 (N, 4): ty, tx, th, tw, which the box coder decodes to the scene's boxes."""
    low, high = rules.default_boxes[:, :2].astype(np.float64), rules.default_boxes[:, 2:].astype(np.float64)
    size, centre = high - low, (low + high) / 2
    sizes, centres = scene.boxes[:, 2:] - scene.boxes[:, :2], (scene.boxes[:, :2] + scene.boxes[:, 2:]) / 2
    with np.errstate(all="ignore"):
        codes = np.concatenate([(centres - centre) / size, np.log(sizes / size)], axis=1)
        return np.asarray(codes * np.asarray(rules.scales), np.float32)


def logits_of(rules: Rules, scene: Scene) -> Array:
    """float32 (N, classes): the class logits whose scores are the scene's."""
    scores = scene.scores.copy()
    with np.errstate(all="ignore"):
        if rules.converter == "identity":
            return (scores / rules.logit_scale).astype(np.float32)
        if rules.converter == "softmax":
            scores[:, 0] = 1 - scores[:, 1:].sum(axis=1)
            found = np.log(scores, where=scores > 0, out=np.full(scores.shape, NEVER))
        else:
            found = np.log(scores / (1 - scores), where=scores > 0, out=np.full(scores.shape, NEVER))
        return (found / rules.logit_scale).astype(np.float32)


def expected(rules: Rules, scene: Scene) -> tuple[Vector, Vector, npt.NDArray[np.int64]]:
    """The detections that a scene leads to: boxes (M, 4), scores (M,) and classes (M,), best first.

    As `runtimes.decode.choose_detections` chooses them, which stands above this package.
    """
    window = np.asarray(2 * scene.window)
    clipped = np.clip(scene.boxes, 0, window)
    inside = (clipped[:, 2:] - clipped[:, :2]).prod(axis=1) > 0
    compared = clipped if rules.clip_first else scene.boxes
    found: list[tuple[float, int, int]] = []
    for number in range(1, rules.classes):
        column = scene.scores[:, number]
        above = np.flatnonzero((column > rules.score_threshold) & (inside | (not rules.clip_first)))
        kept = above[suppress(compared[above], column[above], rules.max_per_class, rules.iou_threshold)]
        found.extend((-float(column[index]), number, int(index)) for index in kept if inside[index])
    found = sorted(found)[: rules.max_total]
    rows = [index for _, _, index in found]
    scores = np.asarray([-score for score, _, _ in found], np.float64)
    return clipped[rows] / window, scores, np.asarray([number for _, number, _ in found], np.int64)
