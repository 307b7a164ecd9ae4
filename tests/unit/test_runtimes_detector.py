"""Detecting in files, with a detector that stands for a real one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.errors import ImageError
from ssdlite_caffe.imports import import_opencv
from ssdlite_caffe.resizer import Resizer
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.detector import ImageResult, detect_with
from ssdlite_caffe.runtimes.images import Pixels
from ssdlite_caffe.runtimes.resize import window_of

pytestmark = pytest.mark.opencv


def letterboxing(image: Pixels) -> Detections:
    window_of((image.shape[0], image.shape[1]), Resizer("keep_aspect_ratio", min_dimension=9, max_dimension=9))
    return Detections(np.array([1]), np.array([0.9], np.float32), np.array([[0, 0, 1, 1]], np.float32))


def test_an_image_too_narrow_for_a_letterbox_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    cv2 = import_opencv()
    for name, shape in (("a.png", (40, 1, 3)), ("b.png", (6, 8, 3))):
        cv2.imwrite(str(tmp_path / name), np.zeros(shape, np.uint8))
    refused, found = detect_with(lambda: letterboxing, ("background", "one"), [tmp_path])
    assert isinstance(refused, ImageError)
    assert str(refused).startswith(f"{tmp_path / 'a.png'}: an image of 1x40 (width x height) is too narrow")
    assert isinstance(found, ImageResult)
    assert (found.path.name, found.height, found.width, len(found.detections)) == ("b.png", 6, 8, 1)
