"""Sophgo's compiler tpu-mlir, `model_transform`."""

from __future__ import annotations

from ssdlite_caffe.prototxt.runtime import (
    CLIP_LATE,
    GROUP,
    KERNEL,
    LINEAR_SCALE,
    NO_PRIORS,
    RELU6,
    TRAINING,
    TRAINING_LAYERS,
    FieldRule,
    Runtime,
    Source,
    types,
)

_ACTIVATION = "write it with ReLU6, Scale and Eltwise layers (--activation relu6 --linear scale)"

SOPHGO = Runtime(
    "Sophgo tpu-mlir",
    Source("run", "tpu_mlir 1.30.2; the layer types are from its CaffeConverter"),
    types(
        "AbsVal ArgMax BN BatchNorm Concat Convolution ConvolutionDepthwise Crop Deconvolution DetectionOutput Dropout "
        "DummyData Eltwise Flatten ImageData InnerProduct Input Interp LRN LSTM Mish Normalize PReLU Permute Pooling "
        "PriorBox Proposal ROIPooling ReLU ReLU6 Reduction Reorg Reshape Scale ShuffleChannel Sigmoid Silence Slice "
        "Softmax TanH Upsample"
    ),
    instead={
        "Power": f"its converter names it and stops; {LINEAR_SCALE}",
        "Exp": CLIP_LATE,
        "Clip": RELU6,
        "HardSwish": _ACTIVATION,
        "HardSigmoid": _ACTIVATION,
        "Pad": KERNEL,
        "DepthwiseConvolution": GROUP,
        **{layer: TRAINING for layer in TRAINING_LAYERS if layer not in ("DummyData", "ImageData")},
    },
    fields=(FieldRule("convolution_param.tf_pad", "error", f"it does not know this field; {KERNEL}"),),
    warnings={"PriorBox": f"model_transform takes it, but model_deploy may fail with a KeyError; {NO_PRIORS}"},
)
