"""The command `shapes`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ssdlite_caffe.commands.app import print_result
from ssdlite_caffe.commands.options import Force, Json
from ssdlite_caffe.terminal import bar


def shapes(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write.")],
    count: Annotated[int, typer.Option(min=1, max=10_000_000, help="Number of scenes.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same scenes.")] = 0,
    layout: Annotated[Literal["voc", "coco"], typer.Option(help="Layout of the folder.")] = "voc",
    split: Annotated[
        str, typer.Option(help="Name of the list in ImageSets/Main, or of COCO's annotations and images.")
    ] = "trainval",
    side: Annotated[int, typer.Option(min=32, max=4096, help="Height and width in pixels.")] = 320,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Draw scenes of circles, squares and triangles with annotations, to train and test on."""
    import re

    from ssdlite_caffe.data.toy_scenes import ShapesOptions, make_shapes

    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,99}", split):
        raise typer.BadParameter(
            f"the name of a split must have up to 100 letters, digits, '_', '-' and '.', and start with a letter or "
            f"digit, got {split!r}"
        )
    with bar("drawing") as progress:
        report = make_shapes(out, ShapesOptions(count, seed, layout, split, side), force=force, progress=progress)
    objects = ", ".join(f"{name} {number}" for name, number in report["objects"].items())
    print_result(
        report, as_json, f"{count} scenes with {sum(report['objects'].values())} objects ({objects}) are in {out}"
    )
