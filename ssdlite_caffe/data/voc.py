"""Reading data laid out as Pascal VOC's: ImageSets/Main/SPLIT.txt, JPEGImages/NAME.jpg, Annotations/NAME.xml."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.parsers import expat

from ssdlite_caffe.coco.label_map import BACKGROUND_NAMES, LabelMap, check_name
from ssdlite_caffe.data.annotations import (
    Box,
    ClassIds,
    Entry,
    Problem,
    check_size,
    fit_box,
    quoted,
    read_bounded,
    relative_path,
)
from ssdlite_caffe.errors import DatasetError, LabelMapError

IMAGES, ANNOTATIONS, SPLITS = "JPEGImages", "Annotations", "ImageSets/Main"

_MAX_XML_BYTES = 1 << 24
_MAX_LIST_BYTES = 1 << 28
_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".tif", ".tiff", ".webp")
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_CLASS_LINE = re.compile(r"(\S+)\s+(-1|0|1)")


class XmlObject(NamedTuple):
    """An `object` element as it stands in the file; `fields` has its leaves, those of `bndbox` by their own names."""

    line: int
    fields: dict[str, str]
    twice: str | None


class VocDataset:
    """A split of one or more folders in VOC's layout; what it offers is said in `annotations.Dataset`."""

    def __init__(self, entries: Sequence[Entry], label_map: LabelMap | None, problems: list[Problem]) -> None:
        """Take the images; without a label map, read all annotations once for the names in them."""
        self.entries = entries
        self.problems = problems
        self.label_map = label_map or _find_names(entries)
        self._rows = ClassIds(self.label_map)

    def objects(self, entry: Entry, height: int, width: int) -> tuple[list[Box], list[Problem]]:
        """See `annotations.Dataset.objects`."""
        path = entry.annotations
        assert isinstance(path, Path)
        size, objects = read_xml(path)
        check_size(str(path), size, height, width)
        boxes, problems = [], []
        for item in objects:
            box, what = self._box(item, height, width)
            if what:
                problems.append(Problem(f"{path}:{item.line}", what, "box clipped" if box else "object skipped"))
            if box:
                boxes.append(box)
        return boxes, problems

    def _box(self, item: XmlObject, height: int, width: int) -> tuple[Box | None, str]:
        fields = item.fields
        if item.twice is not None:
            return None, f"object with two {item.twice}"
        missing = next((key for key in ("name", *_SIDES) if not fields.get(key)), None)
        if missing is not None:
            return None, f"object without {missing}"
        wrong = next((key for key in _SIDES if not _NUMBER.fullmatch(fields[key])), None)
        if wrong is not None:
            return None, f"{wrong} {quoted(fields[wrong])} is not a number"
        if fields.get("difficult", "0") not in ("", "0", "1"):
            return None, f"difficult is {quoted(fields['difficult'])}, not 0 or 1"
        row, what = self._rows.find(fields["name"])
        if row is None:
            return None, what
        xmin, ymin, xmax, ymax = (float(fields[key]) for key in _SIDES)
        corners, what = fit_box((xmin, ymin, xmax, ymax), height, width)
        return corners and Box(row, *corners, fields.get("difficult") == "1"), what


def open_voc(
    roots: Sequence[Path], split: str = "", *, list_file: Path | None = None, label_map: LabelMap | None = None
) -> VocDataset:
    """Open a split of data in VOC's layout.

    Args:
        roots: folders that hold JPEGImages, Annotations and ImageSets/Main, as VOCdevkit/VOC2007 and VOCdevkit/VOC2012.
        split: name of a list in ImageSets/Main, as trainval.
        list_file: in place of `split`, lines of image and annotation, paths below the one root.
        label_map: without one, the names found in the annotations, sorted.

    Raises:
        DatasetError: the folders are not laid out so, or name no image that can be used.
    """
    entries: list[Entry] = []
    problems: list[Problem] = []
    seen: set[str] = set()
    for root in roots:
        prefix = f"{root.resolve().name}/" if len(roots) > 1 else ""
        found = _from_list(root, list_file) if list_file else _from_split(root, split)
        for where, item in found:
            if isinstance(item, str):
                problems.append(Problem(where, item, "image skipped"))
            elif prefix + item.name in seen:
                problems.append(Problem(where, f"{quoted(item.name)} is listed twice", "image skipped"))
            else:
                seen.add(prefix + item.name)
                entries.append(Entry(prefix + item.name, item.id, item.path, item.annotations))
    if not entries:
        listed = f": {problems[0]}" if problems else ""
        raise DatasetError(f"{list_file or split} of {roots[0]} names no image that can be used{listed}")
    return VocDataset(entries, label_map, problems)


def read_xml(path: Path) -> tuple[tuple[float, float], list[XmlObject]]:
    """Read a VOC annotation.

    Declarations are refused, and with them entities, which could unfold without end or fetch files.

    Returns:
        Height and width as stated, 0 where they are not or make no sense, and the objects; all texts are stripped.

    Raises:
        DatasetError: it cannot be read, is no XML or no VOC annotation; the text begins with file and line.
    """
    data = read_bounded(path, _MAX_XML_BYTES)
    parser = expat.ParserCreate()
    tree = _Tree(parser, path)
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise DatasetError(f"{path}:{error.lineno}: no XML: {expat.ErrorString(error.code)}") from error
    except (ValueError, LookupError) as error:  # an encoding that Python does not have
        raise DatasetError(f"{path}:1: no XML: {error}") from error
    height, width = (tree.size.get(key, "") for key in ("height", "width"))
    stated = [float(text) if _NUMBER.fullmatch(text) else 0.0 for text in (height, width)]
    return (stated[0], stated[1]), tree.objects


