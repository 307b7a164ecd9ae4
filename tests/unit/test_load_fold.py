"""BatchNorm folded and rewritten, against plain formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdlite_caffe.load import fold

channels = st.integers(1, 6)


def norm_of(seed: int, c: int, epsilon: float = 1e-3) -> fold.BatchNorm:
    random = np.random.default_rng(seed)
    return fold.BatchNorm(
        random.normal(size=c).astype(np.float32),
        random.uniform(1e-4, 3, c).astype(np.float32),
        random.normal(1, 0.3, c).astype(np.float32),
        random.normal(size=c).astype(np.float32),
        epsilon,
    )


def apply(norm: fold.BatchNorm, x: np.ndarray) -> np.ndarray:
    """x: float64 (n, C)."""
    return (x - norm.mean) / np.sqrt(norm.variance.astype(np.float64) + norm.epsilon) * norm.gamma + norm.beta


@settings(max_examples=30)
@given(st.integers(0, 10**6), channels, st.booleans())
def test_folding_equals_convolution_then_norm(seed: int, c: int, with_bias: bool) -> None:
    random = np.random.default_rng(seed)
    kernel = random.normal(size=(c, 3, 1, 1)).astype(np.float32)
    bias = random.normal(size=c).astype(np.float32) if with_bias else None
    norm = norm_of(seed, c)
    folded, offset = fold.fold_into_convolution(kernel, bias, fold.affine_of(norm))
    x = random.normal(size=(7, 3))
    expected = apply(norm, x @ kernel[:, :, 0, 0].T.astype(np.float64) + (0 if bias is None else bias))
    got = x @ folded[:, :, 0, 0].T.astype(np.float64) + offset
    scale = np.abs(folded[:, :, 0, 0]).sum(1) + np.abs(offset) + 1
    assert np.max(np.abs(got - expected) / scale) < 1e-6


def test_each_value_is_rounded_once() -> None:
    """A scale that is rounded first, or a bias, gives other bits in about a third of the values."""
    random = np.random.default_rng(5)
    kernel = random.normal(size=(6, 40, 3, 3)).astype(np.float32)
    bias = random.normal(size=6).astype(np.float32)
    norm = norm_of(5, 6)
    scale = norm.gamma.astype(np.float64) / np.sqrt(norm.variance.astype(np.float64) + norm.epsilon)
    shift = norm.beta.astype(np.float64) - norm.mean.astype(np.float64) * scale
    folded, offset = fold.fold_into_convolution(kernel, bias, fold.affine_of(norm))
    assert folded.dtype == offset.dtype == np.float32
    wide = kernel.astype(np.float64) * scale[:, None, None, None]
    np.testing.assert_array_equal(folded, wide.astype(np.float32))
    np.testing.assert_array_equal(offset, (bias.astype(np.float64) * scale + shift).astype(np.float32))
    assert (folded != kernel * scale.astype(np.float32)[:, None, None, None]).any()


@given(st.integers(0, 10**6), channels, st.sampled_from([1e-5, 1e-3, 1e-2, 0.5]))
def test_a_scale_and_an_offset_as_a_norm(seed: int, c: int, epsilon: float) -> None:
    random = np.random.default_rng(seed)
    affine = fold.Affine(random.normal(size=c), random.normal(size=c))
    norm = fold.as_batch_norm(affine, epsilon)
    assert norm.epsilon == epsilon
    assert not norm.mean.any()
    x = random.normal(size=(5, c))
    # The norm's four parts are float32. Measured over 3000 seeds: 3.7e-7.
    np.testing.assert_allclose(apply(norm, x), x * affine.scale + affine.offset, rtol=0, atol=1e-6)


def test_the_rounding_of_its_variance_is_divided_out() -> None:
    """0.999 in float32 is 1.3e-8 too large: half of that is left in the scale where it is forgotten."""
    affine = fold.Affine(np.random.default_rng(0).uniform(0.5, 2, 100_000), np.zeros(100_000))
    found = fold.affine_of(fold.as_batch_norm(affine, 1e-3))
    assert abs(np.mean(found.scale / affine.scale - 1)) < 1e-9  # measured 1e-10, and 6.4e-9 without


@settings(max_examples=30)
@given(st.integers(0, 10**6), channels, st.sampled_from([1e-5, 1e-3, 1e-2, 0.5]))
def test_another_epsilon_is_the_same_function(seed: int, c: int, epsilon: float) -> None:
    norm = norm_of(seed, c)
    other = fold.with_epsilon(norm, epsilon)
    assert other.epsilon == pytest.approx(epsilon)
    assert np.all(other.variance >= 0)
    x = np.random.default_rng(seed).normal(size=(9, c))
    scale = np.abs(fold.affine_of(norm).scale) * (np.abs(norm.mean) + 3) + np.abs(norm.beta) + 1
    # A variance near 1e-4 rounds relative to variance + epsilon: 6e-8 of 1e-3 at worst, so 1e-6 holds.
    assert np.max(np.abs(apply(other, x) - apply(norm, x)) / scale) < 1e-6


def test_the_same_epsilon_moves_the_statistics() -> None:
    norm = norm_of(1, 4)
    assert fold.with_epsilon(norm, float(np.float32(1e-3))) is norm


@given(st.integers(0, 10**6), channels)
def test_a_bias_before_a_norm_moves_into_the_mean(seed: int, c: int) -> None:
    norm = norm_of(seed, c)
    bias = np.random.default_rng(seed).normal(size=c).astype(np.float32)
    x = np.zeros((1, c))
    difference = apply(fold.absorb_bias(norm, bias), x) - apply(norm, x + bias)
    assert np.max(np.abs(difference) / (np.abs(fold.affine_of(norm).scale) + 1)) < 1e-6


@pytest.mark.parametrize("group", [1, 2, 3])
def test_a_deconvolution(group: int) -> None:
    """By the definition: input i of group g spreads into output g * (O / group) + j by kernel[i, j]."""
    random = np.random.default_rng(group)
    inputs, outputs = 6, 4
    kernel = random.normal(0, 1, (inputs, outputs, 3, 2)).astype(np.float32)
    bias = random.normal(0, 1, outputs * group).astype(np.float32)
    affine = fold.Affine(random.uniform(0.5, 2, outputs * group), random.normal(0, 1, outputs * group))
    x = random.normal(0, 1, inputs)

    def run(kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
        y = np.tile(bias.astype(np.float64)[:, None, None], (1, 3, 2))
        for i in range(inputs):
            for j in range(outputs):
                y[i // (inputs // group) * outputs + j] += x[i] * kernel[i, j]
        return y

    found = run(*fold.fold_into_deconvolution(kernel, bias, affine, group=group))
    expected = run(kernel, bias) * affine.scale[:, None, None] + affine.offset[:, None, None]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="scales for"):
        fold.fold_into_deconvolution(kernel, bias, fold.Affine(np.ones(5), np.ones(5)), group=group)


@pytest.mark.parametrize("transposed", [False, True])
def test_an_inner_product(transposed: bool) -> None:
    random = np.random.default_rng(3)
    weights = random.normal(0, 1, (4, 7)).astype(np.float32)
    affine = fold.Affine(random.uniform(0.5, 2, 4), random.normal(0, 1, 4))
    x = random.normal(0, 1, 7)
    given = weights.T if transposed else weights[None, None]  # as in files from before 2014
    found, bias = fold.fold_into_inner_product(np.ascontiguousarray(given), None, affine, transposed=transposed)
    product = x @ found if transposed else found @ x
    np.testing.assert_allclose(product + bias, (weights @ x) * affine.scale + affine.offset, rtol=1e-5, atol=1e-6)


def test_a_chain_is_one_after_the_other() -> None:
    first, second = fold.Affine(np.array([2.0]), np.array([3.0])), fold.Affine(np.array([5.0]), np.array([7.0]))
    both = fold.chained(first, second)
    assert (both.scale[0], both.offset[0]) == (10, 22)
