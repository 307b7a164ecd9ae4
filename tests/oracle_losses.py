"""Run SSDMetaArch.loss of the OD API: BATCH.npz LOSSES.json; see tests/parity/test_keras_losses.py.

It runs in the OD API's own environment, with make_model.py on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import make_model
from google.protobuf import text_format
from object_detection.core import box_list
from shims import model_builder, np, tf

BOXES = "localization_loss { weighted_smooth_l1 { } } classification_weight: 1.0 localization_weight: 1.0"
MINER = "hard_example_miner { num_hard_examples: 3000 iou_threshold: %g loss_type: CLASSIFICATION " \
    "max_negatives_per_positive: 3 min_negatives_per_image: %d }"  # fmt: skip
CLASSES = {
    "focal": "weighted_sigmoid_focal { alpha: 0.75 gamma: 2.0 }",
    "sigmoid": "weighted_sigmoid { }",
    "softmax": "weighted_softmax { }",
}


def losses(batch: Any, kind: str, mined: tuple[float, int] | None, switches: tuple[bool, bool]) -> list[float]:
    """The API's localisation and classification loss of a batch."""
    count, classes = len(batch["logits"]), batch["logits"].shape[2] - 1
    options = argparse.Namespace(
        kind="ssd_mobilenet_v2", classes=classes, height=300, width=300, size=300, depth_multiplier=1.0, lite=True,
        min_scale=0.2, max_scale=0.95, anchors="", score_threshold=1e-8, iou_threshold=0.6, score_converter="SIGMOID",
    )  # fmt: skip
    config = make_model.pipeline(options, 0.97)
    ssd = config.model.ssd
    ssd.encode_background_as_zeros = kind == "focal"
    ssd.loss.Clear()
    miner = "" if mined is None else MINER % mined
    text_format.Merge(f"classification_loss {{ {CLASSES[kind]} }} {miner} {BOXES}", ssd.loss)
    ssd.normalize_loss_by_num_matches, ssd.normalize_loc_loss_by_codesize = switches
    with tf.Graph().as_default(), tf.Session() as session:
        model = model_builder.build(config.model, is_training=True)
        model._anchors = box_list.BoxList(tf.constant(batch["defaults"]))
        boxes = [tf.constant(batch[f"boxes{i}"]) for i in range(count)]
        model.provide_groundtruth(boxes, [tf.one_hot(batch[f"labels{i}"] - 1, classes) for i in range(count)])
        predicted = {
            "box_encodings": tf.constant(batch["encodings"]),
            "class_predictions_with_background": tf.constant(batch["logits"]),
        }
        found = model.loss(predicted, tf.constant([[300, 300, 3]] * count))
        values = session.run([found["Loss/localization_loss"], found["Loss/classification_loss"]])
    return [float(value) for value in values]


def main() -> None:
    batch = np.load(sys.argv[1])
    made = []
    kinds = [("focal", None), *itertools.product(("sigmoid", "softmax"), itertools.product((0.99, 1.0), (0, 3)))]
    for (kind, mined), switches in itertools.product(kinds, itertools.product((True, False), repeat=2)):
        made.append([kind, mined, switches, losses(batch, kind, mined, switches)])
    Path(sys.argv[2]).write_text(json.dumps(made))


main()
