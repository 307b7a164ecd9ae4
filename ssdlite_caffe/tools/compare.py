"""Comparing two detectors' outputs: arrays by their largest difference, detections one to one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.runtimes.detections import Detections


@dataclass(frozen=True)
class Difference:
    """Largest differences of two arrays of one shape.

    Attributes:
        absolute: max |a - b|; NaN or infinite when either holds such a value.
        relative: absolute / max |b|, the reference's largest magnitude.
    """

    shape: tuple[int, ...]
    absolute: float
    relative: float


def difference(got: npt.NDArray[np.float32], reference: npt.NDArray[np.float32]) -> Difference:
    """Compare two arrays; different shapes differ infinitely."""
    if got.shape != reference.shape:
        return Difference(got.shape, float("inf"), float("inf"))
    if got.size == 0:
        return Difference(got.shape, 0.0, 0.0)
    absolute = float(np.abs(got.astype(np.float64) - reference).max())
    largest = float(np.abs(reference).max())
    return Difference(got.shape, absolute, absolute / largest if largest else absolute)


@dataclass(frozen=True)
class DetectionDifference:
    """What remains when the detections of one image are paired.

    Attributes:
        paired: how many have a partner of the same class within the bounds.
        box, score: largest differences among the pairs.
        unpaired: descriptions of those without a partner; ties at the last place do not count.
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

    Two are a pair when they share the class and differ by no more than the bounds. Where a side is full (`max_total`
    detections), one whose score ties with that side's last is not missed: either may have been cut. Nor is one whose
    score is the threshold up to the tolerance.
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
            alone.append(f"only the reference has {_describe(reference, i)}")
    alone += [f"the reference lacks {_describe(got, j)}" for j in sorted(free) if not excused(got.scores[j], reference)]
    return DetectionDifference(paired, box, score, tuple(alone))


def _describe(detections: Detections, i: int) -> str:
    corners = ", ".join(f"{v:.4f}" for v in detections.boxes[i])
    return f"class {int(detections.classes[i])}, score {float(detections.scores[i]):.5f}, box ({corners})"
