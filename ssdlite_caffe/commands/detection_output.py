"""Output of `detect` and `keras infer`: a table, a summary, JSON or CSV on stdout; errors and progress on stderr."""

from __future__ import annotations

import collections
import csv
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from ssdlite_caffe.errors import ImageError
from ssdlite_caffe.runtimes.detector import ImageResult
from ssdlite_caffe.runtimes.draw import pixel_boxes
from ssdlite_caffe.terminal import bar, duration_text, table_console

Output = Literal["table", "json", "csv"]

_COLUMNS = ("image", "frame", "class", "name", "score", "xmin", "ymin", "xmax", "ymax")
_LISTED = 5
"""With drawn images, detections are listed for up to this many images and summed up for more."""


def show(
    detected: Callable[[Callable[[int, int], None]], Iterable[ImageResult | ImageError]],
    names: Sequence[str],
    *,
    out: Path | None = None,
    output: Output = "table",
    keep: Callable[[ImageResult], None] = lambda _: None,
) -> bool:
    """Run a detector and print its results.

    Args:
        detected: takes a progress function, which it calls with the number of images done and the total, and yields
            the results.
        names: of the classes, background first.
        out: folder of the drawn images; if given, more than 5 images are summed up in one line.
        output: the format.
        keep: called with each result.

    Returns:
        Whether an image could not be read; such images are reported on stderr.
    """
    errors: list[ImageError] = []
    started = time.monotonic()
    with bar("detecting") as update:

        def good() -> Iterator[ImageResult]:
            for item in detected(update):
                if isinstance(item, ImageError):
                    errors.append(item)
                    print(f"ssdlite-caffe: {item}", file=sys.stderr)
                else:
                    keep(item)
                    yield item

        if output == "csv":
            _print_csv(good(), names)
        else:
            results = list(good())
    if output == "json":
        _print_json(results, errors, names)
    elif output == "table" and results:
        if out is None or len(results) <= _LISTED:
            _print_table(results, names)
        else:
            print(_summary(results, names, time.monotonic() - started))
        if out is not None:
            print(f"images with boxes are in {out}")
    return bool(errors)


def _rows(result: ImageResult, names: Sequence[str]) -> list[dict[str, Any]]:
    """A dict for each detection; boxes in pixels."""
    found = result.detections
    boxes = pixel_boxes(found, result.height, result.width).tolist()
    return [
        {
            "class": int(number),
            "name": names[number],
            "score": round(float(score), 6),
            "box": [round(v, 2) for v in box],
        }
        for number, score, box in zip(found.classes, found.scores, boxes, strict=True)
    ]


def _summary(results: Sequence[ImageResult], names: Sequence[str], seconds: float) -> str:
    counts = collections.Counter(names[number] for result in results for number in result.detections.classes)
    classes = ", ".join(f"{name} {count}" for name, count in counts.most_common())
    frames = any(result.frame is not None for result in results)
    return (
        f"{sum(counts.values())} detections{f' ({classes})' if classes else ''} in {len(results)} "
        f"{'images and frames' if frames else 'images'}, {duration_text(seconds)}"
    )


def _print_csv(results: Iterable[ImageResult], names: Sequence[str]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for result in results:
        frame = "" if result.frame is None else result.frame
        for row in _rows(result, names):
            writer.writerow((result.path, frame, row["class"], row["name"], row["score"], *row["box"]))


def _print_json(results: Sequence[ImageResult], errors: Sequence[ImageError], names: Sequence[str]) -> None:
    images = [
        {
            "image": str(result.path),
            **({} if result.frame is None else {"frame": result.frame}),
            "height": result.height,
            "width": result.width,
            "detections": _rows(result, names),
        }
        for result in results
    ]
    print(json.dumps({"images": images, "errors": [str(error) for error in errors]}, indent=2))


def _print_table(results: Sequence[ImageResult], names: Sequence[str]) -> None:
    table = Table()
    table.add_column("image", overflow="fold")
    table.add_column("class", overflow="fold")
    table.add_column("score", justify="right")
    table.add_column("box in pixels: xmin, ymin, xmax, ymax", justify="right")
    for result in results:
        label = str(result.path) if result.frame is None else f"{result.path} frame {result.frame}"
        rows = _rows(result, names)
        if not rows:
            table.add_row(Text(label), Text("nothing", style="dim"), "", "")
        for row in rows:
            box = " ".join(f"{v:7.1f}" for v in row["box"])
            table.add_row(Text(label), Text(row["name"]), f"{row['score']:.3f}", box)
            label = ""
        table.add_section()
    table_console().print(table)
