"""How a runtime's rounding errors are compared with the model's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ssdlite_caffe.tools.local_check import local_difference
from ssdlite_caffe.tools.proof import Rounding, Stage, ratios

NOTHING = local_difference(np.zeros(1), np.zeros(1), np.ones(1))


def stage(name: str, *roundings: Rounding) -> Stage:
    first, *others = (Stage(name, NOTHING, rounding) for rounding in roundings)
    for other in others:
        first = first.with_image(other)
    return first


def test_one_image_is_its_own_median() -> None:
    ratio = ratios([stage("conv", Rounding(3e-6, 1e-6, 1.0))])["conv"]
    assert ratio.largest == ratio.typical == ratio.judged == pytest.approx(3.0)


def test_little_rounding_of_the_model_in_one_image_is_chance() -> None:
    usual, lucky = Rounding(2e-6, 1e-6, 1.0), Rounding(9e-6, 1.5e-6, 1.0)
    ratio = ratios([stage("conv", usual, lucky, usual)])["conv"]
    assert ratio.largest == pytest.approx(6.0)
    assert ratio.typical == ratio.judged == pytest.approx(2.0)


def test_a_runtime_that_is_less_exact_in_most_images_is_so() -> None:
    much, little = Rounding(9e-6, 1e-6, 1.0), Rounding(1e-6, 1e-6, 1.0)
    ratio = ratios([stage("conv", much, much, little)])["conv"]
    assert ratio.judged == pytest.approx(9.0)


def test_the_rounding_of_layers_before_counts_in_each_image() -> None:
    before = stage("before", Rounding(1e-5, 1e-5, 1.0), Rounding(1e-6, 1e-6, 1.0))
    after = stage("after", Rounding(2e-5, 0.0, 1.0), Rounding(8e-6, 0.0, 1.0))
    found = ratios([before, after])["after"]
    assert found.largest == pytest.approx(2.0)
    assert found.typical == pytest.approx((2.0 + 8.0) / 2)


def test_nan_is_never_judged_equal() -> None:
    ratio = ratios([stage("boxes", replace(Rounding(0.0, 1e-6, 1.0), runtime=float("nan")))])["boxes"]
    assert not ratio.judged <= 4
