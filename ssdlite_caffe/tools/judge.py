"""Rounding or error: the rows of a float32 comparison, judged by what float64 says of the same stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ssdlite_caffe.tools.comparison import Row
from ssdlite_caffe.tools.proof import Image, Ratio, Stage, ratios
from ssdlite_caffe.tools.tolerances import RATIO, WRONG_RATIO
from ssdlite_caffe.tools.whole_net import WholeDifference

WHOLE = "float64"
"""Section of the rows of the whole net in float64."""


def judged(rows: Sequence[Row], proof: Image | None) -> tuple[Row, ...]:
    """The rows, with what float64 and the runtime's rounding say in place of the fixed bounds.

    A stage that differs in float64 fails. One that is the same passes, however far TensorFlow's own rounding moves it,
    unless the runtime is beyond its fixed bound and WRONG_RATIO times further off than TensorFlow: then it computes
    something else. The rows of the whole net in float64 follow the scores.

    Args:
        rows: of the float32 comparison.
        proof: of all images; None leaves the rows as they are.
    """
    if proof is None:
        return tuple(rows)
    known, multiples = {stage.name: stage for stage in proof.stages}, ratios(proof.stages)
    found: list[Row] = []
    for row in rows:
        found.append(_judged(row, known[row.stage], multiples[row.stage]) if row.stage in known else row)
        if row.stage == "scores":
            found += map(_of_whole_net, proof.whole)
    return tuple(found)


def _judged(row: Row, stage: Stage, ratio: Ratio) -> Row:
    local = stage.local
    if not local.ok:
        place = f"{stage.part}: " if stage.part else ""
        cause = f"; likely {stage.cause}" if stage.cause else ""
        note = f"{place}in float64 {local.ours:.7g} here, {local.theirs:.7g} in the model{cause}"
        return replace(row, ok=False, note=note, double=local, ratio=ratio.judged)
    ok = row.ok or ratio.largest < WRONG_RATIO
    note = row.note
    if ok and not row.ok:
        moved = f"the model's own rounding moves this by {stage.rounding.model:.1e}"
        note = f"{note}; {moved}" if note else moved
    return replace(row, ok=ok, note=note, double=local, ratio=ratio.judged)


def _of_whole_net(whole: WholeDifference) -> Row:
    found = whole.difference
    note = f"weights before their rounding to float32; after it {whole.written:.1e}"
    if not found.ok:
        note = f"{found.ours:.9g} here, {found.theirs:.9g} in the model"
    if whole.remark:
        note += f"; {whole.remark}"
    relative = found.absolute / whole.largest if whole.largest else found.absolute
    return Row(whole.name, WHOLE, found.shape, found.absolute, relative, found.allowed, False, found.ok, note, found)


def less_exact(rows: Sequence[Row]) -> Row | None:
    """The stage at which the runtime rounds most, if that is more than RATIO times what TensorFlow does; else None."""
    worst = max((row for row in rows if row.ratio is not None), key=lambda row: row.ratio or 0.0, default=None)
    return worst if worst is not None and (worst.ratio or 0.0) > RATIO else None
