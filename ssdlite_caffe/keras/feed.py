"""Annotated images for training, read by index, and the order in which they are used.

The images of a step, and their augmentation, depend only on the seed and the step, so that a resumed training sees the
same images as one that was not interrupted.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.coco.label_map import LabelMap
from ssdlite_caffe.data.annotations import Box, Problem
from ssdlite_caffe.data.labelled_images import LabelledImages, open_images
from ssdlite_caffe.errors import DatasetError, ImageError
from ssdlite_caffe.runtimes.images import Pixels
from ssdlite_caffe.threads import ordered_map

_READERS = 4
_AHEAD = 32
"""Number of images that are read ahead."""


class Objects(NamedTuple):
    """The objects of an image.

    Attributes:
        boxes: float32 (M, 4), ymin, xmin, ymax, xmax as fractions of the image.
        labels: int32 (M,), class ids.
        ignored: bool (M,): difficult objects and crowds, which count neither as objects nor as background.
    """

    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int32]
    ignored: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, boxes: Sequence[Box], height: int, width: int) -> Objects:
        """From boxes in pixels of an image of this size."""
        corners = np.array([(b.ymin, b.xmin, b.ymax, b.xmax) for b in boxes], np.float64).reshape(-1, 4)
        return cls(
            (corners / [height, width, height, width]).astype(np.float32),
            np.array([b.label for b in boxes], np.int32),
            np.array([b.difficult for b in boxes], np.bool_),
        )


@dataclass(frozen=True)
class TrainingData:
    """The images of a data set that can be used, and their objects.

    Attributes:
        labels: the classes.
        names: of the images.
        objects: of each image.
        problems: what was skipped, and why.
    """

    labels: LabelMap
    names: tuple[str, ...]
    objects: tuple[Objects, ...]
    problems: tuple[Problem, ...]
    _source: LabelledImages
    _numbers: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.names)

    def pixels(self, number: int) -> Pixels:
        """Read an image again: uint8 (H, W, 3), RGB.

        Raises:
            DatasetError: it can no longer be read.
        """
        try:
            return np.ascontiguousarray(self._source.read(self._numbers[number], quiet=False)[0].pixels[..., ::-1])
        except (DatasetError, ImageError) as error:
            raise DatasetError(
                f"{self.names[number]} can no longer be read, as it could when the training began: {error}"
            ) from error


def open_training_data(
    data: Path,
    *,
    split: str = "trainval",
    images: Path | None = None,
    labels: LabelMap | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> TrainingData:
    """Open a data set and read each image once, so that unreadable ones are found before the training begins.

    Args:
        data: a folder in VOC's layout, an LMDB, or COCO's instances_*.json.
        split: of VOC data.
        images: folder of COCO's images.
        labels: the classes; None: those of the annotations (VOC, COCO), or of the label map in the LMDB.
        progress: called with the number of images read and the total.

    Raises:
        DatasetError: `data` is none of these, or has no image with an object that can be used.
    """
    source = open_images(data, labels, split=split, images=images)
    problems = list(source.problems)
    numbers, objects = [], []
    scanned = ordered_map(lambda number: _scan(source, number), range(len(source)), threads=_READERS, ahead=_AHEAD)
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
    return TrainingData(source.labels, names, tuple(objects), tuple(problems), source, tuple(numbers))


def order(seed: int, count: int, start: int) -> Iterator[tuple[int, int]]:
    """Endless order of the images of a training: (index of the item, index of the image), from item `start` on.

    Each `count` items are all images, in a new order.
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
    """Reads images ahead of time. An exception is kept in `error`, since tf.data replaces it with one of its own."""

    def __init__(self, data: TrainingData, items: Iterator[tuple[int, int]]) -> None:
        """Read `items`, in their order."""
        self.error: DatasetError | None = None
        self._data, self._items = data, items

    def __call__(self) -> Iterator[tuple[Any, ...]]:
        """Yield the index of the item, pixels, boxes, labels and ignored."""
        try:
            yield from ordered_map(self._load, self._items, threads=_READERS, ahead=_AHEAD)
        except DatasetError as error:
            self.error = error
            raise

    def _load(self, item: tuple[int, int]) -> tuple[Any, ...]:
        number, image = item
        return np.int64(number), self._data.pixels(image), *self._data.objects[image]


def _scan(source: LabelledImages, number: int) -> tuple[Objects | None, list[Problem]]:
    try:
        image, problems = source.read(number, quiet=False)
    except (DatasetError, ImageError) as error:
        return None, [Problem(source.where(number), str(error), "image skipped")]
    return Objects.of(image.boxes, *image.pixels.shape[:2]), problems