class _Tree:
    """Takes from the stream of elements what counts: leaves of `size`, of `object` and of its `bndbox`."""

    def __init__(self, parser: expat.XMLParserType, path: Path) -> None:
        self.size: dict[str, str] = {}
        self.objects: list[XmlObject] = []
        self._parser, self._path = parser, path
        self._stack: list[str] = []
        self._text: list[str] = []
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text.append
        parser.StartDoctypeDeclHandler = self._declaration

    def _declaration(self, *_: object) -> None:
        line = self._parser.CurrentLineNumber
        raise DatasetError(f"{self._path}:{line}: has a DOCTYPE declaration; a VOC annotation has none")

    def _start(self, name: str, _: object) -> None:
        stack = self._stack
        if not stack and name != "annotation":
            line = self._parser.CurrentLineNumber
            raise DatasetError(
                f"{self._path}:{line}: begins with {quoted(name)}; a VOC annotation does with annotation"
            )
        stack.append(name)
        self._text.clear()
        if name == "object" and len(stack) == 2:
            self.objects.append(XmlObject(self._parser.CurrentLineNumber, {}, None))

    def _end(self, name: str) -> None:
        stack = self._stack
        depth = len(stack)
        if depth > 2 and stack[1] == "object" and (depth == 3 or (depth == 4 and stack[2] == "bndbox")):
            self._leaf(name)
        elif depth == 3 and stack[1] == "size":
            self.size[name] = "".join(self._text).strip()
        stack.pop()
        self._text.clear()

    def _leaf(self, name: str) -> None:
        item = self.objects[-1]
        if name in item.fields and name in ("name", "difficult", "bndbox", *_SIDES):
            self.objects[-1] = item._replace(twice=name)
        item.fields[name] = "".join(self._text).strip()


def _find_names(entries: Sequence[Entry]) -> LabelMap:
    """The class names in all annotations, sorted; files that cannot be read are left for later to be told of."""
    names: set[str] = set()
    first = ""
    for entry in entries:
        assert isinstance(entry.annotations, Path)
        try:
            names |= {item.fields.get("name", "") for item in read_xml(entry.annotations)[1]}
        except DatasetError as error:
            first = first or f": {error}"
    usable = [name for name in sorted(names - BACKGROUND_NAMES) if _is_name(name)]
    if not usable:
        raise DatasetError(f"the annotations, {entries[0].annotations} the first of them, name no class at all{first}")
    return LabelMap.of_names(usable)


def _is_name(text: str) -> bool:
    try:
        check_name(text)
    except LabelMapError:
        return False
    return True


def _from_split(root: Path, split: str) -> Iterator[tuple[str, Entry | str]]:
    """Where each line of the split stands, and its image or what is wrong with it."""
    for folder in (IMAGES, ANNOTATIONS, SPLITS):
        if not (root / folder).is_dir():
            raise DatasetError(f"{root} holds no folder {folder}{_hint(root)}")
    path = root / SPLITS / f"{split}.txt"
    if relative_path(split) is None or not path.is_file():
        splits = ", ".join(sorted(file.stem for file in (root / SPLITS).glob("*.txt"))[:20]) or "none"
        raise DatasetError(f"{root} has no split {quoted(split)}; there are: {splits}")
    images = _images(root / IMAGES)
    for where, name in _lines(path):
        flagged = _CLASS_LINE.fullmatch(name)
        if flagged and flagged[2] == "-1":
            continue  # a class's own list says so of images without it
        name = flagged[1] if flagged else name
        files = images.get(name, [])
        annotations = root / ANNOTATIONS / f"{name}.xml"
        if relative_path(name) is None or "/" in name:
            yield where, f"{quoted(name)} is not an image's name"
        elif len(files) > 1:
            yield where, f"{quoted(name)} may be any of {', '.join(sorted(files))}"
        elif not files:
            yield where, f"{root / IMAGES} has no image {quoted(name)}"
        elif not annotations.is_file():
            yield where, f"{annotations} is missing"
        else:
            yield where, Entry(f"{IMAGES}/{files[0]}", name, root / IMAGES / files[0], annotations)


def _hint(root: Path) -> str:
    inner = sorted(path.parent for path in root.glob(f"*/{IMAGES}"))[:1] if root.is_dir() else []
    return f"; did you mean {inner[0]}?" if inner else "; VOC data has JPEGImages, Annotations and ImageSets/Main"


def _images(folder: Path) -> dict[str, list[str]]:
    """File names of images, by their names without suffix."""
    found: dict[str, list[str]] = {}
    for path in folder.iterdir():
        if path.suffix.lower() in _SUFFIXES:
            found.setdefault(path.stem, []).append(path.name)
    return found


def _from_list(root: Path, list_file: Path) -> Iterator[tuple[str, Entry | str]]:
    """As `_from_split`, of lines `image annotation`, paths below the root."""
    for where, line in _lines(list_file):
        parts = line.split("\t") if "\t" in line else line.split()
        paths = [relative_path(part) for part in parts]
        if len(parts) != 2:
            yield where, f"{quoted(line)} is not an image and its annotation"
        elif paths[0] is None or paths[1] is None:
            yield where, f"{quoted(line)} leads out of {root}, or is no path"
        else:
            image, annotations = root / paths[0], root / paths[1]
            missing = next((path for path in (image, annotations) if not path.is_file()), None)
            entry = Entry(paths[0], image.stem, image, annotations)
            yield where, f"{missing} is missing" if missing else entry


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Lines that are not empty, stripped, and where they stand."""
    for number, line in enumerate(read_bounded(path, _MAX_LIST_BYTES).split(b"\n"), 1):
        try:
            text = line.decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise DatasetError(f"{path}:{number}: not UTF-8 text") from error
        if text:
            yield f"{path}:{number}", text
