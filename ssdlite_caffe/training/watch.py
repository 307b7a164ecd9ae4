"""Watching Caffe while it trains: progress, metrics, snapshots, and what must stop it."""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ssdlite_caffe.caffe.process import CaffeProcess
from ssdlite_caffe.errors import CaffeError, OutputError
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.terminal import on_interrupt
from ssdlite_caffe.training.kit_check import SOLVER_TRAIN, Kit
from ssdlite_caffe.training.log import Event, LogReader, Scored, Skipped, Step
from ssdlite_caffe.training.metrics import LOG, Metrics, last_loss
from ssdlite_caffe.training.snapshots import Snapshot, bytes_of_snapshot, find_snapshots, flaw, snapshot_at

_PACES = 20
"""Lines of progress over which the pace is measured."""
_MOST_SAID = 20
"""Skipped records that are printed; train.log has all."""


@dataclass(frozen=True)
class Progress:
    """How far the training is.

    Attributes:
        iteration: the last one shown.
        iterations: in all.
        loss: averaged by Caffe over `average_loss` iterations.
        rate: learning rate; NaN where this run has shown none.
        seconds_left: at the pace of the last lines; NaN at first.
    """

    iteration: int
    iterations: int
    loss: float
    rate: float
    seconds_left: float


@dataclass(frozen=True)
class Trained:
    """How the training ended.

    Attributes:
        iteration: iterations done.
        last: the last loss that Caffe showed, maybe some iterations earlier; None where it showed none.
        finished: whether all iterations are done; else it was interrupted.
        snapshot: the last whole one, None where there is none.
        skipped: records that could not be read.
        seconds: of this run; 0 where the training was finished before.
    """

    iteration: int
    last: Step | None
    finished: bool
    snapshot: Snapshot | None
    skipped: int
    seconds: float


