"""Reading a prototxt to its end whatever its values are: the message, the lines of its layers, and every problem.

Caffe and OpenCV refuse a whole file at its first problem, and so does `text.parse`. A report needs them all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from ssdlite_caffe.errors import PrototxtError
from ssdlite_caffe.prototxt.literals import UnusableError, guess, value_of
from ssdlite_caffe.prototxt.problems import TextProblem, odd_characters

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, FieldDescriptor

MAX_BYTES = 16 * 2**20
"""Largest text that is read, in bytes. The prototxt of a net has some 100 kB."""
MAX_DEPTH = 64
"""Deepest nesting of blocks that is read; Caffe's own messages are at most 8 deep."""

_M = TypeVar("_M", bound=Message)
_POSITION = re.compile(r"^\d+:\d+ : ")
_LAYER, _OLD_LAYER = "caffe.NetParameter.layer", "caffe.NetParameter.layers"


@dataclass(frozen=True)
class Outline(Generic[_M]):
    """What a text holds.

    Attributes:
        message: all that could be read; of a field given twice the last value.
        layer_lines: line of each entry of `NetParameter.layer`, or of `layers` (the format before 2014) if it has any.
        problems: in order; of an unknown field those inside are not listed.
    """

    message: _M
    layer_lines: tuple[int, ...]
    problems: tuple[TextProblem, ...]

    @property
    def unknown(self) -> tuple[TextProblem, ...]:
        """The unknown fields among the problems."""
        return tuple(problem for problem in self.problems if problem.kind == "unknown-field")


def outline(text: str, name: str, message_type: type[_M]) -> Outline[_M]:
    """Read a text with all its problems.

    Args:
        text: the prototxt.
        name: the file's name in errors.
        message_type: the message that it holds.

    Raises:
        PrototxtError: a brace, a colon or a value is missing, blocks are nested deeper than `MAX_DEPTH`, or the text
            is too large.
    """
    check_size(len(text), name)
    try:
        found = _Walk(text, message_type()).run()
    except text_format.ParseError as error:
        raise syntax_error(error, text, name) from None
    problems = sorted((*found.problems, *odd_characters(text)), key=lambda problem: (problem.line, problem.column))
    return Outline(found.message, found.layer_lines, tuple(problems))


def check_size(size: int, name: str) -> None:
    """Raise PrototxtError for a text larger than MAX_BYTES."""
    if size > MAX_BYTES:
        raise PrototxtError(f"{name} is larger than the {MAX_BYTES // 2**20} MiB that are read as a prototxt")


def syntax_error(error: text_format.ParseError, text: str, name: str) -> PrototxtError:
    """The error of protobuf without the line of text that it quotes, which may be very long."""
    line, column = error.GetLine(), error.GetColumn()
    reason = _POSITION.sub("", str(error))
    for quoted in (text.split("\n")[line - 1], "") if line else ():
        reason = reason.removeprefix(f"'{quoted}': ")
    reason = "".join(c if c.isprintable() else "?" for c in reason[:200]).rstrip(".")
    return PrototxtError(f"{name}:{line}:{column}: {reason}" if line else f"{name}: {reason}")


@dataclass
class _Block:
    """An open block, or a list in brackets; `message` is None inside an unknown field.

    Attributes:
        end: the token that closes it, "" for the whole text.
        element: the field of a list's elements.
        lines: the fields seen in the block -> line of the first.
    """

    message: Any
    end: str
    line: int
    column: int
    element: FieldDescriptor | None = None
    lines: dict[str, int] = field(default_factory=dict)


