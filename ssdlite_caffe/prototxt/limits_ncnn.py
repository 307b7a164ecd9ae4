"""ncnn's converter of Caffe files, caffe2ncnn."""

from __future__ import annotations

from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.runtime import (
    KERNEL,
    STOCK_ACTIVATION,
    TRAINING,
    TRAINING_LAYERS,
    FieldRule,
    Runtime,
    Source,
    types,
)

NCNN = Runtime(
    "ncnn (caffe2ncnn)",
    Source("run", "caffe2ncnn of 2026-07, ncnn 1.0.20261020; the layer types are from its sources"),
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
