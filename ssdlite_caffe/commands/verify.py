"""The command `verify`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ssdlite_caffe.commands.options import SOURCE, Folder, Force, Json, Model, PipelineConfig, Runtime
from ssdlite_caffe.terminal import status
from ssdlite_caffe.tools.tolerances import BOX

_RESULT = "Result"


def verify(
    model: Model,
    folder: Folder,
    images: Annotated[
        list[Path] | None,
        typer.Option(
            "--images", help="Image or folder; may be repeated.", show_default="drawn ones", rich_help_panel=SOURCE
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most images to compare.", rich_help_panel=SOURCE)] = 8,
    runtime: Runtime = "opencv",
    pipeline_config: PipelineConfig = None,
    tolerance: Annotated[
        float | None,
        typer.Option(min=0, help="Largest difference of boxes and scores that passes.", show_default=f"{BOX:g}"),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="Write an HTML page with verdict, table and images.", rich_help_panel=_RESULT),
    ] = None,
    all_layers: Annotated[
        bool, typer.Option("--all-layers", help="Print every layer, not only the worst of each block.",
                           rich_help_panel=_RESULT)
    ] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Run TensorFlow and the converted net on the same inputs and compare them layer by layer."""
    from ssdlite_caffe import api
    from ssdlite_caffe.commands.swapped import CONVERTED, MODEL, refuse_swapped
    from ssdlite_caffe.tools.verify_report import print_report

    refuse_swapped("verify {first} {second}", model, folder, (frozenset({MODEL}), frozenset({CONVERTED})))
    with status() as progress:
        report = api.verify(
            model, folder, images or [], runtime=runtime, pipeline_config=pipeline_config, tolerance=tolerance,
            limit=limit, html=html, force=force, progress=progress,
        )  # fmt: skip
    if as_json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        print_report(report, all_layers=all_layers)
    if report.first_failure is not None:
        raise typer.Exit(1)
