"""Files of COCO's tools: detections in its results format, and lists of image ids."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ssdlite_caffe.coco.label_map import LabelMap
from ssdlite_caffe.data.annotations import ClassIds, read_bounded
from ssdlite_caffe.data.coco import read_coco_ids
from ssdlite_caffe.errors import DatasetError, ImageError, OutputError
from ssdlite_caffe.files import write_text
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.detector import ImageResult
from ssdlite_caffe.runtimes.images import find_sources

_MAX_BYTES = 1 << 26
_DECIMALS = 3


class CocoResults:
    """Detections as COCO's servers and pycocotools take them, one dict each: image_id, category_id, bbox, score."""

    def __init__(self, categories: Mapping[int, int]) -> None:
        """Begin.

        Args:
            categories: the category id of each class id; detections of other classes are skipped.
        """
        self.found: list[dict[str, Any]] = []
        self._categories = categories

    def add(self, image_id: int | str, height: int, width: int, detections: Detections) -> None:
        """Take the detections of an image of this size; `bbox` is x, y, width and height in pixels."""
        corners = (detections.boxes.astype(float) * [width, height, width, height]).tolist()
        for label, score, box in zip(detections.classes.tolist(), detections.scores.tolist(), corners, strict=True):
            if label in self._categories:
                xmin, ymin, xmax, ymax = box
                sides = xmin, ymin, xmax - xmin, ymax - ymin
                self.found.append(
                    {
                        "image_id": image_id,
                        "category_id": self._categories[label],
                        "bbox": [round(value, _DECIMALS) for value in sides],
                        "score": round(score, 6),
                    }
                )

    def to_json(self) -> str:
        """The file's text."""
        return json.dumps(self.found) + "\n"


class CocoIds:
    """What results call images and classes.

    Attributes:
        categories: the category id of each class id that has one.
    """

    def __init__(self, labels: LabelMap, annotations: Path | None) -> None:
        """Take the ids of annotations.

        Args:
            labels: the model's.
            annotations: COCO's instances_*.json or image_info_*.json. Without it a file name of digits alone is its id,
                as COCO names its images, any other stands for itself, and the category id is the class id.

        Raises:
            DatasetError: they cannot be read, or have none of the classes.
        """
        self.categories = {row: row for row in range(1, len(labels))}
        self._annotations = annotations
        self._by_path: dict[str, set[int]] = {}
        self._by_name: dict[str, set[int]] = {}
        if annotations is None:
            return
        images, names = read_coco_ids(annotations)
        rows = ClassIds(labels)
        found = ((rows.find(name)[0], number) for number, name in names.items())
        self.categories = {row: number for row, number in found if row is not None}
        if not self.categories:
            known = ", ".join(labels.display_names[1:7])
            raise DatasetError(f"none of the categories of {annotations} is a class of the model: {known}")
        for number, name in images:
            path = PurePosixPath(name.replace("\\", "/"))
            self._by_path.setdefault(str(path), set()).add(number)
            self._by_name.setdefault(path.name, set()).add(number)

    def image(self, path: Path) -> int | str:
        """The id of an image: of the annotations' path that its own ends in or, failing that, of its file name.

        Raises:
            DatasetError: the annotations have no such image, or several.
        """
        if self._annotations is None:
            return int(path.stem) if path.stem.isdecimal() else path.stem
        ends = ("/".join(path.parts[i:]) for i in range(len(path.parts)))
        ids = next((self._by_path[end] for end in ends if end in self._by_path), self._by_name.get(path.name, set()))
        if len(ids) != 1:
            raise DatasetError(f"{path} is {'several' if ids else 'none'} of the images of {self._annotations}")
        return next(iter(ids))


class ResultsFile:
    """A file of COCO's results, for a detector that runs over images.

    Attributes:
        images: how many have been added.
    """

    def __init__(self, path: Path, model: Path, labels: LabelMap, inputs: Sequence[Path], annotations: Path | None):
        """Find the ids of all images before the first is looked at.

        Args:
            path: the JSON file to write.
            model: the detector's file.
            labels: its classes.
            inputs: images and folders.
            annotations: see `CocoIds`.

        Raises:
            DatasetError: an image has no id or shares one, or there is a video among the inputs.
            OutputError: `path` is one of the inputs.
        """
        ids = CocoIds(labels, annotations)
        self.images = 0
        self._path = path
        self._ids = image_ids(inputs, ids)
        self._results = CocoResults(ids.categories)
        if path.resolve() in {known.resolve() for known in (model, annotations, *self._ids) if known}:
            raise OutputError(f"{path} is one of the inputs; give another name")

    @property
    def detections(self) -> int:
        """How many have been added."""
        return len(self._results.found)

    def add(self, result: ImageResult) -> None:
        """Take the detections of an image."""
        if result.path in self._ids:
            self.images += 1
            self._results.add(self._ids[result.path], result.height, result.width, result.detections)

    def write(self, *, force: bool = False) -> None:
        """Write the file, in one step.

        Raises:
            OutputError: it exists and `force` is false, or the disk refuses.
        """
        write_text(self._path, self._results.to_json(), force=force)


def image_ids(inputs: Sequence[Path], ids: CocoIds) -> dict[Path, int | str]:
    """What COCO's results call each image of the inputs; inputs that do not exist are skipped.

    Raises:
        DatasetError: one has no id, several have one, or it is a video.
    """
    found: dict[int | str, Path] = {}
    for source in find_sources(inputs):
        if isinstance(source, ImageError):
            continue
        if source.video:
            raise DatasetError(f"{source.path} is a video, which COCO's result format cannot hold")
        number = ids.image(source.path)
        if number in found:
            raise DatasetError(f"{source.path} and {found[number]} have the same image id, {number}")
        found[number] = source.path
    return {path: number for number, path in found.items()}


def read_ids(path: Path) -> frozenset[str]:
    """Ids of images: one a line, or a JSON list, as lists of COCO minival are.

    Raises:
        DatasetError: it cannot be read, or holds no id.
    """
    try:
        text = read_bounded(path, _MAX_BYTES).decode("utf-8-sig")
        items = json.loads(text) if text.lstrip().startswith("[") else text.split()
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not a list of ids: {error}") from error
    wrong = [item for item in items if isinstance(item, bool) or not isinstance(item, int | str)]
    if wrong or not items:
        raise DatasetError(f"{path} is not a list of ids" + (f": it holds {str(wrong[0])[:60]!a}" if wrong else ""))
    return frozenset(str(item) for item in items)
