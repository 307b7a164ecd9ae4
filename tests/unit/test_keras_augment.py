"""Augmentation: boxes follow pixels, whatever the window."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.tensorflow
QUICK = settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
SEEDS = st.integers(0, 2**40)


@pytest.fixture(scope="module")
def augment() -> ModuleType:
    from ssdlite_caffe.imports import import_keras

    import_keras()
    from ssdlite_caffe.keras import augment

    return augment


@pytest.fixture(scope="module")
def tf(augment: ModuleType) -> Any:
    import tensorflow

    return tensorflow


def read_by_loops(image: np.ndarray, window: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear; the last row and column go on to the image's edge."""
    (high, wide), made = image.shape[:2], np.full((*size, 3), -1.0)
    for i in range(size[0]):
        for j in range(size[1]):
            y = (window[0] + i * (window[2] - window[0]) / size[0]) * high
            x = (window[1] + j * (window[3] - window[1]) / size[1]) * wide
            if 0 <= y <= high and 0 <= x <= wide:
                ys, xs = [min(int(y) + k, high - 1) for k in (0, 1)], [min(int(x) + k, wide - 1) for k in (0, 1)]
                rows = [image[r, xs[0]] * (1 - x % 1) + image[r, xs[1]] * (x % 1) for r in ys]
                made[i, j] = rows[0] * (1 - y % 1) + rows[1] * (y % 1)
    return made


@QUICK
@given(SEEDS, st.tuples(st.integers(1, 9), st.integers(1, 9)), st.tuples(st.integers(2, 8), st.integers(2, 8)))
def test_sample(augment: ModuleType, tf: Any, seed: int, shape: tuple[int, int], size: tuple[int, int]) -> None:
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (*shape, 3), np.uint8)
    corner = random.uniform(-1, 0.7, 2)
    window = np.concatenate([corner, corner + random.uniform(0.1, 2, 2)]).astype(np.float32)
    found = augment.sample(image, tf.constant(window), tf.constant(False), size).numpy()
    expected = read_by_loops(image.astype(float), window.astype(float), size)
    edges = [(window[k] + np.arange(n) * (window[k + 2] - window[k]) / n) for k, n in enumerate(size)]
    sure = [np.minimum(abs(e), abs(e - 1)) > 1e-4 for e in edges]  # rounding decides what lies on the very edge
    chosen = sure[0][:, None] & sure[1][None]
    np.testing.assert_allclose(found[chosen], expected[chosen], atol=0.02)
    mirrored = augment.sample(image, tf.constant(window), tf.constant(True), size).numpy()
    assert (mirrored == found[:, ::-1]).all()


@QUICK
@given(SEEDS, st.tuples(st.integers(1, 40), st.integers(1, 40)), st.tuples(st.integers(2, 30), st.integers(2, 30)))
def test_the_whole_image_is_resized_as_detection_does(
    augment: ModuleType, tf: Any, seed: int, shape: tuple[int, int], size: tuple[int, int]
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)
    found = augment.sample(image, tf.constant(augment.WHOLE), tf.constant(False), size)
    np.testing.assert_allclose(found, tf.compat.v1.image.resize_bilinear(image[None], size)[0], atol=0.02)


