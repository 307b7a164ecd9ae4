"""metrics.jsonl and loss.png of a training folder.

A line of metrics.jsonl is an object with `iteration` and either `loss`, `learning_rate` (missing in the last line of a
training) and `time`, or `test` (what is measured, as detection_eval) and `value`.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import IO, Any

from ssdlite_caffe.files import write_text
from ssdlite_caffe.plots import draw_training, plotting_problem
from ssdlite_caffe.training.log import LogReader, Scored, Step

METRICS, PLOT, LOG = "metrics.jsonl", "loss.png", "train.log"

_DRAW_EVERY = 20.0
"""Seconds."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; one that was cut short by a kill is skipped."""
    entries = []
    for line in path.read_text("utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("iteration"), int):
            entries.append(entry)
    return entries


def drop_after(path: Path, iteration: int) -> None:
    """Remove what a training resumed at `iteration` measures again: losses from there on, and later tests."""
    if not path.is_file():
        return
    kept = [
        entry
        for entry in read_metrics(path)
        if entry["iteration"] < iteration or (entry["iteration"] == iteration and "loss" not in entry)
    ]
    write_text(path, "".join(json.dumps(entry) + "\n" for entry in kept), force=True)


def last_loss(folder: Path, done: int) -> Step | None:
    """The last loss of the first `done` iterations: of a training folder's metrics, or without them of Caffe's log."""
    path = folder / METRICS
    entries = read_metrics(path) if path.is_file() else []
    losses = [entry for entry in entries if isinstance(entry.get("loss"), int | float) and entry["iteration"] <= done]
    known = [entry for entry in losses if math.isfinite(entry["loss"])]
    if known:
        return Step(known[-1]["iteration"], float(known[-1]["loss"]), math.nan)
    return _last_logged(folder / LOG, done)


def _last_logged(path: Path, done: int) -> Step | None:
    if not path.is_file():
        return None
    reader, last = LogReader(), None
    with path.open(encoding="utf-8", errors="replace") as stream:
        for line in stream:
            event = reader.read(line)
            if isinstance(event, Step) and event.iteration <= done and math.isfinite(event.loss):
                last = event
    return last


class Metrics:
    """Writes metrics.jsonl line by line, and draws loss.png from it now and then."""

    def __init__(self, folder: Path) -> None:
        """Continue the metrics of a training folder.

        Attributes:
            problem: why no plot is drawn, in a line; empty where plots are drawn.
        """
        self._folder = folder
        self._stream: IO[str] | None = None
        path = folder / METRICS
        self._entries = read_metrics(path) if path.is_file() else []
        self._drawn = 0.0
        self.problem = plotting_problem()

    def __enter__(self) -> Metrics:
        self._stream = (self._folder / METRICS).open("a", encoding="utf-8", buffering=1)
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()

    def step(self, step: Step) -> None:
        """Add an iteration that Caffe shows."""
        rate = {} if math.isnan(step.rate) else {"learning_rate": step.rate}
        self._write({"iteration": step.iteration, "loss": step.loss, **rate, "time": round(time.time(), 3)})
        if time.monotonic() - self._drawn > _DRAW_EVERY:
            self.draw()

    def scored(self, scored: Scored) -> None:
        """Add a test, unless it is one that a resumed training repeats."""
        entry = {"iteration": scored.iteration, "test": scored.name, "value": scored.value}
        if not any(known.items() >= {"iteration": scored.iteration, "test": scored.name}.items()
                   for known in self._entries):  # fmt: skip
            self._write(entry)

    def draw(self) -> None:
        """Draw loss.png, where matplotlib is installed."""
        self._drawn = time.monotonic()
        if self.problem:
            return
        losses = [(entry["iteration"], entry["loss"]) for entry in self._entries if "loss" in entry]
        rates = [(entry["iteration"], entry["learning_rate"]) for entry in self._entries if "learning_rate" in entry]
        tests: dict[str, list[tuple[int, float]]] = {}
        for entry in self._entries:
            if "test" in entry:
                tests.setdefault(entry["test"], []).append((entry["iteration"], entry["value"]))
        draw_training(self._folder / PLOT, losses, rates, tests)

    def _write(self, entry: dict[str, Any]) -> None:
        assert self._stream is not None, "opened by `with`"
        self._entries.append(entry)
        self._stream.write(json.dumps(entry) + "\n")
