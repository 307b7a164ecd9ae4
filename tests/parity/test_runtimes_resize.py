"""Our resize against TensorFlow's, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from ssdlite_caffe.imports import import_tensorflow
from ssdlite_caffe.runtimes.resize import resize_bilinear_legacy

pytestmark = pytest.mark.tensorflow

CASES = [
    ((480, 640), (300, 300)),
    ((37, 91), (300, 320)),
    ((1234, 777), (320, 256)),
    ((301, 299), (300, 300)),
    ((1, 1), (5, 7)),
    ((1, 200), (31, 17)),
    ((200, 1), (3, 17)),
    ((7, 11), (7, 11)),
    ((7, 11), (7, 10)),
    ((50, 60), (1, 1)),
]


@pytest.mark.parametrize(("shape", "size"), CASES)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_equals_tensorflow(shape: tuple[int, int], size: tuple[int, int], dtype: type) -> None:
    tf = import_tensorflow()
    image = np.random.default_rng(sum(shape)).uniform(0, 255, (*shape, 3)).astype(dtype)
    expected = tf.raw_ops.ResizeBilinear(images=image[None], size=size, align_corners=False, half_pixel_centers=False)
    np.testing.assert_array_equal(resize_bilinear_legacy(image, size), expected.numpy()[0], strict=True)
