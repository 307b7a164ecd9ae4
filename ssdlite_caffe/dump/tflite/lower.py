"""Converting a TensorFlow Lite graph to a TensorFlow graph, so that one reader reads both.

Each operator becomes nodes that compute the same: a convolution becomes Conv2D, BiasAdd and activation, HARD_SWISH the
four nodes that TensorFlow 1 has for it. The node of tensor 12 is named `tensor_12`, so that a layer's output can be
found in TensorFlow Lite's interpreter by its number. Convolutions are numbered (`op_7/weights`), since their names in
the file may be those of another layer, with which a converter has fused them. Operators that no detector has keep their
name; the reader refuses them if the detector depends on them.

Kernels are transposed to TensorFlow's layouts: OHWI -> HWIO, and 1 x H x W x (C * M) -> HWCM. float16 constants become
float32 with the same values. int8 constants become scale * (q - zero point) in float32, as TensorFlow Lite's Dequantize
computes them.

Source: tensorflow/lite/kernels/{conv,depthwise_conv,dequantize,hard_swish,pooling,reduce}.cc.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import cast

import numpy as np

from ssdlite_caffe.dump.detector.raw_outputs import TFLITE_OP
from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from ssdlite_caffe.dump.graph.tensors import DTYPES, Array
from ssdlite_caffe.dump.tflite.file import CUSTOM, Operator, Scalar, Tensor, TfliteFile
from ssdlite_caffe.errors import ModelError

_PADDINGS = ("SAME", "VALID")
_ACTIVATIONS = {1: "Relu", 3: "Relu6"}
_NO_ACTIVATION = 0
_GROWTH = 8
"""Most times that constants may be larger than the file: int8 becomes float32, and a constant that the file has once
may be written for each of its readers. Only a malicious file exceeds this."""
CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
_SIMPLE = {
    "ADD": "AddV2", "SUB": "Sub", "MUL": "Mul", "DIV": "RealDiv", "RELU": "Relu", "RELU6": "Relu6",
    "LOGISTIC": "Sigmoid", "SOFTMAX": "Softmax", "RESHAPE": "Reshape", "SQUEEZE": "Squeeze", "MINIMUM": "Minimum",
    "MAXIMUM": "Maximum", "PAD": "Pad", "PADV2": "PadV2", "TRANSPOSE": "Transpose", "SHAPE": "Shape", "CAST": "Cast",
    "EXPAND_DIMS": "ExpandDims", "MEAN": "Mean", "STRIDED_SLICE": "StridedSlice", "PACK": "Pack",
    "AVERAGE_POOL_2D": "AvgPool", "RESIZE_BILINEAR": "ResizeBilinear", "EXP": "Exp", "SLICE": "Slice",
}  # fmt: skip
"""Operators that TensorFlow has too, with the same inputs in the same order."""
_MASKS = {"BeginMask": "begin_mask", "EndMask": "end_mask", "EllipsisMask": "ellipsis_mask",
          "NewAxisMask": "new_axis_mask", "ShrinkAxisMask": "shrink_axis_mask"}  # fmt: skip
_WHOLE = {"num_classes", "max_detections", "max_classes_per_detection", "detections_per_class"}


def tensor_node(index: int) -> str:
    """The name of a tensor's node."""
    return f"tensor_{index}"


def tensor_index(node: str) -> int:
    """Inverse of `tensor_node`, for a node or its output (`tensor_12:0`).

    Raises:
        ValueError: it is not the name of such a node.
    """
    return int(node.removesuffix(":0").removeprefix("tensor_"))


def real_values(tensor: Tensor) -> Array:
    """A constant's real values: float16 as float32, and quantised values as scale * (q - zero point).

    The difference is computed in integers, the product in float32.
    """
    assert tensor.values is not None
    if tensor.quantised:
        shape = [1] * len(tensor.shape)
        if tensor.scale.size > 1:
            shape[tensor.axis] = tensor.scale.size
        offset = tensor.values.astype(np.int64) - tensor.zero_point.reshape(shape)
        return np.asarray(tensor.scale.reshape(shape) * offset.astype(np.float32), np.float32)
    return tensor.values.astype(np.float32) if tensor.dtype == "f2" else tensor.values


