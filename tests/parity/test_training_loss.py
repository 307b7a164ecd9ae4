"""The loss of a training folder, in the built Caffe, against that of `keras train`, which equals TensorFlow's."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.gen_model.arch import ScoreConverter
from ssdlite_caffe.gen_model.build import build, default_arch
from ssdlite_caffe.gen_model.dialect import DataPaths, Dialect
from ssdlite_caffe.gen_model.render import render
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.text import format_message, parse
from ssdlite_caffe.runtimes.caffe_net import CaffeNet

pytestmark = [
    pytest.mark.slow, pytest.mark.caffe, pytest.mark.tensorflow, pytest.mark.xdist_group("caffe")
]  # fmt: skip
IMAGES, BOXES, CLASSES = 3, 300, 5
VARIANCES = 0.1, 0.1, 0.2, 0.2
LOSS = 2e-6
"""Relative; measured: 3e-7."""


@pytest.mark.parametrize("converter", ["sigmoid", "softmax"])
@pytest.mark.parametrize(("weight", "by_codesize"), [(1.0, False), (0.25, True)])
def test_the_weight_of_the_boxes_is_the_code_size(
    caffe_prefix: Path, tmp_path: Path, converter: ScoreConverter, weight: float, by_codesize: bool
) -> None:
    """Of three images, the last without objects, which adds nothing: least background boxes of 0."""
    from ssdlite_caffe.imports import import_keras

    _, tf = import_keras()
    from ssdlite_caffe.keras.losses import LossOptions, divisors, ssd_sums
    from ssdlite_caffe.keras.targets import assign

    random = np.random.default_rng(3)
    centres, sides = random.uniform(0.2, 0.8, (BOXES, 2)), random.uniform(0.1, 0.3, (BOXES, 2))
    defaults = np.concatenate([centres - sides / 2, centres + sides / 2], 1).astype(np.float32)
    objects = [defaults[i::70][:4] + random.uniform(-0.02, 0.02, (4, 4)).astype(np.float32) for i in (0, 1)]
    ids = [random.integers(1, CLASSES, len(boxes)).astype(np.int32) for boxes in objects]
    objects.append(np.zeros((0, 4), np.float32))
    ids.append(np.zeros(0, np.int32))
    codes = random.normal(0, 2, (IMAGES, BOXES, 4)).astype(np.float32)
    logits = random.normal(0, 2, (IMAGES, BOXES, CLASSES)).astype(np.float32)

    assigned = [
        assign(tf.constant(boxes), tf.constant(labels), tf.zeros(len(labels), tf.bool), defaults, VARIANCES)
        for boxes, labels in zip(objects, ids, strict=True)
    ]
    targets = tuple(np.stack([np.asarray(part) for part in parts]) for parts in zip(*assigned, strict=True))
    options = LossOptions("hard-negatives", least_negatives=0, by_codesize=by_codesize)
    sums = ssd_sums(codes, logits, targets, options, converter)  # type: ignore[arg-type]
    place, classes = divisors(sums.matches, options)
    expected = float(sum(sums.localisation) / place + sum(sums.classification) / classes)
    assert int(sums.matches) > 8

    label = [
        [image, number, 0, box[1], box[0], box[3], box[2], 0]
        for image, (boxes, labels) in enumerate(zip(objects, ids, strict=True))
        for box, number in zip(boxes, labels, strict=True)
    ]
    fed = {
        "mbox_loc": codes[..., [1, 0, 3, 2]].reshape(IMAGES, -1),
        "mbox_conf": logits.reshape(IMAGES, -1),
        "mbox_priorbox": np.stack([defaults[:, [1, 0, 3, 2]].ravel(), np.tile(VARIANCES, BOXES)])[None],
        "label": np.array(label)[None, None],
    }
    shapes = {name: array.shape for name, array in fed.items()}
    net = loss_net(shapes, converter, weight)
    (tmp_path / "loss.prototxt").write_text(format_message(net))
    with CaffeNet(tmp_path / "loss.prototxt", None, phase="TRAIN") as run:
        found = run.forward({name: np.float32(array) for name, array in fed.items()}, ["mbox_loss"])["mbox_loss"]
    print(float(np.squeeze(found)), expected)
    assert float(np.squeeze(found)) == pytest.approx(expected, rel=LOSS)


def loss_net(shapes: dict[str, tuple[int, ...]], converter: ScoreConverter, weight: float) -> caffe_pb2.NetParameter:
    """The loss layer of a training folder's train net, behind inputs."""
    arch = dataclasses.replace(default_arch("v2", CLASSES), score_converter=converter)
    text = render(build(arch), Dialect(), "train", DataPaths(loc_weight=weight))
    loss = parse(text, caffe_pb2.NetParameter).layer[-1]
    assert loss.type == "MultiBoxLoss"
    net = caffe_pb2.NetParameter(name="loss")
    for name, shape in shapes.items():
        layer = net.layer.add(name=name, type="Input", top=[name])
        layer.input_param.shape.add(dim=shape)
    net.layer.append(loss)
    return net
