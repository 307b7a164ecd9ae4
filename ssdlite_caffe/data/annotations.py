"""Images with boxes around their objects: what the readers of Pascal VOC and COCO data return, and what both check.

Boxes are corners in pixels, xmin, ymin, xmax, ymax, as in the annotations: x is 0 at the left edge of the image and
its width at the right edge, y is 0 at the top and its height at the bottom.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from ssdlite_caffe.coco.label_map import LabelMap
from ssdlite_caffe.errors import DatasetError, LabelMapError
from ssdlite_caffe.terminal import size_text

Effect = Literal["image skipped", "object skipped", "box clipped"]
Corners = tuple[float, float, float, float]

_OUTSIDE = 1.0
"""Pixels by which a box may pass an edge without a report: VOC counts pixels from 1, COCO boxes come from outlines."""
_UNFIT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_SHOWN = 80


class Problem(NamedTuple):
    """Something wrong in the annotations, and what was done about it.

    Attributes:
        where: file, and the line or entry in it.
        what: what is wrong.
        effect: what was done about it.
    """

    where: str
    what: str
    effect: Effect

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.effect}"


class Box(NamedTuple):
    """An object in an image.

    Attributes:
        label: class id in the label map, 1 or more.
        xmin, ymin, xmax, ymax: corners in pixels, inside the image.
        difficult: VOC's flag for objects that are hard to see, or COCO's for a box around a crowd.
    """

    label: int
    xmin: float
    ymin: float
    xmax: float
    ymax: float
    difficult: bool


@dataclass(frozen=True)
class Entry:
    """An image of a data set.

    Attributes:
        name: path of the image below the data set's folder, with slashes; unique in the data set.
        id: the image in result files: the file name without suffix (VOC), or the id as text (COCO).
        path: the image file.
        annotations: the XML file of the image (VOC), or its index in the list `images` of the JSON file (COCO).
    """

    name: str
    id: str
    path: Path
    annotations: Path | int


class Dataset(Protocol):
    """Images and their annotations, which are read one image at a time; several threads may read at once.

    Attributes:
        entries: the images, in the order of the data set.
        label_map: the label map that was given, or one of the names found in the annotations.
        problems: what was found wrong when the data set was opened.
    """

    entries: Sequence[Entry]
    label_map: LabelMap
    problems: list[Problem]

    def objects(self, entry: Entry, height: int, width: int) -> tuple[list[Box], list[Problem]]:
        """The objects of an image that can be used, and what is wrong with the others.

        Args:
            entry: one of `entries`.
            height: of the image in pixels, after the rotation that its EXIF data asks for.
            width: of the image in pixels, likewise.

        Raises:
            DatasetError: the annotations of this image cannot be used; the text begins with file and line.
        """


class ClassIds:
    """Class ids of a label map by class name; each name is looked up once."""

    def __init__(self, label_map: LabelMap) -> None:
        """Take the names of `label_map`."""
        self._label_map = label_map
        self._found: dict[str, tuple[int | None, str]] = {}

    def find(self, name: str) -> tuple[int | None, str]:
        """The class id of a name or display name, and an empty text; or None, and why there is no such class."""
        found = self._found.get(name)
        if found is None:
            found = self._found[name] = self._look_up(name)
        return found

    def _look_up(self, name: str) -> tuple[int | None, str]:
        try:
            class_id = self._label_map.find(name)
        except LabelMapError as error:
            return None, str(error)
        if class_id == 0:
            return None, f"{value_text(name)} is the background of the label map, not a class of objects"
        if class_id is not None:
            return class_id, ""
        near = self._label_map.nearest(name)
        return None, f"{value_text(name)} is not in the label map" + (f" (did you mean {near!r}?)" if near else "")


def fit_box(corners: Corners, height: int, width: int) -> tuple[Corners | None, str]:
    """Check a box against its image.

    Args:
        corners: xmin, ymin, xmax, ymax in pixels.
        height: of the image.
        width: of the image.

    Returns:
        The box, clipped to the image, or None when it cannot be used; and what is wrong with it, an empty text when
        nothing is or when the box passes no edge by more than one pixel.
    """
    xmin, ymin, xmax, ymax = corners
    if not all(map(math.isfinite, corners)):
        return None, f"box {box_text(corners)} has NaN or Inf"
    if xmin > xmax or ymin > ymax:
        return None, f"box {box_text(corners)} is reversed: xmin > xmax or ymin > ymax"
    if xmin == xmax or ymin == ymax:
        return None, f"box {box_text(corners)} is empty: xmin = xmax or ymin = ymax"
    if xmin >= 0 and ymin >= 0 and xmax <= width and ymax <= height:
        return corners, ""
    clipped = max(xmin, 0.0), max(ymin, 0.0), min(xmax, float(width)), min(ymax, float(height))
    if clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
        return None, f"box {box_text(corners)} is outside the image of {width}x{height} (width x height)"
    if max(-xmin, -ymin, xmax - width, ymax - height) <= _OUTSIDE:
        return clipped, ""
    return clipped, f"box {box_text(corners)} extends beyond the image of {width}x{height} (width x height)"


def check_size(where: str, stated: tuple[float, float], height: int, width: int) -> None:
    """Refuse annotations that were made for an image of another size.

    Args:
        where: the file with the annotations, for the error message.
        stated: height and width in the annotations; 0 for one that is not given.
        height: of the image.
        width: of the image.

    Raises:
        DatasetError: the sizes differ.
    """
    if all(stated) and stated != (height, width):
        rotated = " (rotated by its EXIF data?)" if stated == (width, height) else ""
        raise DatasetError(
            f"{where}: annotated as {stated[1]:g}x{stated[0]:g}, but the image is {width}x{height} "
            f"(width x height){rotated}"
        )


def relative_path(text: str) -> str | None:
    """`text` if it is a path below a folder; None if it is absolute or empty, or has `..` or unprintable characters."""
    parts = text.split("/")
    if not text or "\\" in text or _UNFIT.search(text) or any(part in ("", ".", "..") for part in parts):
        return None
    return None if parts[0][1:2] == ":" else text  # a Windows drive


def box_text(corners: Iterable[float]) -> str:
    """A box for an error message."""
    return "(" + ", ".join(f"{value:.6g}" for value in corners) + ")"


def value_text(text: object) -> str:
    """A value from a file for an error message: quoted, on one line, at most 80 characters."""
    escaped = ascii(text)
    return escaped if len(escaped) <= _SHOWN else escaped[: _SHOWN - 3] + "..."


def read_bounded(path: Path, limit: int) -> bytes:
    """A file's content.

    Raises:
        DatasetError: it cannot be read, or is larger than `limit` bytes.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:  # a NUL in the name
        raise DatasetError(f"{str(path)!a}: {error}") from error
    if len(data) > limit:
        raise DatasetError(f"{path}: larger than {size_text(limit)}")
    return data
