"""Training a kit with Caffe's solver: started, watched, stopped and gone on with."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ssdlite_caffe.caffe.prefix import STAMP, caffe_prefix
from ssdlite_caffe.caffe.process import CaffeProcess
from ssdlite_caffe.errors import CaffeError, OutputError
from ssdlite_caffe.files import write_text
from ssdlite_caffe.plots import draw_loss
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.text import format_message
from ssdlite_caffe.terminal import on_interrupt
from ssdlite_caffe.training.kit_check import SOLVER_TRAIN, Kit, check_kit
from ssdlite_caffe.training.log import Event, LeftOut, LogReader, Scored, Step
from ssdlite_caffe.training.snapshots import (
    Snapshot,
    bytes_of_snapshot,
    find_snapshots,
    flaw,
    newest_whole,
    snapshot_at,
)

LOG, METRICS, PLOT, SOLVER_USED, LOCK = "train.log", "metrics.jsonl", "loss.png", "solver_used.prototxt", ".training"
_WRITTEN = (LOG, METRICS, PLOT)

_DRAW_EVERY = 20.0
"""Seconds."""
_MOST_SAID = 20
"""Broken records that are told of one by one; the log has all."""


@dataclass(frozen=True)
class SolverOptions:
    """What differs from the kit's solver.

    Attributes:
        resume: go on from the newest whole snapshot.
        weights: caffemodel to start from, in place of the kit's own.
        max_iter: iterations in all.
        seed: of fillers, order and augmentation.
        gpu: number of the GPU; None with `cpu` false leaves the solver's choice.
        cpu: run on the CPU, whatever the solver says.
        force: begin anew, and remove what an earlier training left.
        strict: stop at a record that cannot be read; else it is left out.
        prefix: where Caffe is installed.
    """

    resume: bool = False
    weights: Path | None = None
    max_iter: int | None = None
    seed: int | None = None
    gpu: int | None = None
    cpu: bool = False
    force: bool = False
    strict: bool = False
    prefix: Path | None = None


@dataclass(frozen=True)
class Progress:
    """How far the training is.

    Attributes:
        loss: smoothed by Caffe over `average_loss` iterations.
        seconds_left: at the pace of the last steps; NaN at first.
    """

    iteration: int
    max_iter: int
    loss: float
    rate: float
    seconds_left: float


@dataclass(frozen=True)
class Trained:
    """How the training ended.

    Attributes:
        iteration: the last one shown.
        loss: then.
        finished: whether max_iter is reached; else it was interrupted.
        snapshot: the last whole one, None where there is none.
        left_out: records that could not be read.
    """

    iteration: int
    loss: float
    finished: bool
    snapshot: Snapshot | None
    left_out: int
    seconds: float


def train(
    folder: Path,
    options: SolverOptions,
    *,
    progress: Callable[[Progress], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> Trained:
    """Train a kit.

    The log goes to train.log, the losses to metrics.jsonl and loss.png, all in the kit and as it goes.

    Args:
        folder: the kit.
        options: what differs from its solver.
        progress: is told at each step that Caffe shows.
        say: is told of what is worth a line.

    Raises:
        SsdliteError: the kit is not fit to run, another training runs in it, or there are snapshots and neither
            `resume` nor `force`; Caffe stops; the loss is not finite; a snapshot cannot be written.
    """
    prefix = caffe_prefix(options.prefix)
    kit = check_kit(folder, weights=options.weights)
    solver = _solver(kit, options)
    _check_mode(solver, prefix, options)
    with _only_one(folder) as lock:
        start = _start(kit, solver, options, say)
        _check_room(kit, solver)
        (folder / solver.snapshot_prefix).parent.mkdir(parents=True, exist_ok=True)
        write_text(folder / SOLVER_USED, format_message(solver), force=True)
        arguments = ["train", f"-solver={SOLVER_USED}", "-sigint_effect=stop", "-sighup_effect=snapshot"]
        if start is not None:
            arguments.append(f"-snapshot={os.path.relpath(start.state, folder)}")
        elif kit.weights is not None:
            arguments.append(f"-weights={kit.weights.resolve()}")
        if options.gpu is not None:
            arguments.append(f"-gpu={options.gpu}")
        strict = {"SSDLITE_STRICT_DATA": "1"} if options.strict else {}
        return _Run(kit, solver, start, progress, say).run(prefix, arguments, lock, strict)


def _solver(kit: Kit, options: SolverOptions) -> caffe_pb2.SolverParameter:
    solver = caffe_pb2.SolverParameter()
    solver.CopyFrom(kit.solver)
    if options.max_iter is not None:
        solver.max_iter = options.max_iter
    if options.seed is not None:
        solver.random_seed = options.seed
    if options.cpu:
        solver.solver_mode = caffe_pb2.SolverParameter.CPU
    return solver


def _check_mode(solver: caffe_pb2.SolverParameter, prefix: Path, options: SolverOptions) -> None:
    """Said before Caffe starts, where the prefix tells what it is built for."""
    wanted = options.gpu is not None or solver.solver_mode == caffe_pb2.SolverParameter.GPU
    try:
        stamp = json.loads((prefix / STAMP).read_text("utf-8"))
    except (OSError, ValueError):
        return
    if wanted and isinstance(stamp, dict) and stamp.get("cuda") is False:
        who = "--gpu" if options.gpu is not None else f"{SOLVER_TRAIN} (solver_mode: GPU)"
        raise CaffeError(f"{who} asks for a GPU, and the Caffe in {prefix} is built for the CPU alone; give --cpu")


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[int | None]:
    """Hold a lock on the kit; Caffe holds it too, so it lasts while either lives."""
    try:
        import fcntl
    except ImportError:  # Windows, where no Caffe is built
        yield None
        return
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(f"another training runs in {folder}; wait for its end, or stop it") from error
        os.set_inheritable(handle, True)
        yield handle
    finally:
        os.close(handle)


def _start(
    kit: Kit, solver: caffe_pb2.SolverParameter, options: SolverOptions, say: Callable[[str], None]
) -> Snapshot | None:
    """The snapshot to go on from, None to begin anew."""
    known = find_snapshots(kit.folder, solver)
    if options.resume:
        found, passed = newest_whole(known, kit.train.net, solver)
        for line in passed:
            say(line)
        if found is None:
            raise CaffeError(
                f"{kit.folder} has no whole snapshot to go on from"
                + (f" ({passed[0]})" if passed else f" under {solver.snapshot_prefix}")
                + "; begin anew without --resume"
            )
        _drop_after(kit.folder / METRICS, found.iteration)
        say(f"going on from iteration {found.iteration}")
        return found
    left = [path for path in (kit.folder / name for name in _WRITTEN) if path.exists()]
    left += [path for snapshot in known for path in (snapshot.model, snapshot.state) if path.exists()]
    if left and not options.force:
        raise OutputError(
            f"{kit.folder} holds {left[-1].name} of an earlier training; --resume goes on with it, --force begins anew "
            "and removes it"
        )
    for path in left:
        path.unlink()
    return None


def _drop_after(path: Path, iteration: int) -> None:
    """Take out of the metrics what comes after the snapshot and will be measured again."""
    if not path.is_file():
        return
    kept = [entry for entry in read_metrics(path) if entry["iteration"] < iteration or "loss" not in entry]
    kept = [entry for entry in kept if entry["iteration"] <= iteration]
    write_text(path, "".join(json.dumps(entry) + "\n" for entry in kept), force=True)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; a last one that was cut off is left out."""
    entries = []
    for line in path.read_text("utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("iteration"), int):
            entries.append(entry)
    return entries


def _check_room(kit: Kit, solver: caffe_pb2.SolverParameter) -> None:
    needed = bytes_of_snapshot(kit.train.net, solver)
    free = shutil.disk_usage(kit.folder).free
    if free < 2 * needed:
        raise OutputError(
            f"the disk of {kit.folder} has {free >> 20} MiB left; a snapshot takes {needed >> 20} MiB: make room first"
        )


class _Run:
    """One run of Caffe, from its first line to its last."""

    def __init__(
        self,
        kit: Kit,
        solver: caffe_pb2.SolverParameter,
        start: Snapshot | None,
        progress: Callable[[Progress], None],
        say: Callable[[str], None],
    ) -> None:
        self.kit, self.solver, self.progress, self.say = kit, solver, progress, say
        self.good = start
        self.unjudged: Snapshot | None = None
        self.spoilt: int | None = None
        self.step = Step(start.iteration if start else 0, float("nan"), float("nan"))
        self.paces: list[tuple[int, float]] = []
        self.drawn = 0.0
        self.interrupted = False
        self.left_out = 0
        metrics = kit.folder / METRICS
        self.entries = read_metrics(metrics) if metrics.is_file() else []

    def run(self, prefix: Path, arguments: list[str], lock: int | None, environment: dict[str, str]) -> Trained:
        folder, began = self.kit.folder, time.monotonic()
        with (
            self._without_spoilt_snapshots(),
            (folder / LOG).open("a", encoding="utf-8", buffering=1) as log,
            (folder / METRICS).open("a", encoding="utf-8", buffering=1) as metrics,
            CaffeProcess(prefix, arguments, folder=folder, environment=environment, keep_open=lock) as caffe,
            on_interrupt(lambda: self._interrupt(caffe)),
        ):
            reader = LogReader()
            for line in caffe.lines():
                log.write(line)
                event = reader.read(line)
                if event is not None:
                    self._handle(event, metrics)
            try:
                caffe.finish(str(folder / SOLVER_TRAIN))
            except CaffeError as error:
                if self.unjudged is None:
                    raise
                raise self._bad(self.unjudged, str(error)) from error
            self._judge()
        draw_loss(self.entries, folder / PLOT)
        finished = not self.interrupted
        seconds = time.monotonic() - began
        return Trained(self.step.iteration, self.step.loss, finished, self.good, self.left_out, seconds)

    @contextlib.contextmanager
    def _without_spoilt_snapshots(self) -> Iterator[None]:
        """Once Caffe has ended for a loss that is not finite, remove what it wrote before it could be stopped.

        It goes on until its log is read, and may reach the next snapshot, of weights that are NaN.
        """
        try:
            yield
        except CaffeError:
            if self.spoilt is not None:
                self._remove_spoilt(self.spoilt)
            raise

    def _remove_spoilt(self, iteration: int) -> None:
        for snapshot in find_snapshots(self.kit.folder, self.solver):
            if snapshot.iteration >= iteration and flaw(snapshot, self.kit.train.net, self.solver):
                snapshot.state.unlink(missing_ok=True)
                snapshot.model.unlink(missing_ok=True)

    def _interrupt(self, caffe: CaffeProcess) -> None:
        self.interrupted = True
        self.say("stopping after this iteration, with a snapshot; once more ends at once")
        caffe.interrupt()

    def _handle(self, event: Event, metrics: IO[str]) -> None:
        if isinstance(event, (Step, Scored)):
            self._judge()  # what was being written is written now
        if isinstance(event, Step):
            self._step(event, metrics)
        elif isinstance(event, Scored):
            self._write({"iteration": event.iteration, "test": event.name, "value": event.value}, metrics)
            self.say(f"iteration {event.iteration}: {event.name} = {event.value:.4f}")
        elif isinstance(event, LeftOut):
            self.left_out += 1
            if self.left_out <= _MOST_SAID:
                self.say(f"{event.what}; it is left out")
        else:
            self.unjudged = snapshot_at(self.kit.folder, self.solver, event.iteration)

    def _step(self, step: Step, metrics: IO[str]) -> None:
        self.step = step
        now = time.monotonic()
        self.paces = [*self.paces[-20:], (step.iteration, now)]
        first, then = self.paces[0]
        pace = (now - then) / (step.iteration - first) if step.iteration > first else float("nan")
        entry = {"iteration": step.iteration, "loss": step.loss, "lr": step.rate, "time": round(time.time(), 3)}
        if not math.isfinite(step.loss):
            self.spoilt = step.iteration
            raise CaffeError(
                f"the loss is {step.loss} at iteration {step.iteration}, so training was stopped; {self._last_good()}; "
                f"lower base_lr in {self.kit.folder / SOLVER_TRAIN}"
            )
        self._write(entry, metrics)
        self.progress(Progress(step.iteration, self.solver.max_iter, step.loss, step.rate,
                               pace * (self.solver.max_iter - step.iteration)))  # fmt: skip
        if now - self.drawn > _DRAW_EVERY:
            draw_loss(self.entries, self.kit.folder / PLOT)
            self.drawn = time.monotonic()

    def _write(self, entry: dict[str, Any], metrics: IO[str]) -> None:
        self.entries.append(entry)
        metrics.write(json.dumps(entry) + "\n")

    def _judge(self) -> None:
        """Look at the snapshot that Caffe has written; a full disk leaves it cut short, and Caffe says nothing."""
        snapshot, self.unjudged = self.unjudged, None
        if snapshot is None:
            return
        wrong = flaw(snapshot, self.kit.train.net, self.solver)
        if wrong:
            raise self._bad(snapshot, wrong)
        self.good = snapshot

    def _bad(self, snapshot: Snapshot, why: str) -> OutputError:
        free = shutil.disk_usage(self.kit.folder).free
        full = (
            f" (the disk has {free >> 20} MiB left)"
            if free < bytes_of_snapshot(self.kit.train.net, self.solver)
            else ""
        )
        return OutputError(
            f"the snapshot of iteration {snapshot.iteration} is no good, so training was stopped{full}: {why}; "
            f"{self._last_good()}"
        )

    def _last_good(self) -> str:
        return f"the last good snapshot is {self.good.state}" if self.good else "there is no good snapshot"
