"""Intervals that end with the training: Caffe logs and tests only at multiples of them, so others miss the end."""

from __future__ import annotations

TESTS = 10
"""Tests during a training, where its length can be divided by so many."""


def largest_divisor(total: int, most: int) -> int:
    """The largest divisor of `total`, 1 or more, that is `most` or less."""
    return next(size for size in range(min(most, total), 0, -1) if total % size == 0)


def default_test_interval(iterations: int) -> int:
    """Iterations between tests for as many tests as possible, up to TESTS, the last one at the end.

    A prime number of iterations has one test, at the end.
    """
    return iterations // largest_divisor(iterations, TESTS)
