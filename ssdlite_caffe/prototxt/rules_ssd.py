"""Shapes of the SSD layers and of data layers; `RULES` has these and the common ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.rule import MANY, Layer, Outcome, Rule, need_axes, unknown
from ssdlite_caffe.prototxt.rules import COMMON_RULES
from ssdlite_caffe.prototxt.rules_forks import FORK_RULES, UNSHAPED_RULES
from ssdlite_caffe.prototxt.sizes import Shape, ShapeError, check, prior_count, show

DETECTION_COLUMNS = 7
"""image, label, score, xmin, ymin, xmax, ymax."""
ANNOTATION_COLUMNS = 8
"""image, label, instance, xmin, ymin, xmax, ymax, difficult."""
EVALUATION_COLUMNS = 5
"""image, label, score, true positive, false positive."""


def _permute(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    """The axes in the given order, followed by those that it does not name."""
    bottom, order = bottoms[0], list(layer.permute_param.order)
    if len(set(order)) != len(order) or any(axis >= len(bottom) for axis in order):
        raise ShapeError(f"order must name axes of {show(bottom)}, each at most once, got {order}")
    order += [axis for axis in range(len(bottom)) if axis not in order]
    return Outcome((tuple(bottom[axis] for axis in order),))


def _normalize(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    need_axes(bottoms[0], 2, 4)
    return Outcome((bottoms[0],), ((),) if layer.norm_param.channel_shared else ((bottoms[0][1],),))


def _prior_box(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    """(1, 2, H * W * boxes * 4) for a feature map and the network input; PriorBoxLayer::Reshape."""
    param = layer.prior_box_param
    need_axes(bottoms[0], 4, 4)
    need_axes(bottoms[1], 4, 4)
    if not param.min_size:
        raise ShapeError("min_size is missing")
    if min(param.min_size) <= 0:
        raise ShapeError(f"min_size must be positive, got {min(param.min_size):g}")
    if len(param.max_size) not in (0, len(param.min_size)):
        raise ShapeError(f"{len(param.max_size)} max_size are given for {len(param.min_size)} min_size")
    if any(large <= small for small, large in zip(param.min_size, param.max_size, strict=False)):
        raise ShapeError(
            f"each max_size must be greater than its min_size, got {list(param.max_size)} and {list(param.min_size)}"
        )
    if any(ratio <= 0 for ratio in param.aspect_ratio):
        raise ShapeError(f"aspect_ratio must be positive, got {min(param.aspect_ratio):g}")
    if len(param.variance) not in (0, 1, 4) or any(value <= 0 for value in param.variance):
        numbers = ", ".join(f"{value:g}" for value in param.variance)
        raise ShapeError(f"variance must be 1 or 4 positive numbers, got {numbers}")
    if param.HasField("step") and (param.HasField("step_h") or param.HasField("step_w")):
        raise ShapeError("give step, or step_h and step_w, not both")
    for name in ("step", "step_h", "step_w", "img_size", "img_h", "img_w"):
        other = {"h": "w", "w": "h"}.get(name[-1]) if name[-2] == "_" else None
        needed = param.HasField(name) or (other is not None and param.HasField(name[:-1] + other))
        if needed and getattr(param, name) <= 0:
            raise ShapeError(f"{name} must be positive, got {getattr(param, name):g}")
    boxes = prior_count(len(param.min_size), len(param.max_size), list(param.aspect_ratio), flip=param.flip)
    return Outcome(((1, 2, math.prod(bottoms[0][2:]) * boxes * 4),))


def _match_priors(bottoms: Sequence[Shape], num_classes: int, *, share_location: bool) -> None:
    """Raise ShapeError unless loc, conf and prior boxes (the first three bottoms) have the same number of boxes."""
    loc, conf, prior = bottoms[:3]
    if num_classes < 1:
        raise ShapeError("num_classes is missing")
    if len(prior) < 3 or prior[2] % 4:
        raise ShapeError(f"the third bottom must be 1 x 2 x (4 * default boxes), got {show(prior)}")
    boxes = prior[2] // 4
    for blob, each, what in (
        (loc, 4 if share_location else 4 * num_classes, "box encodings"),
        (conf, num_classes, "scores"),
    ):
        if len(blob) < 2 or blob[0] != loc[0] or blob[1] != boxes * each:
            raise ShapeError(
                f"{boxes} default boxes need {loc[0]} x {boxes * each} {what} ({each} per box), got {show(blob)}"
            )


def _detection_output(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    """(1, 1, detections, 7); the number of detections is not known in advance, and Caffe's Reshape sets 1."""
    param = layer.detection_output_param
    _match_priors(bottoms, param.num_classes, share_location=param.share_location)
    return Outcome(((1, 1, 1, DETECTION_COLUMNS),))


