"""Images with boxes around their objects: what the readers of Pascal VOC and COCO data return, and what both check.

Boxes are corners in pixels, xmin, ymin, xmax, ymax, as in the annotations: x is 0 at the left edge of the image and
its width at the right edge, y is 0 at the top and its height at the bottom.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from ssdlite_caffe.coco.label_map import LabelMap
from ssdlite_caffe.coco.no_class import is_placeholder
from ssdlite_caffe.errors import DatasetError, LabelMapError
from ssdlite_caffe.terminal import size_text

Effect = Literal[
    "image skipped", "object skipped", "box clipped", "flag taken as 0", "category skipped", "lines skipped"
]  # fmt: skip
_EXPECTED: frozenset[Effect] = frozenset({"category skipped", "lines skipped"})
Corners = tuple[float, float, float, float]

_OUTSIDE = 1.0
"""Pixels by which a box may pass an edge without a report: VOC counts pixels from 1, COCO boxes come from outlines."""
UNFIT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
"""Characters that a name or path cannot have: control characters and lone surrogates."""
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
"""A number as text."""
_UNSET = frozenset({"", "0", "0.0", "false", "no", "none", "null", "n/a", "unspecified", "undefined", "unknown"})
_DIGITS = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")
_SHOWN = 80
_UNKNOWN_CLASS = re.compile(r"(?P<name>['\"].*?) is not in the label map.*|label (?P<id>-?\d+) is not a class id.*")
"""What `ClassIds` and `labelled_images.stored_boxes` say of classes that are in no label map."""


class Problem(NamedTuple):
    """Something in the annotations that a user should know, and what was done about it.

    Attributes:
        where: file, and the line or entry in it.
        what: what is wrong.
        effect: what was done about it.
    """

    where: str
    what: str
    effect: Effect

    @property
    def is_wrong(self) -> bool:
        """Whether `--strict` refuses it: not what the format means to be skipped, such as a category for background."""
        return self.effect not in _EXPECTED

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.effect}"


_MANY: dict[Effect, str] = {
    "image skipped": "images skipped",
    "object skipped": "objects skipped",
    "flag taken as 0": "flags taken as 0",
    "box clipped": "boxes clipped",
}


def count_text(problems: Iterable[Problem]) -> str:
    """How often each thing was done because something is wrong: `2 images skipped, 1 object skipped`; may be empty."""
    counts = Counter(problem.effect for problem in problems)
    return ", ".join(f"{counts[one]} {one if counts[one] == 1 else many}" for one, many in _MANY.items() if counts[one])


def reasons(problems: Iterable[Problem], most: int = 10) -> list[str]:
    """The most frequent reasons, numbers in them left out, with their effects and counts, a line each."""
    found = Counter((_DIGITS.sub("N", problem.what), problem.effect) for problem in problems)
    return [f"{count} times {what}; {effect}" for (what, effect), count in found.most_common(most)]


def unknown_class(problem: Problem) -> str | None:
    """The class of an object that was skipped because the label map does not have it, as a message shows it; or None.

    That is a name in quotes or, of an LMDB, a class id.
    """
    found = _UNKNOWN_CLASS.fullmatch(problem.what) if problem.effect == "object skipped" else None
    return found and (found["name"] or found["id"])


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
        numbered: whether result files have `id` as a number, as COCO's have.
    """

    name: str
    id: str
    path: Path
    annotations: Path | int
    numbered: bool = False


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
        if is_placeholder(name):
            return None, f"{value_text(name)} is the name of no class"
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


def is_set(name: str, value: object) -> tuple[bool, str]:
    """Whether a flag of an object is set: only 1 sets it, as in the SSD branch's `convert_annoset`.

    Args:
        name: of the flag, for the message.
        value: as in the file, text or a number; None if it is not given.

    Returns:
        Whether it is set, and what is wrong with a value that is neither 1 nor one that says no.

    Source: ReadXMLToAnnotatedDatum in util/io.cpp of the SSD branch compares `difficult` with "1".
    """
    if isinstance(value, bool | float) and value in (0, 1):
        value = int(value)
    text = "" if value is None else str(value).strip()
    if text == "1":
        return True, ""
    return False, "" if text.casefold() in _UNSET else f"{name} must be 0 or 1, got {value_text(value)}"


def relative_path(text: str) -> str | None:
    """A path below a folder, with slashes; None if `text` is none.

    Backslashes, as Windows' programs write them, count as slashes; `.` and doubled slashes are dropped. What is
    absolute or empty, ends in a slash, or has `..` or unprintable characters is no such path.
    """
    parts = text.replace("\\", "/").split("/")
    if UNFIT.search(text) or not parts[0] or not parts[-1] or ".." in parts:
        return None
    kept = "/".join(part for part in parts if part not in ("", "."))
    return None if kept[1:2] == ":" else kept or None  # a Windows drive


def outside_text(text: str) -> str:
    """Why `relative_path` takes a text for no path, for an error message: `: it is absolute` or the like."""
    if ".." in re.split(r"[\\/]", text):
        return ": it has '..'"
    return ": it is absolute" if text[:1] in ("/", "\\") or text[1:2] == ":" else ""


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
