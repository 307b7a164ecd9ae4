"""From an image to the network's input: the detector's resizer, normalisation, and Caffe's memory layout; and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.image_input import content_size, network_input, resized_pixels
from ssdlite_caffe.resize_methods import resized
from ssdlite_caffe.resizer import Resizer

__all__ = [
    "WHOLE", "Window", "caffe_blob", "content_size", "input_of", "network_input", "pixels_of", "preprocess",
    "resize_bilinear_legacy", "resized_pixels", "window_of",
]  # fmt: skip

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


def caffe_blob(nhwc: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Move a batch of RGB images to Caffe's layout. Exact: values are moved, not computed.

    Args:
        nhwc: float32 or float64 (N, H, W, 3), RGB.

    Returns:
        Of the same dtype (N, 3, H, W), BGR, C-contiguous.
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
