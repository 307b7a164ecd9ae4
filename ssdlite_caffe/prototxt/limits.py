"""What each runtime can do with a prototxt: the layer types it runs, and the fields it rejects or requires.

One file a program, `limits_<program>.py`; each table says where it is from. This one gathers them and applies them.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence

from google.protobuf.message import Message

from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.limits_acuity import ACUITY
from ssdlite_caffe.prototxt.limits_ascend import ASCEND
from ssdlite_caffe.prototxt.limits_caffe import BVLC, CAFFE_SSD
from ssdlite_caffe.prototxt.limits_hisilicon import NNIE, SVP
from ssdlite_caffe.prototxt.limits_mnn import MNN
from ssdlite_caffe.prototxt.limits_ncnn import NCNN
from ssdlite_caffe.prototxt.limits_onnx import ONNX
from ssdlite_caffe.prototxt.limits_opencv import OPENCV
from ssdlite_caffe.prototxt.limits_openvino import OPENVINO
from ssdlite_caffe.prototxt.limits_paddle import PADDLE
from ssdlite_caffe.prototxt.limits_rknn import RKNN
from ssdlite_caffe.prototxt.limits_sophgo import SOPHGO
from ssdlite_caffe.prototxt.runtime import Runtime
from ssdlite_caffe.prototxt.shapes import Finding, LayerShapes

LIMITS: dict[str, Runtime] = {
    "opencv": OPENCV,
    "caffe-ssd": CAFFE_SSD,
    "bvlc": BVLC,
    "ncnn": NCNN,
    "mnn": MNN,
    "openvino": OPENVINO,
    "rknn": RKNN,
    "sophgo": SOPHGO,
    "hisilicon-svp": SVP,
    "hisilicon-nnie": NNIE,
    "ascend": ASCEND,
    "acuity": ACUITY,
    "paddle": PADDLE,
    "onnx": ONNX,
}
"""The programs by the names that `lint --runtime` and `convert --target` take."""
OTHER_NAMES = {"nnie": "hisilicon-nnie"}
"""Names of earlier versions, which `lint --runtime` still takes."""


def judge(net: caffe_pb2.NetParameter, name: str, shapes: Sequence[LayerShapes]) -> Iterator[Finding]:
    """Problems that a runtime would have with a net.

    Args:
        net: the net.
        name: key of LIMITS.
        shapes: of the layers to check, those of one phase.
    """
    runtime = LIMITS[name]
    layers = [one.index for one in shapes]
    if net.input and runtime.net_inputs:
        yield Finding("warning", "runtime", runtime.net_inputs)
    if runtime.all_phases:
        yield from _other_phases(net, runtime, layers)
    for index, shaped in zip(layers, shapes, strict=True):
        layer = net.layer[index]
        if layer.type not in runtime.rules:  # reported as unknown already
            continue
        if layer.type not in runtime.layers:
            hint = runtime.instead.get(layer.type)
            text = f"{runtime.title} has no layer {layer.type}" + (f"; {hint}" if hint else "")
            yield Finding("error", "runtime", text, index)
            continue
        yield from _fields(runtime, layer, index)
        for check in runtime.checks:
            found = check.find(layer, shaped)
            if found:
                yield Finding(check.severity, "runtime", f"{runtime.title}: {found}", index)
        if layer.type in runtime.warnings:
            yield Finding("warning", "runtime", f"{runtime.title}: {runtime.warnings[layer.type]}", index)
        if runtime.whole_slices and layer.type == "Slice" and not layer.slice_param.slice_point:
            yield from _unread(net, runtime, index)
        if runtime.even_kernels and any(size % 2 == 0 for size in layer.convolution_param.kernel_size):
            yield Finding("warning", "runtime", f"{runtime.title}: {runtime.even_kernels}", index)
        if runtime.last_field:
            for descriptor, _ in layer.ListFields():
                if descriptor.number > runtime.last_field:
                    yield Finding("error", "runtime", f"{runtime.title} does not know {descriptor.name}", index)


def _other_phases(net: caffe_pb2.NetParameter, runtime: Runtime, layers: list[int]) -> Iterator[Finding]:
    """Layers of another phase that a runtime reads all the same, and does not have."""
    for index in sorted(set(range(len(net.layer))) - set(layers)):
        kind = net.layer[index].type
        if kind not in runtime.layers:
            text = f"{runtime.title} reads layers of every phase, and has no layer {kind}; use a deploy net"
            yield Finding("error", "runtime", text, index)


def _unread(net: caffe_pb2.NetParameter, runtime: Runtime, index: int) -> Iterator[Finding]:
    """A Slice without slice_point whose tops are not all read."""
    read = {bottom for layer in net.layer[index + 1 :] for bottom in layer.bottom}
    unread = [top for top in net.layer[index].top if top not in read]
    if unread:
        text = f"no layer reads {', '.join(unread[:5])}: without slice_point it cuts into as many parts as are read"
        yield Finding("error", "runtime", f"{runtime.title}: {text}; give slice_point", index)


def _fields(runtime: Runtime, layer: caffe_pb2.LayerParameter, index: int) -> Iterator[Finding]:
    for rule in runtime.fields:
        if rule.type not in ("", layer.type) or _has(layer, rule.path) is rule.wanted:
            continue
        if rule.value is None or operator.attrgetter(rule.path)(layer) == rule.value:
            need = "is missing" if rule.wanted else "is set" if rule.value is None else f"is {rule.value}"
            yield Finding(rule.severity, "runtime", f"{runtime.title}: {rule.path} {need}; {rule.text}", index)


def _has(message: Message, path: str) -> bool:
    """Whether the field at a path is set, or, if it is repeated, has entries."""
    first, _, rest = path.partition(".")
    present = any(descriptor.name == first for descriptor, _ in message.ListFields())
    return present and (not rest or _has(getattr(message, first), rest))
