"""The command `ssdlite-caffe`: each subcommand parses, calls one function of a room, and prints.

Rooms are imported inside the subcommands, so that --help needs none of them. Results go to stdout, progress and errors
to stderr; a known error is one line and status 1, wrong usage is status 2.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ssdlite_caffe import __version__
from ssdlite_caffe.commands.caffe import caffe as caffe_app
from ssdlite_caffe.commands.evaluate import evaluate
from ssdlite_caffe.commands.gen import gen
from ssdlite_caffe.commands.keras import app as keras_app
from ssdlite_caffe.commands.kit import kit
from ssdlite_caffe.commands.lmdb import app as lmdb_app
from ssdlite_caffe.commands.merge_bn import merge_bn
from ssdlite_caffe.commands.options import Dequantize, Model, NmsOption, PipelineConfig, reading
from ssdlite_caffe.commands.shapes import shapes
from ssdlite_caffe.commands.test import run_test
from ssdlite_caffe.commands.train import train
from ssdlite_caffe.errors import SsdliteError
from ssdlite_caffe.gen_model.dialect import (
    ActivationDialect,
    BatchNormDialect,
    ClipDialect,
    DepthwiseDialect,
    Engine,
    PaddingDialect,
)

app = typer.Typer(
    name="ssdlite-caffe",
    help="MobileNet SSDLite detectors from TensorFlow to Caffe, with the same detections.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("gen")(gen)

INTERRUPTED = 130
"""Exit status after Ctrl-C, which typer gives."""

Folder = Annotated[Path, typer.Argument(help="Folder that convert wrote.")]
Runtime = Annotated[
    Literal["opencv", "caffe"],
    typer.Option(help="What runs the converted net: OpenCV DNN, or the Caffe that `caffe build` built."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace what an earlier run wrote.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"ssdlite-caffe {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """MobileNet SSDLite detectors from TensorFlow to Caffe, with the same detections."""


@app.command()
def dump(
    model: Model,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder for the .npy files and manifest.json.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Print names, shapes and types, and write nothing.")] = False,
    pipeline_config: PipelineConfig = None,
    nms: NmsOption = "auto",
    dequantize: Dequantize = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write a model's weights as .npy files."""
    from ssdlite_caffe.tools import dump as tool

    if list_ == (out is not None):
        raise typer.BadParameter("give either -o DIR or --list")
    options = reading(pipeline_config, nms, dequantize)
    if out is None:
        tool.print_tensors(model, reading=options, as_json=as_json)
        return
    with _progress() as progress:
        summary = tool.dump(model, out, reading=options, force=force, progress=progress)
    notes = "".join(f"note: {note}\n" for note in summary["notes"])
    written = f"{summary['tensors']} tensors of a {summary['arch']} are in {out}"
    _print(summary, as_json, f"{summary['form']} {summary['source']}\n{notes}{written}")


