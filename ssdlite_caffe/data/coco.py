"""Reading data in COCO's format, instances_*.json: images, categories, annotations with boxes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ssdlite_caffe.coco.label_map import LabelMap, check_name
from ssdlite_caffe.data.annotations import (
    Box,
    ClassIds,
    Entry,
    Problem,
    box_text,
    check_size,
    fit_box,
    read_bounded,
    relative_path,
    value_text,
)
from ssdlite_caffe.errors import DatasetError, LabelMapError

_MAX_BYTES = 1 << 30
_UNUSED = ("segmentation", "keypoints", "coco_url", "flickr_url")
"""Most of a file's bytes, and never used: dropped while the file is parsed."""
_MAX_ID = 1 << 62


class CocoDataset:
    """An instances_*.json and its folder of images; see `annotations.Dataset`."""

    def __init__(self, path: Path, images: Path, content: dict[str, Any], label_map: LabelMap | None) -> None:
        """Check the content of `path`; what is wrong with single images goes to `problems`."""
        self.problems: list[Problem] = []
        self._path = path
        self._images = content["images"]
        categories = _category_names(path, content["categories"])
        self.label_map = label_map or _label_map(path, categories)
        class_ids = ClassIds(self.label_map)
        self._class_ids = {number: class_ids.find(name) for number, name in categories.items()}
        self.entries: Sequence[Entry] = list(self._entries(images))
        if not self.entries:
            listed = f": {self.problems[0]}" if self.problems else ""
            raise DatasetError(f"{path} lists no image that can be used{listed}")
        self._annotations = self._by_image(content["annotations"])

    @property
    def category_ids(self) -> dict[int, int]:
        """The file's category id of each class id, for the classes that the file has."""
        return {class_id: number for number, (class_id, _) in self._class_ids.items() if class_id is not None}

    def objects(self, entry: Entry, height: int, width: int) -> tuple[list[Box], list[Problem]]:
        """See `annotations.Dataset.objects`."""
        assert isinstance(entry.annotations, int)
        image = self._images[entry.annotations]
        stated = image.get("height", 0), image.get("width", 0)
        check_size(f"{self._path}: images[{entry.annotations}]", stated, height, width)
        boxes, problems = [], []
        for number, item in self._annotations.get(image["id"], ()):
            box, what = self._box(item, height, width)
            if what:
                problems.append(self._problem("annotations", number, item, what, clipped=box is not None))
            if box:
                boxes.append(box)
        return boxes, problems

    def _box(self, item: dict[str, Any], height: int, width: int) -> tuple[Box | None, str]:
        category, bbox, crowd = item.get("category_id"), item.get("bbox"), item.get("iscrowd", 0)
        if not _is_id(category) or category not in self._class_ids:
            return None, f"category_id {value_text(category)} is not in categories"
        if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(_is_number, bbox)):
            return None, f"bbox {value_text(bbox)} is not a list of four numbers"
        if crowd not in (0, 1):
            return None, f"iscrowd must be 0 or 1, got {value_text(crowd)}"
        class_id, what = self._class_ids[category]
        if class_id is None:
            return None, what
        left, top, wide, high = map(float, bbox)
        if wide < 0 or high < 0:
            return None, f"bbox {box_text(bbox)} has a negative width or height"
        corners, what = fit_box((left, top, left + wide, top + high), height, width)
        return corners and Box(class_id, *corners, bool(crowd)), what

    def _entries(self, images: Path) -> Iterator[Entry]:
        ids: set[int] = set()
        names: set[str] = set()
        for number, item in enumerate(self._images):
            what = _wrong_image(item)
            if not what and item["id"] in ids:
                what = f"an earlier image has the same id {item['id']}"
            if not what and item["file_name"] in names:
                what = f"an earlier image has the same file_name {value_text(item['file_name'])}"
            if what:
                self.problems.append(self._problem("images", number, item, what))
                continue
            ids.add(item["id"])
            names.add(item["file_name"])
            yield Entry(item["file_name"], str(item["id"]), images / item["file_name"], number)

    def _by_image(self, items: list[Any]) -> dict[int, list[tuple[int, dict[str, Any]]]]:
        """Annotations and their indices in the file, by image id."""
        known = {item["id"] for item in self._images if isinstance(item, dict) and _is_id(item.get("id"))}
        found: dict[int, list[tuple[int, dict[str, Any]]]] = {}
        for number, item in enumerate(items):
            image: Any = item.get("image_id") if isinstance(item, dict) else None
            if not _is_id(image) or image not in known:
                what = f"image_id {value_text(image)} is not in images"
                self.problems.append(self._problem("annotations", number, item, what))
            else:
                found.setdefault(image, []).append((number, item))
        return found

    def _problem(self, part: str, number: int, item: object, what: str, *, clipped: bool = False) -> Problem:
        key = item.get("id") if isinstance(item, dict) else None
        where = f"{self._path}: {part}[{number}]" + (f" (id {key})" if _is_id(key) else "")
        return Problem(
            where, what, "image skipped" if part == "images" else "box clipped" if clipped else "object skipped"
        )


