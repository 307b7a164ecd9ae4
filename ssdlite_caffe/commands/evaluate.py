"""`ssdlite-caffe evaluate`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from ssdlite_caffe.imports import import_pyplot


def evaluate(
    model: Annotated[
        Path, typer.Argument(help="Folder that convert wrote, or a TensorFlow, Keras or TensorFlow Lite model.")
    ],
    data: Annotated[Path, typer.Option(help="Folder in VOC's layout, LMDB, or COCO's instances_*.json.")],
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="tensorflow, opencv, caffe, keras or tflite; may be repeated.",
            show_default="the model's own",
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="List in ImageSets/Main of VOC data.")] = "test",
    images: Annotated[Path | None, typer.Option(help="Folder of the images of COCO data.")] = None,
    label_map: Annotated[
        str | None, typer.Option("-l", "--label-map", help="coco, voc, or a file; replaces the model's class names.")
    ] = None,
    tensorflow: Annotated[
        Path | None, typer.Option(help="The TensorFlow model, where it is not at the place it was converted from.")
    ] = None,
    keras: Annotated[Path | None, typer.Option(help="The same detector as a Keras model.")] = None,
    tflite: Annotated[Path | None, typer.Option(help="The same detector as a TensorFlow Lite model.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Most images to take.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw precision over recall into this file.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace that file.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Average precision of a detector on labelled images, Pascal VOC's and COCO's."""
    from ssdlite_caffe.data.labelled_images import open_images
    from ssdlite_caffe.evaluation import evaluate as tool
    from ssdlite_caffe.evaluation import report as report
    from ssdlite_caffe.evaluation.detection_evaluate import with_caffes_own
    from ssdlite_caffe.evaluation.detectors import RUNTIMES
    from ssdlite_caffe.files import refuse_existing
    from ssdlite_caffe.terminal import bar

    unknown = set(runtime or ()) - RUNTIMES.keys()
    if unknown:
        raise typer.BadParameter(f"no runtime {sorted(unknown)[0]!r}; there are: {', '.join(RUNTIMES)}")
    if plot is not None:
        refuse_existing(plot, force=force)
        import_pyplot()  # said before the work is done
    opened = tool.open_model(model, tensorflow=tensorflow, keras=keras, tflite=tflite, label_map=label_map)
    labelled = open_images(data, opened.labels, split=split, images=images)
    own = tool.model_kind(opened.path or model) or ("opencv" if opened.folder else "tensorflow")
    given = [name for name, path in (("tensorflow", tensorflow), ("keras", keras), ("tflite", tflite)) if path]
    names = list(dict.fromkeys(runtime or [own, *given]))
    with bar("evaluating") as progress:
        result = tool.evaluate(opened, labelled, names, data=str(data), limit=limit, progress=progress)
    if "caffe" in names and limit is None:
        result = with_caffes_own(result, opened, data)
    if plot is not None:
        report.write_plot(result, plot, force=force)
    if as_json:
        print(json.dumps(result.to_dict(), indent=2))
        return
    report.print_report(result)
    for line in tool.shown_problems(result):
        print(f"ssdlite-caffe: {line}", file=sys.stderr)
