"""The TensorFlow side: it is fed, read and decoded as the graph itself does it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.gen_model.arch import Nms
from ssdlite_caffe.imports import import_tensorflow
from ssdlite_caffe.runtimes.decode import choose_detections
from ssdlite_caffe.runtimes.resize import network_input
from ssdlite_caffe.runtimes.tensorflow_detector import TensorFlowDetector
from tests.real_models import real_models
from tests.scenes import draw_scene

pytestmark = pytest.mark.tensorflow

SIZES = {
    "bccd_v2_ssdlite_3": ((300, 300), Nms()),
    "random_v3_large_90": ((320, 320), Nms()),
    "shapes_v3_small_3": ((320, 320), Nms()),
    "zoo2018_v2_ssdlite_90": ((300, 300), Nms(score_threshold=0.3, clip_first=True)),
}


def drawn(seed: int) -> np.ndarray:
    return np.ascontiguousarray(draw_scene(seed, side=400)[0][:300])


def fed(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return network_input(image, size, mean=127.5, scale=1 / 127.5)


@pytest.fixture(scope="module")
def example(example_model: Path) -> Iterator[TensorFlowDetector]:
    with TensorFlowDetector(example_model) as detector:
        yield detector


def check(detector: TensorFlowDetector, size: tuple[int, int], nms: Nms, seed: int) -> None:
    """Our network input is the graph's, and our decoder makes the graph's detections of the graph's boxes."""
    image = drawn(seed)
    given = fed(image, size)
    own = detector.run_image(image, [detector.network_input])[detector.network_input]
    np.testing.assert_allclose(
        given, own, rtol=0, atol=2.4e-7
    )  # two ulps at 1: the orders of resize and scaling differ

    raw = detector.raw(given)
    count, classes = raw.scores.shape
    assert raw.encodings.shape == raw.boxes.shape == (count, 4)
    assert raw.logits.shape == (count, classes)
    np.testing.assert_allclose(raw.scores, 1 / (1 + np.exp(-raw.logits.astype(np.float64))), atol=2e-7)

    expected = detector.detect(given)
    assert len(expected)
    found = choose_detections(np.ascontiguousarray(raw.boxes[:, [1, 0, 3, 2]]), raw.scores, nms)
    assert found.classes.tolist() == expected.classes.tolist()
    np.testing.assert_array_equal(found.scores, expected.scores, strict=True)
    np.testing.assert_array_equal(found.boxes, expected.boxes, strict=True)


@pytest.mark.parametrize("seed", range(3))
def test_example(example: TensorFlowDetector, seed: int) -> None:
    check(example, (320, 320), Nms(), seed)


def test_a_frozen_graph_is_found_in_its_folder(example: TensorFlowDetector, example_model: Path) -> None:
    given = fed(drawn(0), (320, 320))
    with TensorFlowDetector(example_model.parent) as detector:
        np.testing.assert_array_equal(detector.detect(given).boxes, example.detect(given).boxes)


def test_whole_image_gives_the_same_detections(example: TensorFlowDetector) -> None:
    """Of a trained model; a last bit of the input may not change what is found."""
    image = drawn(0)
    whole, ours = example.detect_image(image).above(0.3), example.detect(fed(image, (320, 320))).above(0.3)
    assert len(whole)
    assert whole.classes.tolist() == ours.classes.tolist()
    np.testing.assert_allclose(whole.scores, ours.scores, atol=2e-6)
    np.testing.assert_allclose(whole.boxes, ours.boxes, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", real_models(SIZES))
def test_real_models(shared_models: Path, name: str) -> None:
    size, nms = SIZES[name]
    with TensorFlowDetector(shared_models / name / "frozen_inference_graph.pb") as detector:
        check(detector, size, nms, 0)


def test_saved_model_and_checkpoint_are_the_frozen_graph(shared_models: Path) -> None:
    folder = shared_models / "shapes_v3_small_3"
    given = fed(drawn(1), (320, 320))
    paths = [folder / "frozen_inference_graph.pb", folder / "saved_model", folder / "saved_model" / "saved_model.pb"]
    paths += [folder, folder / "model.ckpt", folder / "model.ckpt.index"]
    scores = []
    for path in paths:
        with TensorFlowDetector(path) as detector:
            assert detector.has_detections
            scores.append(detector.detect(given).scores)
    for other in scores[1:]:
        np.testing.assert_allclose(other, scores[0], rtol=0, atol=1e-6)


def test_what_the_graph_has_not(example: TensorFlowDetector) -> None:
    with pytest.raises(ModelError, match="no tensor named nowhere, no/where:0"):
        example.run(fed(drawn(0), (320, 320)), ["nowhere", "no/where:0", "num_detections"])
    with pytest.raises(ModelError, match=r"Incompatible shapes|incompatible|shape") as caught:
        example.detect(fed(drawn(0), (300, 300)))
    assert "\n" not in str(caught.value)


def test_what_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "text.pb").write_text("hello\n" * 99)
    (tmp_path / "empty.pb").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for name, message in (
        ("text.pb", "a text file, not a binary graph"),
        ("empty.pb", "empty"),
        ("folder", "holds no manifest"),
        ("none", "does not exist"),
    ):
        with pytest.raises(ModelError, match=message) as caught:
            TensorFlowDetector(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_graph_without_convolution_or_detections(tmp_path: Path) -> None:
    tf = import_tensorflow()
    with tf.Graph().as_default() as graph:
        pixels = tf.compat.v1.placeholder(tf.float32, (1, 8, 8, 3), name="pixels")
        tf.identity(pixels, name="same")
        (tmp_path / "plain.pb").write_bytes(graph.as_graph_def().SerializeToString())
        kernel = np.ones((3, 3, 3, 4), np.float32)
        padded = tf.pad(pixels * 2.0, [[0, 0], [1, 1], [1, 1], [0, 0]])
        tf.nn.conv2d(padded, kernel, 1, "VALID", name="stem")
        (tmp_path / "stem.pb").write_bytes(graph.as_graph_def().SerializeToString())
    with pytest.raises(ModelError, match="no convolution"):
        TensorFlowDetector(tmp_path / "plain.pb")
    with TensorFlowDetector(tmp_path / "stem.pb") as detector:
        assert detector.network_input == "mul:0", "explicit padding belongs to the net"
        assert not detector.has_detections
        values = detector.run(np.ones((1, 8, 8, 3), np.float32), ["stem"])["stem"]
        assert values[0, 4, 4].tolist() == [27.0] * 4
        with pytest.raises(ModelError, match="no operation Postprocessor/convert_scores"):
            detector.raw(np.ones((1, 8, 8, 3), np.float32))
        with pytest.raises(ModelError, match="has no input for uint8 images"):
            detector.detect_image(drawn(0))


def test_checkpoint_without_its_graph(shared_models: Path, tmp_path: Path) -> None:
    for path in (shared_models / "shapes_v3_small_3").glob("model.ckpt*"):
        if path.suffix != ".meta":
            shutil.copy(path, tmp_path)
    with pytest.raises(ModelError, match=r"without model\.ckpt\.meta"):
        TensorFlowDetector(tmp_path)


def test_nothing_is_said_on_stderr(example_model: Path) -> None:
    code = f"""
import sys
import numpy as np
from pathlib import Path
from ssdlite_caffe.runtimes.tensorflow_detector import TensorFlowDetector
with TensorFlowDetector(Path({str(example_model)!r})) as detector:
    print(len(detector.detect(np.zeros((1, 320, 320, 3), np.float32))))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "100\n"
    assert done.stderr == ""
