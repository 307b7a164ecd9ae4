"""Settings of a detector from its pipeline.config, which a checkpoint has in place of a graph."""

from __future__ import annotations

import codecs
import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ssdlite_caffe.dump.model import AnchorGenerator, Settings
from ssdlite_caffe.dump.pipeline.resizer import read_resizer, resizer_text
from ssdlite_caffe.errors import ModelError

if TYPE_CHECKING:
    from ssdlite_caffe.dump.pipeline import pipeline_subset_pb2 as pb

MAX_BYTES = 1 << 22
_TWICE = re.compile(r'(?:should not have multiple|is specified along with field) "(?:[\w.]*\.)?(\w+)"')
"""protobuf's words for a second field of one name, or of one oneof."""
SLIM_EPSILON = float(np.float32(1e-3))
"""BatchNorm epsilon of a backbone without override_base_feature_extractor_hyperparams: slim's default."""


@dataclass(frozen=True)
class Pipeline:
    """The content of a pipeline.config.

    Attributes:
        settings: see Settings.
        backbone_epsilon, extra_epsilon, head_epsilon: BatchNorm epsilons, float32 as Python floats.
        moving_averages: whether detectors are exported with the moving averages of their variables.
        nms_unsupported: the phrases of `settings.unsupported` that are about NMS.
        twice: a sentence on the first field that is given twice; empty if none is.
        refused_resizer: the image_resizer, if images cannot be resized so here; empty if they can.
    """

    settings: Settings
    backbone_epsilon: float
    extra_epsilon: float
    head_epsilon: float
    moving_averages: bool
    nms_unsupported: tuple[str, ...] = ()
    twice: str = ""
    refused_resizer: str = ""


def settings_from_pipeline(path: Path) -> Settings:
    """The settings part of `read_pipeline`."""
    return read_pipeline(path).settings


def read_pipeline(path: Path) -> Pipeline:
    """Read a pipeline.config of the Object Detection API.

    Raises:
        ModelError: the file cannot be read, is not a pipeline.config, or is of another kind of detector.
    """
    config, twice = _parsed(_text_of(path), path)
    if config.model.WhichOneof("model") != "ssd":
        kind = config.model.WhichOneof("model")
        found = f"describes a {kind} model" if kind else "has no model { ssd { ... } }"
        raise ModelError(f"{path} {found}; only SSD detectors are read")
    return dataclasses.replace(_pipeline(config, config.model.ssd, path), twice=twice)


def _text_of(path: Path) -> str:
    """The text of a file, with or without a byte-order mark."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelError(f"{path} is larger than {MAX_BYTES >> 20} MiB, the most that is read as a pipeline.config")
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and len(data) % 2 == 0
        found = "it is UTF-16 text; save it as UTF-8" if wide else "it is not UTF-8 text"
        raise ModelError(f"{path} is not a pipeline.config: {found}") from error


def _parsed(text: str, path: Path) -> tuple[pb.TrainEvalPipelineConfig, str]:
    """The message, and a sentence if a field is given twice, which the OD API's reader (text_format.Merge) allows."""
    from google.protobuf import text_format

    from ssdlite_caffe.dump.pipeline import pipeline_subset_pb2 as messages

    twice = ""
    for parse in (text_format.Parse, text_format.Merge):
        config = messages.TrainEvalPipelineConfig()
        try:
            parse(text, config, allow_unknown_extension=True, allow_unknown_field=True)
            break
        except (text_format.ParseError, RecursionError) as error:
            reason = " ".join(str(error).split())
            again = _TWICE.search(reason)
            if again is None or parse is text_format.Merge:
                raise ModelError(f"{path} is not a pipeline.config: {reason}") from error
            line = reason.partition(":")[0]
            twice = (
                f"{path}:{line}: {again.group(1)} is given again; as for TensorFlow, blocks are joined and the last "
                "value counts"
            )
    return config, twice


