"""HiSilicon's compilers: ATC for SVP_NNN, and the older NNIE mapper."""

from __future__ import annotations

from ssdlite_caffe.prototxt.limits_checks import enlarged_pixel, sizes
from ssdlite_caffe.prototxt.runtime import (
    GROUP,
    HEADLESS,
    KERNEL,
    NO_PRIORS,
    NO_SILENCE,
    STOCK_ACTIVATION,
    TRAINING,
    TRAINING_LAYERS,
    FieldRule,
    Runtime,
    Source,
    types,
)

_ON_THE_CPU = f"its boxes are constants; compute them on the CPU: {NO_PRIORS}"

SVP = Runtime(
    "HiSilicon SVP_NNN",
    Source("read", "HiSilicon's ATC guide of 2025-12, for SS927 and SS928"),
    types(
        "Input Convolution ConvolutionDepthwise Deconvolution Pooling InnerProduct LRN BatchNorm Scale Bias ReLU ReLU6 "
        "Clip PReLU ELU Sigmoid TanH BNLL AbsVal Power Exp Log Dropout Eltwise Concat Slice Split Crop Flatten Reshape "
        "Permute Softmax Normalize Pad MVN Reduction ArgMax Interp Upsample ShuffleChannel LSTM Silence Swish "
        "Threshold Tile SPP Reorg PSROIPooling"
    ),
    instead={
        "DetectionOutput": f"its own one wants Softmax before it; {HEADLESS}",
        "PriorBox": _ON_THE_CPU,
        "HardSwish": STOCK_ACTIVATION,
        "HardSigmoid": STOCK_ACTIVATION,
        "DepthwiseConvolution": GROUP,
        **dict.fromkeys(TRAINING_LAYERS, TRAINING),
    },
    fields=(FieldRule("convolution_param.tf_pad", "error", f"it does not know this field; {KERNEL}"),),
    checks=(
        sizes(kernel=64, pad=15, group=2048),
        enlarged_pixel("it enlarges no map of one pixel; for a squeeze-excite gate use --gate scale"),
    ),
    warnings={"Silence": "it takes one for one of two tops of a Slice, and drops others; or use --padding exact"},
)

NNIE = Runtime(
    "HiSilicon NNIE",
    Source("read", "reports of users of its mapper"),
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
        "DepthwiseConvolution": GROUP,
        "ConvolutionDepthwise": GROUP,
        "Exp": HEADLESS,
        "Silence": NO_SILENCE,
        "DetectionOutput": HEADLESS,
        "PriorBox": _ON_THE_CPU,
        "Interp": "for a squeeze-excite gate use --gate scale or deconvolution",
        **dict.fromkeys(TRAINING_LAYERS, TRAINING),
    },
    fields=(FieldRule("convolution_param.tf_pad", "error", f"it does not know this field; {KERNEL}"),),
    even_kernels="it is made for 3x3 kernels; one of even size keeps the net exact, and only --padding symmetric, "
    "which is not exact, writes none",
)
