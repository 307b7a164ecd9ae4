"""Detectors whose graph letterboxes images, or resizes them by other methods, compared with TensorFlow."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdlite_caffe.dump.read import ReadOptions, read_model
from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.imports import import_tensorflow
from ssdlite_caffe.resizer import Resizer
from ssdlite_caffe.runtimes.detector import Detector
from ssdlite_caffe.runtimes.model_folder import REPORT, ModelFolder
from ssdlite_caffe.runtimes.tensorflow_detector import TensorFlowDetector
from ssdlite_caffe.tools.compare import compare_detections
from ssdlite_caffe.tools.convert import ConvertOptions, convert, convert_summary
from ssdlite_caffe.tools.verify import verify
from ssdlite_caffe.tools.verify_text import verdict
from tests.oracles import shared_folder
from tests.scenes import draw_scene

pytestmark = [pytest.mark.tensorflow, pytest.mark.opencv, pytest.mark.xdist_group("letterbox")]

SIDE = 320
IMAGES, SHAPES = (
    "Preprocessor/map/TensorArrayStack/TensorArrayGatherV3:0",
    "Preprocessor/map/TensorArrayStack_1/TensorArrayGatherV3:0",
)
OUTPUTS = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")
Resize = Callable[[Any, Any], tuple[Any, Any]]
"""From an image (H, W, 3) to the network's size, and the size of what it shows; the first argument is TensorFlow."""


@pytest.fixture(scope="module")
def source() -> bytes:
    folder = shared_folder("models/shapes_v3_small_3")
    if folder is None:
        pytest.skip("no shared/models/shapes_v3_small_3 beside the repository")
    return (folder / "frozen_inference_graph.pb").read_bytes()


def graph_with(source: bytes, out: Path, resize: Resize, *, normalise_first: bool = True) -> Path:
    """The detector with another preprocessing, in TensorFlow 1's loops and conditions, as the OD API exports it."""
    tf = import_tensorflow()
    v1 = tf.compat.v1
    before = v1.control_flow_v2_enabled()
    v1.disable_control_flow_v2()
    try:
        old = v1.GraphDef.FromString(source)
        with tf.Graph().as_default() as graph:
            image = v1.placeholder(tf.uint8, (None, None, None, 3), name="image_tensor")
            pixels = tf.cast(image, tf.float32)

            def normalised(values: Any) -> Any:
                return values * (2.0 / 255.0) - 1.0

            start = normalised(pixels) if normalise_first else pixels
            shown, shapes = v1.map_fn(lambda one: resize(tf, one), start, dtype=(tf.float32, tf.int32))
            shown = shown if normalise_first else normalised(shown)
            ends = tf.graph_util.import_graph_def(
                old, {IMAGES: shown, SHAPES: shapes}, [f"{name}:0" for name in OUTPUTS], name=""
            )
            assert len(ends) == len(OUTPUTS)
            whole = v1.graph_util.extract_sub_graph(graph.as_graph_def(), list(OUTPUTS))
    finally:
        if before:
            v1.enable_control_flow_v2()
    out.write_bytes(whole.SerializeToString())
    return out


def letterbox(
    least: int, most: int, method: str, *, pad: tuple[float, ...] = (0.0, 0.0, 0.0), corner: tuple[int, int] = (0, 0)
) -> Resize:
    """A resize that keeps the image's shape; `corner` is where the image begins, in the OD API at the upper left."""

    def resize(tf: Any, image: Any) -> tuple[Any, Any]:
        v1 = tf.compat.v1
        kind = getattr(v1.image.ResizeMethod, method)

        def within(size: tuple[int, int]) -> Any:
            return v1.image.resize_images(image, size, method=kind, preserve_aspect_ratio=True)

        shape = tf.shape(image)
        shown = v1.cond(shape[0] < shape[1], lambda: within((least, most)), lambda: within((most, least)))
        size = tf.shape(shown)
        rest = [[first, most - size[axis] - first] for axis, first in enumerate(corner)]
        channels = zip(tf.unstack(shown, 3, axis=2), pad, strict=True)
        whole = tf.stack([tf.pad(channel, rest, constant_values=value) for channel, value in channels], axis=2)
        return tf.ensure_shape(whole, (most, most, 3)), size

    return resize


