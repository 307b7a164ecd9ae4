"""Axis moves, folds and box folds against plain formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdlite_caffe.errors import TensorError
from ssdlite_caffe.load import boxes, fold, layouts


def distinct(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


sizes = st.integers(1, 5)


@given(sizes, sizes, sizes, sizes)
def test_conv_kernel_moves_every_value(h: int, w: int, i: int, o: int) -> None:
    kernel = distinct(h, w, i, o)
    moved = layouts.conv_kernel(kernel)
    assert moved.shape == (o, i, h, w)
    assert moved.flags.c_contiguous
    for index in np.ndindex(h, w, i, o):
        y, x, c, n = index
        assert moved[n, c, y, x] == kernel[index]


@given(sizes, sizes, sizes, st.integers(1, 3))
def test_depthwise_kernel_puts_the_multiplier_inside_the_group(h: int, w: int, c: int, m: int) -> None:
    kernel = distinct(h, w, c, m)
    moved = layouts.depthwise_kernel(kernel)
    assert moved.shape == (c * m, 1, h, w)
    for index in np.ndindex(h, w, c, m):
        y, x, channel, multiple = index
        assert moved[channel * m + multiple, 0, y, x] == kernel[index]


@pytest.mark.parametrize("move", [layouts.conv_kernel, layouts.depthwise_kernel])
def test_a_kernel_of_another_rank_is_refused(move) -> None:
    with pytest.raises(TensorError, match=r"4 axes.*\(2, 3\)"):
        move(distinct(2, 3))


def test_reversing_channels_twice_is_nothing() -> None:
    kernel = distinct(2, 3, 4, 5)
    once = layouts.reverse_input_channels(kernel)
    assert np.array_equal(once[:, 0], kernel[:, 2])
    assert np.array_equal(layouts.reverse_input_channels(once), kernel)


@given(st.integers(0, 2), st.integers(0, 2))
def test_enlarged_kernel_keeps_its_values_at_the_end(top: int, left: int) -> None:
    kernel = distinct(2, 3, 3, 5) + 1
    larger = layouts.enlarge_kernel(kernel, (3 + top, 5 + left))
    assert np.array_equal(larger[:, :, top:, left:], kernel)
    assert np.count_nonzero(larger) == kernel.size


def test_a_kernel_cannot_shrink() -> None:
    with pytest.raises(TensorError, match="3x5 kernel cannot be enlarged to 3x4"):
        layouts.enlarge_kernel(distinct(1, 1, 3, 5), (3, 4))


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


box_sizes = st.lists(st.tuples(st.floats(0.02, 1.5), st.floats(0.02, 1.5)), min_size=1, max_size=7)


@settings(max_examples=60)
@given(box_sizes, st.data())
def test_any_shapes_and_order_decode_to_the_same_boxes(tf_sizes, data) -> None:
    caffe_sizes = data.draw(st.lists(st.tuples(st.floats(0.02, 1.5), st.floats(0.02, 1.5)),
                                     min_size=len(tf_sizes), max_size=len(tf_sizes)))  # fmt: skip
    seed = data.draw(st.integers(0, 10**6))
    coder = data.draw(st.sampled_from([(10.0, 10.0, 5.0, 5.0), (4.0, 8.0, 2.0, 3.0), (1.0, 1.0, 1.0, 1.0)]))
    variances = data.draw(st.sampled_from([(0.1, 0.1, 0.2, 0.2), (0.125, 0.25, 1 / 3, 0.5)]))
    k = len(tf_sizes)
    random = np.random.default_rng(seed)
    kernel = random.normal(size=(k * 4, 2, 1, 1)).astype(np.float32)
    bias = random.normal(size=k * 4).astype(np.float32)
    x = random.normal(size=2)
    match = boxes.match_cell(tuple(tf_sizes), tuple(caffe_sizes))
    assert sorted(match.source) == list(range(k))
    moved, offset = boxes.box_predictor_rows(kernel, bias, match, coder, variances)

    tf_codes = (kernel[:, :, 0, 0].astype(np.float64) @ x + bias).reshape(k, 4)
    caffe_codes = (moved[:, :, 0, 0].astype(np.float64) @ x + offset).reshape(k, 4)
    for c, t in enumerate(match.source):
        (th, tw), (ch, cw) = tf_sizes[t], caffe_sizes[c]
        ty, tx, tlh, tlw = tf_codes[t] / coder
        cx, cy, clw, clh = caffe_codes[c] * variances
        assert cx * cw == pytest.approx(tx * tw, rel=1e-5, abs=3e-6)
        assert cy * ch == pytest.approx(ty * th, rel=1e-5, abs=3e-6)
        assert np.exp(clw) * cw == pytest.approx(np.exp(tlw) * tw, rel=1e-5)
        assert np.exp(clh) * ch == pytest.approx(np.exp(tlh) * th, rel=1e-5)


def test_equal_boxes_are_moved_bit_for_bit() -> None:
    tf_sizes = ((0.1, 0.1), (0.2, 0.4), (0.4, 0.2))
    caffe_sizes = ((0.1, 0.1), (0.4 * (1 + 1e-7), 0.2), (0.2, 0.4))
    match = boxes.match_cell(tf_sizes, caffe_sizes)
    assert match == boxes.CellMatch((0, 2, 1), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0))
    kernel, bias = distinct(12, 2, 1, 1) / 7, distinct(12) / 3
    moved, offset = boxes.box_predictor_rows(kernel, bias, match, (10, 10, 5, 5), (0.1, 0.1, 0.2, 0.2))
    rows = [1, 0, 3, 2, 9, 8, 11, 10, 5, 4, 7, 6]
    assert np.array_equal(moved, kernel[rows])
    assert np.array_equal(offset, bias[rows])


def test_class_rows_follow_their_box() -> None:
    match = boxes.CellMatch((2, 0, 1), (1.0,) * 3, (1.0,) * 3)
    kernel, bias = distinct(15, 1, 1, 1), distinct(15)
    moved, offset = boxes.class_predictor_rows(kernel, bias, match, 5, 1.0)
    assert offset.tolist() == [*range(10, 15), *range(5), *range(5, 10)]
    assert np.array_equal(moved[:, 0, 0, 0], offset)
    scaled, _ = boxes.class_predictor_rows(kernel, bias, match, 5, 0.5)
    assert np.array_equal(scaled, moved / 2)
