"""The command `lint`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from ssdlite_caffe.commands.options import Json


def lint(
    net: Annotated[Path, typer.Argument(help="Prototxt to check.")],
    runtime: Annotated[
        Literal["opencv", "bvlc", "ncnn", "nnie"] | None,
        typer.Option(help="Warn of layers that this runtime does not support."),
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