def _pipeline(config: pb.TrainEvalPipelineConfig, ssd: pb.Ssd, path: Path) -> Pipeline:
    extractor, predictor = ssd.feature_extractor, ssd.box_predictor.convolutional_box_predictor
    overridden = extractor.override_base_feature_extractor_hyperparams
    extra = extractor.conv_hyperparams.batch_norm.epsilon
    resizer = read_resizer(ssd.image_resizer)
    settings = Settings(
        input_size=resizer.input_size,
        resizer=resizer.resizer,
        num_classes=_num_classes(ssd, path),
        score_converter=_converter(ssd.post_processing.score_converter),
        logit_scale=ssd.post_processing.logit_scale,
        feature_extractor_type=extractor.type or None,
        depth_multiplier=extractor.depth_multiplier,
        min_depth=extractor.min_depth,
        anchors=_anchors(ssd.anchor_generator),
        extra_activation=_activation(extractor.conv_hyperparams.activation),
        explicit_padding=extractor.use_explicit_padding,
        unsupported=_unsupported(ssd),
    )
    return Pipeline(
        settings=_with_post_processing(settings, ssd),
        backbone_epsilon=extra if overridden else SLIM_EPSILON,
        extra_epsilon=extra,
        head_epsilon=predictor.conv_hyperparams.batch_norm.epsilon,
        moving_averages=config.eval_config.use_moving_averages,
        nms_unsupported=_nms_unsupported(ssd),
        refused_resizer=resizer.refused,
    )


def _with_post_processing(settings: Settings, ssd: pb.Ssd) -> Settings:
    nms = ssd.post_processing.batch_non_max_suppression
    coder = ssd.box_coder.faster_rcnn_box_coder
    scales = (coder.y_scale, coder.x_scale, coder.height_scale, coder.width_scale)
    return dataclasses.replace(
        settings,
        box_coder_scales=scales if ssd.box_coder.WhichOneof("box_coder_oneof") == "faster_rcnn_box_coder" else None,
        iou_threshold=nms.iou_threshold,
        score_threshold=nms.score_threshold,
        max_per_class=nms.max_detections_per_class,
        max_total=nms.max_total_detections,
    )


def _num_classes(ssd: pb.Ssd, path: Path) -> int:
    if ssd.num_classes < 1:
        raise ModelError(f"{path}: num_classes must be at least 1, got {ssd.num_classes}")
    return ssd.num_classes + 1


def _converter(value: int) -> Literal["sigmoid", "softmax", "identity"]:
    kinds: dict[int, Literal["sigmoid", "softmax", "identity"]] = {1: "sigmoid", 2: "softmax"}
    return kinds.get(value, "identity")


def _activation(value: int) -> Literal["relu6", "relu", "none"] | None:
    kinds: dict[int, Literal["relu6", "relu", "none"]] = {0: "none", 1: "relu", 2: "relu6"}
    return kinds.get(value)


def _anchors(generator: pb.AnchorGenerator) -> AnchorGenerator | None:
    if generator.WhichOneof("anchor_generator_oneof") != "ssd_anchor_generator":
        return None
    ssd = generator.ssd_anchor_generator
    return AnchorGenerator(
        num_layers=ssd.num_layers,
        min_scale=ssd.min_scale,
        max_scale=ssd.max_scale,
        scales=tuple(ssd.scales),
        aspect_ratios=tuple(ssd.aspect_ratios),
        interpolated_scale_aspect_ratio=ssd.interpolated_scale_aspect_ratio,
        reduce_boxes_in_lowest_layer=ssd.reduce_boxes_in_lowest_layer,
        base_anchor_height=ssd.base_anchor_height,
        base_anchor_width=ssd.base_anchor_width,
        height_stride=tuple(ssd.height_stride),
        width_stride=tuple(ssd.width_stride),
        height_offset=tuple(ssd.height_offset),
        width_offset=tuple(ssd.width_offset),
    )


