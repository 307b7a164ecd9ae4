"""Comparing TensorFlow and Caffe on the same network inputs: every layer, every default box, every detection."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump.locate import locate
from ssdlite_caffe.dump.model import DumpedModel
from ssdlite_caffe.errors import ImageError, ModelError
from ssdlite_caffe.files import file_sha256
from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.gen_model.default_boxes import cell_sizes
from ssdlite_caffe.gen_model.netdesc import ConvDesc, FeatureMapDesc, NetDesc
from ssdlite_caffe.load.boxes import match_cell
from ssdlite_caffe.resizer import Resizer
from ssdlite_caffe.runtimes.decode import decode_boxes, detections_of, split_priors
from ssdlite_caffe.runtimes.decode_tflite import postprocess
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.keras_file import keras_file
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.net import NetRuntime, RunningNet, open_net
from ssdlite_caffe.runtimes.resize import caffe_blob, window_of
from ssdlite_caffe.runtimes.tensorflow_detector import check_runnable
from ssdlite_caffe.tools.compare import Difference, compare_detections, difference
from ssdlite_caffe.tools.convert import tensors_sha256
from ssdlite_caffe.tools.reference_side import ReferenceSide
from ssdlite_caffe.tools.source import open_model
from ssdlite_caffe.tools.tolerances import BOX, HEADLESS, INPUT, LAYER_ABSOLUTE, LAYER_RELATIVE, SCORE

NamedImage = tuple[str, npt.NDArray[np.uint8]]
"""Name, and uint8 RGB (H, W, 3)."""


@dataclass(frozen=True)
class Bounds:
    """Largest differences that pass; see `tolerances`."""

    layer: float = LAYER_RELATIVE
    box: float = BOX
    score: float = SCORE


@dataclass(frozen=True)
class Row:
    """One line of the comparison: the worst difference over all images.

    Attributes:
        stage: layer (`conv_1/expand`), `input`, `headless`, `boxes`, `scores`, `detections` and the like.
        section: part of the net that the layer belongs to.
        shape: without the batch.
        absolute, relative: largest difference; the same divided by the largest absolute value of the reference.
        bound: largest `relative` for layers, largest `absolute` for other stages.
        relative_bound: whether `bound` is for `relative`.
        ok: whether the difference is within the bound on every image.
        note: further information.
    """

    stage: str
    section: str
    shape: tuple[int, ...]
    absolute: float
    relative: float
    bound: float
    relative_bound: bool
    ok: bool
    note: str = ""

    @property
    def share(self) -> float:
        """The difference divided by its bound; at most 1 if it passes."""
        return (self.relative if self.relative_bound else self.absolute) / self.bound


@dataclass(frozen=True)
class ImageComparison:
    """The detections of both sides in one image, uint8 RGB (H, W, 3)."""

    name: str
    image: npt.NDArray[np.uint8]
    tensorflow: Detections
    caffe: Detections


@dataclass(frozen=True)
class VerifyReport:
    """Result of a comparison.

    Attributes:
        rows: from the stem to the detections.
        names: of the images.
        exact: whether the conversion is exact, according to the folder's report.
        reference: runtime of the source model.
        form: kind of file of the source model.
    """

    source: str
    folder: str
    runtime: str
    rows: tuple[Row, ...]
    names: tuple[str, ...]
    exact: bool
    reference: str = "TensorFlow"
    form: str = "model"

    @property
    def first_failure(self) -> Row | None:
        """The first stage beyond its bound; None if all pass."""
        return next((row for row in self.rows if not row.ok), None)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        failure = self.first_failure
        data = asdict(self)
        for row in data["rows"]:  # JSON has no Inf and NaN
            row.update({key: None for key in ("absolute", "relative") if not math.isfinite(row[key])})
        data["ok"] = failure is None
        data["first_failure"] = None if failure is None else failure.stage
        return data


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
        bounds: largest differences that pass; None: those of `tolerances`.
        keep: called with each image's detections, for drawing.

    Raises:
        SsdliteError: a side cannot be loaded, or the folder was not converted from this model.
    """
    _check_before(source, folder)
    reading = folder.reading_with(pipeline_config)
    nets = _Nets.of(folder, runtime)  # loaded before TensorFlow, which takes seconds
    names = []
    with open_model(source, reading) as opened:
        model = opened.model
        _check_same(model, folder)
        resizers = _resizer_rows(opened.arch.resizer, folder.arch.resizer)
        with opened.run() as running:
            # The source model's NMS options: the folder's may have another score threshold, given to convert.
            reference = ReferenceSide(model, opened.arch.nms, build(folder.arch), running)
            comparison = _Comparison(reference, folder, bounds or Bounds(), nets)
            for name, image in images:
                try:
                    keep(comparison.image(name, image))
                except ImageError as error:  # which does not know the image's name
                    raise ImageError(f"{name}: {error}") from error
                names.append(name)
    if not names:
        raise ModelError("verify needs at least one image")
    side = "TensorFlow Lite" if model.form == "TensorFlow Lite" else "TensorFlow"
    exact = bool(folder.report.get("exact", True))
    return VerifyReport(
        model.source, str(folder.path), runtime, (*resizers, *comparison.rows()), tuple(names), exact, side, model.form
    )  # fmt: skip


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


