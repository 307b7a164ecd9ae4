"""Reading an LMDB of images and boxes back: what is in it, and what is wrong with it."""

from __future__ import annotations

import collections
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from ssdlite_caffe.coco.label_map import LabelMap, load_label_map
from ssdlite_caffe.data.annotations import box_text
from ssdlite_caffe.data.lmdb_store import LABEL_MAP, LmdbReader
from ssdlite_caffe.errors import DatasetError
from ssdlite_caffe.files import new_folder
from ssdlite_caffe.imports import import_opencv
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.runtimes.draw import draw_labelled, write_image
from ssdlite_caffe.runtimes.images import Pixels
from ssdlite_caffe.terminal import silenced

DRAWN = "drawn.txt"

_KEY = re.compile(rb"(\d{8,})_(.+)", re.DOTALL)
_EDGE = 1e-6
"""By how much a corner may be below 0 or above 1, as fractions of the image: rounding to float32."""


@dataclass
class Contents:
    """What is in an LMDB.

    Attributes:
        records: number of records.
        empty: number of images without boxes.
        difficult: number of boxes with this flag.
        boxes: number of boxes of each label.
        images: number of images with a box of each label.
        sizes: number of images of each height and width.
        problems: name of a record and what is wrong with it.
    """

    records: int = 0
    empty: int = 0
    difficult: int = 0
    boxes: collections.Counter[int] = field(default_factory=collections.Counter)
    images: collections.Counter[int] = field(default_factory=collections.Counter)
    sizes: collections.Counter[tuple[int, int]] = field(default_factory=collections.Counter)
    problems: list[tuple[str, str]] = field(default_factory=list)

    def to_dict(self, label_map: LabelMap | None) -> dict[str, Any]:
        """Plain data for JSON."""
        names = label_map.display_names if label_map else ()
        heights, widths = ([size[axis] for size in self.sizes] for axis in (0, 1))
        return {
            "records": self.records,
            "images_empty": self.empty,
            "objects": sum(self.boxes.values()),
            "objects_difficult": self.difficult,
            "num_classes": len(label_map) if label_map else None,
            "classes": [
                {
                    "label": label,
                    "name": names[label] if 0 <= label < len(names) else None,
                    "objects": self.boxes[label],
                    "images": self.images[label],
                }
                for label in sorted({*range(1, len(names)), *self.boxes})
            ],
            "heights": [min(heights, default=0), max(heights, default=0)],
            "widths": [min(widths, default=0), max(widths, default=0)],
            "problems": [{"record": record, "what": what} for record, what in self.problems],
        }


