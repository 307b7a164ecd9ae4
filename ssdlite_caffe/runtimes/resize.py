"""From an image to the network's input: the detector's resizer, normalisation, and Caffe's memory layout; and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.errors import ImageError
from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.resizer import Resizer, shape_kept
from ssdlite_caffe.runtimes.resize_methods import resized

Window = tuple[float, float]
"""The part of the network's input that shows the image, from the upper left corner: (height, width), 0 to 1."""

WHOLE: Window = (1.0, 1.0)
_PLAIN = Resizer()


def resize_bilinear_legacy(image: npt.NDArray[Any], size: tuple[int, int]) -> FloatArray:
    """Resize as TensorFlow 1 does: corners not aligned, pixel centres at whole numbers. Bit-exact.

    Output pixel (y, x) is sampled at (y * H / h, x * W / w) of the image without antialiasing, interpolated along x and
    then along y, all in float32: top = tl + (tr - tl) * fx, bottom likewise, result = top + (bottom - top) * fy.

    Args:
        image: (H, W, C), any real type.
        size: (h, w) of the result.

    Returns:
        float32 (h, w, C), with the value range of `image`.

    Raises:
        ValueError: `image` does not have three axes, or `image` or `size` is empty.

    Source: TensorFlow core/kernels/image/resize_bilinear_op.cc with LegacyScaler.
    """
    return resized(image, size, _PLAIN)


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


def window_of(image: tuple[int, int], resizer: Resizer) -> Window:
    """The part of the network's input that shows an image of (height, width); the rest is padding.

    Raises:
        ImageError: see `content_size`.
    """
    if not resizer.letterboxes:
        return WHOLE
    assert resizer.max_dimension is not None, "not a letterbox"
    rows, columns = (np.float32(side) / np.float32(resizer.max_dimension) for side in content_size(image, resizer))
    return float(rows), float(columns)


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


def input_of(arch: ArchSpec, image: npt.NDArray[np.uint8]) -> FloatArray:
    """The network input (1, height, width, 3) of a detector for an image, uint8 (H, W, 3), RGB: see `network_input`."""
    return network_input(image, arch.input_size, mean=arch.pixel_mean, scale=arch.pixel_scale, resizer=arch.resizer)


def pixels_of(arch: ArchSpec, image: npt.NDArray[np.uint8]) -> FloatArray:
    """An image, uint8 (H, W, 3), RGB, resized and padded for a detector that normalises pixels itself.

    Returns:
        float32 (height, width, 3), 0..255; not rounded.
    """
    pad = arch.resizer.pad_value
    if arch.resizer.normalise_first:
        red, green, blue = (value / arch.pixel_scale + arch.pixel_mean for value in pad)
        pad = red, green, blue
    return resized_pixels(image, arch.input_size, arch.resizer, pad)


def caffe_blob(nhwc: FloatArray) -> FloatArray:
    """Move a batch of RGB images to Caffe's layout. Exact: values are moved, not computed.

    Args:
        nhwc: float32 (N, H, W, 3), RGB.

    Returns:
        float32 (N, 3, H, W), BGR, C-contiguous.
    """
    return np.ascontiguousarray(nhwc[..., ::-1].transpose(0, 3, 1, 2))


def preprocess(
    image: npt.NDArray[np.uint8],
    size: tuple[int, int],
    *,
    mean: float,
    scale: float,
    resizer: Resizer = _PLAIN,
) -> FloatArray:
    """Turn an RGB image into the data blob of the Caffe net: `caffe_blob` of `network_input`."""
    return caffe_blob(network_input(image, size, mean=mean, scale=scale, resizer=resizer))
