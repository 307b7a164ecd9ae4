"""The command `cut`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssdlite_caffe.commands.app import print_result
from ssdlite_caffe.commands.options import Force, Json


def cut(
    net: Annotated[Path, typer.Argument(help="Prototxt, or folder with deploy.prototxt or headless.prototxt.")],
    blob: Annotated[
        str,
        typer.Argument(
            help="Blob to end at, as it is after the last layer that writes it; or a layer, for its output before "
            "later layers change it in place."
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Prototxt to write.")],
    layer: Annotated[bool, typer.Option("--layer", help="BLOB is a layer, though a blob has its name too.")] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Cut a net at a blob, to see what a runtime computes there. The caffemodel stays the same file."""
    from ssdlite_caffe.tools.cut import cut_file

    report = cut_file(net, blob, out, at_layer=layer, force=force)
    shape = "of unknown shape" if report["shape"] is None else "x".join(map(str, report["shape"]))
    more = f"\n  other outputs, which nothing reads: {', '.join(report['unread'])}" if report["unread"] else ""
    print_result(
        report,
        as_json,
        f"{report['layers']} of {report['of']} layers, up to {report['blob']} ({shape}) of layer {report['layer']}, "
        f"are in {out}{more}",
    )
