"""Paddings against a naive convolution; kernels, strides and sizes differ on the two axes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ssdlite_caffe.errors import ArchError
from ssdlite_caffe.gen_model.netdesc import Padding
from ssdlite_caffe.gen_model.padding import (
    ExactAxis,
    SliceAxis,
    exact_axis,
    explicit_padding,
    out_axis,
    output_size,
    same_axis,
    same_padding,
    slice_axis,
    spread_axis,
    symmetric_axis,
)

Pair = tuple[int, int]


def pairs(least: int, most: int) -> st.SearchStrategy[Pair]:
    return st.tuples(st.integers(least, most), st.integers(least, most))


def convolve(image: np.ndarray, kernel: np.ndarray, stride: Pair, dilation: Pair = (1, 1)) -> np.ndarray:
    """VALID windows of integers, one by one."""
    spans = [(k - 1) * d + 1 for k, d in zip(kernel.shape, dilation, strict=True)]
    rows = range(0, image.shape[0] - spans[0] + 1, stride[0])
    columns = range(0, image.shape[1] - spans[1] + 1, stride[1])
    out = np.zeros((len(rows), len(columns)), np.int64)
    for i, y in enumerate(rows):
        for j, x in enumerate(columns):
            window = image[y : y + spans[0] : dilation[0], x : x + spans[1] : dilation[1]]
            out[i, j] = (window * kernel).sum()
    return out


def zeros_around(image: np.ndarray, padding: Padding) -> np.ndarray:
    return np.pad(image, ((padding.top, padding.bottom), (padding.left, padding.right)))


def data(size: Pair, kernel: Pair) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values everywhere."""
    return (
        np.arange(1, size[0] * size[1] + 1).reshape(size) ** 2,
        np.arange(1, kernel[0] * kernel[1] + 1).reshape(kernel) * 7 + 3,
    )


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [
        (300, 3, 2, (0, 1)),
        (150, 3, 2, (0, 1)),
        (75, 3, 2, (1, 1)),
        (19, 3, 1, (1, 1)),
        (160, 5, 2, (1, 2)),
        (9, 1, 2, (0, 0)),
    ],
)
def test_same_known(size: int, kernel: int, stride: int, expected: Pair) -> None:
    assert same_axis(size, kernel, stride) == expected


