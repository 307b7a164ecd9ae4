"""Reading data in COCO's format, instances_*.json: images, categories, annotations with boxes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ssdlite_caffe.coco.label_map import LabelMap, check_name
from ssdlite_caffe.coco.no_class import dead_names, is_background
from ssdlite_caffe.data.annotations import (
    Box,
    ClassIds,
    Entry,
    Problem,
    box_text,
    check_size,
    fit_box,
    is_set,
    outside_text,
    read_bounded,
    relative_path,
    value_text,
)
from ssdlite_caffe.data.coco_values import Id, id_key, number, own_id
from ssdlite_caffe.errors import DatasetError, LabelMapError

_MAX_BYTES = 1 << 30
_UNUSED = ("segmentation", "keypoints", "coco_url", "flickr_url")
"""Most of a file's bytes, and never used: dropped while the file is parsed."""
_NO_SUPERCATEGORY = (None, "", "none")


class _Category(NamedTuple):
    """A category of a file.

    Attributes:
        place: index in the list `categories`.
        id: as the file has it.
        name: without white space around it.
        supercategory: as the file has it; None if it is missing.
    """

    place: int
    id: Id
    name: str
    supercategory: object


class CocoDataset:
    """An instances_*.json and its folder of images; see `annotations.Dataset`."""

    def __init__(self, path: Path, images: Path, content: dict[str, Any], label_map: LabelMap | None) -> None:
        """Check the content of `path`; what is wrong with single images goes to `problems`."""
        self.problems: list[Problem] = []
        self._path = path
        self._images = content["images"]
        self._categories = _categories(path, content["categories"])
        self.label_map = label_map or self._own_label_map(content["annotations"])
        class_ids = ClassIds(self.label_map)
        self._class_ids = {key: class_ids.find(category.name) for key, category in self._categories.items()}
        found = list(self._entries(images))
        self.entries: Sequence[Entry] = [item for item in found if isinstance(item, Entry)]
        skipped = dict(item for item in found if not isinstance(item, Entry))
        if not self.entries:
            first = next(iter(skipped), None)
            listed = "" if first is None else f": {self._problem('images', first, self._images[first], skipped[first])}"
            raise DatasetError(f"{path} lists no image that can be used{listed}")
        self._annotations = self._by_image(content["annotations"], skipped)

    @property
    def category_ids(self) -> dict[int, Id]:
        """The file's category id of each class id, for the classes that the file has."""
        return {
            class_id: self._categories[key].id
            for key, (class_id, _) in self._class_ids.items()
            if class_id is not None
        }  # fmt: skip

    def objects(self, entry: Entry, height: int, width: int) -> tuple[list[Box], list[Problem]]:
        """See `annotations.Dataset.objects`."""
        assert isinstance(entry.annotations, int)
        image = self._images[entry.annotations]
        stated = _side(image, "height") or 0.0, _side(image, "width") or 0.0
        check_size(f"{self._path}: images[{entry.annotations}]", stated, height, width)
        boxes, problems = [], []
        for index, item in self._annotations.get(id_key(image["id"]), ()):
            box, what = self._box(item, height, width)
            if what:
                problems.append(self._problem("annotations", index, item, what, clipped=box is not None))
            if box:
                boxes.append(box)
                doubt = is_set("iscrowd", item.get("iscrowd"))[1]
                if doubt:
                    problem = self._problem("annotations", index, item, doubt)
                    problems.append(problem._replace(effect="flag taken as 0"))
        return boxes, problems

    def _box(self, item: dict[str, Any], height: int, width: int) -> tuple[Box | None, str]:
        category, bbox = id_key(item.get("category_id")), item.get("bbox")
        if category is None or category not in self._class_ids:
            return None, f"category_id {value_text(item.get('category_id'))} is not in categories"
        numbers = [number(value) for value in bbox] if isinstance(bbox, list) and len(bbox) == 4 else []
        sides = [value for value in numbers if value is not None]
        if len(sides) != 4:
            return None, f"bbox {value_text(bbox)} is not a list of four numbers"
        class_id, what = self._class_ids[category]
        if class_id is None:
            return None, what
        left, top, wide, high = sides
        if wide < 0 or high < 0:
            return None, f"bbox {box_text(sides)} has a negative width or height"
        corners, what = fit_box((left, top, left + wide, top + high), height, width)
        return corners and Box(class_id, *corners, is_set("iscrowd", item.get("iscrowd"))[0]), what

    def _entries(self, images: Path) -> Iterator[Entry | tuple[int, str]]:
        """Each image, or its index and why it is skipped."""
        ids: set[Id] = set()
        names: set[str] = set()
        for index, item in enumerate(self._images):
            what = _wrong_image(item)
            key = None if what else id_key(item["id"])
            name = None if what else relative_path(item["file_name"])
            if key is None or name is None:
                yield index, what
            elif key in ids:
                yield index, f"an earlier image has the same id {value_text(item['id'])}"
            elif name in names:
                yield index, f"an earlier image has the same file_name {value_text(item['file_name'])}"
            else:
                ids.add(key)
                names.add(name)
                own = own_id(item["id"])
                yield Entry(name, str(own), images / name, index, numbered=isinstance(own, int))

    def _by_image(self, items: list[Any], skipped: dict[int, str]) -> dict[Id | None, list[tuple[int, dict[str, Any]]]]:
        """Annotations and their indices in the file, by image id; adds what is wrong with images and annotations.

        Args:
            items: the annotations.
            skipped: index of each image that cannot be used, and why.
        """
        keys = [id_key(item.get("id")) if isinstance(item, dict) else None for item in self._images]
        found: dict[Id | None, list[tuple[int, dict[str, Any]]]] = {key: [] for key in keys if key is not None}
        lost = []
        for index, item in enumerate(items):
            image: Any = item.get("image_id") if isinstance(item, dict) else None
            key = id_key(image)
            if key is None or key not in found:
                lost.append(self._problem("annotations", index, item, f"image_id {value_text(image)} is not in images"))
            else:
                found[key].append((index, item))
        used = {keys[entry.annotations] for entry in self.entries if isinstance(entry.annotations, int)}
        for index, what in skipped.items():
            objects = 0 if keys[index] in used else len(found.get(keys[index], ()))
            with_objects = f" (with {objects} object{'s' * (objects != 1)})" if objects else ""
            self.problems.append(self._problem("images", index, self._images[index], what + with_objects))
        self.problems += lost
        return found

    def _own_label_map(self, annotations: list[Any]) -> LabelMap:
        """The categories in the order of their ids, without those that are no class; adds these to `problems`."""
        dead = dead_names(category.name for category in self._categories.values())
        names = []
        for key, category in self._categories.items():
            if is_background(category.name):
                what = f"{value_text(category.name)} is background, which always has class id 0"
            elif category.name in dead:
                what = f"{value_text(category.name)} is the name of no class"
            elif key == 0 and _covers_others(category, self._categories) and not _has_objects(key, annotations):
                what = f"{value_text(category.name)} is the supercategory of all others and has no objects"
            else:
                names.append(category.name)
                continue
            self.problems.append(Problem(f"{self._path}: categories[{category.place}]", what, "category skipped"))
        if not names:
            raise DatasetError(f"{self._path} has no category that is a class; the first problem: {self.problems[0]}")
        try:
            return LabelMap.of_names(names)
        except LabelMapError as error:
            raise DatasetError(f"{self._path}: the categories do not form a label map: {error}") from error

    def _problem(self, part: str, index: int, item: object, what: str, *, clipped: bool = False) -> Problem:
        key = item.get("id") if isinstance(item, dict) else None
        shown = "" if id_key(key) is None else f" (id {key if isinstance(key, int) else value_text(key)})"
        where = f"{self._path}: {part}[{index}]{shown}"
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