def _unsupported(ssd: pb.Ssd) -> tuple[str, ...]:
    predictor = ssd.box_predictor
    convolutional = predictor.convolutional_box_predictor
    coder = ssd.box_coder.WhichOneof("box_coder_oneof")
    anchors = ssd.anchor_generator.WhichOneof("anchor_generator_oneof")
    problems = {
        "a class predictor without a background column": not ssd.add_background_class,
        f"the box coder {coder}": coder not in (None, "faster_rcnn_box_coder"),
        f"the anchor generator {anchors}": anchors not in (None, "ssd_anchor_generator"),
        "predictors shared by the feature maps": predictor.HasField("weight_shared_convolutional_box_predictor"),
        f"boxes of {convolutional.box_code_size} numbers": convolutional.box_code_size != 4,
        "clipped box encodings": convolutional.HasField("box_encodings_clip_range"),
        "a sigmoid in the class predictor": convolutional.apply_sigmoid_to_scores,
        "an input padded to a multiple": ssd.feature_extractor.pad_to_multiple != 1,
    }
    return (*_nms_unsupported(ssd), *(problem for problem, present in problems.items() if present))


def _nms_unsupported(ssd: pb.Ssd) -> tuple[str, ...]:
    nms = ssd.post_processing.batch_non_max_suppression
    problems = {
        "NMS over all classes together": nms.use_class_agnostic_nms,
        f"soft NMS (sigma {nms.soft_nms_sigma:g})": nms.soft_nms_sigma != 0,
    }
    return tuple(problem for problem, present in problems.items() if present)


def fill_gaps(settings: Settings, pipeline: Settings, *, source: str, config: str) -> Settings:
    """A model's settings, with those that it does not have taken from its pipeline.config.

    Raises:
        ModelError: the class count or the input size differs.
    """
    pairs = [
        ("classes with background", settings.num_classes, pipeline.num_classes),
        ("the input size", _text(settings.input_size), _text(pipeline.input_size)),
    ]
    for what, model_says, config_says in pairs:
        if model_says is not None and config_says is not None and model_says != config_says:
            raise ModelError(
                f"{source} and {config} contradict each other: {what} {model_says} in the model, {config_says} in the "
                "pipeline.config; give the pipeline.config that the model was exported with"
            )
    kept = ("default_boxes", "unsupported")
    names = [field.name for field in dataclasses.fields(Settings) if field.name not in kept]
    gaps = {name: getattr(pipeline, name) for name in names if getattr(settings, name) is None}
    return dataclasses.replace(settings, **gaps)


def contradictions(settings: Settings, pipeline: Settings) -> list[str]:
    """Settings that differ between a model and its pipeline.config, as phrases.

    The model's own value comes first: "score threshold 0.3, not 1e-08".
    """
    pairs: list[tuple[str, object, object]] = [
        ("classes with background", settings.num_classes, pipeline.num_classes),
        ("input size", _text(settings.input_size), _text(pipeline.input_size)),
        ("resizer", resizer_text(settings.resizer), resizer_text(pipeline.resizer)),
        ("score converter", settings.score_converter, pipeline.score_converter),
        ("IoU threshold", settings.iou_threshold, pipeline.iou_threshold),
        ("score threshold", settings.score_threshold, pipeline.score_threshold),
        ("detections per class", settings.max_per_class, pipeline.max_per_class),
        ("detections in total", settings.max_total, pipeline.max_total),
        ("box-coder scales", _numbers(settings.box_coder_scales), _numbers(pipeline.box_coder_scales)),
    ]
    return [
        f"{what} {_short(one)}, not {_short(other)}"
        for what, one, other in pairs
        if one is not None and other is not None and _short(one) != _short(other)
    ]


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _numbers(values: tuple[float, ...] | None) -> str | None:
    return None if values is None else ", ".join(f"{value:g}" for value in values)


def _text(size: tuple[int, int] | None) -> str | None:
    return None if size is None else f"{size[0]}x{size[1]}"
