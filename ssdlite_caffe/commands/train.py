"""The command `train`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ssdlite_caffe.commands.options import Json
from ssdlite_caffe.terminal import duration_text, note, shows_progress, status

if TYPE_CHECKING:
    from ssdlite_caffe.training.watch import Progress, Trained

_START, _TRAINING, _DEVICE = "Start", "Training", "Device"


def train(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Training folder that `ssdlite-caffe kit` wrote.")],
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue from the newest whole snapshot, with the same options.",
                     rich_help_panel=_START),
    ] = False,
    weights: Annotated[
        Path | None,
        typer.Option("-w", "--weights", help="Caffemodel to start from.",
                     show_default="the folder's initial.caffemodel", rich_help_panel=_START),
    ] = None,
    finetune: Annotated[
        bool,
        typer.Option("--finetune", help="With --weights: start the class predictors anew for other classes.",
                     rich_help_panel=_START),
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Start over, and remove what an earlier training left in the folder.",
                     rich_help_panel=_START),
    ] = False,
    iterations: Annotated[
        int | None,
        typer.Option(min=1, help="Iterations in all; more with --resume extend a finished training.",
                     show_default="the solver's max_iter", rich_help_panel=_TRAINING),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Seed of fillers, order and augmentation.", show_default="the solver's",
                     rich_help_panel=_TRAINING),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Stop at a record that cannot be read, instead of skipping it.",
                     rich_help_panel=_TRAINING),
    ] = False,
    gpu: Annotated[
        int | None,
        typer.Option(min=0, help="Number of the GPU to train on.",
                     show_default="0 where Caffe can use one, else the CPU", rich_help_panel=_DEVICE),
    ] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Train on the CPU.", rich_help_panel=_DEVICE)] = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Train with Caffe's solver; log, losses and plot are written into the folder meanwhile."""
    from ssdlite_caffe.training.run import train as run
    from ssdlite_caffe.training.run_options import RunOptions

    if resume and force:
        raise typer.BadParameter("--resume continues a training and --force removes it: give one of them")
    if cpu and gpu is not None:
        raise typer.BadParameter("give --cpu or --gpu, not both")
    if finetune and weights is None:
        raise typer.BadParameter("--finetune needs --weights")
    options = RunOptions(resume, weights, finetune, iterations, seed, gpu, cpu, force, strict)
    with status() as line:  # on a terminal; elsewhere each state is a line of its own
        line("starting Caffe")
        show = line if shows_progress() else note
        ended = run(folder, options, progress=lambda state: show(_line(state)), say=note)
    print(json.dumps(_report(ended), indent=2) if as_json else _text(ended, folder))


def _report(ended: Trained) -> dict[str, Any]:
    return {
        "finished": ended.finished,
        "iteration": ended.iteration,
        "loss": ended.last.loss if ended.last else None,
        "loss_iteration": ended.last.iteration if ended.last else None,
        "snapshot": str(ended.snapshot.model) if ended.snapshot else None,
        "skipped": ended.skipped,
        "seconds": round(ended.seconds, 1),
    }


def _text(ended: Trained, folder: Path) -> str:
    skipped = f"{ended.skipped} records could not be read and were skipped\n" if ended.skipped else ""
    where = f"weights: {ended.snapshot.model}" if ended.snapshot else "there is no snapshot"
    loss = _loss(ended)
    if not ended.finished:
        again = f"resume with: ssdlite-caffe train {folder} --resume"
        took = duration_text(ended.seconds)
        return f"{skipped}stopped at iteration {ended.iteration} after {took}, {loss}; {where}; {again}"
    if not ended.seconds:
        return f"{ended.iteration} iterations are done, {loss}; {where}"
    return f"{skipped}trained {ended.iteration} iterations in {duration_text(ended.seconds)}, {loss}; {where}"


def _loss(ended: Trained) -> str:
    """The last loss, with its iteration where that is not the last one."""
    if ended.last is None:
        return "no loss was logged"
    at = "" if ended.last.iteration == ended.iteration else f" at iteration {ended.last.iteration}"
    return f"loss {ended.last.loss:.4g}{at}"


def _line(state: Progress) -> str:
    left = "" if math.isnan(state.seconds_left) else f", {duration_text(state.seconds_left)} left"
    rate = "" if math.isnan(state.rate) else f", rate {state.rate:.3g}"
    return f"iteration {state.iteration} of {state.iterations}, loss {state.loss:.4g}{rate}{left}"
