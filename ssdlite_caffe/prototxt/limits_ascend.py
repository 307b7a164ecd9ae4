"""Huawei's ATC for Ascend."""

from __future__ import annotations

from ssdlite_caffe.prototxt.limits_checks import in_place, priors_in_pairs, top_of_another_name
from ssdlite_caffe.prototxt.rule import Rule, unknown
from ssdlite_caffe.prototxt.rules_ssd import RULES
from ssdlite_caffe.prototxt.runtime import (
    GROUP,
    KERNEL,
    NO_SILENCE,
    STOCK_ACTIVATION,
    TRAINING,
    TRAINING_LAYERS,
    FieldRule,
    Runtime,
    Source,
    types,
)

ASCEND = Runtime(
    "Huawei Ascend",
    Source("read", "Huawei's documents of ATC, CANN 9"),
    types(
        "Input Convolution ConvolutionDepthwise Deconvolution Pooling InnerProduct LRN BatchNorm Scale Bias ReLU ReLU6 "
        "Clip PReLU ELU Sigmoid TanH BNLL AbsVal Power Exp Log Threshold Dropout Eltwise Concat Slice Split Crop "
        "Flatten Reshape Permute Softmax Normalize PriorBox MVN Reduction ArgMax Tile Interp Upsample ShuffleChannel "
        "Reorg ROIPooling PSROIPooling Proposal LSTM SSDDetectionOutput"
    ),
    instead={
        "DetectionOutput": "there it is SSDDetectionOutput with two tops; convert --target ascend writes it",
        "HardSwish": STOCK_ACTIVATION,
        "HardSigmoid": STOCK_ACTIVATION,
        "Pad": KERNEL,
        "Silence": NO_SILENCE,
        "DepthwiseConvolution": GROUP,
        **dict.fromkeys(TRAINING_LAYERS, TRAINING),
    },
    fields=(FieldRule("convolution_param.tf_pad", "error", f"it does not know this field; {KERNEL}"),),
    checks=(
        in_place("it takes no layer in place; use --names tops"),
        top_of_another_name("its documents of 2021-22 want tops with the names of their layers; use --names tops"),
        priors_in_pairs("it wants as many max_size as min_size, each greater; use --priors constant"),
    ),
    rules={**RULES, "SSDDetectionOutput": Rule(unknown, (3, 3), (2, 2))},
    own_fields=types("ssddetectionoutput_param"),
)
