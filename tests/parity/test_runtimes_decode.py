"""The reference decoder against TensorFlow's suppression and OpenCV's DetectionOutput."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.gen_model.arch import Nms
from ssdlite_caffe.imports import import_opencv, import_tensorflow
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.runtimes.decode import choose_detections, convert_scores, decode, decode_boxes, parse_detection_out
from ssdlite_caffe.runtimes.detections import Detections

F = np.float32


def random_boxes(random: np.random.Generator, count: int) -> np.ndarray:
    centre, size = random.uniform(-0.1, 1.1, (count, 2)), random.uniform(0.02, 0.5, (count, 2))
    return np.concatenate([centre - size / 2, centre + size / 2], axis=1).astype(F)


@pytest.mark.tensorflow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("levels", [10, 10_000])
def test_suppression_equals_tensorflow(seed: int, levels: int) -> None:
    """One class; few levels make many tied scores."""
    tf = import_tensorflow()
    random = np.random.default_rng(seed)
    boxes = random_boxes(random, 600)
    scores = (random.integers(0, levels, 600) / levels).astype(F)
    nms = Nms(iou_threshold=0.45, score_threshold=0.2, max_per_class=60, max_total=600)
    chosen = tf.image.non_max_suppression(boxes[:, [1, 0, 3, 2]], scores, 60, 0.45, 0.2).numpy()
    found = choose_detections(boxes, np.stack([np.ones(600, F), scores], axis=1), nms, clip=False)
    assert len(found) == 60
    np.testing.assert_array_equal(found.boxes, boxes[chosen], strict=True)
    np.testing.assert_array_equal(found.scores, scores[chosen], strict=True)


@pytest.mark.tensorflow
@pytest.mark.parametrize("converter", ["sigmoid", "softmax"])
def test_scores_equal_tensorflow(converter: str) -> None:
    tf = import_tensorflow()
    logits = np.random.default_rng(0).normal(0, 8, (500, 7)).astype(F)
    expected = (tf.sigmoid if converter == "sigmoid" else tf.nn.softmax)(logits).numpy()
    np.testing.assert_allclose(convert_scores(logits, converter), expected, rtol=5e-7, atol=0)  # type: ignore[arg-type]


def detection_output(loc: np.ndarray, conf: np.ndarray, priors: np.ndarray, nms: Nms, *, clip: bool) -> Detections:
    """What OpenCV's DetectionOutput layer makes of the three blobs."""
    cv2 = import_opencv()
    net = caffe_pb2.NetParameter(name="decoder")
    blobs = {"loc": loc.reshape(1, -1), "conf": conf.reshape(1, -1), "priors": priors}
    for name, blob in blobs.items():
        net.input.append(name)
        net.input_shape.add(dim=blob.shape)
    layer = net.layer.add(name="out", type="DetectionOutput", bottom=list(blobs), top=["out"])
    param = layer.detection_output_param
    param.num_classes = conf.shape[1]
    param.share_location = True
    param.background_label_id = 0
    param.code_type = caffe_pb2.PriorBoxParameter.CENTER_SIZE
    param.nms_param.nms_threshold = nms.iou_threshold
    param.nms_param.top_k = len(conf) if nms.top_k is None else nms.top_k
    param.keep_top_k = nms.max_total
    param.confidence_threshold = nms.score_threshold
    text = str(net).replace("detection_output_param {", "detection_output_param { clip: true") if clip else str(net)
    runner = cv2.dnn.readNetFromCaffe(np.frombuffer(text.encode(), np.uint8))
    for name, blob in blobs.items():
        runner.setInput(blob, name)
    return parse_detection_out(runner.forward())


@pytest.mark.opencv
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("top_k", "clip"), [(None, False), (12, False), (None, True)])
@pytest.mark.parametrize(("threshold", "total"), [(0.3, 40), (1e-8, 100), (0.3, 10_000), (2.0, 10)])
def test_decoder_equals_detection_output(
    seed: int, top_k: int | None, clip: bool, threshold: float, total: int
) -> None:
    """`clip` is a field that OpenCV's layer alone has: it clips before suppression."""
    random = np.random.default_rng(seed)
    count, classes = 300, 5
    priors = np.stack([random_boxes(random, count).ravel(), random.uniform(0.1, 0.3, count * 4).astype(F)])[None]
    loc, conf = random.normal(size=(count, 4)).astype(F), random.uniform(0, 1, (count, classes)).astype(F)
    nms = Nms(
        iou_threshold=0.45, score_threshold=threshold, max_per_class=count, max_total=total, top_k=top_k,
        clip_first=clip,
    )  # fmt: skip
    expected = detection_output(loc, conf, priors, nms, clip=clip)
    found = decode(loc, conf, priors, nms, converter="identity", clip=clip)
    assert bool(len(found)) == (threshold < 1)
    if clip:  # OpenCV keeps boxes that have no area in the image
        area = (expected.boxes[:, 2:] - expected.boxes[:, :2]).prod(axis=1)
        expected = expected.select(np.flatnonzero(area > 0))
        found = found.select(np.arange(len(expected)))
    assert found.classes.tolist() == expected.classes.tolist()
    assert found.scores.tolist() == expected.scores.tolist()
    np.testing.assert_allclose(found.boxes, expected.boxes, rtol=0, atol=3e-7)


@pytest.mark.opencv
def test_headless_blobs_decode_to_a_net_s_boxes(example_folder: Path) -> None:
    """Box codes and default boxes come from the net itself, so their layout is the one that is read."""
    from ssdlite_caffe.runtimes.model_folder import ModelFolder
    from ssdlite_caffe.runtimes.opencv_net import OpenCvNet

    model = ModelFolder.open(example_folder)
    net = OpenCvNet(model.headless_prototxt, model.deploy_caffemodel)
    blob = np.random.default_rng(0).uniform(-1, 1, (1, 3, *model.arch.input_size)).astype(F)
    loc, conf, priors = net.forward(blob, ["mbox_loc", "mbox_conf", "mbox_priorbox"]).values()
    expected = OpenCvNet(model.deploy_prototxt, model.deploy_caffemodel).detect(blob)
    boxes = decode_boxes(loc, priors[0, 0].reshape(-1, 4), priors[0, 1].reshape(-1, 4))
    scores = convert_scores(conf.reshape(len(boxes), -1), "sigmoid")
    for number, score, box in zip(expected.classes, expected.scores, expected.boxes, strict=True):
        near = np.abs(boxes - box).max(axis=1) + np.abs(scores[:, number] - score)
        assert near.min() < 1e-6
