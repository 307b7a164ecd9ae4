"""loss.png of a training, Caffe's or Keras': losses as they were logged and smoothed, learning rate, tests."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.errors import MissingRuntimeError
from ssdlite_caffe.files import write_bytes
from ssdlite_caffe.imports import import_pyplot

Points = Sequence[tuple[int, float]]
"""(iteration, value), in the order of the iterations."""

Values = npt.NDArray[np.float64]

_FEWEST = 3
_SMOOTHED = 20
"""The smoothed curve averages over one part of so many, so that it looks alike for short and long trainings."""


def draw_training(path: Path, losses: Points, rates: Points, tests: Mapping[str, Points] | None = None) -> None:
    """Draw a training into a PNG; without losses nothing is written.

    Args:
        path: file to write; an earlier one is replaced.
        losses: as they were logged.
        rates: learning rates, drawn on an axis of their own on the right.
        tests: name of a measure in 0..1 -> what the tests gave; drawn below the losses.

    Raises:
        MissingRuntimeError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    if not losses:
        return
    shown = {name: points for name, points in (tests or {}).items() if points}
    pyplot = import_pyplot()
    heights = [3, 1.3] if shown else [3]
    figure, grid = pyplot.subplots(
        len(heights), 1, sharex=True, squeeze=False, figsize=(8, 1.5 * sum(heights)), layout="constrained",
        height_ratios=heights,
    )  # fmt: skip
    try:
        axes = grid[0, 0]
        iterations, values = _columns(losses)
        axes.plot(iterations, values, color="C0", alpha=0.35, linewidth=1, label="loss")
        axes.plot(iterations, smoothed(values), color="C0", label="loss, smoothed")
        axes.set(ylabel="loss")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        right = axes.twinx()
        right.plot(*_columns(rates), color="C1", linewidth=1, label="learning rate")
        right.set(ylabel="learning rate")
        right.set_ylim(bottom=0)
        axes.legend(handles=[*axes.lines, *right.lines], fontsize="small", loc="upper right")
        for number, (name, points) in enumerate(shown.items()):
            grid[1, 0].plot(*_columns(points), "o-", color=f"C{number + 2}", label=name)
        if shown:
            grid[1, 0].set(ylabel="test", ylim=(0, 1))
            grid[1, 0].grid(alpha=0.3)
            grid[1, 0].legend(fontsize="small", loc="lower right")
        grid[-1, 0].set(xlabel="iteration")
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=110)
    finally:
        pyplot.close(figure)
    write_bytes(path, drawn.getvalue(), force=True)


def smoothed(values: Values) -> Values:
    """Of each value (N,), the mean of it and those before it: N / 20 values, but at least 3."""
    window = max(_FEWEST, len(values) // _SMOOTHED)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts), np.float64)


def plotting_problem() -> str:
    """Why no plot can be drawn, in a line; empty where it can."""
    try:
        import_pyplot()
    except MissingRuntimeError as error:
        return str(error)
    return ""


def _columns(points: Points) -> tuple[Values, Values]:
    table = np.asarray(points, np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]
