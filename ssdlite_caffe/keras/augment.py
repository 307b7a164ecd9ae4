"""SSD's augmentation, in TensorFlow: colours, zooming out, crops, flips. Import it after `import_keras`.

Zooming out and cropping choose one window, in the image or around it, which becomes the network's input; the boxes of
objects are converted to the same window. Every choice is a function of the seed alone.

Boxes and windows are ymin, xmin, ymax, xmax as fractions of the image.
Sources: Liu et al., SSD, arXiv:1512.02325, sections 2.2 and 3.6; the SSD branch's sampler.cpp and im_transforms.cpp.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ssdlite_caffe.keras.targets import overlaps

WHOLE = (0.0, 0.0, 1.0, 1.0)
LEAST_OVERLAPS = (0.1, 0.3, 0.5, 0.7, 0.9, 0.0)
"""Lowest IoU of a crop with an object, 0 for any; one of these is chosen by chance, or the whole image."""
_TRIALS = 50
_OUTSIDE = -1.0


@dataclass(frozen=True)
class AugmentOptions:
    """How images are changed.

    Attributes:
        colours: probability (0..1) of changing brightness, and so for contrast, saturation and hue.
        brightness: up to this is added or subtracted; pixels are 0..255.
        contrast: largest difference of the factor from 1.
        saturation: largest difference of the factor from 1.
        hue: largest rotation, in degrees.
        expand: probability of zooming out.
        largest: zoomed out, the window's sides are up to so many times the image's.
        crop: probability of choosing a crop; one in seven of those is the whole image.
        least_side: shortest side of a crop, as a fraction of the image's.
        flip: probability of a horizontal flip.
    """

    colours: float = 0.5
    brightness: float = 32.0
    contrast: float = 0.5
    saturation: float = 0.5
    hue: float = 18.0
    expand: float = 0.5
    largest: float = 4.0
    crop: float = 1.0
    least_side: float = 0.3
    flip: float = 0.5


NONE = AugmentOptions(colours=0.0, expand=0.0, crop=0.0, flip=0.0)


def augment(
    image: Any, boxes: Any, seed: Any, size: tuple[int, int], fill: float, options: AugmentOptions
) -> tuple[Any, Any, Any]:
    """Make the network's input from an image, changed by chance.

    Args:
        image: uint8 (H, W, 3), RGB.
        boxes: float32 (M, 4).
        seed: int64 (2,).
        size: (height, width) of the network.
        fill: pixel value around the image.
        options: how it is changed.

    Returns:
        float32 (height, width, 3), 0..255; the boxes (K, 4) that are kept, clipped to the image; bool (M,): which are.
    """
    seeds = tf.random.split(seed, 4)
    canvas = zoom_out(seeds[0], options)
    window = within(canvas, crop(move(boxes, canvas), seeds[1], options))
    flipped = _chance(seeds[2], options.flip)
    kept = centre_inside(boxes, window)
    moved = tf.clip_by_value(move(tf.boolean_mask(boxes, kept), window, flipped), 0.0, 1.0)
    pixels = sample(image, window, flipped, size)
    outside = pixels < 0.0
    if options.colours:
        pixels = distort(pixels, seeds[3], options)
    return tf.where(outside, fill, pixels), moved, kept


def sample(image: Any, window: Any, flipped: Any, size: tuple[int, int]) -> Any:
    """The pixels of a window, bilinear; -1 where it lies outside the image.

    Pixel i of the result is read at top + i * (bottom - top) / height of the source, whole numbers being pixels'
    centres: the whole image is resized as by TensorFlow 1's resize, which detection uses.

    Returns:
        float32 (height, width, 3).
    """
    edges = tf.concat([image, image[-1:]], 0)  # the last row and column reach to the image's edge
    edges = tf.concat([edges, edges[:, -1:]], 1)
    top, left, bottom, right = tf.unstack(window)
    # crop_and_resize reads pixel i at y1 * h + i * (y2 - y1) * h / (height - 1), h being the last row.
    last = (bottom - top) * (size[0] - 1) / size[0], (right - left) * (size[1] - 1) / size[1]
    box = tf.stack([top, left, top + last[0], left + last[1]])
    pixels = tf.image.crop_and_resize(edges[None], box[None], [0], size, extrapolation_value=_OUTSIDE)[0]
    return tf.cond(flipped, lambda: tf.reverse(pixels, [1]), lambda: pixels)


def move(boxes: Any, window: Any, flipped: Any = False) -> Any:
    """Boxes (M, 4) of an image as fractions of a window in it, not clipped to it."""
    top, left, bottom, right = tf.unstack(window)
    scale = tf.stack([bottom - top, right - left] * 2)
    moved = (boxes - tf.stack([top, left, top, left])) / scale
    ymin, xmin, ymax, xmax = tf.unstack(moved, 4, axis=-1)
    return tf.where(flipped, tf.stack([ymin, 1.0 - xmax, ymax, 1.0 - xmin], -1), moved)


def within(outer: Any, inner: Any) -> Any:
    """The window `inner`, given as fractions of the window `outer`, as fractions of the image."""
    corner, sides = outer[:2], outer[2:] - outer[:2]
    return tf.concat([corner + inner[:2] * sides, corner + inner[2:] * sides], 0)


def centre_inside(boxes: Any, window: Any) -> Any:
    """Whether each box has its centre in a window, or on its edge: bool (M,)."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    return tf.reduce_all((centres >= window[:2]) & (centres <= window[2:]), -1)


