"""Drawing detections on an image, and writing images."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.errors import ImageError
from ssdlite_caffe.files import write_bytes
from ssdlite_caffe.imports import import_opencv
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.images import Pixels
from ssdlite_caffe.runtimes.opencv_net import one_line

Colour = tuple[int, int, int]

_GOLDEN_RATIO = 0.618034


def class_colour(number: int) -> Colour:
    """A bright colour (blue, green, red) for a class; neighbouring classes get hues far apart."""
    red, green, blue = colorsys.hsv_to_rgb(number * _GOLDEN_RATIO % 1.0, 0.85, 0.95)
    return round(blue * 255), round(green * 255), round(red * 255)


def pixel_boxes(detections: Detections, height: int, width: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Boxes (M, 4) in pixels: xmin, ymin, xmax, ymax."""
    return detections.boxes.astype(np.float64) * (width, height, width, height)


def draw_detections(image: Pixels, detections: Detections, names: Sequence[str]) -> Pixels:
    """Draw boxes with class names and scores; lines and letters grow with the image.

    Args:
        image: uint8 (H, W, 3), BGR; left as it is.
        detections: the best is drawn last, on top.
        names: of the classes, background first.

    Returns:
        A new image.
    """
    order = slice(None, None, -1)
    texts = [f"{names[i]} {score:.2f}" for i, score in zip(detections.classes, detections.scores, strict=True)]
    return draw_labelled(image, detections.boxes[order], detections.classes[order].tolist(), texts[order])


def draw_labelled(
    image: Pixels, boxes: npt.NDArray[np.floating[Any]], classes: Sequence[int], texts: Sequence[str]
) -> Pixels:
    """Draw boxes with a text at each; lines and letters grow with the image.

    Args:
        image: uint8 (H, W, 3), BGR; left as it is.
        boxes: (M, 4), xmin, ymin, xmax, ymax as fractions of the image; the last is drawn on top.
        classes: M numbers that choose the colours.
        texts: M.

    Returns:
        A new image.
    """
    cv2 = import_opencv()
    drawn = image.copy()
    height, width = image.shape[:2]
    side = min(height, width)
    thickness = max(1, round(side / 240))
    scale = max(0.35, side / 800)
    font = cv2.FONT_HERSHEY_SIMPLEX
    corners = np.rint(boxes.astype(np.float64) * (width, height, width, height)).astype(int)
    for number, text, box in zip(classes, texts, corners, strict=True):
        colour = class_colour(number)
        left, top, right, bottom = (int(v) for v in np.clip(box, 0, [width - 1, height - 1] * 2))
        cv2.rectangle(drawn, (left, top), (right, bottom), colour, thickness)
        (wide, high), below = cv2.getTextSize(text, font, scale, max(1, thickness // 2))
        # The label stands above the box, or inside where there is no room, and never runs off to the right.
        x = max(0, min(left, width - wide))
        y = top if top >= high + below else min(top + high + below, height)
        cv2.rectangle(drawn, (x, y - high - below), (x + wide, y), colour, cv2.FILLED)
        ink = (0, 0, 0) if np.dot(colour, (0.114, 0.587, 0.299)) > 110 else (255, 255, 255)
        cv2.putText(drawn, text, (x, y - below // 2), font, scale, ink, max(1, thickness // 2), cv2.LINE_AA)
    return drawn


def can_write(suffix: str) -> bool:
    """Whether images with this suffix (`.jpg`) can be written."""
    return bool(suffix) and suffix.isascii() and bool(import_opencv().haveImageWriter(f"image{suffix}"))


def write_image(path: Path, image: Pixels, *, force: bool = False) -> None:
    """Write an image in the format of its suffix, in one step.

    Raises:
        ImageError: the format is unknown, or cannot hold the image.
        OutputError: the file exists and `force` is false, or the disk refuses.
    """
    cv2 = import_opencv()
    if not can_write(path.suffix):
        raise ImageError(f"cannot write {path}: OpenCV knows no image format {path.suffix or 'without a suffix'!r}")
    try:
        good, data = cv2.imencode(path.suffix, image)
    except cv2.error as error:
        raise ImageError(f"cannot write {path}: {one_line(error)}") from error
    if not good:
        raise ImageError(f"cannot write {path}: OpenCV cannot encode an image of the shape {image.shape}")
    write_bytes(path, data.tobytes(), force=force)
