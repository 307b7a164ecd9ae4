"""The plot of precision over recall: what its title and legend name, and that the legend covers no curve."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdlite_caffe.evaluation.average_precision import of_verdicts
from ssdlite_caffe.evaluation.evaluate import ClassScore, Evaluation, Score
from ssdlite_caffe.evaluation.report import MOST_NAMED, write_plot
from ssdlite_caffe.imports import import_pyplot

Plot = Callable[..., Any]


def score(runtime: str, objects: list[int]) -> Score:
    """Classes 1, 2, ... with so many objects each, of which every second one is found."""
    curves, classes = {}, {}
    for number, count in enumerate(objects, 1):
        right = np.arange(count) % 2 == 0
        curves[number] = of_verdicts(np.linspace(0.9, 0.1, count), right, count)
        classes[number] = ClassScore(count, 0.1, 0.2, 0.3, 0.4, curves[number].area)
    return Score(runtime, sum(objects), 1.0, 0.1, 0.2, 0.3, 0.4, 0.5, classes, curves)


@pytest.fixture
def plotted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plot:
    """Writes a plot and gives matplotlib's figure of it."""
    pyplot = import_pyplot()
    figures: list[Any] = []
    close = pyplot.close
    monkeypatch.setattr(pyplot, "close", figures.append)

    def write(runtimes: list[str], objects: list[int], data: str = "scenes/test", names: str = "class {}") -> Any:
        every = ("background", *(names.format(number) for number in range(1, len(objects) + 1)))
        scores = tuple(score(runtime, objects) for runtime in runtimes)
        write_plot(Evaluation("model", data, 72, every, scores, ()), tmp_path / "plot.png", force=True)
        close(figures[-1])
        return figures[-1]

    return write


def texts(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_one_runtime_is_in_the_title(plotted: Plot) -> None:
    figure = plotted(["opencv"], [4, 2])
    assert figure.get_suptitle() == "scenes/test, 72 images, opencv"
    assert texts(figure) == ["area under the curve, IoU 0.5:", "class 1: 0.417", "class 2: 0.500"]


def test_several_runtimes_are_in_the_legend_each_with_its_line(plotted: Plot) -> None:
    runtimes = ["tensorflow", "opencv", "caffe", "keras", "tflite", "caffe, DetectionEvaluate"]
    figure = plotted(runtimes, [4])
    assert figure.get_suptitle() == "scenes/test, 72 images"
    assert texts(figure)[:6] == runtimes
    drawn = [line for line in figure.axes[0].lines if len(line.get_xdata())]
    assert len({(line._unscaled_dash_pattern[1], line.get_linewidth()) for line in drawn}) == 6


@pytest.mark.parametrize("names", ["class {}", "a class with a very long name of more than a line {}", "${} $"])
@pytest.mark.parametrize(("runtimes", "classes"), [(1, 1), (2, 3), (1, 80), (6, 80)])
def test_the_legend_is_inside_the_figure_and_covers_no_curve(
    plotted: Plot, names: str, runtimes: int, classes: int
) -> None:
    figure = plotted([f"runtime {number}" for number in range(runtimes)], list(range(2, classes + 2)), "x" * 200, names)
    legend, axes = figure.legends[0].get_window_extent(), figure.axes[0].get_window_extent()
    assert not legend.overlaps(axes)
    assert axes.width > 0.4 * figure.bbox.width
    for box in (legend, figure._suptitle.get_window_extent()):
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1


def test_of_many_classes_those_with_the_most_objects_are_named(plotted: Plot) -> None:
    figure = plotted(["opencv"], list(range(1, 81)))
    _, *named, others = texts(figure)
    assert [text.split(":")[0] for text in named] == [f"class {number}" for number in range(81 - MOST_NAMED, 81)]
    assert others == f"{80 - MOST_NAMED} classes with fewer objects"
    drawn = [line for line in figure.axes[0].lines if len(line.get_xdata())]
    assert len(drawn) == 80
    colours = [line.get_color() for line in drawn]
    assert len(set(colours)) == MOST_NAMED + 1
    assert colours.count("0.75") == 80 - MOST_NAMED


def test_classes_without_objects_have_no_curve(plotted: Plot) -> None:
    figure = plotted(["opencv"], [4, 0])
    assert len([line for line in figure.axes[0].lines if len(line.get_xdata())]) == 1
    assert texts(figure)[1:] == ["class 1: 0.417"]
