"""A frozen graph exported once more, for TensorFlow Lite: as export_tflite_ssd_graph.py of the OD API does it.

The graph then takes `normalized_input_image_tensor`, and ends in TFLite_Detection_PostProcess or, without it, in
`raw_outputs/box_encodings` and `raw_outputs/class_predictions`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.dump.detector.raw_outputs import RAW_OUTPUTS, TFLITE_OP
from ssdlite_caffe.dump.model import TfliteNms
from ssdlite_caffe.dump.read import read_model
from ssdlite_caffe.imports import import_tensorflow
from ssdlite_caffe.runtimes.decode_tflite import anchors_of
from ssdlite_caffe.runtimes.tensorflow_detector import TensorFlowDetector

INPUT = "normalized_input_image_tensor"
Numbers = Literal["float32", "float16", "dynamic", "int8"]
FAST = TfliteNms(iou_threshold=0.6, score_threshold=1e-8, max_detections=10)


def exported_graph(frozen: Path, nms: TfliteNms | None = FAST) -> bytes:
    """The graph of an ordinary frozen graph; `nms` None leaves the operation out."""
    tf = import_tensorflow()
    settings = read_model(frozen).settings
    assert settings.default_boxes is not None
    assert settings.input_size is not None
    with TensorFlowDetector(frozen) as detector:
        stem = detector.network_input
    definition = tf.compat.v1.GraphDef.FromString(frozen.read_bytes())
    with tf.Graph().as_default() as graph:
        placeholder = tf.compat.v1.placeholder(tf.float32, [1, *settings.input_size, 3], name=INPUT)
        tf.graph_util.import_graph_def(definition, input_map={stem: placeholder}, name="")
        codes = graph.get_operation_by_name("Postprocessor/Decode/transpose").inputs[0]
        scores = graph.get_operation_by_name("Postprocessor/convert_scores").outputs[0]
        count = len(settings.default_boxes)
        for tensor, name, columns in zip((codes, scores), RAW_OUTPUTS, (4, settings.num_classes), strict=True):
            tf.identity(tf.reshape(tensor, [1, count, columns]), name=name)
        tf.constant(anchors_of(settings.default_boxes), name="anchors")
        ends = [*RAW_OUTPUTS, *(["anchors"] if nms else [])]
        made = tf.compat.v1.graph_util.extract_sub_graph(graph.as_graph_def(), ends)
    if nms is not None:
        node = made.node.add(name=TFLITE_OP, op=TFLITE_OP, input=ends)
        floats = {"nms_iou_threshold": nms.iou_threshold, "nms_score_threshold": nms.score_threshold}
        floats |= dict(zip(("y_scale", "x_scale", "h_scale", "w_scale"), (10.0, 10.0, 5.0, 5.0), strict=True))
        for key, value in floats.items():
            node.attr[key].f = value
        wholes = {
            "num_classes": settings.num_classes - 1 if settings.num_classes else 0,
            "max_detections": nms.max_detections,
            "max_classes_per_detection": nms.max_classes_per_detection,
            "detections_per_class": nms.detections_per_class,
        }
        for key, count in wholes.items():
            node.attr[key].i = count
        node.attr["use_regular_nms"].b = nms.regular
        node.attr["_output_quantized"].b = True
        node.attr["_output_types"].list.type.extend([1, 1, 1, 1])
    return bytes(made.SerializeToString())


def tflite_of(
    graph: bytes,
    size: tuple[int, int],
    numbers: Numbers = "float32",
    *,
    operation: bool = True,
    pixels: tuple[float, float] | None = None,
) -> bytes:
    """A TensorFlow Lite file of an exported graph; `pixels`, mean and deviation, makes one that reads uint8."""
    tf = import_tensorflow()
    outputs = [TFLITE_OP, *(f"{TFLITE_OP}:{port}" for port in (1, 2, 3))] if operation else list(RAW_OUTPUTS)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.pb"
        path.write_bytes(graph)
        converter = tf.compat.v1.lite.TFLiteConverter.from_frozen_graph(
            str(path), [INPUT], outputs, input_shapes={INPUT: [1, *size, 3]}
        )
        converter.allow_custom_ops = True
        if numbers != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if numbers == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if pixels is not None:
            converter.inference_input_type = tf.uint8
            converter.quantized_input_stats = {INPUT: pixels}
        if numbers == "int8":
            converter.representative_dataset = _calibration(size)
        return bytes(converter.convert())


def _calibration(size: tuple[int, int]) -> Callable[[], Iterator[list[npt.NDArray[Any]]]]:
    def inputs() -> Iterator[list[npt.NDArray[Any]]]:
        random = np.random.default_rng(0)
        for _ in range(4):
            yield [random.uniform(-1, 1, (1, *size, 3)).astype(np.float32)]

    return inputs
