"""Images with their objects to evaluate a detector on: a VOC or COCO data set, or an LMDB."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ssdlite_caffe.coco.label_map import LabelMap
from ssdlite_caffe.data.annotations import Box, Dataset, Problem, fit_box
from ssdlite_caffe.errors import DatasetError, ImageError
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.runtimes.images import Pixels, read_image

LMDB_DATA = "data.mdb"


@dataclass(frozen=True)
class LabelledImage:
    """An image and what is in it.

    Attributes:
        name: of the file, or the key of the record.
        pixels: uint8 (H, W, 3), BGR.
        boxes: its objects; rows are those of the model's label map.
        id: what COCO's result files call it: COCO's number, VOC's name, or the key.
    """

    name: str
    pixels: Pixels
    boxes: tuple[Box, ...]
    id: int | str = ""


class LabelledImages(Protocol):
    """Images to evaluate on.

    Attributes:
        problems: what was left out so far, and why; complete when all images have been read.
        categories: what COCO's result files call each row.
    """

    problems: list[Problem]
    categories: dict[int, int]

    def __len__(self) -> int:
        """How many images there are, those that turn out unreadable included."""

    def __iter__(self) -> Iterator[LabelledImage]:
        """Read them, one by one."""


class _Annotated:
    """A VOC or COCO data set."""

    def __init__(self, dataset: Dataset, categories: dict[int, int], ids: frozenset[str] | None) -> None:
        self.problems = list(dataset.problems)
        self.categories = categories
        self._dataset = dataset
        self._entries = [entry for entry in dataset.entries if ids is None or entry.id in ids]

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[LabelledImage]:
        for entry in self._entries:
            try:
                pixels = read_image(entry.path)
                boxes, problems = self._dataset.objects(entry, *pixels.shape[:2])
            except (DatasetError, ImageError) as error:
                self.problems.append(Problem(entry.name, str(error), "image left out"))
                continue
            self.problems += problems
            number = int(entry.id) if isinstance(entry.annotations, int) else entry.id
            yield LabelledImage(entry.name, pixels, tuple(boxes), number)


class _Stored:
    """An LMDB of AnnotatedDatum records; its labels are rows already."""

    def __init__(self, folder: Path, labels: LabelMap, ids: frozenset[str] | None) -> None:
        from ssdlite_caffe.data.lmdb_store import Reader

        self.problems: list[Problem] = []
        self.categories = {row: row for row in range(1, len(labels))}
        self._folder, self._labels, self._ids = folder, labels, ids
        with Reader(folder) as reader:
            self._count = len(reader) if ids is None else len(ids & set(map(_shown, reader.keys())))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[LabelledImage]:
        from ssdlite_caffe.data.lmdb_check import decode_datum, parse_record
        from ssdlite_caffe.data.lmdb_store import Reader

        with Reader(self._folder) as reader:
            for key, value in reader:
                name = _shown(key)
                if self._ids is not None and name not in self._ids:
                    continue
                try:
                    record = parse_record(value)
                    pixels = decode_datum(record.datum)
                except DatasetError as error:
                    self.problems.append(Problem(f"{self._folder}: {name}", str(error), "image left out"))
                    continue
                where = f"{self._folder}: {name}"
                height, width = pixels.shape[:2]
                boxes = stored_boxes(where, record, self._labels, height, width, self.problems)
                yield LabelledImage(name, pixels, tuple(boxes), name)


def _shown(key: bytes) -> str:
    return key.decode("utf-8", "backslashreplace")


def stored_boxes(
    where: str, record: caffe_pb2.AnnotatedDatum, labels: LabelMap, height: int, width: int, problems: list[Problem]
) -> Iterator[Box]:
    """The objects of a record, in pixels of an image of this size; `problems` takes what is wrong with others."""
    for group in record.annotation_group:
        for item in group.annotation:
            box = item.bbox
            corners, what = fit_box(
                (box.xmin * width, box.ymin * height, box.xmax * width, box.ymax * height), height, width
            )
            if not 0 < group.group_label < len(labels):
                corners, what = None, f"label {group.group_label} is not in the label map of {len(labels)}"
            if corners is None:
                problems.append(Problem(where, what, "object left out"))
            else:
                yield Box(group.group_label, *corners, box.difficult)


def open_images(
    data: Path,
    labels: LabelMap,
    *,
    split: str = "test",
    images: Path | None = None,
    ids: frozenset[str] | None = None,
) -> LabelledImages:
    """Open what `evaluate --data` names.

    Args:
        data: a folder in VOC's layout, an LMDB, or COCO's instances_*.json.
        labels: the model's; classes that it does not have are left out, and said so.
        split: of VOC data.
        images: folder of COCO's images.
        ids: of the images to take: COCO's numbers, VOC's names, or keys; None takes all.

    Raises:
        DatasetError: it is none of these, or holds no image that can be used.
    """
    if (data / LMDB_DATA).is_file():
        return _chosen(_Stored(data, labels, ids), data)
    if data.is_dir():
        from ssdlite_caffe.data.voc import open_voc

        rows = {row: row for row in range(1, len(labels))}
        return _chosen(_Annotated(open_voc([data], split, label_map=labels), rows, ids), data)
    if data.is_file():
        from ssdlite_caffe.data.coco import open_coco

        if images is None:
            raise DatasetError(f"{data} names its images without their folder; give that with --images")
        dataset = open_coco(images, data, label_map=labels)
        return _chosen(_Annotated(dataset, dataset.category_ids, ids), data)
    raise DatasetError(f"there is no {data}; give a folder in VOC's layout, an LMDB, or COCO's instances_*.json")


def _chosen(images: LabelledImages, data: Path) -> LabelledImages:
    if not len(images):
        raise DatasetError(f"{data} has none of the images that were asked for")
    return images
