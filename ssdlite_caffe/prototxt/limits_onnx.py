"""caffe2onnx, which makes an ONNX model of Caffe files."""

from __future__ import annotations

from ssdlite_caffe.prototxt.limits_checks import product
from ssdlite_caffe.prototxt.runtime import (
    GROUP,
    HEADLESS,
    KERNEL,
    NO_PRIORS,
    NO_SILENCE,
    RELU6,
    STOCK_ACTIVATION,
    TRAINING,
    TRAINING_LAYERS,
    FieldRule,
    Runtime,
    Source,
    types,
)

ONNX = Runtime(
    "ONNX (caffe2onnx)",
    Source("run", "caffe2onnx 2.0.1 with onnxruntime; the layer types are from its sources"),
    types(
        "Axpy BN BatchNorm Concat Convolution ConvolutionDepthwise Crop Deconvolution Dropout Eltwise Flatten "
        "InnerProduct Input Interp LRN Log MVN Normalize PReLU Permute Pooling Power ReLU ReLU6 Reshape Scale "
        "ShuffleChannel Sigmoid Slice Softmax TanH Upsample"
    ),
    instead={
        "PriorBox": f"it writes an operation that ONNX does not have; {NO_PRIORS}",
        "DetectionOutput": f"it writes an operation that ONNX does not have; {HEADLESS}",
        "Exp": HEADLESS,
        "Clip": RELU6,
        "HardSwish": STOCK_ACTIVATION,
        "HardSigmoid": STOCK_ACTIVATION,
        "Pad": KERNEL,
        "Silence": NO_SILENCE,
        "DepthwiseConvolution": GROUP,
        **dict.fromkeys(TRAINING_LAYERS, TRAINING),
    },
    fields=(FieldRule("convolution_param.tf_pad", "error", f"it does not know this field; {KERNEL}"),),
    checks=(product("it fails on every product of blobs; only headless nets of V1 and V2 have none"),),
)
