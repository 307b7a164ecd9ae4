"""Anchors of TensorFlow Lite, and what does not fit together; `tests/parity` has the interpreter's own operation."""

from __future__ import annotations

import numpy as np
import pytest

from ssdlite_caffe.dump.model import TfliteNms
from ssdlite_caffe.errors import TensorError
from ssdlite_caffe.runtimes.decode_tflite import anchors_of, clip_keeping_all, decode_centres, postprocess
from ssdlite_caffe.runtimes.detections import Detections

NMS = TfliteNms(iou_threshold=0.5, score_threshold=0.1, max_detections=3)


def test_anchors_are_centres_and_sizes() -> None:
    boxes = np.array([[0.25, 0.5, 0.75, 0.625], [-0.5, 0, 1, 0.5]], np.float32)
    found = anchors_of(boxes)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array([[0.5, 0.5625, 0.5, 0.125], [0.25, 0.25, 1.5, 0.5]], np.float32))


def test_codes_of_nothing_give_the_anchors_back() -> None:
    boxes = np.array([[0.25, 0.5, 0.75, 0.625], [-0.5, 0, 1, 0.5]], np.float32)
    found = decode_centres(np.zeros((2, 4), np.float32), anchors_of(boxes), (10.0, 10.0, 5.0, 5.0))
    np.testing.assert_array_equal(found, boxes[:, [1, 0, 3, 2]])


def test_boxes_without_area_in_the_image_stay() -> None:
    found = Detections(np.array([1, 2]), np.array([0.9, 0.8], np.float32),
                       np.array([[1.5, 0.25, 2, 0.5], [-1, 0.25, 0.5, 3]], np.float32))  # fmt: skip
    np.testing.assert_array_equal(clip_keeping_all(found).boxes, [[1, 0.25, 1, 0.5], [0, 0.25, 0.5, 1]])


def test_what_does_not_fit_is_refused() -> None:
    boxes = np.zeros((3, 4), np.float32)
    with pytest.raises(TensorError, match=r"\(2, 4\) do not fit anchors of the shape \(3, 4\)"):
        decode_centres(boxes[:2], boxes, (10.0, 10.0, 5.0, 5.0))
    for scores in (np.zeros((2, 4), np.float32), np.zeros((3, 1), np.float32)):
        with pytest.raises(TensorError, match="do not fit scores"):
            postprocess(boxes, scores, NMS)
