"""TensorFlow Lite's post-processing operation for SSD, as a TensorFlow function that the converter recognises.

Source: TFLite_Detection_PostProcess in tensorflow/lite/kernels/detection_postprocess.cc, built into the interpreter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.dump.detector.raw_outputs import TFLITE_OP
from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.gen_model.default_boxes import tf_default_boxes
from ssdlite_caffe.imports import import_keras
from ssdlite_caffe.keras.names import POSTPROCESSOR


def postprocessing(arch: ArchSpec, *, exact: bool) -> Callable[[Any, Any], dict[str, Any]]:
    """The function from raw outputs to detections.

    Args:
        arch: the detector.
        exact: clip boxes where the detector does; otherwise boxes are not clipped, since in a quantised model the
            clipping would round them to 8 bits.

    Returns:
        (box_encodings, class_predictions_with_background) -> detection_boxes, detection_classes (from 0, background not
        counted, as in TensorFlow Lite), detection_scores, num_detections; for one image.
    """
    _, tf = import_keras()
    anchors = centred_boxes(arch)
    clip_first = exact and arch.nms.clip_first
    scales = (1.0, 1.0, 1.0, 1.0) if clip_first else tuple(1 / v for v in arch.variances)
    if clip_first:
        anchors = np.tile(np.asarray([0.5, 0.5, 1.0, 1.0], np.float32), (len(anchors), 1))
    convert = tf.nn.sigmoid if arch.score_converter == "sigmoid" else tf.nn.softmax
    count = arch.nms.max_total

    def shapes(encodings: Any, scores: Any, boxes: Any) -> Any:
        """Stands for the operation, by which the converter replaces it; only the shapes of its results count."""
        return tf.zeros((1, count, 4)), tf.zeros((1, count)), tf.zeros((1, count)), tf.zeros((1,))

    operation = tf.function(shapes, experimental_implements=_signature(arch, scales))

    def ended(encodings: Any, logits: Any) -> dict[str, Any]:
        scores = convert(logits)
        if clip_first:
            encodings, scores = _clipped_encodings(arch, encodings, logits)
        boxes, classes, best, found = operation(encodings, scores, tf.constant(anchors))
        if exact:
            boxes = tf.maximum(tf.minimum(boxes, 1.0), 0.0)
        return {
            "detection_boxes": boxes,
            "detection_classes": classes,
            "detection_scores": best,
            "num_detections": found,
        }

    return ended


def centred_boxes(arch: ArchSpec) -> npt.NDArray[np.float32]:
    """Default boxes (N, 4): centre y, centre x, height, width."""
    corners = tf_default_boxes(build(arch))
    low, high = corners[:, :2], corners[:, 2:]
    return np.concatenate([(low + high) / 2, high - low], axis=1).astype(np.float32)


def _clipped_encodings(arch: ArchSpec, encodings: Any, logits: Any) -> tuple[Any, Any]:
    """Encodings of the clipped boxes, with the whole image as default box, and scores.

    A box without area in the image, which the operation would refuse, is replaced by the whole image with a score of
    -1, which is below any threshold.
    """
    _, tf = import_keras()
    from ssdlite_caffe.keras.layers import Decode, clip_to_image, has_area

    decoded = Decode(arch.to_dict(), name=POSTPROCESSOR)(
        {"box_encodings": encodings, "class_predictions_with_background": logits}
    )
    boxes = clip_to_image(decoded["boxes"])
    inside = has_area(boxes)[..., None]
    ymin, xmin, ymax, xmax = tf.unstack(tf.where(inside, boxes, tf.constant([0.0, 0.0, 1.0, 1.0])), 4, axis=-1)
    centres = [(ymin + ymax) * 0.5 - 0.5, (xmin + xmax) * 0.5 - 0.5]
    sizes = [tf.math.log(ymax - ymin), tf.math.log(xmax - xmin)]
    return tf.stack([*centres, *sizes], axis=-1), tf.where(inside, decoded["scores"], -1.0)


def _signature(arch: ArchSpec, scales: tuple[float, ...]) -> str:
    nms = arch.nms
    y, x, height, width = (scales[1], scales[0], scales[3], scales[2])
    attributes: dict[str, int | float | bool] = {
        "max_detections": nms.max_total,
        "max_classes_per_detection": 1,
        "use_regular_nms": True,
        "nms_score_threshold": float(nms.score_threshold),
        "nms_iou_threshold": float(nms.iou_threshold),
        "y_scale": y,
        "x_scale": x,
        "h_scale": height,
        "w_scale": width,
        "num_classes": arch.num_classes - 1,
    }
    return f'name: "{TFLITE_OP}" ' + " ".join(
        f'attr {{ key: "{key}" value {{ {_value(value)} }} }}' for key, value in attributes.items()
    )


def _value(value: float | bool) -> str:
    if isinstance(value, bool):
        return f"b: {str(value).lower()}"
    return f"i: {value}" if isinstance(value, int) else f"f: {value!r}"