def _detection_evaluate(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    """(1, 1, classes without background + detections, 5)."""
    param, (found, truth) = layer.detection_evaluate_param, bottoms
    for shape, columns in ((found, DETECTION_COLUMNS), (truth, ANNOTATION_COLUMNS)):
        need_axes(shape, 4, 4)
        if (shape[0], shape[1], shape[3]) != (1, 1, columns):
            raise ShapeError(f"the bottom must be 1 x 1 x rows x {columns}, got {show(shape)}")
    if param.num_classes < 2:
        raise ShapeError(f"num_classes must be at least 2 (it counts background), got {param.num_classes}")
    return Outcome(((1, 1, param.num_classes - 1 + found[2], EVALUATION_COLUMNS),))


def _multibox_loss(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    param = layer.multibox_loss_param
    _match_priors(bottoms, param.num_classes, share_location=param.share_location)
    need_axes(bottoms[3], 4, 4)
    if bottoms[3][3] != ANNOTATION_COLUMNS:
        raise ShapeError(f"labels must be 1 x 1 x boxes x {ANNOTATION_COLUMNS}, got {show(bottoms[3])}")
    return Outcome(((),) * len(layer.top))


def _input(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    shapes = [tuple(shape.dim) for shape in layer.input_param.shape]
    if len(shapes) not in (1, len(layer.top)):
        raise ShapeError(f"input_param has {len(shapes)} shapes for {len(layer.top)} tops")
    return Outcome(tuple(shapes * len(layer.top) if len(shapes) == 1 else shapes))


def _parameter(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    shape = tuple(layer.parameter_param.shape.dim)
    return Outcome((shape,), (shape,))


def _dummy_data(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    param, tops = layer.dummy_data_param, len(layer.top)
    shapes = [tuple(shape.dim) for shape in param.shape]
    if not shapes:
        shapes = list(zip(param.num, param.channels, param.height, param.width, strict=False))
    if len(shapes) not in (1, tops):
        raise ShapeError(f"{len(shapes)} shapes are given for {tops} tops")
    return Outcome(tuple(shapes * tops if len(shapes) == 1 else shapes))


def image_shape(param: caffe_pb2.TransformationParameter, batch: int) -> Shape | None:
    """(N, C, H, W) after the transformation, None if images keep their own size.

    Images have 3 channels unless force_gray or the count of mean_value says otherwise.

    Source: DataTransformer::InferBlobShape: a crop's size goes before a resize's.
    """
    resize = param.resize_param
    height, width = param.crop_h or param.crop_size, param.crop_w or param.crop_size
    if not (height and width) and resize.resize_mode != resize.FIT_SMALL_SIZE:
        height, width = resize.height, resize.width
    if not (batch and height and width):
        return None
    means = len(param.mean_value)
    channels = 1 if param.force_gray else means if means > 1 else 3
    return check((batch, channels, height, width))


def _records(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    """Data, with one label per image, and AnnotatedData, with one row of 8 for each box of the batch (at least one)."""
    batch = layer.data_param.batch_size
    if batch < 1:
        raise ShapeError("data_param has no batch_size")
    label = (1, 1, 1, ANNOTATION_COLUMNS) if layer.type == "AnnotatedData" else (batch,)
    return Outcome((image_shape(layer.transform_param, batch), label)[: len(layer.top)])


def _image_data(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    param = layer.image_data_param
    crop = layer.transform_param.crop_size
    height, width = crop or param.new_height, crop or param.new_width
    data = (param.batch_size, 3 if param.is_color else 1, height, width) if height and width else None
    return Outcome((data, (param.batch_size,))[: len(layer.top)])


def _memory_data(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    param = layer.memory_data_param
    return Outcome(((param.batch_size, param.channels, param.height, param.width), (param.batch_size,)))


def _video_data(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    return Outcome((image_shape(layer.transform_param, layer.data_param.batch_size),) + (None,) * (len(layer.top) - 1))


SSD_RULES: dict[str, Rule] = {
    "Permute": Rule(_permute),
    "Normalize": Rule(_normalize),
    "PriorBox": Rule(_prior_box, (2, MANY)),
    "DetectionOutput": Rule(_detection_output, (3, 4)),
    "DetectionEvaluate": Rule(_detection_evaluate, (2, 2)),
    "MultiBoxLoss": Rule(_multibox_loss, (4, 4), (0, 1)),
}

DATA_RULES: dict[str, Rule] = {
    "Input": Rule(_input, (0, 0), (1, MANY)),
    "Parameter": Rule(_parameter, (0, 0)),
    "DummyData": Rule(_dummy_data, (0, 0), (1, MANY)),
    "Data": Rule(_records, (0, 0), (1, 2)),
    "AnnotatedData": Rule(_records, (0, 0), (1, 2)),
    "ImageData": Rule(_image_data, (0, 0), (1, 2)),
    "MemoryData": Rule(_memory_data, (0, 0), (2, 2)),
    "VideoData": Rule(_video_data, (0, 0), (1, 2)),
    "HDF5Data": Rule(unknown, (0, 0), (1, MANY)),
    "WindowData": Rule(unknown, (0, 0), (2, 2)),
}

RULES: dict[str, Rule] = {**COMMON_RULES, **SSD_RULES, **DATA_RULES, **FORK_RULES, **UNSHAPED_RULES}
"""The rules of Caffe and its forks."""
