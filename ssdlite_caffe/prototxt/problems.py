"""Problems of a prototxt's text, and characters that may not be in it."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ODD = re.compile(r"""#[^\n]*|"(?:[^"\\\n]|\\.)*"?|'(?:[^'\\\n]|\\.)*'?|([^\t\n\v\f\r -~])""")
"""Comments and strings, which may hold any character, or (group 1) a character that may only be in them."""


@dataclass(frozen=True)
class TextProblem:
    """A problem of the text itself. Lines and columns count from 1.

    Attributes:
        kind: `unknown-field`, `unknown-value` (of an enum), `field-twice`, `value`, `missing-field` or `character`.
        text: what is wrong.
        layer: index into `Outline.layer_lines` of the layer that it is in, None outside of layers.
        message, field: where it is.
        lost: whether the field has no value for it.
        harmless: whether it is an unknown field without text in quotes, which OpenCV can skip.
    """

    line: int
    column: int
    kind: str
    text: str
    layer: int | None
    message: str = ""
    field: str = ""
    lost: bool = False
    harmless: bool = False

    def __str__(self) -> str:
        return self.text


def odd_characters(text: str) -> list[TextProblem]:
    """Spaces and control characters that Python's parser skips and protobuf's own refuses, the first of each line."""
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        odd = None if line.isascii() and line.isprintable() else _first_odd(line)
        if odd is not None:
            said = f"the character U+{ord(line[odd]):04X} may only be in comments and strings"
            found.append(TextProblem(number, odd + 1, "character", said, None))
    return found


def _first_odd(line: str) -> int | None:
    return next((match.start() for match in _ODD.finditer(line) if match.group(1) is not None), None)
