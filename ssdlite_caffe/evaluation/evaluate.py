"""Average precision of a detector on annotated images, in one or several runtimes."""

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
from ssdlite_caffe.errors import DatasetError, ImageError, ModelError
from ssdlite_caffe.evaluation.average_precision import Boxes, Curve, ScoredBoxes, curve
from ssdlite_caffe.evaluation.coco_metrics import coco_metrics
from ssdlite_caffe.evaluation.detectors import RUNTIMES, ModelForms
from ssdlite_caffe.runtimes.class_names import label_map_of
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.keras_file import keras_file
from ssdlite_caffe.runtimes.model_folder import REPORT, ModelFolder

_MOST_PROBLEMS = 20


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
        names: class names, by class id.
        problems: what was skipped in the data, and why.
    """

    model: str
    data: str
    images: int
    names: tuple[str, ...]
    scores: tuple[Score, ...]
    problems: tuple[str, ...]

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
                    "classes": {
                        self._key(class_id): {"objects": one.objects, **plain(one)}
                        for class_id, one in score.classes.items()
                    },
                }
                for score in self.scores
            },
            "problems": list(self.problems),
        }

    def _key(self, class_id: int) -> str:
        """What JSON calls a class: its name, with the class id where another class has the same name."""
        name = self.names[class_id]
        return name if self.names.count(name) == 1 else f"{name} ({class_id})"


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
    """Find the forms of a detector.

    Args:
        path: a folder that `convert` wrote, or a TensorFlow, Keras or TensorFlow Lite model.
        tensorflow: the model that the folder was converted from; None: the path in the folder's report.
        keras: the same detector as a Keras model.
        tflite: the same detector as a TensorFlow Lite model.
        label_map: `coco`, `voc` or a file, in place of the model's class names. A TensorFlow model needs it, unless
            `keras export pb` wrote a label map beside it.

    Raises:
        SsdliteError: `path` is none of these, or the label map does not fit.
    """
    labels, _ = label_map_of(path, label_map)
    if tflite is not None and tflite.is_dir():
        tflite = next((o.path for o in all_of(tflite) if o.kind == "TensorFlow Lite"), tflite)
    if path.is_dir() and not (path / REPORT).is_file():
        with contextlib.suppress(ModelError):  # the checks below raise a better error
            located = locate(path)
            path = located.path if located.kind == "TensorFlow Lite" else path
    path = keras_file(path) or path
    kind = model_kind(path)
    if kind:
        from ssdlite_caffe.keras.detectors import labels_of

        forms = {"tensorflow": tensorflow, "keras": keras, "tflite": tflite, kind: path}
        return ModelForms(labels or labels_of(path), None, **forms)
    if not (path / REPORT).is_file():
        if not path.exists():
            raise DatasetError(
                f"{path} does not exist; give a folder that `convert` wrote, or a TensorFlow, Keras or TFLite model"
            )
        if labels is None:
            raise DatasetError(f"{path} is not a converted model, so its class names are not known; give --label-map")
        return ModelForms(labels, None, path, keras, tflite)
    folder = ModelFolder.open(path)
    if labels is not None:
        check_classes(labels, folder.arch.num_classes)
    if tensorflow is None:
        known = folder.report.get("source")
        place = known.get("path") if isinstance(known, dict) else None
        there = Path(place) if isinstance(place, str) and Path(place).exists() else None
        kind = "" if there is None else model_kind(there)
        if kind == "tflite":
            tflite = tflite or there
        elif kind == "keras":
            keras = keras or there
        else:
            tensorflow = there
    return ModelForms(labels or folder.labels, folder, tensorflow, keras, tflite)


def model_kind(path: Path) -> str:
    """`keras` or `tflite`, by the suffix of the file; empty for any other."""
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
    with contextlib.ExitStack() as stack:
        detectors = {name: stack.enter_context(RUNTIMES[name](model)) for name in runtimes}
        for image in images:
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
            if len(truth) == limit:
                break
    progress(total, total)
    problems = tuple(map(str, images.problems))
    if not any(truth):
        listed = f"; {len(problems)} problems, the first: {problems[0]}" if problems else ""
        raise DatasetError(f"{data or 'the data'} has no object of the model's classes{listed}")
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