@given(pairs(1, 40), pairs(1, 7), pairs(1, 3), pairs(1, 2))
def test_same_gives_the_rounded_up_size(size: Pair, kernel: Pair, stride: Pair, dilation: Pair) -> None:
    padding = same_padding(size, kernel, stride, dilation)
    assert output_size(size, kernel, stride, padding, dilation) == (-(-size[0] // stride[0]), -(-size[1] // stride[1]))
    assert 0 <= padding.bottom - padding.top <= 1
    assert 0 <= padding.right - padding.left <= 1


def test_explicit_looks_at_the_kernel_alone() -> None:
    assert explicit_padding((3, 5)) == Padding(1, 1, 2, 2)
    assert explicit_padding((4, 3), (1, 2)) == Padding(1, 2, 2, 2)


@given(pairs(2, 14), pairs(1, 6), pairs(1, 3))
def test_exact_is_the_same_convolution(size: Pair, kernel: Pair, stride: Pair) -> None:
    padding = same_padding(size, kernel, stride)
    high = exact_axis(size[0], kernel[0], stride[0], padding.top, padding.bottom)
    wide = exact_axis(size[1], kernel[1], stride[1], padding.left, padding.right)
    image, taps = data(size, kernel)
    larger = np.pad(taps, ((high.zeros, 0), (wide.zeros, 0)))
    assert larger.shape == (high.kernel, wide.kernel)
    around = Padding(high.pad, high.pad, wide.pad, wide.pad)
    expected = convolve(zeros_around(image, padding), taps, stride)
    assert expected.size
    np.testing.assert_array_equal(convolve(zeros_around(image, around), larger, stride), expected)


@given(
    st.integers(1, 20), st.integers(1, 6), st.integers(1, 4), st.integers(0, 3), st.integers(0, 4), st.integers(1, 3)
)
def test_exact_for_any_zeros_and_dilation(
    size: int, kernel: int, stride: int, before: int, more: int, dilation: int
) -> None:
    after = before + more
    assume(out_axis(size, kernel, stride, before, after, dilation) >= 1)
    try:
        axis = exact_axis(size, kernel, stride, before, after, dilation)
    except ArchError:
        assert dilation > 1
        return
    image, taps = data((1, size), (1, kernel))
    larger = np.pad(taps, ((0, 0), (axis.zeros, 0)))
    expected = convolve(zeros_around(image, Padding(0, 0, before, after)), taps, (1, stride), (1, dilation))
    found = convolve(zeros_around(image, Padding(0, 0, axis.pad, axis.pad)), larger, (1, stride), (1, dilation))
    np.testing.assert_array_equal(found, expected)


def test_exact_under_dilation_known() -> None:
    """A zero tap spans as many pixels as the dilation says, and so grows the pad."""
    assert exact_axis(10, 3, 2, 1, 2, 2) == ExactAxis(4, 3, 1)
    assert exact_axis(10, 3, 2, 0, 1, 1) == ExactAxis(4, 1, 1)


@given(pairs(2, 14), pairs(1, 6), pairs(1, 3))
def test_slice_cuts_to_the_same_convolution(size: Pair, kernel: Pair, stride: Pair) -> None:
    padding = same_padding(size, kernel, stride)
    high = slice_axis(size[0], kernel[0], stride[0], padding.top, padding.bottom)
    wide = slice_axis(size[1], kernel[1], stride[1], padding.left, padding.right)
    image, taps = data(size, kernel)
    around = Padding(high.pad, high.pad, wide.pad, wide.pad)
    whole = convolve(zeros_around(image, around), taps, stride)
    assert whole.shape == tuple(a.drop_before + a.keep + a.drop_after for a in (high, wide))
    kept = whole[high.drop_before :, wide.drop_before :][: high.keep, : wide.keep]
    np.testing.assert_array_equal(kept, convolve(zeros_around(image, padding), taps, stride))
    assert high.whole == (padding.top == padding.bottom)


@given(st.integers(1, 40), st.integers(1, 7), st.integers(2, 3))
def test_symmetric_keeps_the_size(size: int, kernel: int, stride: int) -> None:
    before, after = same_axis(size, kernel, stride)
    pad = symmetric_axis(size, kernel, stride, before, after)
    assert out_axis(size, kernel, stride, pad, pad) == out_axis(size, kernel, stride, before, after)
    assert pad in (before, after)


def test_symmetric_is_the_public_nets_padding() -> None:
    assert symmetric_axis(300, 3, 2, 0, 1) == 1


def test_symmetric_takes_the_larger_where_both_do() -> None:
    """Windows of 4 at every third pixel of 5 with zeros (1, 2): two, and two with 1 or with 2 zeros on both sides."""
    assert out_axis(5, 4, 3, 1, 2) == out_axis(5, 4, 3, 1, 1) == out_axis(5, 4, 3, 2, 2) == 2
    assert symmetric_axis(5, 4, 3, 1, 2) == 2


def test_slice_is_the_least() -> None:
    assert slice_axis(300, 3, 2, 0, 1) == SliceAxis(2, 1, 150, 0)
    assert slice_axis(19, 3, 1, 1, 1) == SliceAxis(1, 0, 19, 0)


def test_symmetric_impossible() -> None:
    with pytest.raises(ArchError, match="no symmetric padding"):
        symmetric_axis(10, 4, 1, 1, 2)


@given(st.integers(1, 4), st.integers(1, 7), st.integers(0, 4), st.integers(1, 2))
def test_spread_is_the_same_convolution(size: int, kernel: int, pad: int, dilation: int) -> None:
    assume(out_axis(size, kernel, 1, pad, pad, dilation) >= 1)
    wider, steps = spread_axis(size, kernel, pad, dilation)
    image, taps = data((1, size), (1, kernel))
    expected = convolve(zeros_around(image, Padding(0, 0, pad, pad)), taps, (1, 1), (1, dilation))
    found = convolve(zeros_around(image, Padding(0, 0, wider, wider)), taps, (1, 1), (1, steps))
    np.testing.assert_array_equal(found, expected)


def test_spread_only_where_the_middle_tap_is_alone() -> None:
    assert spread_axis(1, 3, 1, 1) == (2, 2)
    assert spread_axis(2, 3, 1, 1) == (1, 1)
    assert spread_axis(1, 1, 0, 1) == (0, 1)
