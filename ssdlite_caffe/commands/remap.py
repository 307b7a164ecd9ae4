"""The command `remap`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssdlite_caffe.commands.app import print_result
from ssdlite_caffe.commands.options import Folder, Force, Json


def remap(
    folder: Folder,
    mapping: Annotated[str, typer.Option("--map", help="coco2voc, or a file with lines `name: source`.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write.")],
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Give a converted model other classes, by moving the rows of its class predictors."""
    from ssdlite_caffe import api

    report = api.remap(folder, mapping, out, force=force)
    lines = [f"{report['arch']['num_classes']} classes, background included, are in {out}"]
    lines += [f"note: {note}" for note in report.get("notes", ())]
    print_result(report, as_json, "\n".join(lines))
