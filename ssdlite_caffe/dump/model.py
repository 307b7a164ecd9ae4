"""The result of reading a model: named tensors, the convolutions they belong to, and settings.

All readers (frozen graph, checkpoint, SavedModel, TensorFlow Lite, state_dict of PyTorch, folder of dumped weights)
return a `DumpedModel`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.resizer import Resizer


@dataclass(frozen=True)
class ConvUnit:
    """One convolution of the graph, with its BatchNorm or bias and its activation.

    `tensors` maps a part to a name in `DumpedModel.tensors`. The parts depend on the form that was found:

    - weights: the kernel, HWIO, or (depthwise) HWCM;
    - moving_mean, moving_variance, and gamma, beta unless the graph has none: a BatchNorm, fused or not;
    - scale, offset: a BatchNorm that constant folding has turned into x * scale + offset (computed in float64, rounded
      once);
    - biases: a bias, the model's own or the result of folding.

    Attributes:
        scope: variable scope: `FeatureExtractor/MobilenetV2/expanded_conv_1/expand`,
            `BoxPredictor_0/BoxEncodingPredictor_depthwise`, `.../squeeze_excite/Conv_1`.
        epsilon: the BatchNorm's, None if there is none.
        stride, dilation: (height, width); None from a checkpoint, which has no graph.
        padding: "SAME", "VALID", or explicit zeros (top, bottom, left, right) from a Pad before a VALID convolution;
            None from a checkpoint.
        activation: the activation after it; None from a checkpoint.
        gate_scale: the constant of a hard_sigmoid gate, else None.
        output: the graph's tensor after the activation (`FeatureExtractor/MobilenetV2/Conv/Relu6`), NHWC; None from a
            checkpoint.
        output_scale: `output` is the activation's result times this. The kernels that read it are multiplied by it in
            `DumpedModel.tensors`.
        input: its input as an expression over the scopes before it (see `wiring`); None from a checkpoint.
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
    """The ssd_anchor_generator of a pipeline.config, from which default boxes are computed.

    Fields and defaults are those of object_detection/protos/ssd_anchor_generator.proto, with repeated fields as tuples
    and float32 values as Python floats, as the Object Detection API uses them.
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
class PyramidAnchors:
    """The multiscale_anchor_generator of a pipeline.config; names are those of its proto."""

    min_level: int = 3
    max_level: int = 7
    anchor_scale: float = 4.0
    aspect_ratios: tuple[float, ...] = ()
    scales_per_octave: int = 2


@dataclass(frozen=True)
class TfliteNms:
    """NMS options of a TFLite_Detection_PostProcess operation.

    Attributes:
        iou_threshold: a box is dropped if it overlaps a better one by more.
        score_threshold: least score of a candidate.
        max_detections: most boxes of an image.
        max_classes_per_detection: most classes of a box in the fast form.
        detections_per_class: most boxes of a class in the regular form.
        regular: True: NMS for each class. False: the fast form, one NMS over all boxes by their best class.
    """

    iou_threshold: float
    score_threshold: float
    max_detections: int
    max_classes_per_detection: int = 1
    detections_per_class: int = 100
    regular: bool = False


@dataclass(frozen=True)
class Settings:
    """The detector's settings, from the graph or the pipeline.config beside it. None: not found.

    Attributes:
        input_size: (height, width) of the network input.
        resizer: how images are resized to it.
        pixel_scale, pixel_offset: network input = pixel * pixel_scale + pixel_offset.
        num_classes: counts background.
        default_boxes: float32 (N, 4): ymin, xmin, ymax, xmax of every default box as fractions, in the order of the
            predictors' output, computed from the graph's constants in float32 as TensorFlow does.
        box_rounding: how far the file's number format may have moved a default box's centre, as a fraction of the
            input; 0 unless the file stores boxes in 16 or 8 bits.
        box_coder_scales: TensorFlow's (y, x, height, width), usually 10, 10, 5, 5.
        score_converter: how class logits become scores.
        logit_scale: class logits are multiplied by this before the score converter, usually 1.0.
        iou_threshold, score_threshold, max_per_class, max_total: see `gen_model.arch.Nms`.
        clip_first: whether boxes are clipped to the image before suppression, not after.
        max_candidates: how many of each class, the best, take part in suppression; None: all.
        keeps_empty: whether boxes that clipping leaves without area count in the limits, see `gen_model.arch.Nms`.
        code_limit: see `gen_model.arch.ArchSpec`.
        feature_extractor_type: only from a pipeline.config (`ssd_mobilenet_v2`); for a note if it does not match.
        depth_multiplier, min_depth: only from a pipeline.config; tried first when the width is searched for.
        anchors, pyramid_anchors: only from a pipeline.config, one of the two; a graph has the boxes themselves.
        extra_activation: only from a pipeline.config: activation of the extra layers and of the heads' depthwise part.
        explicit_padding: only from a pipeline.config: use_explicit_padding.
        box_order, class_order: the scopes whose box encodings and class logits are joined, in order; None if the graph
            does not show it.
        tflite_nms: options of the last operation of a graph exported for TensorFlow Lite.
        unsupported: what the detector does and a Caffe net cannot do, as phrases ("soft NMS (sigma 0.5)").
    """

    input_size: tuple[int, int] | None = None
    resizer: Resizer | None = None
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
    max_candidates: int | None = None
    keeps_empty: bool = False
    code_limit: float | None = None
    feature_extractor_type: str | None = None
    depth_multiplier: float | None = None
    min_depth: int | None = None
    anchors: AnchorGenerator | None = None
    pyramid_anchors: PyramidAnchors | None = None
    extra_activation: Literal["relu6", "relu", "none"] | None = None
    explicit_padding: bool | None = None
    box_order: tuple[str, ...] | None = None
    class_order: tuple[str, ...] | None = None
    tflite_nms: TfliteNms | None = None
    unsupported: tuple[str, ...] = ()


@dataclass(frozen=True)
class DumpedModel:
    """A detector as the readers return it.

    Attributes:
        source: the path that it was read from, as given.
        form: the kind of file.
        sha256: hash of the file (of a checkpoint: of its data shards), hex.
        tensors: name -> float32 array, C-contiguous; names are the file's, those of variables (`<scope>/weights`,
            `<scope>/depthwise_weights`, `<scope>/biases`, `<scope>/BatchNorm/gamma`, ... `<scope>/BatchNorm/scale`,
            `<scope>/BatchNorm/offset`) or of a state_dict (`backbone.features.0.0.0.weight`).
        units: every convolution, in graph order (of a checkpoint: sorted by scope).
        settings: see Settings.
        skipped: name -> reason, for each tensor of the file that is not part of the detector.
        arch: ArchSpec.to_dict(), from a weights folder's manifest; None from a model file.
        scoped: whether units have the variable scopes of the Object Detection API. False for a file with unreliable
            names, whose backbone is numbered (`op_12`) until `load.identify` names it.
        origins: what (`weights`, `suppression`, ...) -> the file that it is from.
        constants: numbers with which the model computes and which float32 only comes near, such as 1/6 where it divides
            by 6; a net holds them rounded.
        notes: sentences for the user about how the model was read.
        inexact: reasons why a net made from it gives other detections than the model; empty if there are none.
    """

    source: str
    form: Literal[
        "frozen graph", "checkpoint", "SavedModel", "TensorFlow Lite", "state_dict", "weights folder", "Keras model"
    ]  # fmt: skip
    sha256: str
    tensors: dict[str, FloatArray]
    units: tuple[ConvUnit, ...]
    settings: Settings
    skipped: dict[str, str] = field(default_factory=dict)
    arch: dict[str, Any] | None = None
    scoped: bool = True
    origins: dict[str, str] = field(default_factory=dict)
    constants: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()
    inexact: tuple[str, ...] = ()
