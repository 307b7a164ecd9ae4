"""What each runtime can do with a prototxt: the layer types it runs, and the fields it rejects or requires.

Sources of the tables: OpenCV DNN 4.x (tried out; `limits_opencv.py`), BVLC Caffe's master
(layer registry and caffe.proto), ncnn's caffe2ncnn (its code), the HiSilicon NNIE mapper (reports of its users).
"""

from __future__ import annotations

import operator
from collections.abc import Iterator

from google.protobuf.message import Message

from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.limits_opencv import OPENCV
from ssdlite_caffe.prototxt.runtime import (
    HEADLESS,
    KERNEL,
    STOCK_ACTIVATION,
    TRAINING,
    TRAINING_LAYERS,
    FieldRule,
    Runtime,
    types,
)
from ssdlite_caffe.prototxt.shapes import Finding

_BVLC_UNKNOWN = (
    "transform_param.resize_param", "transform_param.noise_param", "transform_param.emit_constraint",
    "transform_param.crop_h", "transform_param.crop_w", "transform_param.distort_param", "transform_param.expand_param",
    "convolution_param.tf_pad", "convolution_param.width_group", "convolution_param.height_group",
    "pooling_param.ceil_mode", "batch_norm_param.weight_filler", "batch_norm_param.bias_filler",
    "batch_norm_param.use_alpha_beta", "batch_norm_param.do_all_reduce", "dropout_param.scale_train",
)  # fmt: skip
_BVLC_LAST_FIELD = 148
"""clip_param, the greatest number in BVLC's LayerParameter."""

_BVLC = Runtime(
    "BVLC Caffe",
    types(
        "AbsVal Accuracy ArgMax BNLL BatchNorm BatchReindex Bias Clip Concat ContrastiveLoss Convolution Crop Data "
        "Deconvolution Dropout DummyData ELU Eltwise Embed EuclideanLoss Exp Filter Flatten HDF5Data HDF5Output "
        "HingeLoss Im2col ImageData InfogainLoss InnerProduct Input LRN LSTM LSTMUnit Log MVN MemoryData "
        "MultinomialLogisticLoss PReLU Parameter Pooling Power Python RNN ReLU Reduction Reshape SPP Scale Sigmoid "
        "SigmoidCrossEntropyLoss Silence Slice Softmax SoftmaxWithLoss Split Swish TanH Threshold Tile WindowData"
    ),
    instead={
        "ReLU6": f"write Clip, or {STOCK_ACTIVATION}",
        "HardSwish": STOCK_ACTIVATION,
        "HardSigmoid": STOCK_ACTIVATION,
        "Pad": KERNEL,
        "DepthwiseConvolution": "write Convolution with group",
        "ConvolutionDepthwise": "write Convolution with group",
        "Interp": "for a squeeze-excite gate use --gate scale or deconvolution",
        **dict.fromkeys(
            ("Permute", "PriorBox", "DetectionOutput", "MultiBoxLoss", "DetectionEvaluate", "AnnotatedData"),
            "it needs the SSD branch",
        ),
    },
    fields=tuple(FieldRule(path, "error", "it does not know this field") for path in _BVLC_UNKNOWN),
)

_NCNN = Runtime(
    "ncnn (caffe2ncnn)",
    types(
        "Input MemoryData Convolution ConvolutionDepthwise DepthwiseConvolution Deconvolution Pooling InnerProduct "
        "LRN MVN BatchNorm BN Scale ReLU ReLU6 PReLU ELU Sigmoid TanH BNLL AbsVal Power Exp Log Threshold Dropout "
        "Eltwise Concat Slice Split Crop Flatten Reshape Permute Softmax Normalize PriorBox DetectionOutput Silence "
        "ShuffleChannel Interp Reorg ROIPooling PSROIPooling Embed LSTM"
    ),
    instead={
        "Clip": f"write ReLU6, which becomes its Clip, or {STOCK_ACTIVATION}",
        "HardSwish": STOCK_ACTIVATION,
        "HardSigmoid": STOCK_ACTIVATION,
        "Pad": KERNEL,
        **dict.fromkeys(TRAINING_LAYERS, TRAINING),
    },
    fields=(
        FieldRule("convolution_param.tf_pad", "error", f"it pads both sides equally; {KERNEL}"),
        FieldRule("prior_box_param.reduce_boxes", "error", "it does not know this field"),
        FieldRule(
            "detection_output_param.code_type",
            "error",
            "it decodes every box as CENTER_SIZE, which is wrong for boxes decoded before; convert with --clip late",
            value=caffe_pb2.PriorBoxParameter.CORNER,
        ),
    ),
    old_nets="error",
    net_inputs="caffe2ncnn does not read the input fields of the net itself; an Input layer tells it the size: use "
    "--input-form layer",
)

_NNIE = Runtime(
    "HiSilicon NNIE",
    types(
        "Input Convolution Deconvolution Pooling InnerProduct LRN BatchNorm Scale Bias ReLU PReLU Sigmoid TanH BNLL "
        "AbsVal Power Dropout Eltwise Concat Slice Split Crop Flatten Reshape Permute Softmax Normalize"
    ),
    instead={
        "ReLU6": f"{STOCK_ACTIVATION}; --activation relu runs too but is not exact",
        "Clip": f"{STOCK_ACTIVATION}; --activation relu runs too but is not exact",
        "HardSwish": STOCK_ACTIVATION,
        "HardSigmoid": STOCK_ACTIVATION,
        "Pad": KERNEL,
        "DepthwiseConvolution": "write Convolution with group",
        "ConvolutionDepthwise": "write Convolution with group",
        "DetectionOutput": HEADLESS,
        "PriorBox": "its boxes are constants; compute them on the CPU",
        "Interp": "for a squeeze-excite gate use --gate scale or deconvolution",
        **dict.fromkeys(TRAINING_LAYERS, TRAINING),
    },
    fields=(FieldRule("convolution_param.tf_pad", "error", f"it does not know this field; {KERNEL}"),),
    even_kernels="it is made for 3x3 kernels; use --padding slice (exact) or --padding symmetric (not exact)",
)

LIMITS: dict[str, Runtime] = {"opencv": OPENCV, "bvlc": _BVLC, "ncnn": _NCNN, "nnie": _NNIE}


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
    if runtime.all_phases:
        yield from _other_phases(net, runtime, layers)
    for index in layers:
        layer = net.layer[index]
        if layer.type not in runtime.rules:  # reported as unknown already
            continue
        if layer.type not in runtime.layers:
            hint = runtime.instead.get(layer.type)
            text = f"{runtime.title} has no layer {layer.type}" + (f"; {hint}" if hint else "")
            yield Finding("error", "runtime", text, index)
            continue
        yield from _fields(runtime, layer, index)
        if layer.type in runtime.warnings:
            yield Finding("warning", "runtime", f"{runtime.title}: {runtime.warnings[layer.type]}", index)
        if runtime.whole_slices and layer.type == "Slice" and not layer.slice_param.slice_point:
            yield from _unread(net, runtime, index)
        if runtime.even_kernels and any(size % 2 == 0 for size in layer.convolution_param.kernel_size):
            yield Finding("warning", "runtime", f"{runtime.title}: {runtime.even_kernels}", index)
        if runtime is _BVLC:
            for descriptor, _ in layer.ListFields():
                if descriptor.number > _BVLC_LAST_FIELD:
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
