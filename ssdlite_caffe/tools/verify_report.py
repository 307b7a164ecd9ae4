"""What `verify` shows: which images it takes, a table for the terminal, and a page with both sides' images."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.table import Table

from ssdlite_caffe.errors import ImageError
from ssdlite_caffe.files import refuse_existing, write_text
from ssdlite_caffe.imports import import_opencv
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.draw import draw_detections
from ssdlite_caffe.runtimes.images import find_sources, read_image
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.net import NetRuntime
from ssdlite_caffe.terminal import table_console
from ssdlite_caffe.tools.convert import Progress
from ssdlite_caffe.tools.tolerances import LAYER_RELATIVE
from ssdlite_caffe.tools.verify import Bounds, ImageComparison, NamedImage, Row, VerifyReport, verify

SHOWN_SCORE = 0.3
"""Least score drawn on the page; all detections are compared."""


def verify_images(
    source: Path,
    folder: Path,
    images: Sequence[Path],
    *,
    runtime: NetRuntime = "opencv",
    pipeline_config: Path | None = None,
    tolerance: float | None = None,
    limit: int = 8,
    html: Path | None = None,
    force: bool = False,
    progress: Progress = lambda _: None,
) -> VerifyReport:
    """Compare the two sides on the first `limit` of the images given, or on drawn ones; see `verify`.

    Raises:
        SsdliteError: a side cannot be loaded, or an image cannot be read (before anything is run).
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
    bounds = None
    if tolerance is not None:
        # Layers and logits come before the sigmoid and the boxes' small variances, which shrink their differences.
        bounds = Bounds(layer=max(LAYER_RELATIVE, 10 * tolerance), box=tolerance, score=tolerance)
    progress("starting TensorFlow")
    report = verify(source, model, compared, runtime=runtime, pipeline_config=pipeline_config, bounds=bounds, keep=keep)
    if html is not None:
        write_text(html, page(report, kept, model.labels.display_names), force=force)
    return report


def _read(images: Sequence[Path], limit: int) -> Iterator[NamedImage]:
    paths = []
    for source in find_sources(images)[:limit]:
        if isinstance(source, ImageError):
            raise source
        paths.append(source.path)
    return ((path.name, np.ascontiguousarray(read_image(path)[:, :, ::-1])) for path in paths)


def drawn_images(size: tuple[int, int], count: int) -> Iterator[NamedImage]:
    """Gradients with boxes, discs and noise, the same in every run: enough to bring every layer to life.

    Args:
        size: (height, width) of the network input; the images differ from it in size and shape.
        count: how many.
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


def worst_of_sections(rows: Sequence[Row]) -> list[Row]:
    """For each section its row that fails, or else that is nearest to its bound; detections row by row."""
    worst: dict[str, Row] = {}
    for row in rows:
        key = row.stage if row.section == "detections" else row.section
        known = worst.get(key)
        if known is None or (known.ok, -known.share) > (row.ok, -row.share):
            worst[key] = row
    return list(worst.values())


def print_report(report: VerifyReport, *, all_layers: bool = False) -> None:
    """The table and the verdict, on stdout."""
    count = len(report.names)
    table = Table(title=f"{report.reference} and {report.runtime} on {count} image{'s' * (count != 1)}")
    for heading in ("stage", "shape"):
        table.add_column(heading, overflow="fold")
    for heading in ("largest difference", "relative", "bound"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for row in report.rows if all_layers else worst_of_sections(report.rows):
        bound = f"{row.bound:.0e}" + (" rel." if row.relative_bound else "")
        shape = "x".join(map(str, row.shape))
        sizes = f"{row.absolute:.2e}", f"{row.relative:.1e}"
        if row.section == "files":
            sizes, bound = (f"{row.absolute:.0f} changed", ""), ""
        elif math.isinf(row.absolute):
            sizes = "unpaired", ""
        mark, style = ("ok", None) if row.ok else ("DIFFERS", "bold red")
        table.add_row(row.stage, shape, *sizes, bound, mark, style=style)
    table_console().print(table)
    print(verdict(report))


def verdict(report: VerifyReport) -> str:
    """One sentence: equal, or the first stage that is not."""
    failure = report.first_failure
    if failure is None:
        count = len(report.names)
        return f"equal within the bounds on {count} image{'s' * (count != 1)}"
    reason = "" if report.exact else " (the folder says that it is not exact)"
    note = f": {failure.note}" if failure.note else ""
    return f"the first stage beyond its bound is {failure.stage}, {failure.absolute:.2e}{note}{reason}"


def page(report: VerifyReport, results: Sequence[ImageComparison], names: Sequence[str]) -> str:
    """A self-contained HTML page: the verdict, the table, and each image with both sides' detections."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("ssdlite_caffe", "templates"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    images = [
        {
            "name": result.name,
            "tensorflow": _data_url(result.image, result.tensorflow, names),
            "caffe": _data_url(result.image, result.caffe, names),
            "count": len(result.tensorflow.above(SHOWN_SCORE)),
        }
        for result in results
    ]
    template = environment.get_template("verify.html.j2")
    text = template.render(report=report, verdict=verdict(report), images=images, shown_score=SHOWN_SCORE)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")  # file names may be of another encoding


def _data_url(image: npt.NDArray[np.uint8], detections: Detections, names: Sequence[str]) -> str:
    cv2 = import_opencv()
    drawn = draw_detections(np.ascontiguousarray(image[:, :, ::-1]), detections.above(SHOWN_SCORE), names)
    written, data = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, 88])
    assert written, "OpenCV writes JPEG"
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
