"""The command `keras import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ssdlite_caffe.commands.app import print_result
from ssdlite_caffe.commands.options import (
    Dequantize,
    Force,
    Json,
    LabelMapOption,
    NmsOption,
    PipelineConfig,
    ScoreThreshold,
    TensorFlowModel,
    reading,
)
from ssdlite_caffe.terminal import status

INPUTS_HELP = "network: normalised. pixels: 0..255 at the network's size. image: uint8 at any size."
_KERAS = "Keras model"


def import_(
    model: TensorFlowModel,
    out: Annotated[Path, typer.Option("-o", "--out", help="File to write: .keras, .weights.h5 or .h5.")],
    label_map: LabelMapOption = None,
    pipeline_config: PipelineConfig = None,
    nms: NmsOption = "auto",
    dequantize: Dequantize = False,
    score_threshold: ScoreThreshold = None,
    inputs: Annotated[
        Literal["network", "pixels", "image"], typer.Option(help=INPUTS_HELP, rich_help_panel=_KERAS)
    ] = "network",
    outputs: Annotated[
        Literal["raw", "decoded", "detections"],
        typer.Option(
            help="raw: box encodings and logits. decoded: boxes and scores before NMS. detections: after it.",
            rich_help_panel=_KERAS,
        ),
    ] = "raw",
    variances: Annotated[
        Literal["keep", "fold"],
        typer.Option(help="fold: into the weights, so that variances are 1; same boxes.", rich_help_panel=_KERAS),
    ] = "keep",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Convert a TensorFlow detector to a Keras model."""
    from ssdlite_caffe.keras.import_model import import_file, import_summary

    with status() as progress:
        report = import_file(
            model, out, reading=reading(pipeline_config, nms, dequantize), label_map=label_map,
            score_threshold=score_threshold, variances=variances, inputs=inputs, outputs=outputs, force=force,
            progress=progress,
        )  # fmt: skip
    print_result(report, as_json, import_summary(report, out))
