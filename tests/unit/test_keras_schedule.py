"""Learning rates over the steps."""

from __future__ import annotations

import pytest

from ssdlite_caffe.keras.schedule import Schedule


def test_cosine_with_warm_up() -> None:
    schedule = Schedule(2.0, 110, "cosine", warmup=10)
    rates = [schedule.at(step) for step in range(111)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[5] == pytest.approx(1.1)
    assert rates[10] == pytest.approx(2.0)
    assert rates[60] == pytest.approx(1.0)
    assert rates[110] == pytest.approx(0.0)
    assert max(rates) == rates[10]
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_steps() -> None:
    schedule = Schedule(1.0, 100, "step", drops=(10, 20))
    assert [schedule.at(step) for step in (0, 9, 10, 19, 20, 99)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert Schedule(0.5, 100, "constant").at(99) == 0.5
