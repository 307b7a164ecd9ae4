"""The command `remap`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssdlite_caffe.commands.app import print_result
from ssdlite_caffe.commands.options import Folder, Force, Json
from ssdlite_caffe.terminal import note


def remap(
    folder: Folder,
    mapping: Annotated[str, typer.Option("--map", help="coco2voc, or a file with lines `name: source`.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write.")],
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Give a converted model other classes, by moving the rows of its class predictors."""
    from ssdlite_caffe import api
    from ssdlite_caffe.runtimes.folder_files import PROOF_DROPPED

    report = api.remap(folder, mapping, out, force=force)
    if PROOF_DROPPED in report.get("notes", ()):
        note(PROOF_DROPPED)
    print_result(report, as_json, f"{report['arch']['num_classes']} classes, background included, are in {out}")
