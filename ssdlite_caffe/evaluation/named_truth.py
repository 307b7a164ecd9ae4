"""The annotated objects of images that are known by name, for detections that were computed elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssdlite_caffe.coco.label_map import LabelMap
from ssdlite_caffe.data.annotations import Box
from ssdlite_caffe.data.labelled_images import open_named
from ssdlite_caffe.errors import DatasetError, ImageError

_SHOWN = 6


@dataclass(frozen=True)
class NamedTruth:
    """Annotations of images, in the order of their names.

    Attributes:
        data: where they are.
        boxes: objects of each image.
        sizes: (height, width) of each image as it was annotated.
        names: class names by class id.
        problems: what was skipped, and why.
    """

    data: str
    boxes: tuple[tuple[Box, ...], ...]
    sizes: tuple[tuple[int, int], ...]
    names: tuple[str, ...]
    problems: tuple[str, ...]


def read_truth(data: Path, labels: LabelMap, names: Sequence[str], *, images: Path | None = None) -> NamedTruth:
    """Read the annotations of images.

    Args:
        data: a folder in VOC's layout, an LMDB, or COCO's instances_*.json.
        labels: the detector's classes.
        names: of the images, without suffix.
        images: folder of COCO's images.

    Raises:
        DatasetError: an image has no annotations that can be used, or none has an object of these classes.
        ImageError: an annotated image cannot be read.
    """
    opened, places = open_named(data, labels, names, images=images)
    boxes, sizes = [], []
    problems = [str(problem) for problem in opened.problems]
    for name in names:
        try:
            image, wrong = opened.read(places[name])
        except ImageError as error:
            raise ImageError(f"{name}: {error}") from error
        boxes.append(image.boxes)
        sizes.append((image.pixels.shape[0], image.pixels.shape[1]))
        problems += map(str, wrong)
    if not any(not box.difficult for each in boxes for box in each):
        known = ", ".join(labels.display_names[1 : _SHOWN + 1]) + (", ..." if len(labels) > _SHOWN + 1 else "")
        first = f"; {len(problems)} problems, the first: {problems[0]}" if problems else ""
        raise DatasetError(f"{data} has no object of the classes {known} in these images{first}")
    return NamedTruth(str(data), tuple(boxes), tuple(sizes), labels.display_names, tuple(problems))
