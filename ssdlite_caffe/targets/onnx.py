"""ONNX, by caffe2onnx, whose PriorBox is no ONNX operation, and which fails on every product of maps."""

from __future__ import annotations

from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.gen_model.netdesc import NetDesc
from ssdlite_caffe.gen_model.render import render
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.text import parse_net
from ssdlite_caffe.targets.target import Checked, Target, TargetNet

_DIALECT = Dialect(priors="none")


def _refuses(net: NetDesc) -> str:
    parsed = parse_net(render(net, _DIALECT, "headless"), name="headless.prototxt")
    for layer in parsed.layer:
        if layer.type == "Eltwise" and layer.eltwise_param.operation == caffe_pb2.EltwiseParameter.PROD:
            return (
                f"layer {layer.name} is a product of maps (Eltwise PROD), on which caffe2onnx fails; "
                "openvino, mnn and paddle take this model"
            )
    return ""


ONNX = Target(
    name="onnx",
    title="ONNX (caffe2onnx)",
    nets=(TargetNet("headless.prototxt", "headless.caffemodel", "headless", _DIALECT),),
    checked=Checked("run", "caffe2onnx 2.0.1, ONNX Runtime 1.14"),
    limits="onnx",
    files=("README.md", "convert.sh", "detect.py", "ssd.py"),
    priors=("npy", "raw"),
    decoder=True,
    refuses=_refuses,
)
