"""From an image to the input of TensorFlow's first convolution: resized, padded, normalised."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.errors import ImageError
from ssdlite_caffe.resize_methods import resized
from ssdlite_caffe.resizer import Resizer, shape_kept

_PLAIN = Resizer()


def content_size(image: tuple[int, int], resizer: Resizer) -> tuple[int, int]:
    """The size to which a letterbox resizes an image before it pads it.

    Args:
        image: (height, width).
        resizer: of the kind keep_aspect_ratio.

    Raises:
        ImageError: the shorter side would have no pixel.
    """
    least, most = resizer.min_dimension, resizer.max_dimension
    assert least is not None, "not a letterbox"
    assert most is not None, "not a letterbox"
    rows, columns = shape_kept(image, least, most)
    if not (rows and columns):
        raise ImageError(
            f"an image of {image[1]}x{image[0]} (width x height) is too narrow: resized to {most} pixels with its "
            "shape kept, its shorter side has none"
        )
    return rows, columns


def resized_pixels(
    image: npt.NDArray[Any], size: tuple[int, int], resizer: Resizer, pad_value: tuple[float, float, float]
) -> FloatArray:
    """Resize and pad, without normalising.

    Args:
        image: (H, W, 3), RGB.
        size: (height, width) of the network's input.
        resizer: how.
        pad_value: of a letterbox: red, green, blue, in the units of `image`.

    Returns:
        float32 (height, width, 3), in the units of `image`.

    Raises:
        ImageError: see `content_size`.
    """
    if not resizer.letterboxes:
        return resized(image, size, resizer)
    padded = np.empty((*size, 3), np.float32)
    padded[:] = pad_value
    rows, columns = content_size((image.shape[0], image.shape[1]), resizer)
    padded[:rows, :columns] = resized(image, (rows, columns), resizer)
    return padded


def network_input(
    image: npt.NDArray[np.uint8],
    size: tuple[int, int],
    *,
    mean: float,
    scale: float,
    resizer: Resizer = _PLAIN,
) -> FloatArray:
    """Resize and normalise an image to the input of TensorFlow's first convolution.

    Graphs of 2018 resize first and later ones normalise first. This function resizes first, unless a letterbox pads
    what is normalised; the results of both orders differ only in the last bits of float32.

    Args:
        image: uint8 (H, W, 3), RGB.
        size: (height, width) of the network's input.
        mean: subtracted from every pixel (usually 127.5).
        scale: factor of the difference (usually 1 / 127.5).
        resizer: how the image is resized.

    Returns:
        float32 (1, height, width, 3), RGB.

    Raises:
        ImageError: see `content_size`.
    """
    if resizer.normalise_first:
        pixels = normalised(image.astype(np.float32), mean, scale)
        return resized_pixels(pixels, size, resizer, resizer.pad_value)[None]
    return normalised(resized_pixels(image, size, resizer, resizer.pad_value), mean, scale)[None]


def normalised(pixels: FloatArray, mean: float, scale: float) -> FloatArray:
    """(pixels - mean) * scale in float32 and in this order, in the array itself, which is also returned."""
    pixels -= np.float32(mean)
    pixels *= np.float32(scale)
    return pixels
