"""What `verify` says in words: the verdict, the rows that sum up a comparison, and the cells of a row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from ssdlite_caffe.tools.comparison import Row
from ssdlite_caffe.tools.judge import WHOLE, less_exact
from ssdlite_caffe.tools.tolerances import RATIO
from ssdlite_caffe.tools.verify import VerifyReport

_COUNTED = {"files": "changed", "settings": "differ"}
"""Sections whose rows count something, and what."""


class Cells(NamedTuple):
    """A row as text; an entry that a row does not have is empty.

    Attributes:
        stage: as in the row.
        shape: "16x160x160".
        double: the largest difference in float64.
        absolute: the largest difference in float32, or what else is wrong.
        relative: the same over TensorFlow's largest magnitude.
        ratio: the runtime's rounding errors over TensorFlow's.
        bound: of the relative difference where it ends in "rel", of the absolute one elsewhere; "rounding": what one
            rounding of every weight allows in float64.
        used: the difference as a percentage of its bound; empty where it passes for another reason.
        mark: "ok" or "FAIL".
    """

    stage: str
    shape: str
    double: str
    absolute: str
    relative: str
    ratio: str
    bound: str
    used: str
    mark: str


class Column(NamedTuple):
    """A column of the table: its heading, the entry of `Cells` that it shows, and whether that is a number."""

    heading: str
    entry: str
    number: bool


_SINGLE = (Column("max diff", "absolute", True), Column("relative", "relative", True), Column("bound", "bound", True))
_DOUBLE = (
    Column("float64", "double", True), Column("float32", "absolute", True), Column("ratio", "ratio", True),
    Column("bound", "bound", True), Column("of bound", "used", True),
)  # fmt: skip


def columns(report: VerifyReport) -> tuple[Column, ...]:
    """The columns between the stage's shape and the mark: with float64, where it decides, or of float32 alone."""
    return _DOUBLE if in_double(report) else _SINGLE


def in_double(report: VerifyReport) -> bool:
    """Whether the report has differences in float64."""
    return any(row.double is not None for row in report.rows)


def legend(report: VerifyReport) -> tuple[str, ...]:
    """What the columns of a table with float64 are, in lines; none for a table of float32 alone."""
    if not in_double(report):
        return ()
    return (
        f"float64: the net against the model, both in float64. float32: {report.runtime} against {report.reference}.",
        "ratio: of their rounding errors. rounding: what one float32 rounding of every weight allows.",
    )


def cells(row: Row) -> Cells:
    """The text of each column."""
    mark = "ok" if row.ok else "FAIL"
    shape = "x".join(map(str, row.shape))
    if row.section in _COUNTED:
        return Cells(row.stage, shape, "", f"{row.absolute:.0f} {_COUNTED[row.section]}", "", "", "", "", mark)
    bound = f"{row.bound:.0e}" + (" rel" if row.relative_bound else "")
    if row.section == WHOLE:
        return Cells(row.stage, shape, _number(row.absolute, 2), "", "", "", bound, _percent(row.share), mark)
    # Detections without a partner differ infinitely, and those with one by a number; arrays differ by one number.
    unpaired = math.isinf(row.absolute) and math.isfinite(row.relative)
    absolute = "unpaired" if unpaired else _number(row.absolute, 2)
    relative = _number(row.relative, 1)
    if row.double is None:
        beyond = row.ok and row.share > 1  # detections that differ by as much as their boxes and scores do by rounding
        used = _percent(row.share) if row.bound and not beyond else ""
        return Cells(row.stage, shape, "", absolute, relative, "", bound, used, mark)
    double, ratio = _number(row.double.absolute, 2), "" if row.ratio is None else _ratio(row.ratio)
    used = ">999%" if math.isinf(row.double.share) else _percent(row.double.share)  # Inf: of NaN, or of another shape
    return Cells(row.stage, shape, double, absolute, relative, ratio, "rounding", used, mark)


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}e}" if math.isfinite(value) else "NaN" if math.isnan(value) else "Inf"


def _ratio(value: float) -> str:
    return f"{value:.1f}" if value < 1000 else ">999"


def _percent(share: float) -> str:
    """The share of a bound; empty where it is NaN or Inf, as where a value is."""
    if not math.isfinite(share):
        return ""
    if 0 < share < 5e-4:
        return "<0.1%"
    return f"{share:.1%}" if share < 10 else ">999%"


def worst_of_sections(rows: Sequence[Row]) -> list[Row]:
    """For each section the row that fails, or else the one nearest to its bound; of the ends of the net every row."""
    worst: dict[str, Row] = {}
    for row in rows:
        key = row.stage if row.section in ("detections", WHOLE) else row.section
        known = worst.get(key)
        if known is None or (known.ok, -_nearness(known)) > (row.ok, -_nearness(row)):
            worst[key] = row
    return list(worst.values())


def _nearness(row: Row) -> float:
    """How near a row is to its bounds, 1 at the bound: in float64 to both, that of float64 and that of the ratio."""
    if row.double is None:
        return row.share
    return max(row.double.share, (row.ratio or 0.0) / RATIO)


def count_of_images(report: VerifyReport) -> str:
    """`1 image`, `8 images`."""
    count = len(report.names)
    return f"{count} image{'s' * (count != 1)}"


def sides(report: VerifyReport) -> str:
    """What was compared: `frozen graph a/frozen_inference_graph.pb and out`."""
    return f"{report.form} {report.source} and {report.folder}"


def verdict(report: VerifyReport) -> str:
    """One sentence: equal, equal but less exact, or not the same net, with the first stage that differs."""
    failure = report.first_failure
    if failure is None:
        return f"{_equal(report)} on {count_of_images(report)}{_unproved(report)}"
    reason = "" if report.exact else " (the folder says that it is not exact)"
    note = f": {failure.note}" if failure.note else ""
    if failure.double is not None and not failure.double.ok:
        return f"not the same net: the first stage that differs is {failure.stage}{note}{reason}"
    text = cells(failure)
    if failure.section in _COUNTED:
        found = ""
    elif text.absolute == "unpaired":
        found = ", unpaired"
    elif failure.relative_bound:
        found = f", {text.absolute}, relative {text.relative} (bound {failure.bound:.0e})"
    else:
        found = f", {text.absolute} (bound {text.bound})"
    if failure.double is not None:
        return f"{report.runtime} computes something else: the first stage is {failure.stage}{found}{note}{reason}"
    return f"the first stage beyond its bound is {failure.stage}{found}{note}{reason}{_unproved(report)}"


def _equal(report: VerifyReport) -> str:
    if report.unproved:
        return "equal within the bounds"
    worst = less_exact(report.rows)
    if worst is None:
        return "equal"
    return (
        f"equal, but {report.runtime} is less exact than {report.reference} (its rounding errors are {worst.ratio:.1f} "
        f"times as large at {worst.stage})"
    )


def _unproved(report: VerifyReport) -> str:
    return f"; not compared in float64: {report.unproved}" if report.unproved else ""
