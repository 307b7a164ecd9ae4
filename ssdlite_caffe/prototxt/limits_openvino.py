"""OpenVINO's Model Optimizer, `mo`; 2023.3 is its last version with a reader of Caffe files."""

from __future__ import annotations

from ssdlite_caffe.prototxt.runtime import (
    CLIP_LATE,
    GROUP,
    KERNEL,
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

OPENVINO = Runtime(
    "OpenVINO",
    Source("run", "openvino-dev 2023.3; the layer types are from the extractors in its wheel"),
    types(
        "ArgMax Axpy BN BatchNorm Bias Concat Convolution Crop Deconvolution DetectionOutput Dropout ELU Eltwise "
        "Flatten InnerProduct Input Interp LRN MVN Normalize PReLU PSROIPooling Permute Pooling Power PriorBox "
        "Proposal ROIPooling ReLU ReLU6 Reshape Scale ShuffleChannel Sigmoid Slice Softmax Split TanH"
    ),
    instead={
        "Clip": RELU6,
        "Exp": CLIP_LATE,
        "HardSwish": STOCK_ACTIVATION,
        "HardSigmoid": STOCK_ACTIVATION,
        "Pad": KERNEL,
        "Silence": NO_SILENCE,
        "ConvolutionDepthwise": GROUP,
        "DepthwiseConvolution": GROUP,
        **dict.fromkeys(TRAINING_LAYERS, TRAINING),
    },
    fields=(FieldRule("convolution_param.tf_pad", "error", f"it does not know this field; {KERNEL}"),),
)