def open_coco(images: Path, annotations: Path, *, label_map: LabelMap | None = None) -> CocoDataset:
    """Open data in COCO's format.

    Args:
        images: the folder of the images; `file_name` in the annotations is relative to it.
        annotations: instances_*.json.
        label_map: None: the categories become classes in the order of their ids, numbered from 1 without gaps.

    Raises:
        DatasetError: the file cannot be read, is not in this format, or lists no image that can be used.
    """
    if not images.is_dir():
        raise DatasetError(f"{images} is not a folder; give the folder of the images")
    return CocoDataset(annotations, images, _read(annotations, "images", "annotations", "categories"), label_map)


def read_coco_ids(path: Path) -> tuple[list[tuple[int, str]], dict[int, str]]:
    """Ids of the images and categories of COCO's instances_*.json or image_info_*.json.

    Returns:
        Id and file name of each image, unchecked, and the name of each category by its id.

    Raises:
        DatasetError: the file cannot be read, or is not in this format.
    """
    content = _read(path, "images", "categories")
    images = []
    for number, item in enumerate(content["images"]):
        if not isinstance(item, dict) or not _is_id(item.get("id")) or not isinstance(item.get("file_name"), str):
            raise DatasetError(f"{path}: images[{number}] needs id, a whole number, and file_name, a string")
        images.append((item["id"], item["file_name"]))
    return images, _category_names(path, content["categories"])


def _read(path: Path, *lists: str) -> dict[str, Any]:
    data = read_bounded(path, _MAX_BYTES)
    try:
        content = json.loads(data, object_hook=_slim)
    except json.JSONDecodeError as error:
        raise DatasetError(f"{path}:{error.lineno}: not valid JSON: {error.msg} (column {error.colno})") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, thousands of digits, thousands of brackets
        raise DatasetError(f"{path}: not valid JSON: {value_text(str(error))}") from error
    for key in lists:
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DatasetError(f"{path} is not in COCO's format: it has no list {key!r}")
    assert isinstance(content, dict)
    return content


def _category_names(path: Path, items: list[Any]) -> dict[int, str]:
    """Names by id."""
    found: dict[int, str] = {}
    for number, item in enumerate(items):
        where = f"{path}: categories[{number}]"
        if not isinstance(item, dict) or not _is_id(item.get("id")) or not isinstance(item.get("name"), str):
            raise DatasetError(f"{where} needs id, a whole number, and name, a string")
        if item["id"] in found:
            raise DatasetError(f"{where} has the id {item['id']}, which {value_text(found[item['id']])} has already")
        try:
            check_name(item["name"])
        except LabelMapError as error:
            raise DatasetError(f"{where}: {error}") from error
        found[item["id"]] = item["name"]
    if not found:
        raise DatasetError(f"{path} has no categories")
    return found


def _slim(item: dict[str, Any]) -> dict[str, Any]:
    for key in _UNUSED:
        item.pop(key, None)
    return item


def _label_map(path: Path, categories: dict[int, str]) -> LabelMap:
    try:
        return LabelMap.of_names(categories[number] for number in sorted(categories))
    except LabelMapError as error:
        raise DatasetError(f"{path}: the categories do not form a label map: {error}") from error


def _wrong_image(item: object) -> str:
    """What is wrong with an entry of `images`; empty if nothing is."""
    if not isinstance(item, dict) or not _is_id(item.get("id")):
        return "it needs id, a whole number"
    name = item.get("file_name")
    if not isinstance(name, str) or relative_path(name) is None:
        return f"file_name {value_text(name)} is not a path inside the folder of images"
    wrong = next((key for key in ("height", "width") if key in item and not _is_number(item[key])), None)
    return f"{wrong} must be a number, got {value_text(item[wrong])}" if wrong else ""


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _MAX_ID


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < _MAX_ID if isinstance(value, int) else math.isfinite(value)
