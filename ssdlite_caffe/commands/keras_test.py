"""The command `keras test`."""

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
from ssdlite_caffe.imports import import_pyplot
from ssdlite_caffe.terminal import bar, note

METRICS, RESULTS, PLOT = "metrics.json", "results.json", "precision_recall.png"


def run_test(
    model: Annotated[Path, typer.Argument(help="Keras or TensorFlow Lite model.")],
    data: Annotated[Path, typer.Option(help=DATA_HELP, rich_help_panel=DATA)],
    label_map: Annotated[
        str | None,
        typer.Option("-l", "--label-map", help="coco, voc, or a label map file.", show_default="the model's own"),
    ] = None,
    split: Split = "test",
    images: ImageFolder = None,
    ids: Annotated[
        Path | None, typer.Option(help="File with the ids of the images to use, such as COCO's minival list.",
                                  rich_help_panel=DATA)
    ] = None,
    limit: Limit = None,
    score_threshold: MeasuredScore = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help=f"Folder for {METRICS}, {RESULTS} (COCO's format) and {PLOT}.",
                     rich_help_panel=RESULT),
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Average precision on annotated images, in all and of each class; with -o also detections and a plot in files."""
    from ssdlite_caffe.commands.swapped import MODELS_AND_DATA, refuse_swapped, refuse_swapped_images
    from ssdlite_caffe.data.labelled_images import LabelledImage, open_images
    from ssdlite_caffe.errors import ModelError
    from ssdlite_caffe.evaluation import evaluate as tool
    from ssdlite_caffe.evaluation import report as report
    from ssdlite_caffe.evaluation.coco_results import CocoResults, read_ids
    from ssdlite_caffe.evaluation.forms import model_kind, open_model_forms
    from ssdlite_caffe.files import new_folder, refuse_existing, write_text
    from ssdlite_caffe.runtimes.detections import Detections
    from ssdlite_caffe.runtimes.keras_file import keras_file

    refuse_swapped("keras test {first} --data {second}", model, data, MODELS_AND_DATA)
    refuse_swapped_images(data, images)
    model = keras_file(model) or model
    kind = model_kind(model)
    if not kind:
        raise ModelError(
            f"{model} does not have the name of a Keras or TensorFlow Lite model; for other models use: ssdlite-caffe "
            "evaluate"
        )
    if out is not None:
        refuse_existing(out, force=force)
        import_pyplot()  # if it is missing, the error comes before the work
    opened = open_model_forms(model, label_map=label_map, score_threshold=score_threshold)
    labelled = open_images(data, opened.labels, split=split, images=images, ids=read_ids(ids) if ids else None)
    results = CocoResults(labelled.categories)

    def seen(image: LabelledImage, _: str, detections: Detections) -> None:
        results.add(image.id, image.pixels.shape[0], image.pixels.shape[1], detections)

    with bar("testing") as progress:
        result = tool.evaluate(opened, labelled, [kind], data=str(data), limit=limit, progress=progress, seen=seen)
    text = json.dumps(result.to_dict(), indent=2)
    if out is not None:
        with new_folder(out, marker=METRICS, force=force) as folder:
            write_text(folder / METRICS, text + "\n")
            write_text(folder / RESULTS, results.to_json())
            report.write_plot(result, folder / PLOT)
    if as_json:
        print(text)
        return
    report.print_report(result)
    for line in (*tool.problem_lines(result), *result.notes):
        note(line)
