"""Folding a trained net's BatchNorm and Scale layers into the convolutions before them.

The result is the deploy form: the other layers, each convolution with a bias. `merge_plan.py` decides what is folded
into what.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.errors import PrototxtError
from ssdlite_caffe.load.fold import (
    Affine,
    chained,
    fold_into_convolution,
    fold_into_deconvolution,
    fold_into_inner_product,
)
from ssdlite_caffe.load.merge_plan import Layer, plan_folds
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.binary import blob_to_array
from ssdlite_caffe.prototxt.rules_opencv import infer_for_any
from ssdlite_caffe.prototxt.shapes import NetShapes, Phase, in_phase

Blobs = dict[str, tuple[FloatArray, ...]]
"""Layer name -> its blobs, float32."""


@dataclass(frozen=True)
class Merged:
    """A net without the BatchNorm layers that could be folded.

    Attributes:
        net: the remaining layers of the TEST phase, without blobs.
        blobs: layer name -> its blobs, float32.
        unfolded: the same of the net before folding.
        folded: names of the BatchNorms that were folded.
        kept: why a BatchNorm could not be folded, one text for each that stays.
        train_only: names of layers that are for TRAIN alone, which `net` does not have.
        unused: layers with weights that the net does not have.
    """

    net: caffe_pb2.NetParameter
    blobs: Blobs
    unfolded: Blobs
    folded: tuple[str, ...]
    kept: tuple[str, ...]
    train_only: tuple[str, ...]
    unused: tuple[str, ...]


def merge_batch_norm(
    net: caffe_pb2.NetParameter, weights: caffe_pb2.NetParameter, *, keep_rest: bool = False
) -> Merged:
    """Fold every BatchNorm, and the Scale after it, into the convolution before it.

    Args:
        net: a test or deploy net; of a net for both phases the TEST layers are taken.
        weights: its caffemodel.
        keep_rest: leave a BatchNorm that cannot be folded where it is.

    Returns:
        The folded net; `net` is not changed.

    Raises:
        PrototxtError: the weights do not fit the net, or a BatchNorm cannot be folded.
    """
    plan = plan_folds(net, keep_rest=keep_rest)
    unfolded = _checked_blobs(net, weights)
    blobs = dict(unfolded)
    chains: dict[str, tuple[Layer, Affine]] = {}
    for target, layer in plan.folds:
        affine = _affine(layer, _taken(blobs, layer))
        if target.name in chains:
            before = chains[target.name][1]
            _check_channels(layer, affine, before)
            affine = chained(before, affine)
        chains[target.name] = target, affine
    for name, (target, affine) in chains.items():
        blobs[name] = _folded(target, _taken(blobs, target), affine)
    known = {layer.name for layer in net.layer}
    return Merged(
        plan.net,
        blobs,
        unfolded,
        tuple(layer.name for _, layer in plan.folds if layer.type == "BatchNorm"),
        plan.kept,
        plan.train_only,
        tuple(layer.name for layer in weights.layer if layer.blobs and layer.name not in known),
    )


def without_batch_norm(net: caffe_pb2.NetParameter) -> caffe_pb2.NetParameter:
    """The net for folded weights: no BatchNorm and no Scale after it, and a bias in each convolution before them.

    Raises:
        PrototxtError: a BatchNorm does not follow a convolution, or another layer reads that convolution too.
    """
    return plan_folds(net).net


def fit(
    blobs: Mapping[str, Sequence[FloatArray]], net: caffe_pb2.NetParameter, what: str, *, phase: Phase = "TEST"
) -> None:
    """Check that `blobs` are exactly the learned blobs of a net in a phase; `what` begins the error.

    Blobs of layers whose shapes are not known, such as a fork's own, are not checked.

    Raises:
        PrototxtError: a layer has no blobs, has blobs of other shapes, or is not in the net; the first 5 are named.
    """
    shapes = infer_for_any(net, phase=phase)
    wanted, unsure = shapes.param_shapes, _unsure(shapes)
    problems = [f"{name} is not in the net" for name in blobs if name not in wanted and name not in unsure]
    for name, needed in wanted.items():
        found = tuple(blob.shape for blob in blobs.get(name, ()))
        if name not in blobs:
            problems.append(f"{name} has no weights")
        elif found != needed:
            problems.append(f"{name} has weights of {_show(found)}, needs {_show(needed)}")
    if problems:
        listed = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise PrototxtError(f"{what}: {listed}")


def _unsure(shapes: NetShapes) -> set[str]:
    """Layers of which it is not known what they learn."""
    return {
        layer.name
        for layer in shapes.layers
        if not layer.params and any(blob.shape is None for blob in (*layer.bottoms, *layer.tops))
    }


def _checked_blobs(net: caffe_pb2.NetParameter, weights: caffe_pb2.NetParameter) -> Blobs:
    """The blobs of all layers of the TEST phase, in the net's shapes; a blob shared by name may be given once.

    Raises:
        PrototxtError: they do not fit the net, or two layers with weights have one name.
    """
    shapes = infer_for_any(net, phase="TEST")
    wanted, unsure = shapes.param_shapes, _unsure(shapes)
    count = Counter(layer.name for layer in shapes.layers if layer.params)
    twice = next((name for name, times in count.items() if times > 1), None)
    if twice is not None:
        raise PrototxtError(f"{count[twice]} layers with weights are named {twice!r}; give each a name of its own")
    given = {layer.name: layer for layer in weights.layer if layer.blobs}
    blobs = {}
    shared: dict[str, caffe_pb2.BlobProto] = {}
    for layer in (layer for layer in net.layer if in_phase(layer, net, "TEST")):
        if layer.name not in wanted and layer.name not in unsure:
            continue
        own = list(given[layer.name].blobs) if layer.name in given else []
        sharing = [param.name for param in layer.param]
        if not own and sharing and all(name in shared for name in sharing):
            own = [shared[name] for name in sharing]
        shared.update({name: blob for name, blob in zip(sharing, own, strict=False) if name})
        if own:
            arrays = [blob_to_array(blob, f"a blob of layer {layer.name!r}") for blob in own]
            blobs[layer.name] = _shaped(arrays, wanted[layer.name]) if layer.name in wanted else tuple(arrays)
    fit(blobs, net, "the weights do not fit the net")
    return blobs


def _shaped(arrays: Sequence[FloatArray], shapes: Sequence[tuple[int, ...]]) -> tuple[FloatArray, ...]:
    """The arrays in these shapes if they have as many values: files from before 2014 give every blob four axes."""
    if [array.size for array in arrays] != [math.prod(shape) for shape in shapes]:
        return tuple(arrays)
    return tuple(array.reshape(shape) for array, shape in zip(arrays, shapes, strict=True))


def _taken(blobs: Blobs, layer: Layer) -> tuple[FloatArray, ...]:
    """Take a layer's blobs out of `blobs`; their number is checked, since shapes may not be known."""
    found = blobs.pop(layer.name, ())
    least, most = {"BatchNorm": (3, 3), "Scale": (1, 2)}.get(layer.type, (1, 2 if layer.type != "Bias" else 1))
    if not least <= len(found) <= most:
        raise PrototxtError(
            f"the weights do not fit the net: {layer.type} {layer.name!r} has {len(found)} blobs, needs "
            f"{least if least == most else f'{least} or {most}'}"
        )
    return found


