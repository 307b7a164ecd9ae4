"""Settings of a graph exported for TensorFlow Lite: all of them are attributes of one op at its end.

Source: object_detection/export_tflite_ssd_graph_lib.py, `append_postprocessing_op`.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from ssdlite_caffe.dump.affine import Constants
from ssdlite_caffe.dump.boxes import corners_of
from ssdlite_caffe.dump.graph import Node
from ssdlite_caffe.dump.model import Settings, TfliteNms
from ssdlite_caffe.errors import ModelError

_ANCHORS = 2
_LEAST_COUNT, _MOST_COUNT = 1, 1 << 20


def apply_tflite_op(constants: Constants, node: Node, settings: Settings) -> Settings:
    """Settings with what a TFLite_Detection_PostProcess node says.

    Its third input holds centres and sizes of the default boxes. How it suppresses is left to
    `suppression.choose_suppression`: its fast form is a shortcut of the runtime and not the model's own NMS.

    Raises:
        ModelError: it has no default boxes, or options that the operation itself refuses.
    """
    source = constants.graph.source
    if len(node.inputs) <= _ANCHORS:
        raise ModelError(
            f"{source}: {node.name} has {len(node.inputs)} inputs where it takes 3; its default boxes (anchors) are "
            "missing"
        )
    anchors = constants.plain.get(node.inputs[_ANCHORS])
    if anchors is None or anchors.ndim != 2 or anchors.shape[1] != 4 or anchors.dtype.kind != "f":
        found = "not constant" if anchors is None else f"of the shape {anchors.shape} and type {anchors.dtype}"
        raise ModelError(f"{source}: the anchors of {node.name} are {found}; they are float (boxes, 4)")
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
    """The options of the operation; the defaults are those of `Init` in detection_postprocess.cc."""
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
            f"{source}: {node.name} suppresses above an overlap of {found.iou_threshold:g} (0 to 1) from a score of "
            f"{found.score_threshold:g} on"
        )
    for name in ("max_detections", "max_classes_per_detection", "detections_per_class"):
        if not _LEAST_COUNT <= getattr(found, name) <= _MOST_COUNT:
            raise ModelError(
                f"{source}: {node.name} has {name} {getattr(found, name)}; it is {_LEAST_COUNT} to {_MOST_COUNT}"
            )
    return found


def _background(node: Node, settings: Settings, source: str) -> tuple[str, ...]:
    """The operation takes the columns beyond its class count for background: one column, or none."""
    classes = node.attr_int("num_classes")
    columns = settings.num_classes
    if not classes:
        raise ModelError(f"{source}: {node.name} does not say its class count (num_classes)")
    if columns is None or classes == columns - 1:
        return ()
    if classes == columns:
        return ("a class predictor without a background column",)
    raise ModelError(
        f"{source}: {node.name} is of {classes} classes, the class predictors are of {columns} with background"
    )
