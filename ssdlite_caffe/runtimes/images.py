"""Finding images and videos, and reading them with OpenCV. Images are uint8 (H, W, 3), in OpenCV's order BGR."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.errors import ImageError
from ssdlite_caffe.imports import import_opencv
from ssdlite_caffe.runtimes.opencv_net import one_line, path_for_opencv
from ssdlite_caffe.terminal import silenced, size_text

Pixels = npt.NDArray[np.uint8]

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)  # fmt: skip
VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"})

_MAX_FILE_BYTES = 1 << 29
_MAX_PIXELS = 1 << 27


@dataclass(frozen=True)
class Source:
    """An image or video to read."""

    path: Path
    video: bool


def find_sources(inputs: Iterable[Path]) -> list[Source | ImageError]:
    """List the images and videos to read.

    Args:
        inputs: images, videos (recognised by their suffix) and folders; of a folder, the images and videos directly
            in it, sorted by name.

    Returns:
        In the order of `inputs`: sources, and an error for each input that has none.
    """
    found: list[Source | ImageError] = []
    for path in inputs:
        if path.is_dir():
            found += _in_folder(path)
        elif path.is_file():
            found.append(Source(path, path.suffix.lower() in VIDEO_SUFFIXES))
        else:
            found.append(ImageError(f"{path} does not exist; give an image, a video or a folder"))
    return found


def _in_folder(folder: Path) -> list[Source | ImageError]:
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as error:
        return [ImageError(f"cannot list {folder}: {error.strerror or error}")]
    known = [
        Source(path, path.suffix.lower() in VIDEO_SUFFIXES)
        for path in files
        if path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES
    ]
    return [*known] or [ImageError(f"{folder} has no images or videos")]


def read_image(path: Path, *, quiet: bool = True) -> Pixels:
    """Read an image of 8 or 16 bits, grey, colour or with alpha (dropped), rotated as its EXIF data says.

    Args:
        path: the file.
        quiet: silence the image libraries' messages; must be False when several threads read at once.

    Returns:
        uint8 (H, W, 3), BGR.

    Raises:
        ImageError: it cannot be read, is not an image, is truncated, or has more than 134 million pixels.
    """
    cv2 = import_opencv()
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise ImageError(f"{path} is larger than {size_text(_MAX_FILE_BYTES)}, the limit for an image")
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror or error}") from error
    if not data.size:
        raise ImageError(f"{path} is empty (0 bytes)")
    try:
        with silenced(stdout=False) if quiet else contextlib.nullcontext():
            image: Pixels | None = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise ImageError(f"cannot read {path} as an image: {one_line(error)}") from error
    if image is None:
        raise ImageError(f"{path} is not an image that OpenCV can read, or is truncated")
    return image


class Video:
    """An open video; iteration gives its frames. A context manager that closes it.

    Attributes:
        rate: frames/s; 25 if the file does not say.
        count: number of frames according to the file; 0 if it does not say.
    """

    def __init__(self, path: Path) -> None:
        """Open a video.

        Raises:
            ImageError: it cannot be read, or its frames have more than 134 million pixels.
        """
        cv2 = import_opencv()
        self.path = path
        with silenced(stdout=False):
            self._capture = cv2.VideoCapture(path_for_opencv(path), cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            raise ImageError(f"{path} is not a video that OpenCV can read")
        width, height = (self._capture.get(p) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if width * height > _MAX_PIXELS:
            raise ImageError(
                f"{path} has frames of {width:.0f}x{height:.0f} (width x height), more than {_MAX_PIXELS} pixels"
            )
        self.rate = float(self._capture.get(cv2.CAP_PROP_FPS)) or 25.0
        self.count = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def __enter__(self) -> Video:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._capture.release()

    def __iter__(self) -> Iterator[Pixels]:
        """Frames in order.

        Raises:
            ImageError: there is none.
        """
        number = 0
        while True:
            with silenced(stdout=False):
                good, frame = self._capture.read()
            if not good:
                break
            number += 1
            yield frame
        if not number:
            raise ImageError(f"{self.path} has no frame that OpenCV can read")
