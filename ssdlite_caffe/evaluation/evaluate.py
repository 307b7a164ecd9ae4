"""Average precision of a detector on labelled images, in one runtime or in several side by side."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ssdlite_caffe.coco.label_map import check_classes
from ssdlite_caffe.data.annotations import Box
from ssdlite_caffe.data.labelled_images import LabelledImage, LabelledImages
from ssdlite_caffe.dump.locate import all_of, locate
from ssdlite_caffe.errors import DatasetError, ModelError
from ssdlite_caffe.evaluation.average_precision import Boxes, Curve, ScoredBoxes, curve
from ssdlite_caffe.evaluation.coco_metrics import coco_metrics
from ssdlite_caffe.evaluation.detectors import RUNTIMES, ModelForms
from ssdlite_caffe.runtimes.class_names import label_map_of
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.model_folder import ModelFolder

_MOST_PROBLEMS = 20


@dataclass(frozen=True)
class ClassScore:
    """How one class fares; NaN where there is nothing to find.

    Attributes:
        objects: to find, difficult ones not counted.
        ap, ap50, ap75: COCO's.
        voc07, voc12: Pascal VOC's, at an IoU of 0.5: eleven points, and the area under the curve.
    """

    objects: int
    ap: float
    ap50: float
    ap75: float
    voc07: float
    voc12: float


@dataclass(frozen=True)
class Score:
    """How a runtime fares: means over the classes that have objects, and each class.

    Attributes:
        detections: how many it gave.
        milliseconds: an image, resizing included, decoding the file not; NaN where that was not measured.
        classes: by row of the label map.
        curves: precision and recall at an IoU of 0.5, by row.
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