def check_lmdb(
    folder: Path,
    *,
    label_map: str | None = None,
    draw: int = 0,
    out: Path | None = None,
    force: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Read all records of an LMDB.

    Args:
        folder: the LMDB.
        label_map: `coco`, `voc` or a file; None: labelmap.prototxt in the folder, if there is one.
        draw: number of images to draw with their boxes into `out`, evenly spread over the records.
        out: folder for the drawn images.
        force: replace images drawn earlier.
        progress: called with the number of records done and the total.

    Returns:
        Counts, and problems: a record that cannot be parsed or decoded; a box that is reversed or empty, has NaN or
        Inf, or extends beyond the image; a label that is not in the label map; a name that occurs twice.

    Raises:
        DatasetError: it is not an LMDB, or is damaged.
        LabelMapError: the label map cannot be read.
    """
    labels = _label_map(folder, label_map)
    with LmdbReader(folder) as reader:
        if out is None:
            contents = _read(reader, labels, progress)
        else:
            with new_folder(out, marker=DRAWN, force=force) as target:
                contents = _read(reader, labels, progress, Drawer(target, draw, len(reader), labels))
    return contents.to_dict(labels)


class Drawer:
    """Draws a sample of the images with their boxes."""

    def __init__(self, folder: Path, count: int, records: int, label_map: LabelMap | None) -> None:
        """Choose `count` of `records`, evenly spread."""
        self._folder = folder
        self._chosen = set(np.linspace(0, records - 1, min(count, records)).round().astype(int).tolist())
        self._names = label_map.display_names if label_map else ()
        (folder / DRAWN).write_text("images with the boxes of an LMDB\n", "utf-8")

    def __call__(self, number: int, pixels: Pixels, message: caffe_pb2.AnnotatedDatum) -> None:
        """Draw a record, if it is one of the sample."""
        if number not in self._chosen:
            return
        boxes, classes, texts = [], [], []
        for group in message.annotation_group:
            label = group.group_label
            name = self._names[label] if 0 <= label < len(self._names) else f"label {label}"
            for item in group.annotation:
                boxes.append([item.bbox.xmin, item.bbox.ymin, item.bbox.xmax, item.bbox.ymax])
                classes.append(label)
                texts.append(f"{name} (difficult)" if item.bbox.difficult else name)
        corners = np.nan_to_num(np.array(boxes, np.float64).reshape(-1, 4))
        drawn = draw_labelled(pixels, np.clip(corners, -1, 2), classes, texts)
        write_image(self._folder / f"{number:08d}.png", drawn)


def parse_record(value: bytes) -> caffe_pb2.AnnotatedDatum:
    """Parse a record's value.

    Raises:
        DatasetError: it is not an AnnotatedDatum, or has no image.
    """
    try:
        message = caffe_pb2.AnnotatedDatum.FromString(value)
    except DecodeError as error:
        raise DatasetError("cannot be parsed: not an AnnotatedDatum, or damaged") from error
    if not message.HasField("datum"):
        raise DatasetError("has no image")
    return message


def decode_datum(datum: caffe_pb2.Datum) -> Pixels:
    """The image of a record as Caffe decodes it for a net that reads colour images: uint8 (H, W, 3), BGR.

    Raises:
        DatasetError: it cannot be decoded, its size does not fit its data, or it is stored as raw pixels that do not
            have 3 channels.
    """
    return _in_colour(_stored_pixels(datum), datum)


def _stored_pixels(datum: caffe_pb2.Datum) -> npt.NDArray[Any]:
    """The image with its stored number of channels and bits."""
    return _encoded_pixels(datum.data, "IMREAD_UNCHANGED") if datum.encoded else _raw_pixels(datum)


def _in_colour(pixels: npt.NDArray[Any], datum: caffe_pb2.Datum) -> Pixels:
    if _is_colour(pixels):
        return pixels
    if not datum.encoded:
        raise DatasetError(
            f"has {_kind(pixels)}; Caffe stops at it, since it converts only encoded images (JPEG, PNG) to 3 channels"
        )
    return _encoded_pixels(datum.data, "IMREAD_COLOR")


def _is_colour(pixels: npt.NDArray[Any]) -> bool:
    return pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8


def _kind(pixels: npt.NDArray[Any]) -> str:
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    return f"an image with {channels} channel{'s' * (channels != 1)} of {8 * pixels.dtype.itemsize} bits"


def _encoded_pixels(data: bytes, flag: str) -> npt.NDArray[Any]:
    cv2 = import_opencv()
    try:
        flags = getattr(cv2, flag) | (cv2.IMREAD_IGNORE_ORIENTATION if flag == "IMREAD_COLOR" else 0)
        pixels: npt.NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise DatasetError("cannot be decoded: not an image, or truncated")
    return pixels


def _raw_pixels(datum: caffe_pb2.Datum) -> npt.NDArray[Any]:
    shape = datum.channels, datum.height, datum.width
    if min(shape) < 1 or len(datum.data) != math.prod(shape):
        raise DatasetError(
            f"has {len(datum.data)} bytes of pixels, which do not fit its size "
            f"{'x'.join(map(str, shape))} (channels x height x width)"
        )
    return np.ascontiguousarray(np.frombuffer(datum.data, np.uint8).reshape(shape).transpose(1, 2, 0))


def _label_map(folder: Path, given: str | None) -> LabelMap | None:
    if given is not None:
        return load_label_map(given)
    return load_label_map(folder / LABEL_MAP) if (folder / LABEL_MAP).is_file() else None


def _read(
    reader: LmdbReader,
    label_map: LabelMap | None,
    progress: Callable[[int, int], None],
    draw: Callable[[int, Pixels, caffe_pb2.AnnotatedDatum], None] = lambda number, pixels, message: None,
) -> Contents:
    contents = Contents()
    names: set[bytes] = set()
    with silenced(stdout=False):
        for number, (key, value) in enumerate(reader):
            record = _shown_key(key)
            contents.records += 1
            contents.problems += [(record, what) for what in _key_problems(key, names)]
            try:
                message = parse_record(value)
                stored = _stored_pixels(message.datum)
                pixels = _in_colour(stored, message.datum)
            except DatasetError as error:
                contents.problems.append((record, str(error)))
            else:
                contents.sizes[pixels.shape[:2]] += 1
                if not _is_colour(stored):
                    what = f"has {_kind(stored)}; it is read as 3 channels of 8 bits, other builds of Caffe stop at it"
                    contents.problems.append((record, what))
                contents.problems += [(record, what) for what in _count(contents, message, label_map)]
                draw(number, pixels, message)
            progress(contents.records, len(reader))
    return contents


def _shown_key(key: bytes) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in key.decode("utf-8", "replace"))


def _key_problems(key: bytes, names: set[bytes]) -> Iterator[str]:
    """What is wrong with a key; adds its name to `names`."""
    parts = _KEY.fullmatch(key)
    if not parts:
        yield "the key must be eight or more digits, an underscore and a name"
        return
    if parts[2] in names:
        yield "an earlier record has the same name"
    names.add(parts[2])


def _count(contents: Contents, message: caffe_pb2.AnnotatedDatum, label_map: LabelMap | None) -> Iterator[str]:
    """Count the boxes of a record, and yield what is wrong with them."""
    if message.HasField("type") and message.type != caffe_pb2.AnnotatedDatum.BBOX:
        yield f"type must be BBOX ({caffe_pb2.AnnotatedDatum.BBOX}), got {message.type}"
    if not any(group.annotation for group in message.annotation_group):
        contents.empty += 1
    labels = set()
    for group in message.annotation_group:
        label = group.group_label
        labels.add(label)
        contents.boxes[label] += len(group.annotation)
        if label < 1 or (label_map is not None and label >= len(label_map)):
            allowed = "1 or more" if label_map is None else f"1 to {len(label_map) - 1}, as in the label map"
            yield f"label must be {allowed}, got {label}"
        for item in group.annotation:
            contents.difficult += item.bbox.difficult
            what = _wrong_box(item)
            if what:
                yield f"{what} (label {label})"
    contents.images.update(labels)


def _wrong_box(item: caffe_pb2.Annotation) -> str:
    """What is wrong with a box; empty if nothing is."""
    if not item.HasField("bbox"):
        return "has an object without a box"
    box = item.bbox
    corners = box.xmin, box.ymin, box.xmax, box.ymax
    text = box_text(corners)
    if not all(map(math.isfinite, corners)):
        return f"box {text} has NaN or Inf"
    if box.xmin > box.xmax or box.ymin > box.ymax:
        return f"box {text} is reversed"
    if box.xmin == box.xmax or box.ymin == box.ymax:
        return f"box {text} is empty"
    if min(corners) < -_EDGE or max(corners) > 1 + _EDGE:
        return f"box {text} extends beyond the image, 0 to 1"
    return ""
