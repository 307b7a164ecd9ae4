"""Settings of a graph exported for TensorFlow Lite, which are attributes of its last operation.

Source: object_detection/export_tflite_ssd_graph_lib.py, `append_postprocessing_op`.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from ssdlite_caffe.dump.detector.affine import Constants
from ssdlite_caffe.dump.detector.boxes import corners_of
from ssdlite_caffe.dump.graph.view import Node
from ssdlite_caffe.dump.model import Settings, TfliteNms
from ssdlite_caffe.errors import ModelError

_ANCHORS = 2
_LEAST_COUNT, _MOST_COUNT = 1, 1 << 20


def apply_tflite_op(constants: Constants, node: Node, settings: Settings) -> Settings:
    """Settings with those of a TFLite_Detection_PostProcess node.

    Its third input has the centres and sizes of the default boxes. Its NMS options become `tflite_nms`, of which
    `suppression.choose_suppression` makes the detector's NMS.

    Raises:
        ModelError: it has no default boxes, or options that the operation itself rejects.
    """
    source = constants.graph.source
    if len(node.inputs) <= _ANCHORS:
        raise ModelError(
            f"{source}: {node.name} must have 3 inputs (box encodings, scores, anchors), got {len(node.inputs)}"
        )
    anchors = constants.plain.get(node.inputs[_ANCHORS])
    if anchors is None or anchors.ndim != 2 or anchors.shape[1] != 4 or anchors.dtype.kind != "f":
        found = "no constant" if anchors is None else f"{anchors.dtype} {anchors.shape}"
        raise ModelError(f"{source}: the anchors of {node.name} must be a constant, float (boxes, 4), got {found}")
    scales = tuple(node.attr_float(f"{axis}_scale", default) for axis, default in
                   (("y", 10.0), ("x", 10.0), ("h", 5.0), ("w", 5.0)))  # fmt: skip
    return dataclasses.replace(
        settings,
        default_boxes=corners_of(*np.moveaxis(anchors, 1, 0)),
        box_coder_scales=(scales[0], scales[1], scales[2], scales[3]),
        tflite_nms=_options(node, source),
        unsupported=(*settings.unsupported, *_background(node, settings, source)),
    )


def _options(node: Node, source: str) -> TfliteNms:
    """The NMS options of the operation; the defaults are those of `Init` in detection_postprocess.cc."""
    found = TfliteNms(
        iou_threshold=node.attr_float("nms_iou_threshold"),
        score_threshold=node.attr_float("nms_score_threshold"),
        max_detections=node.attr_int("max_detections"),
        max_classes_per_detection=node.attr_int("max_classes_per_detection", 1),
        detections_per_class=node.attr_int("detections_per_class", 100),
        regular=node.attr_bool("use_regular_nms"),
    )
    if not 0 < found.iou_threshold <= 1 or math.isnan(found.score_threshold):
        raise ModelError(
            f"{source}: {node.name} must have an nms_iou_threshold above 0 and at most 1 and a number as "
            f"nms_score_threshold, got {found.iou_threshold:g} and {found.score_threshold:g}"
        )
    for name in ("max_detections", "max_classes_per_detection", "detections_per_class"):
        if not _LEAST_COUNT <= getattr(found, name) <= _MOST_COUNT:
            raise ModelError(
                f"{source}: {name} of {node.name} must be in {_LEAST_COUNT}..{_MOST_COUNT}, got {getattr(found, name)}"
            )
    return found


def _background(node: Node, settings: Settings, source: str) -> tuple[str, ...]:
    """A phrase for `Settings.unsupported` if the class predictors have no background column.

    They have one column more than the operation has classes, or none for background.
    """
    classes = node.attr_int("num_classes")
    columns = settings.num_classes
    if not classes:
        raise ModelError(f"{source}: {node.name} has no num_classes, which it must have")
    if columns is None or classes == columns - 1:
        return ()
    if classes == columns:
        return ("a class predictor without a background column",)
    raise ModelError(
        f"{source}: {node.name} must have {columns - 1} classes, since the class predictors have {columns} with "
        f"background, got {classes}"
    )
