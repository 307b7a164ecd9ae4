"""Images as they are stored: kept where Caffe decodes what is shown, encoded anew otherwise."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdlite_caffe.data.encoded import Encoded, ImageEncoding, read_encoded
from ssdlite_caffe.errors import DatasetError
from tests.datasets import encoded, pixels

pytestmark = pytest.mark.opencv
EXIF_TURNED = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
"""Orientation 6: to be turned by a quarter."""


def stored(tmp_path: Path, data: bytes, shape: ImageEncoding = ImageEncoding()) -> Encoded:  # noqa: B008
    (tmp_path / "image").write_bytes(data)
    return read_encoded(tmp_path / "image", shape)


def as_caffe_decodes(data: bytes) -> np.ndarray:
    import cv2

    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED))


def pillow(image: np.ndarray, mode: str, kind: str, **options: object) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image[:, :, ::-1]).convert(mode).save(stream, kind, **options)  # type: ignore[arg-type]
    return stream.getvalue()


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("decode", [True, False])
def test_plain_colour_is_kept(tmp_path: Path, suffix: str, decode: bool) -> None:
    data = encoded(pixels(1, 30, 50), suffix)
    assert stored(tmp_path, data, ImageEncoding(decode=decode)) == Encoded(data, 30, 50, kept=True)
    assert as_caffe_decodes(data).shape == (30, 50, 3)


@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        ("L", "JPEG", {}),
        ("CMYK", "JPEG", {}),
        ("L", "PNG", {}),
        ("1", "PNG", {}),
        ("P", "PNG", {}),
        ("RGBA", "PNG", {}),
        ("LA", "PNG", {}),
        ("RGB", "PNG", {"transparency": (1, 2, 3)}),
        ("RGB", "BMP", {}),
        ("RGB", "TIFF", {}),
        ("RGB", "WEBP", {"lossless": True}),
        ("RGB", "JPEG", {"exif": EXIF_TURNED}),
        ("RGB", "JPEG", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"}),
    ],
)
def test_all_else_becomes_plain_colour(tmp_path: Path, mode: str, kind: str, options: dict[str, object]) -> None:
    import cv2

    rows, columns = np.mgrid[:24, :40]
    ramps = np.stack([rows * 10, columns * 6, 255 - rows * 5 - columns * 3], axis=2).astype(np.uint8)
    data = pillow(ramps, mode, kind, **options)
    result = stored(tmp_path, data, ImageEncoding(quality=100))
    shown = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    got = as_caffe_decodes(result.data)
    assert not result.kept
    assert got.shape == (result.height, result.width, 3) == shown.shape
    assert result.data[:2] == (b"\xff\xd8" if kind == "JPEG" else b"\x89P")
    difference = np.abs(got.astype(int) - shown)
    assert np.median(difference) <= 2 if kind == "JPEG" else not difference.any()
    if options.get("exif") == EXIF_TURNED:
        assert shown.shape == (40, 24, 3)


def test_a_png_of_16_bits(tmp_path: Path) -> None:
    data = encoded(pixels(3, 20, 20).astype(np.uint16) * 257, ".png")
    result = stored(tmp_path, data)
    assert not result.kept
    np.testing.assert_array_equal(as_caffe_decodes(result.data), pixels(3, 20, 20))


@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_another_kind_is_asked_for(tmp_path: Path, kind: str) -> None:
    for suffix in (".jpg", ".png"):
        result = stored(tmp_path, encoded(pixels(1, 30, 50), suffix), ImageEncoding(encoding=kind))  # type: ignore[arg-type]
        assert result.kept == (suffix == f".{kind}")
        assert result.data[:2] == (b"\xff\xd8" if kind == "jpg" else b"\x89P")


def test_quality(tmp_path: Path) -> None:
    data = encoded(pixels(1, 60, 90), ".png")
    sizes = [len(stored(tmp_path, data, ImageEncoding(encoding="jpg", quality=quality)).data) for quality in (20, 90)]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        (ImageEncoding(size=(32, 16)), (32, 16)),
        (ImageEncoding(min_dim=40), (40, 67)),  # 50 * 1.3333
        (ImageEncoding(max_dim=25), (15, 25)),
        (ImageEncoding(min_dim=60, max_dim=70), (42, 70)),
        (ImageEncoding(min_dim=20, max_dim=60), (30, 50)),
    ],
)
def test_resizing(tmp_path: Path, shape: ImageEncoding, size: tuple[int, int]) -> None:
    image = np.zeros((30, 50, 3), np.uint8)
    image[:, 25:] = 200
    data = encoded(image, ".png")
    result = stored(tmp_path, data, shape)
    got = as_caffe_decodes(result.data)
    assert (result.height, result.width) == (30, 50), "annotations refer to the source's size"
    assert got.shape == (*size, 3)
    assert result.kept == (size == (30, 50))
    assert (got[:, : size[1] // 2 - 2] == 0).all()
    assert (got[:, size[1] // 2 + 2 :] == 200).all()


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(0, 3000), st.integers(0, 3000))
def test_bounds_of_the_sides(height: int, width: int, min_dim: int, max_dim: int) -> None:
    target = ImageEncoding(min_dim=min_dim, max_dim=max_dim).target(height, width)
    scale = ImageEncoding(min_dim=min_dim, max_dim=max_dim).scale(height, width)
    assert max(abs(target[0] - height * scale), abs(target[1] - width * scale)) <= 1
    assert not max_dim or max(target) <= max_dim or int(np.float32(scale) * max(height, width)) <= max_dim
    assert not min_dim or max_dim or min(target) >= min_dim
    if not min_dim and (not max_dim or max(height, width) <= max_dim):
        assert target == (height, width)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "empty"),
        (b"text", "not an image"),
        (b"\xff\xd8", "not an image"),
        (b"\x89PNG\r\n\x1a\n", "not an image"),
        (encoded(pixels(1), ".jpg")[:-40], "truncated"),
        (encoded(pixels(1), ".png")[:-400], "truncated"),
        (encoded(pixels(1), ".jpg")[:100], "not an image"),
    ],
)
def test_damage(tmp_path: Path, data: bytes, what: str) -> None:
    with pytest.raises(DatasetError, match=what) as caught:
        stored(tmp_path, data)
    assert str(caught.value).startswith(f"{tmp_path / 'image'}: ")
    assert "\n" not in str(caught.value)


def test_a_header_that_promises_too_much(tmp_path: Path) -> None:
    """A few bytes that would unpack to gigabytes are refused by their header alone."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 999)) + chunk(b"IEND", b"")
    )
    with pytest.raises(DatasetError, match=r"60000x60000 .* is more than"):
        stored(tmp_path, data)
    with pytest.raises(DatasetError, match="cannot be enlarged to 50000x5000"):
        stored(tmp_path, encoded(pixels(1, 4, 40), ".png"), ImageEncoding(min_dim=5000))