def _resizer_rows(model: Resizer, folder: Resizer) -> tuple[Row, ...]:
    """A failing row if the folder's detector would resize images in another way than the model, as of old folders.

    The row `input` shows it only of images that are not of the input's size.
    """
    if model == folder:
        return ()
    note = f"the model's is {model.text()}, the folder's {folder.text()}; convert the model again"
    return (Row("resizer", "files", (), 1.0, 1.0, 0.5, False, False, note),)


def _check_same(model: DumpedModel, folder: ModelFolder) -> None:
    tensors = folder.report.get("tensors")
    if not isinstance(tensors, dict) or tensors.get("sha256") != tensors_sha256(model):
        origin = folder.report.get("source")
        form = origin.get("form") if isinstance(origin, dict) else None
        hint = ""
        if form != model.form and "TensorFlow Lite" in (form, model.form):
            hint = (
                f"; it was converted from a {form}, and a .tflite file of the same model has folded and rounded weights"
            )
        raise ModelError(
            f"{folder.path} was converted from another model: its weights differ from those of {model.source}{hint}"
        )


def worse(one: Row, other: Row) -> Row:
    """The worse of two rows of the same stage: the one that fails, or has the larger difference; NaN is the largest."""

    def badness(row: Row) -> tuple[bool, float]:
        return not row.ok, math.inf if math.isnan(row.absolute) else row.absolute

    return max(one, other, key=badness)


class _Nets(NamedTuple):
    deploy: RunningNet
    headless: RunningNet

    @classmethod
    def of(cls, folder: ModelFolder, runtime: NetRuntime) -> _Nets:
        prototxts = folder.deploy_prototxt, folder.headless_prototxt
        return cls(*(open_net(runtime, prototxt, folder.deploy_caffemodel) for prototxt in prototxts))


