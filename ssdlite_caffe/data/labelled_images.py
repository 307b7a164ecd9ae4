"""Annotated images to evaluate or train a detector on: a VOC or COCO data set, or an LMDB."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ssdlite_caffe.coco.label_map import LabelMap, load_label_map
from ssdlite_caffe.data.annotations import Box, Dataset, Problem, fit_box, value_text
from ssdlite_caffe.data.coco_values import Id
from ssdlite_caffe.data.lmdb_store import DATA, LABEL_MAP, LmdbReader
from ssdlite_caffe.errors import DatasetError, ImageError
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.runtimes.images import Pixels, read_image


@dataclass(frozen=True)
class LabelledImage:
    """An image and its objects.

    Attributes:
        name: of the file, or the key of the record.
        pixels: uint8 (H, W, 3), BGR.
        boxes: the objects, with class ids of the label map.
        id: the image in result files: COCO's id, VOC's name, or the key of the record.
    """

    name: str
    pixels: Pixels
    boxes: tuple[Box, ...]
    id: int | str = ""


class LabelledImages(ABC):
    """Annotated images by index; iteration gives those that can be read, in order.

    Attributes:
        labels: the classes.
        problems: what was skipped so far, and why; complete after one iteration over all images.
        categories: the category id of each class id in COCO's result files.
        known_ids: of the images, as text.
    """

    def __init__(
        self, labels: LabelMap, problems: list[Problem], categories: Mapping[int, Id], known_ids: frozenset[str]
    ) -> None:
        """Attributes as above."""
        self.labels, self.problems, self.categories, self.known_ids = labels, problems, categories, known_ids

    @abstractmethod
    def __len__(self) -> int:
        """Number of images, including those that cannot be read."""

    @abstractmethod
    def name(self, number: int) -> str:
        """Name of an image."""

    @abstractmethod
    def where(self, number: int) -> str:
        """Where an image is, for messages."""

    @abstractmethod
    def read(self, number: int, *, quiet: bool = True) -> tuple[LabelledImage, list[Problem]]:
        """Read an image and its objects; may be called from several threads.

        Args:
            number: index of the image, from 0.
            quiet: silence the image libraries' messages; must be False when several threads read at once.

        Returns:
            The image, and what is wrong with the objects that were skipped.

        Raises:
            DatasetError: its annotations or its record cannot be used.
            ImageError: it cannot be read.
        """

    def boxes(self, number: int, height: int, width: int) -> tuple[tuple[Box, ...], list[Problem]]:
        """The objects of an image of a known size, which is not read; only where `files` has the images.

        Raises:
            DatasetError: its annotations cannot be used.
        """
        raise NotImplementedError(f"{type(self).__name__} has no files")

    def files(self) -> tuple[list[Path], list[Path]] | None:
        """The file of each image, and that of its annotations where each has its own; None for an LMDB."""
        return None

    def __iter__(self) -> Iterator[LabelledImage]:
        """Read the images one by one; what is wrong is added to `problems`."""
        for number in range(len(self)):
            try:
                image, problems = self.read(number)
            except (DatasetError, ImageError) as error:
                self.problems.append(Problem(self.where(number), str(error), "image skipped"))
                continue
            self.problems += problems
            yield image


class _AnnotatedFiles(LabelledImages):
    """A VOC or COCO data set."""

    def __init__(self, dataset: Dataset, categories: Mapping[int, Id], ids: frozenset[str] | None) -> None:
        entries = [entry for entry in dataset.entries if ids is None or entry.id in ids]
        known = frozenset(entry.id for entry in entries)
        super().__init__(dataset.label_map, list(dataset.problems), categories, known)
        self._dataset, self._entries = dataset, entries

    def __len__(self) -> int:
        return len(self._entries)

    def name(self, number: int) -> str:
        return self._entries[number].name

    def where(self, number: int) -> str:
        return self.name(number)

    def read(self, number: int, *, quiet: bool = True) -> tuple[LabelledImage, list[Problem]]:
        entry = self._entries[number]
        pixels = read_image(entry.path, quiet=quiet)
        boxes, problems = self._dataset.objects(entry, *pixels.shape[:2])
        known = int(entry.id) if entry.numbered else entry.id
        return LabelledImage(entry.name, pixels, tuple(boxes), known), problems

    def boxes(self, number: int, height: int, width: int) -> tuple[tuple[Box, ...], list[Problem]]:
        boxes, problems = self._dataset.objects(self._entries[number], height, width)
        return tuple(boxes), problems

    def files(self) -> tuple[list[Path], list[Path]]:
        annotations = [entry.annotations for entry in self._entries if isinstance(entry.annotations, Path)]
        return [entry.path for entry in self._entries], annotations


class _Records(LabelledImages):
    """An LMDB of AnnotatedDatum records, whose labels are class ids."""

    def __init__(self, folder: Path, labels: LabelMap, ids: frozenset[str] | None) -> None:
        with LmdbReader(folder) as reader:
            every = reader.keys()
        keys = [key for key in every if ids is None or _shown(key) in ids]
        categories = {class_id: class_id for class_id in range(1, len(labels))}
        super().__init__(labels, [], categories, frozenset(map(_shown, keys)))
        self._folder, self._keys = folder, keys
        self._reader: LmdbReader | None = None
        self._opening = threading.Lock()  # LMDB cannot open an environment twice in one process

    def __len__(self) -> int:
        return len(self._keys)

    def name(self, number: int) -> str:
        return _shown(self._keys[number])

    def where(self, number: int) -> str:
        return f"{self._folder}: {self.name(number)}"

    def read(self, number: int, *, quiet: bool = True) -> tuple[LabelledImage, list[Problem]]:
        from ssdlite_caffe.data.lmdb_check import decode_datum, parse_record

        record = parse_record(self._opened().get(self._keys[number]))
        pixels = decode_datum(record.datum)
        problems: list[Problem] = []
        height, width = pixels.shape[:2]
        boxes = tuple(stored_boxes(self.where(number), record, self.labels, height, width, problems))
        name = self.name(number)
        return LabelledImage(name, pixels, boxes, name), problems

    def __iter__(self) -> Iterator[LabelledImage]:
        try:
            yield from super().__iter__()
        finally:
            self.close()

    def _opened(self) -> LmdbReader:
        with self._opening:
            if self._reader is None:
                self._reader = LmdbReader(self._folder)
            return self._reader

    def close(self) -> None:
        """Close the file; a later read opens it again."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def _shown(key: bytes) -> str:
    return key.decode("utf-8", "backslashreplace")


