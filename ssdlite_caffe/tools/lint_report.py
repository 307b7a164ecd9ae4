"""The report of `lint` on a terminal."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table
from rich.text import Text

from ssdlite_caffe.prototxt.lint import LintReport, lint
from ssdlite_caffe.prototxt.shapes import Phase
from ssdlite_caffe.prototxt.text import read_text
from ssdlite_caffe.terminal import table_console


def lint_file(path: Path, *, runtime: str | None, phase: Phase | None) -> LintReport:
    """Check a prototxt file; see `lint`."""
    return lint(read_text(path, as_it_is=True), str(path), runtime=runtime, phase=phase)


def print_lint_report(report: LintReport) -> None:
    """Print layers, totals and problems to stdout."""
    title = f"{report.net or report.name}, phase {report.phase}"
    table = Table(title=title, box=None, pad_edge=False, collapse_padding=True, title_justify="left")
    table.add_column("line", justify="right", no_wrap=True)
    for heading in ("layer", "type"):
        table.add_column(heading, overflow="fold")
    table.add_column("shape", no_wrap=True)
    for heading in ("params", "mult-adds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in report.layers:
        shapes = layer.shapes
        tops = "\n".join("?" if top.shape is None else "x".join(map(str, top.shape)) for top in shapes.tops)
        table.add_row(
            str(layer.line), Text(shapes.name), shapes.type, tops, count_text(shapes.param_count),
            count_text(shapes.multiply_adds),
        )  # fmt: skip
    table_console().print(table)
    totals = f"{len(report.layers)} layers, {report.param_count:,} parameters, {report.multiply_adds:,} multiply-adds"
    print(totals + (f"; {report.skipped} layers of the other phase skipped" if report.skipped else ""))
    for problem in report.problems:
        place = report.name if problem.line is None else f"{report.name}:{problem.line}"
        print(f"{place}: {problem.severity}: {problem.text}")


def count_text(number: int) -> str:
    """A count in at most six characters, as `864`, `1.6 k` or `34.6 M`; empty for 0."""
    if not number:
        return ""
    if number < 1000:
        return str(number)
    value, units = number / 1000, iter("kMGT")
    unit = next(units)
    while value >= 999.5:
        value, unit = value / 1000, next(units)
    return f"{value:.0f} {unit}" if value >= 99.95 else f"{value:.1f} {unit}"
