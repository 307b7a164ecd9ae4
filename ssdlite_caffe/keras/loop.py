"""The iterations of a training, with what happens between them: metrics, checkpoints, tests, plot."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ssdlite_caffe.errors import TrainingError
from ssdlite_caffe.keras.devices import hosts
from ssdlite_caffe.keras.run_folder import PLOT, TENSORBOARD, Arrays, RunFolder
from ssdlite_caffe.keras.schedule import Schedule
from ssdlite_caffe.plots import draw_training, plotting_problem
from ssdlite_caffe.terminal import on_interrupt

if TYPE_CHECKING:
    from ssdlite_caffe.keras.model import KerasModel
    from ssdlite_caffe.keras.tensorboard import Board
    from ssdlite_caffe.keras.trainer import Trainer

Measure = Callable[["KerasModel"], Mapping[str, float]]
"""Tests a model: name of a measure -> value, as ap and ap50 in 0..1."""
_DRAW_EVERY = 20.0
"""Seconds, at least."""


@dataclass(frozen=True)
class Intervals:
    """How often something is done, in iterations; all of it is done at the end, too.

    Attributes:
        log: a line of metrics.
        checkpoint: a checkpoint.
        test: a test; 0: never.
    """

    log: int = 20
    checkpoint: int = 200
    test: int = 0


@dataclass(frozen=True)
class Progress:
    """How far a training is.

    Attributes:
        iteration: iterations done.
        iterations: of the training.
        loss: mean since the last line of metrics.
        rate: learning rate of the last iteration.
        speed: images/s since this process began to train.
        left: seconds.
    """

    iteration: int
    iterations: int
    loss: float
    rate: float
    speed: float
    left: float

    def __str__(self) -> str:
        minutes, seconds = divmod(int(self.left), 60)
        return (
            f"iteration {self.iteration} of {self.iterations}, loss {self.loss:.4f}, rate {self.rate:.2g}, "
            f"{self.speed:.1f} images/s, {minutes}:{seconds:02d} left"
        )


class Loop:
    """The iterations that a training has left."""

    def __init__(
        self,
        folder: RunFolder,
        trainer: Trainer,
        schedule: Schedule,
        intervals: Intervals,
        measure: Measure | None,
        progress: Callable[[str], None],
        say: Callable[[str], None],
    ) -> None:
        """Prepare to train.

        Args:
            folder: the training's folder.
            trainer: the model and its optimizer.
            schedule: learning rates.
            intervals: of logging, checkpoints and tests.
            measure: what a test does; None: there are no tests.
            progress: called with what is being done.
            say: called with lines for the user.
        """
        self._folder, self._trainer, self._schedule, self._intervals = folder, trainer, schedule, intervals
        self._measure = measure if folder.writes and intervals.test else None
        self._progress, self._say = progress, say
        self._window = np.zeros(4)
        """Iterations since the last line of metrics, and the sums of their losses."""
        self._drawn = 0.0
        self._draws = folder.writes and not plotting_problem()
        if folder.writes and not self._draws:
            say(f"no {PLOT} is drawn: {plotting_problem()}")

    def run(self) -> dict[str, Any]:
        """Train to the end; a report.

        Raises:
            TrainingError: the loss or weights are NaN or Inf, or the checkpoint to resume from does not fit.
            KeyboardInterrupt: Ctrl-C or SIGTERM; there is a checkpoint of the last whole iteration.
            SsdliteError: an image cannot be read, or a file cannot be written.
        """
        from ssdlite_caffe.keras.tensorboard import Board

        folder, trainer, schedule = self._folder, self._trainer, self._schedule
        first = self._resume()
        folder.cut_metrics(first)
        self._progress("tracing the first iteration")
        batches = trainer.batches(first) if first < schedule.iterations else None
        began, testing = time.monotonic(), 0.0
        stop = threading.Event()
        with contextlib.ExitStack() as opened:
            board = opened.enter_context(Board(folder.path / TENSORBOARD if folder.writes else None))
            if hosts(trainer.strategy) < 2:  # a host that ends early would leave the others waiting
                opened.enter_context(on_interrupt(stop.set))
            if first and not folder.tested(first):  # it was killed before its test
                testing += self._test_if_due(first, board)
            for iteration in range(first, schedule.iterations):
                rate = schedule.at(iteration)
                self._window += 1.0, *trainer.step(batches, iteration, rate)
                done = iteration + 1
                speed = (done - first) * trainer.options.batch / (time.monotonic() - began - testing)
                self._show(done, rate, speed)
                if self._due(done, self._intervals.log):
                    self._log(done, rate, speed, board)
                if self._due(done, self._intervals.checkpoint) or stop.is_set():
                    folder.save(done, {**_finite(trainer.state(), done), "window": self._window})
                    self._draw(last=done == schedule.iterations or stop.is_set())
                if stop.is_set() and done < schedule.iterations:
                    self._say(f"stopped at iteration {done} of {schedule.iterations}; --resume continues")
                    raise KeyboardInterrupt
                testing += self._test_if_due(done, board)
        self._draw(last=True)
        seconds = time.monotonic() - began
        return {"iterations": schedule.iterations, "resumed_at": first, "seconds": round(seconds, 1), **folder.last()}

    def _resume(self) -> int:
        """Restore the last checkpoint; the number of its iterations, 0 where there is none."""
        folder, trainer = self._folder, self._trainer
        known = folder.iterations()
        if not known:
            return 0
        arrays = folder.load(known[-1], like={**trainer.state(), "window": self._window})
        self._window = arrays.pop("window")
        trainer.restore(arrays)
        self._say(f"resuming from iteration {known[-1]}")
        return known[-1]

    def _due(self, done: int, interval: int) -> bool:
        return done % interval == 0 or done == self._schedule.iterations

    def _show(self, done: int, rate: float, speed: float) -> None:
        total = self._schedule.iterations
        loss = float(self._window[1:].sum() / self._window[0])
        left = (total - done) * self._trainer.options.batch / speed
        self._progress(str(Progress(done, total, loss, rate, speed, left)))

    def _log(self, done: int, rate: float, speed: float, board: Board) -> None:
        means = (self._window[1:] / self._window[0]).tolist()
        names = ("localisation", "classification", "regularisation")
        values = {"loss": sum(means), **dict(zip(names, means, strict=True)), "learning_rate": rate}
        self._folder.log({"iteration": done, **values, "images_per_second": round(speed, 2)})
        board.write(done, {**values, "images_per_second": speed})
        self._window = np.zeros(4)

    def _test_if_due(self, done: int, board: Board) -> float:
        """Test the model with its averaged weights; the seconds that it took."""
        if self._measure is None or not self._due(done, self._intervals.test):
            return 0.0
        began = time.monotonic()
        self._progress(f"testing at iteration {done}")
        measured = dict(self._measure(self._trainer.detector()))
        finite = {name: value for name, value in measured.items() if np.isfinite(value)}
        self._folder.log({"iteration": done, **{name: finite.get(name) for name in measured}})
        board.write(done, finite)
        self._say(f"iteration {done}: " + ", ".join(f"{name} {value:.4f}" for name, value in measured.items()))
        return time.monotonic() - began

    def _draw(self, *, last: bool) -> None:
        if not self._draws or (time.monotonic() - self._drawn < _DRAW_EVERY and not last):
            return
        losses: list[tuple[int, float]] = []
        rates: list[tuple[int, float]] = []
        tests: dict[str, list[tuple[int, float]]] = {}
        for line in self._folder.metrics():
            if "loss" in line:
                losses.append((line["iteration"], line["loss"]))
                rates.append((line["iteration"], line["learning_rate"]))
            else:
                for name, value in line.items():
                    if name != "iteration" and value is not None:
                        tests.setdefault(name, []).append((line["iteration"], value))
        draw_training(self._folder.path / PLOT, losses, rates, tests)
        self._drawn = time.monotonic()


def _finite(state: Arrays, done: int) -> Arrays:
    """The state.

    Raises:
        TrainingError: it has NaN or Inf, so that the next loss would, too.
    """
    wrong = sum(not np.isfinite(values).all() for values in state.values())
    if wrong:
        raise TrainingError(f"{wrong} variables have NaN or Inf after {done} iterations; lower --learning-rate")
    return state
