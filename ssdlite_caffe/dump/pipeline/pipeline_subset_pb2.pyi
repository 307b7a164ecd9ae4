from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ResizeType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BILINEAR: _ClassVar[ResizeType]
    NEAREST_NEIGHBOR: _ClassVar[ResizeType]
    BICUBIC: _ClassVar[ResizeType]
    AREA: _ClassVar[ResizeType]
BILINEAR: ResizeType
NEAREST_NEIGHBOR: ResizeType
BICUBIC: ResizeType
AREA: ResizeType

class FixedShapeResizer(_message.Message):
    __slots__ = ("height", "width", "resize_method", "convert_to_grayscale")
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    RESIZE_METHOD_FIELD_NUMBER: _ClassVar[int]
    CONVERT_TO_GRAYSCALE_FIELD_NUMBER: _ClassVar[int]
    height: int
    width: int
    resize_method: ResizeType
    convert_to_grayscale: bool
    def __init__(self, height: _Optional[int] = ..., width: _Optional[int] = ..., resize_method: _Optional[_Union[ResizeType, str]] = ..., convert_to_grayscale: bool = ...) -> None: ...

class KeepAspectRatioResizer(_message.Message):
    __slots__ = ("min_dimension", "max_dimension", "resize_method", "pad_to_max_dimension", "convert_to_grayscale", "per_channel_pad_value")
    MIN_DIMENSION_FIELD_NUMBER: _ClassVar[int]
    MAX_DIMENSION_FIELD_NUMBER: _ClassVar[int]
    RESIZE_METHOD_FIELD_NUMBER: _ClassVar[int]
    PAD_TO_MAX_DIMENSION_FIELD_NUMBER: _ClassVar[int]
    CONVERT_TO_GRAYSCALE_FIELD_NUMBER: _ClassVar[int]
    PER_CHANNEL_PAD_VALUE_FIELD_NUMBER: _ClassVar[int]
    min_dimension: int
    max_dimension: int
    resize_method: ResizeType
    pad_to_max_dimension: bool
    convert_to_grayscale: bool
    per_channel_pad_value: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, min_dimension: _Optional[int] = ..., max_dimension: _Optional[int] = ..., resize_method: _Optional[_Union[ResizeType, str]] = ..., pad_to_max_dimension: bool = ..., convert_to_grayscale: bool = ..., per_channel_pad_value: _Optional[_Iterable[float]] = ...) -> None: ...

