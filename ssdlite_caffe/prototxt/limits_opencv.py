"""What OpenCV DNN 4.x does with a prototxt, tried out layer by layer and field by field."""

from __future__ import annotations

from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.rules_opencv import ALL_OPENCV_RULES, OPENCV_RULES
from ssdlite_caffe.prototxt.runtime import (
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

_NEEDS = {
    "DetectionOutput": (
        "num_classes", "share_location", "background_label_id", "nms_param.nms_threshold", "keep_top_k", "code_type",
    ),
    "PriorBox": ("variance",),
    "ConvolutionDepthwise": ("num_output",),
}  # fmt: skip
_PARAM_OF = {
    "DetectionOutput": "detection_output_param",
    "PriorBox": "prior_box_param",
    "ConvolutionDepthwise": "convolution_param",
}
_FAILS = "its importer fails on this field"
_UNKNOWN = (
    "convolution_param.width_group", "convolution_param.height_group", "prior_box_param.reduce_boxes",
)  # fmt: skip
_STOCHASTIC = caffe_pb2.PoolingParameter.STOCHASTIC
_NORMALIZES = (
    "batch_norm_param.weight_filler", "batch_norm_param.bias_filler", "batch_norm_param.use_alpha_beta",
    "batch_norm_param.do_all_reduce",
)  # fmt: skip
_CORNER_SIZE = caffe_pb2.PriorBoxParameter.CORNER_SIZE

OPENCV = Runtime(
    "OpenCV DNN",
    Source("run", "OpenCV 4.8 to 4.14, layer by layer and field by field"),
    types(
        "Input Convolution ConvolutionDepthwise Deconvolution Pooling InnerProduct LRN MVN BatchNorm Scale ReLU ReLU6 "
        "PReLU ELU Sigmoid TanH HardSwish HardSigmoid Swish Mish BNLL AbsVal Power Exp Log Dropout Eltwise Axpy Concat "
        "Slice Split Crop Flatten Reshape Permute Softmax Normalize PriorBox DetectionOutput Silence ShuffleChannel "
        "Interp Reorg Proposal PSROIPooling ROIPooling"
    )
    | OPENCV_RULES.keys(),
    instead={
        "Clip": f"write ReLU6, or {STOCK_ACTIVATION}",
        "Pad": KERNEL,
        "DepthwiseConvolution": GROUP,
        "Bias": "write Scale with bias_term",
        "Upsample": "write Interp or Deconvolution",
        **dict.fromkeys(TRAINING_LAYERS, TRAINING),
    },
    fields=(
        FieldRule("convolution_param.tf_pad", "error", f"{_FAILS}; {KERNEL}"),
        FieldRule("pooling_param.round_mode", "error", f"{_FAILS}; write ceil_mode"),
        FieldRule("pooling_param.pool", "error", "it has no STOCHASTIC pooling", value=_STOCHASTIC),
        FieldRule("reshape_param.num_axes", "error", "it cannot insert axes", value=0),
        *(FieldRule(path, "error", _FAILS) for path in _UNKNOWN),
        *(FieldRule(path, "error", "with this field it takes each image's own statistics") for path in _NORMALIZES),
        FieldRule("detection_output_param.code_type", "error", "it does not know CORNER_SIZE", value=_CORNER_SIZE),
        FieldRule("prior_box_param.clip", "warning", "its default is true, Caffe's is false", True, "PriorBox"),
        *(
            FieldRule(f"{_PARAM_OF[layer]}.{name}", "error", "it has no default for this field", True, layer)
            for layer, names in _NEEDS.items()
            for name in names
        ),
    ),
    warnings={
        "Axpy": "it computes bottom 1 + bottom 0 x bottom 2, and Caffe's forks bottom 0 x bottom 1 + bottom 2",
    },
    rules=ALL_OPENCV_RULES,
    harmless=types("in-place"),
    skips=types(
        "NetParameter LayerParameter NetStateRule ParamSpec FillerParameter ScaleParameter InnerProductParameter "
        "LRNParameter EltwiseParameter ConcatParameter SliceParameter PermuteParameter NormalizeParameter "
        "DropoutParameter ReLUParameter PReLUParameter FlattenParameter ReshapeParameter SoftmaxParameter MVNParameter "
        "ELUParameter PowerParameter CropParameter ExpParameter LogParameter SigmoidParameter TanHParameter "
        "SwishParameter ReLU6Parameter HardSigmoidParameter ShuffleChannelParameter InterpParameter ReorgParameter "
        "DetectionOutputParameter"
    ),
    all_phases=True,
    whole_slices=True,
)
