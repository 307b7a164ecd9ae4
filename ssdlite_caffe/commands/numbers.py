"""Checks of numbers that typer does not make."""

from __future__ import annotations

import math

import typer

_INT32 = 2**31 - 1
"""Largest number in Caffe's messages."""


def finite(value: float) -> float:
    """A callback of options: the value, where it is a number.

    Raises:
        typer.BadParameter: it is NaN or infinite.
    """
    if not math.isfinite(value):
        raise typer.BadParameter(f"must be a finite number, got {value}")
    return value


def int32(value: int | None) -> int | None:
    """A callback of options: the value, where Caffe can hold it.

    Raises:
        typer.BadParameter: it is too large.
    """
    if value is not None and value > _INT32:
        raise typer.BadParameter(f"must be at most {_INT32}, got {value}")
    return value


def learning_rate_drops(text: str, iterations: int) -> tuple[int, ...]:
    """The value of --drops: iterations at which the learning rate drops; empty text means none.

    Args:
        text: numbers with commas, as 20000,40000.
        iterations: of the training.

    Raises:
        typer.BadParameter: these are not whole numbers in rising order, or lie beyond the end.
    """
    parts = text.split(",") if text else []
    if not all(part.isascii() and part.isdecimal() and len(part) < 10 for part in parts):
        raise typer.BadParameter(f"--drops must be whole numbers with commas, like 20000,40000, got {text!r}")
    drops = tuple(map(int, parts))
    if list(drops) != sorted(set(drops)):
        raise typer.BadParameter(f"--drops must be in rising order, got {text!r}")
    if drops and drops[-1] >= iterations:
        raise typer.BadParameter(f"--drops must lie before the end, {iterations} iterations, got {drops[-1]}")
    return drops
