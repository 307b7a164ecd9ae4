"""What each runtime can do with a prototxt: the layer types it runs, and the fields it rejects or requires.

Sources of the tables: OpenCV DNN 4.x (tried out, except the region layers of two-stage detectors), BVLC Caffe's master
(layer registry and caffe.proto), ncnn's caffe2ncnn (its code), the HiSilicon NNIE mapper (reports of its users).
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass, field

from google.protobuf.message import Message

from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.rules_ssd import RULES
from ssdlite_caffe.prototxt.shapes import Finding, Severity


@dataclass(frozen=True)
class FieldRule:
    """A field that a runtime rejects or requires.

    Attributes:
        path: the field, seen from the layer: `convolution_param.tf_pad`.
        severity: of the problem.
        text: why, and what to do.
        wanted: True if the field must be set, False if it must not be set.
        type: the only layer type that the rule is for, "" for all.
        value: the only value that the rule is for, None for all.
    """

    path: str
    severity: Severity
    text: str
    wanted: bool = False
    type: str = ""
    value: int | None = None


@dataclass(frozen=True)
class Runtime:
    """A program that reads Caffe's files.

    Attributes:
        title: its name in messages.
        layers: the layer types it runs; all others are errors.
        instead: layer type that it does not run -> what to do.
        fields: see FieldRule.
        even_kernels: the warning about convolutions with even kernels, "" for none.
        net_inputs: the warning about `input` fields outside of layers, "" for none.
    """

    title: str
    layers: frozenset[str]
    instead: dict[str, str] = field(default_factory=dict)
    fields: tuple[FieldRule, ...] = ()
    even_kernels: str = ""
    net_inputs: str = ""


def _types(names: str) -> frozenset[str]:
    return frozenset(names.split())


_STOCK_ACTIVATION = "write it with ReLU and Power layers (--activation stock)"
_HEADLESS = "use a headless net, which ends at mbox_loc and mbox_conf, and decode on the CPU"
_TRAINING = "it is for training and evaluation in Caffe; use a deploy net"
_KERNEL = "use --padding exact, whose kernels are one larger"
_TRAINING_LAYERS = (
    "AnnotatedData", "Data", "ImageData", "HDF5Data", "WindowData", "VideoData", "DummyData",
    "MultiBoxLoss", "DetectionEvaluate", "Accuracy", "SoftmaxWithLoss", "EuclideanLoss", "SigmoidCrossEntropyLoss",
    "SmoothL1Loss", "HingeLoss", "InfogainLoss", "MultinomialLogisticLoss", "ContrastiveLoss",
)  # fmt: skip
_OPENCV_NEEDS = {
    "DetectionOutput": (
        "num_classes", "share_location", "background_label_id", "nms_param.nms_threshold", "keep_top_k", "code_type",
    ),
    "PriorBox": ("variance",),
}  # fmt: skip
_PARAM_OF = {"DetectionOutput": "detection_output_param", "PriorBox": "prior_box_param"}
_BVLC_UNKNOWN = (
    "transform_param.resize_param", "transform_param.noise_param", "transform_param.emit_constraint",
    "transform_param.crop_h", "transform_param.crop_w", "transform_param.distort_param", "transform_param.expand_param",
    "convolution_param.tf_pad", "convolution_param.width_group", "convolution_param.height_group",
    "pooling_param.ceil_mode", "batch_norm_param.weight_filler", "batch_norm_param.bias_filler",
    "batch_norm_param.use_alpha_beta", "batch_norm_param.do_all_reduce",
)  # fmt: skip
_BVLC_LAST_FIELD = 148
"""clip_param, the greatest number in BVLC's LayerParameter."""

_OPENCV = Runtime(
    "OpenCV DNN",
    _types(
        "Input Convolution ConvolutionDepthwise Deconvolution Pooling InnerProduct LRN MVN BatchNorm Scale ReLU ReLU6 "
        "PReLU ELU Sigmoid TanH HardSwish HardSigmoid Swish BNLL AbsVal Power Exp Log Dropout Eltwise Concat Slice "
        "Split Crop Flatten Reshape Permute Softmax Normalize PriorBox DetectionOutput Silence ShuffleChannel "
        "Proposal PSROIPooling ROIPooling"
    ),
    instead={
        "Clip": f"write ReLU6, or {_STOCK_ACTIVATION}",
        "Pad": _KERNEL,
        "DepthwiseConvolution": "write Convolution with group",
        "Bias": "write Scale with bias_term",
        **dict.fromkeys(_TRAINING_LAYERS, _TRAINING),
    },
    fields=(
        FieldRule("convolution_param.tf_pad", "error", f"its importer fails on this field; {_KERNEL}"),
        FieldRule("pooling_param.round_mode", "error", "its importer fails on this field; write ceil_mode"),
        FieldRule("prior_box_param.reduce_boxes", "error", "its importer fails on this field"),
        FieldRule("prior_box_param.clip", "warning", "its default is true, Caffe's is false", True, "PriorBox"),
        *(
            FieldRule(f"{_PARAM_OF[layer]}.{name}", "error", "it has no default for this field", True, layer)
            for layer, names in _OPENCV_NEEDS.items()
            for name in names
        ),
    ),
)

