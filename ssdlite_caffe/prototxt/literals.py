"""Values of a prototxt as they are written: what a field takes, and what a wrong value was most likely meant to be."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.text_encoding import CUnescape

if TYPE_CHECKING:
    from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

Value = str | bytes | bool | int | float

MOST_NAMES = 8
"""Longest list of an enum's names in an error."""

_BITS = {
    Field.TYPE_INT32: (True, 32), Field.TYPE_UINT32: (False, 32),
    Field.TYPE_INT64: (True, 64), Field.TYPE_UINT64: (False, 64),
}  # fmt: skip
_REALS = (Field.TYPE_FLOAT, Field.TYPE_DOUBLE)


class UnusableError(Exception):
    """A value that its field cannot hold; the text says what it takes."""


def value_of(field: FieldDescriptor, token: str) -> Value:
    """The value of a field's token.

    Args:
        field: not a message's.
        token: as written; adjacent strings are joined by line breaks.

    Raises:
        UnusableError: it is another kind of value, or out of range.
    """
    try:
        if field.enum_type is not None:
            return text_format.ParseEnum(field, token)
        if field.type == Field.TYPE_BOOL:
            return text_format.ParseBool(token)
        if field.type in _REALS:
            return text_format.ParseFloat(token)
        if field.type in _BITS:
            signed, bits = _BITS[field.type]
            return text_format.ParseInteger(token, signed, bits == 64)
        content = _unquoted(token)
        return content if field.type == Field.TYPE_BYTES else content.decode("utf-8")
    except ValueError:
        raise UnusableError(f"takes {_wanted(field)} as {field.name}, got {_shown(token)}") from None


def guess(field: FieldDescriptor, token: str) -> Value | None:
    """What a value that `value_of` refuses was meant to be, so that a report can go on: 64 for 64.0; None: no idea."""
    word = token[1:-1] if token[:1] in ("'", '"') and "\n" not in token else token
    if field.type in _BITS:
        try:
            number = float(word)
        except ValueError:
            return None
        signed, bits = _BITS[field.type]
        least, greatest = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        whole = math.isfinite(number) and number == int(number) and least <= number <= greatest
        return int(number) if whole else None
    if field.type in _REALS:
        try:
            return float(word)
        except ValueError:
            return None
    if field.type == Field.TYPE_BOOL:
        return {"true": True, "false": False}.get(word.lower())
    if field.enum_type is not None:
        value = field.enum_type.values_by_name.get(word.upper())
        return None if value is None else int(value.number)
    return word if field.type == Field.TYPE_STRING and word.isprintable() else None


def _unquoted(token: str) -> bytes:
    if token[0] not in "\"'":
        raise ValueError(token)
    return b"".join(CUnescape(part[1:-1]) for part in token.split("\n"))


def _wanted(field: FieldDescriptor) -> str:
    if field.enum_type is not None:
        return _names(field.enum_type)
    if field.type in _BITS:
        signed, bits = _BITS[field.type]
        return f"a whole number of {bits} bits" if signed else f"a whole number from 0 to {2**bits - 1}"
    if field.type == Field.TYPE_BOOL:
        return "true or false"
    return "a number" if field.type in _REALS else "UTF-8 text in quotes"


def _names(enum: EnumDescriptor) -> str:
    names = [value.name for value in enum.values]
    if len(names) > MOST_NAMES:
        return f"one of {len(names)} names ({', '.join(names[:MOST_NAMES])}, ...)"
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _shown(token: str) -> str:
    text = " ".join(token.split("\n"))
    return text if len(text) <= 60 else text[:57] + "..."
