"""A converted net up to its heads, as an ONNX graph in onnxruntime, for caffe_speed.py.

The graph has the operators that exporters write and onnxruntime runs fastest: a hard swish, which Caffe writes as four
layers, is HardSigmoid and Mul. HardSigmoid ends at 1: its ramp is 1 / 6 where TensorFlow's nets have 0.16667, which
makes no difference for time, and one of 2e-5 for values (`exact_sixths`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.binary import blob_to_array, read_caffemodel
from ssdlite_caffe.prototxt.text import read_net
from ssdlite_caffe.runtimes.reference_net import ReferenceNet

_OPSET = 13


class _Graph:
    """Nodes and constants; `now` has the ONNX value of each blob, which a layer in place changes."""

    def __init__(self, helper: Any, numpy_helper: Any) -> None:
        self._helper, self._numpy_helper = helper, numpy_helper
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.now: dict[str, str] = {}
        self.ramps: dict[str, str] = {}  # blob -> x where the blob is min(max(x + 3, 0), 6)
        self.products: dict[str, str] = {}  # blob -> x where the blob is x min(max(x + 3, 0), 6)

    def constant(self, name: str, value: Any) -> str:
        self.constants.append(self._numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    def add(self, kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        made = f"{name}:out"
        self.nodes.append(self._helper.make_node(kind, list(inputs), [made], name=name, **attributes))
        return made

    def hard_sigmoid(self, value: str, name: str) -> str:
        return self.add("HardSigmoid", [value], name, alpha=1 / 6, beta=0.5)

    def layer(self, layer: caffe_pb2.LayerParameter, blobs: Sequence[Any]) -> None:
        """Add a layer.

        Raises:
            KeyError: a type or a setting that the folded nets of the benchmark do not have.
        """
        name, top = layer.name, layer.top[0]
        inputs = [self.now[blob] for blob in layer.bottom]
        match layer.type:
            case "Convolution":
                weights = [self.constant(f"{name}:{i}", blob) for i, blob in enumerate(blobs)]
                made = self.add("Conv", [*inputs, *weights], name, **_of_convolution(layer.convolution_param))
            case "ReLU6":
                if layer.bottom[0] in self.ramps:
                    return
                made = self.add("Clip", [*inputs, "zero", "six"], name)
            case "ReLU":
                made = self.add("Relu", inputs, name)
            case "Power" if (layer.power_param.scale, layer.power_param.shift) == (1, 3):
                self.ramps[top], self.now[top] = inputs[0], f"{name}: taken into what follows"
                return
            case "Power" if layer.power_param.shift == 0 and layer.bottom[0] in self.ramps:
                made = self.hard_sigmoid(self.ramps[layer.bottom[0]], name)
            case "Power" if layer.power_param.shift == 0 and layer.bottom[0] in self.products:
                value = self.products[layer.bottom[0]]
                gate = self.hard_sigmoid(value, f"{name}/gate")
                made = self.add("Mul", [value, gate], name)
            case "Eltwise" if layer.eltwise_param.operation == caffe_pb2.EltwiseParameter.PROD:
                self.products[top], self.now[top] = inputs[0], f"{name}: taken into what follows"
                return
            case "Eltwise":
                made = self.add("Add", inputs, name)
            case "Pooling":
                made = self.add("GlobalAveragePool", inputs, name)
            case "Scale":  # by a value a channel, which Flatten has left with two axes in Caffe and four here
                made = self.add("Mul", inputs, name)
            case "Permute":
                made = self.add("Transpose", inputs, name, perm=list(layer.permute_param.order))
            case "Flatten" if layer.top[0].endswith("/flat") and "squeeze" in layer.name:
                made = inputs[0]
            case "Flatten":
                made = self.add("Flatten", inputs, name, axis=layer.flatten_param.axis)
            case "Concat":
                made = self.add("Concat", inputs, name, axis=layer.concat_param.axis)
            case _:
                raise KeyError(f"layer {name} has type {layer.type}")
        self.now[top] = made


def _of_convolution(param: Any) -> dict[str, Any]:
    def one(field: Any, otherwise: int) -> int:
        return int((list(field) or [otherwise])[0])

    return {
        "group": param.group,
        "strides": [one(param.stride, 1)] * 2,
        "pads": [one(param.pad, 0)] * 4,
        "dilations": [one(param.dilation, 1)] * 2,
    }


def exact_sixths(net: ReferenceNet) -> ReferenceNet:
    """The net whose ramps are 1 / 6, as those of the ONNX graph."""
    sixths = {
        layer.name: (np.asarray(1 / 6, net.dtype),)
        for layer in net.layers
        if layer.type == "Power" and abs(layer.power_param.scale - 1 / 6) < 1e-5
    }
    return net.with_weights({**net.weights, **sixths})


def onnx_session(prototxt: Path, weights: Path, outputs: Sequence[str], threads: int) -> Any:
    """The net up to its heads in onnxruntime; None if its packages are not installed.

    Raises:
        KeyError: a layer has a type or a setting that `_Graph.layer` does not write.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError:
        return None
    helper = onnx.helper
    net = read_net(prototxt)
    blobs = {layer.name: [blob_to_array(blob) for blob in layer.blobs] for layer in read_caffemodel(weights).layer}
    graph = _Graph(helper, onnx.numpy_helper)
    graph.constant("zero", 0)
    graph.constant("six", 6)
    shape: list[int] = []
    for layer in net.layer:
        if layer.type == "Input":
            graph.now[layer.top[0]] = "input"
            shape = list(layer.input_param.shape[0].dim)
        elif layer.type != "PriorBox" and not (layer.type == "Concat" and layer.top[0].endswith("priorbox")):
            graph.layer(layer, blobs.get(layer.name, []))
        if all(name in graph.now for name in outputs):
            break

    def value(name: str, shape: list[int] | None) -> Any:
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

    made = helper.make_graph(
        graph.nodes,
        "net",
        [value("input", shape)],
        [value(graph.now[name], None) for name in outputs],
        graph.constants,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
