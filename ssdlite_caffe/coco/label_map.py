"""Label maps: the class ids of a model and their names.

Three kinds of file are read: Caffe's LabelMap prototxt, the TensorFlow OD API's `.pbtxt`, and plain text with one name
per line. In all of them id 0 is background and the ids are 0, 1, 2, ... without a gap. Rows with a placeholder as name
(`no_class.dead_names`) become `unused_3` and so on.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssdlite_caffe.coco.no_class import dead_names, is_background, is_placeholder, unused_name
from ssdlite_caffe.errors import LabelMapError, PrototxtError

if TYPE_CHECKING:
    from google.protobuf.message import Message

BUILTIN = ("coco", "voc")
_MAX_FILE_BYTES = 1 << 20
_MAX_ID = 1 << 16
_UNFIT = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]")
"""Characters that a class name cannot have: control characters, all that Unicode ends lines at, and lone surrogates."""


@dataclass(frozen=True)
class Label:
    """One class.

    Attributes:
        id: class id, which is its channel in the class predictor; 0 is background.
        name: unique key, which Caffe's evaluation and result files use.
        display_name: the name that is drawn and printed.
    """

    id: int
    name: str
    display_name: str


BACKGROUND = Label(0, "none_of_the_above", "background")


@dataclass(frozen=True)
class LabelMap:
    """All classes in the order of their ids, 0 (background) first.

    Placeholders among the names are replaced by `unused_3` and so on, after the ids.

    Raises:
        LabelMapError: an id is missing or given twice, a name is empty or given twice, id 0 is not background, or
            another id is.
    """

    entries: tuple[Label, ...]

    def __post_init__(self) -> None:
        by_id: dict[int, Label] = {}
        by_name: dict[str, Label] = {}
        for entry in _without_dead_names(self.entries):
            check_name(entry.name)
            check_name(entry.display_name)
            if entry.id in by_id:
                raise LabelMapError(f"id {entry.id} is given twice: {by_id[entry.id].name!r} and {entry.name!r}")
            if entry.name in by_name:
                raise LabelMapError(f"name {entry.name!r} is given twice: ids {by_name[entry.name].id} and {entry.id}")
            by_id[entry.id] = by_name[entry.name] = entry
        missing = next((i for i in range(len(by_id)) if i not in by_id), None)
        if not by_id or missing == 0:
            raise LabelMapError('id 0 (background) is missing; add it, named "none_of_the_above" or "background"')
        if missing is not None:
            raise LabelMapError(f"id {missing} is missing; ids must be 0, 1, 2, ... without a gap")
        if not _is_background(by_id[0]):
            raise LabelMapError(
                f'id 0 is {by_id[0].name!r}; it must be background, named "none_of_the_above" or "background"'
            )
        other = next((entry for entry in by_id.values() if entry.id and _is_background(entry)), None)
        if other is not None:
            name = other.name if is_background(other.name) else other.display_name
            raise LabelMapError(
                f"id {other.id} is {name!r}, but background always has id 0; remove it, or give it another name if the "
                "model has such a class"
            )
        object.__setattr__(self, "entries", tuple(by_id[i] for i in range(len(by_id))))

    @classmethod
    def of_names(cls, names: Iterable[str]) -> LabelMap:
        """Background, then one class for each of `names`."""
        return cls((BACKGROUND, *(Label(i, name, name) for i, name in enumerate(names, 1))))

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def display_names(self) -> tuple[str, ...]:
        """The display name of each class, background first."""
        return tuple(entry.display_name for entry in self.entries)

    def find(self, name: str) -> int | None:
        """The id of the class with this name or, if there is none, with this display name; None if there is neither.

        Each of background's names (`no_class.is_background`) is that of id 0.

        Raises:
            LabelMapError: several classes have this display name.
        """
        ids = [e.id for e in self.entries if e.name == name] or [e.id for e in self.entries if e.display_name == name]
        if len(ids) > 1:
            names = ", ".join(repr(self.entries[i].name) for i in ids)
            raise LabelMapError(f"{name!r} is the display name of {len(ids)} classes; give one of their names: {names}")
        return ids[0] if ids else 0 if is_background(name) else None

    def nearest(self, name: str) -> str | None:
        """The class name most like `name`, for error messages; None if none is similar."""
        known = {text.lower(): text for e in self.entries[1:] for text in (e.name, e.display_name)}
        found = difflib.get_close_matches(name.lower(), known, n=1)
        return known[found[0]] if found else None

    def to_prototxt(self) -> str:
        """The text of a LabelMap prototxt, which Caffe reads."""
        from ssdlite_caffe.prototxt import caffe_pb2
        from ssdlite_caffe.prototxt.text import format_message

        message = caffe_pb2.LabelMap(
            item=[caffe_pb2.LabelMapItem(name=e.name, label=e.id, display_name=e.display_name) for e in self.entries]
        )
        return format_message(message)


def numbered(num_classes: int) -> LabelMap:
    """A label map for a model without class names: class_1, class_2, ...; `num_classes` counts background."""
    return LabelMap.of_names(f"class_{i}" for i in range(1, num_classes))


@cache
def builtin(name: str) -> LabelMap:
    """The built-in label map `coco` (91 classes, the ids of the annotations) or `voc` (21 classes).

    Raises:
        LabelMapError: no built-in label map has this name.
    """
    if name not in BUILTIN:
        raise LabelMapError(f"there is no built-in label map {name!r}; built in are {', '.join(BUILTIN)}")
    file = resources.files(__package__) / "labelmaps" / f"{name}.prototxt"
    return parse_label_map(file.read_text("utf-8"), file.name)


def load_label_map(name_or_path: str | Path) -> LabelMap:
    """A built-in label map by its name, or one read from a file.

    Raises:
        LabelMapError: the file cannot be read, is not a label map or contradicts itself.
    """
    if str(name_or_path) in BUILTIN:
        return builtin(str(name_or_path))
    path = Path(name_or_path)
    if path.parent == Path() and not path.exists() and not path.suffix:
        raise LabelMapError(f"{path} is neither a file nor a built-in label map ({', '.join(BUILTIN)})")
    return parse_label_map(read_text(path), str(path))


def check_classes(label_map: LabelMap, num_classes: int, name: str = "the label map") -> None:
    """Check a label map's class count against a model's; both count background.

    Raises:
        LabelMapError: the counts differ.
    """
    if len(label_map) != num_classes:
        raise LabelMapError(
            f"{name} has {len(label_map)} classes but the model has {num_classes} (both with background); "
            "give the label map that the model was trained with"
        )


def check_name(name: str) -> None:
    """Check that a class name is a single line of UTF-8 text.

    Raises:
        LabelMapError: it is empty, or has control characters, line separators or lone surrogates.
    """
    if not name or _UNFIT.search(name):
        what = "it is empty, or has control characters or line separators"
        raise LabelMapError(f"{name[:60]!a} is not a class name: {what}")


def read_text(path: Path) -> str:
    """A small UTF-8 text file.

    Raises:
        LabelMapError: it cannot be read, is larger than 1 MiB or is not text.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise LabelMapError(f"cannot read {path}: {error.strerror or error}") from error
    if len(data) > _MAX_FILE_BYTES:
        raise LabelMapError(f"{path} is larger than 1 MiB, the most that is read as a label map or class mapping")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabelMapError(f"{path}:{data.count(bytes([10]), 0, error.start) + 1}: not UTF-8 text") from error
    if "\0" in text:
        raise LabelMapError(f"{path} is not a text file")
    return text


