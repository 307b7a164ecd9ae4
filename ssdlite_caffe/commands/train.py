"""`ssdlite-caffe train` and `ssdlite-caffe test`."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ssdlite_caffe.training.solver import Progress

Kit = Annotated[Path, typer.Argument(help="Folder that `ssdlite-caffe kit` wrote.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def train(
    kit: Kit,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest whole snapshot.")] = False,
    weights: Annotated[
        Path | None,
        typer.Option("-w", "--weights", help="Caffemodel to start from.", show_default="the kit's initial.caffemodel"),
    ] = None,
    max_iter: Annotated[int | None, typer.Option(min=1, help="Iterations in all, in place of the solver's.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of fillers, order and augmentation.")] = None,
    gpu: Annotated[int | None, typer.Option(min=0, help="GPU to run on.")] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Run on the CPU, whatever the solver says.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Begin anew, and remove what an earlier training left in the kit.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at a record that cannot be read, in place of leaving it out.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a kit with Caffe's solver, watched: log, losses and plot are written as it goes."""
    from ssdlite_caffe.training.solver import SolverOptions
    from ssdlite_caffe.training.solver import train as run

    if resume and (force or weights is not None):
        raise typer.BadParameter("--resume goes without --force and --weights")
    if cpu and gpu is not None:
        raise typer.BadParameter("give --cpu or --gpu")
    options = SolverOptions(resume, weights, max_iter, seed, gpu, cpu, force, strict)
    with _live() as (progress, say):
        ended = run(kit, options, progress=progress, say=say)
    again = f"ssdlite-caffe train {kit} --resume"
    if as_json:
        snapshot = str(ended.snapshot.model) if ended.snapshot else None
        loss = ended.loss if math.isfinite(ended.loss) else None
        report = {
            "finished": ended.finished,
            "iteration": ended.iteration,
            "loss": loss,
            "snapshot": snapshot,
            "left_out": ended.left_out,
            "seconds": round(ended.seconds, 1),
        }
        print(json.dumps(report, indent=2))
        return
    if ended.left_out:
        print(f"{ended.left_out} records could not be read and were left out")
    where = f"weights: {ended.snapshot.model}" if ended.snapshot else "there is no snapshot"
    if ended.finished:
        print(f"trained in {_duration(ended.seconds)}, loss {ended.loss:.4g}; {where}")
    else:
        print(f"stopped after {_duration(ended.seconds)}; {where}; go on with: {again}")


def judge(
    kit: Kit,
    weights: Annotated[
        Path | None, typer.Option("-w", "--weights", help="Caffemodel.", show_default="the newest whole snapshot's")
    ] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="caffe or opencv: what runs it; may be repeated.", show_default="caffe"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Average precision of trained weights on the kit's test LMDB."""
    from ssdlite_caffe.evaluation import report as report
    from ssdlite_caffe.evaluation.detectors import RUNTIMES
    from ssdlite_caffe.evaluation.evaluate import problem_lines
    from ssdlite_caffe.terminal import bar
    from ssdlite_caffe.training.judge import PLOT, RESULT, judge_kit

    unknown = set(runtime or ()) - (RUNTIMES.keys() - {"tensorflow"})
    if unknown:
        raise typer.BadParameter(f"no runtime {sorted(unknown)[0]!r} for kits; there are: opencv, caffe")
    with bar("testing") as progress:
        result = judge_kit(kit, weights, list(dict.fromkeys(runtime or ["caffe"])), progress=progress)
    if as_json:
        print(json.dumps(result.to_dict(), indent=2))
        return
    report.print_report(result)
    for line in problem_lines(result):
        print(f"ssdlite-caffe: {line}", file=sys.stderr)
    print(f"in {kit}: {RESULT}, {PLOT}")


@contextmanager
def _live() -> Iterator[tuple[Callable[[Progress], None], Callable[[str], None]]]:
    """One line on stderr that tells how far the training is; without a terminal, a line each time."""
    if not sys.stderr.isatty():
        yield lambda state: print(_line(state), file=sys.stderr), lambda text: print(text, file=sys.stderr)
        return
    from rich.console import Console

    console = Console(stderr=True, highlight=False, markup=False)
    with console.status("starting Caffe") as status:
        yield lambda state: status.update(_line(state)), lambda text: console.print(text, soft_wrap=True)


def _line(state: Progress) -> str:
    left = "" if math.isnan(state.seconds_left) else f", {_duration(state.seconds_left)} left"
    return f"iteration {state.iteration} of {state.max_iter}, loss {state.loss:.4g}, rate {state.rate:g}{left}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
