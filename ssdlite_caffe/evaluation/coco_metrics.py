"""Average precision as COCO defines it, computed by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.data.annotations import Box
from ssdlite_caffe.errors import MissingRuntimeError
from ssdlite_caffe.runtimes.detections import Detections

_IOU_50, _IOU_75 = 0, 5
"""Indices of these thresholds in pycocotools' ten, 0.50 to 0.95."""
_ALL_AREAS, _MOST_DETECTIONS = 0, -1


@dataclass(frozen=True)
class CocoMetrics:
    """AP, 0 to 1, as the mean over the IoUs 0.50 to 0.95, at 0.50 and at 0.75; NaN without objects.

    Attributes:
        ap, ap50, ap75: means over the classes.
        by_class: (ap, ap50, ap75) of each class id.
    """

    ap: float
    ap50: float
    ap75: float
    by_class: dict[int, tuple[float, float, float]]


def coco_metrics(
    truth: Sequence[Sequence[Box]],
    found: Sequence[Detections],
    sizes: Sequence[tuple[int, int]],
    classes: Sequence[int],
) -> CocoMetrics:
    """Evaluate detections as COCO does, with at most 100 in each image.

    Args:
        truth: objects of each image; difficult ones are treated as COCO's crowds: neither they nor detections on them
            are counted.
        found: detections of each image, boxes as fractions of it.
        sizes: (height, width) of each image.
        classes: class ids to evaluate.

    Raises:
        MissingRuntimeError: pycocotools is not installed.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise MissingRuntimeError(
            f"this needs pycocotools ({error}); install it with: pip install 'ssdlite-caffe[evaluation]'"
        ) from error

    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = _truth(truth, sizes, classes)
        reference.createIndex()
        results = COCO()
        results.dataset = _results(reference.dataset, found, sizes)
        results.createIndex()
        evaluation = COCOeval(reference, results, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    # Axes: IoU threshold, recall, class, area, number of detections; -1 where there are no objects.
    precision = evaluation.eval["precision"][:, :, :, _ALL_AREAS, _MOST_DETECTIONS]
    by_class = {label: _means(precision[:, :, k]) for k, label in enumerate(classes)}
    return CocoMetrics(*_means(precision), by_class=by_class)


def _means(precision: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    def mean(values: npt.NDArray[np.float64]) -> float:
        counted = values[values > -1]
        return float(counted.mean()) if counted.size else float("nan")

    return mean(precision), mean(precision[_IOU_50]), mean(precision[_IOU_75])


def _truth(
    truth: Sequence[Sequence[Box]], sizes: Sequence[tuple[int, int]], classes: Sequence[int]
) -> dict[str, list[dict[str, Any]]]:
    annotations: list[dict[str, Any]] = []
    for number, boxes in enumerate(truth):
        for label, xmin, ymin, xmax, ymax, difficult in boxes:
            annotations.append(_annotation(len(annotations), number, label, (xmin, ymin, xmax, ymax), int(difficult)))
    return {
        "images": [{"id": n, "height": height, "width": width} for n, (height, width) in enumerate(sizes)],
        "categories": [{"id": label, "name": str(label)} for label in classes],
        "annotations": annotations,
    }


def _results(
    reference: dict[str, list[dict[str, Any]]], found: Sequence[Detections], sizes: Sequence[tuple[int, int]]
) -> dict[str, list[dict[str, Any]]]:
    annotations: list[dict[str, Any]] = []
    for number, (detections, (height, width)) in enumerate(zip(found, sizes, strict=True)):
        boxes = (detections.boxes.astype(np.float64) * [width, height, width, height]).tolist()
        for label, score, box in zip(detections.classes.tolist(), detections.scores.tolist(), boxes, strict=True):
            annotations.append({**_annotation(len(annotations), number, label, tuple(box), 0), "score": score})
    return {**reference, "annotations": annotations}


def _annotation(
    count: int, image: int, label: int, corners: tuple[float, float, float, float], crowd: int
) -> dict[str, Any]:
    xmin, ymin, xmax, ymax = corners
    width, height = xmax - xmin, ymax - ymin
    return {
        "id": count + 1,  # pycocotools uses 0 for "no match"
        "image_id": image,
        "category_id": label,
        "bbox": [xmin, ymin, width, height],
        "area": width * height,
        "iscrowd": crowd,
    }