@QUICK
@given(SEEDS, st.booleans())
@example(29876, False)
def test_boxes_follow_pixels(augment: ModuleType, tf: Any, seed: int, mirrored: bool) -> None:
    """A bright rectangle is where its box goes, within a pixel of either image."""
    random = np.random.default_rng(seed)
    high, wide = (int(v) for v in random.integers(60, 120, 2))
    top, left = random.integers(5, 25, 2)
    bottom, right = top + random.integers(15, 30), left + random.integers(15, 30)
    image = np.zeros((high, wide, 3), np.uint8)
    image[top:bottom, left:right] = 255
    box = np.array([[top / high, left / wide, bottom / high, right / wide]], np.float32)
    corner = random.uniform(-0.6, 0.05, 2)
    window = tf.constant(np.concatenate([corner, corner + random.uniform(1.1, 2.0, 2)]), tf.float32)
    size = 101, 128
    pixels = augment.sample(image, window, tf.constant(mirrored), size).numpy()[..., 0]
    moved = np.clip(augment.move(tf.constant(box), window, mirrored).numpy()[0], 0, 1)  # the window may cut it
    rows, columns = (np.flatnonzero((pixels > 127).any(axis)) for axis in (1, 0))
    found = np.array([rows[0] / 101, columns[0] / 128, (rows[-1] + 1) / 101, (columns[-1] + 1) / 128])
    slack_y, slack_x = 1.5 / 101 + 1 / high, 1.5 / 128 + 1 / wide
    assert abs(found - moved)[[0, 2]].max() < slack_y
    assert abs(found - moved)[[1, 3]].max() < slack_x


@QUICK
@given(SEEDS)
def test_windows_in_windows(augment: ModuleType, tf: Any, seed: int) -> None:
    """In float64: small windows make float32's rounding as large as their sides are small. Measured: 3.4e-14."""
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 0.6, (2, 2))
    outer, inner = tf.constant(np.concatenate([corners, corners + random.uniform(0.2, 0.4, (2, 2))], 1))
    boxes = tf.constant(random.uniform(0, 1, (3, 4)))
    once = augment.move(boxes, augment.within(outer, inner))
    twice = augment.move(augment.move(boxes, outer), inner)
    np.testing.assert_allclose(once, twice, rtol=0, atol=1e-13)


