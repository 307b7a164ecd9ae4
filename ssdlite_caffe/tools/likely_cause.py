"""Why a layer is not the model's: the layers between two values of the model, changed one thing at a time.

Each guess computes the layers again with one thing changed: a padding moved from one side to the other, another
activation, another order of channels, another constant. The guess that gives the model's values is the cause.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ssdlite_caffe.runtimes.reference_net import ReferenceNet
from ssdlite_caffe.runtimes.reference_windows import Array, Layer, convolve

_CONVOLUTIONS = ("Convolution", "ConvolutionDepthwise", "DepthwiseConvolution")
_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "no activation": lambda x: x,
    "ReLU": lambda x: np.maximum(x, 0),
    "ReLU6": lambda x: np.clip(x, 0, 6),
    "hard swish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "hard sigmoid": lambda x: np.clip(x + 3, 0, 6) / 6,
    "sigmoid": lambda x: 1 / (1 + np.exp(-np.clip(x, -700, 700))),
}
_EPSILONS = (1e-5, 1e-3, 1e-2, 2e-5, 1e-4, 1e-6, 0.0)
_NEAR = 1e-5
"""How near a guess must come, as a share of the largest value: nearer than the mistake is, and not as near as rounded
weights allow, since a guess may round otherwise."""


@dataclass(frozen=True)
class BatchNorm:
    """What is needed of a BatchNorm to guess another epsilon: variance and beta (C,), and its own epsilon."""

    variance: Array
    beta: Array
    epsilon: float


@dataclass(frozen=True)
class Segment:
    """Layers that compute a blob from the model's values.

    Attributes:
        layers: in the net's order.
        bottoms: values of the blobs that they read and do not compute.
        blob: what they compute.
        theirs: the model's values of it.
        batch_norm: the model's, None if there is none.
    """

    layers: tuple[Layer, ...]
    bottoms: Mapping[str, Array]
    blob: str
    theirs: Array
    batch_norm: BatchNorm | None = None


def likely_cause(net: ReferenceNet, segment: Segment) -> str:
    """What is wrong with a segment, as a phrase; empty if no guess fits."""
    found = _compute(net, segment, {})
    distance = _distance(found, segment.theirs)
    for phrase, values in (
        *_factors(net, segment, found), *_channels(net, segment, found), *_paddings(net, segment),
        *_activations(net, segment),
    ):  # fmt: skip
        near = _distance(values, segment.theirs)
        if near <= _NEAR and near < distance / 4:
            return phrase
    return ""


def segment_of(net: ReferenceNet, blob: str, known: Mapping[str, Array]) -> tuple[tuple[Layer, ...], set[str]]:
    """The layers that compute a blob from known ones, and the names of these.

    Args:
        net: the net.
        blob: a blob.
        known: blobs with the model's values; `blob` may be among them.
    """
    wanted, used, found = {blob}, set(), []
    for layer in reversed(net.layers):
        if not wanted.intersection(layer.top):
            continue
        found.append(layer)
        for bottom in layer.bottom:
            if bottom in layer.top or bottom == blob:
                continue
            if bottom in known or bottom == net.input:
                used.add(bottom)
            else:
                wanted.add(bottom)
    return tuple(reversed(found)), used


def _compute(net: ReferenceNet, segment: Segment, changed: Mapping[int, Callable[[Sequence[Array]], Array]]) -> Array:
    blobs = dict(segment.bottoms)
    for index, layer in enumerate(segment.layers):
        if index in changed:
            blobs[layer.top[0]] = changed[index]([blobs[name] for name in layer.bottom])
        else:
            net.compute(layer, blobs)
    return blobs[segment.blob]


def _distance(values: Array, theirs: Array) -> float:
    if values.shape != theirs.shape:
        return float("inf")
    return float(np.abs(values - theirs).max() / (np.abs(theirs).max() or 1))


def _linear(net: ReferenceNet, segment: Segment) -> tuple[int, Array] | None:
    """Index of the last layer before the activation, and what it computes."""
    kinds = (*_CONVOLUTIONS, "BatchNorm", "Scale", "Slice")
    places = [i for i, layer in enumerate(segment.layers) if layer.type in kinds and len(layer.bottom) == 1]
    if not places:
        return None
    blobs = dict(segment.bottoms)
    for layer in segment.layers[: places[-1] + 1]:
        net.compute(layer, blobs)
    return places[-1], blobs[segment.layers[places[-1]].top[0]]


def _activations(net: ReferenceNet, segment: Segment) -> Iterator[tuple[str, Array]]:
    linear = _linear(net, segment)
    if linear is not None:
        for name, function in _ACTIVATIONS.items():
            yield f"the activation: the model has {name} here", function(linear[1])


def _paddings(net: ReferenceNet, segment: Segment) -> Iterator[tuple[str, Array]]:
    """Guesses that move a convolution's padding by a pixel."""
    for index, layer in enumerate(segment.layers):
        if layer.type not in _CONVOLUTIONS or layer.convolution_param.HasField("tf_pad"):
            continue
        weights = net.weights[layer.name]
        for down, across in ((0, 1), (1, 0), (1, 1), (0, -1), (-1, 0), (-1, -1), (1, -1), (-1, 1)):

            def moved(
                bottoms: Sequence[Array], layer: Layer = layer, weights: Sequence[Array] = weights, down: int = down,
                across: int = across,
            ) -> Array:  # fmt: skip
                x = np.zeros_like(bottoms[0])
                height, width = x.shape[2:]
                x[:, :, max(-down, 0) : height - max(down, 0), max(-across, 0) : width - max(across, 0)] = bottoms[0][
                    :, :, max(down, 0) : height - max(-down, 0), max(across, 0) : width - max(-across, 0)
                ]
                bias = weights[1] if layer.convolution_param.bias_term else None
                return convolve(layer, weights[0], bias, x)

            try:
                values = _compute(net, segment, {index: moved})
            except ValueError:
                continue
            # Pixels that the move pushes out of the map are not there to compare.
            theirs, inner = segment.theirs, (slice(None), slice(None), slice(1, -1), slice(1, -1))
            if (
                values.shape == theirs.shape
                and min(theirs.shape[2:]) > 2
                and _distance(values[inner], theirs[inner]) < _NEAR
            ):
                yield f"the padding of {layer.name}: the model's zeros are on another side", theirs


