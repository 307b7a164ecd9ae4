"""The page that `verify --html` writes: the verdict, the table, and each image with both sides' detections."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from jinja2 import Environment

from ssdlite_caffe.imports import import_opencv
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.draw import draw_detections
from ssdlite_caffe.runtimes.images import Pixels
from ssdlite_caffe.tools.comparison import ImageComparison, Row
from ssdlite_caffe.tools.verify import VerifyReport
from ssdlite_caffe.tools.verify_text import (
    Cells,
    Column,
    cells,
    columns,
    count_of_images,
    legend,
    verdict,
    worst_of_sections,
)

SHOWN_SCORE = 0.3
"""Least score drawn on the page; all detections are compared."""

LARGEST_SIDE = 960
"""Images with a longer side are drawn smaller, in pixels: the page holds three drawings of each."""

AMPLIFIED = 4
"""Factor of the difference image."""

_ORANGE = np.array([0.1, 0.6, 1.0])
"""Shares of blue, green and red."""

_LONG = 40
"""Notes of more characters have a line of the table to themselves."""


class _TableRow(NamedTuple):
    cells: Cells
    note: str
    long: bool
    ok: bool


class Figure(NamedTuple):
    """An image on the page; the drawings are data URLs."""

    name: str
    width: int
    height: int
    tensorflow: str
    caffe: str
    difference: str
    tensorflow_count: int
    caffe_count: int
    differing: int


def page(report: VerifyReport, results: Sequence[ImageComparison], names: Sequence[str]) -> str:
    """A self-contained HTML page; the same comparison gives the same text.

    Args:
        report: the comparison.
        results: the images to show, with the detections of both sides.
        names: of the classes, background first.
    """
    template = environment().get_template("verify.html.j2")
    text = template.render(
        report=report,
        verdict=verdict(report),
        count=count_of_images(report),
        columns=_columns(report),
        legend=legend(report),
        summary=_table(worst_of_sections(report.rows)),
        rows=_table(report.rows),
        figures=[figure(result, names) for result in results],
        shown_score=SHOWN_SCORE,
        amplified=AMPLIFIED,
    )
    return text.encode("utf-8", "backslashreplace").decode("utf-8")  # file names may be of another encoding


def _columns(report: VerifyReport) -> list[Column]:
    shown = columns(report)
    share = Column("of bound", "used", True)
    return [*shown, *([] if share in shown else [share])]


def _table(rows: Sequence[Row]) -> list[_TableRow]:
    return [_TableRow(cells(row), row.note, len(row.note) > _LONG, row.ok) for row in rows]


def figure(result: ImageComparison, names: Sequence[str]) -> Figure:
    """An image with the detections of both sides; `names` are of the classes, background first."""
    image = _at_most(np.ascontiguousarray(result.image[:, :, ::-1]), LARGEST_SIDE)
    tensorflow, caffe = (_draw(image, found, names) for found in (result.tensorflow, result.caffe))
    return Figure(
        name=result.name,
        width=image.shape[1],
        height=image.shape[0],
        tensorflow=_data_url(tensorflow, "jpeg"),
        caffe=_data_url(caffe, "jpeg"),
        difference=_data_url(difference_image(image, tensorflow, caffe), "png"),
        tensorflow_count=len(result.tensorflow.above(SHOWN_SCORE)),
        caffe_count=len(result.caffe.above(SHOWN_SCORE)),
        differing=int((tensorflow != caffe).any(axis=-1).sum()),
    )


def _at_most(image: Pixels, side: int) -> Pixels:
    """The image, made smaller where its longer side has more than `side` pixels."""
    height, width = image.shape[:2]
    if max(height, width) <= side:
        return image
    cv2 = import_opencv()
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _draw(image: Pixels, detections: Detections, names: Sequence[str]) -> Pixels:
    return draw_detections(image, detections.above(SHOWN_SCORE), names)


def difference_image(image: Pixels, one: Pixels, other: Pixels) -> Pixels:
    """The difference of two drawings on an image, amplified, in orange over the image in dark grey.

    Args:
        image: uint8 (H, W, 3), what was drawn on.
        one: a drawing, of the same shape, BGR.
        other: the other drawing.

    Returns:
        uint8 (H, W, 3), BGR. Where the drawings agree it is grey and below 64; elsewhere red is the largest difference
        of the three channels times AMPLIFIED.
    """
    grey = np.mean(image, axis=-1, keepdims=True) / 4
    difference = np.abs(one.astype(np.int16) - other).max(axis=-1, keepdims=True)
    amplified = np.minimum(difference * AMPLIFIED, 255) * _ORANGE
    shown: Pixels = np.where(difference == 0, grey, amplified).astype(np.uint8)
    return shown


def _data_url(image: Pixels, kind: str) -> str:
    cv2 = import_opencv()
    written, data = cv2.imencode(f".{kind}", image, [cv2.IMWRITE_JPEG_QUALITY, 88] if kind == "jpeg" else [])
    assert written, f"OpenCV writes {kind}"
    return f"data:image/{kind};base64," + base64.b64encode(data.tobytes()).decode()


def environment() -> Environment:
    """What renders the templates of pages."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("ssdlite_caffe", "templates"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
