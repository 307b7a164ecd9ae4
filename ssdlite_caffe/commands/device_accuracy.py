"""Average precision of a device's detections and of TensorFlow's, for `verify --dump --annotations`.

The one place where the comparison of `tools` and the scores of `evaluation` meet, which do not import each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ssdlite_caffe.errors import DatasetError

if TYPE_CHECKING:
    from ssdlite_caffe.evaluation.named_truth import NamedTruth
    from ssdlite_caffe.runtimes.detections import Detections
    from ssdlite_caffe.runtimes.model_folder import ModelFolder
    from ssdlite_caffe.tools.device_check import DumpReport

_MOST_PROBLEMS = 20
"""Problems of the annotations that are printed, at most; --json has all."""


class Annotations(NamedTuple):
    """What `verify` is told of annotated images; see its options."""

    data: Path | None
    images: Path | None
    label_map: str | None


def read_annotations(
    folder: ModelFolder, dump: Path, images: Sequence[Path], annotations: Annotations
) -> NamedTruth | None:
    """The annotations of the images in a dump; None if none were given. Nothing slow is done.

    Raises:
        SsdliteError: they cannot be read, or do not fit, or pycocotools is not installed.
    """
    from ssdlite_caffe.coco.label_map import check_classes
    from ssdlite_caffe.evaluation.coco_metrics import coco_metrics
    from ssdlite_caffe.evaluation.named_truth import read_truth
    from ssdlite_caffe.runtimes.class_names import label_map_of
    from ssdlite_caffe.tools.device_check import dumped_images

    data = annotations.data
    if data is None:
        return None
    coco_metrics([], [], [], [])  # fails now where pycocotools is missing, and not at the end
    labels = folder.labels
    if annotations.label_map is not None:
        labels = label_map_of(folder.path, annotations.label_map)[0] or labels
        check_classes(labels, folder.arch.num_classes)
    place = annotations.images
    if place is None and len(images) == 1 and images[0].is_dir():
        place = images[0]
    if place is None and data.is_file():
        raise DatasetError(
            f"{data} does not name the folder of the images; give it with --annotated-images, or as --images"
        )
    return read_truth(data, labels, [name for name, _, _ in dumped_images(folder, dump, images)], images=place)


def with_accuracy(
    report: DumpReport, folder: ModelFolder, truth: NamedTruth, pairs: Sequence[tuple[Detections, Detections | None]]
) -> DumpReport:
    """The report with the average precision of both sides; without it, and with a note, where values are NaN or Inf.

    Args:
        report: of the comparison.
        folder: the converted model.
        truth: the annotations of the images.
        pairs: TensorFlow's and the device's detections in each image, as fractions of the net's input.
    """
    from ssdlite_caffe.evaluation.evaluate import score_of
    from ssdlite_caffe.gen_model.arch import LEAST_SCORE, matters
    from ssdlite_caffe.runtimes.decode import detections_of
    from ssdlite_caffe.runtimes.resize import window_of
    from ssdlite_caffe.tools.device_accuracy import DeviceAccuracy, Loss, Precision

    known = [(reference, device) for reference, device in pairs if device is not None]
    if len(known) < len(pairs):
        note = "no average precision: outputs are NaN or Inf"
        return replace(report, notes=(*report.notes, note))
    arch, threshold = folder.arch, folder.arch.nms.score_threshold
    windows = [window_of(size, arch.resizer) for size in truth.sizes]
    tensorflow, device = (
        score_of(
            name, truth.boxes, truth.sizes,
            [detections_of(arch, one[side].above(threshold), window)
             for one, window in zip(known, windows, strict=True)],
        )
        for side, name in enumerate(("tensorflow", "device"))
    )  # fmt: skip
    classes = tuple(
        Loss(truth.names[number], one.objects, Precision(one.ap, one.ap50),
             Precision(device.classes[number].ap, device.classes[number].ap50))
        for number, one in tensorflow.classes.items()
    )  # fmt: skip
    total = Loss(
        "", sum(one.objects for one in classes), Precision(tensorflow.ap, tensorflow.ap50),
        Precision(device.ap, device.ap50),
    )  # fmt: skip
    accuracy = DeviceAccuracy(truth.data, len(pairs), total, classes, threshold, truth.problems)
    notes = [*report.notes, *_some(truth.problems)]
    if matters(threshold):
        notes.append(
            f"detections have scores from {threshold:g}, so both average precisions are lower than the model's; "
            f"to measure, convert with --score-threshold {LEAST_SCORE:g}"
        )
    return replace(report, accuracy=accuracy, notes=tuple(notes))


def _some(problems: Sequence[str]) -> list[str]:
    """The first problems of the annotations, and the number of the others."""
    more = len(problems) - _MOST_PROBLEMS
    return [*problems[:_MOST_PROBLEMS], *([f"and {more} more problems in the annotations"] if more > 0 else [])]
