"""Average precision as Pascal VOC defines it.

Boxes are corners xmin, ymin, xmax, ymax with the area (xmax - xmin) * (ymax - ymin), as in Caffe's DetectionEvaluate;
VOC's own code counts whole pixels, both edges included.

Source: the development kit of PASCAL VOC 2012, section 4.4 of its documentation; bbox_util.cpp of Caffe's SSD branch,
ComputeAP ("11point", "MaxIntegral").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

DoubleArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Boxes:
    """Boxes of one class in one image.

    Attributes:
        corners: float64 (N, 4).
        difficult: bool (N,): objects that do not have to be found; to detect them is not an error.
    """

    corners: DoubleArray
    difficult: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ScoredBoxes:
    """Detections of one class in one image.

    Attributes:
        corners: float64 (M, 4).
        scores: float64 (M,).
    """

    corners: DoubleArray
    scores: DoubleArray


@dataclass(frozen=True)
class Curve:
    """Precision and recall of detections, by falling score.

    Attributes:
        hits: int64 (K,): true positives among the first 1, 2, ... K detections; detections of difficult objects are
            not counted.
        scores: float64 (K,): score of each detection, falling.
        positives: number of objects to find.
    """

    hits: npt.NDArray[np.int64]
    scores: DoubleArray
    positives: int

    @property
    def precision(self) -> DoubleArray:
        """Share of the first 1, 2, ... K detections that are right."""
        return self.hits / np.arange(1, len(self.hits) + 1)

    @property
    def recall(self) -> DoubleArray:
        """Share of the objects that the first 1, 2, ... K detections find; NaN without objects."""
        return self.hits / (self.positives or np.nan)

    @property
    def eleven_point(self) -> float:
        """AP of VOC 2007; NaN without objects.

        Mean over the recalls 0, 0.1, ... 1 of the best precision at this recall or above.
        """
        if not self.positives:
            return float("nan")
        best = _best_from(self.precision)
        # With integers, since in floating point a recall of 3 / 10 may be below 0.3.
        reached = [int(np.searchsorted(self.hits * 10, step * self.positives)) for step in range(11)]
        return float(sum(best[i] for i in reached if i < len(best)) / 11)

    @property
    def area(self) -> float:
        """AP of VOC 2010 and later; NaN without objects.

        Area under the curve of the best precision at each recall or above.
        """
        if not self.positives:
            return float("nan")
        gained = np.diff(self.hits, prepend=0)
        return float(np.sum(_best_from(self.precision) * gained) / self.positives)


def _best_from(precision: DoubleArray) -> DoubleArray:
    """Largest of each value and all after it."""
    best: DoubleArray = np.maximum.accumulate(precision[::-1])[::-1]
    return best


def curve(images: Sequence[tuple[Boxes, ScoredBoxes]], *, overlap: float = 0.5) -> Curve:
    """Match the detections of one class with its objects, over all images.

    A detection is right if the object with the highest IoU has an IoU of at least `overlap`, and no detection with a
    higher score was matched with it. If that object is difficult, the detection is not counted. Equal scores keep the
    order of the images.

    Args:
        images: objects and detections of each image, in the same units.
        overlap: least IoU of a match.
    """
    judged = [_judge(boxes, found, overlap) for boxes, found in images]
    hit = np.concatenate([np.empty(0, np.int8), *(verdict for verdict, _ in judged)])
    scores = np.concatenate([np.empty(0), *(score for _, score in judged)])
    counted = hit >= 0
    return of_verdicts(
        scores[counted], hit[counted] == 1, sum(int(np.count_nonzero(~boxes.difficult)) for boxes, _ in images)
    )


def of_verdicts(scores: DoubleArray, right: npt.NDArray[np.bool_], positives: int) -> Curve:
    """The curve of detections that have been matched: scores (K,) in any order, and which are right (K,)."""
    order = np.argsort(-scores, kind="stable")
    return Curve(np.cumsum(right[order], dtype=np.int64), scores[order], positives)


def _judge(boxes: Boxes, found: ScoredBoxes, overlap: float) -> tuple[npt.NDArray[np.int8], DoubleArray]:
    """For each detection, best first: 1 for right, 0 for wrong, -1 for not counted; and the scores."""
    order = np.argsort(-found.scores, kind="stable")
    verdicts = np.zeros(len(order), np.int8)
    if len(boxes.corners) and len(order):
        overlaps = iou(found.corners[order], boxes.corners)
        best = overlaps.argmax(axis=1)
        taken = np.zeros(len(boxes.corners), np.bool_)
        for i in np.flatnonzero(overlaps[np.arange(len(order)), best] >= overlap):
            if boxes.difficult[best[i]]:
                verdicts[i] = -1
            elif not taken[best[i]]:
                taken[best[i]] = True
                verdicts[i] = 1
    return verdicts, found.scores[order]


def iou(one: DoubleArray, other: DoubleArray) -> DoubleArray:
    """Intersection over union of every pair of boxes, (N, 4) and (M, 4), as (N, M); 0 for boxes without area."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=2)
    areas = [np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1) for boxes in (one, other)]
    union = areas[0][:, None] + areas[1][None, :] - shared
    ratio: DoubleArray = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return ratio
