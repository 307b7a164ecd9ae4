"""What is read out of a TensorFlow model: named tensors, the convolutions they belong to, and the settings found.

All readers (frozen graph, checkpoint, SavedModel, a dumped folder) give a `DumpedModel`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ssdlite_caffe.arrays import FloatArray


@dataclass(frozen=True)
class ConvUnit:
    """One convolution of the graph with what follows it up to its activation.

    `tensors` maps a part to a name in `DumpedModel.tensors`. Which parts there are tells the form found:

    - weights: the kernel, HWIO, or (depthwise) HWCM;
    - moving_mean, moving_variance, and gamma, beta unless the graph has none: a BatchNorm, fused or not;
    - scale, offset: a BatchNorm of which constant folding left only x * scale + offset (float64 sums, rounded once);
    - biases: a bias, the model's own or one that folding left.

    Attributes:
        scope: variable scope: `FeatureExtractor/MobilenetV2/expanded_conv_1/expand`,
            `BoxPredictor_0/BoxEncodingPredictor_depthwise`, `.../squeeze_excite/Conv_1`.
        epsilon: the BatchNorm's, None where there is none.
        stride, dilation: (height, width); None from a checkpoint, which holds no graph.
        padding: "SAME", "VALID", or explicit zeros (top, bottom, left, right) from a Pad before a VALID convolution.
        activation: what follows; None from a checkpoint.
        gate_scale: the constant of a hard_sigmoid gate, else None.
        output: the graph's tensor after the activation (`FeatureExtractor/MobilenetV2/Conv/Relu6`), NHWC; None from a
            checkpoint.
        output_scale: `output` is this many times what the activation gives, and the kernels that read it are here
            multiplied by it.
        input: what it reads, as an expression over the scopes before it (see `wiring`); None from a checkpoint.
    """

    scope: str
    kind: Literal["conv", "depthwise"]
    tensors: dict[str, str]
    epsilon: float | None = None
    stride: tuple[int, int] | None = None
    dilation: tuple[int, int] | None = None
    padding: str | tuple[int, int, int, int] | None = None
    activation: Literal["relu6", "relu", "hard_swish", "hard_sigmoid", "none"] | None = None
    gate_scale: float | None = None
    output: str | None = None
    output_scale: float = 1.0
    input: str | None = None


@dataclass(frozen=True)
class AnchorGenerator:
    """The ssd_anchor_generator of a pipeline.config: what the default boxes are computed from.

    Fields, names and defaults are those of object_detection/protos/ssd_anchor_generator.proto, with repeated fields as
    tuples; numbers are float32 as Python floats, as the Object Detection API uses them.
    """

    num_layers: int = 6
    min_scale: float = 0.2
    max_scale: float = 0.95
    scales: tuple[float, ...] = ()
    aspect_ratios: tuple[float, ...] = ()
    interpolated_scale_aspect_ratio: float = 1.0
    reduce_boxes_in_lowest_layer: bool = True
    base_anchor_height: float = 1.0
    base_anchor_width: float = 1.0
    height_stride: tuple[int, ...] = ()
    width_stride: tuple[int, ...] = ()
    height_offset: tuple[int, ...] = ()
    width_offset: tuple[int, ...] = ()


@dataclass(frozen=True)
class TfliteNms:
    """The options of a TFLite_Detection_PostProcess operation that choose detections.

    Attributes:
        iou_threshold: a box that overlaps a better one by more is dropped.
        score_threshold: the least score of a candidate.
        max_detections: boxes in all.
        max_classes_per_detection: classes given for one box by the fast form.
        detections_per_class: boxes of one class in the regular form.
        regular: NMS for each class; False: the fast form, one NMS over all boxes by their best class.
    """

    iou_threshold: float
    score_threshold: float
    max_detections: int
    max_classes_per_detection: int = 1
    detections_per_class: int = 100
    regular: bool = False


@dataclass(frozen=True)
class Settings:
    """What the graph (or the pipeline.config beside it) says about the detector. None: nothing was found.

    Attributes:
        input_size: (height, width) of the network input.
        pixel_scale, pixel_offset: network input = pixel * pixel_scale + pixel_offset.
        num_classes: counts background.
        default_boxes: float32 (N, 4): ymin, xmin, ymax, xmax of every default box as fractions, in the order of the
            predictor's output, computed from the graph's own constants with float32 arithmetic as TensorFlow does.
        box_rounding: how far the file's number format may move a default box's centre, as a fraction of the input: 0
            but for files that store them in 16 or 8 bits.
        box_coder_scales: TensorFlow's (y, x, height, width), 10, 10, 5, 5 as a rule.
        logit_scale: class logits are multiplied by this before the score converter (1.0 as a rule).
        feature_extractor_type: from pipeline.config alone (`ssd_mobilenet_v2`), a hint.
        depth_multiplier, min_depth: from pipeline.config alone, hints.
        anchors: from pipeline.config alone; a graph has the boxes themselves.
        extra_activation: from pipeline.config alone: what follows the extra layers and the heads' depthwise part.
        explicit_padding: from pipeline.config alone: use_explicit_padding.
        clip_first: boxes are clipped to the image before suppression, not after.
        box_order, class_order: the scopes whose box codes and class logits are joined, in order; None where the graph
            does not show it.
        tflite_nms: options of the operation that a graph exported for TensorFlow Lite ends in.
        unsupported: each thing that the detector does and a Caffe net does not, as a phrase ("soft NMS (sigma 0.5)").
    """

    input_size: tuple[int, int] | None = None
    pixel_scale: float | None = None
    pixel_offset: float | None = None
    num_classes: int | None = None
    default_boxes: FloatArray | None = None
    box_rounding: float = 0.0
    box_coder_scales: tuple[float, float, float, float] | None = None
    score_converter: Literal["sigmoid", "softmax", "identity"] | None = None
    logit_scale: float | None = None
    iou_threshold: float | None = None
    score_threshold: float | None = None
    max_per_class: int | None = None
    max_total: int | None = None
    clip_first: bool | None = None
    feature_extractor_type: str | None = None
    depth_multiplier: float | None = None
    min_depth: int | None = None
    anchors: AnchorGenerator | None = None
    extra_activation: Literal["relu6", "relu", "none"] | None = None
    explicit_padding: bool | None = None
    box_order: tuple[str, ...] | None = None
    class_order: tuple[str, ...] | None = None
    tflite_nms: TfliteNms | None = None
    unsupported: tuple[str, ...] = ()


@dataclass(frozen=True)
class DumpedModel:
    """A TensorFlow detector taken apart.

    Attributes:
        source: path it was read from, as given.
        form: which reader read it.
        sha256: hash of the file (of the data shards, for a checkpoint), hex.
        tensors: name -> float32 array, C-contiguous; names are the variables' (`<scope>/weights`,
            `<scope>/depthwise_weights`, `<scope>/biases`, `<scope>/BatchNorm/gamma`, ... `<scope>/BatchNorm/scale`,
            `<scope>/BatchNorm/offset`).
        units: every convolution, in graph order (a checkpoint: sorted by scope).
        settings: see Settings.
        skipped: name -> reason, for each tensor in the source that is not part of the detector.
        arch: ArchSpec.to_dict(), from a weights folder's manifest; None from a model file.
        scoped: whether units bear the variable scopes of the Object Detection API; False for a file without dependable
            names, whose backbone is numbered (`op_12`) until `load.identify` names it.
        origins: what (`weights`, `suppression`, ...) -> where it was taken from.
        notes: what a user should know about how the model was read.
        inexact: why a net made from it cannot give the model's own detections; empty where it can.
    """

    source: str
    form: Literal["frozen graph", "checkpoint", "SavedModel", "TensorFlow Lite", "weights folder", "Keras model"]
    sha256: str
    tensors: dict[str, FloatArray]
    units: tuple[ConvUnit, ...]
    settings: Settings
    skipped: dict[str, str] = field(default_factory=dict)
    arch: dict[str, Any] | None = None
    scoped: bool = True
    origins: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    inexact: tuple[str, ...] = ()
