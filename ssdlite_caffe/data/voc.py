"""Reading data in Pascal VOC's layout: ImageSets/Main/SPLIT.txt, JPEGImages/NAME.jpg, Annotations/NAME.xml."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.parsers import expat

from ssdlite_caffe.coco.label_map import LabelMap, check_name
from ssdlite_caffe.coco.no_class import is_background, is_placeholder
from ssdlite_caffe.data.annotations import (
    NUMBER,
    Box,
    ClassIds,
    Entry,
    Problem,
    check_size,
    fit_box,
    is_set,
    read_bounded,
    value_text,
)
from ssdlite_caffe.data.voc_lists import from_list, from_split
from ssdlite_caffe.errors import DatasetError, LabelMapError

_MAX_XML_BYTES = 1 << 24
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_OTHER_SHAPES = ("polygon", "robndbox", "segmentation", "mask")


class XmlObject(NamedTuple):
    """An `object` element of a file.

    Attributes:
        line: where it starts.
        fields: text of its child elements and those of `bndbox`, by name.
        twice: name of a field that occurs twice, or None.
    """

    line: int
    fields: dict[str, str]
    twice: str | None


class VocDataset:
    """A split of one or more folders in VOC's layout; see `annotations.Dataset`."""

    def __init__(self, entries: Sequence[Entry], label_map: LabelMap | None, problems: list[Problem]) -> None:
        """Take the images; without a label map, all annotations are read once to find the class names."""
        self.entries = entries
        self.problems = problems
        self.label_map = label_map or _find_names(entries)
        self._class_ids = ClassIds(self.label_map)

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
                doubt = is_set("difficult", item.fields.get("difficult"))[1]
                if doubt:
                    problems.append(Problem(f"{path}:{item.line}", doubt, "flag taken as 0"))
        return boxes, problems

    def _box(self, item: XmlObject, height: int, width: int) -> tuple[Box | None, str]:
        fields = item.fields
        if item.twice is not None:
            return None, f"object with two {item.twice!r} elements"
        if "bndbox" not in fields:
            other = next((f", but with {key}" for key in _OTHER_SHAPES if key in fields), "")
            return None, f"object without bndbox{other}"
        missing = next((key for key in ("name", *_SIDES) if not fields.get(key)), None)
        if missing is not None:
            return None, f"object without {missing}"
        wrong = next((key for key in _SIDES if not NUMBER.fullmatch(fields[key])), None)
        if wrong is not None:
            return None, f"{wrong} must be a number, got {value_text(fields[wrong])}"
        class_id, what = self._class_ids.find(fields["name"])
        if class_id is None:
            return None, what
        xmin, ymin, xmax, ymax = (float(fields[key]) for key in _SIDES)
        corners, what = fit_box((xmin, ymin, xmax, ymax), height, width)
        return corners and Box(class_id, *corners, is_set("difficult", fields.get("difficult"))[0]), what


def open_voc(
    roots: Sequence[Path], split: str = "", *, list_file: Path | None = None, label_map: LabelMap | None = None
) -> VocDataset:
    """Open a split of data in VOC's layout.

    Args:
        roots: folders with JPEGImages, Annotations and ImageSets/Main, such as VOCdevkit/VOC2007.
        split: name of a list in ImageSets/Main, such as trainval.
        list_file: in place of `split`: a file with an image and its annotation on each line, paths below the only root.
        label_map: None: the names found in the annotations, sorted.

    Raises:
        DatasetError: a folder is not in VOC's layout, or no image can be used.
    """
    entries: list[Entry] = []
    problems: list[Problem] = []
    seen: set[str] = set()
    for root in roots:
        prefix = f"{root.resolve().name}/" if len(roots) > 1 else ""
        for where, item in from_list(root, list_file) if list_file else from_split(root, split):
            if isinstance(item, Problem):
                problems.append(item)
            elif prefix + item.name in seen:
                problems.append(Problem(where, f"{value_text(item.name)} is listed twice", "image skipped"))
            else:
                seen.add(prefix + item.name)
                entries.append(Entry(prefix + item.name, item.id, item.path, item.annotations))
    if not entries:
        listed = f": {problems[0]}" if problems else ""
        raise DatasetError(f"{list_file or split} of {roots[0]} lists no image that can be used{listed}")
    return VocDataset(entries, label_map, problems)


def read_xml(path: Path) -> tuple[tuple[float, float], list[XmlObject]]:
    """Read a VOC annotation.

    DOCTYPE declarations are refused, since they can define entities that expand without limit or read other files.

    Returns:
        Height and width of the image as given in the file, 0 if missing or not numbers; and the objects, whose texts
        are stripped.

    Raises:
        DatasetError: it cannot be read, or is not XML or not a VOC annotation; the text begins with file and line.
    """
    data = read_bounded(path, _MAX_XML_BYTES)
    parser = expat.ParserCreate()
    tree = _Tree(parser, path)
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise DatasetError(f"{path}:{error.lineno}: not valid XML: {expat.ErrorString(error.code)}") from error
    except (ValueError, LookupError) as error:  # an encoding that Python does not have
        raise DatasetError(f"{path}:1: not valid XML: {error}") from error
    height, width = (tree.size.get(key, "") for key in ("height", "width"))
    stated = [float(text) if NUMBER.fullmatch(text) else 0.0 for text in (height, width)]
    return (stated[0], stated[1]), tree.objects


class _Tree:
    """Collects the texts inside `size`, `object` and its `bndbox` from the parser's events."""

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
        raise DatasetError(f"{self._path}:{line}: DOCTYPE declarations are not allowed in VOC annotations")

    def _start(self, name: str, _: object) -> None:
        stack = self._stack
        if not stack and name != "annotation":
            line = self._parser.CurrentLineNumber
            raise DatasetError(f"{self._path}:{line}: the root element must be 'annotation', got {value_text(name)}")
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
    """The class names in all annotations, sorted; files that cannot be read are reported later, as problems."""
    names: set[str] = set()
    first = ""
    for entry in entries:
        assert isinstance(entry.annotations, Path)
        try:
            names |= {item.fields.get("name", "") for item in read_xml(entry.annotations)[1]}
        except DatasetError as error:
            first = first or f"; the first problem: {error}"
    usable = [name for name in sorted(names) if _is_name(name)]
    if not usable:
        raise DatasetError(
            f"no class name found in {len(entries)} annotations" + (first or f"; the first is {entries[0].annotations}")
        )
    return LabelMap.of_names(usable)


def _is_name(text: str) -> bool:
    if is_background(text) or is_placeholder(text):
        return False
    try:
        check_name(text)
    except LabelMapError:
        return False
    return True
