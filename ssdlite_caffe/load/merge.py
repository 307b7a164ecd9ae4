"""Folding a trained net's BatchNorm and Scale layers into the convolutions before them.

The result is the deploy form: the other layers, each convolution with a bias.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.errors import PrototxtError
from ssdlite_caffe.load.fold import Affine, fold_into_convolution
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.binary import blob_to_array
from ssdlite_caffe.prototxt.rules import CONVOLUTIONS
from ssdlite_caffe.prototxt.shapes import infer


@dataclass(frozen=True)
class Merged:
    """A net without BatchNorm layers.

    Attributes:
        net: the remaining layers, without blobs.
        blobs: layer name -> its blobs, float32.
        folded: names of the convolutions into which a BatchNorm was folded.
        unused: layers with weights that the net does not have.
    """

    net: caffe_pb2.NetParameter
    blobs: dict[str, tuple[FloatArray, ...]]
    folded: tuple[str, ...]
    unused: tuple[str, ...]


@dataclass(frozen=True)
class _Group:
    """Indices into a net's layers: a convolution, its BatchNorm, and the Scale after it, if any."""

    conv: int
    norm: int
    scale: int | None


def merge_batch_norm(net: caffe_pb2.NetParameter, weights: caffe_pb2.NetParameter) -> Merged:
    """Fold every BatchNorm, and the Scale after it, into the convolution before it.

    Args:
        net: a test or deploy net.
        weights: its caffemodel.

    Returns:
        The folded net; `net` is not changed.

    Raises:
        PrototxtError: the weights do not fit the net, or a BatchNorm cannot be folded.
    """
    blobs = _checked_blobs(net, weights)
    groups = _groups(net)
    for group in groups:
        conv, norm = net.layer[group.conv], net.layer[group.norm]
        scale = None if group.scale is None else blobs.pop(net.layer[group.scale].name)
        kernel, *rest = blobs[conv.name]
        affine = _affine(norm, blobs.pop(norm.name), scale)
        blobs[conv.name] = fold_into_convolution(kernel, rest[0] if rest else None, affine)
    known = {layer.name for layer in net.layer}
    return Merged(
        without_batch_norm(net),
        blobs,
        tuple(net.layer[group.conv].name for group in groups),
        tuple(layer.name for layer in weights.layer if layer.blobs and layer.name not in known),
    )


def without_batch_norm(net: caffe_pb2.NetParameter) -> caffe_pb2.NetParameter:
    """The net for folded weights: no BatchNorm and no Scale after it, and a bias in each convolution before them.

    Raises:
        PrototxtError: a BatchNorm does not follow a convolution, or another layer reads that convolution too.
    """
    merged = caffe_pb2.NetParameter()
    merged.CopyFrom(net)
    gone: set[int] = set()
    for group in _groups(net):
        last = group.norm if group.scale is None else group.scale
        conv = merged.layer[group.conv]
        conv.top[0] = net.layer[last].top[0]
        conv.convolution_param.bias_term = True
        gone |= {group.norm, last}
    kept = [layer for place, layer in enumerate(merged.layer) if place not in gone]
    del merged.layer[:]
    for layer in kept:
        del layer.blobs[:], layer.param[:]  # `param` has learning rates for the blobs before folding
    merged.layer.extend(kept)
    return merged


def _groups(net: caffe_pb2.NetParameter) -> list[_Group]:
    """Every BatchNorm of the net, and what belongs to it."""
    groups = []
    for place, layer in enumerate(net.layer):
        if layer.type != "BatchNorm":
            continue
        conv = _writer(net.layer, place, layer.bottom[0])
        if conv is None or net.layer[conv].type not in CONVOLUTIONS or _readers(net.layer, conv) != [place]:
            raise PrototxtError(
                f"BatchNorm {layer.name!r} cannot be folded: it must follow a convolution that no other layer reads"
            )
        readers = _readers(net.layer, place)
        scaled = len(readers) == 1 and _is_plain_scale(net.layer[readers[0]])
        groups.append(_Group(conv, place, readers[0] if scaled else None))
    return groups


