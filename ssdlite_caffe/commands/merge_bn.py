"""The command `merge-bn`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
    keep_rest: Annotated[
        bool,
        typer.Option("--keep-rest", help="Of a prototxt: leave BatchNorms that cannot be folded where they are."),
    ] = False,
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
        if keep_rest:
            raise typer.BadParameter("--keep-rest is for prototxts; the nets of a folder can be folded whole")
        if weights is None and (net / "kit.json").is_file():
            from ssdlite_caffe.training.evaluate_kit import newest_weights

            weights = newest_weights(net)
        report = tool.merge_folder(net, weights, out, force=force)
    elif not net.exists():
        raise PrototxtError(f"{net} does not exist; give a training folder, a converted folder or a prototxt")
    elif weights is None:
        raise typer.BadParameter("a prototxt needs --weights")
    else:
        report = tool.merge_files(net, weights, out, force=force, keep_rest=keep_rest)
    print_result(report, as_json, _text(report, net, out))


def _text(report: dict[str, Any], net: Path, out: Path) -> str:
    count = report["layers_folded"]
    if count:
        norms = "1 BatchNorm" if count == 1 else f"{count} BatchNorms"
        are = "is" if count == 1 else "are"
        first = f"{norms} of {report['merged_from']['weights']} {are} folded; the net is in {out}"
    elif report.get("kept"):
        first = f"no BatchNorm could be folded; the net is in {out}"
    else:
        first = (
            f"nothing to fold: {net} has no BatchNorm that is not folded already; {out} has the same net and weights"
        )
    lines = [first, *report.get("kept", ()), *(f"note: {note}" for note in report.get("notes", ()))]
    for key, what in (("train_only", "for TRAIN alone"), ("unused", "not in the net")):
        if report.get(key):
            lines.append(f"skipped, {what}: {', '.join(report[key])}")
    return "\n  ".join(lines)