def read_coco_ids(path: Path) -> tuple[list[tuple[Id, str]], dict[Id, str]]:
    """Ids of the images and categories of COCO's instances_*.json or image_info_*.json.

    Returns:
        Id and file name of each image, unchecked, and the name of each category by its id, all as the file has them.

    Raises:
        DatasetError: the file cannot be read, or is not in this format.
    """
    content = _read(path, "images", "categories")
    images = []
    for index, item in enumerate(content["images"]):
        if not isinstance(item, dict) or id_key(item.get("id")) is None or not isinstance(item.get("file_name"), str):
            raise DatasetError(f"{path}: images[{index}] needs id, a whole number or text, and file_name, a string")
        images.append((own_id(item["id"]), item["file_name"]))
    categories = _categories(path, content["categories"])
    return images, {category.id: category.name for category in categories.values()}


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


def _categories(path: Path, items: list[Any]) -> dict[Id, _Category]:
    """Categories by id and in the order of their ids, numbers first."""
    found: dict[Id, _Category] = {}
    for index, item in enumerate(items):
        where = f"{path}: categories[{index}]"
        key = id_key(item.get("id")) if isinstance(item, dict) else None
        if key is None or not isinstance(item.get("name"), str):
            raise DatasetError(f"{where} needs id, a whole number or text, and name, a string")
        if key in found:
            raise DatasetError(f"{where} has the id {item['id']}, which {value_text(found[key].name)} has already")
        name = item["name"].strip()
        try:
            check_name(name)
        except LabelMapError as error:
            raise DatasetError(f"{where}: {error}") from error
        found[key] = _Category(index, own_id(item["id"]), name, item.get("supercategory"))
    if not found:
        raise DatasetError(f"{path} has no categories")
    return dict(sorted(found.items(), key=lambda item: (isinstance(item[0], str), item[0])))


def _covers_others(category: _Category, categories: dict[Id, _Category]) -> bool:
    """Whether a category is the supercategory of all others, as the first one of Roboflow's files is."""
    others = [other for other in categories.values() if other is not category]
    named = all(
        isinstance(other.supercategory, str) and other.supercategory.strip() == category.name for other in others
    )
    return bool(others) and named and category.supercategory in _NO_SUPERCATEGORY


def _has_objects(category: Id, annotations: list[Any]) -> bool:
    return any(isinstance(item, dict) and id_key(item.get("category_id")) == category for item in annotations)


def _slim(item: dict[str, Any]) -> dict[str, Any]:
    for key in _UNUSED:
        item.pop(key, None)
    return item


def _wrong_image(item: object) -> str:
    """What is wrong with an entry of `images`; empty if nothing is."""
    if not isinstance(item, dict) or id_key(item.get("id")) is None:
        return "it needs id, a whole number or text"
    name = item.get("file_name")
    if not isinstance(name, str) or relative_path(name) is None:
        why = outside_text(name) if isinstance(name, str) else ""
        return f"file_name {value_text(name)} is not a path inside the folder of images{why}"
    wrong = next((key for key in ("height", "width") if _side(item, key) is None), None)
    return f"{wrong} must be a number, got {value_text(item[wrong])}" if wrong else ""


def _side(image: dict[str, Any], key: str) -> float | None:
    """Height or width as stated, 0 if it is not; None if it is not a number."""
    return 0.0 if image.get(key) in (None, "") else number(image[key])
