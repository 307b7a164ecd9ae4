"""What exactness.py measures of one model: differences from TensorFlow, and average precision."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from exactness_models import Found
from exactness_results import number

from ssdlite_caffe import convert, evaluate
from ssdlite_caffe.data.toy_scenes import ShapesOptions, draw_scene, make_shapes
from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.runtimes.images import read_image
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.net import NetRuntime
from ssdlite_caffe.tools.comparison import Bounds
from ssdlite_caffe.tools.judge import less_exact
from ssdlite_caffe.tools.tolerances import LAYER_ABSOLUTE
from ssdlite_caffe.tools.verify import NamedImage, VerifyReport, verify
from ssdlite_caffe.tools.verify_report import drawn_images
from ssdlite_caffe.tools.verify_text import verdict

RUNTIMES: tuple[NetRuntime, ...] = get_args(NetRuntime)
INEXACT: dict[str, Dialect] = {
    "--padding symmetric": Dialect(padding="symmetric"),
    "--activation relu": Dialect(activation="relu"),
}
WHOLE_NET = {"boxes64": "boxes in float64", "scores64": "scores in float64"}
"""Stages of a VerifyReport that compare the whole nets in float64; None in the record where a report has none."""
IN_FLOAT64 = 3
"""Images that are compared in float64 as well, where `verify` does not do so with all of them."""
SCENES, FIRST_SCENE = 60, 1000
"""Of `ssdlite-caffe shapes --count 60 --seed 1000`, on which the average precision is measured."""


class Model:
    """A model that has been converted into a scratch folder."""

    def __init__(self, found: Found, scratch: Path, data: Path | None, images: int) -> None:
        """Convert it.

        Args:
            found: the model.
            scratch: a folder for this model alone.
            data: the blood cells, in VOC's layout; None if they are not at hand.
            images: number of images to compare on.

        Raises:
            SsdliteError: it cannot be converted.
        """
        self.found, self.known, self.data, self.count = found, found.known, data, images
        self.scratch = scratch
        self.labels: Path | None = None
        if self.known.classes:
            self.labels = scratch / "labels.txt"
            self.labels.write_text(self.known.label_map(), "utf-8")
        report = self._converted("out")
        self.sha256: str = report["source"]["sha256"]
        self.size = ModelFolder.open(scratch / "out").arch.input_size

    def _converted(self, name: str, dialect: Dialect | None = None) -> dict[str, Any]:
        return convert(self.found.folder, self.scratch / name, label_map=self.labels, dialect=dialect)

    def images(self) -> list[NamedImage]:
        """Names, and uint8 RGB images."""
        if self.known.images == "drawn scenes":
            return [(f"scene {seed}", draw_scene(seed)[0]) for seed in range(self.count)]
        if self.data is None:
            return list(drawn_images(self.size, self.count))
        names = (self.data / "ImageSets" / "Main" / "test.txt").read_text("utf-8").split()[: self.count]
        files = ((name, self.data / "JPEGImages" / f"{name}.jpg") for name in names)
        return [(name, np.ascontiguousarray(read_image(path)[..., ::-1])) for name, path in files]

    def differences(self, runtime: NetRuntime) -> tuple[dict[str, Any], bool]:
        """A record of `verify`, and whether the nets are equal."""
        folder, images = ModelFolder.open(self.scratch / "out"), self.images()
        reports = [verify(self.found.folder, folder, images, runtime=runtime)]
        if not _all_in_float64(reports[0]):  # the first one was; so is each of these
            parts = ([image] for image in images[1:IN_FLOAT64])
            reports += [verify(self.found.folder, folder, part, runtime=runtime) for part in parts]
        return record(reports), all(report.first_failure is None for report in reports)

    def inexact(self, name: str) -> dict[str, Any]:
        """The largest differences of boxes and scores in one of INEXACT."""
        folder = self.scratch / name.strip("-").replace(" ", "-")
        self._converted(folder.name, INEXACT[name])
        report = verify(self.found.folder, ModelFolder.open(folder), self.images(), bounds=Bounds())
        rows = {row.stage: row for row in report.rows}
        return {"images": len(report.names), **{end: number(rows[end].absolute) for end in ("boxes", "scores")}}

    def precision(
        self, runtimes: Sequence[str], progress: Callable[[int, int], None]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each runtime's record of COCO's average precision, all on the same images."""
        scenes = self.known.images == "drawn scenes"
        data = self.data
        if scenes:
            data = self.scratch / "scenes"
            make_shapes(data, ShapesOptions(SCENES, FIRST_SCENE, split="test"))
        assert data is not None, "the caller looks for the blood cells"
        what = "drawn scenes" if scenes else f"images of {self.known.images}"
        result = evaluate(self.scratch / "out", data, runtimes=runtimes, progress=progress)
        for score in result.scores:
            threshold = score.score_threshold
            yield score.runtime, {
                "data": f"{result.images} {what}",
                "threshold": None if threshold is None else number(threshold),
                "ap": number(score.ap), "ap50": number(score.ap50), "detections": score.detections,
            }  # fmt: skip


