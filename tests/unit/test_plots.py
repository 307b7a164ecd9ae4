"""loss.png of trainings."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe import plots
from ssdlite_caffe.errors import MissingRuntimeError
from ssdlite_caffe.imports import import_pyplot
from ssdlite_caffe.plots import draw_training, plotting_problem, smoothed

LOSSES = [(n, 5.0 - n / 100) for n in range(200)]
RATES = [(n, 0.001 * (1 - n / 200)) for n in range(200)]


def test_smoothed() -> None:
    values = np.arange(60.0)
    assert smoothed(values)[:3].tolist() == [0.0, 0.5, 1.0], "those there are so far"
    assert smoothed(values)[-1] == np.mean([57, 58, 59]), "60 / 20 values"
    assert smoothed(np.array([2.0, 4.0, 6.0, 8.0])).tolist() == [2.0, 3.0, 4.0, 6.0], "3 at least"


def test_a_changing_rate_is_one_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On an axis of its own; losses below it raw and smoothed, tests in a panel of their own."""
    pyplot = import_pyplot()
    monkeypatch.setattr(pyplot, "close", lambda figure: None)
    draw_training(tmp_path / "loss.png", LOSSES, RATES, {"ap50": [(100, 0.5), (200, 0.75)], "none": []})
    figure = pyplot.gcf()
    try:
        lines = {axes.get_ylabel(): [line.get_xydata().tolist() for line in axes.lines] for axes in figure.axes}
        assert [len(lines[name]) for name in ("loss", "learning rate", "test")] == [2, 1, 1]
        assert lines["loss"][0] == [list(point) for point in LOSSES]
        assert lines["learning rate"][0] == [list(point) for point in RATES]
        assert lines["test"][0] == [[100, 0.5], [200, 0.75]]
        assert not any(axes.texts for axes in figure.axes)
    finally:
        monkeypatch.undo()
        pyplot.close(figure)
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_to_draw(tmp_path: Path) -> None:
    draw_training(tmp_path / "loss.png", [], RATES)
    assert not (tmp_path / "loss.png").exists()


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert plotting_problem() == ""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "needs matplotlib" in plotting_problem()
    assert "\n" not in plotting_problem()
    with pytest.raises(MissingRuntimeError):
        plots.draw_training(tmp_path / "loss.png", LOSSES, RATES)
