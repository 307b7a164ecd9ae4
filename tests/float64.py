"""Both sides in float64, where rounding no longer hides a wrong formula: TensorFlow's graph and the Caffe net.

In float32 a net of random weights amplifies rounding to some 1e-4 at its last layers, on either side. In float64 the
same two nets must agree far below that, and what is left is what the converted weights themselves say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.imports import import_tensorflow
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.binary import blob_to_array, read_caffemodel
from ssdlite_caffe.prototxt.text import read_net

Array = npt.NDArray[np.float64]
DECODED = ("Postprocessor/Decode/transpose_1", "Postprocessor/convert_scores")
"""The OD API's operations that hold the boxes, ymin, xmin, ymax, xmax, and scores of all default boxes."""

BLOBS = ("mbox_loc", "mbox_conf_flatten", "mbox_priorbox")
"""What the same are made of in a deploy net."""


class TensorFlowNet:
    """A frozen graph from its network input on, with every float made a double."""

    def __init__(self, frozen: Path, network_input: str, outputs: Sequence[str]) -> None:
        """Rewrite the graph.

        Args:
            frozen: the frozen graph.
            network_input: the tensor to feed, as TensorFlowDetector names it.
            outputs: operations to compute.
        """
        self.tf = import_tensorflow()
        v1 = self.tf.compat.v1
        graph = v1.GraphDef()
        graph.ParseFromString(frozen.read_bytes())
        self.outputs = [f"{name}:0" for name in outputs]
        self.input = network_input.split(":")[0]
        rewritten = v1.GraphDef(versions=graph.versions)
        for node in graph.node:
            self._rewrite(node, rewritten)
        rewritten = v1.graph_util.extract_sub_graph(rewritten, list(outputs))
        self.graph = self.tf.Graph()
        with self.graph.as_default():
            self.tf.graph_util.import_graph_def(rewritten, name="")

    def run(self, network_input: npt.NDArray[np.float32]) -> list[Array]:
        """The outputs for a network input (1, H, W, 3)."""
        with self.tf.compat.v1.Session(graph=self.graph) as session:
            return list(session.run(self.outputs, {f"{self.input}:0": network_input.astype(np.float64)}))

    def decoded(self, network_input: npt.NDArray[np.float32]) -> tuple[Array, Array]:
        """Boxes (N, 4) xmin, ymin, xmax, ymax and scores (N, classes), where the outputs are DECODED."""
        boxes, scores = self.run(network_input)
        return boxes.reshape(-1, 4)[:, [1, 0, 3, 2]], scores.reshape(-1, scores.shape[-1])

    def _rewrite(self, node: Any, graph: Any) -> None:
        double = self.tf.float64.as_datatype_enum
        if node.name == self.input:
            graph.node.add(name=node.name, op="Placeholder").attr["dtype"].type = double
            return
        if node.op.startswith("FusedBatchNorm"):
            self._unfuse(node, graph)
            return
        copy = graph.node.add()
        copy.CopyFrom(node)
        for value in copy.attr.values():
            if value.type == self.tf.float32.as_datatype_enum:
                value.type = double
            if value.HasField("tensor") and value.tensor.dtype == self.tf.float32.as_datatype_enum:
                array = self.tf.make_ndarray(value.tensor).astype(np.float64)
                value.tensor.CopyFrom(self.tf.make_tensor_proto(array))

    def _unfuse(self, node: Any, graph: Any) -> None:
        """(x - mean) * (gamma / sqrt(variance + epsilon)) + beta; the fused operation knows no doubles."""

        def add(suffix: str, kind: str, *inputs: str) -> str:
            new = graph.node.add(name=node.name + suffix, op=kind, input=inputs)
            new.attr["T"].type = self.tf.float64.as_datatype_enum
            return str(new.name)

        x, gamma, beta, mean, variance = node.input[:5]
        epsilon = graph.node.add(name=node.name + "/epsilon", op="Const")
        epsilon.attr["dtype"].type = self.tf.float64.as_datatype_enum
        epsilon.attr["value"].tensor.CopyFrom(self.tf.make_tensor_proto(np.float64(node.attr["epsilon"].f)))
        scale = add("/scale", "Mul", gamma, add("/rsqrt", "Rsqrt", add("/var", "AddV2", variance, epsilon.name)))
        add("", "AddV2", add("/scaled", "Mul", add("/centred", "Sub", x, mean), scale), beta)