def older_letterbox(least: int, most: int) -> Resize:
    """As of 2018: the size from two factors, the larger one where the longer side fits; black pixels around."""

    def resize(tf: Any, image: Any) -> tuple[Any, Any]:
        v1 = tf.compat.v1
        sides = tf.cast(tf.shape(image)[:2], tf.float32)

        def scaled(factor: Any) -> Any:
            return tf.cast(tf.round(sides * factor), tf.int32)

        large = scaled(tf.constant(float(least)) / tf.reduce_min(sides))
        small = scaled(tf.constant(float(most)) / tf.reduce_max(sides))
        fits = tf.cast(tf.reduce_max(large), tf.float32) > most
        size = v1.cond(fits, lambda: small, lambda: large)
        shown = v1.image.resize_images(image, size)
        whole = tf.image.pad_to_bounding_box(shown, 0, 0, most, most)
        return tf.ensure_shape(whole, (most, most, 3)), tf.concat([size, [3]], 0)

    return resize


def fixed(method: str, *, align_corners: bool = False) -> Resize:
    def resize(tf: Any, image: Any) -> tuple[Any, Any]:
        v1 = tf.compat.v1
        kind = getattr(v1.image.ResizeMethod, method)
        shown = v1.image.resize_images(image, (SIDE, SIDE), method=kind, align_corners=align_corners)
        return shown, tf.constant([SIDE, SIDE, 3])

    return resize


def box(
    least: int, method: Any = "bilinear", pad: tuple[float, float, float] = (0, 0, 0), first: bool = True
) -> Resizer:
    return Resizer("keep_aspect_ratio", method, False, False, least, SIDE, pad, first)


CASES = {
    "letterbox": (letterbox(SIDE, SIDE, "BILINEAR"), True, box(SIDE)),
    "area, padded before normalising": (
        letterbox(200, SIDE, "AREA", pad=(124.0, 117.0, 104.0)), False, box(200, "area", (124, 117, 104), False)),
    "nearest": (letterbox(250, SIDE, "NEAREST_NEIGHBOR", pad=(0.5, 0.0, -0.25)), True,
                box(250, "nearest", (0.5, 0, -0.25))),
    "2018": (older_letterbox(200, SIDE), False, box(200, first=False)),
    "squashed, bicubic": (fixed("BICUBIC"), True, Resizer(method="bicubic", normalise_first=True)),
    "squashed, corners aligned": (fixed("BILINEAR", align_corners=True), False, Resizer(align_corners=True)),
}  # fmt: skip


def scenes() -> list[tuple[str, np.ndarray]]:
    """Drawn scenes cut to wide, narrow and square images, uint8 RGB."""
    found = []
    for seed, (height, width) in enumerate([(150, 320), (320, 97), (320, 320), (201, 203)]):
        image = np.asarray(draw_scene(seed)[0])
        found.append((f"scene {seed}", np.ascontiguousarray(np.resize(image[:height, :width], (height, width, 3)))))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [name if name in ("letterbox", "nearest") else pytest.param(name, marks=pytest.mark.story) for name in CASES],
)
def test_carried(source: bytes, tmp_path: Path, name: str) -> None:
    resize, first, expected = CASES[name]
    graph = graph_with(source, tmp_path / "frozen_inference_graph.pb", resize, normalise_first=first)
    out = tmp_path / "out"
    report = convert(graph, out, ConvertOptions())
    folder = ModelFolder.open(out)
    assert folder.arch.resizer == expected
    assert report["resizer"]["method"] == expected.method
    assert f"images resized by {expected.text()}" in convert_summary(report, out)

    compared = verify(graph, folder, scenes())
    assert compared.first_failure is None
    assert {row.stage for row in compared.rows} >= {"input", "detections"}

    with TensorFlowDetector(graph) as reference:
        for decoder in ("caffe", "numpy"):
            detector = Detector(folder, decoder)  # type: ignore[arg-type]
            for label, image in scenes():
                ours = detector(np.ascontiguousarray(image[..., ::-1]))
                found = compare_detections(
                    ours, reference.detect_image(image), box_tolerance=5e-5, score_tolerance=2e-5, max_total=100,
                    score_threshold=folder.arch.nms.score_threshold,
                )  # fmt: skip
                assert not found.unpaired, (decoder, label, found.unpaired[:2])
                assert found.paired > 0
                assert ours.boxes.max() <= 1