def fit(blobs: Mapping[str, Sequence[FloatArray]], net: caffe_pb2.NetParameter, what: str) -> None:
    """Check that `blobs` are exactly the learned blobs of a net; `what` begins the error.

    Raises:
        PrototxtError: a layer has no blobs, has blobs of other shapes, or is not in the net; the first 5 are named.
    """
    wanted = infer(net, phase="TEST").param_shapes
    problems = [f"{name} is not in the net" for name in blobs if name not in wanted]
    for name, shapes in wanted.items():
        found = tuple(blob.shape for blob in blobs.get(name, ()))
        if name not in blobs:
            problems.append(f"{name} has no weights")
        elif found != shapes:
            problems.append(f"{name} has weights of {_show(found)}, needs {_show(shapes)}")
    if problems:
        listed = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise PrototxtError(f"{what}: {listed}")


def _checked_blobs(net: caffe_pb2.NetParameter, weights: caffe_pb2.NetParameter) -> dict[str, tuple[FloatArray, ...]]:
    wanted = infer(net, phase="TEST").param_shapes
    blobs = {
        layer.name: _shaped(
            [blob_to_array(b, f"a blob of layer {layer.name!r}") for b in layer.blobs], wanted[layer.name]
        )
        for layer in weights.layer
        if layer.name in wanted
    }
    fit(blobs, net, "the weights do not fit the net")
    return blobs


def _shaped(arrays: Sequence[FloatArray], shapes: Sequence[tuple[int, ...]]) -> tuple[FloatArray, ...]:
    """The arrays in these shapes if they have as many values: files from before 2014 give every blob four axes."""
    if [array.size for array in arrays] != [math.prod(shape) for shape in shapes]:
        return tuple(arrays)
    return tuple(array.reshape(shape) for array, shape in zip(arrays, shapes, strict=True))


def _writer(layers: Sequence[caffe_pb2.LayerParameter], place: int, blob: str) -> int | None:
    """The last layer before `place` that writes `blob`."""
    return next((i for i in range(place - 1, -1, -1) if blob in layers[i].top), None)


def _readers(layers: Sequence[caffe_pb2.LayerParameter], writer: int) -> list[int]:
    """Layers that read what `writer` wrote, before another layer overwrites it."""
    blob, found = layers[writer].top[0], []
    for i in range(writer + 1, len(layers)):
        if blob in layers[i].bottom:
            found.append(i)
        if blob in layers[i].top:
            break
    return found


def _is_plain_scale(layer: caffe_pb2.LayerParameter) -> bool:
    """Whether it is a Scale layer that multiplies each channel by a learned number, and not by another blob."""
    param = layer.scale_param
    return layer.type == "Scale" and len(layer.bottom) == 1 and param.axis == 1 and param.num_axes == 1


def _affine(layer: caffe_pb2.LayerParameter, norm: Sequence[FloatArray], scale: Sequence[FloatArray] | None) -> Affine:
    """The two layers as y = x * scale + offset.

    With f = 1 / factor (0 for factor 0): y = (x - mean * f) / sqrt(variance * f + eps) * gamma + beta.

    Source: batch_norm_layer.cpp, Forward_cpu with use_global_stats; scale_layer.cpp.
    """
    param = layer.batch_norm_param
    if param.HasField("use_global_stats") and not param.use_global_stats:
        raise PrototxtError(
            f"BatchNorm {layer.name!r} has use_global_stats: false, so it uses each batch's own statistics and cannot "
            "be folded; remove the field"
        )
    mean, variance, factor = (blob.astype(np.float64).reshape(-1) for blob in norm)
    share = 1 / factor[0] if factor[0] else 0.0
    deviation = np.sqrt(variance * share + float(np.float32(param.eps)))
    gamma = np.ones_like(mean) if scale is None else scale[0].astype(np.float64).reshape(-1)
    beta = np.zeros_like(mean) if scale is None or len(scale) < 2 else scale[1].astype(np.float64).reshape(-1)
    if not np.all(np.isfinite(deviation)) or np.any(deviation == 0):
        raise PrototxtError(f"BatchNorm {layer.name!r} has a variance that is negative, NaN or Inf")
    return Affine(gamma / deviation, beta - mean * share * gamma / deviation)


def _show(shapes: Sequence[Sequence[int]]) -> str:
    return " and ".join("x".join(map(str, shape)) for shape in shapes) or "none"
