"""Resizing and normalising against a pixel-by-pixel reading of the formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdlite_caffe.runtimes.resize import caffe_blob, network_input, preprocess, resize_bilinear_legacy

SIDE = st.integers(1, 12)
F = np.float32


def naive(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    height, width = image.shape[:2]
    result = np.empty((*size, image.shape[2]), F)
    for y in range(size[0]):
        v = F(y) * (F(height) / F(size[0]))
        top, bottom, down = math.floor(v), min(math.ceil(v), height - 1), v - F(math.floor(v))
        for x in range(size[1]):
            u = F(x) * (F(width) / F(size[1]))
            left, right, across = math.floor(u), min(math.ceil(u), width - 1), u - F(math.floor(u))
            tl, tr, bl, br = (image[r, c].astype(F) for r in (top, bottom) for c in (left, right))
            above, below = tl + (tr - tl) * across, bl + (br - bl) * across
            result[y, x] = above + (below - above) * down
    return result


@given(height=SIDE, width=SIDE, size=st.tuples(SIDE, SIDE), whole=st.booleans(), seed=st.integers(0, 99))
def test_equals_the_formula_bit_for_bit(height: int, width: int, size: tuple[int, int], whole: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    image = random.uniform(0, 255, (height, width, 3)).astype(np.uint8 if whole else F)
    resized = resize_bilinear_legacy(image, size)
    assert resized.dtype == F
    np.testing.assert_array_equal(resized, naive(image, size), strict=True)


def test_input_is_left_alone_and_result_is_own() -> None:
    image = np.arange(24, dtype=F).reshape(2, 4, 3)
    before = image.copy()
    resize_bilinear_legacy(image, (2, 4))[:] = -1
    resize_bilinear_legacy(image, (5, 3))[:] = -1
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(("shape", "size"), [((4, 4), (2, 2)), ((0, 4, 3), (2, 2)), ((4, 4, 3), (0, 2))])
def test_refuses_what_has_no_pixels(shape: tuple[int, ...], size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="cannot resize"):
        resize_bilinear_legacy(np.zeros(shape, np.uint8), size)


def test_blob_is_bgr_planes_of_the_network_input() -> None:
    image = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    fed = network_input(image, (4, 6), mean=127.5, scale=1 / 127.5)
    assert fed.shape == (1, 4, 6, 3)
    blob = preprocess(image, (4, 6), mean=127.5, scale=1 / 127.5)
    assert blob.flags.c_contiguous
    assert blob.dtype == F
    for plane, channel in enumerate((2, 1, 0)):
        np.testing.assert_array_equal(blob[0, plane], fed[0, :, :, channel], strict=True)
    np.testing.assert_array_equal(caffe_blob(fed), blob, strict=True)


def test_pixels_become_minus_one_to_one() -> None:
    image = np.array([[[0, 127, 255]]], np.uint8)
    fed = network_input(image, (1, 1), mean=127.5, scale=1 / 127.5)
    np.testing.assert_allclose(fed[0, 0, 0], [-1, 2 / 255 * 127 - 1, 1], rtol=0, atol=6e-8)


def test_every_pixel_value_is_normalised_as_tensorflow_does() -> None:
    """Subtracted, then multiplied, each rounded to float32: a division would give other bits."""
    values = np.arange(256, dtype=np.uint8)
    fed = network_input(values.reshape(16, 16, 1).repeat(3, 2), (16, 16), mean=127.5, scale=1 / 127.5)
    scale = F(1 / 127.5)
    expected = [F(F(int(value)) - F(127.5)) * scale for value in values]
    np.testing.assert_array_equal(fed[0, :, :, 1].ravel(), np.array(expected, F), strict=True)
    assert (fed[0, :, :, 1].ravel() != (values.astype(F) - F(127.5)) / F(127.5)).any()
