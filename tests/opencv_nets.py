"""Tiny nets for OpenCV: text of layers, and what OpenCV makes of it with weights of the shapes that are inferred."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.binary import blob_from_array
from ssdlite_caffe.prototxt.limits import LIMITS
from ssdlite_caffe.prototxt.outline import outline
from ssdlite_caffe.prototxt.shapes import infer

cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")


def inputs(**shapes: Sequence[int]) -> str:
    """The inputs of a net."""
    return "".join(
        f'input: "{name}" input_shape {{ ' + " ".join(f"dim: {size}" for size in shape) + " }\n"
        for name, shape in shapes.items()
    )


def layer(
    kind: str, body: str = "", bottoms: Sequence[str] = ("d",), tops: Sequence[str] = ("t",), name: str = "t"
) -> str:
    """A layer of a net."""
    ends = " ".join([f'bottom: "{one}"' for one in bottoms] + [f'top: "{one}"' for one in tops])
    return f'layer {{ name: "{name}" type: "{kind}" {ends} {body} }}\n'


def opencv_outputs(
    text: str, layers: Sequence[str] = ("t",), *, values: Mapping[str, float] | None = None
) -> list[np.ndarray]:
    """What OpenCV computes for layers of a net, from inputs of one value each (1 unless `values` says otherwise).

    Raises:
        cv2.error: OpenCV does not load or run it.
    """
    net = outline(text, "net", caffe_pb2.NetParameter).message
    weights = caffe_pb2.NetParameter()
    for one, caffe in zip(infer(net, rules=LIMITS["opencv"].rules).layers, infer(net).layers, strict=True):
        filled = weights.layer.add(name=one.name)
        params = one.params or caffe.params  # a layer without its weights can end the process
        filled.blobs.extend(blob_from_array(np.ones(shape or (1,), np.float32)) for shape in params)
    read = cv2.dnn.readNetFromCaffe(
        np.frombuffer(text.encode(), np.uint8), np.frombuffer(weights.SerializeToString() or b"\n\0", np.uint8)
    )
    for name, shape in zip(net.input, net.input_shape, strict=True):
        read.setInput(np.full(list(shape.dim), (values or {}).get(name, 1.0), np.float32), name)
    return list(read.forward(list(layers)))


def opencv_shape(text: str, name: str = "t") -> tuple[int, ...]:
    """Shape that OpenCV gives the first top of a layer; see `opencv_outputs`."""
    return opencv_outputs(text, (name,))[0].shape
