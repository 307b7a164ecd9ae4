"""The command `load`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssdlite_caffe.commands.app import print_result
from ssdlite_caffe.commands.options import Force, Json
from ssdlite_caffe.terminal import note


def load(
    weights: Annotated[Path, typer.Argument(help="Folder that dump wrote.")],
    net: Annotated[
        Path, typer.Argument(help="Prototxt that gen wrote for the same detector, or an earlier project's.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Caffemodel to write.")],
    finetune: Annotated[
        bool, typer.Option("--finetune", help="Skip class predictors if the numbers of classes differ.")
    ] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Fill a net with dumped weights."""
    from ssdlite_caffe.commands.swapped import PROTOTXT, WEIGHTS, refuse_swapped
    from ssdlite_caffe.tools.load import load as run

    refuse_swapped("load {first} {second}" + f" -o {out}", weights, net, (frozenset({WEIGHTS}), frozenset({PROTOTXT})))
    summary = run(weights, net, out, finetune=finetune, force=force)
    left = "".join(f"\n  keeps its filler: {name} ({why})" for name, why in summary["left"].items())
    print_result(
        summary, as_json, f"{summary['layers_filled']} layers with {summary['values']} values are in {out}{left}"
    )
    for line in summary["inexact"]:
        note(f"not exact: the net has {line}")
