"""Finding and reading images and videos, with OpenCV. Images are uint8 (H, W, 3), BGR as OpenCV has them."""

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
from ssdlite_caffe.terminal import silenced

Pixels = npt.NDArray[np.uint8]

IMAGE_SUFFIXES = frozenset({".bmp", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"})

_MAX_FILE_BYTES = 1 << 29
_MAX_PIXELS = 1 << 27


@dataclass(frozen=True)
class Source:
    """An image or a video that was asked for."""

    path: Path
    video: bool


def find_sources(inputs: Iterable[Path]) -> list[Source | ImageError]:
    """List what is to be read.

    Args:
        inputs: images, videos (by their suffix) and folders, of which the images and videos that lie directly in
            them are taken, sorted by name.

    Returns:
        In the order of `inputs`, sources, and an error for each input that gives none.
    """
    found: list[Source | ImageError] = []
    for path in inputs:
        if path.is_dir():
            found += _in_folder(path)
        elif path.is_file():
            found.append(Source(path, path.suffix.lower() in VIDEO_SUFFIXES))
        else:
            found.append(ImageError(f"{path} is no image, folder or video: there is no such file"))
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
    return [*known] or [ImageError(f"{folder} holds no images or videos")]


def read_image(path: Path, *, quiet: bool = True) -> Pixels:
    """Read an image of 8 or 16 bits, grey, colour or with alpha (left out), turned as its EXIF data says.

    Args:
        path: the file.
        quiet: keep what image libraries say of a damaged file off stderr; not where several threads read.

    Raises:
        ImageError: it cannot be read, is no image, is cut off, or has more than 134 million pixels.
    """
    cv2 = import_opencv()
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise ImageError(f"{path} is larger than {_MAX_FILE_BYTES >> 20} MiB, too large for an image")
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
        raise ImageError(f"{path} is no image that OpenCV can read, or is cut off")
    return image


class Video:
    """An open video; iterate over it for its frames. A context manager that closes it.

    Attributes:
        rate: frames a second, 25 where the file does not say.
        count: of frames as the file says, 0 where it does not.
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
            raise ImageError(f"{path} is no video that OpenCV can read")
        width, height = (self._capture.get(p) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if width * height > _MAX_PIXELS:
            raise ImageError(f"{path} has frames of {height:.0f}x{width:.0f} pixels, too large")
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
            ImageError: there is not even one.
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
