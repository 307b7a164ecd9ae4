"""The commands `ssdlite-caffe keras ...`: each parses, calls one function, and prints."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ssdlite_caffe.keras.train_command import train

app = typer.Typer(help="The same nets as Keras models: import, export, run.", no_args_is_help=True)
export = typer.Typer(help="Write a Keras model as a frozen graph or for TensorFlow Lite.", no_args_is_help=True)
app.add_typer(export, name="export")
app.command("train")(train)

Model = Annotated[Path, typer.Argument(help="Keras model that import or train wrote: .keras, .weights.h5 or .h5.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what an earlier run wrote.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command("import")
def import_(
    model: Annotated[
        Path, typer.Argument(help="Frozen graph (.pb), SavedModel folder, or TF1 checkpoint (prefix or folder).")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="File to write: .keras, .weights.h5 or .h5.")],
    label_map: Annotated[str | None, typer.Option("-l", "--label-map", help="coco, voc, or a label map file.")] = None,
    pipeline_config: Annotated[
        Path | None,
        typer.Option(help="pipeline.config of the training; needed for a checkpoint that has none beside it."),
    ] = None,
    inputs: Annotated[
        Literal["network", "pixels", "picture"],
        typer.Option(help="network: normalised; pixels: 0..255 at the network's size; picture: uint8 of any size."),
    ] = "network",
    outputs: Annotated[
        Literal["raw", "decoded", "detections"],
        typer.Option(help="raw: box codes and logits; decoded: boxes and scores of all default boxes; detections."),
    ] = "raw",
    variances: Annotated[
        Literal["keep", "fold"], typer.Option(help="fold: box codes without variances (1.0), for the same boxes.")
    ] = "keep",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Make a Keras model of a TensorFlow detector."""
    from ssdlite_caffe.keras.import_model import import_file, summary

    with _progress() as progress:
        report = import_file(
            model, out, pipeline_config=pipeline_config, label_map=label_map, variances=variances, inputs=inputs,
            outputs=outputs, force=force, progress=progress,
        )  # fmt: skip
    _print(report, as_json, summary(report, out))


@export.command("pb")
def export_pb(
    model: Model,
    out: Annotated[Path, typer.Option("-o", "--out", help="Frozen graph to write.")],
    score_threshold: Annotated[float | None, typer.Option(min=0, max=1, help="Replaces the model's own.")] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write a frozen graph with the interface of TensorFlow's OD API, which convert takes."""
    from ssdlite_caffe.keras.export_pb import export_pb as run

    with _progress() as progress:
        report = run(model, out, score_threshold=score_threshold, force=force, progress=progress)
    _print(report, as_json, f"{report['nodes']} nodes, {report['bytes']} bytes are in {out}")


def _print(data: dict[str, Any], as_json: bool, text: str) -> None:
    print(json.dumps(data, indent=2) if as_json else text)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """A line on stderr that says what is being done, on a terminal; nothing elsewhere."""
    import sys

    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        yield status.update