def anchor_rounding(file: TfliteFile) -> float:
    """Largest rounding error of the stored default boxes, as a fraction of the input.

    Half a unit in the last place of a float16 below 1, or half a step of quantised integers.
    """
    operation = next((o for o in file.operators if o.custom == TFLITE_OP and len(o.inputs) > 2), None)
    if operation is None or operation.inputs[2] < 0:
        return 0.0
    tensor = file.tensors[operation.inputs[2]]
    tensor = dequantised_constants(file).get(tensor.index, tensor)
    if tensor.dtype == "f2":
        return 2.0**-12
    return float(tensor.scale.max()) / 2 if tensor.quantised else 0.0


def dequantised_constants(file: TfliteFile) -> dict[int, Tensor]:
    """Output tensor of a Dequantize -> the constant that is its input."""
    made = (o for o in file.operators if o.op == "DEQUANTIZE" and len(o.inputs) == len(o.outputs) == 1)
    pairs = ((o.outputs[0], file.tensors[o.inputs[0]]) for o in made if o.inputs[0] >= 0)
    return {output: tensor for output, tensor in pairs if tensor.values is not None}


def quantised_operators(file: TfliteFile) -> list[Operator]:
    """The operators with quantised inputs or outputs that are not constants; empty for a model that computes in float.

    A model that computes in float may still have quantised pixels as its input; their Dequantize is not listed.
    """

    def stands_for(index: int) -> bool:
        return index >= 0 and file.tensors[index].quantised and file.tensors[index].values is None

    return [
        operator
        for operator in file.operators
        if any(map(stands_for, operator.outputs))
        or (any(map(stands_for, operator.inputs)) and not set(operator.inputs) <= {*file.inputs, -1})
    ]


def pixel_input(file: TfliteFile) -> Tensor | None:
    """The input of a model that computes in float and reads pixels with a scale and zero point; None for others."""
    if len(file.inputs) != 1 or file.inputs[0] < 0:
        return None
    tensor = file.tensors[file.inputs[0]]
    readers = [o.op for o in file.operators if tensor.index in o.inputs]
    return tensor if tensor.quantised and readers == ["DEQUANTIZE"] and not quantised_operators(file) else None


def lower(file: TfliteFile) -> list[pb.NodeDef]:
    """The nodes of a TensorFlow graph that computes what the file does, without quantisation of activations.

    Raises:
        ModelError: an operator has too few inputs, or an activation or option that no detector has.
    """
    return _Lowering(file).run()


