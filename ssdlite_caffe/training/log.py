"""What Caffe's solver says while it trains, as events.

Source: the messages of solver.cpp (Step, TestDetection, Snapshot...) and sgd_solver.cpp (ApplyUpdate).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ssdlite_caffe.caffe.log import parse_line

_LOSS = re.compile(r"Iteration (\d+), loss = (\S+)")
_RATE = re.compile(r"Iteration (\d+), lr = (\S+)")
_TESTING = re.compile(r"Iteration (\d+), Testing net")
_TESTED = re.compile(r"\s*Test net output #\d+: (\S+) = (\S+)")
_SNAPSHOT = re.compile(r"Snapshotting (?:solver state )?to binary proto file .*_iter_(\d+)\.\w+")
_LEFT_OUT = re.compile(r"(.*: record .* cannot be read: .*); it is skipped \((\d+) so far\)")


@dataclass(frozen=True)
class Step:
    """An iteration that Caffe shows: its smoothed loss and learning rate."""

    iteration: int
    loss: float
    rate: float


@dataclass(frozen=True)
class Scored:
    """An output of a test net."""

    iteration: int
    name: str
    value: float


@dataclass(frozen=True)
class Snapshotting:
    """Caffe begins to write a file of the snapshot: the caffemodel first, the solverstate after it."""

    iteration: int


@dataclass(frozen=True)
class LeftOut:
    """A record that AnnotatedData cannot read, told of once.

    Attributes:
        what: which, and why.
        count: how many so far.
    """

    what: str
    count: int


Event = Step | Scored | Snapshotting | LeftOut


class LogReader:
    """Turns lines into events; a step is whole when its learning rate has been said."""

    def __init__(self) -> None:
        self._iteration, self._loss = -1, float("nan")
        self._tested = -1

    def read(self, line: str) -> Event | None:
        """The event that a line completes."""
        parsed = parse_line(line.rstrip("\n"))
        if parsed is None:
            return None
        if found := _LOSS.match(parsed.text):
            self._iteration, self._loss = int(found[1]), _number(found[2])
        elif found := _RATE.match(parsed.text):
            if int(found[1]) == self._iteration:
                return Step(self._iteration, self._loss, _number(found[2]))
        elif found := _TESTING.match(parsed.text):
            self._tested = int(found[1])
        elif found := _TESTED.match(parsed.text):
            return Scored(self._tested, found[1], _number(found[2]))
        elif found := _SNAPSHOT.match(parsed.text):
            return Snapshotting(int(found[1]))
        elif found := _LEFT_OUT.match(parsed.text):
            return LeftOut(found[1], int(found[2]))
        return None


def _number(text: str) -> float:
    """As C++ writes it; nan for what is none."""
    try:
        return float(text)
    except ValueError:
        return float("nan")
