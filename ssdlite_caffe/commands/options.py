"""Arguments and options that several commands share, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from ssdlite_caffe.dump.read import ReadOptions

Model = Annotated[
    Path,
    typer.Argument(
        help="Frozen graph (.pb), TensorFlow Lite file (.tflite), SavedModel folder, TF1 checkpoint (its prefix), or a "
        "folder. Of a folder the first of these is read: manifest.json (dumped weights), saved_model.pb, "
        "frozen_inference_graph.pb, tflite_graph.pb, the checkpoint, model.tflite. What that file does not say is "
        "taken from the pipeline.config beside it, then from the others."
    ),
]
PipelineConfig = Annotated[
    Path | None,
    typer.Option(help="pipeline.config of the training, in place of the one beside the model."),
]
NmsOption = Annotated[
    Literal["auto", "graph", "config", "regular"],
    typer.Option(
        "--nms",
        help="Which suppression: the graph's, the pipeline.config's, or (regular) the graph's numbers with NMS for "
        "each class. auto: the graph's; in place of TensorFlow Lite's fast NMS the config's, else regular.",
    ),
]
Dequantize = Annotated[
    bool,
    typer.Option(
        "--dequantize",
        help="Take a fully quantised .tflite with its weights' real values; the detections are not the same.",
    ),
]


def reading(
    pipeline_config: Path | None, nms: Literal["auto", "graph", "config", "regular"], dequantize: bool
) -> ReadOptions:
    """The options of `read_model`."""
    from ssdlite_caffe.dump.read import ReadOptions

    return ReadOptions(pipeline_config, nms, dequantize)
