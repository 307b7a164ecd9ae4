"""TensorFlow and Caffe side by side on the same network inputs: every layer, every default box, every detection."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump.checkpoint import graph_outputs
from ssdlite_caffe.dump.locate import locate
from ssdlite_caffe.dump.model import ConvUnit, DumpedModel
from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.files import file_sha256
from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.gen_model.default_boxes import cell_sizes
from ssdlite_caffe.gen_model.netdesc import ConvDesc, FeatureMapDesc, NetDesc
from ssdlite_caffe.load.boxes import match_cell
from ssdlite_caffe.runtimes.decode import choose_detections, clip_detections, convert_scores, decode_boxes, split_priors
from ssdlite_caffe.runtimes.decode_tflite import postprocess
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.net import NetRuntime, open_net
from ssdlite_caffe.runtimes.resize import caffe_blob, network_input
from ssdlite_caffe.runtimes.source import SourceDetector, decode_encodings
from ssdlite_caffe.runtimes.tflite_detector import TfliteDetector
from ssdlite_caffe.tools.compare import Difference, compare_detections, difference
from ssdlite_caffe.tools.convert import tensors_sha256
from ssdlite_caffe.tools.source import open_model
from ssdlite_caffe.tools.tolerances import BOX, HEADLESS, INPUT, LAYER_ABSOLUTE, LAYER_RELATIVE, SCORE

NamedImage = tuple[str, npt.NDArray[np.uint8]]
"""Name, and uint8 RGB (H, W, 3)."""


@dataclass(frozen=True)
class Bounds:
    """What counts as equal; see `tolerances`."""

    layer: float = LAYER_RELATIVE
    box: float = BOX
    score: float = SCORE


@dataclass(frozen=True)
class Row:
    """One line of the comparison: the worst of all images.

    Attributes:
        stage: layer (`conv_1/expand`), `boxes`, `scores` or `detections`.
        section: heading of the net it stands under.
        shape: without the batch.
        absolute, relative: largest difference, and that over TensorFlow's largest magnitude.
        bound: of `relative` for layers, of `absolute` for the rest.
        relative_bound: which of the two.
        ok: within the bound on every image.
        note: what else there is to say.
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
        """How much of the bound is used up."""
        return (self.relative if self.relative_bound else self.absolute) / self.bound


@dataclass(frozen=True)
class ImageComparison:
    """Both sides' detections in one image."""

    name: str
    image: npt.NDArray[np.uint8]
    tensorflow: Detections
    caffe: Detections


