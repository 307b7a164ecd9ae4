"""loss.png: the smoothed loss, the learning rate's steps, and what tests gave."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssdlite_caffe.files import write_bytes
from ssdlite_caffe.imports import import_pyplot


def draw_loss(entries: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the entries of metrics.jsonl; nothing where there are none.

    Raises:
        MissingRuntimeError: matplotlib is not installed.
        OutputError: the disk refuses.
    """
    steps = [entry for entry in entries if "loss" in entry]
    if not steps:
        return
    pyplot = import_pyplot()
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    iterations = [entry["iteration"] for entry in steps]
    axes.plot(iterations, [entry["loss"] for entry in steps], color="C0")
    axes.set(xlabel="iteration", ylabel="loss, smoothed")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    for before, entry in itertools.pairwise(steps):
        if entry["lr"] != before["lr"]:
            axes.axvline(entry["iteration"], color="grey", linestyle=":", linewidth=1)
            axes.annotate(f"lr {entry['lr']:g}", (entry["iteration"], axes.get_ylim()[1]), fontsize="small", va="top")
    tests = [entry for entry in entries if "test" in entry]
    if tests:
        other = axes.twinx()
        other.plot([e["iteration"] for e in tests], [e["value"] for e in tests], "o-", color="C1")
        other.set(ylabel=tests[0]["test"], ylim=(0, 1))
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=110)
    pyplot.close(figure)
    write_bytes(path, drawn.getvalue(), force=True)
