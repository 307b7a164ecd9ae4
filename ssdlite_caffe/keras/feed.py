"""Annotated images for training, read by index, and the order in which they are used.

The images of a step, and their augmentation, depend only on the seed and the step, so that a resumed training sees the
same images as one that was not interrupted.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.coco.label_map import LabelMap
from ssdlite_caffe.data.annotations import Problem
from ssdlite_caffe.data.labelled_images import LabelledImages, is_lmdb, open_images
from ssdlite_caffe.errors import DatasetError, ImageError, OutputError, TrainingError
from ssdlite_caffe.keras.scan import AHEAD, READERS, ObjectTable, Report, Scan, is_unchanged, scan_images
from ssdlite_caffe.keras.scan_file import KeptScan, key_of, read_scan, write_scan
from ssdlite_caffe.runtimes.images import Pixels, read_image
from ssdlite_caffe.threads import ordered_map


@dataclass(frozen=True)
class TrainingData:
    """The images of a data set that can be used, and their objects.

    Attributes:
        labels: the classes.
        names: of the images.
        objects: of each image.
        problems: what was skipped, and why.
        decoded: number of images that were read to find all this out; the others are known from an earlier start.
    """

    labels: LabelMap
    names: tuple[str, ...]
    objects: ObjectTable
    problems: tuple[Problem, ...]
    decoded: int
    _read: Callable[[int], Pixels]
    _numbers: npt.NDArray[np.intp]
    _sizes: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.names)

    def pixels(self, number: int) -> Pixels:
        """Read an image again: uint8 (H, W, 3), RGB.

        Raises:
            DatasetError: it can no longer be read, or is another one than before.
        """
        place = int(self._numbers[number])
        try:
            image = self._read(place)
        except (DatasetError, ImageError) as error:
            raise DatasetError(
                f"{self.names[number]} can no longer be read, as it could when the training began: {error}"
            ) from error
        height, width = self._sizes[place]
        if image.shape[:2] != (height, width):
            raise DatasetError(
                f"{self.names[number]} has changed since the training began: it was {width}x{height} and is "
                f"{image.shape[1]}x{image.shape[0]} (width x height); resume the training"
            )
        return np.ascontiguousarray(image[..., ::-1])


class DataSource:
    """A data set to train on. Its classes are known before its images are looked at.

    Attributes:
        labels: the classes.
    """

    def __init__(
        self,
        data: Path,
        *,
        split: str = "trainval",
        images: Path | None = None,
        labels: LabelMap | None = None,
        kept: Path | None = None,
        say: Callable[[str], None] = lambda _: None,
        report: Report = lambda *_: None,
    ) -> None:
        """Open a data set.

        Args:
            data: a folder in VOC's layout, an LMDB, or COCO's instances_*.json.
            split: of VOC data.
            images: folder of COCO's images.
            labels: the classes; None: those of the annotations (VOC, COCO), or of the label map in the LMDB.
            kept: file of an earlier scan, which may be missing or of other data.
            say: called with lines for the user.
            report: called with what is being done, how many images are done, and how many there are.

        Raises:
            DatasetError: `data` is none of these.
        """
        self._data, self._kept_in, self._say, self._report = data, kept, say, report
        self._root = images if images is not None and data.is_file() else data
        self._key = key_of(data, split, images, labels)
        self._earlier = self._read_kept()
        same = self._earlier.scan if self._earlier and self._earlier.key == self._key else None
        self._unkept: Scan | None = None
        self._known: Scan | None = None
        """An earlier scan of the same images."""
        self._source: LabelledImages | None = None
        """The data set; None where all is known, so that its annotations need not be read."""
        if same is not None and same.files and not is_lmdb(data) and is_unchanged(same, self._root, data, report):
            self._known, self.labels = same, same.labels
            return
        self._source = open_images(data, labels, split=split, images=images)
        self.labels = self._source.labels
        if same is not None and is_lmdb(data) and _has_names(same, self._source):  # its file is in the key
            self._known = same

    def _read_kept(self) -> KeptScan | None:
        try:
            return read_scan(self._kept_in) if self._kept_in else None
        except TrainingError as error:
            self._say(f"{error}; all images are read again")
            return None

    def scan(self) -> TrainingData:
        """Read each image once that is not known from an earlier start, so that unreadable ones are found now.

        Raises:
            DatasetError: no image has an object that can be used.
        """
        found, decoded = self._known, 0
        if found is None:
            assert self._source is not None
            earlier = self._earlier.scan if self._earlier else None
            found, decoded = scan_images(self._source, self._root, self._data, earlier, self._report)
            if earlier is not None and decoded:
                self._say(
                    f"{decoded} of {len(found.names)} images were read: they are new, have changed, or could not be "
                    "read before"
                )
        if not len(found.objects.all.labels):
            first = f": {found.problems[0]}" if found.problems else ""
            raise DatasetError(f"{self._data} has no image with an object to train on{first}")
        self._unkept = None if found is self._known else found
        usable = found.usable
        objects = ObjectTable(found.objects.counts[usable], found.objects.all)
        names = tuple(found.names[number] for number in usable)
        return TrainingData(
            found.labels, names, objects, found.problems, decoded, self._pixels(found.files), usable, found.sizes
        )

    def keep(self) -> None:
        """Write what `scan` found, for the next start."""
        found, self._unkept = self._unkept, None
        if found is None or self._kept_in is None:
            return
        if not found.files and not is_lmdb(self._data):
            return  # the files lie in several places, so nothing would tell whether one has changed
        try:
            write_scan(self._kept_in, KeptScan(self._key, found))
        except OutputError as error:
            self._say(f"what was found in the images is not kept: {error}")

    def _pixels(self, files: tuple[str, ...]) -> Callable[[int], Pixels]:
        """What reads an image, without its annotations where these are not beside it."""
        source, root = self._source, self._root
        if files:
            return lambda number: read_image(root / files[number], quiet=False)
        assert source is not None
        return lambda number: source.read(number, quiet=False)[0].pixels


def _has_names(scan: Scan, source: LabelledImages) -> bool:
    """Whether a scan has the images and classes of an LMDB."""
    return scan.labels == source.labels and scan.names == tuple(source.name(i) for i in range(len(source)))


def open_training_data(
    data: Path,
    *,
    split: str = "trainval",
    images: Path | None = None,
    labels: LabelMap | None = None,
    kept: Path | None = None,
) -> TrainingData:
    """Open a data set and scan it; see `DataSource`.

    Raises:
        DatasetError: `data` is no data set, or has no image with an object that can be used.
    """
    source = DataSource(data, split=split, images=images, labels=labels, kept=kept)
    found = source.scan()
    source.keep()
    return found


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
            yield from ordered_map(self._load, self._items, threads=READERS, ahead=AHEAD)
        except DatasetError as error:
            self.error = error
            raise

    def _load(self, item: tuple[int, int]) -> tuple[Any, ...]:
        number, image = item
        return np.int64(number), self._data.pixels(image), *self._data.objects[image]