@dataclass(frozen=True)
class VerifyReport:
    """The whole comparison.

    Attributes:
        rows: from the stem to the detections.
        names: of the images compared.
        exact: whether the folder claims to be exact.
        reference: what ran the model.
    """

    source: str
    folder: str
    runtime: str
    rows: tuple[Row, ...]
    names: tuple[str, ...]
    exact: bool
    reference: str = "TensorFlow"

    @property
    def first_failure(self) -> Row | None:
        """The first stage beyond its bound, None where all is well."""
        return next((row for row in self.rows if not row.ok), None)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        failure = self.first_failure
        data = asdict(self)
        for row in data["rows"]:  # JSON has no infinity
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

    Both are fed the same float32 network input: TensorFlow at its stem, Caffe at `data`, so that what is compared is
    the nets and not two ways of resizing.

    Args:
        source: the TensorFlow model that `folder` was converted from.
        folder: the converted model.
        images: compared one by one; at least one.
        runtime: what runs the converted nets.
        pipeline_config: of the model; None: as on converting.
        bounds: what counts as equal.
        keep: is given each image's detections, for drawing.

    Raises:
        SsdliteError: a side cannot be loaded, or the folder was not made from this model.
    """
    reading = folder.reading if pipeline_config is None else replace(folder.reading, pipeline_config=pipeline_config)
    names = []
    with open_model(source, reading) as opened:
        model = opened.model
        _check_same(model, folder)
        with opened.run() as running:
            comparison = _Comparison(model, opened.arch, folder, bounds or Bounds(), running, runtime)
            for name, image in images:
                keep(comparison.image(name, image))
                names.append(name)
    if not names:
        raise ModelError("verify needs at least one image")
    side = "TensorFlow Lite" if model.form == "TensorFlow Lite" else "TensorFlow"
    exact = bool(folder.report.get("exact", True))
    return VerifyReport(model.source, str(folder.path), runtime, comparison.rows(), tuple(names), exact, side)


def _check_same(model: DumpedModel, folder: ModelFolder) -> None:
    if "remapped_from" in folder.report:
        raise ModelError(f"{folder.path} has remapped classes; verify the folder that it was remapped from")
    tensors = folder.report.get("tensors")
    if not isinstance(tensors, dict) or tensors.get("sha256") != tensors_sha256(model):
        made_of = folder.report.get("source")
        form = made_of.get("form") if isinstance(made_of, dict) else None
        hint = ""
        if form != model.form and "TensorFlow Lite" in (form, model.form):
            hint = f"; it was made of a {form}, and a .tflite file of the same model holds folded, rounded weights"
        raise ModelError(
            f"{folder.path} was converted from another model: its weights are not those of {model.source}{hint}"
        )


def worse(one: Row, other: Row) -> Row:
    """Of the same stage in two images the one to show: the one that fails, or differs more; NaN more than all."""

    def badness(row: Row) -> tuple[bool, float]:
        return not row.ok, math.inf if math.isnan(row.absolute) else row.absolute

    return max(one, other, key=badness)


class _Comparison:
    """Gathers the worst difference of each stage over the images."""

    def __init__(
        self,
        model: DumpedModel,
        source_arch: ArchSpec,
        folder: ModelFolder,
        bounds: Bounds,
        source: SourceDetector,
        runtime: NetRuntime,
    ) -> None:
        self.bounds = bounds
        self.folder = folder
        self.source = source
        self.model = model
        self.arch = folder.arch
        self.net: NetDesc = build(folder.arch)
        self.units: dict[str, ConvUnit] = {unit.scope: unit for unit in model.units}
        # A checkpoint's graph stands in its .meta file.
        self.graph_outputs = graph_outputs(locate(model.source).path) if model.form == "checkpoint" else {}
        self.deploy = open_net(runtime, folder.deploy_prototxt, folder.deploy_caffemodel)
        self.headless = open_net(runtime, folder.headless_prototxt, folder.deploy_caffemodel)
        self.sections = {n.name: s.title for s in self.net.sections for n in s.nodes}
        self.worst: dict[str, Row] = {}
        # The graph's own threshold rules TensorFlow's side; the folder's may have been overridden on converting.
        self.graph_nms = source_arch.nms

    def rows(self) -> tuple[Row, ...]:
        """The rows of all images, and one for the files that are not run."""
        changed = _changed_files(self.folder)
        note = f"changed since conversion: {', '.join(changed)}" if changed else "as converted"
        files = Row("other files", "files", (), float(len(changed)), float(len(changed)), 0.5, False, not changed, note)
        return (*self.worst.values(), files)

    def image(self, name: str, image: npt.NDArray[np.uint8]) -> ImageComparison:
        """Compare every stage on one image."""
        arch = self.arch
        if isinstance(self.source, TfliteDetector):
            fed = self.source.prepared(image)
        else:
            fed = network_input(image, arch.input_size, mean=arch.pixel_mean, scale=arch.pixel_scale)
        self._input(image, fed)
        blob = caffe_blob(fed)
        reference = self._tensorflow_layers(fed)
        names = [c.top for c in self.net.convolutions]
        extra = ["mbox_loc", "mbox_conf", "mbox_conf_flatten", "mbox_priorbox"]
        got = self.deploy.forward(blob, [*names, *extra])
        for conv in self.net.convolutions:
            if conv.role != "box_predictor":
                self._layer(conv, got[conv.top], reference[conv.name])
        self._headless(blob, got)
        caffe_boxes, caffe_scores = _caffe_boxes(got, arch.num_classes)
        tf_boxes, tf_scores, note = self._tensorflow_boxes(fed, reference)
        order = _caffe_order(self.net)
        self._absolute("boxes", difference(caffe_boxes, tf_boxes[order]), self.bounds.box, note)
        self._absolute("scores", difference(caffe_scores, tf_scores[order]), self.bounds.score, note)
        tf_detections, note = self._tensorflow_detections(fed, tf_boxes, tf_scores)
        caffe_detections = clip_detections(self.deploy.detect(blob))
        self._detections(name, caffe_detections, tf_detections, note)
        self._phone(name, fed, caffe_boxes, caffe_scores)
        return ImageComparison(name, image, tf_detections, caffe_detections)

    def _input(self, image: npt.NDArray[np.uint8], fed: FloatArray) -> None:
        """Our resizing and normalising against the graph's own."""
        if not isinstance(self.source, TfliteDetector) and self.source.has_detections:
            stem = self.source.network_input
            own = self.source.run_image(image, [stem])[stem]
            self._absolute("input", difference(fed, own), INPUT, "resized and normalised", section="input")

    def _headless(self, blob: FloatArray, got: dict[str, FloatArray]) -> None:
        """The headless net's outputs against the deploy net's: the same layers, so the same numbers."""
        heads = ["mbox_loc", "mbox_conf", "mbox_priorbox"]
        found = self.headless.forward(blob, heads)
        values, deployed = (np.concatenate([side[head].reshape(-1) for head in heads]) for side in (found, got))
        found_difference = difference(values, deployed)
        self._absolute("headless", found_difference, HEADLESS, "against the deploy net")

    def _tensorflow_layers(self, fed: FloatArray) -> dict[str, FloatArray]:
        """Output of each convolution's unit, NCHW, by Caffe's name."""
        units = {conv.name: self.units[conv.tf_scope] for conv in self.net.convolutions}
        outputs = {name: unit.output or self.graph_outputs.get(unit.scope) for name, unit in units.items()}
        missing = [name for name, output in outputs.items() if output is None]
        if missing:
            raise ModelError(
                f"{self.model.source} holds no graph to run ({self.model.form}); verify against a frozen graph"
            )
        fetched = self.source.run(fed, list(dict.fromkeys(str(o) for o in outputs.values())))
        scales = {name: np.float32(unit.output_scale) for name, unit in units.items()}
        return {
            name: np.divide(fetched[str(o)].transpose(0, 3, 1, 2), scales[name], dtype=np.float32)
            for name, o in outputs.items()
        }

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

    def _tensorflow_boxes(
        self, fed: FloatArray, reference: dict[str, FloatArray]
    ) -> tuple[FloatArray, FloatArray, str]:
        """Every default box decoded, (N, 4) xmin, ymin, xmax, ymax, its scores (N, classes), in TensorFlow's order.

        They are the graph's own; where it holds no decoder, they are decoded here from its predictors.
        """
        try:
            raw = self.source.raw(fed)
        except ModelError:
            return *self._decoded(reference), "all default boxes; decoded here, the graph has no decoder"
        if raw.boxes is None:
            boxes = decode_encodings(raw.encodings, self.model, self.arch)
            return boxes, raw.scores, "all default boxes; decoded here of the model's own codes"
        return np.ascontiguousarray(raw.boxes[:, [1, 0, 3, 2]]), raw.scores, "all default boxes"

    def _decoded(self, reference: dict[str, FloatArray]) -> tuple[FloatArray, FloatArray]:
        codes, logits = [], []
        for feature_map in self.net.feature_maps:
            codes.append(_per_box(reference[feature_map.loc[-1].name], 4))
            logits.append(_per_box(reference[feature_map.conf[-1].name], self.arch.num_classes))
        settings = self.model.settings
        scale = np.float32(1.0 if settings.logit_scale is None else settings.logit_scale)
        boxes = decode_encodings(np.concatenate(codes), self.model, self.arch)
        return boxes, convert_scores(np.concatenate(logits) * scale, self.arch.score_converter)

    def _tensorflow_detections(self, fed: FloatArray, boxes: FloatArray, scores: FloatArray) -> tuple[Detections, str]:
        """TensorFlow's own detections, or the reference decoder's on its boxes where its graph has none like the net's.

        A score threshold of the folder's own changes none of those above both thresholds, since NMS goes from the best
        score down.
        """
        alike = replace(self.graph_nms, score_threshold=self.arch.nms.score_threshold) == self.arch.nms
        if not isinstance(self.source, TfliteDetector) and self.source.has_detections and alike:
            return self.source.detect(fed), ""
        return choose_detections(boxes, scores, self.arch.nms), "the model's boxes, chosen by the reference decoder: "

    def _phone(self, name: str, fed: FloatArray, boxes: FloatArray, scores: FloatArray) -> None:
        """What TensorFlow Lite detects by itself, against its own NMS (in numpy) on the net's boxes and scores.

        Boxes may differ by what the file's number format moves its default boxes by, too.
        """
        nms = self.model.settings.tflite_nms
        if nms is None or not isinstance(self.source, TfliteDetector):
            return
        reference = self.source.own_detections(fed)
        if reference is None:
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
        threshold = max(self.graph_nms.score_threshold, self.arch.nms.score_threshold)
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
    """Files of the folder that verify does not run, and that are no longer what convert wrote."""
    files = folder.report.get("files", {})
    run = {"deploy.prototxt", "deploy.caffemodel", "headless.prototxt"}
    return [
        name
        for name, entry in files.items()
        if name not in run and entry.get("sha256") != file_sha256(folder.path / name)
    ]


