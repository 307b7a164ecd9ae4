"""The command `detect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ssdlite_caffe.commands.options import Csv, Folder, Force, Json, Runtime, ShownScore, output_kind


def detect(
    folder: Folder,
    inputs: Annotated[list[Path], typer.Argument(help="Images, folders or videos.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder for images with boxes drawn.")] = None,
    score_threshold: ShownScore = 0.3,
    decoder: Annotated[
        Literal["caffe", "numpy", "tflite"],
        typer.Option(
            help="caffe: deploy net with DetectionOutput. numpy: headless net and reference decoder. tflite: headless "
            "net and TensorFlow Lite's post-processing, for models exported with it."
        ),
    ] = "caffe",
    runtime: Runtime = "opencv",
    force: Force = False,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Detect objects in images, folders and videos with a converted model."""
    from ssdlite_caffe.commands.detection_output import show
    from ssdlite_caffe.commands.swapped import CONVERTED, IMAGES, refuse_swapped
    from ssdlite_caffe.runtimes.detector import detect as run
    from ssdlite_caffe.runtimes.model_folder import ModelFolder

    output = output_kind(as_json, as_csv)
    refuse_swapped("detect {first} {second}", folder, inputs[-1], (frozenset({CONVERTED}), frozenset({IMAGES})))
    model = ModelFolder.open(folder)
    failed = show(
        lambda progress: run(
            model, inputs, decoder=decoder, runtime=runtime, score_threshold=score_threshold, out=out, force=force,
            progress=progress,
        ),
        model.labels.display_names, out=out, output=output,
    )  # fmt: skip
    if failed:
        raise typer.Exit(1)