def parse_label_map(text: str, name: str) -> LabelMap:
    """Read a label map of any of the three kinds, which are recognised by their content.

    Args:
        text: the file's text.
        name: the file's name for error messages; `.prototxt` and `.pbtxt` are never read as plain text.

    Raises:
        LabelMapError: the text is not a label map; the error has `name` and, for a syntax error, the line.
    """
    code = re.sub(r"#[^\n]*", "", text)
    if re.search(r"\bitem\s*:?\s*[{<\[]", code):
        has_id, has_label = (re.search(rf"\b{key}\s*:", code) for key in ("id", "label"))
        caffe = has_label and not has_id  # the OD API's keypoints have both
        entries = _caffe_entries(text, name) if caffe else _od_api_entries(text, name)
    elif Path(name).suffix in (".prototxt", ".pbtxt"):
        raise LabelMapError(f"{name} is not a label map: it holds no item {{ ... }}")
    else:
        entries = _line_entries(text, name)
    try:
        return LabelMap(tuple(entries))
    except LabelMapError as error:
        raise LabelMapError(f"{name}: {error}") from error


def _parse_items(text: str, name: str, message_type: type[Message], key: str, *, allow_unknown: bool) -> list[Label]:
    """The items of a label map message; `key` is the field that holds the id."""
    from ssdlite_caffe.prototxt.text import parse

    try:
        # The OD API's files are read as the OD API does, Caffe's as Caffe does.
        message: Any = parse(text, message_type, name, allow_unknown=allow_unknown, merge=allow_unknown)
    except PrototxtError as error:
        raise LabelMapError(str(error)) from error
    entries = []
    for number, item in enumerate(message.item, 1):
        title, class_id = item.name or item.display_name, getattr(item, key)
        if not item.HasField(key):
            raise LabelMapError(f"{name}: item {number} ({title!r}) has no {key}")
        if not 0 <= class_id <= _MAX_ID:
            raise LabelMapError(f"{name}: item {number} ({title!r}) has {key} {class_id}, outside 0..{_MAX_ID}")
        entries.append(Label(class_id, title, item.display_name or item.name))
    return entries