def _per_box(output: FloatArray, values: int) -> FloatArray:
    """A predictor's output, (1, K * values, H, W), as (H * W * K, values)."""
    values_last: FloatArray = output[0].transpose(1, 2, 0).reshape(-1, values)
    return values_last


def _match(feature_map: FeatureMapDesc, input_size: tuple[int, int]) -> tuple[int, ...]:
    return match_cell(feature_map.tf_boxes, cell_sizes(feature_map.prior, input_size)).source


def _caffe_order(net: NetDesc) -> npt.NDArray[np.intp]:
    """For each of Caffe's default boxes, the index of TensorFlow's."""
    parts, start = [], 0
    for feature_map in net.feature_maps:
        cells, count = feature_map.size[0] * feature_map.size[1], len(feature_map.tf_boxes)
        within = np.asarray(_match(feature_map, net.arch.input_size))
        parts.append((start + np.arange(cells)[:, None] * count + within).reshape(-1))
        start += cells * count
    return np.concatenate(parts)


def _caffe_boxes(got: dict[str, FloatArray], num_classes: int) -> tuple[FloatArray, FloatArray]:
    """Caffe's decoded boxes (N, 4) and scores (N, classes)."""
    corners, variances = split_priors(got["mbox_priorbox"])
    return decode_boxes(got["mbox_loc"].reshape(-1, 4), corners, variances), got["mbox_conf_flatten"].reshape(
        -1, num_classes
    )
