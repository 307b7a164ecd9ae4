"""Images with boxes around their objects: what the readers of Pascal VOC and COCO data give, and what both check.

Boxes are corners in pixels, xmin, ymin, xmax, ymax, as the annotations have them: the left and top edge of the image
is 0, the right and bottom one its width and height.
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

Effect = Literal["image skipped", "object skipped", "box clipped"]
Corners = tuple[float, float, float, float]

_OUTSIDE = 1.0
"""Pixels that a box may reach past an edge unmentioned: VOC counts pixels from 1, COCO's boxes come from outlines."""
_UNFIT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_SHOWN = 80


class Problem(NamedTuple):
    """Something wrong in the annotations, and what was done about it.

    Attributes:
        where: file, and line or entry in it.
        what: what is wrong.
        effect: what it led to.
    """

    where: str
    what: str
    effect: Effect

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.effect}"


class Box(NamedTuple):
    """An object in an image.

    Attributes:
        label: row in the label map, 1 or more.
        xmin, ymin, xmax, ymax: corners in pixels, inside the image.
        difficult: VOC's flag of objects hard to see, or COCO's of a crowd that one box stands for.
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
        name: its path below the data set's folder, with slashes; no other entry has it.
        id: what result files call it: VOC's name without suffix, or COCO's number.
        path: the file.
        annotations: the file with its objects (VOC), or the place of the image in it (COCO).
    """

    name: str
    id: str
    path: Path
    annotations: Path | int


class Dataset(Protocol):
    """Images whose annotations can be asked for, one image at a time and from several threads.

    Attributes:
        entries: the images, in the order of the data set.
        label_map: the one that was given, or the names found in the annotations.
        problems: what was found wrong on opening it.
    """

    entries: Sequence[Entry]
    label_map: LabelMap
    problems: list[Problem]

    def objects(self, entry: Entry, height: int, width: int) -> tuple[list[Box], list[Problem]]:
        """The objects of an image, and what is wrong with others.

        Args:
            entry: one of `entries`.
            height: of the image in pixels, as it is shown.
            width: of the image in pixels, as it is shown.

        Raises:
            DatasetError: the annotations of this image cannot be used; the text begins with file and line.
        """


class ClassIds:
    """ClassIds of a label map, found by class name in one step."""

    def __init__(self, label_map: LabelMap) -> None:
        """Take the names of `label_map`."""
        self._label_map = label_map
        self._found: dict[str, tuple[int | None, str]] = {}

    def find(self, name: str) -> tuple[int | None, str]:
        """The row of a class, by its name or display name; None, and what to tell the user, where there is none."""
        found = self._found.get(name)
        if found is None:
            found = self._found[name] = self._look_up(name)
        return found

    def _look_up(self, name: str) -> tuple[int | None, str]:
        try:
            row = self._label_map.find(name)
        except LabelMapError as error:
            return None, str(error)
        if row == 0:
            return None, f"{quoted(name)} is the background of the label map, not a class of objects"
        if row is not None:
            return row, ""
        near = self._label_map.nearest(name)
        return None, f"{quoted(name)} is not in the label map" + (f" (did you mean {near!r}?)" if near else "")


def fit_box(corners: Corners, height: int, width: int) -> tuple[Corners | None, str]:
    """Check a box against its image.

    Args:
        corners: xmin, ymin, xmax, ymax in pixels.
        height: of the image.
        width: of the image.

    Returns:
        The box, with what reaches past the image's edges cut off; None when it cannot be used. And what is wrong
        with it: empty where nothing is, or where no edge is passed by more than one pixel.
    """
    xmin, ymin, xmax, ymax = corners
    if not all(map(math.isfinite, corners)):
        return None, f"box {box_text(corners)} is not finite"
    if xmin > xmax or ymin > ymax:
        return None, f"box {box_text(corners)} is reversed"
    if xmin == xmax or ymin == ymax:
        return None, f"box {box_text(corners)} is empty"
    if xmin >= 0 and ymin >= 0 and xmax <= width and ymax <= height:
        return corners, ""
    clipped = max(xmin, 0.0), max(ymin, 0.0), min(xmax, float(width)), min(ymax, float(height))
    if clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
        return None, f"box {box_text(corners)} lies outside the image of {width}x{height} (width x height)"
    if max(-xmin, -ymin, xmax - width, ymax - height) <= _OUTSIDE:
        return clipped, ""
    return clipped, f"box {box_text(corners)} reaches past the edges of the image of {width}x{height} (width x height)"


def check_size(where: str, stated: tuple[float, float], height: int, width: int) -> None:
    """Refuse annotations made for an image of another size, height and width; 0 stands for not stated.

    Raises:
        DatasetError: the sizes differ.
    """
    if all(stated) and stated != (height, width):
        turned = " (turned by its EXIF data?)" if stated == (width, height) else ""
        raise DatasetError(
            f"{where}: says {stated[1]:g}x{stated[0]:g}, but the image has {width}x{height} (width x height){turned}"
        )


def relative_path(text: str) -> str | None:
    """A path below a folder, written with slashes; None for one that leads out of it, is absolute or unprintable."""
    parts = text.split("/")
    if not text or "\\" in text or _UNFIT.search(text) or any(part in ("", ".", "..") for part in parts):
        return None
    return None if parts[0][1:2] == ":" else text  # a drive of Windows


def box_text(corners: Iterable[float]) -> str:
    """A box in an error message."""
    return "(" + ", ".join(f"{value:.6g}" for value in corners) + ")"


def quoted(text: object) -> str:
    """A value from a file in an error message: quoted, on one line, cut short."""
    quoted = ascii(text)
    return quoted if len(quoted) <= _SHOWN else quoted[: _SHOWN - 3] + "..."


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
        raise DatasetError(f"{path}: larger than {limit >> 20} MiB")
    return data
