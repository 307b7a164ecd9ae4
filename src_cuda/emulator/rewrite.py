"""Write a .cu or .cuh as C++: launches become calls, shared variables get their memory from the emulator.

    kernel<T><<<grid, block>>>(arguments)   ::emulator::Launch(..)([](const auto&... values) {
                                                kernel<T>(values...); }, arguments)
    __shared__ float sums[8];               float (&sums)[8] = ::emulator::Shared<float[8]>(..);

Lines keep their numbers. What these rules do not cover (a launch with shared memory or a stream, `extern __shared__`,
`__constant__`, inline assembly) ends the build with the file and the line.

Usage: python rewrite.py FROM TO
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

COMMENT_OR_TEXT = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.DOTALL)
LAUNCH = re.compile(r"<<<(?P<where>[^;]*?)>>>\s*\(")
NAME = re.compile(r"[A-Za-z_]\w*")
SHARED = re.compile(
    r"(?<!extern )\b__shared__\s+(?P<type>[\w:]+(?:<[^;]*>)?)\s+(?P<name>\w+)\s*(?P<sizes>(?:\[[^\]]+\])*)\s*;"
)
REFUSED = re.compile(r"<<<|\b(?:__shared__|__constant__|asm|__device__\s+\w+\s+\w+\s*[;=\[])")


class RewriteError(Exception):
    """What the rules above do not cover."""


def without_comments(text: str) -> str:
    """Blanks in place of comments, so that every place and line stays where it is."""
    return COMMENT_OR_TEXT.sub(
        lambda found: found.group() if found.group()[0] == '"' else re.sub(r"[^\n]", " ", found.group()), text
    )


def split(text: str) -> list[str]:
    """The arguments of a call: split at the commas outside all brackets."""
    parts, depth, start = [], 0, 0
    for at, sign in enumerate(text):
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "," and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    return [*parts, text[start:]]


def kernel_before(text: str, end: int) -> int:
    """Where the kernel's name begins, with its template's arguments, which end at `end`."""
    at = len(text[:end].rstrip())
    if text[at - 1] == ">":
        depth = 0
        while depth or text[at - 1] == ">":
            at -= 1
            depth += (text[at] == ">") - (text[at] == "<")
            if text[at] == "<" and depth == 0:
                break
    at = len(text[:at].rstrip())
    while re.match(r"[\w:#]", text[at - 1]):
        at -= 1
    if not NAME.match(text, at):
        raise RewriteError(f"line {text.count(chr(10), 0, end) + 1}: no kernel's name before <<<")
    return at


def one_line(text: str) -> str:
    """A piece of code, or of a macro, without its line ends."""
    return " ".join(text.replace("\\\n", " ").split())


def closing(text: str, start: int) -> int:
    """The place of the bracket that closes the one before `start`."""
    depth = 1
    for at in range(start, len(text)):
        depth += (text[at] == "(") - (text[at] == ")")
        if depth == 0:
            return at
    raise RewriteError(f"line {text.count(chr(10), 0, start) + 1}: a launch without an end")


def with_launches(text: str) -> str:
    """Launches as calls."""
    while found := LAUNCH.search(text):
        begin, end = kernel_before(text, found.start()), closing(text, found.end())
        kernel = one_line(text[begin : found.start()])
        where, arguments = split(found["where"]), text[found.end() : end]
        if len(where) != 2:
            raise RewriteError(f"line {text.count(chr(10), 0, begin) + 1}: a launch with shared memory or a stream")
        head = text[begin : found.end()]
        lines = ("\\\n" if "\\\n" in head else "\n") * head.count("\n")  # in a macro, each line goes on
        call = (
            f'::emulator::Launch(EMULATOR_SITE("{kernel}"), {", ".join(map(one_line, where))})'
            f"([](const auto&... values) {{ {kernel}(values...); }}"
            f"{',' if arguments.strip() else ''}{lines}{arguments})"
        )
        text = text[:begin] + call + text[end + 1 :]
    return text


def with_shared(text: str) -> str:
    """Shared variables as references to the emulator's memory.

    A tag of its own stands for each, and each instantiation of a template has its own, as it has its own variable.
    """

    def one(found: re.Match[str]) -> str:
        kind, name, sizes = found["type"], found["name"], found["sizes"]
        tag = "[]() -> const void* { static char tag; return &tag; }()"
        lines = "\n" * found.group().count("\n")
        return f"{kind} (&{name}){sizes} = ::emulator::Shared<{kind}{sizes}>({tag});{lines}"

    return SHARED.sub(one, text)


def rewrite(text: str, name: str) -> str:
    """The C++ for one file; `name` is what the compiler and the emulator call it."""
    plain = with_shared(with_launches(without_comments(text)))
    if left := REFUSED.search(plain):
        raise RewriteError(f"line {plain.count(chr(10), 0, left.start()) + 1}: {left.group()} is not covered")
    # Headers with kernels are read by .cu files alone, or have them in macros that only these use.
    words = '#include "cuda_runtime.h"\n#include "device.hpp"\n' if name.endswith(".cu") else ""
    return f'{words}#line 1 "{name}"\n{plain}'


def main(source: str, target: str) -> None:
    """Write the file `target`, and its folder where there is none."""
    written = rewrite(Path(source).read_text(encoding="utf-8"), source)
    path = Path(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(written, encoding="utf-8")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except RewriteError as error:
        sys.exit(f"{sys.argv[1]}: {error}")