class _Lowering:
    def __init__(self, file: TfliteFile) -> None:
        self.file = file
        self.budget = _GROWTH * file.size + (1 << 20)
        self.nodes: list[pb.NodeDef] = []
        self.given: dict[int, str] = {}
        self.constants = dequantised_constants(file)
        self.special: Mapping[str, Callable[[Operator], None]] = {
            "CONV_2D": self.convolution,
            "DEPTHWISE_CONV_2D": self.convolution,
            "HARD_SWISH": self.hard_swish,
            "CONCATENATION": self.concatenation,
            "DEQUANTIZE": self.copy,
            "QUANTIZE": self.copy,
        }

    def run(self) -> list[pb.NodeDef]:
        for index in self.file.inputs:
            if index >= 0:
                self.placeholder(self.file.tensors[index])
        pixels = pixel_input(self.file)
        if pixels is not None:
            self.pixels(pixels)
        for operator in self.file.operators:
            if not operator.outputs or min(operator.outputs) < 0:
                raise ModelError(f"{self.file.source}: {operator.name} has no output; the file is damaged")
            if not self.given.keys().isdisjoint(operator.outputs):
                raise ModelError(
                    f"{self.file.source}: {operator.name} writes a tensor that is written already; the file is damaged"
                )
            if operator.outputs[0] in self.constants:
                continue  # written as a constant where it is read
            self.special.get(operator.op, self.other)(operator)
            node = TFLITE_OP if operator.custom == TFLITE_OP else tensor_node(operator.outputs[0])
            self.given.update(
                {index: f"{node}:{port}" if port else node for port, index in enumerate(operator.outputs)}
            )
        return self.nodes

    def add(self, name: str, op: str, inputs: Iterable[str] = (), **attributes: object) -> str:
        """Add a node. An attribute's field follows from its Python type: bool b, int i, float f, str s, list list.i."""
        node = pb.NodeDef(name=name, op=op, input=list(inputs))
        for key, value in attributes.items():
            target = node.attr[key]
            if isinstance(value, bool):
                target.b = value
            elif isinstance(value, int):
                target.i = value
            elif isinstance(value, float):
                target.f = value
            elif isinstance(value, str):
                target.s = value.encode()
            else:
                assert isinstance(value, list)
                target.list.i.extend(value)
        self.nodes.append(node)
        return name

    def constant(self, name: str, values: Array) -> str:
        self.budget -= values.nbytes
        if self.budget < 0:
            raise ModelError(f"{self.file.source}: its constants need more than {_GROWTH} times the size of the file")
        node = pb.NodeDef(name=name, op="Const")
        kinds = {np.dtype(text): number for number, text in DTYPES.items()}
        tensor = node.attr["value"].tensor
        tensor.dtype = _data_type(kinds[values.dtype])
        for size in values.shape:
            tensor.tensor_shape.dim.add(size=size)
        tensor.tensor_content = np.ascontiguousarray(values).tobytes()
        node.attr["dtype"].type = tensor.dtype
        self.nodes.append(node)
        return name

    def placeholder(self, tensor: Tensor) -> None:
        self.add(tensor_node(tensor.index), "Placeholder")
        node = self.nodes[-1]
        pixels = tensor.dtype == "u1" and not tensor.quantised
        node.attr["dtype"].type = pb.DT_UINT8 if pixels else pb.DT_FLOAT
        for size in tensor.shape:
            node.attr["shape"].shape.dim.add(size=size)
        self.given[tensor.index] = tensor_node(tensor.index)

    def pixels(self, tensor: Tensor) -> None:
        """Add nodes for the real values of quantised input pixels: scale * (pixel - zero point)."""
        name = self.given[tensor.index]
        zero = self.constant(f"{name}/zero_point", np.asarray(tensor.zero_point[0], np.float32))
        scale = self.constant(f"{name}/scale", np.asarray(tensor.scale[0], np.float32))
        self.add(f"{name}/sub", "Sub", [name, zero])
        self.given[tensor.index] = self.add(f"{name}/mul", "Mul", [f"{name}/sub", scale])

    def input(self, operator: Operator, position: int) -> str:
        """The name of the node of an input; a constant's node is added when it is first read."""
        index = operator.inputs[position] if position < len(operator.inputs) else -1
        if index < 0:
            raise ModelError(f"{self.file.source}: {operator.name} has no input {position}, which it must have")
        tensor = self.constants.get(index, self.file.tensors[index])
        if index not in self.given and tensor.values is not None:
            if not tensor.dtype:
                raise ModelError(
                    f"{self.file.source}: {operator.name} reads {tensor.name or index}, which has an unknown dtype"
                )
            self.given[index] = self.constant(tensor_node(index), real_values(tensor))
        if index not in self.given:
            raise ModelError(f"{self.file.source}: {operator.name} reads tensor {index}, which is not written before")
        return self.given[index]

    def inputs(self, operator: Operator) -> list[str]:
        return [self.input(operator, position) for position, index in enumerate(operator.inputs) if index >= 0]

    def activated(self, operator: Operator, last: Callable[[str], object]) -> None:
        """Add an operation by calling `last` with its name, and a node for the activation that is fused with it."""
        output = operator.outputs[0]
        activation = int(operator.options.get("FusedActivationFunction", _NO_ACTIVATION))
        name = _ACTIVATIONS.get(activation)
        if not activation and operator.op in CONVOLUTIONS:
            name = self.clipped(self.file.tensors[output])
        if activation and name is None:
            raise ModelError(
                f"{self.file.source}: {operator.name} has the activation {activation}, which no MobileNet has"
            )
        if name is None:
            last(tensor_node(output))
        else:
            last(f"{tensor_node(output)}/before")
            self.add(tensor_node(output), name, [f"{tensor_node(output)}/before"])

    @staticmethod
    def clipped(tensor: Tensor) -> str | None:
        """The activation that the range of a quantised tensor implies: Relu if it begins at 0, Relu6 if it is 0 to 6.

        Converters remove such an activation, since the range has the same effect
        (tensorflow/lite/toco/graph_transformations/remove_trivial_quantized_activation_func.cc).
        """
        if not tensor.quantised or tensor.scale.size != 1:
            return None
        limits = np.iinfo(tensor.dtype)
        if int(tensor.zero_point[0]) != limits.min:
            return None
        return "Relu6" if float(tensor.scale[0]) * (limits.max - limits.min) <= 6.0 + 1e-3 else "Relu"

    def convolution(self, operator: Operator) -> None:
        scope, options = f"op_{operator.index}", operator.options
        depthwise = operator.op == "DEPTHWISE_CONV_2D"
        image = self.input(operator, 0)
        kernel = self.kernel(operator, depthwise)
        weights = self.constant(f"{scope}/{'depthwise_weights' if depthwise else 'weights'}", kernel)
        steps = [1, int(options["StrideH"]), int(options["StrideW"]), 1]
        dilations = [1, int(options["DilationHFactor"]), int(options["DilationWFactor"]), 1]

        def written(name: str) -> None:
            biased = len(operator.inputs) > 2 and operator.inputs[2] >= 0
            op = "DepthwiseConv2dNative" if depthwise else "Conv2D"
            self.add(f"{scope}/convolution" if biased else name, op, [image, weights], strides=steps,
                     dilations=dilations, padding=self.padding(operator), data_format="NHWC")  # fmt: skip
            self.nodes[-1].attr["T"].type = pb.DT_FLOAT
            if biased:
                biases = self.constant(f"{scope}/biases", self.read_constant(operator, 2))
                self.add(name, "BiasAdd", [f"{scope}/convolution", biases])
                self.nodes[-1].attr["T"].type = pb.DT_FLOAT

        self.activated(operator, written)

    def read_constant(self, operator: Operator, position: int) -> Array:
        """The values of a float32 constant, or of a constant behind a Dequantize."""
        index = operator.inputs[position] if position < len(operator.inputs) else -1
        tensor = self.constants.get(index, self.file.tensors[index]) if index >= 0 else None
        if tensor is None or tensor.values is None or not tensor.dtype:
            raise ModelError(f"{self.file.source}: input {position} of {operator.name} must be a constant, and is not")
        values = real_values(tensor)
        if values.dtype != np.float32:
            raise ModelError(
                f"{self.file.source}: input {position} of {operator.name} must be float or quantised, got "
                f"{values.dtype} without a scale"
            )
        return values

    def kernel(self, operator: Operator, depthwise: bool) -> Array:
        """HWIO, or (depthwise) HWCM."""
        values = self.read_constant(operator, 1)
        if values.ndim != 4 or 0 in values.shape:
            raise ModelError(
                f"{self.file.source}: kernel of {operator.name} must have 4 axes, got shape {values.shape}"
            )
        read = self.file.tensors[operator.inputs[0]].shape
        channels = read[3] if len(read) == 4 else 0
        if depthwise:
            if values.shape[0] != 1 or channels < 1 or values.shape[3] % channels:
                raise ModelError(
                    f"{self.file.source}: kernel {values.shape} of {operator.name} does not fit its input {read}"
                )
            return values.reshape(*values.shape[1:3], channels, values.shape[3] // channels)
        if values.shape[3] != channels:
            raise ModelError(
                f"{self.file.source}: kernel {values.shape} of {operator.name} does not fit its input {read}"
            )
        return np.ascontiguousarray(values.transpose(1, 2, 3, 0))

    def padding(self, operator: Operator) -> str:
        number = int(operator.options["Padding"])
        if not 0 <= number < len(_PADDINGS):
            raise ModelError(
                f"{self.file.source}: padding of {operator.name} must be one of 0..{len(_PADDINGS) - 1}, got {number}"
            )
        return _PADDINGS[number]

    def hard_swish(self, operator: Operator) -> None:
        """X * relu6(x + 3) * (1/6)."""
        x, scope = self.input(operator, 0), f"op_{operator.index}"
        shifted = self.add(f"{scope}/add", "AddV2", [x, self.constant(f"{scope}/three", np.asarray(3, np.float32))])
        clipped = self.add(f"{scope}/relu6", "Relu6", [shifted])
        product = self.add(f"{scope}/mul", "Mul", [x, clipped])
        sixth = self.constant(f"{scope}/sixth", np.asarray(1 / 6, np.float32))
        self.add(tensor_node(operator.outputs[0]), "Mul", [product, sixth])

    def concatenation(self, operator: Operator) -> None:
        axis = self.constant(f"op_{operator.index}/axis", np.asarray(operator.options["Axis"], np.int32))
        parts = self.inputs(operator)
        self.activated(operator, lambda name: self.add(name, "ConcatV2", [*parts, axis]))

    def cast(self, operator: Operator) -> None:
        source, target = self.file.tensors[operator.inputs[0]], self.file.tensors[operator.outputs[0]]
        self.add(tensor_node(target.index), "Cast", [self.input(operator, 0)])
        for attribute, tensor in (("SrcT", source), ("DstT", target)):
            numbers = (number for number, text in DTYPES.items() if text.endswith(tensor.dtype or "none"))
            self.nodes[-1].attr[attribute].type = _data_type(next(numbers, pb.DT_INVALID))

    def copy(self, operator: Operator) -> None:
        self.add(tensor_node(operator.outputs[0]), "Identity", [self.input(operator, 0)])

    def other(self, operator: Operator) -> None:
        if operator.op == CUSTOM and operator.custom == TFLITE_OP:
            options = {key: _number(key, value) for key, value in operator.options.items()}
            self.add(TFLITE_OP, TFLITE_OP, self.inputs(operator), **options)
            return
        attributes: dict[str, object] = {}
        if operator.op == "AVERAGE_POOL_2D":
            options = operator.options
            attributes = {
                "padding": self.padding(operator),
                "strides": [1, int(options["StrideH"]), int(options["StrideW"]), 1],
                "ksize": [1, int(options["FilterHeight"]), int(options["FilterWidth"]), 1],
            }
        elif operator.op == "STRIDED_SLICE":
            attributes = {theirs: int(operator.options[ours]) for ours, theirs in _MASKS.items()}
        elif operator.op == "MEAN":
            attributes = {"keep_dims": bool(operator.options.get("KeepDims", False))}
        elif operator.op == "PACK":
            attributes = {"axis": int(operator.options["Axis"])}
        elif operator.op == "SOFTMAX" and operator.options["Beta"] != 1.0:
            raise ModelError(f"{self.file.source}: beta of {operator.name} must be 1, got {operator.options['Beta']}")
        elif operator.op == "RESIZE_BILINEAR":
            attributes = {
                "align_corners": bool(operator.options["AlignCorners"]),
                "half_pixel_centers": bool(operator.options["HalfPixelCenters"]),
            }
        elif operator.op == "CAST":
            self.cast(operator)
            return
        # An operator that TensorFlow does not have keeps its name, with which the reader's error shows it.
        op, inputs = _SIMPLE.get(operator.op, f"{operator.op} {operator.custom}".strip()), self.inputs(operator)
        self.activated(operator, lambda name: self.add(name, op, inputs, **attributes))


def _data_type(number: int) -> pb.DataType:
    """A DataType number as the generated stubs want it; DTYPES has plain integers."""
    return cast("pb.DataType", number)


def _number(key: str, value: Scalar) -> Scalar:
    """An option with the type that it has in a graph: a FlexBuffer may store a whole float as an integer."""
    if key in _WHOLE:
        return int(value)
    return bool(value) if key.startswith(("use_", "_")) else float(value)