def _channels(net: ReferenceNet, segment: Segment, found: Array) -> Iterator[tuple[str, Array]]:
    """Guesses that change the order of channels, of the result or of the input."""
    theirs = segment.theirs
    if found.shape == theirs.shape and found.shape[1] <= 4096:
        scale = np.abs(theirs).max() or 1
        same = np.abs(found - theirs).reshape(*found.shape[:2], -1).max((0, 2)) <= _NEAR * scale
        wrong = np.flatnonzero(~same)
        if 1 < len(wrong) <= 64:
            gaps = np.abs(found[:, wrong, None] - theirs[:, None, wrong]).reshape(len(wrong), len(wrong), -1).max(-1)
            order = gaps.argmin(0)
            if sorted(order) == list(range(len(wrong))):
                values = found.copy()
                values[:, wrong] = found[:, wrong[order]]
                shown = ", ".join(map(str, wrong[:6]))
                yield f"the order of channels: {shown}{' ...' if len(wrong) > 6 else ''} are exchanged", values
    first = segment.layers[0]
    bottoms = {name: values[:, ::-1] for name, values in segment.bottoms.items() if values.shape[1] == 3}
    if first.type in _CONVOLUTIONS and first.bottom[0] in bottoms:
        changed = Segment(segment.layers, {**segment.bottoms, **bottoms}, segment.blob, theirs)
        yield "the order of colours: RGB for BGR", _compute(net, changed, {})


def _factors(net: ReferenceNet, segment: Segment, found: Array) -> Iterator[tuple[str, Array]]:
    """Guesses of a constant factor, and of another epsilon in the BatchNorm."""
    theirs = segment.theirs
    if found.shape != theirs.shape:
        return
    norm = float((found * found).sum())
    if norm:
        factor = float((found * theirs).sum()) / norm
        yield (
            f"a constant: the model's values are {factor:.6g} times these (0.16667 for 1/6 is 1.00002)",
            found * factor,
        )
    linear = _linear(net, segment)
    if segment.batch_norm is None or linear is None:
        return
    bn, index = segment.batch_norm, linear[0]
    beta = bn.beta.reshape(-1, 1, 1)
    for epsilon in _EPSILONS:
        # y = gamma (x - mean) / sqrt(variance + epsilon) + beta, so another epsilon scales the distance from beta.
        factor_of_each = np.sqrt((bn.variance + epsilon) / (bn.variance + bn.epsilon)).reshape(-1, 1, 1)
        values = beta + factor_of_each * (linear[1] - beta)
        yield (
            f"the BatchNorm's epsilon: the model has {bn.epsilon:.6g}, the net {epsilon:.6g}",
            _compute(net, segment, {i: lambda _, v=values: v for i in range(index + 1)}),  # type: ignore[misc]
        )
