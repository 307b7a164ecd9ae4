"""Which detections are certain, where boxes and scores are only known to within rounding.

Two correct nets may detect different things where a score is at the threshold, two scores are equal, or an overlap is
at the limit: rounding decides there. `choose` does non-maximum suppression with every comparison answered yes, no or
undecided, so that a candidate is certainly detected, possibly detected, or neither. Detections of another runtime are
right if each is possible and none that is certain is missing (`compare`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.gen_model.arch import Nms
from ssdlite_caffe.runtimes.decode import clip_boxes, overlap
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.tools.compare import DetectionDifference, describe

_Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Candidates:
    """Boxes that are certainly or possibly detected, by falling score.

    Attributes:
        detections: class ids, scores and clipped boxes.
        certain: (M,) whether each is detected however rounding falls.
    """

    detections: Detections
    certain: npt.NDArray[np.bool_]


def choose(
    boxes: _Array, scores: _Array, nms: Nms, *, box_noise: float, score_noise: float, least: float = -np.inf
) -> Candidates:
    """Suppression as TensorFlow does it, with boxes and scores that may be off.

    Args:
        boxes: (N, 4), decoded, not clipped, as fractions of the image.
        scores: (N, C); column 0 is background.
        nms: thresholds and counts.
        box_noise: how far each corner may be off.
        score_noise: how far each score may be off.
        least: candidates with lower scores are not looked at; they change nothing above.
    """
    noise = _Noise(box_noise, score_noise, max(float(np.float32(nms.score_threshold)), least))
    found = [_one_class(boxes, scores[:, number], number, nms, noise) for number in range(1, scores.shape[1])]
    classes, chosen, certain = (np.concatenate(parts) for parts in zip(*found, strict=True))
    values = scores[chosen, classes]
    order = np.argsort(-values, kind="stable")
    classes, chosen, certain, values = classes[order], chosen[order], certain[order], values[order]
    clipped = clip_boxes(boxes[chosen])
    possible, certainly = _inside(boxes[chosen], box_noise)
    certain &= certainly
    among, certainly = _among_the_best(nms.max_total, values[possible], certain[possible], values, score_noise)
    possible &= among
    certain &= certainly
    return Candidates(
        Detections(classes[possible].astype(np.int64), values[possible], clipped[possible]), certain[possible]
    )


@dataclass(frozen=True)
class _Noise:
    """How far corners and scores may be off, and the least score of a candidate."""

    box: float
    score: float
    threshold: float


def _one_class(
    boxes: _Array, scores: _Array, number: int, nms: Nms, noise: _Noise
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """(class id, index, whether it is certain) of each box of a class that may be kept."""
    used = clip_boxes(boxes) if nms.clip_first else boxes
    drops = nms.clip_first and not nms.keep_empty
    possible, certainly_one = _inside(boxes, noise.box) if drops else (np.ones(len(boxes), bool),) * 2
    candidates = np.flatnonzero(possible & (scores > noise.threshold - noise.score))
    candidates = candidates[np.argsort(-scores[candidates], kind="stable")]
    values = scores[candidates]
    certainly_one = certainly_one[candidates] & (values > noise.threshold + noise.score)
    if nms.top_k is not None:
        possibly, certainly = _among_the_best(nms.top_k, values, certainly_one, values, noise.score)
        candidates, certainly_one = candidates[possibly], (certainly_one & certainly)[possibly]
    kept: list[int] = []
    certain: list[bool] = []
    for index, sure in zip(candidates.tolist(), certainly_one.tolist(), strict=True):
        if sum(certain) >= nms.max_per_class and scores[np.asarray(kept)[certain]][nms.max_per_class - 1] > (
            scores[index] + 2 * noise.score
        ):
            break
        state = _state(index, kept, certain, used, scores, nms, noise)
        if state is not None:
            kept.append(index)
            certain.append(state and sure)
    chosen, sure_ones = np.asarray(kept, np.intp), np.asarray(certain, bool)
    possibly, certainly = _among_the_best(nms.max_per_class, scores[chosen], sure_ones, scores[chosen], noise.score)
    chosen, sure_ones = chosen[possibly], (sure_ones & certainly)[possibly]
    return np.full(len(chosen), number, np.intp), chosen, sure_ones


def _inside(boxes: _Array, noise: float) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Whether each box possibly, and certainly, has an area in the image."""
    least = (np.minimum(boxes[:, 2:], 1) - np.maximum(boxes[:, :2], 0)).min(axis=1)
    return least > (-2 * noise if noise else 0), least > 2 * noise


