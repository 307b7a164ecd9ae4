"""Changes of a prototxt that some programs need and `convert` has no option for."""

from __future__ import annotations

from collections.abc import Callable

from ssdlite_caffe.prototxt import caffe_pb2


def without_priors(net: caffe_pb2.NetParameter) -> None:
    """Drop the PriorBox layers of a headless net, and what reads them alone."""
    gone: set[str] = set()
    kept = []
    for layer in net.layer:
        if layer.type == "PriorBox" or (layer.bottom and set(layer.bottom) <= gone):
            gone |= set(layer.top)
        else:
            kept.append(layer)
    net.ClearField("layer")
    net.layer.extend(kept)


EDITS: dict[str, Callable[[caffe_pb2.NetParameter], None]] = {"without-priors": without_priors}
