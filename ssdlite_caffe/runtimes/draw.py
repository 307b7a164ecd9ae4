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
from ssdlite_caffe.runtimes.draw_labels import Rectangle, place_labels
from ssdlite_caffe.runtimes.images import Pixels
from ssdlite_caffe.runtimes.opencv_net import one_line

Colour = tuple[int, int, int]
"""Blue, green, red, each from 0 to 255."""

_GOLDEN_RATIO = 0.618034
_BLACK: Colour = (0, 0, 0)
_WHITE: Colour = (255, 255, 255)


def class_colour(number: int) -> Colour:
    """A bright colour for a class, the same in every image; classes next to each other get hues far apart."""
    red, green, blue = colorsys.hsv_to_rgb(number * _GOLDEN_RATIO % 1.0, 0.85, 0.95)
    return round(blue * 255), round(green * 255), round(red * 255)


def text_colour(background: Colour) -> Colour:
    """Black or white, whichever contrasts more; the contrast ratio is at least 4.5 on any background."""
    return max(_BLACK, _WHITE, key=lambda colour: contrast(colour, background))


def contrast(one: Colour, other: Colour) -> float:
    """The contrast ratio of two colours, from 1 to 21. Source: WCAG 2.2, "contrast ratio" and "relative luminance"."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: Colour) -> float:
    values = np.array(colour) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.0722, 0.7152, 0.2126))


def pixel_boxes(detections: Detections, height: int, width: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Boxes (M, 4) in pixels: xmin, ymin, xmax, ymax."""
    return detections.boxes.astype(np.float64) * (width, height, width, height)


def draw_detections(image: Pixels, detections: Detections, names: Sequence[str]) -> Pixels:
    """Draw boxes with class names and scores; see `draw_labelled`.

    Args:
        image: uint8 (H, W, 3), BGR; not changed.
        detections: the best is drawn on top, and its label is placed first.
        names: of the classes, background first.

    Returns:
        A new image.
    """
    texts = [f"{names[i]} {score:.2f}" for i, score in zip(detections.classes, detections.scores, strict=True)]
    return draw_labelled(image, detections.boxes, detections.classes.tolist(), texts)


def draw_labelled(
    image: Pixels, boxes: npt.NDArray[np.floating[Any]], classes: Sequence[int], texts: Sequence[str]
) -> Pixels:
    """Draw boxes with a label at each; lines and letters grow with the image.

    Labels are inside the image and do not cover each other. One that there is no space for is not drawn: the colour of
    its box still tells the class.

    Args:
        image: uint8 (H, W, 3), BGR; not changed.
        boxes: (M, 4), xmin, ymin, xmax, ymax as fractions of the image; the first is drawn on top, and its label is
            placed first.
        classes: M numbers that choose the colours.
        texts: M.

    Returns:
        A new image.
    """
    cv2 = import_opencv()
    drawn = image.copy()
    height, width = image.shape[:2]
    thickness = max(1, round(min(height, width) / 240))
    style = _LabelStyle(min(height, width))
    corners = np.rint(boxes.astype(np.float64) * (width, height, width, height))
    corners = np.clip(corners, 0, [width - 1, height - 1] * 2).astype(int)
    rectangles = [Rectangle(left, top, right + 1, bottom + 1) for left, top, right, bottom in corners.tolist()]
    places = place_labels(rectangles, [style.size(text) for text in texts], height, width)
    items = list(zip(rectangles, places, map(class_colour, classes), texts, strict=True))[::-1]
    for box, _, colour, _ in items:
        cv2.rectangle(drawn, box[:2], (box.right - 1, box.bottom - 1), colour, thickness)
    for _, place, colour, text in items:
        if place is not None:
            style.draw(drawn, text, place, colour)
    return drawn


class _LabelStyle:
    """Letters that fit an image: some 1/36 of its smaller side high, and never too small to read."""

    def __init__(self, side: int) -> None:
        self.scale = max(0.35, side / 800)
        self.thickness = max(1, round(1.5 * self.scale))
        self.padding = max(1, round(4 * self.scale))

    def size(self, text: str) -> tuple[int, int]:
        """Width and height of the label in pixels."""
        wide, high, below = self._measure(text)
        return wide + 2 * self.padding, high + below + 2 * self.padding

    def draw(self, image: Pixels, text: str, place: Rectangle, colour: Colour) -> None:
        """Draw the text on its background."""
        cv2 = import_opencv()
        _, high, _ = self._measure(text)
        origin = place.left + self.padding, place.top + self.padding + high
        cv2.rectangle(image, place[:2], (place.right - 1, place.bottom - 1), colour, cv2.FILLED)
        font = cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(image, text, origin, font, self.scale, text_colour(colour), self.thickness, cv2.LINE_AA)

    def _measure(self, text: str) -> tuple[int, int, int]:
        """Width, height above the base line, and depth below it."""
        cv2 = import_opencv()
        (wide, high), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, self.scale, self.thickness)
        return wide, high, below


def can_write(suffix: str) -> bool:
    """Whether OpenCV writes images with this suffix (`.jpg`)."""
    return bool(suffix) and suffix.isascii() and bool(import_opencv().haveImageWriter(f"image{suffix}"))


def write_image(path: Path, image: Pixels, *, force: bool = False) -> None:
    """Write an image in the format of its suffix; the file appears whole or not at all.

    Args:
        path: ends in a suffix that OpenCV writes.
        image: uint8 (H, W, 3), BGR.
        force: replace the file where it exists.

    Raises:
        ImageError: OpenCV does not write that format, or the format cannot hold the image.
        OutputError: the file exists and `force` is false, or it cannot be written.
    """
    cv2 = import_opencv()
    if not can_write(path.suffix):
        kind = f"images in the format {path.suffix!r}" if path.suffix else "images without a suffix"
        raise ImageError(f"cannot write {path}: OpenCV does not write {kind}; use .png or .jpg")
    try:
        good, data = cv2.imencode(path.suffix, image)
    except cv2.error as error:
        raise ImageError(f"cannot write {path}: {one_line(error)}") from error
    if not good:
        raise ImageError(f"cannot write {path}: OpenCV cannot encode an image of the shape {image.shape}")
    write_bytes(path, data.tobytes(), force=force)
