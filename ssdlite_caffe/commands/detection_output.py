"""What `ssdlite-caffe detect` prints: a table, JSON or CSV on stdout, errors and progress on stderr."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from ssdlite_caffe.errors import ImageError
from ssdlite_caffe.runtimes.detector import Decoder, ImageResult, Progress, detect
from ssdlite_caffe.runtimes.draw import pixel_boxes
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.net import NetRuntime
from ssdlite_caffe.terminal import table_console

Output = Literal["table", "json", "csv"]

_COLUMNS = ("image", "frame", "class", "name", "score", "xmin", "ymin", "xmax", "ymax")


def run(
    folder: Path,
    inputs: Sequence[Path],
    *,
    decoder: Decoder = "caffe",
    runtime: NetRuntime = "opencv",
    min_score: float = 0.3,
    out: Path | None = None,
    force: bool = False,
    output: Output = "table",
) -> bool:
    """Detect and print; arguments as for `detector.detect`.

    Returns:
        Whether an image could not be read. Each is reported on stderr, and the others are done.

    Raises:
        SsdliteError: the model cannot be used, or the output cannot be written.
    """
    model = ModelFolder.open(folder)
    names = model.labels.display_names

    def results(progress: Callable[[Progress], None]) -> Iterator[ImageResult | ImageError]:
        return detect(
            model, inputs, decoder=decoder, runtime=runtime, min_score=min_score, out=out, force=force,
            progress=progress,
        )  # fmt: skip

    return show(results, names, out=out, output=output)


def show(
    detected: Callable[[Callable[[Progress], None]], Iterable[ImageResult | ImageError]],
    names: Sequence[str],
    *,
    out: Path | None = None,
    output: Output = "table",
    keep: Callable[[ImageResult], None] = lambda _: None,
) -> bool:
    """Print what `detected` gives, which takes a function to report its progress to.

    Args:
        detected: see above.
        names: of the classes, background first.
        out: where the drawn images are, to be named.
        output: the form.
        keep: is given each result.

    Returns:
        Whether an image could not be read; see `run`.
    """
    console = Console(stderr=True)
    errors: list[ImageError] = []
    columns = (TextColumn("detecting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def progress(state: Progress) -> None:
            bar.update(task, completed=state.done, total=state.total)

        def good() -> Iterator[ImageResult]:
            for item in detected(progress):
                if isinstance(item, ImageError):
                    errors.append(item)
                    console.print(Text(f"ssdlite-caffe: {item}"), soft_wrap=True)
                else:
                    keep(item)
                    yield item

        if output == "csv":
            _print_csv(good(), names)
        else:
            results = list(good())
    if output == "json":
        _print_json(results, errors, names)
    elif output == "table":
        _print_table(results, names, out)
    return bool(errors)


def _rows(result: ImageResult, names: Sequence[str]) -> list[dict[str, Any]]:
    """One a detection; boxes in pixels."""
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


def _print_table(results: Sequence[ImageResult], names: Sequence[str], out: Path | None) -> None:
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
    console = table_console()
    if results:
        console.print(table)
    if out is not None and results:
        console.print(Text(f"boxes are drawn in {out}"), soft_wrap=True)
