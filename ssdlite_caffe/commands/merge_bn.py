"""`ssdlite-caffe merge-bn`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def merge_bn(
    net: Annotated[Path, typer.Argument(help="Kit, folder that convert wrote, or prototxt of a test or deploy net.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write.")],
    weights: Annotated[
        Path | None,
        typer.Option(
            "-w", "--weights", help="Trained caffemodel.", show_default="a kit's newest snapshot, a folder's own"
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what an earlier run wrote.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Fold a trained net's BatchNorms into its convolutions, for deployment."""
    from ssdlite_caffe.errors import PrototxtError
    from ssdlite_caffe.tools import merge_bn as tool

    if net.is_dir():
        if weights is None and (net / "kit.json").is_file():
            from ssdlite_caffe.training.evaluate_kit import newest_weights

            weights = newest_weights(net)
        report = tool.merge_folder(net, weights, out, force=force)
    elif not net.exists():
        raise PrototxtError(f"there is no {net}; give a kit, a converted folder or a prototxt")
    elif weights is None:
        raise typer.BadParameter("a prototxt needs --weights")
    else:
        report = tool.merge_files(net, weights, out, force=force)
    if as_json:
        print(json.dumps(report, indent=2))
        return
    print(f"{report['layers_folded']} BatchNorms of {report['merged_from']['weights']} are folded; the net is in {out}")
    if report["unused"]:
        print(f"  not in the net: {', '.join(report['unused'])}")
