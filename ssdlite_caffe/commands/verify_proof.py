"""What `verify` prints of a comparison and of its proof in report.json: --record and --check."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ssdlite_caffe.terminal import note

if TYPE_CHECKING:
    from ssdlite_caffe.runtimes.net import NetRuntime
    from ssdlite_caffe.tools.verify import VerifyReport


def recorded_before(folder: Path, runtime: NetRuntime) -> datetime | None:
    """When a proof was recorded that --record will replace; None if there is none."""
    from ssdlite_caffe.tools.proof_write import recorded_date

    return recorded_date(folder, runtime)


def print_compared(
    report: VerifyReport, earlier: datetime | None, *, record: bool, all_layers: bool, as_json: bool
) -> None:
    """Print a comparison; status 1 if the sides differ.

    Args:
        report: the comparison.
        earlier: date of the proof that was replaced.
        record: whether the comparison was recorded.
        all_layers: print every row.
        as_json: print JSON.
    """
    from ssdlite_caffe.runtimes.folder_files import REPORT
    from ssdlite_caffe.tools.proof_record import date_text
    from ssdlite_caffe.tools.verify_report import print_report

    if as_json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        print_report(report, all_layers=all_layers)
    if record:
        instead = "" if earlier is None else f", in place of the one of {date_text(earlier)}"
        note(f"the result with {report.runtime} is recorded in {Path(report.folder) / REPORT}{instead}")
    if report.first_failure is not None:
        raise typer.Exit(1)


def verify_check(folder: Path, model: Path | None, runtime: str | None, *, as_json: bool) -> None:
    """Print what is recorded and what has changed since; status 1 if it does not hold any more, or never did."""
    from ssdlite_caffe.tools.proof_check import check_proof, check_text

    found = check_proof(folder, model, runtime=runtime)
    print(json.dumps(found.to_dict(), indent=2) if as_json else check_text(found))
    if not found.ok:
        raise typer.Exit(1)
