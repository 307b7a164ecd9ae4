"""Label maps: the class ids of a model and their names.

Three kinds of file are read: Caffe's LabelMap prototxt, the TensorFlow OD API's `.pbtxt`, and plain text with one name
per line. In all of them id 0 is background and the ids are 0, 1, 2, ... without a gap.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssdlite_caffe.errors import LabelMapError, PrototxtError

if TYPE_CHECKING:
    from google.protobuf.message import Message

BUILTIN = ("coco", "voc")
BACKGROUND_NAMES = frozenset({"none_of_the_above", "background", "__background__", "???"})
_MAX_FILE_BYTES = 1 << 20
_MAX_ID = 1 << 16
_UNFIT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


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

    Raises:
        LabelMapError: an id is missing or given twice, a name is empty or given twice, or id 0 is not background.
    """

    entries: tuple[Label, ...]

    def __post_init__(self) -> None:
        by_id: dict[int, Label] = {}
        by_name: dict[str, Label] = {}
        for entry in self.entries:
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
        if not {by_id[0].name, by_id[0].display_name} & BACKGROUND_NAMES:
            raise LabelMapError(
                f'id 0 is {by_id[0].name!r}; it must be background, named "none_of_the_above" or "background"'
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

        Raises:
            LabelMapError: several classes have this display name.
        """
        ids = [e.id for e in self.entries if e.name == name] or [e.id for e in self.entries if e.display_name == name]
        if len(ids) > 1:
            names = ", ".join(repr(self.entries[i].name) for i in ids)
            raise LabelMapError(f"{name!r} is the display name of {len(ids)} classes; give one of their names: {names}")
        return ids[0] if ids else None

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
        LabelMapError: it is empty, or has control characters or lone surrogates.
    """
    if not name or _UNFIT.search(name):
        raise LabelMapError(f"{name[:60]!a} is not a class name: it is empty or has control characters")


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
    entries = _parse_items(text, name, _od_api_message(), "id", allow_unknown=True)
    used = {entry.id for entry in entries}
    background = [] if 0 in used else [BACKGROUND]
    return [*background, *entries, *(_unused(i) for i in range(1, max(used, default=0)) if i not in used)]


@cache
def _od_api_message() -> type[Message]:
    """The OD API's label map message with the fields read here, under the numbers that they have in its .proto."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="od_api_label_map.proto")
    item = file.message_type.add(name="StringIntLabelMapItem")
    item.field.add(name="name", number=1, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    item.field.add(name="id", number=2, type=kinds.TYPE_INT32, label=kinds.LABEL_OPTIONAL)
    item.field.add(name="display_name", number=3, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    file.message_type.add(name="StringIntLabelMap").field.add(
        name="item", number=1, type=kinds.TYPE_MESSAGE, type_name=item.name, label=kinds.LABEL_REPEATED
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("StringIntLabelMap"))


def _line_entries(text: str, name: str) -> list[Label]:
    """One name per line. Background is the first line or missing; `???` is an unused id, as in TFLite's label files."""
    lines = [line.strip() for line in text.rstrip().split("\n")]
    entries = [] if lines[0] in BACKGROUND_NAMES else [BACKGROUND]
    for number, line in enumerate(lines, 1):
        if not line:
            raise LabelMapError(f"{name}:{number}: empty line; each line is the name of one class")
        if re.search(r"[{}<>]", line):
            raise LabelMapError(f"{name}:{number}: {line[:60]!r} is not a class name")
        class_id = len(entries)
        unused = line == "???"
        entries.append(BACKGROUND if class_id == 0 else _unused(class_id) if unused else Label(class_id, line, line))
    return entries


def _unused(class_id: int) -> Label:
    return Label(class_id, f"unused_{class_id}", f"unused_{class_id}")
