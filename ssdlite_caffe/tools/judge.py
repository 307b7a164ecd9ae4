"""Rounding or error: the rows of a float32 comparison, judged by what float64 says of the same stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ssdlite_caffe.tools.comparison import Row
from ssdlite_caffe.tools.proof import Stage, ratios
from ssdlite_caffe.tools.tolerances import RATIO, WRONG_RATIO


def judged(rows: Sequence[Row], stages: Sequence[Stage]) -> tuple[Row, ...]:
    """The rows, with what float64 and the runtime's rounding say in place of the fixed bounds.

    A stage that differs in float64 fails. One that is the same passes, however far TensorFlow's own rounding moves it,
    unless the runtime is beyond its fixed bound and WRONG_RATIO times further off than TensorFlow: then it computes
    something else.

    Args:
        rows: of the float32 comparison.
        stages: of the proof of one image.
    """
    known, multiples = {stage.name: stage for stage in stages}, ratios(stages)
    return tuple(_judged(row, known[row.stage], multiples[row.stage]) if row.stage in known else row for row in rows)


def _judged(row: Row, stage: Stage, ratio: float) -> Row:
    local = stage.local
    if not local.ok:
        place = f"{stage.part}: " if stage.part else ""
        cause = f"; likely {stage.cause}" if stage.cause else ""
        note = f"{place}in float64 {local.ours:.7g} here, {local.theirs:.7g} in the model{cause}"
        return replace(row, ok=False, note=note, double=local, ratio=ratio)
    ok = row.ok or ratio < WRONG_RATIO
    note = row.note
    if ok and not row.ok:
        moved = f"TensorFlow's own rounding moves this by {stage.rounding.model:.1e}"
        note = f"{note}; {moved}" if note else moved
    return replace(row, ok=ok, note=note, double=local, ratio=ratio)


def less_exact(rows: Sequence[Row]) -> Row | None:
    """The stage at which the runtime rounds most, if that is more than RATIO times what TensorFlow does; else None."""
    worst = max((row for row in rows if row.ratio is not None), key=lambda row: row.ratio or 0.0, default=None)
    return worst if worst is not None and (worst.ratio or 0.0) > RATIO else None