class Watch:
    """One run of Caffe, from its first line to its last."""

    def __init__(
        self,
        kit: Kit,
        solver: caffe_pb2.SolverParameter,
        start: Snapshot | None,
        progress: Callable[[Progress], None],
        say: Callable[[str], None],
    ) -> None:
        """Prepare to watch.

        Args:
            kit: the training folder.
            solver: as Caffe gets it.
            start: the snapshot that Caffe continues from.
            progress: called at each iteration that Caffe shows.
            say: called with lines for the user.
        """
        self._kit, self._solver, self._progress, self._say = kit, solver, progress, say
        self._metrics = Metrics(kit.folder)
        self._good = start
        self._unchecked: Snapshot | None = None
        self._spoilt: int | None = None
        self._step = Step(start.iteration if start else 0, math.nan, math.nan)
        self._paces: list[tuple[int, float]] = []
        self._interrupted = False
        self._skipped = 0

    def run(self, prefix: Path, arguments: list[str], lock: int | None, environment: dict[str, str]) -> Trained:
        """Run Caffe to its end.

        Args:
            prefix: where Caffe is installed.
            arguments: of the program `caffe`.
            lock: file descriptor of the folder's lock, which Caffe holds too.
            environment: variables that Caffe gets beside this process' own.

        Raises:
            CaffeError: Caffe stops, or the loss is NaN or Inf.
            OutputError: a snapshot or a file cannot be written.
        """
        folder, began = self._kit.folder, time.monotonic()
        if self._metrics.problem:
            self._say(f"no loss.png is drawn: {self._metrics.problem}")
        with (
            self._without_spoilt_snapshots(),
            (folder / LOG).open("a", encoding="utf-8", buffering=1) as log,
            self._metrics,
            CaffeProcess(prefix, arguments, folder=folder, environment=environment, keep_open=lock) as caffe,
            on_interrupt(lambda: self._interrupt(caffe)),
        ):
            reader = LogReader()
            for line in caffe.lines():
                log.write(line)
                event = reader.read(line)
                if event is not None:
                    self._handle(event)
            try:
                caffe.finish(str(folder / SOLVER_TRAIN))
            except CaffeError as error:
                if self._unchecked is None:
                    raise
                raise self._bad(self._unchecked, str(error)) from error
            self._check_snapshot()
            self._metrics.draw()
        done = self._solver.max_iter if not self._interrupted else self._good.iteration if self._good else 0
        finished = done == self._solver.max_iter  # also where Ctrl-C came in the last iteration
        seconds = time.monotonic() - began
        return Trained(done, last_loss(folder, done), finished, self._good, self._skipped, seconds)

    @contextlib.contextmanager
    def _without_spoilt_snapshots(self) -> Iterator[None]:
        """Once Caffe has ended for a loss of NaN or Inf, remove what it wrote before it could be stopped.

        It trains on until its log is read, and may reach the next snapshot, of weights that are NaN.
        """
        try:
            yield
        except CaffeError:
            if self._spoilt is not None:
                self._remove_spoilt(self._spoilt)
            raise

    def _remove_spoilt(self, iteration: int) -> None:
        for snapshot in find_snapshots(self._kit.folder, self._solver):
            if snapshot.iteration >= iteration and flaw(snapshot, self._kit.train.net, self._solver):
                snapshot.state.unlink(missing_ok=True)
                snapshot.model.unlink(missing_ok=True)

    def _interrupt(self, caffe: CaffeProcess) -> None:
        self._interrupted = True
        self._say("stopping after this iteration, with a snapshot; press Ctrl-C again to stop at once")
        caffe.interrupt()

    def _handle(self, event: Event) -> None:
        if isinstance(event, (Step, Scored)):
            self._check_snapshot()  # Caffe trains again, so it has finished writing
        if isinstance(event, Step):
            self._shown(event)
        elif isinstance(event, Scored):
            self._metrics.scored(event)
            self._say(f"iteration {event.iteration}: {event.name} = {event.value:.4f}")
        elif isinstance(event, Skipped):
            self._skipped += 1
            if self._skipped <= _MOST_SAID:
                self._say(f"{event.what}; record skipped")
        else:
            self._unchecked = snapshot_at(self._kit.folder, self._solver, event.iteration)

    def _shown(self, step: Step) -> None:
        rate = self._step.rate if math.isnan(step.rate) else step.rate
        self._step = Step(step.iteration, step.loss, rate)
        now = time.monotonic()
        self._paces = [*self._paces[-_PACES:], (step.iteration, now)]
        first, then = self._paces[0]
        pace = (now - then) / (step.iteration - first) if step.iteration > first else math.nan
        if not math.isfinite(step.loss):
            self._spoilt = step.iteration
            raise CaffeError(
                f"the loss is {step.loss} at iteration {step.iteration}, so training was stopped; {self._last_good()}; "
                f"lower base_lr in {self._kit.folder / SOLVER_TRAIN}"
            )
        self._metrics.step(step)
        total = self._solver.max_iter
        self._progress(Progress(step.iteration, total, step.loss, rate, pace * (total - step.iteration)))

    def _check_snapshot(self) -> None:
        """Look at the snapshot that Caffe has written; on a full disk it is cut short, and Caffe reports nothing.

        Raises:
            OutputError: training cannot be resumed from it.
        """
        snapshot, self._unchecked = self._unchecked, None
        if snapshot is None:
            return
        wrong = flaw(snapshot, self._kit.train.net, self._solver)
        if wrong:
            raise self._bad(snapshot, wrong)
        self._good = snapshot

    def _bad(self, snapshot: Snapshot, why: str) -> OutputError:
        free = shutil.disk_usage(self._kit.folder).free
        needed = bytes_of_snapshot(self._kit.train.net, self._solver)
        full = f" (the disk has {free >> 20} MiB left)" if free < needed else ""
        return OutputError(
            f"the snapshot of iteration {snapshot.iteration} is damaged, so training was stopped{full}: {why}; "
            f"{self._last_good()}"
        )

    def _last_good(self) -> str:
        return f"the last whole snapshot is {self._good.state}" if self._good else "there is no whole snapshot"
