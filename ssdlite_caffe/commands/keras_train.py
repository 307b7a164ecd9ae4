"""The command `keras train`."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from ssdlite_caffe.gen_model.arch import HeadKind, Version
from ssdlite_caffe.terminal import status

_DATA, _NET, _STEPS, _LOSS, _IMAGES = "Data", "Net", "Steps", "Loss", "Augmentation"
_SHOWN = 20
_OF_NEW_NETS = {
    "version": "--version", "head": "--type", "width": "--size", "input_size": "--input", "scores": "--scores",
}  # fmt: skip


def train(
    context: typer.Context,
    data: Annotated[
        Path, typer.Argument(help="Folder in VOC's layout, COCO's instances_*.json, or an LMDB that lmdb wrote.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the training; model.keras at its end.")],
    split: Annotated[str, typer.Option(help="Of VOC data.", rich_help_panel=_DATA)] = "trainval",
    images: Annotated[
        Path | None, typer.Option(help="Folder of COCO's images.", rich_help_panel=_DATA)
    ] = None,
    label_map: Annotated[
        str | None,
        typer.Option(
            "-l", "--label-map", help="coco, voc, or a file.", show_default="the data's own", rich_help_panel=_DATA
        ),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Keras model to fine-tune; with other classes its class predictors begin anew.",
            rich_help_panel=_NET,
        ),
    ] = None,
    version: Annotated[
        Version, typer.Option("-v", "--version", help="MobileNet version of a new net.", rich_help_panel=_NET)
    ] = "3-small",
    head: Annotated[
        HeadKind | None,
        typer.Option(
            "-t", "--type", help="Extra layers and predictors of a new net.", show_default="ssdlite",
            rich_help_panel=_NET,
        ),
    ] = None,
    width: Annotated[float, typer.Option("--size", help="Width multiplier of a new net.", rich_help_panel=_NET)] = 1.0,
    input_size: Annotated[
        str | None, typer.Option(
            "--input", metavar="N|HxW", help="Input of a new net.", show_default="V1, V2: 300; V3: 320",
            rich_help_panel=_NET,
        ),
    ] = None,
    scores: Annotated[
        Literal["sigmoid", "softmax"], typer.Option(help="Score converter of a new net.", rich_help_panel=_NET)
    ] = "sigmoid",
    steps: Annotated[int, typer.Option(min=1, rich_help_panel=_STEPS)] = 10000,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Images of a step, over all devices.", rich_help_panel=_STEPS)
    ] = 32,
    optimizer: Annotated[Literal["sgd", "rmsprop", "adam"], typer.Option(rich_help_panel=_STEPS)] = "sgd",
    rate: Annotated[
        float | None,
        typer.Option(
            "--lr", help="Highest learning rate.", show_default="sgd 0.02, rmsprop 0.004, adam 0.001",
            rich_help_panel=_STEPS,
        ),
    ] = None,
    schedule: Annotated[Literal["cosine", "step", "constant"], typer.Option(rich_help_panel=_STEPS)] = "cosine",
    warmup: Annotated[
        int | None,
        typer.Option(
            min=0, help="Steps that the rate rises.", show_default="100, at most a tenth of all", rich_help_panel=_STEPS
        ),
    ] = None,
    drops: Annotated[
        str, typer.Option(metavar="N,N...", help="Steps at which `step` takes a tenth.", rich_help_panel=_STEPS)
    ] = "",
    ema: Annotated[
        float, typer.Option(min=0, max=0.999999, help="Average of the weights; 0: none.", rich_help_panel=_STEPS)
    ] = 0.999,
    momentum: Annotated[
        float, typer.Option("--bn-momentum", min=0, max=0.999999, help="Of BatchNorm's statistics.",
                            rich_help_panel=_STEPS),
    ] = 0.97,
    freeze: Annotated[
        bool, typer.Option("--freeze-bn", help="Keep BatchNorm as it is.", rich_help_panel=_STEPS)
    ] = False,
    precision: Annotated[
        Literal["auto", "float32", "float16", "bfloat16"],
        typer.Option(help="auto: float16 on GPUs that are faster with it.", rich_help_panel=_STEPS),
    ] = "auto",
    loss: Annotated[
        Literal["focal", "hard-negatives"] | None,
        typer.Option(show_default="focal; hard-negatives for softmax", rich_help_panel=_LOSS),
    ] = None,
    alpha: Annotated[float, typer.Option(min=0, max=1, help="Of the focal loss.", rich_help_panel=_LOSS)] = 0.75,
    gamma: Annotated[float, typer.Option(min=0, help="Of the focal loss.", rich_help_panel=_LOSS)] = 2.0,
    negatives: Annotated[
        float, typer.Option(min=0, help="Background boxes for each object.", rich_help_panel=_LOSS)
    ] = 3.0,
    decay: Annotated[
        float, typer.Option("--weight-decay", min=0, help="L2, of the kernels.", rich_help_panel=_LOSS)
    ] = 4e-5,
    zoom: Annotated[
        float, typer.Option(min=1, max=16, help="Most that images shrink; 1: never.", rich_help_panel=_IMAGES)
    ] = 4.0,
    crop: Annotated[
        float, typer.Option(min=0, max=1, help="Chance of cutting a part out.", rich_help_panel=_IMAGES)
    ] = 1.0,
    mirror: Annotated[float, typer.Option(min=0, max=1, help="Chance.", rich_help_panel=_IMAGES)] = 0.5,
    colours: Annotated[
        float, typer.Option(min=0, max=1, help="Chance of each change of colour.", rich_help_panel=_IMAGES)
    ] = 0.5,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, order and augmentation.")] = 0,
    log_every: Annotated[int, typer.Option(min=1, help="Steps between lines of metrics.jsonl.")] = 20,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 200,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in the folder.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier training.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:  # fmt: skip
    """Train a detector, new or from an imported model.

    On several GPUs all are used. On several hosts, start the same command on each, with TF_CONFIG saying which it is.
    """
    import os

    from ssdlite_caffe.gen_model.options import OptionsError, parse_size

    if resume and force:
        raise typer.BadParameter("give --resume or --force")
    given = [option for name, option in _OF_NEW_NETS.items() if _is_given(context, name)]
    if start is not None and given:
        raise typer.BadParameter(f"{', '.join(given)}: the net of {start} is what it is; leave that out, or --from")
    highest = rate if rate is not None else {"sgd": 0.02, "rmsprop": 0.004, "adam": 0.001}[optimizer]
    numbers = (highest, ema, momentum, alpha, gamma, negatives, decay, zoom, crop, mirror, colours)
    if not all(map(math.isfinite, numbers)):
        raise typer.BadParameter("an option is no number to go by")
    if highest <= 0:
        raise typer.BadParameter(f"a learning rate of {highest:g} changes nothing, or for the worse")
    try:
        size = parse_size(input_size) if input_size else None
        drop_steps = tuple(int(part) for part in drops.split(",")) if drops else ()
    except OptionsError as error:
        raise typer.BadParameter(str(error)) from error
    except ValueError:
        raise typer.BadParameter(f"{drops!r} is no list of steps, as 8000,9000") from None
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # before the options' modules import TensorFlow
    from ssdlite_caffe.imports import import_keras

    import_keras()
    from ssdlite_caffe.keras.augment import AugmentOptions
    from ssdlite_caffe.keras.losses import LossOptions
    from ssdlite_caffe.keras.schedule import Schedule
    from ssdlite_caffe.keras.train import DataOptions, NetOptions, TrainOptions
    from ssdlite_caffe.keras.train import train as run
    from ssdlite_caffe.keras.trainer import StepOptions

    options = TrainOptions(
        DataOptions(data, split, images, label_map),
        Schedule(highest, steps, schedule, min(100, steps // 10) if warmup is None else warmup, drop_steps),
        NetOptions(start, version, width, size, scores, head),
        StepOptions(
            batch_size, optimizer, LossOptions(loss, alpha, gamma, negatives),
            AugmentOptions(colours, expand=0.5 if zoom > 1 else 0.0, largest=zoom, crop=crop, mirror=mirror),
            decay, ema, momentum, freeze,
        ),
        seed, precision, log_every, checkpoint_every,
    )  # fmt: skip
    problems: list[str] = []

    def problem(line: str) -> None:
        problems.append(line)
        if len(problems) <= _SHOWN:
            print(f"ssdlite-caffe: {line}", file=sys.stderr)
        elif len(problems) == _SHOWN + 1:
            print("ssdlite-caffe: ... and more", file=sys.stderr)

    def say(line: str) -> None:
        print(f"ssdlite-caffe: {line}", file=sys.stderr)

    if start is None and freeze:
        say("--freeze-bn without --from keeps BatchNorm as a new net has it, which has learned nothing")
    with status() as progress:
        report = run(out, options, resume=resume, force=force, progress=progress, problem=problem, say=say)
    if as_json:
        print(json.dumps({**report, "problems": problems}, indent=2))
        return
    print(
        f"{report['steps']} steps on {report['images']} images of {report['classes'] - 1} classes in "
        f"{report['seconds']:.0f} s; the model is {report['model']}"
    )


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"
