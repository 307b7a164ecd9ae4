"""Comparing TensorFlow and a runtime of Caffe nets in float32: every layer, every default box, every detection."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.files import file_sha256
from ssdlite_caffe.gen_model.arch import Nms
from ssdlite_caffe.gen_model.moved_maps import without_front
from ssdlite_caffe.gen_model.netdesc import ConvDesc, NetDesc
from ssdlite_caffe.load.own_boxes import caffe_order, code_limits
from ssdlite_caffe.runtimes.decode import decode_boxes, detections_of, split_priors
from ssdlite_caffe.runtimes.decode_tflite import postprocess
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.folder_files import REPORT, target_files
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.net import NetRuntime, RunningNet, open_net
from ssdlite_caffe.runtimes.resize import caffe_blob, window_of
from ssdlite_caffe.tools.box_order import in_caffe_order
from ssdlite_caffe.tools.compare import DetectionDifference, Difference, compare_detections, difference
from ssdlite_caffe.tools.detection_check import choose, compare
from ssdlite_caffe.tools.local_check import LocalDifference
from ssdlite_caffe.tools.reference_side import ReferenceSide
from ssdlite_caffe.tools.tolerances import BOX, HEADLESS, INPUT, LAYER_ABSOLUTE, LAYER_RELATIVE, SCORE

LARGEST_NOISE = 0.01
"""Differences of boxes and scores up to which detections can be paired with the model's own.

Where rounding moves them further, or a mistake does, which the rows of boxes and scores decide, detections are held
against the runtime's own boxes and scores."""
OWN_NOISE = 1e-6
"""How far the boxes and scores inside of a runtime may be from those that are decoded of its outputs."""
BoxesAndScores = tuple[FloatArray, FloatArray]


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
        double: the difference in float64, in one image; None where it was not computed.
        ratio: the runtime's rounding error as a multiple of TensorFlow's; None where it was not computed.
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
    double: LocalDifference | None = None
    ratio: float | None = None

    @property
    def share(self) -> float:
        """The difference divided by its bound; Inf if that is 0 and there is one."""
        found = self.relative if self.relative_bound else self.absolute
        return found / self.bound if self.bound else math.inf if found else 0.0


@dataclass(frozen=True)
class ImageComparison:
    """The detections of both sides in one image, uint8 RGB (H, W, 3)."""

    name: str
    image: npt.NDArray[np.uint8]
    tensorflow: Detections
    caffe: Detections


def worse(one: Row, other: Row) -> Row:
    """The worse of two rows of the same stage: the one that fails, or has the larger difference; NaN is the largest."""

    def badness(row: Row) -> tuple[bool, float]:
        return not row.ok, math.inf if math.isnan(row.absolute) else row.absolute

    return max(one, other, key=badness)


class Nets(NamedTuple):
    """The converted nets in the runtime that is compared."""

    deploy: RunningNet
    headless: RunningNet

    @classmethod
    def of(cls, folder: ModelFolder, runtime: NetRuntime) -> Nets:
        """Load a folder's deploy and headless nets."""
        deploy = open_net(runtime, folder.deploy_prototxt, folder.deploy_caffemodel)
        return cls(deploy, folder.open_headless(runtime))


class Comparison:
    """Collects the worst difference of each stage over all images."""

    def __init__(self, reference: ReferenceSide, folder: ModelFolder, bounds: Bounds, nets: Nets) -> None:
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
        note = _files_note(changed)
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
                self._layer(conv, without_front(got[conv.top], conv.out_size), layers[conv.name])
        self._headless(blob, got)
        caffe_boxes, caffe_scores = _caffe_boxes(got, self.net)
        tf_boxes, tf_scores, note = reference.boxes(fed, layers)
        order = caffe_order(self.net)
        self._absolute("boxes", difference(caffe_boxes, tf_boxes[order]), self.bounds.box, note)
        self._absolute("scores", difference(caffe_scores, tf_scores[order]), self.bounds.score, note)
        size = (image.shape[0], image.shape[1])
        tf_detections, note = reference.detections(fed, tf_boxes, tf_scores, size)
        window = window_of(size, self.arch.resizer)
        caffe_detections = detections_of(self.arch, self.deploy.detect(blob), window)
        raw = (caffe_boxes, caffe_scores), (tf_boxes[order], tf_scores[order])
        self._detections(name, caffe_detections, tf_detections, note, *raw)
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
            reference = in_caffe_order(self.net, conv, reference, self.model.settings.logit_scale)
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

    def _detections(
        self,
        name: str,
        got: Detections,
        reference: Detections,
        origin: str,
        ours: BoxesAndScores,
        theirs: BoxesAndScores,
    ) -> None:
        threshold = max(self.reference.graph_nms.score_threshold, self.arch.nms.score_threshold)
        found = compare_detections(
            got.above(threshold), reference.above(threshold), box_tolerance=self.bounds.box,
            score_tolerance=self.bounds.score, max_total=self.arch.nms.max_total, score_threshold=threshold,
        )  # fmt: skip
        if found.unpaired and not self.arch.resizer.letterboxes:
            again, aside = _within_rounding(
                got.above(threshold), ours, theirs, replace(self.arch.nms, score_threshold=threshold)
            )
            if not again.unpaired:
                found, origin = again, f"{origin}{aside}: "
        shown = "; ".join(found.unpaired[:3])
        more = f"; and {len(found.unpaired) - 3} more" if len(found.unpaired) > 3 else ""
        note = f"{origin}{name}: {shown}{more}" if found.unpaired else f"{origin}{found.paired} in {name}"
        worst = float("inf") if found.unpaired else max(found.box, found.score)
        self._keep(Row("detections", "detections", (len(got), 6), worst, max(found.box, found.score),
                       max(self.bounds.box, self.bounds.score), False, not found.unpaired, note))  # fmt: skip


