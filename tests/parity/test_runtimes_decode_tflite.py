"""TensorFlow Lite's post-processing in numpy against the interpreter's own operation, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from ssdlite_caffe.dump.model import TfliteNms
from ssdlite_caffe.runtimes.decode_tflite import decode_centres, postprocess
from ssdlite_caffe.runtimes.tflite_detector import interpreter
from tests.tflite_files import postprocess_file

pytestmark = pytest.mark.tensorflow


def run_operation(codes: np.ndarray, scores: np.ndarray, anchors: np.ndarray, nms: TfliteNms) -> list[np.ndarray]:
    """TensorFlow Lite's own boxes, classes, scores and count."""
    options = {
        "max_detections": nms.max_detections, "max_classes_per_detection": nms.max_classes_per_detection,
        "detections_per_class": nms.detections_per_class, "use_regular_nms": nms.regular,
        "nms_score_threshold": nms.score_threshold, "nms_iou_threshold": nms.iou_threshold,
        "num_classes": scores.shape[1] - 1, "y_scale": 10.0, "x_scale": 10.0, "h_scale": 5.0, "w_scale": 5.0,
    }  # fmt: skip
    made = interpreter(postprocess_file(codes.shape, scores.shape[1], anchors, options))
    made.allocate_tensors()
    made.set_tensor(0, codes[None])
    made.set_tensor(1, scores[None])
    made.invoke()
    return [made.get_tensor(index) for index in (3, 4, 5, 6)]


def test_a_box_on_the_threshold_stays() -> None:
    """Two boxes that overlap by exactly the threshold: only more than it suppresses. A score on it counts."""
    anchors = np.array([[0.5, 0.5, 1, 1], [0.25, 0.5, 0.5, 1]], np.float32)
    scores = np.array([[0, 0.75], [0, 0.5]], np.float32)
    nms = TfliteNms(iou_threshold=0.5, score_threshold=0.5, max_detections=5)
    *_, number = run_operation(np.zeros((2, 4), np.float32), scores, anchors, nms)
    found = postprocess(decode_centres(np.zeros((2, 4), np.float32), anchors, (10, 10, 5, 5)), scores, nms)
    assert len(found) == int(number[0]) == 2


@pytest.mark.parametrize("seed", range(60))
def test_postprocess_is_the_operation_bit_for_bit(seed: int) -> None:
    random = np.random.default_rng(seed)
    count, classes = int(random.integers(1, 120)), int(random.integers(2, 8))
    anchors = np.concatenate([random.uniform(0, 1, (count, 2)), random.uniform(0.05, 0.6, (count, 2))], axis=1).astype(
        np.float32
    )
    codes = random.normal(0, 2, (count, 4)).astype(np.float32)
    scores = random.uniform(0, 1, (count, classes)).astype(np.float32)
    nms = TfliteNms(
        iou_threshold=float(np.float32(random.uniform(0.2, 0.8))),
        score_threshold=float(np.float32(random.choice([0, 0.3, 0.5, 0.875]))),
        max_detections=int(random.integers(1, 30)),
        max_classes_per_detection=int(random.integers(1, classes)),
        detections_per_class=int(random.integers(1, 20)),
        regular=bool(seed % 2),
    )
    if seed % 3 == 0 and nms.max_classes_per_detection == 1:
        # Ties, and scores at the threshold. Between tied classes of one box the operation's order is left open.
        scores = (np.round(scores * 8) / 8).astype(np.float32)
    boxes, found_classes, found_scores, number = run_operation(codes, scores, anchors, nms)
    found = postprocess(decode_centres(codes, anchors, (10, 10, 5, 5)), scores, nms)
    assert len(found) == int(number[0]) * (1 if nms.regular else nms.max_classes_per_detection)
    np.testing.assert_array_equal(found.boxes, boxes[0][: len(found)][:, [1, 0, 3, 2]])
    np.testing.assert_array_equal(found.scores, found_scores[0][: len(found)])
    np.testing.assert_array_equal(found.classes, found_classes[0][: len(found)].astype(int) + 1)