class _Walk(Generic[_M]):
    """One pass over the tokens of a text, without recursion."""

    def __init__(self, text: str, message: _M) -> None:
        self.message = message
        self.tokens = text_format.Tokenizer(text.split("\n"))
        self.stack = [_Block(message, "", 1, 1)]
        self.lines: dict[str, list[int]] = {_LAYER: [], _OLD_LAYER: []}
        self.kind = _LAYER
        self.problems: list[TextProblem] = []
        self.kinds: list[str] = []
        """For each problem, which kind of layers it counts."""
        self.skipped: int | None = None
        """Place in `problems` of the unknown field that is being skipped."""

    def run(self) -> Outline[_M]:
        while True:
            block = self.stack[-1]
            if block.end and self.tokens.TryConsume(block.end):
                self._close()
            elif self.tokens.AtEnd():
                if block.end:
                    raise self._before(f'Expected "{block.end}"')
                return self._outline()
            elif block.end == "]":
                self._element(block)
            else:
                self._field(block)

    def _outline(self) -> Outline[_M]:
        """Of a net with both kinds of layers the old ones count: Caffe ignores the others."""
        counted = _OLD_LAYER if self.lines[_OLD_LAYER] else _LAYER
        problems = tuple(
            problem if kind == counted else replace(problem, layer=None)
            for problem, kind in zip(self.problems, self.kinds, strict=True)
        )
        return Outline(self.message, tuple(self.lines[counted]), problems)

    def _close(self) -> None:
        block = self.stack.pop()
        if block.message is not None and block.end != "]":
            for one in block.message.DESCRIPTOR.fields:
                if one.is_required and not block.message.HasField(one.name):
                    self._problem(block.line, block.column, "missing-field", one, f"has no {one.name}, which it needs")
        self._separator()

    def _field(self, block: _Block) -> None:
        line, column = self._place()
        name = self._name()
        found = None if block.message is None else block.message.DESCRIPTOR.fields_by_name.get(name)
        if found is None:
            if block.message is not None:
                message = block.message.DESCRIPTOR.name
                text = f"{message} has no field {name!r}"
                self.skipped = len(self.problems)
                self._add(TextProblem(line, column, "unknown-field", text, self._layer(), message, name, True, True))
        elif found.full_name in self.lines:
            self.kind = found.full_name
            self.lines[self.kind].append(line)
        if found is not None and not found.is_repeated:
            first = block.lines.get(name)
            block.lines.setdefault(name, line)
            if first is not None:
                where = "on the same line" if first == line else f"on line {first}"
                self._problem(line, column, "field-twice", found, f"has {name} twice, first {where}; it takes one")
        self._value(block, found)

    def _value(self, block: _Block, found: FieldDescriptor | None) -> None:
        colon = self.tokens.TryConsume(":")
        line, column = self._place()
        for start, end in (("{", "}"), ("<", ">"), ("[", "]")):
            if self.tokens.TryConsume(start):
                self._open(block, found, end, line, column)
                return
        if not colon:
            raise self._here('Expected ":" or "{"')
        self._scalar(block, found)
        self._separator()

    def _open(self, block: _Block, found: FieldDescriptor | None, end: str, line: int, column: int) -> None:
        if len(self.stack) > MAX_DEPTH:
            raise self._before(f"Blocks are nested deeper than {MAX_DEPTH}")
        if end == "]":
            if found is not None and not found.is_repeated:
                self._problem(line, column, "value", found, f"takes one {found.name}, got a list", lost=True)
                self.skipped = found = None
            self.stack.append(_Block(None if found is None else block.message, end, line, column, found))
        elif found is None or found.message_type is None:
            if found is not None:
                self._problem(line, column, "value", found, f"takes a value as {found.name}, got a block", lost=True)
                self.skipped = None
            self.stack.append(_Block(None, end, line, column))
        else:
            inner = getattr(block.message, found.name)
            if found.is_repeated:
                inner = inner.add()
            else:
                inner.SetInParent()
            self.stack.append(_Block(inner, end, line, column))

    def _element(self, block: _Block) -> None:
        line, column = self._place()
        for start, end in (("{", "}"), ("<", ">")):
            if self.tokens.TryConsume(start):
                self._open(block, block.element, end, line, column)
                return
        if block.element is None and self.tokens.TryConsume("["):
            self._open(block, None, "]", line, column)
            return
        self._scalar(block, block.element)
        if not (self.tokens.LookingAt("]") or self.tokens.TryConsume(",")):
            raise self._here('Expected "," or "]"')

    def _scalar(self, block: _Block, found: FieldDescriptor | None) -> None:
        line, column = self._place()
        token = self._token()
        if found is None:
            if token[0] in "\"'" and self.skipped is not None:
                self.problems[self.skipped] = replace(self.problems[self.skipped], harmless=False)
            return
        if found.message_type is not None:
            self._problem(line, column, "value", found, f"takes a block as {found.name}, got {token}", lost=True)
            return
        try:
            value = value_of(found, token)
        except UnusableError as error:
            kind = "unknown-value" if found.enum_type is not None else "value"
            meant = guess(found, token)
            hint = ""
            if found.full_name == "caffe.V1LayerParameter.type" and token[0] in "\"'":
                hint = "; a type in quotes is for layer { }, not for layers { }"
            self._problem(line, column, kind, found, f"{error}{hint}", lost=meant is None)
            if meant is None:
                return
            value = meant
        if found.is_repeated:
            getattr(block.message, found.name).append(value)
        else:
            setattr(block.message, found.name, value)

    def _token(self) -> str:
        """The next value as it is written; adjacent strings are one."""
        token: str = self.tokens.token
        if token in ("{", "}", "<", ">", "[", "]", ":", ",", ";", ""):
            raise self._here("Expected a value")
        parts = []
        while token and token[0] in "\"'":
            if len(token) < 2 or token[-1] != token[0]:
                raise self._here(f"String missing ending quote: {token!r}")
            parts.append(token)
            self.tokens.NextToken()
            token = self.tokens.token
        if parts:
            return "\n".join(parts)  # no string holds a line break
        self.tokens.NextToken()
        if token != "-":  # noqa: S105
            return token
        number: str = self.tokens.token  # a sign apart from its number
        self.tokens.NextToken()
        return token + number

    def _problem(
        self, line: int, column: int, kind: str, found: FieldDescriptor, text: str, *, lost: bool = False
    ) -> None:
        message: Descriptor | None = found.containing_type
        name = "" if message is None else message.name
        shown = "".join(c if c.isprintable() else "?" for c in text[:300])
        self._add(TextProblem(line, column, kind, f"{name} {shown}", self._layer(), name, found.name, lost))

    def _add(self, problem: TextProblem) -> None:
        self.problems.append(problem)
        self.kinds.append(self.kind)

    def _layer(self) -> int | None:
        lines = self.lines[self.kind]
        return len(lines) - 1 if len(self.stack) > 1 and lines else None

    def _place(self) -> tuple[int, int]:
        here = self._here("")
        return here.GetLine() or 0, here.GetColumn() or 0

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

    def _separator(self) -> None:
        if not self.tokens.TryConsume(","):
            self.tokens.TryConsume(";")
