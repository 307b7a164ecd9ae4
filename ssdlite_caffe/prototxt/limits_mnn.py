"""MNN's converter, `mnnconvert -f CAFFE`."""

from __future__ import annotations

from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.limits_checks import broadcast, coefficients, scale_of_two
from ssdlite_caffe.prototxt.runtime import (
    CLIP_LATE,
    GROUP,
    KERNEL,
    STOCK_ACTIVATION,
    TRAINING,
    TRAINING_LAYERS,
    FieldRule,
    Runtime,
    Source,
    types,
)

MNN = Runtime(
    "MNN",
    Source("run", "MNN 3.6; the layer types are from its converter's sources"),
    types(
        "AbsVal ArgMax BatchNorm Bias Clip Concat Convolution ConvolutionDepthwise Crop Deconvolution DetectionOutput "
        "Dropout ELU Eltwise Embed Exp Flatten InnerProduct Input Interp LRN LSTM Log MVN Normalize PReLU Permute "
        "Pooling Power PriorBox Proposal ROIPooling ReLU ReLU6 Reduction Reshape Resize Scale ShuffleChannel Sigmoid "
        "Silence Slice Softmax Split TanH Threshold Tile Upsample"
    ),
    instead={
        "HardSwish": STOCK_ACTIVATION,
        "HardSigmoid": STOCK_ACTIVATION,
        "Pad": KERNEL,
        "DepthwiseConvolution": GROUP,
        **dict.fromkeys(TRAINING_LAYERS, TRAINING),
    },
    fields=(
        FieldRule("convolution_param.tf_pad", "error", f"it does not know this field; {KERNEL}"),
        FieldRule(
            "detection_output_param.code_type",
            "error",
            f"it ignores code_type and decodes every box as CENTER_SIZE; {CLIP_LATE}",
            value=caffe_pb2.PriorBoxParameter.CORNER,
        ),
    ),
    checks=(
        scale_of_two("its converter wants weights in every Scale layer; use --gate deconvolution or interp"),
        broadcast("it converts this and computes something else; use --gate deconvolution or interp"),
        coefficients("it ignores the factors of a sum; use --coefficients power, or --clip late"),
    ),
    warnings={"Silence": "it drops the layer, so what a Slice cuts off becomes an output of the net"},
)
