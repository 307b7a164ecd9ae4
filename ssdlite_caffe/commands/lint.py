"""The command `lint`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from ssdlite_caffe.commands.options import Json

RuntimeName = Literal[
    "opencv", "caffe-ssd", "bvlc", "ncnn", "mnn", "openvino", "rknn", "sophgo", "hisilicon-svp", "hisilicon-nnie",
    "nnie", "ascend", "acuity", "paddle", "onnx",
]  # fmt: skip
"""The keys of `prototxt.limits.LIMITS`, and `nnie`, the earlier name of hisilicon-nnie."""


def lint(
    net: Annotated[Path, typer.Argument(help="Prototxt to check.")],
    runtime: Annotated[
        RuntimeName | None,
        typer.Option(help="Warn of what this program does not take; the names are those of convert --target."),
    ] = None,
    phase: Annotated[
        Literal["TRAIN", "TEST"] | None,
        typer.Option(help="Phase whose layers are used.", show_default="TRAIN for a train net, else TEST"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show shapes, parameters and multiply-adds of a prototxt, and what is wrong with it."""
    from ssdlite_caffe.tools import lint_report as tool

    report = tool.lint_file(net, runtime=runtime, phase=phase)
    if as_json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        tool.print_lint_report(report)
    if not report.ok:
        raise typer.Exit(1)
