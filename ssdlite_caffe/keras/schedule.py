"""Learning rates, as a function of the step alone, so that a resumed training goes on where it stood."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Kind = Literal["cosine", "step", "constant"]


@dataclass(frozen=True)
class Schedule:
    """A learning rate over a training.

    Attributes:
        base: the highest rate.
        steps: of the training.
        kind: cosine: base * (1 + cos(pi * t)) / 2, t from 0 at the end of the warm-up to 1 at the last step;
            step: base times `factor` for every one of `drops` that lies behind; constant.
        warmup: steps over which the rate rises in a line from base / 10.
        drops: steps.
        factor: see `kind`.
    """

    base: float
    steps: int
    kind: Kind = "cosine"
    warmup: int = 0
    drops: tuple[int, ...] = ()
    factor: float = 0.1

    def at(self, step: int) -> float:
        """The rate of a step, the first being 0."""
        if step < self.warmup:
            return self.base * (0.1 + 0.9 * step / self.warmup)
        if self.kind == "cosine":
            done = (step - self.warmup) / max(1, self.steps - self.warmup)
            return self.base * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
        if self.kind == "step":
            return self.base * math.pow(self.factor, sum(drop <= step for drop in self.drops))
        return self.base
