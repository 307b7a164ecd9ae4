"""Changes of a prototxt that some programs need and `convert` has no option for."""

from __future__ import annotations

from collections.abc import Callable

from ssdlite_caffe.prototxt import caffe_pb2


def input_layer(net: caffe_pb2.NetParameter) -> None:
    """An Input layer in place of the net's own `input` fields."""
    layers = list(net.layer)
    data = caffe_pb2.LayerParameter(name=net.input[0], type="Input", top=[net.input[0]])
    data.input_param.shape.add().CopyFrom(net.input_shape[0])
    for field in ("layer", "input", "input_shape"):
        net.ClearField(field)
    net.layer.extend([data, *layers])


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


EDITS: dict[str, Callable[[caffe_pb2.NetParameter], None]] = {
    "input-layer": input_layer,
    "without-priors": without_priors,
}
