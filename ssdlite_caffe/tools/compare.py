"""Comparing the outputs of two detectors: arrays by their largest difference, detections in pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.runtimes.detections import Detections


@dataclass(frozen=True)
class Difference:
    """Largest differences of two arrays.

    Attributes:
        shape: of the first array.
        absolute: max |a - b|; NaN or Inf if one of the arrays has such a value, Inf if the shapes differ.
        relative: absolute / max |b|, where b is the reference.
    """

    shape: tuple[int, ...]
    absolute: float
    relative: float


def difference(got: npt.NDArray[np.float32], reference: npt.NDArray[np.float32]) -> Difference:
    """Compare two arrays; the difference of arrays with different shapes is Inf."""
    if got.shape != reference.shape:
        return Difference(got.shape, float("inf"), float("inf"))
    if got.size == 0:
        return Difference(got.shape, 0.0, 0.0)
    absolute = float(np.abs(got.astype(np.float64) - reference).max())
    largest = float(np.abs(reference).max())
    return Difference(got.shape, absolute, absolute / largest if largest else absolute)


@dataclass(frozen=True)
class DetectionDifference:
    """Differences between the detections of two sides in one image.

    Attributes:
        paired: number of pairs of the same class within the tolerances.
        box, score: largest differences of the pairs.
        unpaired: descriptions of the detections without a partner, except those that may have been cut by a limit.
    """

    paired: int
    box: float
    score: float
    unpaired: tuple[str, ...]


def compare_detections(
    got: Detections,
    reference: Detections,
    *,
    box_tolerance: float,
    score_tolerance: float,
    max_total: int,
    score_threshold: float = 0.0,
) -> DetectionDifference:
    """Pair the detections of two sides, one to one.

    Two detections can be a pair if they have the same class and differ by no more than the tolerances. A detection
    without a partner is excused if the other side may have cut it: its score is, up to the tolerance, at the score
    threshold, or not above the last score of a side that has `max_total` detections.

    Args:
        got: detections of one side.
        reference: detections of the other side.
        box_tolerance: largest difference of a corner, as a fraction of the image.
        score_tolerance: largest difference of the scores.
        max_total: largest number of detections of a side.
        score_threshold: least score of a detection.
    """

    def excused(score: float, other: Detections) -> bool:
        full = len(other.scores) >= max_total
        last = float(np.min(other.scores)) if full else score_threshold
        return float(score) <= last + score_tolerance and (full or score_threshold > 0)

    free = set(range(len(got.scores)))
    box = score = 0.0
    paired = 0
    alone: list[str] = []
    for i in range(len(reference.scores)):
        candidates = [
            (float(np.abs(got.boxes[j] - reference.boxes[i]).max()), j)
            for j in free
            if got.classes[j] == reference.classes[i]
            and abs(float(got.scores[j]) - float(reference.scores[i])) <= score_tolerance
        ]
        distance, j = min(candidates, default=(float("inf"), -1))
        if distance <= box_tolerance:
            free.remove(j)
            paired += 1
            box = max(box, distance)
            score = max(score, abs(float(got.scores[j]) - float(reference.scores[i])))
        elif not excused(reference.scores[i], got):
            alone.append(f"only in the reference: {describe(reference, i)}")
    alone += [
        f"not in the reference: {describe(got, j)}" for j in sorted(free) if not excused(got.scores[j], reference)
    ]
    return DetectionDifference(paired, box, score, tuple(alone))


def describe(detections: Detections, i: int) -> str:
    """A detection as text."""
    corners = ", ".join(f"{v:.4f}" for v in detections.boxes[i])
    return f"class {int(detections.classes[i])}, score {float(detections.scores[i]):.5f}, box ({corners})"
