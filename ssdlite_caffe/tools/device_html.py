"""The page that `verify --dump --html` writes: outputs, layers, average precision, and both sides' detections."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.resize import pixels_of
from ssdlite_caffe.tools.comparison import ImageComparison
from ssdlite_caffe.tools.device_accuracy import ACCURACY_HEADINGS, accuracy_rows, accuracy_text
from ssdlite_caffe.tools.device_check import ComparedImage, DumpReport
from ssdlite_caffe.tools.device_report import OUTPUT_HEADINGS, matches_text, output_cells
from ssdlite_caffe.tools.verify_html import AMPLIFIED, SHOWN_SCORE, environment, figure

MOST_FIGURES = 8
"""Images on the page, at most."""


def shown(folder: ModelFolder, image: ComparedImage) -> ImageComparison | None:
    """An image for the page, as the net gets it, so that boxes fit a letterbox too; None without detections."""
    if image.device is None:
        return None
    pixels = np.rint(np.clip(pixels_of(folder.arch, image.pixels), 0, 255)).astype(np.uint8)
    return ImageComparison(image.name, pixels, image.reference.detections, image.device)


def device_page(report: DumpReport, source: Path, folder: ModelFolder, images: Sequence[ImageComparison]) -> str:
    """A self-contained HTML page; the same comparison gives the same text.

    Args:
        report: the comparison.
        source: the model.
        folder: the converted model.
        images: the images to show, from `shown`.
    """
    accuracy = report.accuracy
    columns = len(OUTPUT_HEADINGS) - all(row.own is None for row in report.outputs)  # the last is of dumped layers
    text = (
        environment()
        .get_template("device.html.j2")
        .render(
            report=report,
            source=source,
            folder=folder.path,
            matches=matches_text(report.detections),
            accuracy="" if accuracy is None else accuracy_text(accuracy),
            accuracy_headings=ACCURACY_HEADINGS,
            accuracy_rows=[] if accuracy is None else accuracy_rows(accuracy),
            output_headings=OUTPUT_HEADINGS,
            columns=columns,
            outputs=[output_cells(row)[:columns] for row in report.outputs],
            layers=[output_cells(row) for row in report.layers],
            figures=[figure(image, folder.labels.display_names) for image in images],
            shown_score=SHOWN_SCORE,
            amplified=AMPLIFIED,
        )
    )
    return text.encode("utf-8", "backslashreplace").decode("utf-8")  # file names may be of another encoding
