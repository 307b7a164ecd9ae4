"""Caffe's size formulas against counting windows one by one."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdlite_caffe.prototxt import sizes
from ssdlite_caffe.prototxt.sizes import ShapeError

SIZE = st.integers(1, 40)
KERNEL = st.integers(1, 7)
STRIDE = st.integers(1, 4)
PAD = st.integers(0, 6)


def windows(length, extent, stride):
    """Starts of all windows that lie inside."""
    return [start for start in range(0, length, stride) if start + extent <= length]


@given(SIZE, KERNEL, STRIDE, PAD, st.integers(1, 3))
def test_conv_size_counts_windows(size, kernel, stride, pad, dilation):
    extent = dilation * (kernel - 1) + 1
    expected = len(windows(size + 2 * pad, extent, stride))
    if expected:
        assert sizes.conv_size(size, kernel, stride=stride, pad=pad, dilation=dilation) == expected
    else:
        with pytest.raises(ShapeError):
            sizes.conv_size(size, kernel, stride=stride, pad=pad, dilation=dilation)


@given(SIZE, KERNEL, STRIDE, PAD, st.integers(1, 3))
def test_deconv_size_is_the_span_of_all_windows_less_the_padding(size, kernel, stride, pad, dilation):
    touched = [place * stride + tap * dilation for place in range(size) for tap in range(kernel)]
    assert sizes.deconv_size(size, kernel, stride=stride, pad=pad, dilation=dilation) == max(touched) + 1 - 2 * pad


@given(SIZE, STRIDE)
def test_same_size_counts_every_start(size, stride):
    assert sizes.same_size(size, stride) == len(range(0, size, stride))


@given(SIZE, KERNEL, STRIDE, PAD, st.booleans())
def test_pool_size_counts_windows(size, kernel, stride, pad, ceil):
    pad = min(pad, kernel - 1)
    length = size + 2 * pad
    if kernel > length:
        with pytest.raises(ShapeError):
            sizes.pool_size(size, kernel, stride=stride, pad=pad, ceil=ceil)
        return
    starts = windows(length, kernel, stride)
    if ceil and starts[-1] + kernel < length:
        starts.append(starts[-1] + stride)  # a window cut short takes what is left
    if pad:
        starts = [start for start in starts if start < size + pad]
    assert sizes.pool_size(size, kernel, stride=stride, pad=pad, ceil=ceil) == len(starts)


@pytest.mark.parametrize(
    ("dims", "axis", "num_axes", "expected"),
    [
        ([2, 2, 4], 0, -1, (2, 2, 4)),
        ([0, 2, 4], 0, -1, (2, 2, 4)),
        ([0, 2, -1], 0, -1, (2, 2, 4)),
        ([0, -1, 4], 0, -1, (2, 2, 4)),
        ([2, 4], 1, -1, (2, 2, 4)),
        ([2, 4], -1, -1, None),
        ([2, 4], -2, -1, (2, 2, 4)),
        ([1, 2, 8], 0, -1, (1, 2, 8)),
        ([1, 2], 0, 1, (1, 2, 8)),
        ([1], 0, 0, (1, 2, 8)),
        ([1], 1, 0, (2, 1, 8)),
        ([1], -1, 0, (2, 8, 1)),
        ([-1], 0, -1, (16,)),
        ([], 0, -1, None),
        ([3, -1], 0, -1, None),
        ([-1, -1], 0, -1, None),
        ([-2, 8], 0, -1, None),
        ([2, 9], 0, -1, None),
        ([2, 8, 0], 0, -1, None),
        ([16], 3, -1, None),
        ([16], 0, 3, None),
        ([1] * 33, 0, -1, None),
    ],
)
def test_reshape_of_2_x_8(dims, axis, num_axes, expected):
    if expected is None:
        with pytest.raises(ShapeError):
            sizes.reshape((2, 8), dims, axis, num_axes)
    else:
        assert sizes.reshape((2, 8), dims, axis, num_axes) == expected


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple), st.data())
def test_reshape_keeps_the_count(shape, data):
    kept = data.draw(st.integers(0, len(shape)))
    dims = [0] * kept + [-1]
    out = sizes.reshape(shape, dims)
    assert out == (*shape[:kept], math.prod(shape[kept:]))


@given(st.lists(st.sampled_from([1.0, 2.0, 0.5, 3.0, 1 / 3, 1.5]), max_size=6), st.booleans(), st.integers(1, 3))
def test_prior_count_counts_different_ratios(ratios, flip, min_sizes):
    listed = [1.0]
    for ratio in ratios:
        if not any(math.isclose(ratio, other, abs_tol=1e-6) for other in listed):
            listed += [ratio, 1 / ratio] if flip else [ratio]
    assert sizes.prior_count(min_sizes, 1, ratios, flip=flip) == min_sizes * len(listed) + 1


@given(st.integers(-6, 6), st.integers(0, 5))
def test_axis_index_is_that_of_a_list(axis, axes):
    try:
        expected = list(range(axes))[axis]
    except IndexError:
        with pytest.raises(ShapeError):
            sizes.axis_index(axis, axes)
    else:
        assert sizes.axis_index(axis, axes) == expected


@pytest.mark.parametrize("shape", [(1,) * 33, (0,), (3, -1), (2**16, 2**16)])
def test_shapes_no_blob_can_have(shape):
    with pytest.raises(ShapeError):
        sizes.check(shape)