def _among_the_best(
    limit: int, values: _Array, certain: npt.NDArray[np.bool_], scores: _Array, noise: float
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Whether each score is possibly, and certainly, among the `limit` best.

    Args:
        limit: how many remain.
        values: scores of all that are possible, falling.
        certain: which of them are certain.
        scores: the scores to judge, which are among the values.
        noise: how far each may be off.
    """
    at_least = np.searchsorted(-values, -(scores - 2 * noise), side="right")
    surely_above = np.searchsorted(-values[certain], -(scores + 2 * noise), side="left")
    return surely_above < limit, at_least <= limit


def _state(
    index: int, kept: list[int], certain: list[bool], boxes: _Array, scores: _Array, nms: Nms, noise: _Noise
) -> bool | None:
    """Whether a candidate is certainly kept (True), possibly (False), or certainly suppressed (None)."""
    if not kept:
        return True
    others = boxes[kept]
    ratio = overlap(boxes[index][None], others)
    slack = _overlap_noise(boxes[index], others, noise.box)
    limit = float(np.float32(nms.iou_threshold))
    better = scores[kept] - scores[index]
    if ((ratio - slack > limit) & (better > 2 * noise.score) & np.asarray(certain)).any():
        return None
    if not (ratio + slack > limit).any():
        return True
    # The other one comes first for certain but may itself be suppressed, or the two scores cannot be told apart.
    for place in np.flatnonzero((ratio + slack > limit) & (better <= 2 * noise.score)).tolist():
        certain[place] = False
    return False


def _overlap_noise(box: _Array, others: _Array, noise: float) -> _Array:
    """How far the IoU of boxes may be off when each of their corners is.

    Intersection and union change by at most `noise` times the boxes' perimeters; IoU = I / U changes by at most
    (dI + dU) / U.
    """
    sides = [np.maximum(one[..., 2:] - one[..., :2], 0).sum(-1) for one in (box, others)]
    areas = [np.prod(np.maximum(one[..., 2:] - one[..., :2], 0), axis=-1) for one in (box, others)]
    union = np.maximum(areas[0], areas[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        slack = 4 * noise * (sides[0] + sides[1] + 4 * noise) / union
    return np.where(union > 0, slack, np.inf)


def compare(got: Detections, wanted: Candidates, *, box_noise: float, score_noise: float) -> DetectionDifference:
    """Pair a runtime's detections, one to one, with those that are possible.

    Args:
        got: the runtime's detections, clipped to the image.
        wanted: from `choose`.
        box_noise: how far a corner may be from its partner's.
        score_noise: how far a score may be from its partner's.
    """
    theirs = wanted.detections
    free = set(range(len(theirs)))
    pairs: list[tuple[float, float]] = []
    alone: list[str] = []
    for i in range(len(got)):
        near = [
            (gap, j)
            for j in free
            if theirs.classes[j] == got.classes[i]
            and abs(float(theirs.scores[j]) - float(got.scores[i])) <= score_noise
            and (gap := float(np.abs(theirs.boxes[j] - got.boxes[i]).max())) <= box_noise
        ]
        if not near:
            alone.append(f"not in the reference: {describe(got, i)}")
            continue
        # One that is certain first: boxes that are cut at the border may be alike.
        gap, j = min(near, key=lambda pair: (not wanted.certain[pair[1]], pair[0]))
        free.remove(j)
        pairs.append((gap, abs(float(theirs.scores[j]) - float(got.scores[i]))))
    alone += [f"only in the reference: {describe(theirs, j)}" for j in sorted(free) if wanted.certain[j]]
    boxes, scores = (max(values, default=0.0) for values in (zip(*pairs, strict=True) if pairs else ((), ())))
    return DetectionDifference(len(pairs), boxes, scores, tuple(alone))
