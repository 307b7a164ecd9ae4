"""The lines that Caffe's solver logs while it trains, as events.

Source: the messages of solver.cpp (Step, Solve, TestDetection, Snapshot...) and sgd_solver.cpp (ApplyUpdate).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ssdlite_caffe.caffe.log import parse_line

_LOSS = re.compile(r"Iteration (\d+)(?: \([^)]*\))?, loss = (\S+)")
"""Caffe 1.0 has the speed in brackets, but for the last line."""
_RATE = re.compile(r"Iteration (\d+), lr = (\S+)")
_TESTING = re.compile(r"Iteration (\d+), Testing net")
_TESTED = re.compile(r"\s*Test net output #\d+: (\S+) = (\S+)")
_SNAPSHOT = re.compile(r"Snapshotting (?:solver state )?to binary proto file .*_iter_(\d+)\.\w+")
_DONE = "Optimization Done."
_SKIPPED = re.compile(r"(.*: record .* cannot be read: .*); it is skipped \((\d+) so far\)")


@dataclass(frozen=True)
class Step:
    """An iteration that Caffe shows.

    Attributes:
        iteration: counted from 0; that of the last line is the number of all iterations.
        loss: averaged by Caffe over `average_loss` iterations.
        rate: learning rate of its update; NaN at the end of a training, where the loss is computed once more and
            nothing is updated.
    """

    iteration: int
    loss: float
    rate: float


@dataclass(frozen=True)
class Scored:
    """An output of a test net, as detection_eval: mean average precision in 0..1."""

    iteration: int
    name: str
    value: float


@dataclass(frozen=True)
class Snapshotting:
    """Caffe begins to write a file of the snapshot: the caffemodel first, the solverstate after it."""

    iteration: int


@dataclass(frozen=True)
class Skipped:
    """A record that AnnotatedData cannot read; Caffe logs it once.

    Attributes:
        what: which record, and why.
        count: of such records so far.
    """

    what: str
    count: int


Event = Step | Scored | Snapshotting | Skipped


class LogReader:
    """Turns lines into events; the learning rate of an iteration stands some lines below its loss."""

    def __init__(self) -> None:
        self._iteration, self._loss = -1, float("nan")
        self._pending = False
        self._tested = -1

    def read(self, line: str) -> Event | None:
        """The event that a line completes."""
        parsed = parse_line(line.rstrip("\n"))
        if parsed is None:
            return None
        if found := _LOSS.match(parsed.text):
            self._iteration, self._loss, self._pending = int(found[1]), _number(found[2]), True
        elif found := _RATE.match(parsed.text):
            if int(found[1]) == self._iteration:
                self._pending = False
                return Step(self._iteration, self._loss, _number(found[2]))
        elif found := _TESTING.match(parsed.text):
            self._tested = int(found[1])
        elif found := _TESTED.match(parsed.text):
            return Scored(self._tested, found[1], _number(found[2]))
        elif found := _SNAPSHOT.match(parsed.text):
            return Snapshotting(int(found[1]))
        elif found := _SKIPPED.match(parsed.text):
            return Skipped(found[1], int(found[2]))
        elif parsed.text == _DONE and self._pending:
            self._pending = False
            return Step(self._iteration, self._loss, float("nan"))
        return None


def _number(text: str) -> float:
    """A number as C++ prints it; NaN for any other text."""
    try:
        return float(text)
    except ValueError:
        return float("nan")
