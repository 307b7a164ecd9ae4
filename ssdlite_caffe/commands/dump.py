"""The command `dump`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssdlite_caffe.commands.app import print_result
from ssdlite_caffe.commands.options import Dequantize, Ema, Force, Json, Model, NmsOption, PipelineConfig, reading
from ssdlite_caffe.terminal import status


def dump(
    model: Model,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder for the .npy files and manifest.json.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Print names, shapes and dtypes, and write nothing.")] = False,
    pipeline_config: PipelineConfig = None,
    nms: NmsOption = "auto",
    dequantize: Dequantize = False,
    ema: Ema = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write a model's weights as .npy files."""
    from ssdlite_caffe.tools import dump as tool

    if list_ == (out is not None):
        raise typer.BadParameter("give either -o or --list")
    options = reading(pipeline_config, nms, dequantize, ema)
    if out is None:
        tensors = tool.list_tensors(model, reading=options)
        print_result(tensors, as_json, tool.tensor_lines(tensors))
        return
    with status() as progress:
        summary = tool.dump(model, out, reading=options, force=force, progress=progress)
    notes = "".join(f"note: {note}\n" for note in summary["notes"])
    written = f"{summary['tensors']} tensors of a {summary['arch']} are in {out}"
    print_result(summary, as_json, f"{summary['form']} {summary['source']}\n{notes}{written}")
