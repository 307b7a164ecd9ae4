"""Our resize against TensorFlow's, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdlite_caffe.imports import import_opencv, import_tensorflow
from ssdlite_caffe.resize_methods import resized
from ssdlite_caffe.resizer import Method, Resizer
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


CORNERS = {"legacy": (False, False), "aligned": (True, False), "half pixels": (False, True)}
METHODS: list[tuple[Method, str]] = [
    (method, corners)
    for method in ("bilinear", "nearest", "bicubic", "area")
    for corners in CORNERS
    if (method, corners) != ("area", "half pixels")
]
SIDES = st.one_of(st.integers(1, 40), st.integers(1, 400))


def by_tensorflow(image: np.ndarray, size: tuple[int, int], resizer: Resizer) -> np.ndarray:
    tf = import_tensorflow()
    names = {"bilinear": "Bilinear", "nearest": "NearestNeighbor", "bicubic": "Bicubic", "area": "Area"}
    options = {"align_corners": resizer.align_corners}
    if resizer.method != "area":
        options["half_pixel_centers"] = resizer.half_pixel_centers
    op = getattr(tf.raw_ops, f"Resize{names[resizer.method]}")
    return np.asarray(op(images=image[None], size=size, **options)[0], np.float32)


@pytest.mark.parametrize(("method", "corners"), METHODS)
@settings(max_examples=40, deadline=None)
@given(height=SIDES, width=SIDES, size=st.tuples(SIDES, SIDES), whole=st.booleans(), seed=st.integers(0, 99))
def test_every_method_equals_tensorflow(
    method: Method, corners: str, height: int, width: int, size: tuple[int, int], whole: bool, seed: int
) -> None:
    align_corners, half_pixel_centers = CORNERS[corners]
    resizer = Resizer(method=method, align_corners=align_corners, half_pixel_centers=half_pixel_centers)
    random = np.random.default_rng(seed)
    values = random.uniform(0, 256, (height, width, 3))
    image = values.astype(np.uint8) if whole else (values / 128 - 1).astype(np.float32)
    np.testing.assert_array_equal(resized(image, size, resizer), by_tensorflow(image, size, resizer), strict=True)


@pytest.mark.parametrize(("method", "corners"), METHODS)
@pytest.mark.parametrize("shape", [(1, 9), (9, 1), (1, 1)])
def test_images_of_one_row_or_column(method: Method, corners: str, shape: tuple[int, int]) -> None:
    align_corners, half_pixel_centers = CORNERS[corners]
    resizer = Resizer(method=method, align_corners=align_corners, half_pixel_centers=half_pixel_centers)
    image = np.random.default_rng(5).integers(0, 256, (*shape, 3)).astype(np.uint8)
    for size in ((1, 1), (4, 7), (1, 5)):
        np.testing.assert_array_equal(resized(image, size, resizer), by_tensorflow(image, size, resizer))


@pytest.mark.parametrize(
    ("method", "mode", "half_pixel_centers", "low", "high"),
    [
        ("bilinear", "INTER_LINEAR", True, 0, 0.05),
        ("area", "INTER_AREA", False, 0, 0.05),
        ("bilinear", "INTER_LINEAR", False, 50, 255),
        ("nearest", "INTER_NEAREST", True, 50, 255),
        ("bicubic", "INTER_CUBIC", False, 50, 400),
        ("bicubic", "INTER_CUBIC", True, 10, 255),
    ],
)
def test_what_docs_detect_says_of_opencv(
    method: Method, mode: str, half_pixel_centers: bool, low: float, high: float
) -> None:
    """How far OpenCV's results are from TensorFlow's, of pixels from 0 to 255, on images made smaller."""
    cv2 = import_opencv()
    worst = 0.0
    for height, width, size in ((97, 131, (48, 64)), (480, 640, (300, 300)), (1200, 1600, (320, 320))):
        image = np.random.default_rng(6).integers(0, 256, (height, width, 3)).astype(np.float32)
        other = cv2.resize(image, size[::-1], interpolation=getattr(cv2, mode))
        ours = resized(image, size, Resizer(method=method, half_pixel_centers=half_pixel_centers))
        worst = max(worst, float(np.abs(ours - other).max()))
    assert low <= worst <= high
