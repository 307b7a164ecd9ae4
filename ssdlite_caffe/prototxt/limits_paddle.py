"""X2Paddle, which makes a Paddle model of Caffe files."""

from __future__ import annotations

from ssdlite_caffe.prototxt.limits_checks import scale_of_two
from ssdlite_caffe.prototxt.rules_opencv import ALL_OPENCV_RULES
from ssdlite_caffe.prototxt.rules_ssd import RULES
from ssdlite_caffe.prototxt.runtime import (
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

PADDLE = Runtime(
    "Paddle (X2Paddle)",
    Source("run", "x2paddle 1.6 with paddle 2.6.2; the layer types are from its mapper"),
    types(
        "AbsVal ArgMax BatchNorm Concat Convolution ConvolutionDepthwise Crop Deconvolution DepthwiseConvolution "
        "Dropout Eltwise Flatten InnerProduct Input LRN MemoryData Normalize PReLU Permute Pooling Power ReLU ReLU6 "
        "Reduction Reshape ROIPooling Scale ShuffleChannel Sigmoid Slice Softmax TanH Upsample"
    ),
    instead={
        "PriorBox": f"its run fails in this layer; {NO_PRIORS}",
        "DetectionOutput": HEADLESS,
        "Exp": HEADLESS,
        "Clip": RELU6,
        "HardSwish": STOCK_ACTIVATION,
        "HardSigmoid": STOCK_ACTIVATION,
        "Pad": KERNEL,
        "Silence": NO_SILENCE,
        "Interp": "for a squeeze-excite gate use --gate eltwise",
        **dict.fromkeys(TRAINING_LAYERS, TRAINING),
    },
    fields=(FieldRule("convolution_param.tf_pad", "error", f"it does not know this field; {KERNEL}"),),
    checks=(scale_of_two("it wants weights in every Scale layer; use --gate eltwise"),),
    rules={**RULES, "Eltwise": ALL_OPENCV_RULES["Eltwise"]},
)