def zoom_out(seed: Any, options: AugmentOptions) -> Any:
    """A window around the image, up to `options.largest` times its sides, the image anywhere in it; or itself."""
    seeds = tf.random.split(seed, 3)
    side = tf.random.stateless_uniform((), seeds[0], 1.0, options.largest)
    corner = -tf.random.stateless_uniform((2,), seeds[1]) * (side - 1.0)
    return tf.where(_chance(seeds[2], options.expand), tf.concat([corner, corner + side], 0), tf.constant(WHOLE))


def crop(boxes: Any, seed: Any, options: AugmentOptions) -> Any:
    """A window in the image with the centre of an object, and at least a random IoU with an object.

    Sides are s * sqrt(r) across and s / sqrt(r) down, s from `options.least_side` to 1 and the ratio r from 1/2 to 2,
    kept where neither side exceeds 1. The first of 50 that fits is taken; where none does, the whole image.
    """
    seeds = tf.random.split(seed, 5)
    scale = tf.random.stateless_uniform((_TRIALS,), seeds[0], options.least_side, 1.0)
    low, high = tf.maximum(0.5, scale**2), tf.minimum(2.0, 1.0 / scale**2)
    ratio = tf.sqrt(low + tf.random.stateless_uniform((_TRIALS,), seeds[1]) * (high - low))
    sides = tf.minimum(tf.stack([scale / ratio, scale * ratio], -1), 1.0)
    corners = tf.random.stateless_uniform((_TRIALS, 2), seeds[2]) * (1.0 - sides)
    windows = tf.concat([corners, corners + sides], -1)
    choice = tf.random.stateless_uniform((), seeds[3], 0, len(LEAST_OVERLAPS) + 1, tf.int32)
    least = tf.gather(tf.constant([*LEAST_OVERLAPS, 2.0]), choice)  # nothing overlaps by 2: the whole image
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = (centres[None] >= windows[:, None, :2]) & (centres[None] <= windows[:, None, 2:])
    good = tf.reduce_any(overlaps(windows, boxes) >= least, -1) & tf.reduce_any(tf.reduce_all(inside, -1), -1)
    chosen = tf.gather(windows, tf.argmax(good))
    wanted = tf.reduce_any(good) & _chance(seeds[4], options.crop)
    return tf.where(wanted, chosen, tf.constant(WHOLE))


def distort(pixels: Any, seed: Any, options: AugmentOptions) -> Any:
    """Change brightness, contrast, saturation and hue, each by chance; contrast before or after the last two.

    float32 (H, W, 3), 0..255; values are clipped to that range.
    """
    seeds = tf.random.split(seed, 9)

    def maybe(number: int, change: Any, pixels: Any, low: float, high: float) -> Any:
        amount = tf.random.stateless_uniform((), seeds[number + 4], low, high)
        changed = _chance(seeds[number], options.colours)
        return tf.cond(changed, lambda: tf.clip_by_value(change(pixels, amount), 0.0, 1.0), lambda: pixels)

    def contrast(pixels: Any) -> Any:
        return maybe(1, lambda p, a: p * a, pixels, 1.0 - options.contrast, 1.0 + options.contrast)

    def colour(pixels: Any) -> Any:
        spread = options.saturation
        pixels = maybe(2, tf.image.adjust_saturation, pixels, 1.0 - spread, 1.0 + spread)
        return maybe(3, tf.image.adjust_hue, pixels, -options.hue / 360, options.hue / 360)

    pixels = tf.clip_by_value(pixels / 255.0, 0.0, 1.0)
    reach = options.brightness / 255.0
    pixels = maybe(0, lambda p, a: p + a, pixels, -reach, reach)
    first = _chance(seeds[8], 0.5)
    return tf.cond(first, lambda: colour(contrast(pixels)), lambda: contrast(colour(pixels))) * 255.0


def _chance(seed: Any, probability: float) -> Any:
    return tf.random.stateless_uniform((), seed) < probability
