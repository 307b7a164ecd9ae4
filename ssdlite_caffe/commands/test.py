"""The command `test`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ssdlite_caffe.commands.options import Json

_RUNTIMES = ("caffe", "opencv")


def run_test(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Training folder that `ssdlite-caffe kit` wrote.")],
    weights: Annotated[
        Path | None,
        typer.Option("-w", "--weights", help="Caffemodel.", show_default="the newest whole snapshot's"),
    ] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="caffe or opencv: what runs the net; may be repeated.", show_default="caffe"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Average precision of trained weights on the training folder's test LMDB."""
    from ssdlite_caffe.evaluation import report
    from ssdlite_caffe.evaluation.evaluate import problem_lines
    from ssdlite_caffe.terminal import bar, note
    from ssdlite_caffe.training.evaluate_kit import PLOT, RESULT, evaluate_kit
    from ssdlite_caffe.training.kit_check import INITIAL

    unknown = sorted(set(runtime or ()) - set(_RUNTIMES))
    if unknown:
        raise typer.BadParameter(f"runtime must be one of {', '.join(_RUNTIMES)}, got {unknown[0]}")
    with bar("testing") as progress:
        result = evaluate_kit(folder, weights, list(dict.fromkeys(runtime or ["caffe"])), progress=progress)
    if Path(result.model).name == INITIAL:
        note(f"these are the weights that training starts from; train them with `ssdlite-caffe train {folder}`")
    if as_json:
        print(json.dumps(result.to_dict(), indent=2))
        return
    report.print_report(result)
    for line in problem_lines(result):
        note(line)
    print(f"written to {folder}: {RESULT}, {PLOT}")
