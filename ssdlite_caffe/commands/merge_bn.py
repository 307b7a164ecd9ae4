"""The command `merge-bn`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssdlite_caffe.commands.app import print_result
from ssdlite_caffe.commands.options import Force, Json


def merge_bn(
    net: Annotated[
        Path, typer.Argument(help="Training folder, folder that convert wrote, or prototxt of a test or deploy net.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write.")],
    weights: Annotated[
        Path | None,
        typer.Option(
            "-w",
            "--weights",
            help="Trained caffemodel.",
            show_default="a training folder's newest snapshot, a converted folder's own",
        ),
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Fold a trained net's BatchNorms into its convolutions, for deployment."""
    from ssdlite_caffe.commands.swapped import CAFFEMODEL, PROTOTXT, refuse_swapped
    from ssdlite_caffe.errors import PrototxtError
    from ssdlite_caffe.tools import merge_bn as tool

    if weights is not None:
        refuse_swapped(
            "merge-bn {first} --weights {second}" + f" -o {out}", net, weights,
            (frozenset({PROTOTXT}), frozenset({CAFFEMODEL})),
        )  # fmt: skip
    if net.is_dir():
        if weights is None and (net / "kit.json").is_file():
            from ssdlite_caffe.training.evaluate_kit import newest_weights

            weights = newest_weights(net)
        report = tool.merge_folder(net, weights, out, force=force)
    elif not net.exists():
        raise PrototxtError(f"{net} does not exist; give a training folder, a converted folder or a prototxt")
    elif weights is None:
        raise typer.BadParameter("a prototxt needs --weights")
    else:
        report = tool.merge_files(net, weights, out, force=force)
    unused = f"\n  skipped, not in the net: {', '.join(report['unused'])}" if report["unused"] else ""
    print_result(
        report,
        as_json,
        f"{report['layers_folded']} BatchNorms of {report['merged_from']['weights']} are folded; the net is in {out}"
        + unused,
    )