@dataclass(frozen=True)
class Evaluation:
    """All scores on one data set.

    Attributes:
        names: of the classes, by row.
        problems: what was left out of the data, and why.
    """

    model: str
    data: str
    images: int
    names: tuple[str, ...]
    scores: tuple[Score, ...]
    problems: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; null for what does not exist."""
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
                    "classes": {
                        self.names[row]: {"objects": one.objects, **plain(one)} for row, one in score.classes.items()
                    },
                }
                for score in self.scores
            },
            "problems": list(self.problems),
        }


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def open_model_forms(
    path: Path,
    *,
    tensorflow: Path | None = None,
    keras: Path | None = None,
    tflite: Path | None = None,
    label_map: str | None = None,
) -> ModelForms:
    """A folder that convert wrote, or a TensorFlow, Keras or TensorFlow Lite model, and other forms of the same.

    Args:
        path: any of these.
        keras: the same detector as a Keras model.
        tflite: the same detector as a TensorFlow Lite model.
        tensorflow: the model that the folder was converted from; without it, where the folder's report says.
        label_map: class names in place of the folder's; a TensorFlow model has none of its own, but for one beside it
            that `keras export pb` wrote.

    Raises:
        SsdliteError: it is neither, or the label map does not fit.
    """
    labels, _ = label_map_of(path, label_map)
    if tflite is not None and tflite.is_dir():
        tflite = next((o.path for o in all_of(tflite) if o.kind == "TensorFlow Lite"), tflite)
    if path.is_dir() and not (path / "report.json").is_file():
        with contextlib.suppress(ModelError):  # the checks below name what it is instead
            located = locate(path)
            path = located.path if located.kind == "TensorFlow Lite" else path
    kind = model_kind(path)
    if kind:
        from ssdlite_caffe.keras.detectors import labels_of

        forms = {"tensorflow": tensorflow, "keras": keras, "tflite": tflite, kind: path}
        return ModelForms(labels or labels_of(path), None, **forms)
    if not (path / "report.json").is_file():
        if not path.exists():
            raise DatasetError(f"there is no {path}; give a converted folder, or a TensorFlow, Keras or TFLite model")
        if labels is None:
            raise DatasetError(f"{path} is no converted model, so its class names are not known; give --label-map")
        return ModelForms(labels, None, path, keras, tflite)
    folder = ModelFolder.open(path)
    if labels is not None:
        check_classes(labels, folder.arch.num_classes)
    if tensorflow is None:
        known = folder.report.get("source")
        place = known.get("path") if isinstance(known, dict) else None
        there = Path(place) if isinstance(place, str) and Path(place).exists() else None
        if there is not None and model_kind(there) == "tflite":
            tflite = tflite or there
        else:
            tensorflow = there
    return ModelForms(labels or folder.labels, folder, tensorflow, keras, tflite)


def model_kind(path: Path) -> str:
    """`keras` or `tflite` for a file with such a name; else empty."""
    return "keras" if path.name.endswith((".keras", ".h5")) else "tflite" if path.suffix == ".tflite" else ""


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
    """Run every runtime on every image, and judge what it finds.

    Args:
        model: the detector.
        images: labelled with rows of its label map.
        runtimes: names in RUNTIMES.
        data: what to call the images.
        limit: most images to take.
        progress: is told how many images are done, and of how many.
        seen: is told what each runtime found in each image.

    Raises:
        SsdliteError: a runtime cannot be used, or no image can.
    """
    truth: list[tuple[Box, ...]] = []
    sizes: list[tuple[int, int]] = []
    found: dict[str, list[Detections]] = {name: [] for name in runtimes}
    seconds = dict.fromkeys(runtimes, 0.0)
    total = len(images) if limit is None else min(limit, len(images))
    with contextlib.ExitStack() as stack:
        detectors = {name: stack.enter_context(RUNTIMES[name](model)) for name in runtimes}
        for image in images:
            progress(len(truth), total)
            truth.append(image.boxes)
            sizes.append((image.pixels.shape[0], image.pixels.shape[1]))
            for name, detect in detectors.items():
                started = time.perf_counter()
                found[name].append(detect(image.pixels))
                seconds[name] += time.perf_counter() - started
                seen(image, name, found[name][-1])
            if len(truth) == limit:
                break
    progress(total, total)
    problems = tuple(map(str, images.problems))
    if not any(truth):
        listed = f"; {len(problems)} problems, the first: {problems[0]}" if problems else ""
        raise DatasetError(f"{data or 'the data'} has no object of a class that the model knows{listed}")
    scores = tuple(
        _score(name, truth, sizes, found[name], 1e3 * seconds[name] / len(truth)) for name in runtimes
    )  # fmt: skip
    return Evaluation(str(model.path), data, len(truth), model.labels.display_names, scores, problems)


def _score(
    runtime: str,
    truth: Sequence[Sequence[Box]],
    sizes: Sequence[tuple[int, int]],
    found: Sequence[Detections],
    milliseconds: float,
) -> Score:
    classes = sorted({box.label for boxes in truth for box in boxes})
    curves = {row: curve(_of_class(row, truth, sizes, found)) for row in classes}
    coco = coco_metrics(truth, found, sizes, classes)
    by_class = {
        row: ClassScore(c.positives, *coco.by_class[row], voc07=c.eleven_point, voc12=c.area)
        for row, c in curves.items()
    }
    return Score(
        runtime, sum(map(len, found)), milliseconds, coco.ap, coco.ap50, coco.ap75,
        mean([one.voc07 for one in by_class.values()]), mean([one.voc12 for one in by_class.values()]),
        by_class, curves,
    )  # fmt: skip


def mean(values: Sequence[float]) -> float:
    """Of those that exist; NaN when none does."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else float("nan")


def _of_class(
    row: int, truth: Sequence[Sequence[Box]], sizes: Sequence[tuple[int, int]], found: Sequence[Detections]
) -> list[tuple[Boxes, ScoredBoxes]]:
    """The objects and detections of one class, in pixels."""
    pairs = []
    for boxes, (height, width), detections in zip(truth, sizes, found, strict=True):
        own = [box for box in boxes if box.label == row]
        corners = np.asarray([box[1:5] for box in own], np.float64).reshape(-1, 4)
        chosen = detections.classes == row
        scaled = detections.boxes[chosen].astype(np.float64) * [width, height, width, height]
        pairs.append(
            (
                Boxes(corners, np.asarray([box.difficult for box in own], np.bool_)),
                ScoredBoxes(scaled, detections.scores[chosen].astype(np.float64)),
            )
        )
    return pairs


def problem_lines(evaluation: Evaluation) -> list[str]:
    """The first of them, and how many more there are."""
    more = len(evaluation.problems) - _MOST_PROBLEMS
    return [*evaluation.problems[:_MOST_PROBLEMS], *([f"and {more} more"] if more > 0 else [])]