class _Comparison:
    """Collects the worst difference of each stage over all images."""

    def __init__(self, reference: ReferenceSide, folder: ModelFolder, bounds: Bounds, nets: _Nets) -> None:
        self.bounds = bounds
        self.folder = folder
        self.reference = reference
        self.model, self.net, self.arch = reference.model, reference.net, reference.arch
        self.deploy, self.headless = nets
        self.sections = {n.name: s.title for s in self.net.sections for n in s.nodes}
        self.worst: dict[str, Row] = {}

    def rows(self) -> tuple[Row, ...]:
        """The rows of all images, and one for the files that verify does not run."""
        changed = _changed_files(self.folder)
        note = f"changed since the conversion: {', '.join(changed)}" if changed else "unchanged since the conversion"
        files = Row("other files", "files", (), float(len(changed)), float(len(changed)), 0.5, False, not changed, note)
        return (*self.worst.values(), files)

    def image(self, name: str, image: npt.NDArray[np.uint8]) -> ImageComparison:
        """Compare every stage on one image."""
        reference = self.reference
        fed = reference.network_input(image)
        own = reference.own_network_input(image)
        if own is not None:
            self._absolute("input", difference(fed, own), INPUT, "resized and normalised", section="input")
        blob = caffe_blob(fed)
        layers = reference.layers(fed)
        names = [c.top for c in self.net.convolutions]
        extra = ["mbox_loc", "mbox_conf", "mbox_conf_flatten", "mbox_priorbox"]
        got = self.deploy.forward(blob, [*names, *extra])
        for conv in self.net.convolutions:
            if conv.role != "box_predictor":
                self._layer(conv, got[conv.top], layers[conv.name])
        self._headless(blob, got)
        caffe_boxes, caffe_scores = _caffe_boxes(got, self.arch.num_classes)
        tf_boxes, tf_scores, note = reference.boxes(fed, layers)
        order = _caffe_order(self.net)
        self._absolute("boxes", difference(caffe_boxes, tf_boxes[order]), self.bounds.box, note)
        self._absolute("scores", difference(caffe_scores, tf_scores[order]), self.bounds.score, note)
        size = (image.shape[0], image.shape[1])
        tf_detections, note = reference.detections(fed, tf_boxes, tf_scores, size)
        window = window_of(size, self.arch.resizer)
        caffe_detections = detections_of(self.arch, self.deploy.detect(blob), window)
        self._detections(name, caffe_detections, tf_detections, note)
        self._tflite_detections(name, fed, caffe_boxes, caffe_scores)
        return ImageComparison(name, image, tf_detections, caffe_detections)

    def _headless(self, blob: FloatArray, got: dict[str, FloatArray]) -> None:
        """Outputs of the headless net compared with the deploy net's, which has the same layers."""
        heads = ["mbox_loc", "mbox_conf", "mbox_priorbox"]
        found = self.headless.forward(blob, heads)
        values, deployed = (np.concatenate([side[head].reshape(-1) for head in heads]) for side in (found, got))
        found_difference = difference(values, deployed)
        self._absolute("headless", found_difference, HEADLESS, "compared with the deploy net")

    def _layer(self, conv: ConvDesc, got: FloatArray, reference: FloatArray) -> None:
        note = ""
        if conv.role == "class_predictor":
            feature_map = next(m for m in self.net.feature_maps if conv in m.conf)
            channels = np.arange(reference.shape[1]).reshape(len(feature_map.tf_boxes), -1)
            reference = reference[:, channels[list(_match(feature_map, self.arch.input_size))].reshape(-1)]
            scale = self.model.settings.logit_scale
            reference = reference * np.float32(1.0 if scale is None else scale)
            note = "logits"
        found = difference(got.reshape(got.shape[:2] + (got.shape[2:] or (1, 1))), reference)
        section = self.sections.get(conv.name, f"predictors on {conv.name.split('_mbox_')[0]}")
        ok = found.relative <= self.bounds.layer or found.absolute <= LAYER_ABSOLUTE
        self._keep(
            Row(conv.name, section, found.shape[1:], found.absolute, found.relative, self.bounds.layer, True, ok, note)
        )

    def _absolute(self, stage: str, found: Difference, bound: float, note: str, *, section: str = "detections") -> None:
        self._keep(Row(stage, section, found.shape, found.absolute, found.relative, bound, False,
                       found.absolute <= bound, note))  # fmt: skip

    def _keep(self, row: Row) -> None:
        self.worst[row.stage] = worse(self.worst.get(row.stage, row), row)

    def _tflite_detections(self, name: str, fed: FloatArray, boxes: FloatArray, scores: FloatArray) -> None:
        """Detections of TensorFlow Lite's own NMS, compared with the same NMS in numpy on the net's boxes and scores.

        The bound of the boxes includes what the file's number format changes in its default boxes.
        """
        nms, reference = self.model.settings.tflite_nms, self.reference.tflite_detections(fed)
        if nms is None or reference is None:
            return
        bound = self.bounds.box + self.model.settings.box_rounding
        found = compare_detections(
            postprocess(boxes, scores, nms), reference, box_tolerance=bound, score_tolerance=self.bounds.score,
            max_total=len(reference), score_threshold=nms.score_threshold,
        )  # fmt: skip
        kind = "regular" if nms.regular else "fast"
        note = found.unpaired[0] if found.unpaired else f"{found.paired} in {name}"
        worst = float("inf") if found.unpaired else max(found.box, found.score)
        self._keep(Row("TensorFlow Lite", "detections", (len(reference), 6), worst, max(found.box, found.score), bound,
                       False, not found.unpaired, f"its own {kind} NMS: {note}"))  # fmt: skip

    def _detections(self, name: str, got: Detections, reference: Detections, origin: str) -> None:
        threshold = max(self.reference.graph_nms.score_threshold, self.arch.nms.score_threshold)
        found = compare_detections(
            got.above(threshold), reference.above(threshold), box_tolerance=self.bounds.box,
            score_tolerance=self.bounds.score, max_total=self.arch.nms.max_total, score_threshold=threshold,
        )  # fmt: skip
        shown = "; ".join(found.unpaired[:3])
        more = f"; and {len(found.unpaired) - 3} more" if len(found.unpaired) > 3 else ""
        note = f"{origin}{name}: {shown}{more}" if found.unpaired else f"{origin}{found.paired} in {name}"
        worst = float("inf") if found.unpaired else max(found.box, found.score)
        self._keep(Row("detections", "detections", (len(got), 6), worst, max(found.box, found.score),
                       max(self.bounds.box, self.bounds.score), False, not found.unpaired, note))  # fmt: skip


def _changed_files(folder: ModelFolder) -> list[str]:
    """Files that verify does not run and that have changed since convert wrote them."""
    files = folder.report.get("files", {})
    run = {path.name for path in (folder.deploy_prototxt, folder.deploy_caffemodel, folder.headless_prototxt)}
    return [
        name
        for name, entry in files.items()
        if name not in run and entry.get("sha256") != file_sha256(folder.path / name)
    ]


def _match(feature_map: FeatureMapDesc, input_size: tuple[int, int]) -> tuple[int, ...]:
    return match_cell(feature_map.tf_boxes, cell_sizes(feature_map.prior, input_size)).source


def _caffe_order(net: NetDesc) -> npt.NDArray[np.intp]:
    """Index of each of Caffe's default boxes in TensorFlow's order."""
    parts, start = [], 0
    for feature_map in net.feature_maps:
        cells, count = feature_map.size[0] * feature_map.size[1], len(feature_map.tf_boxes)
        within = np.asarray(_match(feature_map, net.arch.input_size))
        parts.append((start + np.arange(cells)[:, None] * count + within).reshape(-1))
        start += cells * count
    return np.concatenate(parts)


def _caffe_boxes(got: dict[str, FloatArray], num_classes: int) -> tuple[FloatArray, FloatArray]:
    """Decoded boxes (N, 4) and scores (N, C) of the Caffe net, in Caffe's order."""
    corners, variances = split_priors(got["mbox_priorbox"])
    return decode_boxes(got["mbox_loc"].reshape(-1, 4), corners, variances), got["mbox_conf_flatten"].reshape(
        -1, num_classes
    )
