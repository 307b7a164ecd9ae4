"""What `evaluate` shows: tables for the terminal, and a plot of precision over recall."""

from __future__ import annotations

import io
import math
from pathlib import Path

from rich.table import Table

from ssdlite_caffe.errors import OutputError
from ssdlite_caffe.evaluation.evaluate import ClassScore, Evaluation, Score
from ssdlite_caffe.files import write_bytes
from ssdlite_caffe.imports import import_pyplot
from ssdlite_caffe.terminal import table_console

_COLUMNS = (("AP", "ap"), ("AP50", "ap50"), ("AP75", "ap75"), ("VOC07", "voc07"), ("VOC12", "voc12"))


def print_report(evaluation: Evaluation) -> None:
    """A table of the runtimes and one of the classes, on stdout."""
    console = table_console()
    table = Table(title=f"{evaluation.data}: {evaluation.images} images")
    table.add_column("runtime")
    for heading in (*(heading for heading, _ in _COLUMNS), "detections", "ms an image"):
        table.add_column(heading, justify="right")
    for score in evaluation.scores:
        table.add_row(score.runtime, *_values(score), str(score.detections), _number(score.milliseconds, 1))
    console.print(table)
    classes = Table()
    classes.add_column("class")
    classes.add_column("objects", justify="right")
    classes.add_column("runtime")
    for heading, _ in _COLUMNS:
        classes.add_column(heading, justify="right")
    for row in evaluation.scores[0].classes:
        for score in evaluation.scores:
            one = score.classes[row]
            first = score is evaluation.scores[0]
            name, objects = (evaluation.names[row], str(one.objects)) if first else ("", "")
            classes.add_row(name, objects, score.runtime, *_values(one))
        classes.add_section()
    console.print(classes)


def _values(score: Score | ClassScore) -> list[str]:
    return [_number(getattr(score, key), 4) for _, key in _COLUMNS]


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def write_plot(evaluation: Evaluation, path: Path, *, force: bool = False) -> None:
    """Precision over recall at an IoU of 0.5, one line a class; runtimes differ in the dashes.

    Raises:
        MissingRuntimeError: matplotlib is not installed.
        OutputError: `path` exists already, cannot be written, or is of a kind that cannot be drawn.
    """
    pyplot = import_pyplot()
    figure, axes = pyplot.subplots(figsize=(7, 5), layout="constrained")
    try:
        for number, score in enumerate(evaluation.scores):
            for colour, (row, line) in enumerate(score.curves.items()):
                if not line.positives:
                    continue
                axes.plot(
                    line.recall, line.precision, color=f"C{colour % 10}", linestyle=("-", "--", ":", "-.")[number % 4],
                    label=f"{evaluation.names[row]}, {score.runtime}: {score.classes[row].voc12:.3f}",
                )  # fmt: skip
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02), title="IoU 0.5; area under each")
        if len(axes.lines) <= 24:
            axes.legend(fontsize="small", loc="lower left")
        drawn = io.BytesIO()
        try:
            figure.savefig(drawn, format=path.suffix.removeprefix(".").lower() or "png", dpi=120)
        except ValueError as error:  # matplotlib's own text lists the kinds there are
            raise OutputError(f"cannot draw {path}: {error}") from error
    finally:
        pyplot.close(figure)
    write_bytes(path, drawn.getvalue(), force=force)
