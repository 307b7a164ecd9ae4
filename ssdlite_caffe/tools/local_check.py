"""Every layer of a converted net on its own, in float64, on the model's own values of its inputs.

The reference runtime computes the net layer by layer. Wherever the model has the same value, the two are compared, and
the net goes on from the model's. So a difference is one of the layers between two such values, differences do not add
up, and what one rounding of each weight allows can be computed (`rounding.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ssdlite_caffe.gen_model.moved_maps import without_front
from ssdlite_caffe.runtimes.reference_net import ReferenceNet
from ssdlite_caffe.runtimes.reference_windows import Array
from ssdlite_caffe.tools.rounding import UNIT, error_of

NOISE = 1e-12
"""float64's own rounding in a layer, as a share of its largest value; sums have some thousand terms of 1.1e-16 each."""

DEFAULT_BOX_ROUNDINGS = 4
"""Roundings to float32 between the two sides' default boxes: of PriorBox's sizes and ratios, and of TensorFlow's
corners."""


@dataclass(frozen=True)
class LocalDifference:
    """How far a layer's values are from the model's, at the value that exceeds what is allowed most.

    Attributes:
        shape: of the values.
        absolute: the largest difference of all values.
        share: the largest difference divided by what is allowed; the layer is the model's if it is at most 1.
        at: index of the value with the largest share.
        ours, theirs, allowed: there.
    """

    shape: tuple[int, ...]
    absolute: float
    share: float
    at: tuple[int, ...]
    ours: float
    theirs: float
    allowed: float

    @property
    def ok(self) -> bool:
        """Whether every value is as near as one rounding of each weight allows."""
        return self.share <= 1


def local_difference(ours: Array, theirs: Array, error: Array) -> LocalDifference:
    """Compare a layer's values with the model's.

    Args:
        ours: of the net.
        theirs: of the model, of the same shape.
        error: what rounded weights allow, for each value.
    """
    if ours.shape != theirs.shape:
        return LocalDifference(ours.shape, np.inf, np.inf, (), np.nan, np.nan, 0.0)
    if not ours.size:
        return LocalDifference(ours.shape, 0.0, 0.0, (), 0.0, 0.0, 0.0)
    gap = np.abs(ours - theirs)
    allowed = error + NOISE * np.abs(theirs).max()
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(gap == 0, 0, gap / allowed)
    share = np.where(np.isnan(share), np.inf, share)
    at = np.unravel_index(int(share.argmax()), share.shape)
    index = tuple(int(i) for i in at)
    return LocalDifference(
        ours.shape, float(gap.max()), float(share[at]), index, float(ours[at]), float(theirs[at]), float(allowed[at])
    )


@dataclass(frozen=True)
class Walked:
    """What a walk through the net leaves.

    Attributes:
        differences: of each blob with a target.
        blobs: final values of all blobs: the targets where there are any.
        errors: what rounded weights allow, for each value of each blob, since the last target.
    """

    differences: dict[str, LocalDifference]
    blobs: dict[str, Array]
    errors: dict[str, Array]


def walk(net: ReferenceNet, blob: Array, targets: Mapping[str, Array]) -> Walked:
    """Compute a net's layers one after the other, each from the model's values where there are any.

    Args:
        net: in float64.
        blob: its input (1, 3, H, W).
        targets: the model's values of blobs; a blob that layers change in place is compared after the last of them.
    """
    blobs = {net.input: blob.astype(net.dtype)}
    errors = {net.input: np.zeros(blob.shape, net.dtype)}
    layers = [layer for layer in net.layers if layer.type != "DetectionOutput"]
    last = {top: index for index, layer in enumerate(layers) for top in layer.top}
    differences = {}
    for index, layer in enumerate(layers):
        weights = net.weights.get(layer.name, ())
        bottoms, before = [blobs[name] for name in layer.bottom], [errors[name] for name in layer.bottom]
        errors.update(zip(layer.top, error_of(layer, weights, bottoms, before), strict=True))
        net.compute(layer, blobs)
        for top in layer.top:
            if top in targets and last[top] == index:
                target = targets[top]
                ours, error = (without_front(side[top], target.shape[2:]) for side in (blobs, errors))
                target = target.reshape(ours.shape) if target.size == ours.size else target
                differences[top] = local_difference(ours, target, error)
                if ours.shape == target.shape:
                    blobs[top], errors[top] = blobs[top].copy(), errors[top].copy()
                    without_front(blobs[top], target.shape[2:])[...] = target
                    without_front(errors[top], target.shape[2:])[...] = 0
                else:
                    blobs[top], errors[top] = target, np.zeros_like(target)
    return Walked(differences, blobs, errors)


def box_errors(loc: Array, loc_errors: Array, priors: Array) -> Array:
    """What rounded weights and default boxes allow the corners of decoded boxes to be off by.

    With c = variance * encoding and e its error: the centre moves by e * size, half the size by half * expm1(e).
    Default boxes are rounded DEFAULT_BOX_ROUNDINGS times, relative to their corners and sizes.

    Args:
        loc: box encodings, any shape with N * 4 values.
        loc_errors: of the same.
        priors: (1, 2, N * 4), default boxes and variances.

    Returns:
        (N, 4), of xmin, ymin, xmax, ymax.
    """
    corners, variances = priors.reshape(2, -1, 4)
    codes = loc.reshape(-1, 4) * variances
    errors = loc_errors.reshape(-1, 4) * variances + UNIT * np.abs(codes)
    size = corners[:, 2:] - corners[:, :2]
    half = np.exp(codes[:, 2:]) * size / 2
    rounded = DEFAULT_BOX_ROUNDINGS * UNIT
    centre = errors[:, :2] * size + rounded * (np.abs(corners).max(axis=1, keepdims=True) + np.abs(codes[:, :2]) * size)
    one = centre + half * np.expm1(errors[:, 2:]) + rounded * half
    return np.concatenate([one, one], axis=1)