class CaffeNet:
    """A net up to some blobs, layer by layer as the SSD branch of Caffe defines them."""

    def __init__(self, prototxt: Path, caffemodel: Path, outputs: Sequence[str]) -> None:
        needed = set(outputs)
        self.layers: list[caffe_pb2.LayerParameter] = []
        for layer in reversed(read_net(prototxt).layer):
            if layer.type != "Input" and needed.intersection(layer.top):
                needed.update(layer.bottom)
                self.layers.insert(0, layer)
        self.outputs = outputs
        self.weights = {
            layer.name: [blob_to_array(blob).astype(np.float64) for blob in layer.blobs]
            for layer in read_caffemodel(caffemodel).layer
        }

    def run(self, data: npt.NDArray[np.float32]) -> dict[str, Array]:
        """The outputs for an input (1, 3, H, W)."""
        blobs: dict[str, Array] = {"data": data.astype(np.float64)}
        for layer in self.layers:
            bottoms = [blobs[name] for name in layer.bottom]
            blobs[layer.top[0]] = _LAYERS[layer.type](layer, self.weights.get(layer.name, []), *bottoms)
        return {name: blobs[name] for name in self.outputs}

    def decoded(self, data: npt.NDArray[np.float32]) -> tuple[Array, Array]:
        """Boxes (N, 4) xmin, ymin, xmax, ymax and scores (N, classes), where the outputs are BLOBS."""
        blobs = self.run(data)
        corners, variances = blobs["mbox_priorbox"].reshape(2, -1, 4)
        codes = blobs["mbox_loc"].reshape(-1, 4) * variances
        size = corners[:, 2:] - corners[:, :2]
        centre = (corners[:, :2] + corners[:, 2:]) / 2 + codes[:, :2] * size
        half = np.exp(codes[:, 2:]) * size / 2
        boxes = np.concatenate([centre - half, centre + half], axis=1)
        return boxes, blobs["mbox_conf_flatten"].reshape(len(boxes), -1)


def box_order(feature_maps: Sequence[Any], caffe: tuple[Array, Array], tensorflow: tuple[Array, Array]) -> Any:
    """For each of Caffe's boxes the TensorFlow box that it is, found from the outputs of one image alone.

    Args:
        feature_maps: of report.json.
        caffe: boxes and scores.
        tensorflow: boxes and scores.

    Returns:
        Indices (N,).
    """
    ours, theirs = np.hstack(caffe), np.hstack(tensorflow)
    order, start = [], 0
    for feature_map in feature_maps:
        count, cells = feature_map["boxes_per_cell"], int(np.prod(feature_map["size"]))
        end = start + cells * count
        a, b = (side[start:end].reshape(cells, count, -1) for side in (ours, theirs))
        nearest = np.abs(a[:, :, None] - b[:, None]).max((0, 3)).argmin(1)
        assert sorted(nearest) == list(range(count)), f"boxes on {feature_map['blob']} are no reordering"
        order.append((start + np.arange(cells)[:, None] * count + nearest).reshape(-1))
        start = end
    assert start == len(ours) == len(theirs)
    return np.concatenate(order)


def _pair(param: Any, name: str, repeated: Sequence[int], default: int) -> tuple[int, int]:
    if param.HasField(f"{name}_h"):
        return getattr(param, f"{name}_h"), getattr(param, f"{name}_w")
    return (repeated[0], repeated[0]) if repeated else (default, default)


