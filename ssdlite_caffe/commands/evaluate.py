"""The command `evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ssdlite_caffe.commands.options import (
    DATA,
    DATA_HELP,
    RESULT,
    Force,
    ImageFolder,
    Json,
    Limit,
    MeasuredScore,
    Split,
)
from ssdlite_caffe.terminal import bar, note

_FORMS = "Other forms of the model"


def evaluate(
    model: Annotated[
        Path,
        typer.Argument(help="Folder that convert wrote, or a TensorFlow, Keras, TensorFlow Lite or PyTorch model."),
    ],
    data: Annotated[Path, typer.Option(help=DATA_HELP, rich_help_panel=DATA)],
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="tensorflow, opencv, caffe, keras, tflite or torch; may be repeated.",
            show_default="the model's own",
        ),
    ] = None,
    label_map: Annotated[
        str | None,
        typer.Option("-l", "--label-map", help="coco, voc, or a label map file.", show_default="the model's own"),
    ] = None,
    split: Split = "test",
    images: ImageFolder = None,
    limit: Limit = None,
    score_threshold: MeasuredScore = None,
    tensorflow: Annotated[
        Path | None,
        typer.Option(help="The TensorFlow model.", show_default="the model's source", rich_help_panel=_FORMS),
    ] = None,
    keras: Annotated[Path | None, typer.Option(help="The Keras model.", rich_help_panel=_FORMS)] = None,
    tflite: Annotated[Path | None, typer.Option(help="The TensorFlow Lite model.", rich_help_panel=_FORMS)] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw precision over recall into this file.", rich_help_panel=RESULT)
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Average precision of a detector on annotated images, as defined by Pascal VOC and by COCO."""
    from ssdlite_caffe import api
    from ssdlite_caffe.commands.swapped import MODELS_AND_DATA, refuse_swapped, refuse_swapped_images
    from ssdlite_caffe.evaluation import report
    from ssdlite_caffe.evaluation.detectors import RUNTIMES
    from ssdlite_caffe.evaluation.evaluate import problem_lines
    from ssdlite_caffe.files import refuse_existing
    from ssdlite_caffe.imports import import_pyplot

    unknown = [name for name in runtime or () if name not in RUNTIMES]
    if unknown:
        raise typer.BadParameter(f"there is no runtime {unknown[0]!r}; choose from {', '.join(RUNTIMES)}")
    refuse_swapped("evaluate {first} --data {second}", model, data, MODELS_AND_DATA)
    refuse_swapped_images(data, images)
    if plot is not None:
        refuse_existing(plot, force=force)
        import_pyplot()  # if it is missing, the error comes before the work
    with bar("evaluating") as progress:
        result = api.evaluate(
            model, data, runtimes=runtime or (), label_map=label_map, split=split, images=images, limit=limit,
            score_threshold=score_threshold, tensorflow=tensorflow, keras=keras, tflite=tflite, progress=progress,
        )  # fmt: skip
    if plot is not None:
        report.write_plot(result, plot, force=force)
    if as_json:
        print(json.dumps(result.to_dict(), indent=2))
    else:
        report.print_report(result)
        for line in (*problem_lines(result), *result.notes):
            note(line)
