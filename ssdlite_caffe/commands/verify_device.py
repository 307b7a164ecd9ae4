"""What `verify` does with a device: --dump and --first-departure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ssdlite_caffe.errors import DeviceError
from ssdlite_caffe.terminal import status

if TYPE_CHECKING:
    from ssdlite_caffe.commands.device_accuracy import Annotations
    from ssdlite_caffe.runtimes.detections import Detections
    from ssdlite_caffe.tools.comparison import ImageComparison


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
    pipeline_config: Path | None, annotations: Annotations, html: Path | None, *, force: bool, all_layers: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Compare a device's outputs with TensorFlow's, and print the result; status 1 if some are NaN or Inf."""
    from ssdlite_caffe.commands.device_accuracy import read_annotations, with_accuracy
    from ssdlite_caffe.files import refuse_existing, write_text
    from ssdlite_caffe.runtimes.model_folder import ModelFolder
    from ssdlite_caffe.tools.device_check import ComparedImage, compare_dump
    from ssdlite_caffe.tools.device_html import MOST_FIGURES, device_page, shown
    from ssdlite_caffe.tools.device_report import print_dump_report
    from ssdlite_caffe.tools.output_format import parse_formats

    if dump is None:
        option = "--output" if output else "--annotations" if annotations.data is not None else "this"
        raise typer.BadParameter(f"{option} needs --dump")
    if annotations.data is None and (annotations.images is not None or annotations.label_map is not None):
        option = "--label-map" if annotations.images is None else "--annotated-images"
        raise typer.BadParameter(f"{option} needs --annotations")
    formats = parse_formats(output)
    if html is not None:
        refuse_existing(html, force=force)
    opened = ModelFolder.open(folder)
    reading = opened.reading if pipeline_config is None else replace(opened.reading, pipeline_config=pipeline_config)
    truth = read_annotations(opened, dump, images, annotations)
    figures: list[ImageComparison] = []
    pairs: list[tuple[Detections, Detections | None]] = []

    def seen(image: ComparedImage) -> None:
        pairs.append((image.reference.scored, image.device))
        figure = shown(opened, image) if html is not None and len(figures) < MOST_FIGURES else None
        if figure is not None:
            figures.append(figure)
        if truth is not None and image.device is None and not image.bad:
            raise DeviceError(
                f"--annotations needs the detections of {image.name}, which are made of mbox_loc with mbox_conf or "
                f"mbox_conf_flatten, or of detection_out; {dump} does not have them"
            )

    with status() as progress:
        report = compare_dump(
            model, opened, dump, images=images, formats=formats, reading=reading, seen=seen, progress=progress
        )
        if truth is not None:
            progress("computing the average precision")
            report = with_accuracy(report, opened, truth, pairs)
    if html is not None:
        write_text(html, device_page(report, model, opened, figures), force=force)
    if as_json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        print_dump_report(report, all_layers=all_layers)
    if report.bad:
        raise typer.Exit(1)
