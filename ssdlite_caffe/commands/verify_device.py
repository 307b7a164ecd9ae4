"""What `verify` does with a device: --dump and --first-departure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import typer

from ssdlite_caffe.terminal import status


def verify_departure(
    model: Path, folder: Path, command: str, images: Sequence[Path], pipeline_config: Path | None,
    tolerance: float | None, as_json: bool,
) -> None:  # fmt: skip
    """Find the first layer that a command computes wrongly, and print it; status 1 if there is one."""
    from ssdlite_caffe.runtimes.model_folder import ModelFolder
    from ssdlite_caffe.tools.device_report import print_departure
    from ssdlite_caffe.tools.first_departure import find_departure

    opened = ModelFolder.open(folder)
    reading = opened.reading if pipeline_config is None else replace(opened.reading, pipeline_config=pipeline_config)
    with status() as progress:
        report = find_departure(
            model, opened, command, images=images, tolerance=tolerance, reading=reading, progress=progress
        )
    if as_json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        print_departure(report)
    if report.departure is not None:
        raise typer.Exit(1)


def verify_dump(
    model: Path, folder: Path, dump: Path | None, output: Sequence[str], images: Sequence[Path],
    pipeline_config: Path | None, html: Path | None, all_layers: bool, as_json: bool,
) -> None:  # fmt: skip
    """Compare a device's outputs with TensorFlow's, and print the result; status 1 if some are NaN or Inf."""
    from ssdlite_caffe.runtimes.model_folder import ModelFolder
    from ssdlite_caffe.tools.device_check import compare_dump
    from ssdlite_caffe.tools.device_report import print_dump_report
    from ssdlite_caffe.tools.output_format import parse_formats

    if dump is None:
        raise typer.BadParameter("--output needs --dump")
    if html is not None:
        raise typer.BadParameter("--html shows a runtime, not a device; leave it out with --dump")
    opened = ModelFolder.open(folder)
    reading = opened.reading if pipeline_config is None else replace(opened.reading, pipeline_config=pipeline_config)
    with status() as progress:
        report = compare_dump(
            model, opened, dump, images=images, formats=parse_formats(output), reading=reading,
            progress=progress,
        )  # fmt: skip
    if as_json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        print_dump_report(report, all_layers=all_layers)
    if report.bad:
        raise typer.Exit(1)
