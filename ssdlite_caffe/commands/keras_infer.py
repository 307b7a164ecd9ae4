"""The command `keras infer`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssdlite_caffe.commands.options import Csv, Force, Json, ShownScore, output_kind

_COCO = "COCO's result format"


def infer(
    model: Annotated[Path, typer.Argument(help="Keras model (.keras, .weights.h5, .h5) or TensorFlow Lite model.")],
    inputs: Annotated[list[Path], typer.Argument(help="Images, folders or videos.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder for images with boxes drawn.")] = None,
    score_threshold: ShownScore = 0.3,
    coco: Annotated[
        Path | None, typer.Option(help="Write the detections to this JSON file.", rich_help_panel=_COCO)
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(help="instances_*.json or image_info_*.json, for the ids in --coco.", rich_help_panel=_COCO),
    ] = None,
    force: Force = False,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Detect objects in images, folders and videos with a Keras or TensorFlow Lite model."""
    from ssdlite_caffe.commands.detection_output import show
    from ssdlite_caffe.commands.swapped import IMAGES, MODEL, refuse_swapped
    from ssdlite_caffe.evaluation.coco_results import ResultsFile
    from ssdlite_caffe.files import refuse_existing
    from ssdlite_caffe.keras.detectors import labels_of_any, open_detector
    from ssdlite_caffe.runtimes.detector import detect_with
    from ssdlite_caffe.runtimes.keras_file import keras_file

    output = output_kind(as_json, as_csv)
    refuse_swapped("keras infer {first} {second}", model, inputs[-1], (frozenset({MODEL}), frozenset({IMAGES})))
    if annotations is not None and coco is None:
        raise typer.BadParameter("--annotations needs --coco")
    if coco is not None:
        refuse_existing(coco, force=force)
    model = keras_file(model) or model
    labels = labels_of_any(model)  # without loading the model, which takes seconds
    names = labels.display_names
    results = None
    if coco is not None:
        results = ResultsFile(coco, model, labels, inputs, annotations)
    failed = show(
        lambda progress: detect_with(
            lambda: open_detector(model), names, inputs, score_threshold=score_threshold, out=out, force=force,
            progress=progress,
        ),
        names, out=out, output=output, keep=(lambda _: None) if results is None else results.add,
    )  # fmt: skip
    if results is not None and results.images:
        results.write(force=force)
        if output == "table":
            print(f"{results.detections} detections of {results.images} images are in {coco}")
    if failed:
        raise typer.Exit(1)
