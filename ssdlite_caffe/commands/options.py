"""Arguments and options that several commands share, each written once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from ssdlite_caffe.dump.read import ReadOptions

SOURCE, NET, DATA, RESULT = "Source", "Net", "Data", "Result"
"""Panels of --help."""

_FORMS = (
    "Frozen graph (.pb), TensorFlow Lite file (.tflite), SavedModel folder, TF1 checkpoint (prefix), "
    "state_dict of torchvision (.pth, .pt, .safetensors), "
)
_IN_A_FOLDER = (
    "or a folder. In a folder, the first of these is read: manifest.json (of `dump`), saved_model.pb, "
    "frozen_inference_graph.pb, tflite_graph.pb, checkpoint, model.tflite, *.pth"
)
_SETTINGS = "; missing settings come from pipeline.config in the folder, then from the other files."
TensorFlowModel = Annotated[Path, typer.Argument(metavar="MODEL", help=f"{_FORMS}{_IN_A_FOLDER}{_SETTINGS}")]
MODEL_HELP = (
    f"{_FORMS}Keras file (.keras, .h5) of `keras import` or `keras train`, {_IN_A_FOLDER}, model.keras{_SETTINGS}"
)
Model = Annotated[Path, typer.Argument(help=MODEL_HELP)]
Folder = Annotated[Path, typer.Argument(help="Folder that convert wrote.")]
PipelineConfig = Annotated[
    Path | None,
    typer.Option(help="pipeline.config of the training, in place of the one beside the model.", rich_help_panel=SOURCE),
]
NmsOption = Annotated[
    Literal["auto", "graph", "config", "regular"],
    typer.Option(
        "--nms",
        help="graph: as in the graph. config: as in the pipeline.config. regular: the graph's thresholds, and NMS for "
        "each class. auto: graph, but for TensorFlow Lite's fast NMS config or, without one, regular.",
        rich_help_panel=SOURCE,
    ),
]
Dequantize = Annotated[
    bool,
    typer.Option(
        "--dequantize",
        help="Convert a fully quantised .tflite with dequantised weights; its detections will differ.",
        rich_help_panel=SOURCE,
    ),
]
Ema = Annotated[
    bool,
    typer.Option(
        "--ema",
        help="Take the moving averages (EMA) of the weights from a training checkpoint of PyTorch.",
        rich_help_panel=SOURCE,
    ),
]
LabelMapOption = Annotated[
    str | None,
    typer.Option(
        "-l", "--label-map", help="coco, voc, or a label map file (.prototxt, .pbtxt, .txt).", rich_help_panel=SOURCE
    ),
]
ScoreThreshold = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Least score of a detection.", show_default="the model's", rich_help_panel=NET),
]
MeasuredScore = Annotated[
    float | None,
    typer.Option(
        "--score-threshold",
        min=0,
        max=1,
        help="Least score of a detection, in every runtime.",
        show_default="the model's",
    ),
]
ShownScore = Annotated[
    float, typer.Option("--score-threshold", min=0, max=1, help="Least score of the detections shown.")
]
Runtime = Annotated[
    Literal["opencv", "caffe", "reference"],
    typer.Option(help="OpenCV DNN, the Caffe that `caffe build` built, or numpy, which is slow."),
]
Split = Annotated[str, typer.Option(help="List in ImageSets/Main of VOC data.", rich_help_panel=DATA)]
ImageFolder = Annotated[Path | None, typer.Option("--images", help="Folder of COCO's images.", rich_help_panel=DATA)]
Limit = Annotated[int | None, typer.Option(min=1, help="Most images to use.", rich_help_panel=DATA)]
DATA_HELP = "Folder in VOC's layout, LMDB, or COCO's instances_*.json."
Force = Annotated[bool, typer.Option("--force", help="Replace existing files.", rich_help_panel=RESULT)]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.", rich_help_panel=RESULT)]
Csv = Annotated[bool, typer.Option("--csv", help="Print the result as CSV.", rich_help_panel=RESULT)]


def reading(
    pipeline_config: Path | None,
    nms: Literal["auto", "graph", "config", "regular"],
    dequantize: bool,
    ema: bool = False,
) -> ReadOptions:
    """The options for `read_model`."""
    from ssdlite_caffe.dump.read import ReadOptions

    return ReadOptions(pipeline_config, nms, dequantize, ema)


def is_given(context: typer.Context, name: str) -> bool:
    """Whether the user gave a parameter, even if its value is the default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def long_names(context: typer.Context, name: str) -> Iterator[str]:
    """What an option is called on the command line: `--score-threshold`, ...; nothing for an argument."""
    for parameter in context.command.params:
        if parameter.name == name:
            yield from (option for option in parameter.opts if option.startswith("--"))


def output_kind(as_json: bool, as_csv: bool) -> Literal["table", "json", "csv"]:
    """Output format of a command that lists detections."""
    if as_json and as_csv:
        raise typer.BadParameter("give --json or --csv, not both")
    return "json" if as_json else "csv" if as_csv else "table"
