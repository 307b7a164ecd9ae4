"""The commands `ssdlite-caffe keras ...`: each parses, calls one function, and prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ssdlite_caffe.commands.keras_test import run_test
from ssdlite_caffe.commands.keras_train import train
from ssdlite_caffe.commands.options import Dequantize, NmsOption, PipelineConfig, reading
from ssdlite_caffe.commands.options import Model as Source
from ssdlite_caffe.terminal import status

app = typer.Typer(help="The same nets as Keras models: import, export, run.", no_args_is_help=True)
export = typer.Typer(help="Write a Keras model as a frozen graph or for TensorFlow Lite.", no_args_is_help=True)
app.add_typer(export, name="export")
app.command("train")(train)
app.command("test")(run_test)

Model = Annotated[Path, typer.Argument(help="Keras model that import or train wrote: .keras, .weights.h5 or .h5.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what an earlier run wrote.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command("import")
def import_(
    model: Source,
    out: Annotated[Path, typer.Option("-o", "--out", help="File to write: .keras, .weights.h5 or .h5.")],
    label_map: Annotated[str | None, typer.Option("-l", "--label-map", help="coco, voc, or a label map file.")] = None,
    pipeline_config: PipelineConfig = None,
    nms: NmsOption = "auto",
    dequantize: Dequantize = False,
    score_threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Replaces the graph's own, often 0.3.")
    ] = None,
    inputs: Annotated[
        Literal["network", "pixels", "image"],
        typer.Option(help="network: normalised; pixels: 0..255 at the network's size; image: uint8 of any size."),
    ] = "network",
    outputs: Annotated[
        Literal["raw", "decoded", "detections"],
        typer.Option(help="raw: box codes and logits; decoded: boxes and scores of all default boxes; detections."),
    ] = "raw",
    variances: Annotated[
        Literal["keep", "fold"], typer.Option(help="fold: box codes without variances (1.0), for the same boxes.")
    ] = "keep",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Make a Keras model of a TensorFlow detector."""
    from ssdlite_caffe.keras.import_model import import_file, summary

    with status() as progress:
        report = import_file(
            model, out, reading=reading(pipeline_config, nms, dequantize), label_map=label_map,
            score_threshold=score_threshold, variances=variances, inputs=inputs, outputs=outputs, force=force,
            progress=progress,
        )  # fmt: skip
    _print(report, as_json, summary(report, out))


@export.command("pb")
def export_pb(
    model: Model,
    out: Annotated[Path, typer.Option("-o", "--out", help="Frozen graph to write.")],
    score_threshold: Annotated[float | None, typer.Option(min=0, max=1, help="Replaces the model's own.")] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write a frozen graph with the interface of TensorFlow's OD API, which convert takes."""
    from ssdlite_caffe.keras.export_pb import export_pb as run

    with status() as progress:
        report = run(model, out, score_threshold=score_threshold, force=force, progress=progress)
    written = f"{report['nodes']} nodes, {report['bytes']} bytes are in {out}"
    _print(report, as_json, f"{written}\nclass names are in {report['label_map']}, where convert finds them")


@export.command("tflite")
def export_tflite(
    model: Model,
    out: Annotated[Path, typer.Option("-o", "--out", help="TensorFlow Lite file to write.")],
    float16: Annotated[bool, typer.Option("--float16", help="Weights in 16 bits: half the size.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Compute in 8 bits; needs --calibrate.")] = False,
    calibrate: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Images to learn int8's ranges from; may be repeated.")
    ] = None,
    calibration_count: Annotated[int, typer.Option(min=1, help="Most images of these, taken evenly.")] = 100,
    inputs: Annotated[
        Literal["network", "pixels", "image"],
        typer.Option(help="network: normalised; pixels: 0..255 at the network's size; image: uint8 of any size."),
    ] = "pixels",
    outputs: Annotated[
        Literal["detections", "raw"], typer.Option(help="raw ends at box codes and class logits.")
    ] = "detections",
    score_threshold: Annotated[float | None, typer.Option(min=0, max=1, help="Replaces the model's own.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Measure on this: folder in VOC's layout, LMDB, or COCO's instances_*.json."),
    ] = None,
    split: Annotated[str, typer.Option(help="List in ImageSets/Main of VOC data.")] = "test",
    images: Annotated[Path | None, typer.Option(help="Folder of the images of COCO data.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Most images to measure on.")] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write a TensorFlow Lite model of built-in operations, detections included."""
    from ssdlite_caffe.evaluation.report import print_report
    from ssdlite_caffe.evaluation.tflite import TestData, TfliteOptions, summary
    from ssdlite_caffe.evaluation.tflite import export_tflite as run

    if float16 and int8:
        raise typer.BadParameter("give --float16 or --int8, not both")
    if int8 != bool(calibrate):
        raise typer.BadParameter("--int8 and --calibrate go together")
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
    _print(exported.to_dict(), as_json, summary(exported, out))


@app.command()
def infer(
    model: Annotated[Path, typer.Argument(help="Keras or TensorFlow Lite model of this command's making.")],
    inputs: Annotated[list[Path], typer.Argument(help="Images, folders or videos.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder for images with boxes drawn.")] = None,
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Least score shown.")] = 0.3,
    coco: Annotated[Path | None, typer.Option(help="Write JSON in COCO's result format to this file.")] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(help="COCO's instances_*.json or image_info_*.json, for the ids in --coco."),
    ] = None,
    force: Force = False,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the result as CSV.")] = False,
) -> None:
    """Detect objects in images, folders and videos with a Keras or TensorFlow Lite model."""
    from ssdlite_caffe.commands.keras_infer import infer as run

    if as_json and as_csv:
        raise typer.BadParameter("give --json or --csv, not both")
    if annotations is not None and coco is None:
        raise typer.BadParameter("--annotations is for --coco: give that too")
    failed = run(
        model, inputs, min_score=min_score, out=out, coco=coco, annotations=annotations, force=force,
        output="json" if as_json else "csv" if as_csv else "table",
    )  # fmt: skip
    if failed:
        raise typer.Exit(1)


def _print(data: dict[str, Any], as_json: bool, text: str) -> None:
    print(json.dumps(data, indent=2) if as_json else text)
