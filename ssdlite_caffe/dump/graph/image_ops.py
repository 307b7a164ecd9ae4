"""Further TensorFlow ops in numpy, those that prepare an image: those of `execution_ops`, and resizing with its pixels.

Source: the op definitions of tensorflow/core/ops/{array,image}_ops.cc.
"""

from __future__ import annotations

import math

import numpy as np

from ssdlite_caffe.dump.graph.constant_ops import NotConstantError, Op, Output, bounded
from ssdlite_caffe.dump.graph.execution_ops import POST_OPS
from ssdlite_caffe.dump.graph.tensors import Array
from ssdlite_caffe.dump.graph.view import Node
from ssdlite_caffe.resize_methods import resized
from ssdlite_caffe.resizer import Method, Resizer

METHODS: dict[str, Method] = {
    "ResizeBilinear": "bilinear",
    "ResizeNearestNeighbor": "nearest",
    "ResizeBicubic": "bicubic",
    "ResizeArea": "area",
}


def _resize(node: Node, args: list[Array]) -> Output:
    images, size = args
    if images.ndim != 4 or images.dtype.kind not in "fiu":
        raise NotConstantError(f"images of the shape {images.shape}")
    height, width = (int(number) for number in size.reshape(2))
    bounded(math.prod((images.shape[0], max(height, 1), max(width, 1), images.shape[3])))
    resizer = Resizer(
        method=METHODS[node.op],
        align_corners=node.attr_bool("align_corners"),
        half_pixel_centers=node.attr_bool("half_pixel_centers"),
    )
    found = np.stack([resized(image, (height, width), resizer) for image in images])
    return found.astype(images.dtype) if node.op == "ResizeNearestNeighbor" else found


IMAGE_OPS: dict[str, Op] = {
    **POST_OPS,
    **dict.fromkeys(METHODS, _resize),
    "PlaceholderWithDefault": lambda node, args: args[0],
}
