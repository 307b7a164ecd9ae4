"""Whether a converted net is the model, decided in float64, and how exact a runtime is, measured against it.

For each image:

1. The model's graph runs in float64, and the net layer by layer in float64 on the model's own values (`local_check`). A
   layer differs if a value is further off than one float32 rounding of every weight allows, which is computed for every
   value. Layers, boxes and scores together are the whole net.
   Then the whole net runs from the input to boxes and scores, with its weights as they were before their rounding to
   float32, and must come to the same as the model's graph (`whole_net`).
2. The runtime in float32 is compared with the net in float64, and the model's own runtime in float32 with its graph in
   float64. Their ratio says whether the runtime rounds as the original does, whatever the model makes of rounding.
3. Detections are compared with those that boxes and scores allow, which are off by what was measured in step 2.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.gen_model.layers import BOXES_LAYER
from ssdlite_caffe.gen_model.moved_maps import without_front
from ssdlite_caffe.gen_model.netdesc import ConvDesc, FeatureMapDesc, NetDesc
from ssdlite_caffe.gen_model.prior_boxes import caffe_prior_boxes
from ssdlite_caffe.load.own_boxes import caffe_order, own_default_boxes, own_priors
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.net import RunningNet
from ssdlite_caffe.runtimes.reference_net import ReferenceNet
from ssdlite_caffe.runtimes.reference_windows import Array
from ssdlite_caffe.runtimes.resize import caffe_blob
from ssdlite_caffe.runtimes.source_detector import DoubleSource
from ssdlite_caffe.tools.box_order import in_caffe_order
from ssdlite_caffe.tools.likely_cause import BatchNorm, Segment, likely_cause, segment_of
from ssdlite_caffe.tools.local_check import LocalDifference, Walked, box_errors, local_difference, walk
from ssdlite_caffe.tools.reference_side import ReferenceSide
from ssdlite_caffe.tools.whole_net import WholeDifference, WholeNet, boxes_of

ENDS = ("boxes", "scores")
UNIT_IN_THE_LAST_PLACE = 2.0**-23
"""Of float32, relative."""
HEADS = ("mbox_loc", "mbox_conf", "mbox_conf_flatten", "mbox_priorbox")


@dataclass(frozen=True)
class Rounding:
    """Errors of float32: how far its values are from the same formulas in float64, at most.

    Attributes:
        runtime: of the runtime that runs the converted net.
        model: of the model's own runtime.
        largest: the largest value, in float64.
    """

    runtime: float
    model: float
    largest: float

    def joined(self, other: Rounding) -> Rounding:
        """The errors of both together; NaN is the largest."""
        pairs = ((self.runtime, other.runtime), (self.model, other.model), (self.largest, other.largest))
        return Rounding(*(max(pair, key=lambda v: math.inf if math.isnan(v) else v) for pair in pairs))


@dataclass(frozen=True)
class Ratio:
    """A stage's error of the runtime as a multiple of the model's.

    Attributes:
        largest: of the largest errors in all images.
        typical: the median over the images.
    """

    largest: float
    typical: float

    @property
    def judged(self) -> float:
        """The less of both: one image may by chance have little rounding on one side, but not most images."""
        return min(self.largest, self.typical)


def ratios(stages: Sequence[Stage]) -> dict[str, Ratio]:
    """The ratio of each stage.

    Args:
        stages: in the net's order, boxes and scores last.
    """
    names = [stage.name for stage in stages]
    together = _ratios(names, [stage.rounding for stage in stages])
    single = [_ratios(names, image) for image in zip(*(stage.images for stage in stages), strict=True)]
    return {name: Ratio(together[name], statistics.median(one[name] for one in single)) for name in names}


def _ratios(names: Sequence[str], roundings: Sequence[Rounding]) -> dict[str, float]:
    """Errors of the runtime over the model's.

    Rounding grows from layer to layer, and one layer of few values may by chance have little of it. So the model's
    error, as a share of the largest value, is that of all layers so far, and at least a unit in the last place. Boxes
    and scores, which end in functions of their own, are compared with the model's boxes and scores.
    """
    found, so_far = {}, UNIT_IN_THE_LAST_PLACE
    for name, errors in zip(names, roundings, strict=True):
        if name in ENDS:
            model = max(errors.model, UNIT_IN_THE_LAST_PLACE * errors.largest)
        else:
            so_far = max(so_far, errors.model / errors.largest if errors.largest else 0.0)
            model = so_far * errors.largest
        found[name] = errors.runtime / model if model else (math.inf if errors.runtime else 0.0)
    return found


@dataclass(frozen=True)
class Stage:
    """What was found of a layer, of all boxes or of all scores.

    Attributes:
        name: Caffe's name of the layer; `boxes`, `scores`.
        local: the difference in float64, of the image where it is worst.
        rounding: of all images.
        cause: why it differs, as a phrase; empty if it does not, or nothing is known.
        part: the layer that the difference is in, where the stage is not one.
        single: the rounding of each image; empty: of one image, which `rounding` is.
    """

    name: str
    local: LocalDifference
    rounding: Rounding
    cause: str = ""
    part: str = ""
    single: tuple[Rounding, ...] = ()

    @property
    def images(self) -> tuple[Rounding, ...]:
        """The rounding of each image."""
        return self.single or (self.rounding,)

    def with_image(self, other: Stage) -> Stage:
        """The same stage in one more image."""
        worse = other if other.local.share > self.local.share else self
        return replace(worse, rounding=self.rounding.joined(other.rounding), single=(*self.images, *other.images))


class Proof:
    """Compares one image after the other."""

    def __init__(
        self, reference: ReferenceSide, double: DoubleSource, folder: ModelFolder, runtime: RunningNet
    ) -> None:
        """Prepare both sides.

        Args:
            reference: the model in float32.
            double: the model in float64.
            folder: the converted net.
            runtime: the net in the runtime that is judged.
        """
        self.reference, self.folder, self.runtime = reference, folder, runtime
        self.double = ReferenceSide(reference.model, reference.graph_nms, reference.net, double)
        self.stem_input = double.stem_input
        self.net: NetDesc = reference.net
        read = ReferenceNet(folder.deploy_prototxt, folder.deploy_caffemodel, double=True)
        self.deploy = read.with_constants(reference.model.constants)
        # Kernels that read a scaled output are multiplied and rounded when the model is read: not the model's own.
        scaled = any(unit.output_scale != 1.0 for unit in reference.model.units)
        self.whole = None if scaled else WholeNet(self.deploy, self.net, reference.model)
        self.convolutions = [conv for conv in self.net.convolutions if conv.role != "box_predictor"]
        self.order = caffe_order(self.net)
        self.causes: dict[str, str] = {}
        """Of the layers that differ, from the first image where they do."""

    def image(self, fed: FloatArray) -> Image:
        """Compare both sides on a network input (1, H, W, 3)."""
        blob, stem = caffe_blob(fed), caffe_blob(self.stem_input(fed))
        names = [conv.top for conv in self.convolutions]
        single, double = self.reference.layers(fed), self.double.layers(fed)
        tf_boxes, tf_scores, _ = self.reference.boxes(fed, single)
        boxes64, scores64, _ = self.double.boxes(fed, double)
        got = self.runtime.forward(blob, [*names, *HEADS])
        written = self.deploy.forward(stem, [*names, *HEADS])
        targets = {conv.top: self._ordered(conv, double) for conv in self.convolutions}
        rounding = {  # each layer's values are dropped once they are compared: all of them are some 100 MB a side
            conv.top: _rounding(
                without_front(got.pop(conv.top), conv.out_size),
                without_front(written.pop(conv.top), conv.out_size),
                self._ordered(conv, single),
                targets[conv.top],
            )
            for conv in self.convolutions
        }
        del single, double
        walked = walk(self.deploy, stem, targets)
        stages = [self._layer(conv, walked, rounding[conv.top], targets, stem) for conv in self.convolutions]
        model = tf_boxes[self.order], tf_scores[self.order], boxes64[self.order], scores64[self.order]
        return self._ends(stages, walked, got, written, model, stem)

    def _ordered(self, conv: ConvDesc, values: dict[str, Any]) -> Any:
        return in_caffe_order(self.net, conv, values[conv.name], self.reference.model.settings.logit_scale)

    def _layer(
        self, conv: ConvDesc, walked: Walked, rounding: Rounding, targets: dict[str, Array], blob: Array
    ) -> Stage:
        local = walked.differences[conv.top]
        if not local.ok and conv.name not in self.causes:
            self.causes[conv.name] = self._cause(conv, walked, targets, blob)
        return Stage(conv.name, local, rounding, self.causes.get(conv.name, ""))

    def _cause(self, conv: ConvDesc, walked: Walked, targets: dict[str, Array], blob: Array) -> str:
        layers, used = segment_of(self.deploy, conv.top, targets)
        known = {self.deploy.input: blob.astype(np.float64), **walked.blobs}  # the targets among them
        unit = next(unit for unit in self.reference.model.units if unit.scope == conv.tf_scope)
        tensors = {part: self.reference.model.tensors[name] for part, name in unit.tensors.items()}
        norm = None
        if unit.epsilon is not None and "moving_variance" in tensors:
            variance = tensors["moving_variance"].astype(np.float64)
            norm = BatchNorm(variance, tensors.get("beta", np.zeros_like(variance)).astype(np.float64), unit.epsilon)
        theirs = walked.blobs[conv.top]
        return likely_cause(self.deploy, Segment(layers, {name: known[name] for name in used}, conv.top, theirs, norm))

    def _ends(
        self, stages: list[Stage], walked: Walked, got: dict[str, FloatArray], written: dict[str, Array],
        model: tuple[Any, Any, Any, Any], blob: Array,
    ) -> Image:  # fmt: skip
        """Boxes and scores: from the model's own layers, and from the input on."""
        classes = self.net.arch.num_classes
        loc, priors = walked.blobs["mbox_loc"], walked.blobs["mbox_priorbox"]
        errors = box_errors(loc, walked.errors["mbox_loc"], priors)
        boxes = local_difference(boxes_of(walked.blobs, self.net), model[2], errors)
        conf, conf_errors = (side["mbox_conf_flatten"].reshape(-1, classes) for side in (walked.blobs, walked.errors))
        scores = local_difference(conf, model[3], conf_errors)
        runtime_boxes, own_boxes = boxes_of(got, self.net), boxes_of(written, self.net)
        runtime_scores, own_scores = (side["mbox_conf_flatten"].reshape(-1, classes) for side in (got, written))
        part, cause = ("", "") if boxes.ok else self._box_cause(boxes, priors)
        ends = (
            Stage("boxes", boxes, _rounding(runtime_boxes, own_boxes, model[0], model[2]), cause, part),
            Stage("scores", scores, _rounding(runtime_scores, own_scores, model[1], model[3])),
        )
        if self.whole is None:
            return Image((*stages, *ends), ())
        exact = self.whole.compare(blob, model[2], model[3], (own_boxes, own_scores))
        return Image((*stages, *ends), exact)

    def _box_cause(self, found: LocalDifference, priors: Array) -> tuple[str, str]:
        """The layer that makes a box wrong, and why."""
        row, start = found.at[0] if found.at else 0, 0
        for feature_map in self.net.feature_maps:
            count = feature_map.size[0] * feature_map.size[1] * len(feature_map.tf_boxes)
            if row < start + count:
                return self._box_cause_on(feature_map, priors.reshape(2, -1, 4)[:, start : start + count])
            start += count
        return "", ""

    def _box_cause_on(self, feature_map: FeatureMapDesc, priors: Array) -> tuple[str, str]:
        layer = f"{feature_map.blob}_mbox_priorbox"
        if BOXES_LAYER in self.deploy.weights and self.folder.priors is None:
            layer = BOXES_LAYER
            start = sum(m.size[0] * m.size[1] * len(m.tf_boxes) for m in self.net.feature_maps[: feature_map.index])
            own = own_priors(own_default_boxes(self.reference.model, self.net), self.net)
            wanted = own[start : start + priors.shape[1], :4].astype(np.float64)
        else:
            wanted = caffe_prior_boxes(feature_map.prior, feature_map.size, self.net.arch.input_size)
        gap = float(np.abs(priors[0] - wanted).max()) if priors[0].shape == wanted.shape else math.inf
        if gap > 1e-6:
            return layer, f"the default boxes: they are off by up to {gap:.2g} of the image"
        variances = np.asarray(self.net.arch.variances)
        if np.abs(priors[1] - variances).max() > 1e-6:
            shown = ", ".join(f"{value:.6g}" for value in priors[1][0])
            return layer, f"the variances: {shown}, must be {', '.join(f'{value:.6g}' for value in variances)}"
        return feature_map.loc[-1].name, "the weights of the box predictor, or the order of its channels"


@dataclass(frozen=True)
class Image:
    """What was found in one image, or in several.

    Attributes:
        stages: in the net's order, boxes and scores last.
        whole: boxes and scores of the whole net in float64; empty where its tensors are not the model's own.
    """

    stages: tuple[Stage, ...]
    whole: tuple[WholeDifference, ...]

    def with_image(self, other: Image) -> Image:
        """The same stages in one more image."""
        return Image(
            tuple(one.with_image(more) for one, more in zip(self.stages, other.stages, strict=True)),
            tuple(one.with_image(more) for one, more in zip(self.whole, other.whole, strict=True)),
        )


def _rounding(got: Array, written: Array, single: Array, double: Array) -> Rounding:
    """Errors of a runtime's float32 against the net's float64, and of the model's against its own."""
    if got.size != written.size or single.size != double.size:
        return Rounding(math.inf, 0.0, 0.0)
    runtime, model = (
        float(np.abs(one.reshape(other.shape).astype(np.float64) - other).max(initial=0.0))
        for one, other in ((got, written), (single, double))
    )
    return Rounding(runtime, model, float(np.abs(double).max(initial=0.0)))
