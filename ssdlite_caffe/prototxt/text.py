"""Reading and writing prototxt, with errors that name file, line and column."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from ssdlite_caffe.errors import PrototxtError
from ssdlite_caffe.prototxt import caffe_pb2

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, FieldDescriptor

MAX_BYTES = 16 * 2**20
"""Largest text that is read, in bytes. The prototxt of a net has some 100 kB."""
MAX_DEPTH = 64
"""Deepest nesting of blocks that is read; Caffe's own messages are at most 8 deep."""

_M = TypeVar("_M", bound=Message)
_POSITION = re.compile(r"^\d+:\d+ : ")


@dataclass(frozen=True)
class UnknownField:
    """A field that its message does not have. Lines and columns count from 1.

    `layer` is the index into `NetParameter.layer` of the layer that it is in, None outside of layers.
    """

    line: int
    column: int
    field: str
    message: str
    layer: int | None

    def __str__(self) -> str:
        return f"{self.message} has no field {self.field!r}"


@dataclass(frozen=True)
class Outline:
    """Lines of a text.

    Attributes:
        layer_lines: line of each entry of `NetParameter.layer`, in order.
        unknown: every unknown field, in order; fields inside an unknown field are not listed.
    """

    layer_lines: tuple[int, ...]
    unknown: tuple[UnknownField, ...]


def parse(
    text: str, message_type: type[_M], name: str = "<text>", *, allow_unknown: bool = False, merge: bool = False
) -> _M:
    """Parse prototxt.

    Args:
        text: the prototxt.
        message_type: the message that it holds, `caffe_pb2.NetParameter` for a net.
        name: the file's name in errors.
        allow_unknown: skip fields that the message does not have instead of raising an error.
        merge: a field may be given twice, and the last one counts, as for TensorFlow; Caffe refuses that.

    Raises:
        PrototxtError: the text has a syntax error, an unknown field or value, or is too large; or a field is given
            twice, without `merge`.
    """
    _check_size(len(text), name)
    message = message_type()
    try:
        if allow_unknown:
            outline(text, name, message_type)  # limits the nesting: the parser skips unknown fields recursively
        read = text_format.Merge if merge else text_format.Parse
        read(text, message, allow_unknown_extension=allow_unknown, allow_unknown_field=allow_unknown)
    except text_format.ParseError as error:
        raise _explain(error, text, message_type, name) from None
    except ValueError as error:  # a number or string that its field cannot hold
        raise PrototxtError(f"{name}: {error}") from None
    return message


def parse_net(text: str, *, name: str = "<text>") -> caffe_pb2.NetParameter:
    """Parse the prototxt of a net; see `parse`."""
    return parse(text, caffe_pb2.NetParameter, name)


def read(path: Path, message_type: type[_M]) -> _M:
    """Read and parse a prototxt file; see `parse`."""
    return parse(read_text(path), message_type, str(path))


def read_net(path: Path) -> caffe_pb2.NetParameter:
    """Read the prototxt of a net; see `parse`."""
    return read(path, caffe_pb2.NetParameter)


def read_text(path: Path) -> str:
    """Read a text file of at most `MAX_BYTES`.

    Raises:
        PrototxtError: it cannot be read, is too large, or is not UTF-8 text.
    """
    if path.is_dir():
        raise PrototxtError(f"{path} is a folder; give a prototxt in it, such as {path / 'deploy.prototxt'}")
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise PrototxtError(f"cannot read {path}: {error.strerror or error}") from error
    if b"\0" in data[:4096] or path.suffix == ".caffemodel":
        raise PrototxtError(f"{path} is a binary file such as a caffemodel; give the prototxt")
    _check_size(len(data), str(path))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PrototxtError(f"{path} is not text (byte {error.start} is not UTF-8); give a prototxt") from error


def format_message(message: Message) -> str:
    """Prototxt of a message, which `parse` reads back exactly; floats are as short as possible."""
    return text_format.MessageToString(message)


def outline(text: str, name: str = "<text>", message_type: type[Message] = caffe_pb2.NetParameter) -> Outline:
    """Find the lines of layers and all unknown fields; values are not checked.

    Raises:
        PrototxtError: a brace or a value is missing, or blocks are nested deeper than `MAX_DEPTH`.
    """
    _check_size(len(text), name)
    try:
        return _Walk(text, message_type).run()
    except text_format.ParseError as error:
        raise _error(error, text, name) from None


def layer_lines(text: str, name: str = "<text>") -> tuple[int, ...]:
    """Line of each layer of a net, counted from 1; see `outline`."""
    return outline(text, name).layer_lines


def _check_size(size: int, name: str) -> None:
    if size > MAX_BYTES:
        raise PrototxtError(f"{name} is larger than the {MAX_BYTES // 2**20} MiB that are read as a prototxt")


