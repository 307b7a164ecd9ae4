"""The command `keras test`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from ssdlite_caffe.imports import import_pyplot

METRICS, RESULTS, PLOT = "metrics.json", "results.json", "precision_recall.png"


def run_test(
    model: Annotated[Path, typer.Argument(help="Keras or TensorFlow Lite model.")],
    data: Annotated[Path, typer.Option(help="Folder in VOC's layout, LMDB, or COCO's instances_*.json.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help=f"Folder for {METRICS}, {RESULTS} (COCO's format) and {PLOT}.")
    ] = None,
    split: Annotated[str, typer.Option(help="List in ImageSets/Main of VOC data.")] = "test",
    images: Annotated[Path | None, typer.Option(help="Folder of the images of COCO data.")] = None,
    ids: Annotated[
        Path | None, typer.Option(help="File of the ids of the images to take, as COCO's minival lists.")
    ] = None,
    label_map: Annotated[
        str | None, typer.Option("-l", "--label-map", help="coco, voc, or a file; replaces the model's class names.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Most images to take.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what an earlier run wrote.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Average precision on labelled images, each class's too, with detections and plot in files."""
    from ssdlite_caffe.data.labelled_images import LabelledImage, open_images
    from ssdlite_caffe.errors import ModelError
    from ssdlite_caffe.evaluation import evaluate as tool
    from ssdlite_caffe.evaluation import report as report
    from ssdlite_caffe.evaluation.coco_results import CocoResults, read_ids
    from ssdlite_caffe.files import new_folder, refuse_existing, write_text
    from ssdlite_caffe.runtimes.detections import Detections
    from ssdlite_caffe.terminal import bar

    kind = tool.model_kind(model)
    if not kind:
        raise ModelError(f"{model} is no Keras or TensorFlow Lite model by its name; evaluate takes other ones")
    if out is not None:
        refuse_existing(out, force=force)
        import_pyplot()  # said before the work is done
    opened = tool.open_model(model, label_map=label_map)
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
    for line in tool.shown_problems(result):
        print(f"ssdlite-caffe: {line}", file=sys.stderr)
