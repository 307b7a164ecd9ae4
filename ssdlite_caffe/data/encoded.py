"""Images as they are stored in a Caffe database: the bytes of the file if Caffe decodes them to 8-bit colour.

The SSD branch decodes a stored image with OpenCV's IMREAD_UNCHANGED, unless a net sets force_color: a grey image then
has one channel and one with alpha four, and the rotation in the EXIF data is ignored. So these images are decoded
here, rotated as the EXIF data says, and encoded again as plain colour.
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
"""EXIF tag of the orientation; 1 is upright."""
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_DEPTH = 24
"""Offset of the bits per sample in a PNG file."""


@dataclass(frozen=True)
class ImageEncoding:
    """How images are stored.

    Attributes:
        size: height and width to resize to; None: not resized.
        min_dim: least length of the shorter side, in pixels; smaller images are enlarged. 0: no limit.
        max_dim: greatest length of the longer side, in pixels; larger images are reduced. 0: no limit. Where the two
            contradict each other, `max_dim` holds.
        encoding: of all images; None: that of the file, whose bytes are stored unchanged where possible.
        quality: of JPEG, 1 to 100.
        decode: also decode images that are stored unchanged, to find damaged ones.
    """

    size: tuple[int, int] | None = None
    min_dim: int = 0
    max_dim: int = 0
    encoding: Encoding | None = None
    quality: int = 95
    decode: bool = True

    def scale(self, height: int, width: int) -> float:
        """Factor by which `min_dim` and `max_dim` resize an image; a float32 number, as in Caffe.

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
        """The height and width that an image of this size is stored with, rounded as OpenCV's resize does."""
        if self.size is not None:
            return self.size
        scale = self.scale(height, width)
        return max(1, round(height * scale)), max(1, round(width * scale))


@dataclass(frozen=True)
class Encoded:
    """An image ready to be stored.

    Attributes:
        data: a JPEG or PNG file.
        height: of the source in pixels, after rotation by its EXIF data; annotations refer to this size.
        width: likewise.
        kept: whether `data` is the source file, unchanged.
    """

    data: bytes
    height: int
    width: int
    kept: bool


@dataclass(frozen=True)
class _Header:
    """Header of a file; `plain`: Caffe decodes the file, unchanged, to the upright image in 8-bit colour."""

    encoding: Encoding
    height: int
    width: int
    plain: bool


def read_encoded(path: Path, shape: ImageEncoding) -> Encoded:
    """Read an image for storing.

    Raises:
        DatasetError: it cannot be read or decoded, is truncated, or has more than 134 million pixels.
    """
    data = read_bounded(path, _MAX_BYTES)
    header = _header(path, data)
    if header is not None:
        size = header.height, header.width
        kind_fits = shape.encoding in (None, header.encoding)
        if header.plain and kind_fits and shape.target(*size) == size:
            if shape.decode:
                _decode(path, data, "IMREAD_REDUCED_GRAYSCALE_8")  # reads the whole file in a sixth of the time
            return Encoded(data, *size, kept=True)
    pixels = _decode(path, data, "IMREAD_COLOR")
    height, width = pixels.shape[:2]
    return Encoded(_encode(path, pixels, header, shape), height, width, kept=False)


def _header(path: Path, data: bytes) -> _Header | None:
    """Read the header alone; None for image formats other than JPEG and PNG, which are always encoded again."""
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
        raise DatasetError(f"{path}: {width}x{height} (width x height) is more than the limit of {_MAX_PIXELS} pixels")
    plain = image.mode == "RGB" and "transparency" not in image.info
    if encoding == "png":
        plain = plain and data[_PNG_DEPTH] == 8
    return _Header(encoding, height, width, plain and _is_upright(image))


def _open(data: bytes, encoding: Encoding) -> Any:
    """Pillow's image, of which only the header has been read; None if Pillow cannot read it."""
    try:
        from PIL import JpegImagePlugin, PngImagePlugin
    except ImportError as error:
        raise MissingRuntimeError(
            f"this needs Pillow ({error}); install it with: pip install 'ssdlite-caffe[caffe]'"
        ) from error
    reader = JpegImagePlugin.JpegImageFile if encoding == "jpg" else PngImagePlugin.PngImageFile
    try:
        return reader(io.BytesIO(data))
    except Exception:  # Pillow raises many types for damaged files; OpenCV then decides whether they can be used
        return None


def _is_upright(image: Any) -> bool:
    if not {"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"} & image.info.keys():
        return True
    try:
        return bool(image.getexif().get(_ORIENTATION, 1) == 1)
    except Exception:  # damaged EXIF data: OpenCV then decides on the rotation
        return False


def _decode(path: Path, data: bytes, mode: str) -> Pixels:
    cv2 = import_opencv()
    try:
        pixels: Pixels | None = cv2.imdecode(np.frombuffer(data, np.uint8), getattr(cv2, mode))
    except cv2.error as error:
        raise DatasetError(f"{path}: not an image: {one_line(error)}") from error
    if pixels is None:
        raise DatasetError(f"{path}: not an image that OpenCV can decode, or truncated")
    return pixels


def _encode(path: Path, pixels: Pixels, header: _Header | None, shape: ImageEncoding) -> bytes:
    """Resize and encode: a JPEG file as JPEG and any other as PNG, unless `shape` names the encoding."""
    cv2 = import_opencv()
    height, width = shape.target(*pixels.shape[:2])
    if (height, width) != pixels.shape[:2]:
        if height * width > _MAX_PIXELS:
            raise DatasetError(
                f"{path}: cannot be enlarged to {width}x{height} (width x height): more than {_MAX_PIXELS} pixels"
            )
        if shape.size:
            pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
        else:
            scale = shape.scale(*pixels.shape[:2])
            pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    encoding = shape.encoding or (header.encoding if header else "png")
    options = [cv2.IMWRITE_JPEG_QUALITY, shape.quality] if encoding == "jpg" else []
    good, data = cv2.imencode(f".{encoding}", pixels, options)
    if not good:
        raise DatasetError(f"{path}: OpenCV cannot encode it as {encoding}")
    return bytes(data)
