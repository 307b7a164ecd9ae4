"""The command `verify`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ssdlite_caffe.commands.options import SOURCE, Folder, Force, Json, Model, PipelineConfig, Runtime
from ssdlite_caffe.terminal import status
from ssdlite_caffe.tools.tolerances import BOX

_RESULT, _DEVICE = "Result", "A board, or another program"
_LIMIT = 8
"""Most images, unless --limit is given."""


def verify(
    model: Model,
    folder: Folder,
    images: Annotated[
        list[Path] | None,
        typer.Option(
            "--images", help="Image or folder; may be repeated.", show_default="drawn ones", rich_help_panel=SOURCE
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most images to compare.", rich_help_panel=SOURCE)] = _LIMIT,
    runtime: Runtime = "opencv",
    pipeline_config: PipelineConfig = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0, help="In float32 alone: largest difference of boxes and scores that passes.",
            show_default=f"with --quick, {BOX:g}",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Compare in float32 alone, with fixed bounds, and not in float64.")
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(help="Write an HTML page with verdict, table and images.", rich_help_panel=_RESULT),
    ] = None,
    all_layers: Annotated[
        bool, typer.Option("--all-layers", help="Print every layer, not only the worst of each block.",
                           rich_help_panel=_RESULT)
    ] = False,
    dump: Annotated[
        Path | None,
        typer.Option(
            help="Compare what a device gave in place of a runtime: folder of .npy, .bin or .txt files, or .npz.",
            rich_help_panel=_DEVICE,
        ),
    ] = None,
    output: Annotated[
        list[str] | None,
        typer.Option(
            help="What an output of the device is, as in BLOB:file=out0.bin,dtype=int8,scale=0.05,zero=-3,layout=nhwc; "
            "may be repeated. @FILE has one on each line.",
            rich_help_panel=_DEVICE,
        ),
    ] = None,
    first_departure: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="Find the first layer that a program computes otherwise, with a command that runs a net: "
            "'python run.py {net} {weights} {input} {output}'.",
            rich_help_panel=_DEVICE,
        ),
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Run TensorFlow and the converted net on the same inputs and compare them layer by layer."""
    from ssdlite_caffe import api
    from ssdlite_caffe.commands.swapped import CONVERTED, MODEL, refuse_swapped
    from ssdlite_caffe.tools.verify_report import print_report

    refuse_swapped("verify {first} {second}", model, folder, (frozenset({MODEL}), frozenset({CONVERTED})))
    if first_departure is not None or dump is not None or output:
        given = {"--runtime": runtime != "opencv", "--quick": quick, "--limit": limit != _LIMIT}
        unused = [name for name, chosen in given.items() if chosen]
        if unused:
            raise typer.BadParameter(f"{unused[0]} does not apply to --dump, --output and --first-departure")
    if first_departure is not None:
        from ssdlite_caffe.commands.verify_device import verify_departure

        if dump is not None or output or html is not None:
            raise typer.BadParameter("--first-departure takes no --dump, --output and --html")
        verify_departure(model, folder, first_departure, images or [], pipeline_config, tolerance, as_json)
        return
    if dump is not None or output:
        from ssdlite_caffe.commands.verify_device import verify_dump

        if tolerance is not None:
            raise typer.BadParameter("--tolerance judges a runtime; a device's outputs are compared without a bound")
        verify_dump(model, folder, dump, output or [], images or [], pipeline_config, html, all_layers, as_json)
        return
    with status() as progress:
        report = api.verify(
            model, folder, images or [], runtime=runtime, pipeline_config=pipeline_config, tolerance=tolerance,
            quick=quick, limit=limit, html=html, force=force, progress=progress,
        )  # fmt: skip
    if as_json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        print_report(report, all_layers=all_layers)
    if report.first_failure is not None:
        raise typer.Exit(1)