def _caffe_entries(text: str, name: str) -> list[Label]:
    """Items of a Caffe LabelMap (`name`, `label`, `display_name`)."""
    from ssdlite_caffe.prototxt import caffe_pb2

    return _parse_items(text, name, caffe_pb2.LabelMap, "label", allow_unknown=False)


def _od_api_entries(text: str, name: str) -> list[Label]:
    """Items of an OD API StringIntLabelMap (`name`, `id`, `display_name`); background and unused ids are added.

    Unknown fields (keypoints, frequency, ...) are skipped.

    Source: object_detection/protos/string_int_label_map.proto.
    """
    from ssdlite_caffe.coco.od_api import label_map_message

    entries = _parse_items(text, name, label_map_message(), "id", allow_unknown=True)
    used = {entry.id for entry in entries}
    background = [] if 0 in used else [BACKGROUND]
    gaps = (i for i in range(1, max(used, default=0)) if i not in used)
    return [*background, *entries, *(Label(i, unused_name(i), unused_name(i)) for i in gaps)]


def _line_entries(text: str, name: str) -> list[Label]:
    """One name per line. Background is the first line or missing; placeholders are unused ids.

    The `__ignore__` that labelme's lists begin with is skipped: it has the id -1 there.
    """
    lines = list(enumerate((line.strip() for line in text.rstrip().split("\n")), 1))
    if len(lines) > 1 and lines[0][1] == "__ignore__":
        lines.pop(0)
    first = lines[0][1]
    entries = [] if is_background(first) or is_placeholder(first) else [BACKGROUND]
    for number, line in lines:
        if not line:
            raise LabelMapError(f"{name}:{number}: empty line; each line is the name of one class")
        if re.search(r"[{}<>]", line):
            raise LabelMapError(f"{name}:{number}: {line[:60]!r} is not a class name")
        if is_background(re.sub(r"^\d+\s*[:,]?", "", line)) and line[0].isdecimal():
            raise LabelMapError(f"{name}:{number}: {line!r} is background with a number; write names alone, one a line")
        class_id = len(entries)
        if class_id and is_background(line):
            raise LabelMapError(
                f"{name}:{number}: {line!r} is background, which always has id 0: it can only be the first line; "
                "remove it, or give it another name if the model has such a class"
            )
        entries.append(Label(class_id, line, line) if class_id else BACKGROUND)
    return entries


def _is_background(entry: Label) -> bool:
    return is_background(entry.name) or is_background(entry.display_name)


def _without_dead_names(entries: Iterable[Label]) -> Iterator[Label]:
    """The entries with other names in place of placeholders; id 0 with one is background, as in TFLite's lists."""
    rows = list(entries)
    names, shown = dead_names(row.name for row in rows), dead_names(row.display_name for row in rows)
    for row in rows:
        dead, unseen = row.name in names, row.display_name in shown
        if row.id == 0:
            yield BACKGROUND if dead and unseen else row
        else:
            unused = unused_name(row.id)
            yield Label(row.id, unused if dead else row.name, unused if unseen else row.display_name)
