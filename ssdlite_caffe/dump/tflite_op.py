"""Settings of a graph exported for TensorFlow Lite: all of them are attributes of one op at its end.

Source: object_detection/export_tflite_ssd_graph_lib.py, `append_postprocessing_op`.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ssdlite_caffe.dump.affine import Constants
from ssdlite_caffe.dump.boxes import corners_of
from ssdlite_caffe.dump.graph import Node
from ssdlite_caffe.dump.model import Settings

TFLITE_OP = "TFLite_Detection_PostProcess"


def apply_tflite_op(constants: Constants, node: Node, settings: Settings) -> Settings:
    """Settings with what a TFLite_Detection_PostProcess node says.

    Its third input holds centres and sizes of the default boxes; its fast form suppresses over all classes together.
    """
    anchors = constants.plain.get(node.inputs[2]) if len(node.inputs) > 2 else None
    boxes = None
    if anchors is not None and anchors.ndim == 2 and anchors.shape[1] == 4:
        boxes = corners_of(*np.moveaxis(anchors, 1, 0))
    notes = () if node.attr_bool("use_regular_nms") else ("NMS over all classes together (TensorFlow Lite's fast NMS)",)
    total = node.attr_int("max_detections") or None
    return dataclasses.replace(
        settings,
        default_boxes=boxes,
        box_coder_scales=(
            node.attr_float("y_scale", 10.0),
            node.attr_float("x_scale", 10.0),
            node.attr_float("h_scale", 5.0),
            node.attr_float("w_scale", 5.0),
        ),
        iou_threshold=node.attr_float("nms_iou_threshold") or None,
        score_threshold=node.attr_float("nms_score_threshold"),
        max_per_class=node.attr_int("detections_per_class") or total,
        max_total=total,
        unsupported=(*settings.unsupported, *notes),
    )
