"""Reading what Caffe prints: glog lines on stderr, and protobuf's error messages between them."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable
from dataclasses import dataclass

_LINE = re.compile(r"([IWEF])\d{4,8} \d\d:\d\d:\d\d\.\d+\s+\d+ ([^:\s]+):(\d+)\] ?(.*)")
_PARSE = re.compile(r"\[libprotobuf ERROR [^]]*\] (?:Error parsing text-format \S+: )?(.*)")
_TRACE = "*** "
_FIELD = re.compile(r'  (name|type): "(.*)"$')
_UNKNOWN_TYPE = re.compile(r"Unknown layer type: (\S+)")
_KNOWN_TYPES = re.compile(r" \(known types: .*\)")
_AT_WORK = re.compile(r"(?:Creating [Ll]ayer|Setting up) (\S+)$")
_MAX_MESSAGE = 400


@dataclass(frozen=True)
class LogLine:
    """One glog line.

    Attributes:
        level: I, W, E or F.
        source: Caffe's source file and line that printed it.
        text: the rest.
    """

    level: str
    source: str
    text: str


def parse_line(line: str) -> LogLine | None:
    """A glog line's parts, None for any other line."""
    found = _LINE.match(line)
    return LogLine(found[1], f"{found[2]}:{found[3]}", found[4]) if found else None


def reason(log: Iterable[str], *, layer: str = "", status: int | None = None) -> str:
    """Why Caffe ended, in one line: the failed check, the layer, and the place in Caffe's source or in a prototxt.

    Args:
        log: what it printed, line by line.
        layer: the layer that was running, where that is known; else the last one that the log says is being made.
        status: exit status as subprocess gives it, negative for a signal.
    """
    fatal: list[str] = []
    source = parsing = making = name = ""
    types: dict[str, str] = {}
    within = False
    for line in log:
        line = line.rstrip("\n")
        parsed = parse_line(line)
        if parsed is not None:
            within = parsed.level == "F" and not fatal
            if within:
                fatal, source = [parsed.text], parsed.source
            elif found := _AT_WORK.match(parsed.text):
                making = found[1]
            elif parsed.text == "Network initialization done.":
                making = ""
        elif found := _FIELD.match(line):  # Caffe prints the net before it makes the layers
            name = found[2] if found[1] == "name" else name
            types.setdefault(found[2], name)
        elif found := _PARSE.match(line):
            parsing = parsing or found[1].rstrip(".") + ": "
        elif line.startswith(_TRACE):
            within = False
        elif within:
            fatal.append(line)
    text = _KNOWN_TYPES.sub("", " ".join(" ".join(fatal).split())).rstrip(".")
    if unknown := _UNKNOWN_TYPE.search(text):
        making = types.get(unknown[1], "")
    layer = layer or making
    named = not layer or parsing or f"layer {layer}" in text or f"'{layer}'" in text
    where = "" if named else f" in layer {layer}"
    if text:
        short = text if len(text) <= _MAX_MESSAGE else text[:_MAX_MESSAGE] + "..."
        return f"{parsing}{short}{where} ({source})"
    if status is not None and status < 0:
        return f"Caffe was ended by {signal.Signals(-status).name}{where}"
    return f"Caffe ended with status {status} and no message{where}"