_BVLC = Runtime(
    "BVLC Caffe",
    _types(
        "AbsVal Accuracy ArgMax BNLL BatchNorm BatchReindex Bias Clip Concat ContrastiveLoss Convolution Crop Data "
        "Deconvolution Dropout DummyData ELU Eltwise Embed EuclideanLoss Exp Filter Flatten HDF5Data HDF5Output "
        "HingeLoss Im2col ImageData InfogainLoss InnerProduct Input LRN LSTM LSTMUnit Log MVN MemoryData "
        "MultinomialLogisticLoss PReLU Parameter Pooling Power Python RNN ReLU Reduction Reshape SPP Scale Sigmoid "
        "SigmoidCrossEntropyLoss Silence Slice Softmax SoftmaxWithLoss Split Swish TanH Threshold Tile WindowData"
    ),
    instead={
        "ReLU6": f"write Clip, or {_STOCK_ACTIVATION}",
        "HardSwish": _STOCK_ACTIVATION,
        "HardSigmoid": _STOCK_ACTIVATION,
        "Pad": _KERNEL,
        "DepthwiseConvolution": "write Convolution with group",
        "ConvolutionDepthwise": "write Convolution with group",
        **dict.fromkeys(
            ("Permute", "PriorBox", "DetectionOutput", "MultiBoxLoss", "DetectionEvaluate", "AnnotatedData"),
            "it needs the SSD branch",
        ),
    },
    fields=tuple(FieldRule(path, "error", "it does not know this field") for path in _BVLC_UNKNOWN),
)

_NCNN = Runtime(
    "ncnn (caffe2ncnn)",
    _types(
        "Input MemoryData Convolution ConvolutionDepthwise DepthwiseConvolution Deconvolution Pooling InnerProduct "
        "LRN MVN BatchNorm BN Scale ReLU ReLU6 PReLU ELU Sigmoid TanH BNLL AbsVal Power Exp Log Threshold Dropout "
        "Eltwise Concat Slice Split Crop Flatten Reshape Permute Softmax Normalize PriorBox DetectionOutput Silence "
        "ShuffleChannel Interp ROIPooling PSROIPooling Embed LSTM"
    ),
    instead={
        "Clip": f"write ReLU6, which becomes its Clip, or {_STOCK_ACTIVATION}",
        "HardSwish": _STOCK_ACTIVATION,
        "HardSigmoid": _STOCK_ACTIVATION,
        "Pad": _KERNEL,
        **dict.fromkeys(_TRAINING_LAYERS, _TRAINING),
    },
    fields=(
        FieldRule("convolution_param.tf_pad", "error", f"it pads both sides equally; {_KERNEL}"),
        FieldRule("prior_box_param.reduce_boxes", "error", "it does not know this field"),
        FieldRule(
            "detection_output_param.code_type",
            "error",
            "it decodes every box as CENTER_SIZE, which is wrong for boxes decoded before; convert with --clip late",
            value=caffe_pb2.PriorBoxParameter.CORNER,
        ),
    ),
    net_inputs="caffe2ncnn does not read the input fields of the net itself; an Input layer tells it the size",
)

_NNIE = Runtime(
    "HiSilicon NNIE",
    _types(
        "Input Convolution Deconvolution Pooling InnerProduct LRN BatchNorm Scale Bias ReLU PReLU Sigmoid TanH BNLL "
        "AbsVal Power Dropout Eltwise Concat Slice Split Crop Flatten Reshape Permute Softmax Normalize"
    ),
    instead={
        "ReLU6": f"{_STOCK_ACTIVATION}; --activation relu runs too but is not exact",
        "Clip": f"{_STOCK_ACTIVATION}; --activation relu runs too but is not exact",
        "HardSwish": _STOCK_ACTIVATION,
        "HardSigmoid": _STOCK_ACTIVATION,
        "Pad": _KERNEL,
        "DepthwiseConvolution": "write Convolution with group",
        "ConvolutionDepthwise": "write Convolution with group",
        "DetectionOutput": _HEADLESS,
        "PriorBox": "its boxes are constants; compute them on the CPU",
        **dict.fromkeys(_TRAINING_LAYERS, _TRAINING),
    },
    fields=(FieldRule("convolution_param.tf_pad", "error", f"it does not know this field; {_KERNEL}"),),
    even_kernels="it is made for 3x3 kernels; use --padding slice (exact) or --padding symmetric (not exact)",
)

LIMITS: dict[str, Runtime] = {"opencv": _OPENCV, "bvlc": _BVLC, "ncnn": _NCNN, "nnie": _NNIE}


def judge(net: caffe_pb2.NetParameter, name: str, layers: list[int]) -> Iterator[Finding]:
    """Problems that a runtime would have with a net.

    Args:
        net: the net.
        name: key of LIMITS.
        layers: indices into `net.layer` of the layers to check, those of one phase.
    """
    runtime = LIMITS[name]
    if net.input and runtime.net_inputs:
        yield Finding("warning", "runtime", runtime.net_inputs)
    for index in layers:
        layer = net.layer[index]
        if layer.type not in RULES:  # reported as unknown already
            continue
        if layer.type not in runtime.layers:
            hint = runtime.instead.get(layer.type)
            text = f"{runtime.title} has no layer {layer.type}" + (f"; {hint}" if hint else "")
            yield Finding("error", "runtime", text, index)
            continue
        yield from _fields(runtime, layer, index)
        if runtime.even_kernels and any(size % 2 == 0 for size in layer.convolution_param.kernel_size):
            yield Finding("warning", "runtime", f"{runtime.title}: {runtime.even_kernels}", index)
        if runtime is _BVLC:
            for descriptor, _ in layer.ListFields():
                if descriptor.number > _BVLC_LAST_FIELD:
                    yield Finding("error", "runtime", f"{runtime.title} does not know {descriptor.name}", index)


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
