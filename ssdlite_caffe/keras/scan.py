"""What was found when each image of a data set was read once, before a training.

A scan finds the images that cannot be read, and the sizes of the others, which make boxes in pixels fractions of it.
It is kept in the training's folder; see `scan_file`. An image is known by its name, its file's size and the time of its
last change. As long as these stay the same it is not decoded again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.coco.label_map import LabelMap
from ssdlite_caffe.data.annotations import Box, Problem
from ssdlite_caffe.data.labelled_images import LabelledImages
from ssdlite_caffe.errors import DatasetError, ImageError
from ssdlite_caffe.threads import ordered_map

Stamps = npt.NDArray[np.int64]
"""(N, 2): size in bytes and time of the last change in nanoseconds of each file; -1, -1 where there is none."""
Report = Callable[[str, int, int], None]
"""Called with what is being done to the images, how many are done, and how many there are."""
READERS = max(4, min(16, os.cpu_count() or 1))
"""Threads that decode images."""
AHEAD = 32
"""Images that are read ahead."""
_AT_ONCE, _STAT_THREADS = 1000, 8


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


class ObjectTable(Sequence[Objects]):
    """The objects of many images in three arrays, so that a million of them take some 20 MB."""

    def __init__(self, counts: npt.NDArray[np.int32], objects: Objects) -> None:
        """Take the objects of all images, one image after the other, and how many each image has."""
        self.counts, self.all = counts, objects
        self._ends = np.cumsum(counts, dtype=np.int64)

    @classmethod
    def of(cls, images: Sequence[Objects]) -> ObjectTable:
        """From the objects of each image."""
        nothing = Objects.of((), 1, 1)
        parts = zip(*(nothing, *images), strict=True)
        return cls(np.array([len(one.labels) for one in images], np.int32), Objects(*map(np.concatenate, parts)))

    def __len__(self) -> int:
        return len(self.counts)

    @overload
    def __getitem__(self, number: int) -> Objects: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Objects]: ...
    def __getitem__(self, number: int | slice) -> Objects | Sequence[Objects]:
        """The objects of an image."""
        if isinstance(number, slice):
            return [self[place] for place in range(*number.indices(len(self)))]
        end = int(self._ends[number])
        part = slice(end - int(self.counts[number]), end)
        return Objects(self.all.boxes[part], self.all.labels[part], self.all.ignored[part])


@dataclass(frozen=True)
class Scan:
    """What is known of each image of a data set, those that cannot be read included.

    Attributes:
        labels: the classes.
        names: of the images, for messages.
        files: path of each image below the folder of images; empty for an LMDB.
        notes: path of each image's own annotations below the data set's folder; empty where one file has all.
        stamps: of `files`.
        note_stamps: of `notes`.
        sizes: int32 (N, 2), height and width; 0, 0 where an image or its annotations cannot be used.
        objects: of each image.
        problems: what was skipped, and why.
    """

    labels: LabelMap
    names: tuple[str, ...]
    files: tuple[str, ...]
    notes: tuple[str, ...]
    stamps: Stamps
    note_stamps: Stamps
    sizes: npt.NDArray[np.int32]
    objects: ObjectTable
    problems: tuple[Problem, ...]

    @property
    def usable(self) -> npt.NDArray[np.intp]:
        """Indices of the images that can be used."""
        return np.flatnonzero(self.sizes[:, 0])


class _Found(NamedTuple):
    """What is known of one image, and whether it was decoded for that."""

    size: tuple[int, int]
    objects: Objects
    problems: list[Problem]
    decoded: bool


def stamp_of(path: Path) -> tuple[int, int]:
    """Size and time of the last change of a file or folder; -1, -1 where there is none."""
    try:
        known = path.stat()
    except (OSError, ValueError):  # a NUL in the name
        return -1, -1
    return known.st_size, known.st_mtime_ns


def stamps_of(root: Path, names: Sequence[str], report: Callable[[int], None] = lambda _: None) -> Stamps:
    """Sizes and times of files below a folder, links followed; `report` is called with how many are done."""
    parts = [names[at : at + _AT_ONCE] for at in range(0, len(names), _AT_ONCE)]
    found: list[tuple[int, int]] = []
    for stamps in ordered_map(lambda part: [stamp_of(root / name) for name in part], parts, threads=_STAT_THREADS):
        found += stamps
        report(len(found))
    return np.array(found, np.int64).reshape(-1, 2)


def is_unchanged(scan: Scan, root: Path, notes: Path, report: Report = lambda *_: None) -> bool:
    """Whether all files of images and annotations are those that were scanned.

    Args:
        scan: an earlier one.
        root: folder of the images.
        notes: folder of the annotations' paths.
        report: called now and then.
    """
    total = len(scan.names)
    stamps = stamps_of(root, scan.files, lambda done: report("comparing images", done, total))
    return bool((stamps == scan.stamps).all() and (stamps_of(notes, scan.notes) == scan.note_stamps).all())


def scan_images(
    source: LabelledImages, root: Path, notes: Path, earlier: Scan | None, report: Report = lambda *_: None
) -> tuple[Scan, int]:
    """Find out what is in each image.

    Args:
        source: the images.
        root: folder of the images.
        notes: folder of the annotations' paths.
        earlier: a scan with the sizes of images, which are not decoded where their files have not changed.
        report: called after each image.

    Returns:
        The scan, without `files` where one of them is not below `root`, and how many images were decoded.
    """
    total = len(source)
    files, own = _relative(source, root, notes)
    stamps = stamps_of(root, files, lambda done: report("comparing images", done, total))
    note_stamps = stamps_of(notes, own)
    known = _known_sizes(earlier, files, stamps)
    sizes, objects, problems, decoded = np.zeros((total, 2), np.int32), [], list(source.problems), 0

    def look(number: int) -> _Found:
        return _look(source, number, known.get(number))

    for number, found in enumerate(ordered_map(look, range(total), threads=READERS, ahead=AHEAD)):
        sizes[number] = found.size
        objects.append(found.objects)
        problems += found.problems
        decoded += found.decoded
        report("reading images" if found.decoded else "comparing images", number + 1, total)
    names = tuple(source.name(number) for number in range(total))
    scan = Scan(
        source.labels, names, files, own, stamps, note_stamps, sizes, ObjectTable.of(objects), tuple(problems)
    )  # fmt: skip
    return scan, decoded


def _relative(source: LabelledImages, root: Path, notes: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Paths of images and annotations below their folders; none where one is not."""
    known = source.files()
    if known is None:
        return (), ()
    try:
        files, own = (
            [path.relative_to(top).as_posix() for path in p] for p, top in zip(known, (root, notes), strict=True)
        )
    except ValueError:
        return (), ()
    return tuple(files), tuple(own)


def _known_sizes(earlier: Scan | None, files: Sequence[str], stamps: Stamps) -> dict[int, tuple[int, int]]:
    """Sizes of the images whose files an earlier scan has read, by their index now."""
    if earlier is None or not earlier.files:
        return {}
    places = {name: place for place, name in enumerate(earlier.files)}
    known = {}
    for number, name in enumerate(files):
        place = places.get(name)
        if place is not None and earlier.sizes[place, 0] and (earlier.stamps[place] == stamps[number]).all():
            known[number] = (int(earlier.sizes[place, 0]), int(earlier.sizes[place, 1]))
    return known


def _look(source: LabelledImages, number: int, size: tuple[int, int] | None) -> _Found:
    try:
        if size is not None:
            boxes, problems = source.boxes(number, *size)
            return _Found(size, Objects.of(boxes, *size), problems, False)
        image, problems = source.read(number, quiet=False)
    except (DatasetError, ImageError) as error:
        problem = Problem(source.where(number), str(error), "image skipped")
        return _Found((0, 0), Objects.of((), 1, 1), [problem], size is None)
    height, width = image.pixels.shape[:2]
    return _Found((height, width), Objects.of(image.boxes, height, width), problems, True)
