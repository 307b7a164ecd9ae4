"""Average precision of a detector on annotated images, in one or several runtimes."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ssdlite_caffe.data.annotations import Box
from ssdlite_caffe.data.labelled_images import LabelledImage, LabelledImages
from ssdlite_caffe.errors import DatasetError, ImageError
from ssdlite_caffe.evaluation.average_precision import Boxes, Curve, ScoredBoxes, curve
from ssdlite_caffe.evaluation.coco_metrics import coco_metrics
from ssdlite_caffe.evaluation.detectors import RUNTIMES, Detect, Opened
from ssdlite_caffe.evaluation.forms import ModelForms, check_form
from ssdlite_caffe.gen_model.arch import LEAST_SCORE, matters
from ssdlite_caffe.runtimes.detections import Detections

_MOST_PROBLEMS = 20
_MOST_WAITING = 1 << 28
"""Bytes of images that are kept, at most, while the first one with an object is looked for."""


@dataclass(frozen=True)
class ClassScore:
    """Scores of one class, 0 to 1; NaN without objects.

    Attributes:
        objects: number of objects, without difficult ones.
        ap, ap50, ap75: COCO's average precision.
        voc07, voc12: Pascal VOC's, at an IoU of 0.5: over eleven points, and as the area under the curve.
    """

    objects: int
    ap: float
    ap50: float
    ap75: float
    voc07: float
    voc12: float


@dataclass(frozen=True)
class Score:
    """Scores of one runtime: the means over the classes that have objects, and each of these classes.

    Attributes:
        detections: number of detections.
        milliseconds: for each image, with resizing but without decoding the file; NaN if not measured.
        classes: scores by class id.
        curves: precision and recall at an IoU of 0.5, by class id.
        path: the file or folder that the runtime ran; empty if it is not known.
        score_threshold: least score of a detection; None if it is not known.
    """

    runtime: str
    detections: int
    milliseconds: float
    ap: float
    ap50: float
    ap75: float
    voc07: float
    voc12: float
    classes: dict[int, ClassScore]
    curves: dict[int, Curve] = field(repr=False)
    path: str = ""
    score_threshold: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """All scores on one data set.

    Attributes:
        names: class names, by class id.
        problems: what was skipped in the data, and why.
    """

    model: str
    data: str
    images: int
    names: tuple[str, ...]
    scores: tuple[Score, ...]
    problems: tuple[str, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what makes the figures too low."""
        cut: dict[float, list[str]] = {}
        for score in self.scores:
            if score.score_threshold is not None and matters(score.score_threshold):
                cut.setdefault(score.score_threshold, []).append(score.runtime)
        return tuple(
            f"{', '.join(runtimes)}: detections have scores from {threshold:g}, so the average precision is lower than "
            f"the model's; measure with --score-threshold {LEAST_SCORE:g}"
            for threshold, runtimes in cut.items()
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; NaN becomes null."""
        keys = ("ap", "ap50", "ap75", "voc07", "voc12")

        def plain(score: Score | ClassScore) -> dict[str, Any]:
            return {key: _or_none(getattr(score, key)) for key in keys}

        return {
            "model": self.model,
            "data": self.data,
            "images": self.images,
            "runtimes": {
                score.runtime: {
                    **plain(score),
                    "detections": score.detections,
                    "milliseconds": _or_none(score.milliseconds),
                    "path": score.path or None,
                    "score_threshold": None if score.score_threshold is None else float(f"{score.score_threshold:.7g}"),
                    "classes": {
                        self._key(class_id): {"objects": one.objects, **plain(one)}
                        for class_id, one in score.classes.items()
                    },
                }
                for score in self.scores
            },
            "problems": list(self.problems),
            "notes": list(self.notes),
        }

    def _key(self, class_id: int) -> str:
        """What JSON calls a class: its name, with the class id where another class has the same name."""
        name = self.names[class_id]
        return name if self.names.count(name) == 1 else f"{name} ({class_id})"


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def evaluate(
    model: ModelForms,
    images: LabelledImages,
    runtimes: Sequence[str],
    *,
    data: str = "",
    limit: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    seen: Callable[[LabelledImage, str, Detections], None] = lambda image, runtime, detections: None,
) -> Evaluation:
    """Run every runtime on every image, and evaluate the detections.

    Args:
        model: the detector.
        images: annotated with class ids of the detector's label map.
        runtimes: names in RUNTIMES.
        data: name of the images in the result.
        limit: largest number of images to use; None: all.
        progress: called with the number of images done and the total.
        seen: called with each image, the name of the runtime, and its detections.

    Raises:
        SsdliteError: a runtime cannot be used, or no image has an object of the model's classes.
    """
    truth: list[tuple[Box, ...]] = []
    sizes: list[tuple[int, int]] = []
    found: dict[str, list[Detections]] = {name: [] for name in runtimes}
    seconds = dict.fromkeys(runtimes, 0.0)
    total = len(images) if limit is None else min(limit, len(images))
    for name in runtimes:
        check_form(model, name)
    shown = itertools.islice(images, limit)
    waiting = _until_an_object(shown)
    if not any(image.boxes for image in waiting):
        rest = next(shown, None)
        if rest is None:
            raise _no_objects(data, images)
        waiting.append(rest)
    with contextlib.ExitStack() as stack:
        detectors = {name: stack.enter_context(RUNTIMES[name](model)) for name in runtimes}
        for image in itertools.chain(_emptying(waiting), shown):
            progress(len(truth), total)
            truth.append(image.boxes)
            sizes.append((image.pixels.shape[0], image.pixels.shape[1]))
            for name, detect in detectors.items():
                started = time.perf_counter()
                try:
                    found[name].append(detect(image.pixels))
                except ImageError as error:  # the detector does not know the image's name
                    raise ImageError(f"{image.name}: {error}") from error
                seconds[name] += time.perf_counter() - started
                seen(image, name, found[name][-1])
    progress(total, total)
    if not any(truth):
        raise _no_objects(data, images)
    scores = tuple(
        _of_opened(score_of(name, truth, sizes, found[name], 1e3 * seconds[name] / len(truth)), detectors[name])
        for name in runtimes
    )
    problems = tuple(map(str, images.problems))
    return Evaluation(str(model.path), data, len(truth), model.labels.display_names, scores, problems)


def _until_an_object(images: Iterator[LabelledImage]) -> list[LabelledImage]:
    """The first images, to the first with an object: without one no detector need be loaded, which takes seconds."""
    waiting: list[LabelledImage] = []
    held = 0
    for image in images:
        waiting.append(image)
        held += image.pixels.nbytes
        if image.boxes or held > _MOST_WAITING:
            break
    return waiting


def _emptying(images: list[LabelledImage]) -> Iterator[LabelledImage]:
    """The images, of which those that are done are not kept in memory."""
    while images:
        yield images.pop(0)


def _no_objects(data: str, images: LabelledImages) -> DatasetError:
    problems = tuple(map(str, images.problems))
    listed = f"; {len(problems)} problems, the first: {problems[0]}" if problems else ""
    return DatasetError(f"{data or 'the data'} has no object of the model's classes{listed}")


def _of_opened(score: Score, detector: Detect) -> Score:
    if not isinstance(detector, Opened):
        return score
    return dataclasses.replace(score, path=str(detector.path), score_threshold=detector.score_threshold)


def score_of(
    runtime: str,
    truth: Sequence[Sequence[Box]],
    sizes: Sequence[tuple[int, int]],
    found: Sequence[Detections],
    milliseconds: float = math.nan,
) -> Score:
    """The scores of detections.

    Args:
        runtime: what they are of.
        truth: objects of each image.
        sizes: (height, width) of each image.
        found: detections in each image, boxes as fractions of it.
        milliseconds: for each image.

    Raises:
        MissingRuntimeError: pycocotools is not installed.
    """
    classes = sorted({box.label for boxes in truth for box in boxes})
    curves = {class_id: curve(_of_class(class_id, truth, sizes, found)) for class_id in classes}
    coco = coco_metrics(truth, found, sizes, classes)
    by_class = {
        class_id: ClassScore(c.positives, *coco.by_class[class_id], voc07=c.eleven_point, voc12=c.area)
        for class_id, c in curves.items()
    }
    return Score(
        runtime, sum(map(len, found)), milliseconds, coco.ap, coco.ap50, coco.ap75,
        mean([one.voc07 for one in by_class.values()]), mean([one.voc12 for one in by_class.values()]),
        by_class, curves,
    )  # fmt: skip


def mean(values: Sequence[float]) -> float:
    """Mean of the values that are not NaN; NaN if there is none."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else float("nan")


def _of_class(
    class_id: int, truth: Sequence[Sequence[Box]], sizes: Sequence[tuple[int, int]], found: Sequence[Detections]
) -> list[tuple[Boxes, ScoredBoxes]]:
    """The objects and detections of one class, in pixels."""
    pairs = []
    for boxes, (height, width), detections in zip(truth, sizes, found, strict=True):
        own = [box for box in boxes if box.label == class_id]
        corners = np.asarray([box[1:5] for box in own], np.float64).reshape(-1, 4)
        chosen = detections.classes == class_id
        scaled = detections.boxes[chosen].astype(np.float64) * [width, height, width, height]
        pairs.append(
            (
                Boxes(corners, np.asarray([box.difficult for box in own], np.bool_)),
                ScoredBoxes(scaled, detections.scores[chosen].astype(np.float64)),
            )
        )
    return pairs


def problem_lines(evaluation: Evaluation) -> list[str]:
    """The first 20 problems, one on each line, and the number of the others."""
    more = len(evaluation.problems) - _MOST_PROBLEMS
    return [*evaluation.problems[:_MOST_PROBLEMS], *([f"and {more} more"] if more > 0 else [])]