def record(reports: Sequence[VerifyReport]) -> dict[str, Any]:
    """What the pages tell of a comparison: the worst of all reports; None is what was not computed.

    Args:
        reports: of the same net and runtime; the first one is of all images, each is in float64 on its first image.
    """
    judged = [row for report in reports for row in report.rows if row.stage not in WHOLE_NET.values()]
    shares = [row.double.share for row in judged if row.double is not None]
    ratios = [row for row in judged if row.ratio is not None]
    worst = max(ratios, key=lambda row: row.ratio or 0.0, default=None)
    # Relative differences of dead channels, some 1e-17 in all, say nothing.
    layers = [row.relative for row in judged if row.relative_bound and row.absolute > LAYER_ABSOLUTE]
    verdicts = [_verdict(report) for report in reports]

    def largest(stage: str) -> float | str | None:
        values = [row.absolute for report in reports for row in report.rows if row.stage == stage]
        return number(max(values, key=lambda v: math.inf if math.isnan(v) else v, default=None))

    return {
        "images": len(reports[0].names),
        "images64": _images_in_float64(reports),
        "verdict": next((text for text in verdicts if text != "equal"), "equal"),
        "share": number(max(shares, default=None)),
        "ratio": None if worst is None else number(worst.ratio),
        "ratio_at": None if worst is None else worst.stage,
        "boxes": largest("boxes"),
        "scores": largest("scores"),
        "detections": largest("detections"),
        "layer": number(max(layers, default=0.0)),
        **{key: largest(stage) for key, stage in WHOLE_NET.items()},
    }


def _all_in_float64(report: VerifyReport) -> bool:
    """Whether all images were computed in float64, as where the whole nets are."""
    return any(row.stage in WHOLE_NET.values() for row in report.rows)


def _images_in_float64(reports: Sequence[VerifyReport]) -> int:
    if reports[0].unproved:
        return 0
    return len(reports[0].names) if _all_in_float64(reports[0]) else len(reports)


def _verdict(report: VerifyReport) -> str:
    """The verdict of `verify`, without what the other columns tell."""
    if report.first_failure is not None or report.unproved:
        return verdict(report)
    return "equal" if less_exact(report.rows) is None else f"equal, but less exact than {report.reference}"


def at_hand(found: Found, data: Path | None) -> bool:
    """Whether the images that the pages' numbers are of are there."""
    return found.known.images != "blood cells" or data is not None


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder for one model's converted nets and scenes."""
    return tempfile.TemporaryDirectory(prefix="exactness-")


def with_run(record: Mapping[str, Any], run: str) -> dict[str, Any]:
    """A record that names its run."""
    return {"run": run, **record}