def _error(error: text_format.ParseError, text: str, name: str) -> PrototxtError:
    """The error of protobuf without the line of text that it quotes, which may be very long."""
    line, column = error.GetLine(), error.GetColumn()
    reason = _POSITION.sub("", str(error))
    for quoted in (text.split("\n")[line - 1], "") if line else ():
        reason = reason.removeprefix(f"'{quoted}': ")
    reason = "".join(c if c.isprintable() else "?" for c in reason[:200]).rstrip(".")
    return PrototxtError(f"{name}:{line}:{column}: {reason}" if line else f"{name}: {reason}")


def _explain(error: text_format.ParseError, text: str, message_type: type[Message], name: str) -> PrototxtError:
    """The error of a failed parse; for an unknown field, with the number of further ones."""
    try:
        unknown: Sequence[UnknownField] = outline(text, name, message_type).unknown
    except PrototxtError:
        unknown = ()
    if not unknown or (unknown[0].line, unknown[0].column) != (error.GetLine(), error.GetColumn()):
        return _error(error, text, name)
    first, more = unknown[0], len(unknown) - 1
    rest = f" ({more} more unknown field{'s' if more > 1 else ''} below)" if more else ""
    return PrototxtError(f"{name}:{first.line}:{first.column}: {first}{rest}")


class _Walk:
    """One pass over the tokens of a text, without recursion; None on the stack is a block of an unknown message."""

    def __init__(self, text: str, message_type: type[Message]) -> None:
        root: Any = message_type.DESCRIPTOR
        self.tokens = text_format.Tokenizer(text.split("\n"))
        self.stack: list[tuple[Descriptor | None, str]] = [(root, "")]
        self.layers: list[int] = []
        self.unknown: list[UnknownField] = []

    def run(self) -> Outline:
        while True:
            message, end = self.stack[-1]
            if end and self.tokens.TryConsume(end):
                self.stack.pop()
                self._separator()
            elif self.tokens.AtEnd():
                if end:
                    raise self._before(f'Expected "{end}"')
                return Outline(tuple(self.layers), tuple(self.unknown))
            elif end == "]":
                self._element(message)
            else:
                self._field(message)

    def _field(self, message: Descriptor | None) -> None:
        here = self._here("")
        line, column = here.GetLine() or 0, here.GetColumn() or 0
        name = self._name()
        field = message.fields_by_name.get(name) if message is not None else None
        if message is not None and field is None:
            inside = len(self.layers) - 1 if len(self.stack) > 1 and self.layers else None
            self.unknown.append(UnknownField(line, column, name, message.name, inside))
        elif field is not None and field.full_name == "caffe.NetParameter.layer":
            self.layers.append(line)
        self._value(field)

    # types-protobuf declares the argument of these two as a Message; it is the text.
    def _here(self, text: str) -> text_format.ParseError:
        return self.tokens.ParseError(text)  # type: ignore[arg-type]

    def _before(self, text: str) -> text_format.ParseError:
        return self.tokens.ParseErrorPreviousToken(text)  # type: ignore[arg-type]

    def _name(self) -> str:
        if not self.tokens.TryConsume("["):
            return self.tokens.ConsumeIdentifierOrNumber()
        parts = []
        while not self.tokens.TryConsume("]"):
            if self.tokens.AtEnd():
                raise self._before('Expected "]"')
            parts.append(self.tokens.token)
            self.tokens.NextToken()
        return f"[{''.join(parts)}]"

    def _value(self, field: FieldDescriptor | None) -> None:
        inner = field.message_type if field is not None else None
        colon = self.tokens.TryConsume(":")
        if self._open(inner):
            return
        if not colon:
            raise self._here('Expected ":" or "{"')
        self._scalar()
        self._separator()

    def _open(self, inner: Descriptor | None) -> bool:
        for start, end in (("{", "}"), ("<", ">"), ("[", "]")):
            if self.tokens.TryConsume(start):
                if len(self.stack) > MAX_DEPTH:
                    raise self._before(f"Blocks are nested deeper than {MAX_DEPTH}")
                self.stack.append((inner, end))
                return True
        return False

    def _element(self, inner: Descriptor | None) -> None:
        if not self._open(inner):
            self._scalar()
            self._separator()

    def _scalar(self) -> None:
        token = self.tokens.token
        if token in ("{", "}", "<", ">", "[", "]", ":", ",", ";", ""):
            raise self._here("Expected a value")
        if token[0] in "\"'":
            self.tokens.ConsumeString()  # takes adjacent strings as one
        else:
            self.tokens.NextToken()

    def _separator(self) -> None:
        if not self.tokens.TryConsume(","):
            self.tokens.TryConsume(";")
