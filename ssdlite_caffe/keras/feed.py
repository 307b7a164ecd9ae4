"""Images with their objects for training, each at a place of its own, and the order in which a training sees them.

Which images a step sees, and what is done to them, follows from the seed and the step alone: a training that is taken
up again sees what it would have seen.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.coco.label_map import LabelMap
from ssdlite_caffe.data.annotations import Box, Dataset, Entry, Problem
from ssdlite_caffe.data.labelled_images import LMDB_DATA, stored_boxes
from ssdlite_caffe.errors import DatasetError, ImageError
from ssdlite_caffe.runtimes.images import Pixels, read_image

_READERS = 4
_AHEAD = 32
"""Images that are read before they are asked for."""


class Objects(NamedTuple):
    """What is in an image.

    Attributes:
        boxes: float32 (M, 4), ymin, xmin, ymax, xmax as fractions.
        labels: int32 (M,).
        ignored: bool (M,): difficult objects and crowds, neither to be found nor background.
    """

    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int32]
    ignored: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, boxes: list[Box], height: int, width: int) -> Objects:
        """From corners in pixels."""
        corners = np.array([(b.ymin, b.xmin, b.ymax, b.xmax) for b in boxes], np.float64).reshape(-1, 4)
        return cls(
            (corners / [height, width, height, width]).astype(np.float32),
            np.array([b.label for b in boxes], np.int32),
            np.array([b.difficult for b in boxes], np.bool_),
        )


class _Source(Protocol):
    """Images by number."""

    problems: list[Problem]

    def __len__(self) -> int:
        """How many, those that cannot be used included."""

    def name(self, number: int) -> str:
        """What to call one."""

    def read(self, number: int) -> tuple[Pixels, list[Box], list[Problem]]:
        """BGR pixels and objects; from several threads. DatasetError and ImageError say what cannot be used."""


class _Annotated:
    """A VOC or COCO data set."""

    def __init__(self, dataset: Dataset) -> None:
        self.problems = list(dataset.problems)
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset.entries)

    def _entry(self, number: int) -> Entry:
        return self._dataset.entries[number]

    def name(self, number: int) -> str:
        return self._entry(number).name

    def read(self, number: int) -> tuple[Pixels, list[Box], list[Problem]]:
        entry = self._entry(number)
        pixels = read_image(entry.path, quiet=False)
        return pixels, *self._dataset.objects(entry, *pixels.shape[:2])


class _Stored:
    """An LMDB of AnnotatedDatum records."""

    def __init__(self, folder: Path, labels: LabelMap) -> None:
        from ssdlite_caffe.data.lmdb_store import Reader

        self.problems: list[Problem] = []
        self._folder, self._labels = folder, labels
        self._reader = Reader(folder)
        self._keys = self._reader.keys()

    def __len__(self) -> int:
        return len(self._keys)

    def name(self, number: int) -> str:
        return self._keys[number].decode("utf-8", "backslashreplace")

    def read(self, number: int) -> tuple[Pixels, list[Box], list[Problem]]:
        from ssdlite_caffe.data.lmdb_check import decode_datum, parse_record

        record = parse_record(self._reader.get(self._keys[number]))
        pixels = decode_datum(record.datum)
        problems: list[Problem] = []
        where = f"{self._folder}: {self.name(number)}"
        height, width = pixels.shape[:2]
        boxes = list(stored_boxes(where, record, self._labels, height, width, problems))
        return pixels, boxes, problems


@dataclass(frozen=True)
class TrainingData:
    """Images that were all read once, and what is in them.

    Attributes:
        labels: the classes.
        names: of the images that can be used.
        objects: of each.
        problems: what was left out, and why.
    """

    labels: LabelMap
    names: tuple[str, ...]
    objects: tuple[Objects, ...]
    problems: tuple[Problem, ...]
    _source: _Source
    _numbers: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.names)

    def pixels(self, number: int) -> Pixels:
        """uint8 (H, W, 3), RGB.

        Raises:
            DatasetError: it could be read before, and cannot now.
        """
        try:
            return np.ascontiguousarray(self._source.read(self._numbers[number])[0][..., ::-1])
        except (DatasetError, ImageError) as error:
            raise DatasetError(f"{self.names[number]} could be read when the training began: {error}") from error


def open_training_data(
    data: Path,
    *,
    split: str = "trainval",
    images: Path | None = None,
    labels: LabelMap | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> TrainingData:
    """Open images, and read each once, so that nothing unreadable is met on the way.

    Args:
        data: a folder in VOC's layout, an LMDB, or COCO's instances_*.json.
        split: of VOC data.
        images: folder of COCO's images.
        labels: the classes; without, those of the annotations (VOC, COCO) or the LMDB's label map.
        progress: told the images read and their number.

    Raises:
        DatasetError: it is none of these, or holds no image with an object that can be used.
    """
    source, labels = _open(data, split, images, labels)
    problems = list(source.problems)
    numbers, objects = [], []
    with ThreadPoolExecutor(_READERS) as pool:
        scanned = _ordered(pool, lambda number: _scan(source, number), iter(range(len(source))))
        for number, (found, wrong) in enumerate(scanned):
            if found is not None:
                numbers.append(number)
                objects.append(found)
            problems += wrong
            progress(number + 1, len(source))
    if not any(len(found.boxes) for found in objects):
        first = f": {problems[0]}" if problems else ""
        raise DatasetError(f"{data} has no image with an object to train on{first}")
    names = tuple(source.name(number) for number in numbers)
    return TrainingData(labels, names, tuple(objects), tuple(problems), source, tuple(numbers))


def _open(data: Path, split: str, images: Path | None, labels: LabelMap | None) -> tuple[_Source, LabelMap]:
    if (data / LMDB_DATA).is_file():
        from ssdlite_caffe.coco.label_map import load_label_map

        own = data / "labelmap.prototxt"
        if labels is None and not own.is_file():
            raise DatasetError(f"{data} has no labelmap.prototxt; give the names of its classes with --label-map")
        labels = labels or load_label_map(own)
        return _Stored(data, labels), labels
    if data.is_dir():
        from ssdlite_caffe.data.voc import open_voc

        dataset: Dataset = open_voc([data], split, label_map=labels)
        return _Annotated(dataset), dataset.label_map
    if data.is_file():
        from ssdlite_caffe.data.coco import open_coco

        if images is None:
            raise DatasetError(f"{data} names its images without their folder; give that with --images")
        dataset = open_coco(images, data, label_map=labels)
        return _Annotated(dataset), dataset.label_map
    raise DatasetError(f"there is no {data}; give a folder in VOC's layout, an LMDB, or COCO's instances_*.json")


def order(seed: int, count: int, start: int) -> Iterator[tuple[int, int]]:
    """The images of a training without end, from the `start`-th on: (number of the item, number of the image).

    Every `count` items are all images in a new order.
    """
    for epoch in itertools.count(start // count):
        shuffled = np.random.default_rng((seed, epoch)).permutation(count)
        for place in range(start % count if epoch == start // count else 0, count):
            yield epoch * count + place, int(shuffled[place])


def share(items: Iterator[tuple[int, int]], batch: int, worker: int, workers: int) -> Iterator[tuple[int, int]]:
    """A worker's part of each batch; `batch` is a multiple of `workers`."""
    part = batch // workers
    for number, item in enumerate(items):
        if number % batch // part == worker:
            yield item


