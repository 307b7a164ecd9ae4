"""Writing images and boxes into the LMDB that Caffe's AnnotatedData layer reads, as convert_annoset writes it.

The key of a record is the index of the image in eight digits, an underscore and the image's name. The value is an
AnnotatedDatum: the encoded image, and its boxes as fractions of the image, grouped by label.

Source: tools/convert_annoset.cpp and util/io.cpp of the SSD branch (github.com/weiliu89/caffe).
"""

from __future__ import annotations

import collections
import json
import os
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ssdlite_caffe.coco.label_map import LabelMap
from ssdlite_caffe.data.annotations import Box, Dataset, Entry, Problem
from ssdlite_caffe.data.encoded import ImageEncoding, read_encoded
from ssdlite_caffe.data.lmdb_store import LABEL_MAP, MAX_KEY, LmdbWriter
from ssdlite_caffe.errors import DatasetError
from ssdlite_caffe.files import new_folder, write_text
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.terminal import silenced
from ssdlite_caffe.threads import ordered_map

NAME_SIZE, SUMMARY = "test_name_size.txt", "lmdb.json"

_BATCH_BYTES = 1 << 24
_MAX_NAMED = 50


@dataclass(frozen=True)
class Order:
    """In which order images are stored, and with how many threads they are read."""

    shuffle: bool = False
    seed: int = 0
    jobs: int = 0

    def apply(self, entries: Sequence[Entry]) -> list[tuple[int, Entry]]:
        """The entries in the order to store them, each with its index."""
        listed = list(entries)
        if self.shuffle:
            random.Random(self.seed).shuffle(listed)  # noqa: S311
        return list(enumerate(listed))

    @property
    def threads(self) -> int:
        """Number of threads: `jobs`, or, if that is 0, one for each processor that this process may use."""
        if self.jobs:
            return self.jobs
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Record(NamedTuple):
    """A record to write; `value` is None for an image that is skipped."""

    key: bytes
    value: bytes | None
    name_size: str
    boxes: list[Box]
    problems: list[Problem]
    kept: bool


@dataclass
class Counts:
    """Counts of what has been written."""

    images: int = 0
    empty: int = 0
    encoded_anew: int = 0
    bytes: int = 0
    difficult: int = 0
    classes: collections.Counter[int] = field(default_factory=collections.Counter)

    def add(self, record: _Record) -> None:
        """Count a record that has been written."""
        assert record.value is not None
        self.images += 1
        self.empty += not record.boxes
        self.encoded_anew += not record.kept
        self.bytes += len(record.value)
        self.difficult += sum(box.difficult for box in record.boxes)
        self.classes.update(box.label for box in record.boxes)


