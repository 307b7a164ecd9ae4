"""Files of COCO's tools: detections in COCO's result format, and lists of image ids."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ssdlite_caffe.coco.label_map import LabelMap
from ssdlite_caffe.data.annotations import ClassIds, read_bounded
from ssdlite_caffe.data.coco import read_coco_ids
from ssdlite_caffe.data.coco_values import Id
from ssdlite_caffe.errors import DatasetError, ImageError, OutputError
from ssdlite_caffe.files import write_text
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.detector import ImageResult
from ssdlite_caffe.runtimes.images import find_sources

_MAX_BYTES = 1 << 26
_DECIMALS = 3


class CocoResults:
    """Detections in the format of COCO's server and pycocotools: dicts with image_id, category_id, bbox and score."""

    def __init__(self, categories: Mapping[int, Id]) -> None:
        """Start without detections.

        Args:
            categories: the category id of each class id; detections of other classes are skipped.
        """
        self.found: list[dict[str, Any]] = []
        self._categories = categories

    def add(self, image_id: int | str, height: int, width: int, detections: Detections) -> None:
        """Add the detections of an image; height and width are in pixels, and so is `bbox`: x, y, width, height."""
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
        """The content of the file."""
        return json.dumps(self.found) + "\n"


class CocoIds:
    """Ids of images and categories in COCO's result files.

    Attributes:
        categories: the category id of each class id that has one.
    """

    def __init__(self, labels: LabelMap, annotations: Path | None) -> None:
        """Read the ids from annotations.

        Args:
            labels: the model's classes.
            annotations: COCO's instances_*.json or image_info_*.json. None: the id of an image is its file name without
                suffix, as a number if it has only digits, as COCO's image files do; the category id is the class id.

        Raises:
            DatasetError: the annotations cannot be read, or have none of the model's classes.
        """
        self.categories: dict[int, Id] = {class_id: class_id for class_id in range(1, len(labels))}
        self._annotations = annotations
        self._by_path: dict[str, set[Id]] = {}
        self._by_name: dict[str, set[Id]] = {}
        if annotations is None:
            return
        images, names = read_coco_ids(annotations)
        class_ids = ClassIds(labels)
        found = ((class_ids.find(name)[0], number) for number, name in names.items())
        self.categories = {class_id: number for class_id, number in found if class_id is not None}
        if not self.categories:
            known = ", ".join(labels.display_names[1:7])
            raise DatasetError(f"{annotations} has no category that the model knows; the model has {known}")
        for number, name in images:
            path = PurePosixPath(name.replace("\\", "/"))
            self._by_path.setdefault(str(path), set()).add(number)
            self._by_name.setdefault(path.name, set()).add(number)

    def image(self, path: Path) -> int | str:
        """The id of an image file.

        The annotations' image is the one whose `file_name` is the end of `path` or, if there is none, the one with the
        same name in any folder.

        Raises:
            DatasetError: the annotations have no such image, or several.
        """
        if self._annotations is None:
            return int(path.stem) if path.stem.isdecimal() else path.stem
        ends = ("/".join(path.parts[i:]) for i in range(len(path.parts)))
        ids = next((self._by_path[end] for end in ends if end in self._by_path), self._by_name.get(path.name, set()))
        if len(ids) != 1:
            how_many = f"{len(ids)} images" if ids else "no image"
            raise DatasetError(f"{self._annotations} has {how_many} with the file name of {path}")
        return next(iter(ids))


class ResultsFile:
    """A file in COCO's result format, filled image by image.

    Attributes:
        images: number of images that have been added.
    """

    def __init__(self, path: Path, model: Path, labels: LabelMap, inputs: Sequence[Path], annotations: Path | None):
        """Find the ids of all images, before any is processed.

        Args:
            path: the JSON file to write.
            model: the detector's file.
            labels: the detector's classes.
            inputs: images and folders.
            annotations: see `CocoIds`.

        Raises:
            DatasetError: an image has no id, two have the same id, or an input is a video.
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
        """Number of detections that have been added."""
        return len(self._results.found)

    def add(self, result: ImageResult) -> None:
        """Add the detections of an image."""
        if result.path in self._ids:
            self.images += 1
            self._results.add(self._ids[result.path], result.height, result.width, result.detections)

    def write(self, *, force: bool = False) -> None:
        """Write the file, in one step.

        Raises:
            OutputError: it exists and `force` is false, or cannot be written.
        """
        write_text(self._path, self._results.to_json(), force=force)


def image_ids(inputs: Sequence[Path], ids: CocoIds) -> dict[Path, int | str]:
    """The id of each image of the inputs; inputs that do not exist are skipped.

    Raises:
        DatasetError: an image has no id, two have the same id, or an input is a video.
    """
    found: dict[int | str, Path] = {}
    for source in find_sources(inputs):
        if isinstance(source, ImageError):
            continue
        if source.video:
            raise DatasetError(f"{source.path} is a video; COCO's result format is for images only")
        number = ids.image(source.path)
        if number in found:
            raise DatasetError(f"{source.path} and {found[number]} have the same image id, {number}")
        found[number] = source.path
    return {path: number for number, path in found.items()}


def _line_ids(text: str) -> list[str]:
    """Ids on lines; file names may have spaces, numbers are separated by them."""
    found: list[str] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        words = line.split()
        found += words if all(map(str.isdecimal, words)) else [line]
    return found


def read_ids(path: Path) -> frozenset[str]:
    """Read image ids: one on each line, or a JSON list, as COCO's minival lists are; a line may have several numbers.

    Raises:
        DatasetError: it cannot be read, or has no ids.
    """
    try:
        text = read_bounded(path, _MAX_BYTES).decode("utf-8-sig")
        items = json.loads(text) if text.lstrip().startswith("[") else _line_ids(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not a list of ids: {error}") from error
    wrong = [item for item in items if isinstance(item, bool) or not isinstance(item, int | str)]
    if wrong or not items:
        reason = f"{str(wrong[0])[:60]!a} is not an id" if wrong else "it is empty"
        raise DatasetError(f"{path} is not a list of ids: {reason}")
    return frozenset(str(item) for item in items)