@app.command()
def load(
    weights: Annotated[Path, typer.Argument(help="Folder that dump wrote.")],
    net: Annotated[Path, typer.Argument(help="Prototxt that gen wrote for the same detector.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Caffemodel to write.")],
    finetune: Annotated[
        bool, typer.Option("--finetune", help="Leave class predictors out when the class counts differ.")
    ] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Fill a net with dumped weights."""
    from ssdlite_caffe.tools.load import load as run

    summary = run(weights, net, out, finetune=finetune, force=force)
    left = "".join(f"\n  left to its filler: {name} ({why})" for name, why in summary["left"].items())
    _print(summary, as_json, f"{summary['layers_filled']} layers with {summary['values']} values are in {out}{left}")


@app.command()
def convert(
    model: Model,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write.")],
    label_map: Annotated[
        str | None,
        typer.Option(
            "-l", "--label-map", help="coco, voc, or a label map file (Caffe's .prototxt, TensorFlow's .pbtxt)."
        ),
    ] = None,
    pipeline_config: PipelineConfig = None,
    nms: NmsOption = "auto",
    dequantize: Dequantize = False,
    score_threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Replaces the graph's own, often 0.3.")
    ] = None,
    activation: Annotated[ActivationDialect, typer.Option(help="Layers for ReLU6; relu is not exact.")] = "relu6",
    padding: Annotated[PaddingDialect, typer.Option(help="Dialect of SAME; symmetric is not exact.")] = "exact",
    batch_norm: Annotated[BatchNormDialect, typer.Option("--bn", help="BatchNorm in the deploy net.")] = "fold",
    depthwise: Annotated[DepthwiseDialect, typer.Option(help="Layer type of depthwise convolutions.")] = "Convolution",
    engine: Annotated[Engine, typer.Option(help="Engine of depthwise convolutions.")] = "DEFAULT",
    clip: Annotated[
        ClipDialect,
        typer.Option(
            help="Graphs that clip boxes before suppression: late leaves that out, for a plain DetectionOutput."
        ),
    ] = "exact",
    lmdb: Annotated[str, typer.Option("-d", "--lmdb", help="LMDB that the train and test nets name.")] = "",
    batch_size: Annotated[int, typer.Option(min=0, help="Of the train and test nets; 0: 24 and 8.")] = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Convert a detector into a folder of Caffe files."""
    import gc

    from ssdlite_caffe.gen_model.dialect import DataPaths, Dialect
    from ssdlite_caffe.tools.convert import ConvertOptions, summary
    from ssdlite_caffe.tools.convert import convert as run

    options = ConvertOptions(
        dialect=Dialect(activation, padding, batch_norm, depthwise, engine, clip),
        label_map=label_map,
        reading=reading(pipeline_config, nms, dequantize),
        score_threshold=score_threshold,
        data=DataPaths(lmdb=lmdb, batch_size=batch_size),
    )
    gc.disable()  # a short run that makes many objects and hardly a cycle: looking for those takes a twentieth of it
    with _progress() as progress:
        report = run(model, out, options, force=force, progress=progress)
    _print(report, as_json, summary(report, out))


@app.command()
def verify(
    model: Model,
    folder: Folder,
    images: Annotated[
        list[Path] | None, typer.Option("--images", help="Image or folder, may be repeated; without it, drawn ones.")
    ] = None,
    runtime: Runtime = "opencv",
    pipeline_config: PipelineConfig = None,
    tolerance: Annotated[
        float | None, typer.Option(min=0, help="Bound of boxes and scores, in place of the table's.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most images to compare.")] = 8,
    html: Annotated[Path | None, typer.Option(help="Write a page with the table and both sides' images.")] = None,
    all_layers: Annotated[
        bool, typer.Option("--all-layers", help="Print every layer, not the worst of each block.")
    ] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Run TensorFlow and the converted net on the same inputs and compare them layer by layer."""
    from ssdlite_caffe.tools import verify_report as tool

    with _progress() as progress:
        report = tool.verify_images(
            model, folder, images or [], runtime=runtime, pipeline_config=pipeline_config, tolerance=tolerance,
            limit=limit, html=html, force=force, progress=progress,
        )  # fmt: skip
    if as_json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        tool.print_report(report, all_layers=all_layers)
    if report.first_failure is not None:
        raise typer.Exit(1)


@app.command()
def remap(
    folder: Folder,
    mapping: Annotated[str, typer.Option("--map", help="coco2voc, or a file with lines name: source.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write.")],
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Give a converted model other classes, by moving the rows of its class predictors."""
    from ssdlite_caffe.tools.remap import remap_folder

    report = remap_folder(folder, mapping, out, force=force)
    _print(report, as_json, f"{report['arch']['num_classes']} classes, background included, are in {out}")


@app.command()
def detect(
    folder: Folder,
    inputs: Annotated[list[Path], typer.Argument(help="Images, folders or videos.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder for images with boxes drawn.")] = None,
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Least score shown.")] = 0.3,
    decoder: Annotated[
        Literal["caffe", "numpy", "tflite"],
        typer.Option(
            help="DetectionOutput; or on the headless net the reference decoder (numpy), or what TensorFlow Lite's "
            "interpreter does with a model exported for it (tflite)."
        ),
    ] = "caffe",
    runtime: Runtime = "opencv",
    force: Force = False,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the result as CSV.")] = False,
) -> None:
    """Detect objects in images, folders and videos with a converted model."""
    from ssdlite_caffe.commands.detection_output import run

    if as_json and as_csv:
        raise typer.BadParameter("give --json or --csv, not both")
    failed = run(
        folder, inputs, decoder=decoder, runtime=runtime, min_score=min_score, out=out, force=force,
        output="json" if as_json else "csv" if as_csv else "table",
    )  # fmt: skip
    if failed:
        raise typer.Exit(1)


@app.command()
def lint(
    net: Annotated[Path, typer.Argument(help="Prototxt to look at.")],
    runtime: Annotated[
        Literal["opencv", "bvlc", "ncnn", "nnie"] | None, typer.Option(help="Warn of what this runtime rejects.")
    ] = None,
    phase: Annotated[Literal["TRAIN", "TEST"] | None, typer.Option(help="Phase whose layers count.")] = None,
    as_json: Json = False,
) -> None:
    """Shapes, parameters and multiply-adds of a prototxt, and what is wrong with it."""
    from ssdlite_caffe.tools import lint_report as tool

    report = tool.lint_file(net, runtime=runtime, phase=phase)
    if as_json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        tool.print_report(report)
    if not report.ok:
        raise typer.Exit(1)


def _print(data: dict[str, Any], as_json: bool, text: str) -> None:
    print(json.dumps(data, indent=2) if as_json else text)


_TRAINING = "Data, training and evaluation"
app.add_typer(lmdb_app, name="lmdb", rich_help_panel=_TRAINING)
app.command("kit", rich_help_panel=_TRAINING)(kit)
app.command("train", rich_help_panel=_TRAINING)(train)
app.command("test", rich_help_panel=_TRAINING)(run_test)
app.command("evaluate", rich_help_panel=_TRAINING)(evaluate)
app.command("merge-bn", rich_help_panel=_TRAINING)(merge_bn)
app.add_typer(caffe_app, name="caffe", rich_help_panel=_TRAINING)
app.add_typer(keras_app, name="keras", rich_help_panel=_TRAINING)
app.command("shapes", rich_help_panel=_TRAINING)(shapes)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """A line on stderr that says what is being done, on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        yield status.update


def main() -> None:
    """Run the command; every error that a user can cause ends as one line on stderr."""
    _prepare_streams()
    status = _attempt(lambda: app(prog_name="ssdlite-caffe"))
    unwritten = _attempt(sys.stdout.flush)
    if unwritten:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would try again, and say so
    sys.exit(status or unwritten)


def _prepare_streams() -> None:
    """Give stdout and stderr somewhere to go where they are closed, and a way to print any file name."""
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            # Not only for print: the next file to be opened would get the number, and whatever a library prints.
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
            setattr(sys, name, open(descriptor, "w", closefd=False))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _attempt(action: Callable[[], object]) -> int:
    """The exit status of an action; what a user can cause is said in a line."""
    try:
        action()
    except SystemExit as end:
        if end.code == INTERRUPTED:
            _say("interrupted")
        return end.code if isinstance(end.code, int) else 0
    except SsdliteError as error:
        _say(str(error))
    except BrokenPipeError:
        pass  # the reader went away, as `| head` does
    except MemoryError:
        _say("not enough memory")
    except OSError as error:
        _say(f"{error.filename or 'cannot read or write'}: {error.strerror or error}")
    else:
        return 0
    return 1


def _say(message: str) -> None:
    print(f"ssdlite-caffe: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()