def write_lmdb(
    dataset: Dataset,
    out: Path,
    shape: ImageEncoding = ImageEncoding(),  # noqa: B008
    order: Order = Order(),
    *,
    strict: bool = False,
    force: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Write a data set into a new LMDB, with its label map, test_name_size.txt and lmdb.json; all or nothing.

    Args:
        dataset: the images and their annotations.
        out: folder to write.
        shape: how images are stored.
        order: in which order.
        strict: raise if anything is wrong with the data; otherwise it is skipped and listed in the summary.
        force: replace an LMDB that this function wrote earlier.
        progress: called with the number of images done and the total.

    Returns:
        The summary that is written as lmdb.json.

    Raises:
        DatasetError: no image can be used, or `strict` is set and there are problems; the text lists them.
        OutputError: `out` exists already or cannot be written.
    """
    with new_folder(out, marker=SUMMARY, force=force) as folder:
        counts, problems, sizes = Counts(), list(dataset.problems), []
        with LmdbWriter(folder) as writer, silenced(stdout=False):
            for batch in _batches(_records(dataset, shape, order, progress)):
                problems += [problem for record in batch for problem in record.problems]
                written = [record for record in batch if record.value is not None]
                if strict and any(problem.is_wrong for problem in problems):
                    continue  # read on to list the other problems too
                writer.put([(record.key, record.value or b"") for record in written])
                sizes += [record.name_size for record in written]
                for record in written:
                    counts.add(record)
        _refuse(problems, counts, strict=strict)
        (folder / "lock.mdb").unlink(missing_ok=True)
        listed = len(dataset.entries) + sum(problem.effect == "image skipped" for problem in dataset.problems)
        summary = _summary(counts, problems, dataset.label_map, order, listed)
        write_text(folder / LABEL_MAP, dataset.label_map.to_prototxt())
        write_text(folder / NAME_SIZE, "".join(sizes))
        write_text(folder / SUMMARY, json.dumps(summary, indent=2) + "\n")
    return summary


def annotated_datum(data: bytes, boxes: Iterable[Box], height: int, width: int) -> caffe_pb2.AnnotatedDatum:
    """The record that Caffe reads for an image.

    Groups are in the order in which their labels first occur, and instance ids count from 0 in each group. Corners
    are divided in float64 and rounded once, which for whole pixels gives the same as float32 division.

    Args:
        data: the encoded image.
        boxes: in pixels of an image of `height` and `width`.
        height: in pixels.
        width: in pixels.

    Source: ReadRichImageToAnnotatedDatum, ReadXMLToAnnotatedDatum in util/io.cpp; label -1 as there.
    """
    message = caffe_pb2.AnnotatedDatum(
        datum=caffe_pb2.Datum(data=data, label=-1, encoded=True), type=caffe_pb2.AnnotatedDatum.BBOX
    )
    groups: dict[int, Any] = {}
    for box in boxes:
        group = groups.get(box.label)
        if group is None:
            group = groups[box.label] = message.annotation_group.add(group_label=box.label).annotation
        group.add(
            instance_id=len(group),
            bbox=caffe_pb2.NormalizedBBox(
                xmin=box.xmin / width,
                ymin=box.ymin / height,
                xmax=box.xmax / width,
                ymax=box.ymax / height,
                difficult=box.difficult,
            ),
        )
    return message


def describe(problems: Sequence[Problem], most: int = _MAX_NAMED) -> str:
    """Problems, one per line, indented; at most 50 are listed."""
    more = f"\n  ... and {len(problems) - most} more" if len(problems) > most else ""
    return "\n".join(f"  {problem}" for problem in problems[:most]) + more


def _records(
    dataset: Dataset, shape: ImageEncoding, order: Order, progress: Callable[[int, int], None]
) -> Iterator[_Record]:
    numbered = order.apply(dataset.entries)
    for done, record in enumerate(
        ordered_map(lambda item: _record(dataset, shape, *item), numbered, threads=order.threads), 1
    ):
        yield record
        progress(done, len(numbered))


def _record(dataset: Dataset, shape: ImageEncoding, number: int, entry: Entry) -> _Record:
    """Read an image and its annotations; an error becomes a problem of the record."""
    key = f"{number:08d}_{entry.name}".encode()
    try:
        if len(key) > MAX_KEY:
            raise DatasetError(f"{entry.path}: name too long: its key has {len(key)} bytes, LMDB allows {MAX_KEY}")
        image = read_encoded(entry.path, shape)
        boxes, problems = dataset.objects(entry, image.height, image.width)
        message = annotated_datum(image.data, boxes, image.height, image.width)
    except DatasetError as error:
        where, _, what = str(error).partition(": ")
        return _Record(key, None, "", [], [Problem(where, what, "image skipped")], kept=False)
    line = f"{_one_word(entry.id)} {image.height} {image.width}\n"
    return _Record(key, message.SerializeToString(), line, boxes, problems, image.kept)


def _one_word(name: str) -> str:
    """The name with white space escaped, as %20, so that C++ reads it as one word."""
    return re.sub(r"\s", lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), name)


def _batches(records: Iterable[_Record]) -> Iterator[list[_Record]]:
    """Groups of records of about 16 MiB, each for one transaction, which is repeated when the map size grows."""
    batch: list[_Record] = []
    size = 0
    for record in records:
        batch.append(record)
        size += len(record.value or b"")
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _refuse(problems: Sequence[Problem], counts: Counts, *, strict: bool) -> None:
    wrong = [problem for problem in problems if problem.is_wrong]
    if strict and wrong:
        listed = describe(wrong, len(wrong))
        raise DatasetError(f"{len(wrong)} problem{'s' * (len(wrong) != 1)} in the data:\n{listed}")
    if not counts.images:
        raise DatasetError(f"no image can be used:\n{describe(problems)}")


def _summary(
    counts: Counts, problems: Sequence[Problem], label_map: LabelMap, order: Order, listed: int
) -> dict[str, Any]:
    names = label_map.display_names
    effects = collections.Counter(problem.effect for problem in problems)
    return {
        "images": counts.images,
        "images_listed": listed,
        "images_skipped": effects["image skipped"],
        "images_empty": counts.empty,
        "images_encoded_anew": counts.encoded_anew,
        "objects": sum(counts.classes.values()),
        "objects_difficult": counts.difficult,
        "objects_skipped": effects["object skipped"],
        "num_classes": len(label_map),
        "classes": [{"label": i, "name": names[i], "objects": counts.classes[i]} for i in range(1, len(names))],
        "bytes": counts.bytes,
        "seed": order.seed if order.shuffle else None,
        "problems": [problem._asdict() for problem in problems],
    }