@QUICK
@given(SEEDS, st.integers(0, 4))
def test_crops_keep_what_they_promise(augment: ModuleType, tf: Any, seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    corner = random.uniform(0, 0.7, (count, 2))
    boxes = np.concatenate([corner, corner + random.uniform(0.05, 0.3, (count, 2))], 1).astype(np.float32)
    options = augment.AugmentOptions()
    window = augment.crop(tf.constant(boxes), tf.constant([seed, 1], tf.int64), options).numpy()
    assert (window[:2] >= 0).all()
    assert (window[2:] <= 1 + 1e-6).all()
    if tuple(window) != augment.WHOLE:
        sides = window[2:] - window[:2]
        assert sides.min() >= options.least_side**2 - 1e-6
        assert 0.5 - 1e-3 <= sides[1] / sides[0] <= 2 + 1e-3
        assert augment.centre_inside(tf.constant(boxes), tf.constant(window)).numpy().any()
    if count == 0:
        assert tuple(window) == augment.WHOLE


def test_crops_of_every_kind_occur(augment: ModuleType, tf: Any) -> None:
    boxes = tf.constant([[0.2, 0.2, 0.8, 0.8]])
    cropped = tf.function(lambda seed: augment.crop(boxes, seed, augment.AugmentOptions()))
    windows = np.array([cropped(tf.constant([5, n], tf.int64)) for n in range(200)])
    overlaps = augment.overlaps(tf.constant(windows), boxes).numpy()[:, 0]
    whole = (windows == augment.WHOLE).all(1)
    assert 0.1 < whole.mean() < 0.4
    assert overlaps[~whole].min() < 0.3
    assert overlaps[~whole].max() > 0.8


def test_a_least_overlap_is_kept(augment: ModuleType, tf: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment, "LEAST_OVERLAPS", (0.7,) * 6)
    boxes = tf.constant([[0.1, 0.1, 0.9, 0.9], [0.4, 0.4, 0.5, 0.5]])
    windows = [augment.crop(boxes, tf.constant([6, n], tf.int64), augment.AugmentOptions()).numpy() for n in range(20)]
    cropped = np.array([window for window in windows if tuple(window) != augment.WHOLE])
    assert len(cropped) > 5
    assert augment.overlaps(tf.constant(cropped), boxes).numpy().max(1).min() >= 0.7


def test_crops_have_a_chance(augment: ModuleType, tf: Any) -> None:
    boxes = tf.constant([[0.2, 0.2, 0.8, 0.8]])
    never = augment.AugmentOptions(crop=0.0)
    for number in range(10):
        assert tuple(augment.crop(boxes, tf.constant([5, number], tf.int64), never).numpy()) == augment.WHOLE


@QUICK
@given(SEEDS)
def test_zooming_out(augment: ModuleType, tf: Any, seed: int) -> None:
    options = augment.AugmentOptions(expand=1.0, largest=3.0)
    window = augment.zoom_out(tf.constant([seed, 2], tf.int64), options).numpy()
    assert (window[:2] <= 0).all()
    assert (window[2:] >= 1 - 1e-6).all()
    assert 1 <= window[2] - window[0] <= 3
    assert window[2] - window[0] == pytest.approx(window[3] - window[1], rel=1e-5)


def test_colours(augment: ModuleType, tf: Any) -> None:
    pixels = tf.constant(np.random.default_rng(0).uniform(0, 255, (8, 9, 3)), tf.float32)
    still = augment.AugmentOptions(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, colours=1.0)
    np.testing.assert_allclose(augment.distort(pixels, tf.constant([1, 2], tf.int64), still), pixels, atol=0.01)
    changed = [
        augment.distort(pixels, tf.constant([1, n], tf.int64), augment.AugmentOptions(colours=1.0)) for n in (3, 4, 3)
    ]
    assert 0 <= np.min(changed) <= np.max(changed) <= 255
    assert (changed[0] == changed[2]).numpy().all()
    assert abs(changed[0] - changed[1]).numpy().mean() > 1
    # Nothing but brightness: every channel of every pixel by the same amount, where none is cut off.
    bright = augment.AugmentOptions(colours=1.0, contrast=0.0, saturation=0.0, hue=0.0)
    middle = tf.clip_by_value(pixels, 60, 190)
    shift = (augment.distort(middle, tf.constant([1, 2], tf.int64), bright) - middle).numpy()
    assert 0.01 < abs(shift).max() <= 32.01
    assert np.ptp(shift) < 0.01


def test_each_change_of_colour(augment: ModuleType, tf: Any) -> None:
    """Contrast is a factor, saturation leaves hue and value, hue turns by so many degrees at most."""
    from colorsys import rgb_to_hsv

    pixels = np.random.default_rng(1).uniform(60, 120, (6, 7, 3)).astype(np.float32)
    still = {"colours": 1.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}

    def changed(number: int, **spread: float) -> np.ndarray:
        options = augment.AugmentOptions(**{**still, **spread})
        return augment.distort(tf.constant(pixels), tf.constant([2, number], tf.int64), options).numpy()

    def hsv(values: np.ndarray) -> np.ndarray:
        return np.array([rgb_to_hsv(*pixel) for pixel in values.reshape(-1, 3) / 255.0])

    turns = []
    for number in range(8):
        factors = changed(number, contrast=0.5) / pixels
        assert np.ptp(factors) < 1e-3
        assert 0.5 <= factors.mean() <= 1.5
        before, after = hsv(pixels), hsv(changed(number, saturation=0.5))
        np.testing.assert_allclose(after[:, [0, 2]], before[:, [0, 2]], atol=2e-3)
        ratio = after[:, 1] / before[:, 1]
        assert np.ptp(ratio) < 0.02
        assert 0.5 <= ratio.mean() <= 1.5
        after = hsv(changed(number, hue=18.0))
        np.testing.assert_allclose(after[:, 1:], before[:, 1:], atol=2e-3)
        turn = (after[:, 0] - before[:, 0] + 0.5) % 1.0 - 0.5
        assert np.ptp(turn) < 2e-3
        assert abs(turn).max() <= 0.051
        turns += [abs(factors - 1).max(), abs(ratio - 1).max(), abs(turn).max()]
    assert (np.reshape(turns, (8, 3)).max(0) > [0.1, 0.1, 0.01]).all()


def test_augment(augment: ModuleType, tf: Any) -> None:
    """The same seed gives the same; objects that are left are in the image; without options nothing changes."""
    random = np.random.default_rng(3)
    image = random.integers(0, 256, (50, 70, 3), np.uint8)
    boxes = np.array([[0.1, 0.1, 0.4, 0.5], [0.5, 0.5, 0.9, 0.9], [0.0, 0.8, 0.2, 1.0]], np.float32)
    run = tf.function(lambda seed: augment.augment(image, boxes, seed, (32, 48), 127.5, augment.AugmentOptions()))
    fates, mirrored = set(), 0
    for number in range(30):
        pixels, moved, kept = (part.numpy() for part in run(tf.constant([9, number], tf.int64)))
        again = [part.numpy() for part in run(tf.constant([9, number], tf.int64))]
        assert all((a == b).all() for a, b in zip((pixels, moved, kept), again, strict=True))
        assert pixels.shape == (32, 48, 3)
        assert 0 <= pixels.min() <= pixels.max() <= 255
        assert len(moved) == kept.sum() >= 1
        assert (moved[:, 2:] > moved[:, :2]).all()
        assert 0 <= moved.min() <= moved.max() <= 1
        fates.add(tuple(kept.tolist()))
        if kept[0] and kept[1]:
            mirrored += moved[0, 1] > moved[1, 1]
    assert len(fates) > 1
    assert mirrored > 0
    pixels, moved, kept = augment.augment(image, boxes, tf.constant([0, 0], tf.int64), (50, 70), 127.5, augment.NONE)
    np.testing.assert_allclose(pixels, image, atol=0.01)
    np.testing.assert_allclose(moved, boxes, atol=1e-6)
    assert kept.numpy().all()


def test_augmented_boxes_lie_where_the_objects_do(augment: ModuleType, tf: Any) -> None:
    """Zoomed out, cropped and mirrored, one after the other; nothing but the object is bright."""
    image = np.zeros((480, 640, 3), np.uint8)
    image[144:288, 256:448] = 255
    boxes = np.array([[0.3, 0.4, 0.6, 0.7]], np.float32)
    options = augment.AugmentOptions(colours=0.0)
    run = tf.function(lambda seed: augment.augment(image, boxes, seed, (96, 128), 0.0, options))
    places = set()
    for number in range(20):
        pixels, moved, kept = (part.numpy() for part in run(tf.constant([4, number], tf.int64)))
        assert kept.all()
        rows, columns = (np.flatnonzero((pixels[..., 0] > 127).any(axis)) for axis in (1, 0))
        found = [rows[0] / 96, columns[0] / 128, (rows[-1] + 1) / 96, (columns[-1] + 1) / 128]
        np.testing.assert_allclose(moved[0], found, rtol=0, atol=0.03)
        places.add(tuple(np.round(moved[0], 1)))
    assert len(places) > 10


def test_what_is_around_the_image_is_filled(augment: ModuleType, tf: Any) -> None:
    options = augment.AugmentOptions(expand=1.0, largest=4.0, crop=0.0, colours=1.0)
    image = np.full((20, 20, 3), 30, np.uint8)
    boxes = np.array([[0, 0, 1, 1]], np.float32)
    pixels, moved, _ = augment.augment(image, boxes, tf.constant([1, 4], tf.int64), (64, 64), 100.0, options)
    top, left, bottom, right = moved.numpy()[0] * 64
    inside = np.zeros((64, 64), bool)
    inside[int(np.ceil(top)) : int(np.floor(bottom)), int(np.ceil(left)) : int(np.floor(right))] = True
    assert (pixels.numpy()[inside] < 99).all()
    outside = np.ones((64, 64), bool)
    outside[int(top) : int(np.ceil(bottom)) + 1, int(left) : int(np.ceil(right)) + 1] = False
    assert outside.any()
    assert (pixels.numpy()[outside] == 100.0).all()
