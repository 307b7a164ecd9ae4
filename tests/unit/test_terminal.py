"""What people read at a terminal: sizes, times, and a share of work that never falls."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdlite_caffe.terminal import Share, duration_text, size_text
from ssdlite_caffe.tools.lint_report import count_text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB"),
        (3_927_987, "3.9 MB"), (1_234_567_890, "1.2 GB"), (5 * 10**12, "5.0 TB"),
    ],
)  # fmt: skip
def test_sizes(count: int, text: str) -> None:
    assert size_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (61, "1 min 1 s"), (3725, "1 h 2 min")]
)
def test_times(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, ""), (999, "999"), (1000, "1.0 k"), (99_949, "99.9 k"), (99_950, "100 k"), (999_499, "999 k"),
        (999_500, "1.0 M"), (34_560_000, "34.6 M"), (18_454_422_912, "18.5 G"),
    ],
)  # fmt: skip
def test_counts(number: int, text: str) -> None:
    assert count_text(number) == text


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50))))
def test_a_share_never_falls_and_never_passes_one(steps: list[tuple[int, int]]) -> None:
    share, before = Share(), 0.0
    for done, total in steps:
        now = share.update(done, total)
        assert before <= now <= 1
        assert total == 0 or now >= min(1, done / total)
        before = now
