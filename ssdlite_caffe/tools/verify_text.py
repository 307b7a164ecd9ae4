"""What `verify` says in words: the verdict, the rows that sum up a comparison, and the cells of a row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from ssdlite_caffe.tools.comparison import Row
from ssdlite_caffe.tools.judge import less_exact
from ssdlite_caffe.tools.verify import VerifyReport

_COUNTED = {"files": "changed", "settings": "differ"}
"""Sections whose rows count something, and what."""


class Cells(NamedTuple):
    """A row as text.

    Attributes:
        stage: as in the row.
        shape: "16x160x160"; empty for files.
        absolute: the largest difference, or what else is wrong.
        relative: the same over TensorFlow's largest magnitude; empty for files.
        bound: of the relative difference where it ends in "rel", of the absolute one elsewhere.
        used: the difference as a percentage of its bound; empty where there is no such number.
        mark: "ok" or "FAIL".
    """

    stage: str
    shape: str
    absolute: str
    relative: str
    bound: str
    used: str
    mark: str


def cells(row: Row) -> Cells:
    """The text of each column."""
    mark = "ok" if row.ok else "FAIL"
    shape = "x".join(map(str, row.shape))
    if row.section in _COUNTED:
        return Cells(row.stage, shape, f"{row.absolute:.0f} {_COUNTED[row.section]}", "", "", "", mark)
    # Detections without a partner differ infinitely, and those with one by a number; arrays differ by one number.
    unpaired = math.isinf(row.absolute) and math.isfinite(row.relative)
    absolute = "unpaired" if unpaired else _number(row.absolute, 2)
    bound = f"{row.bound:.0e}" + (" rel" if row.relative_bound else "")
    return Cells(row.stage, shape, absolute, _number(row.relative, 1), bound, _used(row), mark)


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}e}" if math.isfinite(value) else "NaN" if math.isnan(value) else "Inf"


def _used(row: Row) -> str:
    """The share of the bound; empty where the bound is 0, or the share is NaN or Inf."""
    if not row.bound or not math.isfinite(row.share):
        return ""
    return f"{row.share:.1%}" if row.share < 10 else ">999%"


def worst_of_sections(rows: Sequence[Row]) -> list[Row]:
    """For each section the row that fails, or else the one nearest to its bound; of the detections every row."""
    worst: dict[str, Row] = {}
    for row in rows:
        key = row.stage if row.section == "detections" else row.section
        known = worst.get(key)
        if known is None or (known.ok, -known.share) > (row.ok, -row.share):
            worst[key] = row
    return list(worst.values())


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
