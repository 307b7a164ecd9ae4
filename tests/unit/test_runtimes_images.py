"""Finding, reading and drawing on images."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdlite_caffe.errors import ImageError, OutputError
from ssdlite_caffe.imports import import_opencv
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.draw import class_colour, draw_detections, write_image
from ssdlite_caffe.runtimes.images import Source, Video, find_sources, read_image

pytestmark = pytest.mark.opencv


@pytest.fixture
def cv2() -> Any:
    return import_opencv()


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def test_folders_are_sorted_and_other_files_left_out(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "notes.txt", "c.mp4", "z.webp"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "inner.png").mkdir()
    (tmp_path / "inner.png" / "deep.png").write_bytes(b"x")
    found = find_sources([tmp_path / "notes.txt", tmp_path])
    assert found == [
        Source(tmp_path / "notes.txt", False),
        *(Source(tmp_path / name, name == "c.mp4") for name in ("a.png", "b.JPG", "c.mp4", "z.webp")),
    ]


def test_what_gives_no_image_is_an_error_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.png").write_bytes(b"x")
    first, second, third = find_sources([tmp_path / "none.png", tmp_path / "a.png", tmp_path / "empty"])
    assert isinstance(first, ImageError)
    assert "none.png does not exist" in str(first)
    assert second == Source(tmp_path / "a.png", False)
    assert isinstance(third, ImageError)
    assert "empty has no images" in str(third)


def test_colour_grey_alpha_and_16_bits_become_bgr(tmp_path: Path, cv2: Any, pixels: np.ndarray) -> None:
    alpha = np.concatenate([pixels, np.zeros((6, 9, 1), np.uint8)], axis=2)
    grey = pixels[..., 0]
    for name, written, expected in (
        ("colour", pixels, pixels),
        ("alpha", alpha, pixels),
        ("grey", grey, np.repeat(grey[..., None], 3, axis=2)),
        ("deep", grey.astype(np.uint16) * 257, np.repeat(grey[..., None], 3, axis=2)),
    ):
        assert cv2.imwrite(str(tmp_path / f"{name}.png"), written)
        np.testing.assert_array_equal(read_image(tmp_path / f"{name}.png"), expected, strict=True)


def test_exif_orientation_is_followed(tmp_path: Path, cv2: Any) -> None:
    left = np.zeros((16, 32, 3), np.uint8)
    left[:, :16] = 255
    jpeg = cv2.imencode(".jpg", left)[1].tobytes()
    tags = struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x0112, 3, 1, 6, 0, 0)  # orientation 6: turn right
    block = b"Exif\0\0" + tags
    (tmp_path / "turned.jpg").write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:])
    image = read_image(tmp_path / "turned.jpg")
    assert image.shape == (32, 16, 3)
    assert image[:12].min() > 200
    assert image[20:].max() < 50


@pytest.mark.parametrize("kind", ["text", "empty", "half a png", "half a jpeg"])
def test_unreadable_images_are_one_line(
    tmp_path: Path, cv2: Any, pixels: np.ndarray, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    wide = np.tile(pixels, (20, 20, 1))
    data = {
        "text": b"hello",
        "empty": b"",
        "half a png": cv2.imencode(".png", wide)[1].tobytes()[:9000],
        "half a jpeg": cv2.imencode(".jpg", wide)[1].tobytes()[:9000],
    }[kind]
    (tmp_path / "x.jpg").write_bytes(data)
    with pytest.raises(ImageError, match=r"x\.jpg is (not an image|empty)") as caught:
        read_image(tmp_path / "x.jpg")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_missing_image(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"cannot read .*none\.png: No such file"):
        read_image(tmp_path / "none.png")


def test_video_frames(tmp_path: Path, cv2: Any) -> None:
    path = tmp_path / "v.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 12.5, (64, 48))
    for level in (0, 100, 200):
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    with Video(path) as video:
        levels = [round(float(frame.mean())) for frame in video]
        assert video.rate == 12.5
        assert video.count == 3
    np.testing.assert_allclose(levels, [0, 100, 200], atol=3)


def test_a_video_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_text("hello")
    with pytest.raises(ImageError, match=r"v\.mp4 is not a video"):
        Video(tmp_path / "v.mp4")


def detections(*boxes: tuple[float, float, float, float]) -> Detections:
    count = len(boxes)
    return Detections(
        np.arange(1, count + 1), np.linspace(0.9, 0.5, count, dtype=np.float32), np.array(boxes, np.float32)
    )


def test_a_box_is_drawn_where_it_is_in_the_colour_of_its_class() -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    drawn = draw_detections(image, detections((0.5, 0.5, 0.9, 0.9)), ["background", "cat"])
    assert image.max() == 0
    assert tuple(drawn[100:181, 270].max(axis=0)) == class_colour(1)
    assert tuple(drawn[180, 200]) == class_colour(1)
    inside = drawn[105:175, 155:265]
    assert inside.max() == 0
    label = drawn[:98, 150:]
    assert (label == class_colour(1)).all(axis=-1).sum() > 100, "a filled label stands above the box"
    assert drawn[:, :145].max() == 0


def test_a_box_as_large_as_the_image_shows_all_its_sides() -> None:
    drawn = draw_detections(np.zeros((100, 120, 3), np.uint8), detections((0, 0, 1, 1)), ["background", "cat"])
    for side in (drawn[-1], drawn[:, -1], drawn[40:, 0]):
        assert (side == class_colour(1)).all(axis=-1).mean() > 0.8


@pytest.mark.parametrize("box", [(0.0, 0.0, 1.0, 1.0), (0.97, 0.0, 1.0, 0.05), (0.5, 0.99, 0.5, 1.0), (0, 0, 0, 0)])
@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 500, 3), (40, 30, 3)])
def test_any_box_can_be_drawn(box: tuple[float, float, float, float], shape: tuple[int, int, int]) -> None:
    drawn = draw_detections(np.zeros(shape, np.uint8), detections(box), ["background", "a rather long class name"])
    assert drawn.shape == shape
    assert drawn.max() > 0


def test_neighbouring_classes_differ_in_colour() -> None:
    colours = [class_colour(n) for n in range(91)]
    assert len(set(colours)) == 91
    assert min(np.abs(np.subtract(a, b)).max() for a, b in itertools.pairwise(colours)) > 60


def test_a_written_image_is_whole_and_not_replaced_unasked(tmp_path: Path, pixels: np.ndarray) -> None:
    write_image(tmp_path / "new" / "a.png", pixels)
    np.testing.assert_array_equal(read_image(tmp_path / "new" / "a.png"), pixels)
    with pytest.raises(OutputError, match="--force"):
        write_image(tmp_path / "new" / "a.png", pixels)
    write_image(tmp_path / "new" / "a.png", 255 - pixels, force=True)
    np.testing.assert_array_equal(read_image(tmp_path / "new" / "a.png"), 255 - pixels)
    with pytest.raises(ImageError, match="does not write images in the format"):
        write_image(tmp_path / "a.xyz", pixels)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.png"]