def _convolution(layer: caffe_pb2.LayerParameter, weights: list[Array], x: Array) -> Array:
    param = layer.convolution_param
    kernel = weights[0]
    pad, stride = _pair(param, "pad", param.pad, 0), _pair(param, "stride", param.stride, 1)
    if param.dilation:
        down, across = param.dilation[0], param.dilation[-1]
        height, width = kernel.shape[2:]
        spread = np.zeros((*kernel.shape[:2], (height - 1) * down + 1, (width - 1) * across + 1))
        spread[:, :, ::down, ::across] = kernel
        kernel = spread
    x = np.pad(x, ((0, 0), (0, 0), (pad[0], pad[0]), (pad[1], pad[1])))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[2:], axis=(2, 3))
    windows = windows[:, :, :: stride[0], :: stride[1]]
    if param.group > 1:
        assert param.group == param.num_output == x.shape[1], "groups are single channels"
        y = np.einsum("nchwij,cij->nchw", windows, kernel[:, 0])
    elif kernel.shape[2:] == (1, 1):
        y = np.tensordot(kernel[:, :, 0, 0], windows[0, ..., 0, 0], 1)[None]
    else:
        y = np.tensordot(windows, kernel, ((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)
    return y + weights[1].reshape(-1, 1, 1) if param.bias_term else y


def _batch_norm(layer: caffe_pb2.LayerParameter, weights: list[Array], x: Array) -> Array:
    mean, variance = (blob.reshape(-1, 1, 1) / weights[2].item() for blob in weights[:2])
    return np.asarray((x - mean) / np.sqrt(variance + layer.batch_norm_param.eps))


def _scale(layer: caffe_pb2.LayerParameter, weights: list[Array], x: Array, *factor: Array) -> Array:
    if factor:
        return x * factor[0].reshape(*factor[0].shape[:2], 1, 1)
    y = x * weights[0].reshape(-1, 1, 1)
    return y + weights[1].reshape(-1, 1, 1) if layer.scale_param.bias_term else y


def _power(layer: caffe_pb2.LayerParameter, _: list[Array], x: Array) -> Array:
    param = layer.power_param
    return np.asarray((param.shift + param.scale * x) ** param.power)


def _eltwise(layer: caffe_pb2.LayerParameter, _: list[Array], a: Array, b: Array) -> Array:
    return a * b if layer.eltwise_param.operation == caffe_pb2.EltwiseParameter.PROD else a + b


def _pooling(layer: caffe_pb2.LayerParameter, _: list[Array], x: Array) -> Array:
    assert layer.pooling_param.global_pooling, "these nets pool whole maps"
    return x.mean((2, 3), keepdims=True)


def _reshape(layer: caffe_pb2.LayerParameter, _: list[Array], x: Array) -> Array:
    return x.reshape([x.shape[i] if d == 0 else d for i, d in enumerate(layer.reshape_param.shape.dim)])


def _softmax(layer: caffe_pb2.LayerParameter, _: list[Array], x: Array) -> Array:
    powers: Array = np.exp(x)
    return np.asarray(powers / powers.sum(layer.softmax_param.axis, keepdims=True))


def _prior_box(layer: caffe_pb2.LayerParameter, _: list[Array], feature_map: Array, data: Array) -> Array:
    param = layer.prior_box_param
    least = param.min_size[0]
    shapes = [(least, least)]
    if param.max_size:
        shapes.append((math.sqrt(least * param.max_size[0]),) * 2)
    for ratio in param.aspect_ratio:
        for r in (ratio, 1 / ratio) if param.flip else (ratio,):
            shapes.append((least * math.sqrt(r), least / math.sqrt(r)))
    (rows, columns), (height, width) = feature_map.shape[2:], data.shape[2:]
    half = np.asarray(shapes) / (width, height) / 2
    x, y = np.meshgrid((np.arange(columns) + param.offset) / columns, (np.arange(rows) + param.offset) / rows)
    centre = np.stack([x, y], axis=-1)[:, :, None]
    corners = np.concatenate([centre - half, centre + half], axis=-1).reshape(-1)
    return np.stack([corners, np.tile(param.variance, len(corners) // 4)])[None]


_LAYERS: dict[str, Callable[..., Array]] = {
    "BatchNorm": _batch_norm,
    "Concat": lambda layer, _, *xs: np.concatenate(xs, layer.concat_param.axis),
    "Convolution": _convolution,
    "Eltwise": _eltwise,
    "Flatten": lambda layer, _, x: x.reshape(*x.shape[: layer.flatten_param.axis], -1),
    "Permute": lambda layer, _, x: x.transpose(list(layer.permute_param.order)),
    "Pooling": _pooling,
    "Power": _power,
    "PriorBox": _prior_box,
    "ReLU": lambda layer, _, x: np.maximum(x, 0),
    "ReLU6": lambda layer, _, x: np.clip(x, 0, 6),
    "Reshape": _reshape,
    "Scale": _scale,
    "Sigmoid": lambda layer, _, x: 1 / (1 + np.exp(-x)),
    "Softmax": _softmax,
}
