"""The whole net in float64, from the network input to decoded boxes and scores, against the model's graph in float64.

A conversion rounds each weight that it computes (a fold, another epsilon, a default box of another size) once to
float32, and the layers behind may amplify that: random weights make 1e-4 of it in the scores, which hides mistakes. So
the conversion is done once more in float64, from the model's tensors, and each weight of the file is taken as it was
before its rounding. A weight that is not the rounding of what the conversion makes is taken from the file, as are all
where the conversion cannot be done again. Then nothing but the default boxes is rounded any more, and both sides must
agree to DOUBLE_BOX and DOUBLE_SCORE, however the layers amplify: no error is carried through the net, and no bound
depends on how much that would be. What the rounding of the weights does is the rest, and is told beside it (`written`).

The default boxes are float32 numbers in the model, and parameters of PriorBox layers in the net. Boxes that are further
apart than DOUBLE_BOX (large ones, or ones at the image's far corner) are allowed what these roundings move them by,
which is computed for each of them, see `local_check.box_errors`.

float64 rounds, too. A net that makes `written` of rounding its weights by UNIT makes at most written * NOISE / UNIT of
NOISE in its layers, and is allowed that where it is more. A mistake is in both differences, and NOISE / UNIT is 2e-5,
so none is allowed by it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ssdlite_caffe.dump.model import DumpedModel
from ssdlite_caffe.errors import PrototxtError, TensorError
from ssdlite_caffe.gen_model.netdesc import NetDesc
from ssdlite_caffe.load.fill import fill
from ssdlite_caffe.load.own_boxes import code_limits
from ssdlite_caffe.prototxt.text import read_net
from ssdlite_caffe.runtimes.decode import decode_boxes, split_priors
from ssdlite_caffe.runtimes.reference_net import ReferenceNet
from ssdlite_caffe.runtimes.reference_windows import Array
from ssdlite_caffe.tools.local_check import NOISE, LocalDifference, box_errors, local_difference
from ssdlite_caffe.tools.rounding import UNIT
from ssdlite_caffe.tools.tolerances import DOUBLE_BOX, DOUBLE_SCORE

OUTPUTS = ("mbox_loc", "mbox_conf_flatten", "mbox_priorbox")


@dataclass(frozen=True)
class Unrounded:
    """A net with its weights as they were before their rounding to float32.

    Attributes:
        net: in float64.
        folded: weights that the conversion computed.
        others: layer -> weights that are not what the conversion makes; they are the file's.
        problem: why the conversion could not be done again; empty if it was.
    """

    net: ReferenceNet
    folded: int
    others: dict[str, int]
    problem: str = ""


def unrounded(net: ReferenceNet, desc: NetDesc, model: DumpedModel) -> Unrounded:
    """Do a conversion once more in float64.

    Args:
        net: the converted deploy net, in float64, with the weights of its file.
        desc: the net that was converted.
        model: what it was converted from.
    """
    double = {name: values.astype(np.float64) for name, values in model.tensors.items()}
    try:
        # Every function of `load` computes in float64 and rounds to the dtype of its tensors.
        made = fill(read_net(net.prototxt), desc, replace(model, tensors=double)).blobs  # type: ignore[arg-type]
    except (PrototxtError, TensorError) as error:
        problem = " ".join(line.strip() for line in str(error).splitlines()[:2])  # of a list, its first entry
        return Unrounded(net, 0, {}, problem)
    folded, others, weights = 0, {}, {}
    exact_constants = net.with_constants(model.constants, exact=True).weights
    layers = {layer.name: layer for layer in net.layers}
    for name, written in net.weights.items():
        if layers[name].type == "Power":
            weights[name] = exact_constants[name]
            continue
        exact = [np.asarray(values, np.float64) for values in made.get(name, ())]
        if [values.shape for values in exact] != [values.shape for values in written]:
            others[name] = sum(values.size for values in written)
            weights[name] = written
            continue
        ours = [_rounds_to(a, b) for a, b in zip(exact, written, strict=True)]
        folded += sum(int((same & (a != b)).sum()) for same, a, b in zip(ours, exact, written, strict=True))
        strange = sum(int((~same).sum()) for same in ours)
        if strange:
            others[name] = strange
        weights[name] = tuple(np.where(same, a, b) for same, a, b in zip(ours, exact, written, strict=True))
    return Unrounded(net.with_weights(weights), folded, others)


def _rounds_to(exact: Array, written: Array) -> Array:
    with np.errstate(over="ignore"):
        rounded = exact.astype(np.float32)
    return np.asarray(rounded == written.astype(np.float32))


@dataclass(frozen=True)
class WholeDifference:
    """How far all boxes or all scores are from the model's, both in float64, from the network input on.

    Attributes:
        name: `boxes in float64` or `scores in float64`.
        difference: with weights before their rounding, in the image where it is worst.
        largest: the model's largest value there.
        written: the largest difference of all images with the weights of the file, each rounded once.
        remark: which weights are not the model's, or were taken from the file; a phrase.
    """

    name: str
    difference: LocalDifference
    largest: float
    written: float
    remark: str = ""

    def with_image(self, other: WholeDifference) -> WholeDifference:
        """The same in one more image."""
        worse = other if other.difference.share > self.difference.share else self
        return replace(worse, written=float(np.maximum(self.written, other.written)))  # NaN stays


class WholeNet:
    """Compares the whole net, one image after the other."""

    def __init__(self, net: ReferenceNet, desc: NetDesc, model: DumpedModel) -> None:
        """Prepare the net; the arguments are those of `unrounded`."""
        self.net = desc
        self.unrounded = unrounded(net, desc, model)

    def compare(
        self, blob: Array, boxes: Array, scores: Array, written: tuple[Array, Array]
    ) -> tuple[WholeDifference, WholeDifference]:
        """The differences of boxes and of scores in one image.

        Args:
            blob: the net's input (1, 3, H, W).
            boxes: the model's in float64 (N, 4), in the net's order.
            scores: the model's in float64 (N, C), in the same order.
            written: the net's in float64, with the weights of its file.
        """
        blobs = self.unrounded.net.forward(blob, OUTPUTS)
        loc, priors = blobs["mbox_loc"], blobs["mbox_priorbox"]
        own_boxes, own_scores = boxes_of(blobs, self.net), blobs["mbox_conf_flatten"].reshape(-1, scores.shape[1])
        rounded = box_errors(loc, np.zeros_like(loc), priors)
        return (
            self._difference("boxes in float64", own_boxes, boxes, written[0], (DOUBLE_BOX, rounded)),
            self._difference(
                "scores in float64", own_scores, scores, written[1], (DOUBLE_SCORE, np.zeros_like(scores))
            ),
        )

    def _difference(
        self, name: str, ours: Array, theirs: Array, written: Array, bounds: tuple[float, Array]
    ) -> WholeDifference:
        """Compare with the bound, and where that is exceeded with what roundings allow each value.

        What is beyond both is told with the bound.
        """
        bound, rounded = bounds
        rest = _gap(written, theirs)
        found = local_difference(ours, theirs, np.full(theirs.shape, bound))
        if not found.ok and rounded.shape == theirs.shape:
            again = local_difference(ours, theirs, np.maximum(bound, rounded) + rest * NOISE / UNIT)
            found = again if again.ok else found
        return WholeDifference(name, found, _largest(theirs), rest, self.remark)

    @property
    def remark(self) -> str:
        """What is to be said of the weights, if anything is."""
        found = self.unrounded
        if found.problem:
            return f"with the weights of the file, since the conversion cannot be done again: {found.problem}"
        if not found.others:
            return ""
        name, count = next(iter(found.others.items()))
        more = f" and {len(found.others) - 1} more layers" if len(found.others) > 1 else ""
        return f"{count} weights of {name}{more} are not what the conversion makes of the model's"


def boxes_of(blobs: dict[str, Array], net: NetDesc) -> Array:
    """Decoded boxes (N, 4) xmin, ymin, xmax, ymax of a net's outputs, in their dtype."""
    corners, variances = split_priors(blobs["mbox_priorbox"])
    return decode_boxes(blobs["mbox_loc"], corners, variances, blobs["mbox_loc"].dtype, code_limits(net, corners))


def _largest(values: Array) -> float:
    return float(np.abs(values).max(initial=0.0))


def _gap(one: Array, other: Array) -> float:
    return float(np.abs(one - other).max(initial=0.0)) if one.shape == other.shape else np.inf
