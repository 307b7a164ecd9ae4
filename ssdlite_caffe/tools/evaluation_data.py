"""Pictures with their objects to evaluate a detector on: a VOC or COCO data set, or an LMDB."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ssdlite_caffe.coco.annotations import Box, Dataset, Problem, fit_box
from ssdlite_caffe.coco.label_map import LabelMap
from ssdlite_caffe.errors import DatasetError, ImageError
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.tools.pictures import Pixels, read_picture

LMDB_DATA = "data.mdb"


@dataclass(frozen=True)
class LabelledPicture:
    """A picture and what is in it.

    Attributes:
        name: of the file, or the key of the record.
        pixels: uint8 (H, W, 3), BGR.
        boxes: its objects; rows are those of the model's label map.
    """

    name: str
    pixels: Pixels
    boxes: tuple[Box, ...]


class LabelledPictures(Protocol):
    """Pictures to evaluate on.

    Attributes:
        problems: what was left out so far, and why; complete when all pictures have been read.
    """

    problems: list[Problem]

    def __len__(self) -> int:
        """How many pictures there are, those that turn out unreadable included."""

    def __iter__(self) -> Iterator[LabelledPicture]:
        """Read them, one by one."""


class _Annotated:
    """A VOC or COCO data set."""

    def __init__(self, dataset: Dataset) -> None:
        self.problems = list(dataset.problems)
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset.entries)

    def __iter__(self) -> Iterator[LabelledPicture]:
        for entry in self._dataset.entries:
            try:
                pixels = read_picture(entry.path)
                boxes, problems = self._dataset.objects(entry, *pixels.shape[:2])
            except (DatasetError, ImageError) as error:
                self.problems.append(Problem(entry.name, str(error), "picture left out"))
                continue
            self.problems += problems
            yield LabelledPicture(entry.name, pixels, tuple(boxes))


class _Stored:
    """An LMDB of AnnotatedDatum records; its labels are rows already."""

    def __init__(self, folder: Path, labels: LabelMap) -> None:
        from ssdlite_caffe.tools.lmdb_store import Reader

        self.problems: list[Problem] = []
        self._folder, self._labels = folder, labels
        with Reader(folder) as reader:
            self._count = len(reader)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[LabelledPicture]:
        from ssdlite_caffe.tools.lmdb_check import decode_datum, parse_record
        from ssdlite_caffe.tools.lmdb_store import Reader

        with Reader(self._folder) as reader:
            for key, value in reader:
                name = key.decode("utf-8", "backslashreplace")
                try:
                    record = parse_record(value)
                    pixels = decode_datum(record.datum)
                except DatasetError as error:
                    self.problems.append(Problem(f"{self._folder}: {name}", str(error), "picture left out"))
                    continue
                where = f"{self._folder}: {name}"
                height, width = pixels.shape[:2]
                boxes = stored_boxes(where, record, self._labels, height, width, self.problems)
                yield LabelledPicture(name, pixels, tuple(boxes))


def stored_boxes(
    where: str, record: caffe_pb2.AnnotatedDatum, labels: LabelMap, height: int, width: int, problems: list[Problem]
) -> Iterator[Box]:
    """The objects of a record, in pixels of a picture of this size; `problems` takes what is wrong with others."""
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


def open_pictures(data: Path, labels: LabelMap, *, split: str = "test", images: Path | None = None) -> LabelledPictures:
    """Open what `evaluate --data` names.

    Args:
        data: a folder in VOC's layout, an LMDB, or COCO's instances_*.json.
        labels: the model's; classes that it does not have are left out, and said so.
        split: of VOC data.
        images: folder of COCO's pictures.

    Raises:
        DatasetError: it is none of these, or holds no picture that can be used.
    """
    if (data / LMDB_DATA).is_file():
        return _Stored(data, labels)
    if data.is_dir():
        from ssdlite_caffe.coco.voc import open_voc

        return _Annotated(open_voc([data], split, label_map=labels))
    if data.is_file():
        from ssdlite_caffe.coco.instances import open_coco

        if images is None:
            raise DatasetError(f"{data} names its pictures without their folder; give that with --images")
        return _Annotated(open_coco(images, data, label_map=labels))
    raise DatasetError(f"there is no {data}; give a folder in VOC's layout, an LMDB, or COCO's instances_*.json")
