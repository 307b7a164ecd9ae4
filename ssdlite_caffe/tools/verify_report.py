"""The command `verify`: which images it takes, and its report on the terminal and as a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rich import box
from rich.table import Table

from ssdlite_caffe.errors import ImageError
from ssdlite_caffe.files import refuse_existing, write_text
from ssdlite_caffe.imports import import_opencv
from ssdlite_caffe.runtimes.images import find_sources, read_image
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.net import NetRuntime
from ssdlite_caffe.terminal import table_console
from ssdlite_caffe.tools.comparison import Bounds, ImageComparison
from ssdlite_caffe.tools.convert import Progress
from ssdlite_caffe.tools.tolerances import LAYER_RELATIVE
from ssdlite_caffe.tools.verify import NamedImage, VerifyReport, verify
from ssdlite_caffe.tools.verify_html import page
from ssdlite_caffe.tools.verify_text import (
    cells,
    columns,
    count_of_images,
    legend,
    sides,
    verdict,
    worst_of_sections,
)


def verify_images(
    source: Path,
    folder: Path,
    images: Sequence[Path],
    *,
    runtime: NetRuntime = "opencv",
    pipeline_config: Path | None = None,
    tolerance: float | None = None,
    quick: bool = False,
    limit: int = 8,
    html: Path | None = None,
    force: bool = False,
    progress: Progress = lambda _: None,
) -> VerifyReport:
    """Compare the two sides, as `verify` does.

    Args:
        source: the TensorFlow model that `folder` was converted from.
        folder: the converted model.
        images: image files and folders of such; empty: drawn images.
        runtime: what runs the converted nets.
        pipeline_config: of the model; None: as on converting.
        tolerance: with `quick`, bound of boxes, scores and detections, absolute; None: those in `tolerances`.
        quick: compare in float32 alone, with fixed bounds.
        limit: number of images to compare at most.
        html: page to write; None: none.
        force: replace that page where it exists.
        progress: called with what is being done.

    Raises:
        OutputError: the page exists and `force` is false, or it cannot be written.
        SsdliteError: a side cannot be loaded, or an image cannot be found (before anything is run) or read.
    """
    if html is not None:
        refuse_existing(html, force=force)
    model = ModelFolder.open(folder)
    kept: list[ImageComparison] = []

    def keep(result: ImageComparison) -> None:
        progress(f"compared {result.name}")
        if html is not None:
            kept.append(result)

    compared = _read(images, limit) if images else drawn_images(model.arch.input_size, limit)
    bounds = Bounds() if quick else None
    if tolerance is not None:
        # Layers come before the sigmoid and the small variances of the boxes, which make differences smaller.
        bounds = Bounds(layer=max(LAYER_RELATIVE, 10 * tolerance), box=tolerance, score=tolerance)
    progress("starting what runs the model")
    report = verify(source, model, compared, runtime=runtime, pipeline_config=pipeline_config, bounds=bounds, keep=keep)
    if html is not None:
        write_text(html, page(report, kept, model.labels.display_names), force=force)
    return report


def _read(images: Sequence[Path], limit: int) -> Iterator[NamedImage]:
    paths = []
    for source in find_sources(images)[:limit]:
        if isinstance(source, ImageError):
            raise source
        if source.video:
            raise ImageError(f"{source.path} is a video; verify compares images")
        paths.append(source.path)
    return ((path.name, np.ascontiguousarray(read_image(path)[:, :, ::-1])) for path in paths)


def drawn_images(size: tuple[int, int], count: int) -> Iterator[NamedImage]:
    """Gradients with boxes, discs and noise, the same in every run: no layer's output is constant on them.

    Args:
        size: (height, width) of the network input; the images differ from it in size and shape.
        count: number of images.

    Returns:
        Names "drawn 0", "drawn 1", ..., and images uint8 RGB (H, W, 3).
    """
    cv2 = import_opencv()
    for seed in range(count):
        random = np.random.default_rng(seed)
        height, width = (round(side * random.uniform(0.7, 1.8)) for side in size)
        ramp = np.linspace(random.uniform(0, 255, 3), random.uniform(0, 255, 3), width)
        image = np.broadcast_to(ramp, (height, width, 3)).copy()
        for _ in range(random.integers(4, 12)):
            x, y = int(random.integers(width)), int(random.integers(height))
            radius = int(random.uniform(0.03, 0.3) * min(size))
            colour = random.uniform(0, 255, 3).tolist()
            if random.random() < 0.5:
                cv2.circle(image, (x, y), radius, colour, cv2.FILLED)
            else:
                cv2.rectangle(image, (x - radius, y - radius // 2), (x + radius, y + radius // 2), colour, cv2.FILLED)
        image += random.normal(0, random.uniform(1, 20), image.shape)
        yield f"drawn {seed}", np.clip(image, 0, 255).astype(np.uint8)


def print_report(report: VerifyReport, *, all_layers: bool = False) -> None:
    """The verdict and the table, on stdout; the table is made for 100 columns, that of float32 alone for 80.

    Args:
        report: the comparison.
        all_layers: print every row in place of the worst of each section.
    """
    print(verdict(report))
    print(sides(report))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    table.title = f"{report.reference} and {report.runtime} on {count_of_images(report)}"
    for heading in ("stage", "shape"):
        table.add_column(heading, overflow="fold")
    shown = columns(report)
    for column in shown:
        table.add_column(column.heading, justify="right" if column.number else "left", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in report.rows if all_layers else worst_of_sections(report.rows):
        text = cells(row)
        style = None if row.ok else "bold red"
        values = [getattr(text, column.entry) for column in shown]
        table.add_row(text.stage, text.shape, *values, text.mark, style=style)
    table_console().print(table)
    for line in legend(report):
        print(line)
