"""Resizing and normalising against a pixel-by-pixel reading of the formula."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdlite_caffe.errors import ImageError
from ssdlite_caffe.gen_model.build import default_arch
from ssdlite_caffe.resize_methods import resized
from ssdlite_caffe.resizer import Method, Resizer
from ssdlite_caffe.runtimes.resize import (
    caffe_blob,
    content_size,
    input_of,
    network_input,
    pixels_of,
    preprocess,
    resize_bilinear_legacy,
    window_of,
)

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
    found = resize_bilinear_legacy(image, size)
    assert found.dtype == F
    np.testing.assert_array_equal(found, naive(image, size), strict=True)


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


# ---- letterboxes ----

PAD = (124.0, 117.0, 104.0)


def letterbox(method: Method = "bilinear", *, first: bool = False) -> Resizer:
    return Resizer("keep_aspect_ratio", method, min_dimension=6, max_dimension=10, pad_value=PAD, normalise_first=first)


@pytest.mark.parametrize("method", ["bilinear", "nearest", "bicubic", "area"])
@pytest.mark.parametrize("first", [False, True])
def test_letterbox_is_the_resized_image_in_the_corner_of_its_padding(method: Method, first: bool) -> None:
    image = np.random.default_rng(1).integers(0, 256, (14, 21, 3), dtype=np.uint8)
    resizer = letterbox(method, first=first)
    assert content_size((14, 21), resizer) == (6, 9)
    fed = network_input(image, (10, 10), mean=100.0, scale=0.5, resizer=resizer)[0]
    inner = resized(image, (6, 9), Resizer(method=method))
    np.testing.assert_allclose(fed[:6, :9], (inner - 100) * F(0.5), rtol=0, atol=1e-4)
    outside = np.ones((10, 10), bool)
    outside[:6, :9] = False
    padding = np.array(PAD, F) if first else (np.array(PAD, F) - 100) * F(0.5)
    np.testing.assert_array_equal(fed[outside], np.broadcast_to(padding, (100 - 54, 3)))


def test_window_is_the_share_that_shows_the_image() -> None:
    assert window_of((14, 21), Resizer()) == (1.0, 1.0)
    height, width = window_of((14, 21), letterbox())
    assert (F(height), F(width)) == (F(6) / F(10), F(9) / F(10))
    assert window_of((30, 10), letterbox()) == (1.0, float(F(3) / F(10)))


def test_a_letterbox_refuses_an_image_without_a_pixel_left() -> None:
    image = np.zeros((1, 40, 3), np.uint8)
    with pytest.raises(ImageError, match=r"40x1 .*too narrow: resized to 10 pixels"):
        network_input(image, (10, 10), mean=0, scale=1, resizer=letterbox())


def test_pixels_of_a_letterbox_are_padded_with_what_becomes_its_pad_value() -> None:
    arch = dataclasses.replace(
        default_arch("v2", 3, input_size=(320, 320)),
        resizer=Resizer("keep_aspect_ratio", min_dimension=320, max_dimension=320, normalise_first=True),
    )
    image = np.full((160, 320, 3), 7, np.uint8)
    pixels = pixels_of(arch, image)
    assert (pixels[:160] == 7).all()
    assert (pixels[160:] == 127.5).all()
    np.testing.assert_allclose((pixels - F(127.5)) * F(1 / 127.5), input_of(arch, image)[0], rtol=0, atol=2e-7)