def stored_boxes(
    where: str, record: caffe_pb2.AnnotatedDatum, labels: LabelMap, height: int, width: int, problems: list[Problem]
) -> Iterator[Box]:
    """The objects of a record, in pixels of an image of this size.

    Args:
        where: the record, for messages.
        record: the record.
        labels: the classes.
        height: of the image in pixels.
        width: of the image in pixels.
        problems: what is wrong with skipped objects is added to it.
    """
    for group in record.annotation_group:
        for item in group.annotation:
            box = item.bbox
            corners, what = fit_box(
                (box.xmin * width, box.ymin * height, box.xmax * width, box.ymax * height), height, width
            )
            if not 0 < group.group_label < len(labels):
                corners, what = None, f"label {group.group_label} is not a class id: 1 to {len(labels) - 1} are allowed"
            if corners is None:
                problems.append(Problem(where, what, "object skipped"))
            else:
                yield Box(group.group_label, *corners, box.difficult)


def open_images(
    data: Path,
    labels: LabelMap | None,
    *,
    split: str = "test",
    images: Path | None = None,
    ids: frozenset[str] | None = None,
) -> LabelledImages:
    """Open what `--data` names.

    Args:
        data: a folder in VOC's layout, an LMDB, or COCO's instances_*.json.
        labels: the classes; objects of other classes are skipped and reported in `problems`. None: the classes of the
            annotations (VOC, COCO), or of the label map in the LMDB.
        split: of VOC data.
        images: folder of COCO's images.
        ids: of the images to take: COCO's ids, VOC's names, or LMDB keys; None takes all.

    Raises:
        DatasetError: `data` is none of these, or has none of the images.
    """
    opened = _open(data, labels, split, images, ids)
    if not len(opened):
        raise DatasetError(f"{data} has none of the images whose ids were given")
    absent = sorted(set() if ids is None else ids - opened.known_ids)
    if absent:
        shown = ", ".join(map(value_text, absent[:5])) + (", ..." if len(absent) > 5 else "")
        what = f"{len(absent)} of {len(ids or ())} ids that were given are not in the data: {shown}"
        opened.problems.append(Problem(str(data), what, "image skipped"))
    return opened


