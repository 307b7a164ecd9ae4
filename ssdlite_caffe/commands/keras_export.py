"""The commands `keras export pb` and `keras export tflite`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ssdlite_caffe.commands.app import print_result
from ssdlite_caffe.commands.keras_import import INPUTS_HELP
from ssdlite_caffe.commands.options import DATA_HELP, NET, Force, ImageFolder, Json, Limit, ScoreThreshold, Split
from ssdlite_caffe.terminal import size_text, status

_DTYPE, _MEASURE = "Dtype", "Measure on annotated images"

KerasFile = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Keras model that import or train wrote: .keras, .weights.h5 or .h5.")
]


def export_pb(
    model: KerasFile,
    out: Annotated[Path, typer.Option("-o", "--out", help="Frozen graph to write.")],
    score_threshold: ScoreThreshold = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write a frozen graph with the interface of TensorFlow's OD API, which convert takes."""
    from ssdlite_caffe.keras.export_pb import export_pb as run
    from ssdlite_caffe.runtimes.keras_file import keras_file

    model = keras_file(model) or model
    with status() as progress:
        report = run(model, out, score_threshold=score_threshold, force=force, progress=progress)
    print_result(
        report,
        as_json,
        f"{report['nodes']} nodes, {size_text(report['bytes'])} are in {out}\n"
        f"class names are in {report['label_map']}, where convert finds them",
    )


def export_tflite(
    model: KerasFile,
    out: Annotated[Path, typer.Option("-o", "--out", help="TensorFlow Lite file to write.")],
    inputs: Annotated[
        Literal["network", "pixels", "image"], typer.Option(help=INPUTS_HELP, rich_help_panel=NET)
    ] = "pixels",
    outputs: Annotated[
        Literal["detections", "raw"],
        typer.Option(help="raw: box encodings and class logits.", rich_help_panel=NET),
    ] = "detections",
    score_threshold: ScoreThreshold = None,
    float16: Annotated[
        bool, typer.Option("--float16", help="float16 weights: half the file size.", rich_help_panel=_DTYPE)
    ] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="int8 weights and arithmetic; needs --calibrate.", rich_help_panel=_DTYPE)
    ] = False,
    calibrate: Annotated[
        list[Path] | None,
        typer.Option(help="Images, or folders of them, to calibrate int8; may be repeated.", rich_help_panel=_DTYPE),
    ] = None,
    calibration_count: Annotated[
        int, typer.Option(min=1, help="Most images to calibrate with, evenly spread.", rich_help_panel=_DTYPE)
    ] = 100,
    data: Annotated[Path | None, typer.Option(help=DATA_HELP, rich_help_panel=_MEASURE)] = None,
    split: Split = "test",
    images: ImageFolder = None,
    limit: Limit = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write a TensorFlow Lite model of built-in operations, detections included."""
    from ssdlite_caffe.evaluation.report import print_report
    from ssdlite_caffe.evaluation.tflite import TestData, TfliteOptions, export_summary
    from ssdlite_caffe.evaluation.tflite import export_tflite as run
    from ssdlite_caffe.runtimes.keras_file import keras_file

    if float16 and int8:
        raise typer.BadParameter("give --float16 or --int8, not both")
    if int8 != bool(calibrate):
        raise typer.BadParameter("give both --int8 and --calibrate, or neither")
    if data is None and (images is not None or limit is not None):
        raise typer.BadParameter("--images and --limit are for --data: give that too")
    model = keras_file(model) or model
    options = TfliteOptions(
        inputs, outputs, "float16" if float16 else "int8" if int8 else "float32", tuple(calibrate or ()),
        calibration_count, score_threshold,
    )  # fmt: skip
    with status() as progress:
        exported = run(
            model, out, options, test=None if data is None else TestData(data, split, images, limit), force=force,
            progress=progress, steps=lambda done, total: progress(f"measuring: {done} of {total} images"),
        )  # fmt: skip
    if exported.evaluation is not None and not as_json:
        print_report(exported.evaluation)
    print_result(exported.to_dict(), as_json, export_summary(exported, out))
