"""Rockchip's rknn-toolkit2, `load_caffe`."""

from __future__ import annotations

from ssdlite_caffe.prototxt.limits_checks import no_stride
from ssdlite_caffe.prototxt.runtime import (
    CLIP_LATE,
    GROUP,
    HEADLESS,
    KERNEL,
    NO_PRIORS,
    TRAINING,
    TRAINING_LAYERS,
    FieldRule,
    Runtime,
    Source,
    types,
)

RKNN = Runtime(
    "RKNN",
    Source("run", "rknn-toolkit2 2.5.0 and its simulator; the layer types are from the names of its operations"),
    types(
        "ArgMax BN BNLL BatchNorm Clip Concat Convolution ConvolutionDepthwise Crop Deconvolution Dropout Eltwise "
        "Flatten HardSigmoid HardSwish InnerProduct Input LRN LSTM Normalize PReLU Permute Pooling Power PriorBox "
        "Proposal ROIPooling ReLU ReLU6 Reduction Reorg Reshape Resize Scale Sigmoid Silence Slice Softmax Split TanH "
        "Tile Upsample"
    ),
    instead={
        "DetectionOutput": f"it drops the layer with a printed line; {HEADLESS}",
        "Exp": CLIP_LATE,
        "Interp": "for a squeeze-excite gate use --gate scale",
        "Pad": KERNEL,
        "DepthwiseConvolution": GROUP,
        **dict.fromkeys(TRAINING_LAYERS, TRAINING),
    },
    fields=(FieldRule("convolution_param.tf_pad", "error", f"it does not know this field; {KERNEL}"),),
    checks=(no_stride("it reads a stride that is not written as 0; use --fields all"),),
    warnings={
        "Silence": "it drops the layer with a printed line",
        "PriorBox": f"it drops the layer with a printed line; {NO_PRIORS}",
    },
)
"""`--activation stock` runs, but less exactly than ReLU6 in fp16 and int8, so it is not advised here."""