@pytest.mark.slow
def test_a_folder_without_its_resizer_is_named(source: bytes, tmp_path: Path) -> None:
    """As of a conversion by an earlier version: on images of the input's size no pixel differs."""
    graph = graph_with(source, tmp_path / "frozen_inference_graph.pb", letterbox(SIDE, SIDE, "BILINEAR"))
    convert(graph, tmp_path / "out", ConvertOptions())
    report = json.loads((tmp_path / "out" / REPORT).read_text())
    del report["resizer"], report["arch"]["resizer"]
    (tmp_path / "out" / REPORT).write_text(json.dumps(report))
    compared = verify(graph, ModelFolder.open(tmp_path / "out"), [scenes()[2]])
    failure = compared.first_failure
    assert failure is not None
    assert failure.stage == "resizer"
    assert verdict(compared).endswith("convert the model again")
    assert all(row.ok for row in compared.rows if row.stage == "input")


def varying(tf: Any, image: Any) -> tuple[Any, Any]:
    shown = tf.compat.v1.image.resize_images(image, (300, 600), preserve_aspect_ratio=True)
    return shown, tf.shape(shown)


def grey(tf: Any, image: Any) -> tuple[Any, Any]:
    shown = tf.compat.v1.image.resize_images(image, (SIDE, SIDE))
    shown = tf.reduce_sum(shown * [0.2989, 0.5870, 0.1140], 2, keepdims=True)
    return tf.tile(shown, [1, 1, 3]), tf.constant([SIDE, SIDE, 3])


def twice(tf: Any, image: Any) -> tuple[Any, Any]:
    v1 = tf.compat.v1
    shown = v1.image.resize_images(v1.image.resize_images(image, (100, 100)), (SIDE, SIDE))
    return shown, tf.constant([SIDE, SIDE, 3])


def swapped(tf: Any, image: Any) -> tuple[Any, Any]:
    shown = tf.compat.v1.image.resize_images(image, (SIDE, SIDE))
    return tf.stack(tf.unstack(shown, 3, axis=2)[::-1], axis=2), tf.constant([SIDE, SIDE, 3])


def mirrored(tf: Any, image: Any) -> tuple[Any, Any]:
    shown = tf.compat.v1.image.resize_images(image, (SIDE - 2, SIDE - 2))
    return tf.pad(shown, [[1, 1], [1, 1], [0, 0]], "REFLECT"), tf.constant([SIDE, SIDE, 3])


@pytest.mark.parametrize(
    ("resize", "said"),
    [
        (varying, "resizes images to different sizes: 1000x1000 to 300x300, 480x640 to 300x400"),
        (grey, "grayscale"),
        (twice, "more than once"),
        (swapped, "stack.* is not understood"),
        (mirrored, "MirrorPad"),
        (letterbox(200, SIDE, "BILINEAR", corner=(3, 5)), "padded at the bottom and on the right"),
    ],
)
def test_refused_by_name(source: bytes, tmp_path: Path, resize: Resize, said: str) -> None:
    graph = graph_with(source, tmp_path / "frozen_inference_graph.pb", resize)
    with pytest.raises(ModelError, match=said):
        read_model(graph)


def test_a_config_that_contradicts_the_graph_is_named(source: bytes, tmp_path: Path) -> None:
    graph = graph_with(source, tmp_path / "frozen_inference_graph.pb", letterbox(200, SIDE, "BILINEAR"))
    config = tmp_path / "other.config"
    text = "model { ssd { num_classes: 3 image_resizer { %s } } }"
    config.write_text(text % "fixed_shape_resizer { height: 320 width: 320 resize_method: AREA }")
    model = read_model(graph, ReadOptions(pipeline_config=config))
    assert model.settings.resizer == box(200)
    assert any("resizer keep_aspect_ratio 200..320" in note and "not fixed_shape, area" in note for note in model.notes)
    config.write_text(text % "conditional_shape_resizer { size_threshold: 320 }")
    model = read_model(graph, ReadOptions(pipeline_config=config))
    assert any("not conditional_shape_resizer with size_threshold 320" in note for note in model.notes)
