"""The comparison of a device's outputs, and the first layer that departs, on the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich import box
from rich.table import Table

from ssdlite_caffe.terminal import table_console
from ssdlite_caffe.tools.device_accuracy import ACCURACY_HEADINGS, DeviceAccuracy, accuracy_rows, accuracy_text
from ssdlite_caffe.tools.device_check import SHOWN_SCORE, DumpReport, Matches, OutputRow
from ssdlite_caffe.tools.first_departure import DepartureReport

SHOWN_LAYERS = 15
OUTPUT_HEADINGS = ("blob", "shape", "max diff", "mean diff", "corr", "SNR dB", "own dB")


def print_dump_report(report: DumpReport, *, all_layers: bool = False) -> None:
    """Detections, outputs and layers, on stdout; the tables are made for 80 columns.

    Args:
        report: the comparison.
        all_layers: print every layer, not only those that add most noise.
    """
    images = report.images[0] if len(report.images) == 1 else f"{len(report.images)} images"
    print(matches_text(report.detections))
    if report.bad:
        print(f"{report.bad} values are NaN or Inf; they are not in the table")
    if report.accuracy is not None:
        _print_accuracy(report.accuracy)
    _print_table(
        f"{report.dump} and TensorFlow on {images}", report.outputs, own=any(r.own is not None for r in report.outputs)
    )
    if report.layers:
        shown = report.layers if all_layers else report.layers[:SHOWN_LAYERS]
        _print_table("layers, the one that adds most noise first", shown, own=True)
        if len(shown) < len(report.layers):
            print(f"{len(report.layers) - len(shown)} more layers with --all-layers")
    for note in report.notes:
        print(f"note: {note}")


def print_departure(report: DepartureReport) -> None:
    """The layer, its values, and every blob that was looked at, on stdout."""
    found = report.departure
    if found is None:
        print(f"no output of the net departs by more than {report.tolerance:g} of its largest value")
    else:
        probe = found.probe
        place, device = ", ".join(map(str, probe.at)), "NaN or Inf" if probe.device is None else f"{probe.device:.6g}"
        print(f"the first layer that departs is {found.layer} ({found.type}), blob {probe.blob}")
        at = f"  at ({place}) it has {device}, TensorFlow {probe.reference:.6g}"
        print(f"{at}: {_share(probe.share)} of the largest value")
        inputs = ", ".join(f"{name} {_share(share)}" for name, share in found.inputs.items())
        print(f"  what it reads does not depart by more than {report.tolerance:g}: {inputs or 'nothing'}")
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    table.title = f"{len(report.probes)} nets run, on {report.image}"
    table.add_column("cut at", overflow="fold")
    table.add_column("shape", overflow="fold")
    for heading in ("max diff", "of largest", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in report.probes:
        cells = (one.layer or one.blob, "x".join(map(str, one.shape)), f"{one.largest:.2e}", _share(one.share))
        table.add_row(*cells, "departs" if one.departs else "ok", style="bold red" if one.departs else None)
    table_console().print(table)


def _share(share: float) -> str:
    return f"{share:.1e}"


def matches_text(found: Matches | None) -> str:
    """How the detections agree, in one line."""
    if found is None:
        return "no detections: they need mbox_loc with mbox_conf or mbox_conf_flatten, all finite, or detection_out"
    text = f"detections with scores from {SHOWN_SCORE}: {found.matched} of {found.reference} matched, {found.more} more"
    if found.matched:
        text += f"; IoU {found.least_iou:.3f} or more, {found.mean_iou:.3f} on average, scores within {found.score:.2g}"
    return text


def _print_accuracy(found: DeviceAccuracy) -> None:
    print(accuracy_text(found))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    table.title = "average precision of TensorFlow and of the device"
    table.add_column(ACCURACY_HEADINGS[0], overflow="fold")
    for heading in ACCURACY_HEADINGS[1:]:
        table.add_column(heading, justify="right", no_wrap=True)
    for cells in accuracy_rows(found):
        table.add_row(*cells)
    table_console().print(table)


def _print_table(title: str, rows: Sequence[OutputRow], *, own: bool) -> None:
    if not rows:
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    table.title = title
    for heading in OUTPUT_HEADINGS[:2]:
        table.add_column(heading, overflow="fold")
    headings = OUTPUT_HEADINGS[2:] if own else OUTPUT_HEADINGS[2:-1]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*output_cells(row)[: 2 + len(headings)])
    table_console().print(table)


def output_cells(row: OutputRow) -> tuple[str, ...]:
    """The text of each column of OUTPUT_HEADINGS."""
    own = "" if row.own is None else _short(row.own, ".1f")
    return (
        row.name, "x".join(map(str, row.shape)), f"{row.largest:.2e}", f"{row.mean:.1e}",
        _short(row.correlation, ".5f"), _short(row.snr, ".1f"), own,
    )  # fmt: skip


def _short(value: float, form: str) -> str:
    return "-" if math.isnan(value) else ("equal" if value == math.inf else format(value, form))
