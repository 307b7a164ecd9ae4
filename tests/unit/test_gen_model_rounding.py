from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdlite_caffe.gen_model.rounding import make_divisible, truncate


@pytest.mark.parametrize(
    ("value", "least", "expected"),
    [
        (16 * 0.35, None, 8),
        (24 * 0.35, None, 8),
        (1280 * 0.35, None, 448),
        (24 * 1.4, None, 32),
        (32 * 1.4, None, 48),
        (11.9, None, 16),  # 8 would be more than 10% below
        (12, None, 16),  # halves go up
        (9.4, None, 16),  # 8 is 15% below
        (100, None, 104),
        (16 * 0.35, 16, 16),
        (16 * 0.35, 3, 8),
        (3, 3, 3),  # the least need not be a multiple
    ],
)
def test_make_divisible_known(value: float, least: int | None, expected: int) -> None:
    assert make_divisible(value, 8, least) == expected


@given(st.floats(1, 5000), st.sampled_from([1, 4, 8, 16]))
def test_make_divisible_never_far_below(value: float, divisor: int) -> None:
    rounded = make_divisible(value, divisor)
    assert rounded % divisor == 0
    assert rounded >= 0.9 * value
    assert rounded - value < divisor


def test_truncate() -> None:
    assert truncate(512 * 0.35, 16) == 179
    assert truncate(32 * 0.25, 16) == 16
