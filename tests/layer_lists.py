"""A net as a list of its layers: what `gen --compat` and an earlier project's prototxt have to have in common.

One line a layer: name, type, bottoms, tops, sizes, the shapes of its learned blobs, and the phase if it has only one.
Fields are separated by ` | `. Not in it: fillers, learning rates, engines, and the settings of data layers.

    python -m tests.layer_lists FILE.prototxt

prints the list of a prototxt. So the files in tests/earlier_nets were made, each of the prototxt of another project
that its first line names, and the digests of what the projects' own scripts print for the given options.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.shapes import infer
from ssdlite_caffe.prototxt.text import read_net

FOLDER = Path(__file__).parent / "earlier_nets"


def layer_list(net: caffe_pb2.NetParameter) -> list[str]:
    """The name and input of the net, then its layers."""
    shapes = infer(net)
    assert not shapes.errors, shapes.errors
    first = f"{net.name} | {' '.join(net.input)} | {_list('x', net.input_shape[0].dim) if net.input_shape else ''}"
    return [first.strip(" |"), *(_row(layer, shapes.param_shapes.get(layer.name, ())) for layer in net.layer)]


def digest(rows: Iterable[str]) -> str:
    """A short hash of a list."""
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]


def _row(layer: caffe_pb2.LayerParameter, blobs: Iterable[tuple[int, ...]]) -> str:
    sizes = _SIZES[layer.type](layer) if layer.type in _SIZES else ""
    phase = " ".join(caffe_pb2.Phase.Name(include.phase) for include in layer.include)
    shapes = " ".join(_list("x", shape) for shape in blobs)
    fields = (layer.name, layer.type, " ".join(layer.bottom), " ".join(layer.top), sizes, shapes, phase)
    return " | ".join(fields).rstrip(" |")


def _convolution(layer: caffe_pb2.LayerParameter) -> str:
    p = layer.convolution_param
    sides = (("kernel", p.kernel_size, ""), ("pad", p.pad, "0"), ("stride", p.stride, "1"))
    spread = f" dilation {_list(',', p.dilation)}" if p.dilation else ""
    said = " ".join(f"{name} {_list(',', values) or default}" for name, values, default in sides)
    return f"{p.num_output} {said} group {p.group}{' bias' * p.bias_term}{spread}"


def _prior_box(layer: caffe_pb2.LayerParameter) -> str:
    p = layer.prior_box_param
    lists = (p.min_size, p.max_size, p.aspect_ratio, p.variance)
    return f"{' / '.join(_list(',', values) for values in lists)} flip {p.flip} clip {p.clip} offset {p.offset:g}"


def _detection_output(layer: caffe_pb2.LayerParameter) -> str:
    p = layer.detection_output_param
    nms = p.nms_param
    return f"{p.num_classes} nms {nms.nms_threshold:g} {nms.top_k} keep {p.keep_top_k} above {p.confidence_threshold:g}"


def _loss(layer: caffe_pb2.LayerParameter) -> str:
    kind = layer.multibox_loss_param.ConfLossType.Name(layer.multibox_loss_param.conf_loss_type)
    return f"{layer.multibox_loss_param.num_classes} {kind}"


_SIZES: dict[str, Callable[[caffe_pb2.LayerParameter], str]] = {
    "Convolution": _convolution,
    "BatchNorm": lambda layer: f"eps {layer.batch_norm_param.eps:g}",
    "Scale": lambda layer: "bias" * layer.scale_param.bias_term,
    "Slice": lambda layer: f"axis {layer.slice_param.axis} at {_list(',', layer.slice_param.slice_point)}",
    "Permute": lambda layer: _list(",", layer.permute_param.order),
    "Flatten": lambda layer: f"axis {layer.flatten_param.axis}",
    "Concat": lambda layer: f"axis {layer.concat_param.axis}",
    "Softmax": lambda layer: f"axis {layer.softmax_param.axis}",
    "Reshape": lambda layer: _list(",", layer.reshape_param.shape.dim),
    "Pooling": lambda layer: f"pool {layer.pooling_param.pool} global {layer.pooling_param.global_pooling}",
    "PriorBox": _prior_box,
    "DetectionOutput": _detection_output,
    "DetectionEvaluate": lambda layer: str(layer.detection_evaluate_param.num_classes),
    "MultiBoxLoss": _loss,
}


def _list(separator: str, values: Iterable[float]) -> str:
    return separator.join(f"{value:g}" for value in values)


if __name__ == "__main__":
    print("\n".join(layer_list(read_net(Path(sys.argv[1])))))
