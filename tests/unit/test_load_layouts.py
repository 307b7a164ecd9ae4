"""Axis moves against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdlite_caffe.errors import TensorError
from ssdlite_caffe.load import layouts


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
