"""The command `convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssdlite_caffe.commands.app import print_result
from ssdlite_caffe.commands.dialect_options import (
    Coefficients,
    Fields,
    Gate,
    InputForm,
    Linear,
    Names,
    Outputs,
    Priors,
    given,
)
from ssdlite_caffe.commands.options import (
    DATA,
    RESULT,
    Dequantize,
    Ema,
    Force,
    LabelMapOption,
    Model,
    NmsOption,
    PipelineConfig,
    ScoreThreshold,
    is_given,
)
from ssdlite_caffe.gen_model.dialect import (
    ActivationDialect,
    BatchNormDialect,
    ClipDialect,
    DepthwiseDialect,
    Engine,
    PaddingDialect,
)
from ssdlite_caffe.terminal import status

_DIALECT = "Dialect: how the layers are written"
_CALIBRATION = "Calibration images"


_LIST, _JSON = "targets are listed", "as JSON"
"""Keys of `context.meta`: a list needs no model, so it is printed before missing arguments are refused."""


def _list_targets(context: typer.Context, names: list[str] | None) -> list[str] | None:
    """Print the targets and end, if the list is asked for."""
    context.meta[_LIST] = "list" in (names or ())
    _print_list(context)
    return names


def _with_json(context: typer.Context, as_json: bool) -> bool:
    """The list may come before or after --json."""
    context.meta[_JSON] = as_json
    _print_list(context)
    return as_json


def _print_list(context: typer.Context) -> None:
    if context.meta.get(_LIST) and _JSON in context.meta:
        from ssdlite_caffe.targets.listing import print_targets

        print_targets(as_json=context.meta[_JSON])
        raise typer.Exit


def _check_targets(names: list[str]) -> None:
    """Names of targets that are none, or that are given twice, are wrong usage."""
    if not names:
        return
    from ssdlite_caffe.errors import ArchError
    from ssdlite_caffe.targets.table import targets_named

    try:
        targets_named(names)
    except ArchError as error:
        raise typer.BadParameter(str(error)) from None


def _check_calibration(paths: list[Path], options: list[str]) -> None:
    """An option that says nothing about the data is wrong usage."""
    if not options:
        return
    from ssdlite_caffe.targets.calibration import options_of

    without = next((name for name in options if name not in options_of(paths)), None)
    if without is not None and all(path.exists() for path in paths):  # else that is what is wrong
        what = {"split": "data in VOC's layout", "images": "COCO's instances_*.json"}[without]
        raise typer.BadParameter(f"--{without} is for --calibrate with {what}; given: {', '.join(map(str, paths))}")


def convert(
    context: typer.Context,
    model: Model,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write.")],
    label_map: LabelMapOption = None,
    pipeline_config: PipelineConfig = None,
    nms: NmsOption = "auto",
    dequantize: Dequantize = False,
    ema: Ema = False,
    score_threshold: ScoreThreshold = None,
    activation: Annotated[
        ActivationDialect, typer.Option(help="Layers for ReLU6; relu is not exact.", rich_help_panel=_DIALECT)
    ] = "relu6",
    padding: Annotated[
        PaddingDialect,
        typer.Option(help="TensorFlow's SAME padding; symmetric is not exact.", rich_help_panel=_DIALECT),
    ] = "exact",
    batch_norm: Annotated[
        BatchNormDialect, typer.Option("--bn", help="BatchNorm in the deploy net.", rich_help_panel=_DIALECT)
    ] = "fold",
    depthwise: Annotated[
        DepthwiseDialect, typer.Option(help="Layer type of depthwise convolutions.", rich_help_panel=_DIALECT)
    ] = "Convolution",
    engine: Annotated[
        Engine, typer.Option(help="Engine of depthwise convolutions.", rich_help_panel=_DIALECT)
    ] = "DEFAULT",
    clip: Annotated[
        ClipDialect,
        typer.Option(
            help="For graphs that clip boxes before NMS. exact: clips before NMS too. late: a plain DetectionOutput, "
            "not exact.",
            rich_help_panel=_DIALECT,
        ),
    ] = "exact",
    linear: Linear = None,
    gate: Gate = None,
    coefficients: Coefficients = None,
    names: Names = None,
    outputs: Outputs = None,
    fields: Fields = None,
    input_form: InputForm = None,
    priors: Priors = None,
    lmdb: Annotated[
        str, typer.Option("-d", "--data", help="Path of the LMDB in the train and test nets.", rich_help_panel=DATA)
    ] = "",
    batch_size: Annotated[
        int,
        typer.Option(
            min=0, help="Batch size of the train and test nets.", show_default="24 and 8", rich_help_panel=DATA
        ),
    ] = 0,
    expected: Annotated[
        list[Path] | None,
        typer.Option(
            help="Image or folder; may be repeated. OUT/expected gets what a device is given for them and should give.",
            show_default="none",
            rich_help_panel=RESULT,
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A program that takes Caffe files; may be repeated. OUT/NAME gets what its users need. "
            "list: name them all.",
            show_default="none",
            rich_help_panel=RESULT,
            callback=_list_targets,
            is_eager=True,
        ),
    ] = None,
    calibrate: Annotated[
        list[Path] | None,
        typer.Option(
            help="Images for the quantisers of targets: a folder in VOC's layout, COCO's instances_*.json, or images "
            "and folders; may be repeated.",
            show_default="none",
            rich_help_panel=_CALIBRATION,
        ),
    ] = None,
    count: Annotated[
        int,
        typer.Option(
            min=1, help="How many of these images to take; every class appears.", rich_help_panel=_CALIBRATION
        ),
    ] = 100,
    split: Annotated[
        str, typer.Option(help="List in ImageSets/Main of VOC data.", rich_help_panel=_CALIBRATION)
    ] = "trainval",
    images: Annotated[Path | None, typer.Option(help="Folder of COCO's images.", rich_help_panel=_CALIBRATION)] = None,
    force: Force = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print the result as JSON.", rich_help_panel=RESULT, callback=_with_json, is_eager=True
        ),
    ] = False,
) -> None:
    """Convert a detector into a folder of Caffe files."""
    from ssdlite_caffe import api
    from ssdlite_caffe.gen_model.dialect import Dialect
    from ssdlite_caffe.tools.convert import convert_summary

    unused = [name for name in ("count", "split", "images") if is_given(context, name)]
    if unused and not calibrate:
        raise typer.BadParameter(f"--{unused[0]} is of the images of --calibrate, which is not given")
    _check_targets(target or [])
    _check_calibration(calibrate or [], [name for name in unused if name != "count"])
    more = given(
        linear=linear, gate=gate, coefficients=coefficients, names=names, outputs=outputs, fields=fields,
        input_form=input_form, priors=priors,
    )  # fmt: skip
    with status() as progress:
        report = api.convert(
            model, out, label_map=label_map,
            dialect=Dialect(activation, padding, batch_norm, depthwise, engine, clip, **more),
            score_threshold=score_threshold,
            pipeline_config=pipeline_config, nms=nms, dequantize=dequantize, ema=ema, data=lmdb, batch_size=batch_size,
            expected=expected or [], targets=target or [],
            calibrate=calibrate or [], calibration_count=count,
            calibration_split=split, calibration_images=images, force=force, progress=progress,
        )  # fmt: skip
    written = f"\nwhat a device is given and should give is in {out / 'expected'}" if expected else ""
    for name in target or []:
        written += f"\nfor {report['targets'][name]['title']}: {out / name}, see README.md there"
    for text in report.get("target_notes", ()):
        written += f"\nnote: {text}"
    print_result(report, as_json, convert_summary(report, out) + written)
