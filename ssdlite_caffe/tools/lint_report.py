"""What `lint` shows of a prototxt on a terminal."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table
from rich.text import Text

from ssdlite_caffe.prototxt.lint import LintReport, lint
from ssdlite_caffe.prototxt.shapes import Phase
from ssdlite_caffe.prototxt.text import read_text
from ssdlite_caffe.terminal import table_console


def lint_file(path: Path, *, runtime: str | None, phase: Phase | None) -> LintReport:
    """Look a prototxt file over; see `lint`."""
    return lint(read_text(path), str(path), runtime=runtime, phase=phase)


def print_report(report: LintReport) -> None:
    """Layers, totals and problems, on stdout."""
    table = Table(title=f"{report.net or report.name}, phase {report.phase}")
    table.add_column("line", justify="right")
    for heading in ("layer", "type", "shape"):
        table.add_column(heading, overflow="fold")
    for heading in ("parameters", "multiply-adds"):
        table.add_column(heading, justify="right")
    for layer in report.layers:
        shapes = layer.shapes
        tops = ", ".join("?" if top.shape is None else "x".join(map(str, top.shape)) for top in shapes.tops)
        table.add_row(
            str(layer.line),
            Text(shapes.name),
            shapes.type,
            tops,
            _count(shapes.param_count),
            _count(shapes.multiply_adds),
        )
    table_console().print(table)
    totals = f"{len(report.layers)} layers, {report.param_count:,} parameters, {report.multiply_adds:,} multiply-adds"
    print(totals + (f"; {report.skipped} layers of the other phase skipped" if report.skipped else ""))
    for problem in report.problems:
        place = report.name if problem.line is None else f"{report.name}:{problem.line}"
        print(f"{place}: {problem.severity}: {problem.text}")


def _count(number: int) -> str:
    return f"{number:,}" if number else ""