class Feed:
    """Reads the images of an order ahead of time. What goes wrong is kept in `error`: tf.data would garble it."""

    def __init__(self, data: TrainingData, items: Iterator[tuple[int, int]]) -> None:
        """Read `items`, in their order."""
        self.error: DatasetError | None = None
        self._data, self._items = data, items

    def __call__(self) -> Iterator[tuple[Any, ...]]:
        """Number of the item, pixels, boxes, labels, ignored."""
        with ThreadPoolExecutor(_READERS) as pool:
            try:
                yield from _ordered(pool, self._load, self._items)
            except DatasetError as error:
                self.error = error
                raise

    def _load(self, item: tuple[int, int]) -> tuple[Any, ...]:
        number, image = item
        return np.int64(number), self._data.pixels(image), *self._data.objects[image]


def _scan(source: _Source, number: int) -> tuple[Objects | None, list[Problem]]:
    try:
        pixels, boxes, problems = source.read(number)
    except (DatasetError, ImageError) as error:
        return None, [Problem(source.name(number), str(error), "image left out")]
    return Objects.of(boxes, *pixels.shape[:2]), problems


def _ordered(pool: ThreadPoolExecutor, function: Callable[[Any], Any], items: Iterator[Any]) -> Iterator[Any]:
    """function(item) of each item, in their order, some of them at once; Executor.map would take in all of them."""
    waiting: deque[Future[Any]] = deque(pool.submit(function, item) for item in itertools.islice(items, _AHEAD))
    while waiting:
        done = waiting.popleft()
        waiting.extend(pool.submit(function, item) for item in itertools.islice(items, 1))
        yield done.result()
