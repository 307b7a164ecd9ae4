"""Images as they go into a Caffe database: a file's own bytes where Caffe makes 8-bit colour of them, or others.

The SSD branch decodes a stored image as it is (OpenCV's IMREAD_UNCHANGED) unless a net asks for force_color: a grey
one then has one channel and one with alpha four; nowhere is EXIF's turn made. So these are decoded as they
are shown, and encoded anew as plain colour.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ssdlite_caffe.data.annotations import read_bounded
from ssdlite_caffe.errors import DatasetError, MissingRuntimeError
from ssdlite_caffe.imports import import_opencv
from ssdlite_caffe.runtimes.images import Pixels
from ssdlite_caffe.runtimes.opencv_net import one_line

Encoding = Literal["jpg", "png"]

_MAX_BYTES = 1 << 28
_MAX_PIXELS = 1 << 27
_ORIENTATION = 0x0112
"""EXIF's tag; 1 is upright."""
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_DEPTH = 24
"""Where a PNG's header has the bits of a sample."""


@dataclass(frozen=True)
class ImageEncoding:
    """How images are stored.

    Attributes:
        size: height and width they are resized to; None: their own.
        min_dim: the shorter side of smaller images is enlarged to this; 0: not.
        max_dim: the longer side of larger images is reduced to this; 0: not. It goes before `min_dim`.
        encoding: of all images; None: each keeps its own, and is stored as it is where nothing has to be changed.
        quality: of JPEG, 1 to 100.
        decode: decode images that are stored as they are too, to see whether they are whole.
    """

    size: tuple[int, int] | None = None
    min_dim: int = 0
    max_dim: int = 0
    encoding: Encoding | None = None
    quality: int = 95
    decode: bool = True

    def scale(self, height: int, width: int) -> float:
        """What `min_dim` and `max_dim` multiply the sides of an image by; a float32 number, as in Caffe.

        Source: ReadImageToCVMat in the SSD branch's util/io.cpp.
        """
        least, most = np.float32(min(height, width)), np.float32(max(height, width))
        scale = np.float32(1)
        if self.min_dim and least < self.min_dim:
            scale = np.float32(self.min_dim) / least
        if self.max_dim and int(scale * most) > self.max_dim:
            scale = np.float32(self.max_dim) / most
        return float(scale)

    def target(self, height: int, width: int) -> tuple[int, int]:
        """The size that an image of this size is stored in, rounded as OpenCV's resize does."""
        if self.size is not None:
            return self.size
        scale = self.scale(height, width)
        return max(1, round(height * scale)), max(1, round(width * scale))


@dataclass(frozen=True)
class Encoded:
    """An image ready to be stored.

    Attributes:
        data: a whole JPEG or PNG file.
        height: of the source in pixels, as it is shown; annotations refer to this size.
        width: likewise.
        kept: whether `data` is the source's own.
    """

    data: bytes
    height: int
    width: int
    kept: bool


@dataclass(frozen=True)
class _Header:
    """What a file says of itself; `plain`: Caffe decodes it, untouched, to what is shown, in 8-bit colour."""

    encoding: Encoding
    height: int
    width: int
    plain: bool


def read_encoded(path: Path, shape: ImageEncoding) -> Encoded:
    """Read an image for storing.

    Raises:
        DatasetError: it cannot be read or decoded, is cut off, or has more than 134 million pixels.
    """
    data = read_bounded(path, _MAX_BYTES)
    header = _header(path, data)
    if header is not None:
        size = header.height, header.width
        kind_fits = shape.encoding in (None, header.encoding)
        if header.plain and kind_fits and shape.target(*size) == size:
            if shape.decode:
                _decode(path, data, "IMREAD_REDUCED_GRAYSCALE_8")  # reads all of the file, at a sixth of the work
            return Encoded(data, *size, kept=True)
    pixels = _decode(path, data, "IMREAD_COLOR")
    height, width = pixels.shape[:2]
    return Encoded(_encode(path, pixels, header, shape), height, width, kept=False)


def _header(path: Path, data: bytes) -> _Header | None:
    """Look at the header alone; None for kinds of image that are never stored as they are."""
    if not data:
        raise DatasetError(f"{path}: empty (0 bytes)")
    if data[:2] != b"\xff\xd8" and data[:8] != _PNG_SIGNATURE:
        return None
    encoding: Encoding = "jpg" if data[:2] == b"\xff\xd8" else "png"
    image = _open(data, encoding)
    if image is None:
        return _Header(encoding, 0, 0, plain=False)
    width, height = image.size
    if width * height > _MAX_PIXELS:
        raise DatasetError(f"{path}: {width}x{height} (width x height) are more than {_MAX_PIXELS} pixels")
    plain = image.mode == "RGB" and "transparency" not in image.info
    if encoding == "png":
        plain = plain and data[_PNG_DEPTH] == 8
    return _Header(encoding, height, width, plain and _is_upright(image))


def _open(data: bytes, encoding: Encoding) -> Any:
    """Pillow's reader of this kind, which has read the header and nothing more; None for one that it cannot read."""
    try:
        from PIL import JpegImagePlugin, PngImagePlugin
    except ImportError as error:
        raise MissingRuntimeError(f"this needs Pillow ({error}): pip install 'ssdlite-caffe[caffe]'") from error
    reader = JpegImagePlugin.JpegImageFile if encoding == "jpg" else PngImagePlugin.PngImageFile
    try:
        return reader(io.BytesIO(data))
    except Exception:  # of many kinds, at damaged files; OpenCV has the last word on them
        return None


def _is_upright(image: Any) -> bool:
    if not {"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"} & image.info.keys():
        return True
    try:
        return bool(image.getexif().get(_ORIENTATION, 1) == 1)
    except Exception:  # damaged EXIF data: OpenCV shall say what is shown
        return False


def _decode(path: Path, data: bytes, mode: str) -> Pixels:
    cv2 = import_opencv()
    try:
        pixels: Pixels | None = cv2.imdecode(np.frombuffer(data, np.uint8), getattr(cv2, mode))
    except cv2.error as error:
        raise DatasetError(f"{path}: no image: {one_line(error)}") from error
    if pixels is None:
        raise DatasetError(f"{path}: no image that OpenCV can decode, or cut off")
    return pixels


def _encode(path: Path, pixels: Pixels, header: _Header | None, shape: ImageEncoding) -> bytes:
    """Resize and encode; what was JPEG stays so, and all else becomes PNG, unless `shape` says otherwise."""
    cv2 = import_opencv()
    height, width = shape.target(*pixels.shape[:2])
    if (height, width) != pixels.shape[:2]:
        if height * width > _MAX_PIXELS:
            raise DatasetError(f"{path}: {width}x{height} (width x height) are too many pixels to enlarge it to")
        if shape.size:
            pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
        else:
            scale = shape.scale(*pixels.shape[:2])
            pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    encoding = shape.encoding or (header.encoding if header else "png")
    options = [cv2.IMWRITE_JPEG_QUALITY, shape.quality] if encoding == "jpg" else []
    good, data = cv2.imencode(f".{encoding}", pixels, options)
    if not good:
        raise DatasetError(f"{path}: cannot be encoded as {encoding}")
    return bytes(data)
