"""The report of `evaluate`: tables for the terminal, and a plot of precision over recall."""

from __future__ import annotations

import io
import itertools
import math
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from ssdlite_caffe.errors import OutputError
from ssdlite_caffe.evaluation.evaluate import ClassScore, Evaluation, Score
from ssdlite_caffe.files import write_bytes
from ssdlite_caffe.imports import import_pyplot
from ssdlite_caffe.terminal import table_console

_COLUMNS = (("AP", "ap"), ("AP50", "ap50"), ("AP75", "ap75"), ("VOC07", "voc07"), ("VOC12", "voc12"))

MOST_NAMED: Final = 20
"""Classes with a colour and a name in the plot, at most: as many as Pascal VOC has."""

_DASHES = ("--", ":", "-.", (0, (8, 2)), (0, (1, 3)))
_GREY = {"color": "0.75", "alpha": 0.6, "linewidth": 0.8, "zorder": 1}


def print_report(evaluation: Evaluation) -> None:
    """A table of the runtimes and one of the classes, on stdout; "-" where there is nothing to find."""
    console = table_console()
    table = Table(title=f"{evaluation.data}: {evaluation.images} images")
    table.add_column("runtime")
    for heading in (*(heading for heading, _ in _COLUMNS), "detections", "ms/image"):
        table.add_column(heading, justify="right")
    for score in evaluation.scores:
        table.add_row(score.runtime, *_values(score), str(score.detections), _number(score.milliseconds, 1))
    console.print(table)
    for score in evaluation.scores:
        if score.path:
            least = "" if score.score_threshold is None else f", scores from {score.score_threshold:g}"
            console.print(f"{score.runtime} ran {score.path}{least}", markup=False, highlight=False, soft_wrap=True)
    classes = Table()
    classes.add_column("class")
    classes.add_column("objects", justify="right")
    classes.add_column("runtime")
    for heading, _ in _COLUMNS:
        classes.add_column(heading, justify="right")
    for number in evaluation.scores[0].classes:
        for score in evaluation.scores:
            one = score.classes[number]
            first = score is evaluation.scores[0]
            name, objects = (evaluation.names[number], str(one.objects)) if first else ("", "")
            classes.add_row(name, objects, score.runtime, *_values(one))
        classes.add_section()
    console.print(classes)


def _values(score: Score | ClassScore) -> list[str]:
    return [_number(getattr(score, key), 4) for _, key in _COLUMNS]


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def write_plot(evaluation: Evaluation, path: Path, *, force: bool = False) -> None:
    """Write a plot of precision over recall at an IoU of 0.5: a colour a class, a kind of line a runtime.

    The legend stands outside the axes. It names the classes with the most objects, MOST_NAMED of them; the others are
    drawn in grey.

    Args:
        evaluation: what to draw; classes without objects have no curve.
        path: ends in a suffix that matplotlib writes: .png, .svg, .pdf.
        force: replace the file where it exists.

    Raises:
        MissingRuntimeError: matplotlib is not installed.
        OutputError: `path` exists and `force` is false, cannot be written, or has another suffix.
    """
    pyplot = import_pyplot()
    figure, axes = pyplot.subplots(dpi=120, layout="constrained")
    try:
        colours = _colours(evaluation, pyplot)
        _draw_curves(axes, evaluation, colours)
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        figure.suptitle(_title(evaluation), fontsize="medium")
        handles = _legend(axes, evaluation, colours)
        # Space for the legend beside the axes: one line is 0.2 inches high, a runtime's numbers are 0.4 inches wide.
        figure.set_size_inches(8.2 + 0.4 * len(evaluation.scores), max(5, 0.2 * len(handles) + 0.2))
        figure.legend(handles=handles, fontsize="small", loc="outside right upper", frameon=False)
        data = io.BytesIO()
        try:
            figure.savefig(data, format=path.suffix.removeprefix(".").lower() or "png")
        except ValueError as error:  # matplotlib's own text lists the formats that it writes
            raise OutputError(f"cannot draw {path}: {error}") from error
    finally:
        pyplot.close(figure)
    write_bytes(path, data.getvalue(), force=force)


def _title(evaluation: Evaluation) -> str:
    """The data set, how many images, and the runtime where there is one; others are in the legend."""
    count = f"{evaluation.images} image{'s' * (evaluation.images != 1)}"
    data = evaluation.data if len(evaluation.data) <= 60 else f"...{evaluation.data[-57:]}"
    names = [data, count] if data else [count]
    if len(evaluation.scores) == 1:
        names.append(evaluation.scores[0].runtime)
    return _plain(", ".join(names))


def _plain(text: str) -> str:
    """The text as matplotlib has to be given it: a dollar sign begins a formula."""
    return text.replace("$", r"\$")


def _colours(evaluation: Evaluation, pyplot: Any) -> dict[int, Any]:
    """The colour of each class with a name in the legend, by class id; in the order of class ids."""
    objects = {number: one.objects for number, one in evaluation.scores[0].classes.items() if one.objects}
    named = sorted(sorted(objects, key=lambda number: -objects[number])[:MOST_NAMED])
    palette = pyplot.get_cmap("tab10").colors
    if len(named) > len(palette):  # the greys of this one are too near to that of the other classes
        palette = [colour for colour in pyplot.get_cmap("tab20").colors if len(set(colour)) > 1] + ["black", "navy"]
    return dict(zip(named, palette, strict=False))


def _draw_curves(axes: Any, evaluation: Evaluation, colours: dict[int, Any]) -> None:
    for style, score in zip(_styles(evaluation), evaluation.scores, strict=True):
        for number, line in score.curves.items():
            if line.positives:
                named = {"color": colours[number], "zorder": 3} if number in colours else _GREY
                axes.plot(line.recall, line.precision, **{**style, **named})


def _styles(evaluation: Evaluation) -> list[dict[str, Any]]:
    """How each runtime's curves are drawn: the first of several is wide and pale, so that equal ones remain visible."""
    if len(evaluation.scores) == 1:
        return [{"linewidth": 1.8}]
    others = itertools.cycle(_DASHES)
    return [
        {"linewidth": 1.5, "linestyle": next(others)} if place else {"linewidth": 4, "alpha": 0.4}
        for place in range(len(evaluation.scores))
    ]


def _legend(axes: Any, evaluation: Evaluation, colours: dict[int, Any]) -> list[Any]:
    """The runtimes where there are several, and the classes with the area under each runtime's curve."""

    def line(label: str, **style: Any) -> Any:
        return axes.plot([], [], label=_plain(label), **style)[0]

    shown = []
    if len(evaluation.scores) > 1:
        styles = zip(_styles(evaluation), evaluation.scores, strict=True)
        shown += [line(score.runtime, color="black", **style) for style, score in styles]
    shown.append(line("area under the curve, IoU 0.5:", linestyle="none"))
    for number, colour in colours.items():
        areas = " / ".join(f"{score.classes[number].voc12:.3f}" for score in evaluation.scores)
        name = evaluation.names[number]
        name = name if len(name) <= 24 else f"{name[:21]}..."
        shown.append(line(f"{name}: {areas}", color=colour, linewidth=3))
    others = sum(1 for one in evaluation.scores[0].classes.values() if one.objects) - len(colours)
    if others:
        shown.append(line(f"{others} classes with fewer objects", **{**_GREY, "linewidth": 3}))
    return shown
