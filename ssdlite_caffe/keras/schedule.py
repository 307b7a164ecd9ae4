"""Learning rates as a function of the iteration alone, so that a resumed training continues where it was."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Kind = Literal["cosine", "step", "constant"]


@dataclass(frozen=True)
class Schedule:
    """The learning rates of a training.

    Attributes:
        base: the highest learning rate.
        iterations: of the training.
        kind: cosine: base * (1 + cos(pi * t)) / 2, t from 0 at the end of the warm-up to 1 at the end of the training;
            step: base times `factor` for each of `drops` that is reached; constant: base.
        warmup: iterations over which the rate rises linearly from base / 10.
        drops: iterations.
        factor: see `kind`.
    """

    base: float
    iterations: int
    kind: Kind = "cosine"
    warmup: int = 0
    drops: tuple[int, ...] = ()
    factor: float = 0.1

    def at(self, iteration: int) -> float:
        """The learning rate of an iteration, counted from 0."""
        if iteration < self.warmup:
            return self.base * (0.1 + 0.9 * iteration / self.warmup)
        if self.kind == "cosine":
            done = (iteration - self.warmup) / max(1, self.iterations - self.warmup)
            return self.base * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
        if self.kind == "step":
            return self.base * math.pow(self.factor, sum(drop <= iteration for drop in self.drops))
        return self.base


def extension(was: Schedule, now: Schedule, iteration: int) -> str:
    """What another number of iterations does to a training resumed at `iteration`, for a message."""
    lengths = f"{now.iterations} in place of {was.iterations} iterations"
    before, after = was.at(iteration), now.at(iteration)
    if before == after:
        return f"{lengths}: the learning rate stays as it was planned"
    return (
        f"{lengths}: the learning rate follows the {now.kind} schedule of {now.iterations}, so it continues at "
        f"{after:.3g}, not at {before:.3g}"
    )