def _check_channels(layer: Layer, affine: Affine, before: Affine) -> None:
    if affine.scale.size != before.scale.size:
        raise PrototxtError(
            f"the weights do not fit the net: {layer.type} {layer.name!r} has {affine.scale.size} channels, the layer "
            f"before it {before.scale.size}"
        )


def _folded(layer: Layer, blobs: Sequence[FloatArray], affine: Affine) -> tuple[FloatArray, FloatArray]:
    kernel, bias = blobs[0], blobs[1].reshape(-1) if len(blobs) > 1 else None
    try:
        if layer.type == "InnerProduct":
            return fold_into_inner_product(kernel, bias, affine, transposed=layer.inner_product_param.transpose)
        if layer.type == "Deconvolution":
            return fold_into_deconvolution(kernel, bias, affine, group=layer.convolution_param.group)
        return fold_into_convolution(kernel, bias, affine)
    except ValueError as error:  # shapes that could not be checked before
        raise PrototxtError(
            f"the weights do not fit the net: {layer.name!r} has weights of {_show([b.shape for b in blobs])}, and "
            f"what is folded into it has {affine.scale.size} channels"
        ) from error


def _affine(layer: Layer, blobs: Sequence[FloatArray]) -> Affine:
    """A BatchNorm, Scale or Bias layer as y = x * scale + offset.

    A BatchNorm with f = 1 / factor (0 for factor 0) is y = (x - mean * f) / sqrt(variance * f + eps).

    Source: batch_norm_layer.cpp, Forward_cpu with use_global_stats; scale_layer.cpp; bias_layer.cpp.
    """
    first, *rest = (blob.astype(np.float64).reshape(-1) for blob in blobs)
    if layer.type == "Bias":
        return Affine(np.ones_like(first), first)
    if layer.type == "Scale":
        return Affine(first, rest[0] if rest else np.zeros_like(first))
    variance, factor = rest
    if (variance.size, factor.size) != (first.size, 1):
        raise PrototxtError(
            f"the weights do not fit the net: BatchNorm {layer.name!r} has weights of "
            f"{_show([blob.shape for blob in blobs])}, needs a mean and a variance of the same size, and one factor"
        )
    share = 1 / factor[0] if factor[0] else 0.0
    spread = variance * share + float(np.float32(layer.batch_norm_param.eps))
    if not (np.isfinite(spread) & (spread > 0)).all():
        raise PrototxtError(f"BatchNorm {layer.name!r} has a variance that is negative, NaN or Inf")
    scale = 1 / np.sqrt(spread)
    return Affine(scale, -first * share * scale)


def _show(shapes: Sequence[Sequence[int]]) -> str:
    return " and ".join("x".join(map(str, shape)) for shape in shapes) or "none"
