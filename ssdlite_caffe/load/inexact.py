"""What of a net is not as in the TensorFlow model whose weights it gets, though all of them fit."""

from __future__ import annotations

from dataclasses import replace

from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.gen_model.moved_maps import is_moved
from ssdlite_caffe.gen_model.netdesc import ConvDesc, NetDesc
from ssdlite_caffe.load.fill import kernel_size
from ssdlite_caffe.load.names import named_as, with_blobs_of
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.rules import CONVOLUTIONS
from ssdlite_caffe.prototxt.shapes import infer


def inexact(net: caffe_pb2.NetParameter, desc: NetDesc) -> list[str]:
    """A line for each way in which the net computes something else; empty for an exact net.

    Args:
        net: the parsed prototxt, which fits the weights; its input may have another size than the model's.
        desc: the net that `build` makes of the model's own ArchSpec.

    Raises:
        ArchError: the model's net cannot have the input size of `net`.
    """
    shapes = infer(net).blobs
    shape = shapes.get("data")
    if shape is not None and shape[2:] != desc.arch.input_size:
        desc = build(replace(desc.arch, input_size=(shape[2], shape[3])))
    convs = {conv.name: conv for conv in with_blobs_of(named_as(desc, net), net).convolutions}
    tops = {conv.top for conv in convs.values() if conv.activation == "relu6"}
    unbounded = [
        layer
        for layer in net.layer
        if layer.type == "ReLU"
        and layer.top[0] in tops
        and layer.top[0] in (layer.bottom[0], layer.name)  # in place, or with --names tops
    ]
    cut = {layer.bottom[0] for layer in net.layer if layer.type == "Slice"}
    padded = [layer for layer in net.layer if layer.type in CONVOLUTIONS and layer.name in convs]
    shifted = [
        layer
        for layer in padded
        if layer.top[0] not in cut
        and _shifted(layer.convolution_param, convs[layer.name])
        and not is_moved(shapes.get(layer.top[0]) or (), convs[layer.name].out_size)
    ]
    lines = []
    if unbounded:
        lines.append(f"{len(unbounded)} ReLU layers ({unbounded[0].name!r}, ...), which are ReLU6 in the model")
    if shifted:
        lines.append(
            f"{len(shifted)} convolutions ({shifted[0].name!r}, ...) with the same padding on both sides; the model "
            "pads one more after than before"
        )
    return lines


def _shifted(param: caffe_pb2.ConvolutionParameter, conv: ConvDesc) -> bool:
    """Whether a convolution of which nothing is cut off has other windows than TensorFlow's."""
    padded = param.pad_h or param.pad_w or any(param.pad)
    if conv.padding.symmetric or not padded or param.HasField("tf_pad"):
        return False
    return kernel_size(param) == conv.kernel
