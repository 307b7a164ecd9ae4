"""Testing a Keras model during its training, on images that it is not trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ssdlite_caffe.coco.label_map import LabelMap
from ssdlite_caffe.data.annotations import Box, count_text
from ssdlite_caffe.data.labelled_images import open_images
from ssdlite_caffe.evaluation.coco_metrics import coco_metrics
from ssdlite_caffe.keras.detectors import KerasDetector
from ssdlite_caffe.keras.model import KerasModel
from ssdlite_caffe.runtimes.detections import Detections

_SHOWN = 10


def open_held_out(
    data: Path,
    labels: LabelMap,
    *,
    split: str,
    images: Path | None,
    limit: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    problem: Callable[[str], None] = lambda line: None,
) -> Callable[[KerasModel], Mapping[str, float]]:
    """Open images to test on.

    Args:
        data: a folder in VOC's layout, an LMDB, or COCO's instances_*.json.
        labels: classes of the models to test.
        split: of VOC data.
        images: folder of COCO's images.
        limit: the first so many images are tested.
        progress: called with images done and images in all.
        problem: called after the first test with what is wrong with the images, and how much was skipped.

    Returns:
        A function from a model to COCO's `ap` and `ap50` in 0..1, NaN where the images have no object.

    Raises:
        DatasetError: the data cannot be used.
        MissingRuntimeError: pycocotools is not installed.
    """
    coco_metrics([], [], [], [])  # fails now where pycocotools is missing, and not in the first test
    source = open_images(data, labels, split=split, images=images)
    total = min(limit, len(source))
    tested = False

    def report() -> None:
        nonlocal tested
        if not tested and source.problems:
            for item in source.problems[:_SHOWN]:
                problem(str(item))
            if len(source.problems) > _SHOWN:
                problem(f"... and {len(source.problems) - _SHOWN} more: {count_text(source.problems)} in all")
        tested = True
        source.problems.clear()  # the next test reads the same images

    def measure(model: KerasModel) -> Mapping[str, float]:
        detect = KerasDetector(model)
        truth: list[tuple[Box, ...]] = []
        sizes: list[tuple[int, int]] = []
        found: list[Detections] = []
        for number, image in enumerate(source, 1):
            truth.append(image.boxes)
            sizes.append((image.pixels.shape[0], image.pixels.shape[1]))
            found.append(detect(image.pixels))
            progress(min(number, total), total)
            if number == total:
                break
        report()
        classes = sorted({box.label for boxes in truth for box in boxes})
        if not classes:
            return {"ap": float("nan"), "ap50": float("nan")}
        metrics = coco_metrics(truth, found, sizes, classes)
        return {"ap": metrics.ap, "ap50": metrics.ap50}

    return measure
