"""Which images a list of Pascal VOC data names: ImageSets/Main/SPLIT.txt, or lines `IMAGE ANNOTATION`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ssdlite_caffe.data.annotations import Entry, Problem, read_bounded, relative_path, value_text
from ssdlite_caffe.errors import DatasetError
from ssdlite_caffe.runtimes.images import IMAGE_SUFFIXES

IMAGES, ANNOTATIONS, SPLITS = "JPEGImages", "Annotations", "ImageSets/Main"

_MAX_LIST_BYTES = 1 << 28
_CLASS_LINE = re.compile(r"(.*\S)\s+(-1|0|1)")
"""A line in the list of a class, which marks images without the class -1, and those with difficult ones only 0."""


class _Line(NamedTuple):
    """A line of a split.

    Attributes:
        where: file and line number.
        text: the line.
        name: the file name without suffix that all of the line is, of an image that is there; None if there is none.
    """

    where: str
    text: str
    name: str | None


def from_split(root: Path, split: str) -> Iterator[tuple[str, Entry | Problem]]:
    """For each line of the split: file and line number, and the image or what is wrong with it.

    A line is a file name in JPEGImages, usually without its suffix. A line that is none is taken for one of a class's
    list, NAME FLAG, unless other lines that look so are file names.

    Raises:
        DatasetError: the folder is not in VOC's layout, has no such split, or the split is not UTF-8 text.
    """
    for folder in (IMAGES, ANNOTATIONS, SPLITS):
        if not (root / folder).is_dir():
            raise DatasetError(f"{root} has no folder {folder}{_hint(root)}")
    path = root / SPLITS / f"{split}.txt"
    if relative_path(split) is None or not path.is_file():
        splits = ", ".join(sorted(file.stem for file in (root / SPLITS).glob("*.txt"))[:20]) or "none"
        raise DatasetError(f"{root} has no split {value_text(split)}; it has: {splits}")
    images = _images(root / IMAGES)
    lines = [_Line(where, text, _name(text, images)) for where, text in _lines(path)]
    marked = [line for line in lines if _CLASS_LINE.fullmatch(line.text)]
    names_only = any(line.name is not None for line in marked)
    absent = 0
    for line in lines:
        flagged = None if names_only or line.name is not None else _CLASS_LINE.fullmatch(line.text)
        if flagged and flagged[2] == "-1" and len(marked) == len(lines):
            absent += 1
        elif flagged and flagged[2] == "-1":
            what = f"{value_text(line.text)} is marked -1, as in the list of a class, but other lines have no mark"
            yield line.where, Problem(line.where, what, "image skipped")
        else:
            text = flagged[1] if flagged else line.text
            entry = _entry(root, images, text, _name(text, images) if flagged else line.name)
            yield line.where, Problem(line.where, entry, "image skipped") if isinstance(entry, str) else entry
    if absent:
        what = f"{absent} of {len(lines)} lines end in -1: images without the class"
        yield str(path), Problem(str(path), what, "lines skipped")


def from_names(root: Path, names: Iterable[str]) -> Iterator[tuple[str, Entry | Problem]]:
    """As `from_split`, for file names in JPEGImages without suffix, of any split; a name without an image is dropped.

    Raises:
        DatasetError: the folder is not in VOC's layout.
    """
    for folder in (IMAGES, ANNOTATIONS):
        if not (root / folder).is_dir():
            raise DatasetError(f"{root} has no folder {folder}{_hint(root)}")
    images = _images(root / IMAGES)
    for name in names:
        if name in images:
            entry = _entry(root, images, name, name)
            yield str(root), Problem(str(root), entry, "image skipped") if isinstance(entry, str) else entry


def _entry(root: Path, images: dict[str, list[str]], text: str, name: str | None) -> Entry | str:
    """The image with this name, which a line gives as `text`, or what is wrong with it."""
    path = (relative_path(text) or "").removeprefix(f"{IMAGES}/")
    if name is None and (not path or "/" in path):
        return f"{value_text(text)} is not a file name in {IMAGES}"
    if name is None:
        return f"{root / IMAGES} has no image {value_text(text)}"
    files = [path] if path in images[name] else images[name]
    annotations = root / ANNOTATIONS / f"{name}.xml"
    if len(files) > 1:
        return f"{value_text(text)} is ambiguous: {', '.join(sorted(files))}; give the suffix too"
    if not annotations.is_file():
        return f"{annotations} is missing"
    return Entry(f"{IMAGES}/{files[0]}", name, root / IMAGES / files[0], annotations)


def _name(text: str, images: dict[str, list[str]]) -> str | None:
    """The name without suffix of the image that a line gives with or without a suffix or folder; None if none is so."""
    if text in images:
        return text
    path = (relative_path(text) or "").removeprefix(f"{IMAGES}/")
    if path in images:
        return path
    stem, dot, suffix = path.rpartition(".")
    return stem if stem in images and f"{dot}{suffix.lower()}" in (*IMAGE_SUFFIXES, ".xml") else None


def _hint(root: Path) -> str:
    inner = sorted(path.parent for path in root.glob(f"*/{IMAGES}"))[:1] if root.is_dir() else []
    return f"; did you mean {inner[0]}?" if inner else "; VOC data has JPEGImages, Annotations and ImageSets/Main"


def _images(folder: Path) -> dict[str, list[str]]:
    """File names of images by name without suffix."""
    found: dict[str, list[str]] = {}
    for path in folder.iterdir():
        if path.suffix.lower() in IMAGE_SUFFIXES:
            found.setdefault(path.stem, []).append(path.name)
    return found


def from_list(root: Path, list_file: Path) -> Iterator[tuple[str, Entry | Problem]]:
    """As `from_split`, for lines `IMAGE ANNOTATION` with paths below the root, a tab or spaces between them.

    Raises:
        DatasetError: the list cannot be read, or is not UTF-8 text.
    """
    for where, line in _lines(list_file):
        entry = _pair(root, line)
        yield where, Problem(where, entry, "image skipped") if isinstance(entry, str) else entry


def _pair(root: Path, line: str) -> Entry | str:
    """The image of a line, or what is wrong with it."""
    between = list(re.finditer(r"\t+" if "\t" in line else r"\s+", line))
    pairs = [(line[: gap.start()].rstrip(), line[gap.end() :].lstrip()) for gap in between]
    paths = [(relative_path(image), relative_path(annotations)) for image, annotations in pairs]
    inside = [(image, annotations) for image, annotations in paths if image is not None and annotations is not None]
    # Names may have spaces: what counts is which pair of files is there.
    found = [pair for pair in inside if all((root / path).is_file() for path in pair)]
    if len(found) == 1 or (len(pairs) == 1 and inside):
        image, annotations = (found or inside)[0]
        missing = next((root / path for path in (image, annotations) if not (root / path).is_file()), None)
        entry = Entry(image, PurePosixPath(image).stem, root / image, root / annotations)
        return entry if missing is None else f"{missing} is missing"
    if len(pairs) == 1:
        return f"{value_text(line)} has a path that is not inside {root}"
    none = f", which is no pair of files below {root}" if pairs else ""
    return f"the line must be IMAGE ANNOTATION, got {value_text(line)}{none}"


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Lines that are not empty, stripped, each after its file and line number."""
    for number, line in enumerate(read_bounded(path, _MAX_LIST_BYTES).split(b"\n"), 1):
        try:
            text = line.decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise DatasetError(f"{path}:{number}: not UTF-8 text") from error
        if text:
            yield f"{path}:{number}", text
