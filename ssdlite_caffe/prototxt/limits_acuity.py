"""VeriSilicon's Acuity, for the chips of Amlogic, Allwinner, NXP and others."""

from __future__ import annotations

from ssdlite_caffe.prototxt.runtime import (
    GROUP,
    HEADLESS,
    KERNEL,
    LINEAR_SCALE,
    NO_PRIORS,
    NO_SILENCE,
    TRAINING,
    TRAINING_LAYERS,
    FieldRule,
    Runtime,
    Source,
    types,
)

_ACTIVATION = "write it with Clip, Scale and Eltwise layers (--activation clip --linear scale)"

ACUITY = Runtime(
    "VeriSilicon Acuity",
    Source("read", "the names of layers in its Caffe reader"),
    types(
        "Input Convolution ConvolutionDepthwise Deconvolution Pooling InnerProduct LRN BatchNorm Scale ReLU Clip PReLU "
        "ELU Sigmoid TanH AbsVal Exp Log Dropout Eltwise Concat Slice Split Crop Flatten Reshape Permute Softmax "
        "Normalize PriorBox ShuffleChannel Reorg ROIPooling Proposal LSTM"
    ),
    instead={
        "ReLU6": "write Clip (--activation clip)",
        "Power": LINEAR_SCALE,
        "DetectionOutput": HEADLESS,
        "HardSwish": _ACTIVATION,
        "HardSigmoid": _ACTIVATION,
        "Pad": KERNEL,
        "Silence": NO_SILENCE,
        "DepthwiseConvolution": GROUP,
        "Interp": "for a squeeze-excite gate use --gate scale or deconvolution",
        **dict.fromkeys(TRAINING_LAYERS, TRAINING),
    },
    fields=(FieldRule("convolution_param.tf_pad", "error", f"it does not know this field; {KERNEL}"),),
    warnings={"PriorBox": f"it is not known whether it gives Caffe's boxes; {NO_PRIORS}"},
)