class IdentityResizer(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ConditionalShapeResizer(_message.Message):
    __slots__ = ("condition", "size_threshold")
    class ResizeCondition(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        INVALID: _ClassVar[ConditionalShapeResizer.ResizeCondition]
        GREATER: _ClassVar[ConditionalShapeResizer.ResizeCondition]
        SMALLER: _ClassVar[ConditionalShapeResizer.ResizeCondition]
    INVALID: ConditionalShapeResizer.ResizeCondition
    GREATER: ConditionalShapeResizer.ResizeCondition
    SMALLER: ConditionalShapeResizer.ResizeCondition
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    SIZE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    condition: ConditionalShapeResizer.ResizeCondition
    size_threshold: int
    def __init__(self, condition: _Optional[_Union[ConditionalShapeResizer.ResizeCondition, str]] = ..., size_threshold: _Optional[int] = ...) -> None: ...

class PadToMultipleResizer(_message.Message):
    __slots__ = ("multiple",)
    MULTIPLE_FIELD_NUMBER: _ClassVar[int]
    multiple: int
    def __init__(self, multiple: _Optional[int] = ...) -> None: ...

class ImageResizer(_message.Message):
    __slots__ = ("keep_aspect_ratio_resizer", "fixed_shape_resizer", "identity_resizer", "conditional_shape_resizer", "pad_to_multiple_resizer")
    KEEP_ASPECT_RATIO_RESIZER_FIELD_NUMBER: _ClassVar[int]
    FIXED_SHAPE_RESIZER_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_RESIZER_FIELD_NUMBER: _ClassVar[int]
    CONDITIONAL_SHAPE_RESIZER_FIELD_NUMBER: _ClassVar[int]
    PAD_TO_MULTIPLE_RESIZER_FIELD_NUMBER: _ClassVar[int]
    keep_aspect_ratio_resizer: KeepAspectRatioResizer
    fixed_shape_resizer: FixedShapeResizer
    identity_resizer: IdentityResizer
    conditional_shape_resizer: ConditionalShapeResizer
    pad_to_multiple_resizer: PadToMultipleResizer
    def __init__(self, keep_aspect_ratio_resizer: _Optional[_Union[KeepAspectRatioResizer, _Mapping]] = ..., fixed_shape_resizer: _Optional[_Union[FixedShapeResizer, _Mapping]] = ..., identity_resizer: _Optional[_Union[IdentityResizer, _Mapping]] = ..., conditional_shape_resizer: _Optional[_Union[ConditionalShapeResizer, _Mapping]] = ..., pad_to_multiple_resizer: _Optional[_Union[PadToMultipleResizer, _Mapping]] = ...) -> None: ...

class SsdFeatureExtractor(_message.Message):
    __slots__ = ("type", "depth_multiplier", "min_depth", "conv_hyperparams", "pad_to_multiple", "use_explicit_padding", "use_depthwise", "override_base_feature_extractor_hyperparams", "num_layers")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    DEPTH_MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
    MIN_DEPTH_FIELD_NUMBER: _ClassVar[int]
    CONV_HYPERPARAMS_FIELD_NUMBER: _ClassVar[int]
    PAD_TO_MULTIPLE_FIELD_NUMBER: _ClassVar[int]
    USE_EXPLICIT_PADDING_FIELD_NUMBER: _ClassVar[int]
    USE_DEPTHWISE_FIELD_NUMBER: _ClassVar[int]
    OVERRIDE_BASE_FEATURE_EXTRACTOR_HYPERPARAMS_FIELD_NUMBER: _ClassVar[int]
    NUM_LAYERS_FIELD_NUMBER: _ClassVar[int]
    type: str
    depth_multiplier: float
    min_depth: int
    conv_hyperparams: Hyperparams
    pad_to_multiple: int
    use_explicit_padding: bool
    use_depthwise: bool
    override_base_feature_extractor_hyperparams: bool
    num_layers: int
    def __init__(self, type: _Optional[str] = ..., depth_multiplier: _Optional[float] = ..., min_depth: _Optional[int] = ..., conv_hyperparams: _Optional[_Union[Hyperparams, _Mapping]] = ..., pad_to_multiple: _Optional[int] = ..., use_explicit_padding: bool = ..., use_depthwise: bool = ..., override_base_feature_extractor_hyperparams: bool = ..., num_layers: _Optional[int] = ...) -> None: ...

class Hyperparams(_message.Message):
    __slots__ = ("activation", "batch_norm")
    class Activation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        NONE: _ClassVar[Hyperparams.Activation]
        RELU: _ClassVar[Hyperparams.Activation]
        RELU_6: _ClassVar[Hyperparams.Activation]
        SWISH: _ClassVar[Hyperparams.Activation]
    NONE: Hyperparams.Activation
    RELU: Hyperparams.Activation
    RELU_6: Hyperparams.Activation
    SWISH: Hyperparams.Activation
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    BATCH_NORM_FIELD_NUMBER: _ClassVar[int]
    activation: Hyperparams.Activation
    batch_norm: BatchNorm
    def __init__(self, activation: _Optional[_Union[Hyperparams.Activation, str]] = ..., batch_norm: _Optional[_Union[BatchNorm, _Mapping]] = ...) -> None: ...

class BatchNorm(_message.Message):
    __slots__ = ("epsilon",)
    EPSILON_FIELD_NUMBER: _ClassVar[int]
    epsilon: float
    def __init__(self, epsilon: _Optional[float] = ...) -> None: ...

class FasterRcnnBoxCoder(_message.Message):
    __slots__ = ("y_scale", "x_scale", "height_scale", "width_scale")
    Y_SCALE_FIELD_NUMBER: _ClassVar[int]
    X_SCALE_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_SCALE_FIELD_NUMBER: _ClassVar[int]
    WIDTH_SCALE_FIELD_NUMBER: _ClassVar[int]
    y_scale: float
    x_scale: float
    height_scale: float
    width_scale: float
    def __init__(self, y_scale: _Optional[float] = ..., x_scale: _Optional[float] = ..., height_scale: _Optional[float] = ..., width_scale: _Optional[float] = ...) -> None: ...

class OtherBoxCoder(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class BoxCoder(_message.Message):
    __slots__ = ("faster_rcnn_box_coder", "mean_stddev_box_coder", "square_box_coder", "keypoint_box_coder")
    FASTER_RCNN_BOX_CODER_FIELD_NUMBER: _ClassVar[int]
    MEAN_STDDEV_BOX_CODER_FIELD_NUMBER: _ClassVar[int]
    SQUARE_BOX_CODER_FIELD_NUMBER: _ClassVar[int]
    KEYPOINT_BOX_CODER_FIELD_NUMBER: _ClassVar[int]
    faster_rcnn_box_coder: FasterRcnnBoxCoder
    mean_stddev_box_coder: OtherBoxCoder
    square_box_coder: OtherBoxCoder
    keypoint_box_coder: OtherBoxCoder
    def __init__(self, faster_rcnn_box_coder: _Optional[_Union[FasterRcnnBoxCoder, _Mapping]] = ..., mean_stddev_box_coder: _Optional[_Union[OtherBoxCoder, _Mapping]] = ..., square_box_coder: _Optional[_Union[OtherBoxCoder, _Mapping]] = ..., keypoint_box_coder: _Optional[_Union[OtherBoxCoder, _Mapping]] = ...) -> None: ...

class SsdAnchorGenerator(_message.Message):
    __slots__ = ("num_layers", "min_scale", "max_scale", "aspect_ratios", "reduce_boxes_in_lowest_layer", "base_anchor_height", "base_anchor_width", "height_stride", "width_stride", "height_offset", "width_offset", "scales", "interpolated_scale_aspect_ratio")
    NUM_LAYERS_FIELD_NUMBER: _ClassVar[int]
    MIN_SCALE_FIELD_NUMBER: _ClassVar[int]
    MAX_SCALE_FIELD_NUMBER: _ClassVar[int]
    ASPECT_RATIOS_FIELD_NUMBER: _ClassVar[int]
    REDUCE_BOXES_IN_LOWEST_LAYER_FIELD_NUMBER: _ClassVar[int]
    BASE_ANCHOR_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    BASE_ANCHOR_WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_STRIDE_FIELD_NUMBER: _ClassVar[int]
    WIDTH_STRIDE_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    WIDTH_OFFSET_FIELD_NUMBER: _ClassVar[int]
    SCALES_FIELD_NUMBER: _ClassVar[int]
    INTERPOLATED_SCALE_ASPECT_RATIO_FIELD_NUMBER: _ClassVar[int]
    num_layers: int
    min_scale: float
    max_scale: float
    aspect_ratios: _containers.RepeatedScalarFieldContainer[float]
    reduce_boxes_in_lowest_layer: bool
    base_anchor_height: float
    base_anchor_width: float
    height_stride: _containers.RepeatedScalarFieldContainer[int]
    width_stride: _containers.RepeatedScalarFieldContainer[int]
    height_offset: _containers.RepeatedScalarFieldContainer[int]
    width_offset: _containers.RepeatedScalarFieldContainer[int]
    scales: _containers.RepeatedScalarFieldContainer[float]
    interpolated_scale_aspect_ratio: float
    def __init__(self, num_layers: _Optional[int] = ..., min_scale: _Optional[float] = ..., max_scale: _Optional[float] = ..., aspect_ratios: _Optional[_Iterable[float]] = ..., reduce_boxes_in_lowest_layer: bool = ..., base_anchor_height: _Optional[float] = ..., base_anchor_width: _Optional[float] = ..., height_stride: _Optional[_Iterable[int]] = ..., width_stride: _Optional[_Iterable[int]] = ..., height_offset: _Optional[_Iterable[int]] = ..., width_offset: _Optional[_Iterable[int]] = ..., scales: _Optional[_Iterable[float]] = ..., interpolated_scale_aspect_ratio: _Optional[float] = ...) -> None: ...

class OtherAnchorGenerator(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AnchorGenerator(_message.Message):
    __slots__ = ("grid_anchor_generator", "ssd_anchor_generator", "multiscale_anchor_generator", "flexible_grid_anchor_generator")
    GRID_ANCHOR_GENERATOR_FIELD_NUMBER: _ClassVar[int]
    SSD_ANCHOR_GENERATOR_FIELD_NUMBER: _ClassVar[int]
    MULTISCALE_ANCHOR_GENERATOR_FIELD_NUMBER: _ClassVar[int]
    FLEXIBLE_GRID_ANCHOR_GENERATOR_FIELD_NUMBER: _ClassVar[int]
    grid_anchor_generator: OtherAnchorGenerator
    ssd_anchor_generator: SsdAnchorGenerator
    multiscale_anchor_generator: OtherAnchorGenerator
    flexible_grid_anchor_generator: OtherAnchorGenerator
    def __init__(self, grid_anchor_generator: _Optional[_Union[OtherAnchorGenerator, _Mapping]] = ..., ssd_anchor_generator: _Optional[_Union[SsdAnchorGenerator, _Mapping]] = ..., multiscale_anchor_generator: _Optional[_Union[OtherAnchorGenerator, _Mapping]] = ..., flexible_grid_anchor_generator: _Optional[_Union[OtherAnchorGenerator, _Mapping]] = ...) -> None: ...

class BoxEncodingsClipRange(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ConvolutionalBoxPredictor(_message.Message):
    __slots__ = ("conv_hyperparams", "num_layers_before_predictor", "kernel_size", "box_code_size", "apply_sigmoid_to_scores", "use_depthwise", "box_encodings_clip_range")
    CONV_HYPERPARAMS_FIELD_NUMBER: _ClassVar[int]
    NUM_LAYERS_BEFORE_PREDICTOR_FIELD_NUMBER: _ClassVar[int]
    KERNEL_SIZE_FIELD_NUMBER: _ClassVar[int]
    BOX_CODE_SIZE_FIELD_NUMBER: _ClassVar[int]
    APPLY_SIGMOID_TO_SCORES_FIELD_NUMBER: _ClassVar[int]
    USE_DEPTHWISE_FIELD_NUMBER: _ClassVar[int]
    BOX_ENCODINGS_CLIP_RANGE_FIELD_NUMBER: _ClassVar[int]
    conv_hyperparams: Hyperparams
    num_layers_before_predictor: int
    kernel_size: int
    box_code_size: int
    apply_sigmoid_to_scores: bool
    use_depthwise: bool
    box_encodings_clip_range: BoxEncodingsClipRange
    def __init__(self, conv_hyperparams: _Optional[_Union[Hyperparams, _Mapping]] = ..., num_layers_before_predictor: _Optional[int] = ..., kernel_size: _Optional[int] = ..., box_code_size: _Optional[int] = ..., apply_sigmoid_to_scores: bool = ..., use_depthwise: bool = ..., box_encodings_clip_range: _Optional[_Union[BoxEncodingsClipRange, _Mapping]] = ...) -> None: ...

class OtherBoxPredictor(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class BoxPredictor(_message.Message):
    __slots__ = ("convolutional_box_predictor", "weight_shared_convolutional_box_predictor")
    CONVOLUTIONAL_BOX_PREDICTOR_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_SHARED_CONVOLUTIONAL_BOX_PREDICTOR_FIELD_NUMBER: _ClassVar[int]
    convolutional_box_predictor: ConvolutionalBoxPredictor
    weight_shared_convolutional_box_predictor: OtherBoxPredictor
    def __init__(self, convolutional_box_predictor: _Optional[_Union[ConvolutionalBoxPredictor, _Mapping]] = ..., weight_shared_convolutional_box_predictor: _Optional[_Union[OtherBoxPredictor, _Mapping]] = ...) -> None: ...

class BatchNonMaxSuppression(_message.Message):
    __slots__ = ("score_threshold", "iou_threshold", "max_detections_per_class", "max_total_detections", "use_static_shapes", "use_class_agnostic_nms", "soft_nms_sigma")
    SCORE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    IOU_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    MAX_DETECTIONS_PER_CLASS_FIELD_NUMBER: _ClassVar[int]
    MAX_TOTAL_DETECTIONS_FIELD_NUMBER: _ClassVar[int]
    USE_STATIC_SHAPES_FIELD_NUMBER: _ClassVar[int]
    USE_CLASS_AGNOSTIC_NMS_FIELD_NUMBER: _ClassVar[int]
    SOFT_NMS_SIGMA_FIELD_NUMBER: _ClassVar[int]
    score_threshold: float
    iou_threshold: float
    max_detections_per_class: int
    max_total_detections: int
    use_static_shapes: bool
    use_class_agnostic_nms: bool
    soft_nms_sigma: float
    def __init__(self, score_threshold: _Optional[float] = ..., iou_threshold: _Optional[float] = ..., max_detections_per_class: _Optional[int] = ..., max_total_detections: _Optional[int] = ..., use_static_shapes: bool = ..., use_class_agnostic_nms: bool = ..., soft_nms_sigma: _Optional[float] = ...) -> None: ...

class PostProcessing(_message.Message):
    __slots__ = ("batch_non_max_suppression", "score_converter", "logit_scale")
    class ScoreConverter(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        IDENTITY: _ClassVar[PostProcessing.ScoreConverter]
        SIGMOID: _ClassVar[PostProcessing.ScoreConverter]
        SOFTMAX: _ClassVar[PostProcessing.ScoreConverter]
    IDENTITY: PostProcessing.ScoreConverter
    SIGMOID: PostProcessing.ScoreConverter
    SOFTMAX: PostProcessing.ScoreConverter
    BATCH_NON_MAX_SUPPRESSION_FIELD_NUMBER: _ClassVar[int]
    SCORE_CONVERTER_FIELD_NUMBER: _ClassVar[int]
    LOGIT_SCALE_FIELD_NUMBER: _ClassVar[int]
    batch_non_max_suppression: BatchNonMaxSuppression
    score_converter: PostProcessing.ScoreConverter
    logit_scale: float
    def __init__(self, batch_non_max_suppression: _Optional[_Union[BatchNonMaxSuppression, _Mapping]] = ..., score_converter: _Optional[_Union[PostProcessing.ScoreConverter, str]] = ..., logit_scale: _Optional[float] = ...) -> None: ...

class Ssd(_message.Message):
    __slots__ = ("num_classes", "image_resizer", "feature_extractor", "box_coder", "box_predictor", "anchor_generator", "post_processing", "encode_background_as_zeros", "add_background_class")
    NUM_CLASSES_FIELD_NUMBER: _ClassVar[int]
    IMAGE_RESIZER_FIELD_NUMBER: _ClassVar[int]
    FEATURE_EXTRACTOR_FIELD_NUMBER: _ClassVar[int]
    BOX_CODER_FIELD_NUMBER: _ClassVar[int]
    BOX_PREDICTOR_FIELD_NUMBER: _ClassVar[int]
    ANCHOR_GENERATOR_FIELD_NUMBER: _ClassVar[int]
    POST_PROCESSING_FIELD_NUMBER: _ClassVar[int]
    ENCODE_BACKGROUND_AS_ZEROS_FIELD_NUMBER: _ClassVar[int]
    ADD_BACKGROUND_CLASS_FIELD_NUMBER: _ClassVar[int]
    num_classes: int
    image_resizer: ImageResizer
    feature_extractor: SsdFeatureExtractor
    box_coder: BoxCoder
    box_predictor: BoxPredictor
    anchor_generator: AnchorGenerator
    post_processing: PostProcessing
    encode_background_as_zeros: bool
    add_background_class: bool
    def __init__(self, num_classes: _Optional[int] = ..., image_resizer: _Optional[_Union[ImageResizer, _Mapping]] = ..., feature_extractor: _Optional[_Union[SsdFeatureExtractor, _Mapping]] = ..., box_coder: _Optional[_Union[BoxCoder, _Mapping]] = ..., box_predictor: _Optional[_Union[BoxPredictor, _Mapping]] = ..., anchor_generator: _Optional[_Union[AnchorGenerator, _Mapping]] = ..., post_processing: _Optional[_Union[PostProcessing, _Mapping]] = ..., encode_background_as_zeros: bool = ..., add_background_class: bool = ...) -> None: ...

class OtherModel(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DetectionModel(_message.Message):
    __slots__ = ("faster_rcnn", "ssd", "center_net")
    FASTER_RCNN_FIELD_NUMBER: _ClassVar[int]
    SSD_FIELD_NUMBER: _ClassVar[int]
    CENTER_NET_FIELD_NUMBER: _ClassVar[int]
    faster_rcnn: OtherModel
    ssd: Ssd
    center_net: OtherModel
    def __init__(self, faster_rcnn: _Optional[_Union[OtherModel, _Mapping]] = ..., ssd: _Optional[_Union[Ssd, _Mapping]] = ..., center_net: _Optional[_Union[OtherModel, _Mapping]] = ...) -> None: ...

class EvalConfig(_message.Message):
    __slots__ = ("use_moving_averages",)
    USE_MOVING_AVERAGES_FIELD_NUMBER: _ClassVar[int]
    use_moving_averages: bool
    def __init__(self, use_moving_averages: bool = ...) -> None: ...

class TrainEvalPipelineConfig(_message.Message):
    __slots__ = ("model", "eval_config")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EVAL_CONFIG_FIELD_NUMBER: _ClassVar[int]
    model: DetectionModel
    eval_config: EvalConfig
    def __init__(self, model: _Optional[_Union[DetectionModel, _Mapping]] = ..., eval_config: _Optional[_Union[EvalConfig, _Mapping]] = ...) -> None: ...