def open_named(
    data: Path, labels: LabelMap, names: Sequence[str], *, images: Path | None = None
) -> tuple[LabelledImages, dict[str, int]]:
    """Open what `--data` names, for images whose file names are known.

    Args:
        data: a folder in VOC's layout, of which no split is needed, an LMDB, or COCO's instances_*.json.
        labels: the classes.
        names: of files, without folder and suffix.
        images: folder of COCO's images.

    Returns:
        The data, and the index of each name in it.

    Raises:
        DatasetError: `data` is none of these, has no annotations of an image, or has two images of a name.
    """
    if data.is_dir() and not is_lmdb(data):
        from ssdlite_caffe.data.voc import VocDataset
        from ssdlite_caffe.data.voc_lists import from_names

        found = [item for _, item in from_names(data, names)]
        problem = next((item for item in found if isinstance(item, Problem)), None)
        if problem is not None:
            raise DatasetError(problem.what)
        voc = VocDataset([item for item in found if not isinstance(item, Problem)], labels, [])
        opened: LabelledImages = _AnnotatedFiles(voc, {class_id: class_id for class_id in range(1, len(labels))}, None)
    else:
        opened = _open(data, labels, "", images, None)
    places: dict[str, list[int]] = {name: [] for name in names}
    for number in range(len(opened)):
        file = PurePosixPath(opened.name(number))
        for name in {file.name, file.stem} & places.keys():
            places[name].append(number)
    absent = [name for name in names if not places[name]]
    if absent:
        shown = ", ".join(absent[:4]) + (", ..." if len(absent) > 4 else "")
        raise DatasetError(f"{data} has no annotations of {len(absent)} of {len(names)} images: {shown}")
    twice = next((name for name in names if len(places[name]) > 1), None)
    if twice is not None:
        both = " and ".join(opened.name(number) for number in places[twice][:2])
        raise DatasetError(f"{data} has more than one image named {twice}: {both}")
    return opened, {name: numbers[0] for name, numbers in places.items()}


def is_lmdb(folder: Path) -> bool:
    """Whether the folder holds an LMDB."""
    return (folder / DATA).is_file()


def _open(
    data: Path, labels: LabelMap | None, split: str, images: Path | None, ids: frozenset[str] | None
) -> LabelledImages:
    if is_lmdb(data):
        own = data / LABEL_MAP
        if labels is None and not own.is_file():
            raise DatasetError(f"{data} has no {LABEL_MAP}; give the class names with --label-map")
        return _Records(data, labels or load_label_map(own), ids)
    if data.is_dir():
        from ssdlite_caffe.data.voc import open_voc

        voc = open_voc([data], split, label_map=labels)
        return _AnnotatedFiles(voc, {class_id: class_id for class_id in range(1, len(voc.label_map))}, ids)
    if data.is_file():
        from ssdlite_caffe.data.coco import open_coco

        if images is None:
            raise DatasetError(f"{data} does not name the folder of the images; give it with --images")
        coco = open_coco(images, data, label_map=labels)
        return _AnnotatedFiles(coco, coco.category_ids, ids)
    raise DatasetError(f"{data} does not exist; give a folder in VOC's layout, an LMDB, or COCO's instances_*.json")
