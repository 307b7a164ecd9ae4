"""Blobs of layers that learn nothing, such as a Scale layer that stands for a Power layer: numbers that a dialect sets.

Such a layer's prototxt says what its blobs hold, in constant fillers (`LayerDesc.constants`), so the net is whole
without a caffemodel: Caffe fills the layer, and so does whatever fills a net here. Runtimes other than Caffe read no
fillers; for them the blobs are in the caffemodel.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.sizes import Shape

_FILLERS = {
    "Scale": ("scale_param", "filler", "bias_filler"),
    "Deconvolution": ("convolution_param", "weight_filler", "bias_filler"),
    "InnerProduct": ("inner_product_param", "weight_filler", "bias_filler"),
}
"""Layer type -> its block, and the fillers of its first and of its second blob."""


def constant_blobs(layer: caffe_pb2.LayerParameter, shapes: tuple[Shape, ...]) -> tuple[FloatArray, ...] | None:
    """The blobs of a layer that learns nothing, of the given shapes, float32; None for a layer that learns.

    A layer learns nothing if each of its blobs has a constant filler that is written out, and none has a learning rate.
    """
    if layer.type not in _FILLERS or not shapes or any(param.lr_mult != 0 for param in layer.param):
        return None
    if len(layer.bottom) != 1:  # of a Scale layer with two bottoms only the offset is learned
        return None
    block, *names = _FILLERS[layer.type]
    param = getattr(layer, block)
    if not all(param.HasField(name) and getattr(param, name).type == "constant" for name in names[: len(shapes)]):
        return None
    values = [getattr(param, name).value for name in names]
    return tuple(np.full(shape, value, np.float32) for shape, value in zip(shapes, values, strict=False))


def constants(
    net: caffe_pb2.NetParameter, shapes: Mapping[str, tuple[Shape, ...]]
) -> dict[str, tuple[FloatArray, ...]]:
    """Layer name -> its blobs, of all layers of a net that learn nothing; `shapes` as `NetShapes.param_shapes`."""
    found = {layer.name: constant_blobs(layer, shapes.get(layer.name, ())) for layer in net.layer}
    return {name: blobs for name, blobs in found.items() if blobs is not None}
