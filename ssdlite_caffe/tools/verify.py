"""Whether a converted net is TensorFlow's: both sides on the same network inputs, in float32 and in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.dump.locate import locate
from ssdlite_caffe.errors import ImageError, ModelError, PrototxtError
from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.load.names import with_blobs_of
from ssdlite_caffe.prototxt.text import read_net
from ssdlite_caffe.resizer import Resizer
from ssdlite_caffe.runtimes.keras_file import keras_file
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.net import NetRuntime
from ssdlite_caffe.runtimes.source_detector import RUNS_IN, DoubleSource, SourceDetector
from ssdlite_caffe.runtimes.tensorflow_detector import check_runnable
from ssdlite_caffe.tools.comparison import Bounds, Comparison, ImageComparison, Nets, Row
from ssdlite_caffe.tools.judge import judged
from ssdlite_caffe.tools.proof import Image, Proof
from ssdlite_caffe.tools.reference_side import ReferenceSide
from ssdlite_caffe.tools.same_model import check_same
from ssdlite_caffe.tools.settings_check import other_settings
from ssdlite_caffe.tools.source import open_model

NamedImage = tuple[str, npt.NDArray[np.uint8]]
"""Name, and uint8 RGB (H, W, 3)."""


@dataclass(frozen=True)
class VerifyReport:
    """Result of a comparison.

    Attributes:
        rows: from the stem to the detections.
        names: of the images.
        exact: whether the conversion is exact, according to the folder's report.
        reference: runtime of the source model.
        form: kind of file of the source model.
        unproved: why the nets were not compared in float64; empty if they were.
    """

    source: str
    folder: str
    runtime: str
    rows: tuple[Row, ...]
    names: tuple[str, ...]
    exact: bool
    reference: str = "TensorFlow"
    form: str = "model"
    unproved: str = ""

    @property
    def first_failure(self) -> Row | None:
        """The first stage beyond its bound; None if all pass."""
        return next((row for row in self.rows if not row.ok), None)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        failure = self.first_failure
        data = asdict(self)
        for row in data["rows"]:
            _without_inf(row)
            _without_inf(row["double"] or {})
        data["ok"] = failure is None
        data["first_failure"] = None if failure is None else failure.stage
        return data


def _without_inf(values: dict[str, Any]) -> None:
    """Replace Inf and NaN, which JSON does not have, by None."""
    values.update({key: None for key, value in values.items() if isinstance(value, float) and not math.isfinite(value)})


def verify(
    source: Path,
    folder: ModelFolder,
    images: Iterable[NamedImage],
    *,
    runtime: NetRuntime = "opencv",
    pipeline_config: Path | None = None,
    bounds: Bounds | None = None,
    keep: Callable[[ImageComparison], None] = lambda _: None,
) -> VerifyReport:
    """Run both sides on every image and compare them.

    Both sides get the same float32 network input, TensorFlow at its stem and Caffe at `data`, so that differences in
    resizing do not affect the comparison of the nets.

    Args:
        source: the TensorFlow model that `folder` was converted from.
        folder: the converted model.
        images: at least one.
        runtime: runtime of the converted nets.
        pipeline_config: of the model; None: the one used in the conversion.
        bounds: largest differences that pass, in float32 alone; None: float64 decides, see `proof`.
        keep: called with each image's detections, for drawing.

    Raises:
        SsdliteError: a side cannot be loaded, or the folder was not converted from this model.
    """
    _check_before(source, folder)
    reading = folder.reading_with(pipeline_config)
    nets = Nets.of(folder, runtime)  # loaded before TensorFlow, which takes seconds
    names: list[str] = []
    with open_model(source, reading) as opened:
        model = opened.model
        check_same(model, folder)
        resizers = _resizer_rows(opened.arch.resizer, folder.arch.resizer)
        settings = _settings_row(other_settings(opened.arch, folder))
        with opened.run() as running:
            net = with_blobs_of(build(folder.arch), read_net(folder.deploy_prototxt))
            # The source model's NMS options: the folder's may have another score threshold, given to convert.
            reference = ReferenceSide(model, opened.arch.nms, net, running)
            comparison = Comparison(reference, folder, bounds or Bounds(), nets)
            with _InDouble(reference, running, folder, nets, asked=bounds is None) as double:
                for name, image in images:
                    try:
                        compared = comparison.image(name, image)
                    except ImageError as error:  # which does not know the image's name
                        raise ImageError(f"{name}: {error}") from error
                    double.image(image)
                    keep(compared)
                    names.append(name)
    if not names:
        raise ModelError("verify needs at least one image")
    side = RUNS_IN.get(model.form, "TensorFlow")
    exact = bool(folder.report.get("exact", True))
    rows = judged(comparison.rows(), double.found)
    return VerifyReport(
        model.source, str(folder.path), runtime, (*resizers, settings, *rows), tuple(names), exact, side, model.form,
        double.unproved,
    )  # fmt: skip


class _InDouble:
    """The comparison in float64, of image after image; or why there is none.

    Attributes:
        found: of all images so far; None if it cannot be computed.
        unproved: why it cannot; empty if it can.
    """

    def __init__(
        self, reference: ReferenceSide, running: SourceDetector, folder: ModelFolder, nets: Nets, *, asked: bool
    ) -> None:
        self.reference = reference
        self.found: Image | None = None
        self.unproved = "" if asked else "float32 alone was asked for"
        self._stack = ExitStack()
        if asked:
            try:
                double = self._stack.enter_context(DoubleSource(running, list(reference.layer_outputs().values())))
                self._proof = Proof(reference, double, folder, nets.deploy)
            except (ModelError, PrototxtError) as error:
                self.unproved = str(error)

    def __enter__(self) -> _InDouble:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def image(self, image: npt.NDArray[np.uint8]) -> None:
        """Compare one more image (H, W, 3), RGB."""
        if self.unproved:
            return
        try:
            one = self._proof.image(self.reference.network_input(image))
        except (ModelError, PrototxtError) as error:
            self.found, self.unproved = None, str(error)
            return
        self.found = one if self.found is None else self.found.with_image(one)


def _check_before(source: Path, folder: ModelFolder) -> None:
    """Refuse what cannot be compared, as far as the files show it, before anything is loaded."""
    if "remapped_from" in folder.report:
        raise ModelError(f"{folder.path} has remapped classes; give the folder that it was remapped from")
    merged = folder.report.get("merged_from")
    if "tensors" not in folder.report and isinstance(merged, dict):
        raise ModelError(
            f"{folder.path} has the weights of {merged.get('weights')}, and its report does not say that they are a "
            "TensorFlow model's; verify the folder that was converted, or compare with `ssdlite-caffe evaluate`"
        )
    if keras_file(source) is None:
        found = locate(source)
        if found.kind != "TensorFlow Lite":
            check_runnable(found)


def _settings_row(others: list[str]) -> Row:
    """A row for the settings that no layer's output shows."""
    note = "; ".join(others) or "preprocessing, box coder, scores and suppression are the model's"
    return Row("settings", "settings", (), float(len(others)), float(len(others)), 0.5, False, not others, note)


def _resizer_rows(model: Resizer, folder: Resizer) -> tuple[Row, ...]:
    """A failing row if the folder's detector would resize images in another way than the model, as of old folders.

    The row `input` shows it only of images that are not of the input's size.
    """
    if model == folder:
        return ()
    note = f"the model's is {model.text()}, the folder's {folder.text()}; convert the model again"
    return (Row("resizer", "files", (), 1.0, 1.0, 0.5, False, False, note),)
