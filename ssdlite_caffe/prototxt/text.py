"""Reading and writing prototxt, with errors that name file, line and column."""

from __future__ import annotations

import codecs
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from ssdlite_caffe.errors import PrototxtError
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.outline import MAX_BYTES, check_size, outline, syntax_error
from ssdlite_caffe.prototxt.problems import TextProblem

_M = TypeVar("_M", bound=Message)


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
        PrototxtError: the text has a syntax error or an unknown field or value, lacks a field that it needs, or is too
            large; or a field is given twice, without `merge`.
    """
    check_size(len(text), name)
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
    broken: Any = message  # types-protobuf has no FindInitializationErrors
    if not message.IsInitialized():
        missing = ", ".join(broken.FindInitializationErrors()[:5])
        raise PrototxtError(f"{name}: {missing} missing, which Caffe needs")
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


def read_net_for(path: Path, types: Collection[str]) -> caffe_pb2.NetParameter:
    """Read the prototxt of a net of which only some layers matter.

    Args:
        path: the file.
        types: the layer types that matter; unknown fields of other layers, such as those of a fork, are skipped.

    Raises:
        PrototxtError: as for `read_net`.
    """
    text = read_text(path)
    found = outline(text, str(path), caffe_pb2.NetParameter)
    layers = found.message.layer
    for problem in found.problems:
        inside = layers[problem.layer].type if problem.layer is not None and problem.layer < len(layers) else None
        skipped = problem.kind == "unknown-field" and inside is not None and inside not in types
        if problem.kind != "character" and not skipped:
            raise PrototxtError(f"{path}:{problem.line}:{problem.column}: {problem}")
    return found.message


def read_text(path: Path, *, as_it_is: bool = False) -> str:
    """Read a text file of at most `MAX_BYTES`.

    Args:
        path: the file.
        as_it_is: keep a byte order mark, and replace bytes that are not UTF-8 (by U+FFFD) instead of raising an error.

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
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise PrototxtError(f"{path} is UTF-16 text, which Caffe does not read; save it as UTF-8")
    if b"\0" in data[:4096] or path.suffix == ".caffemodel":
        raise PrototxtError(f"{path} is a binary file such as a caffemodel; give the prototxt")
    check_size(len(data), str(path))
    if as_it_is:
        return data.decode("utf-8", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PrototxtError(f"{path} is not text (byte {error.start} is not UTF-8); give a prototxt") from error


def format_message(message: Message) -> str:
    """Prototxt of a message, which `parse` reads back exactly; floats are as short as possible."""
    return text_format.MessageToString(message)


def _explain(error: text_format.ParseError, text: str, message_type: type[Message], name: str) -> PrototxtError:
    """The error of a failed parse; for an unknown field, with the number of further ones."""
    try:
        unknown: Sequence[TextProblem] = outline(text, name, message_type).unknown
    except PrototxtError:
        unknown = ()
    if not unknown or (unknown[0].line, unknown[0].column) != (error.GetLine(), error.GetColumn()):
        return syntax_error(error, text, name)
    first, more = unknown[0], len(unknown) - 1
    rest = f" ({more} more unknown field{'s' if more > 1 else ''} below)" if more else ""
    return PrototxtError(f"{name}:{first.line}:{first.column}: {first}{rest}")