def _changed_files(folder: ModelFolder) -> dict[str, str]:
    """Files that verify does not run and that are not as convert wrote them: `changed` or `missing`, by name."""
    run = {path.name for path in (folder.deploy_prototxt, folder.deploy_caffemodel, folder.headless_prototxt)}
    known = {name: entry.get("sha256") for name, entry in folder.report.get("files", {}).items() if name not in run}
    known |= target_files(folder.report, str(folder.path / REPORT))
    states = {}
    for name, digest in known.items():
        path = folder.path / name
        if not path.is_file():
            states[name] = "missing"
        elif file_sha256(path) != digest:
            states[name] = "changed"
    return states


def _files_note(states: Mapping[str, str]) -> str:
    """A phrase for what `_changed_files` found."""
    changed, missing = (
        ", ".join(name for name, state in states.items() if state == one) for one in ("changed", "missing")
    )
    said = [f"changed since the conversion: {changed}"] if changed else []
    said += [f"missing: {missing}"] if missing else []
    return "; ".join(said) or "unchanged since the conversion"


def _within_rounding(
    got: Detections, ours: BoxesAndScores, theirs: BoxesAndScores, nms: Nms
) -> tuple[DetectionDifference, str]:
    """Pair detections with those that the model's boxes and scores allow, off by as much as the net's are from them.

    Where they are off by more than LARGEST_NOISE, the runtime's own boxes and scores take the model's place: then the
    suppression alone is compared.

    Args:
        got: the runtime's detections.
        ours: the runtime's boxes (N, 4) and scores (N, C).
        theirs: the model's, in the same order.
        nms: the options of both.

    Returns:
        The difference, and how detections were paired, as a phrase.
    """
    aside = "ties and overlaps at the limit, which rounding decides, aside"
    box_noise, score_noise = (float(np.abs(a.astype(np.float64) - b).max()) for a, b in zip(ours, theirs, strict=True))
    if not max(box_noise, score_noise) < LARGEST_NOISE:
        if not all(np.isfinite(values).all() for values in ours):
            return DetectionDifference(0, math.inf, math.inf, ("boxes or scores are NaN or Inf",)), ""
        aside = f"boxes and scores differ by up to {max(box_noise, score_noise):.1e}, so of the runtime's own ones"
        theirs, box_noise, score_noise = ours, OWN_NOISE, OWN_NOISE
    full = len(got) >= nms.max_total
    least = float(got.scores.min()) - 4 * score_noise if full else -math.inf
    boxes, scores = (values.astype(np.float64) for values in theirs)
    wanted = choose(boxes, scores, nms, box_noise=box_noise, score_noise=score_noise, least=least)
    # Clipping and one more rounding may add a unit in the last place.
    return compare(got, wanted, box_noise=box_noise + 2e-7, score_noise=score_noise + 2e-7), aside


def _caffe_boxes(got: dict[str, FloatArray], net: NetDesc) -> tuple[FloatArray, FloatArray]:
    """Decoded boxes (N, 4) and scores (N, C) of the Caffe net, in Caffe's order."""
    corners, variances = split_priors(got["mbox_priorbox"])
    boxes = decode_boxes(got["mbox_loc"].reshape(-1, 4), corners, variances, limits=code_limits(net, corners))
    return boxes, got["mbox_conf_flatten"].reshape(-1, net.arch.num_classes)
