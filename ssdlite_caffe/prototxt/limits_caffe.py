"""BVLC Caffe, and its SSD forks that have ReLU6."""

from __future__ import annotations

from ssdlite_caffe.prototxt.runtime import GROUP, KERNEL, STOCK_ACTIVATION, FieldRule, Runtime, Source, types

_BVLC_UNKNOWN = (
    "transform_param.resize_param", "transform_param.noise_param", "transform_param.emit_constraint",
    "transform_param.crop_h", "transform_param.crop_w", "transform_param.distort_param", "transform_param.expand_param",
    "convolution_param.tf_pad", "convolution_param.width_group", "convolution_param.height_group",
    "pooling_param.ceil_mode", "batch_norm_param.weight_filler", "batch_norm_param.bias_filler",
    "batch_norm_param.use_alpha_beta", "batch_norm_param.do_all_reduce", "dropout_param.scale_train",
)  # fmt: skip
_OF_BVLC = types(
    "AbsVal Accuracy ArgMax BNLL BatchNorm BatchReindex Bias Clip Concat ContrastiveLoss Convolution Crop Data "
    "Deconvolution Dropout DummyData ELU Eltwise Embed EuclideanLoss Exp Filter Flatten HDF5Data HDF5Output "
    "HingeLoss Im2col ImageData InfogainLoss InnerProduct Input LRN LSTM LSTMUnit Log MVN MemoryData "
    "MultinomialLogisticLoss PReLU Parameter Pooling Power Python RNN ReLU Reduction Reshape SPP Scale Sigmoid "
    "SigmoidCrossEntropyLoss Silence Slice Softmax SoftmaxWithLoss Split Swish TanH Threshold Tile WindowData"
)
_SOME_HAVE = "many SSD forks do not have it"

BVLC = Runtime(
    "BVLC Caffe",
    Source("read", "the layer registry and caffe.proto of its master"),
    _OF_BVLC,
    instead={
        "ReLU6": f"write Clip, or {STOCK_ACTIVATION}",
        "HardSwish": STOCK_ACTIVATION,
        "HardSigmoid": STOCK_ACTIVATION,
        "Pad": KERNEL,
        "DepthwiseConvolution": GROUP,
        "ConvolutionDepthwise": GROUP,
        "Interp": "for a squeeze-excite gate use --gate scale or deconvolution",
        **dict.fromkeys(
            ("Permute", "PriorBox", "DetectionOutput", "MultiBoxLoss", "DetectionEvaluate", "AnnotatedData"),
            "it needs the SSD branch",
        ),
    },
    fields=tuple(FieldRule(path, "error", "it does not know this field") for path in _BVLC_UNKNOWN),
    last_field=148,  # clip_param
)

CAFFE_SSD = Runtime(
    "Caffe SSD fork",
    Source("run", "the fork that `caffe build` builds"),
    (_OF_BVLC - {"Swish"})
    | types(
        "AnnotatedData VideoData Permute Normalize PriorBox DetectionOutput MultiBoxLoss DetectionEvaluate "
        "SmoothL1Loss ReLU6 HardSwish HardSigmoid Pad ConvolutionDepthwise DepthwiseConvolution"
    ),
    instead={
        "Interp": "for a squeeze-excite gate use --gate scale or deconvolution",
        "Swish": "write it with Sigmoid and Eltwise layers",
    },
    fields=(
        FieldRule("convolution_param.tf_pad", "warning", f"{_SOME_HAVE}; {KERNEL}"),
        FieldRule("prior_box_param.reduce_boxes", "warning", _SOME_HAVE),
        FieldRule("prior_box_param.clip", "warning", "its default is true in some forks", True, "PriorBox"),
    ),
    warnings={
        "Clip": f"{_SOME_HAVE}; write ReLU6, or {STOCK_ACTIVATION}",
        "Pad": f"{_SOME_HAVE}; {KERNEL}",
        "HardSwish": f"{_SOME_HAVE}; {STOCK_ACTIVATION}",
        "HardSigmoid": f"{_SOME_HAVE}; {STOCK_ACTIVATION}",
        "ConvolutionDepthwise": f"{_SOME_HAVE}; {GROUP}",
        "DepthwiseConvolution": f"{_SOME_HAVE}; {GROUP}",
    },
)
