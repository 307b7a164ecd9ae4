"""Nets in the SSD branch's own dialect run in the built Caffe as they are.

The net is SSD300 over a VGG16 (Liu et al., arXiv:1512.02325, section 3; the branch's examples/ssd/ssd_pascal.py for the
names of fields), `WIDTH` times as wide; the fields are all that the branch's scripts write, in train net, test net and
solver.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssdlite_caffe.data.lmdb_store import LmdbWriter
from tests.parity.test_caffe_data import losses, records, train

pytestmark = [pytest.mark.slow, pytest.mark.caffe, pytest.mark.xdist_group("caffe")]

WIDTH = 1 / 16
CLASSES = 21
IMAGES = 8

AUGMENTATION = """
    mirror: true
    distort_param {
      brightness_prob: 0.5 brightness_delta: 32 contrast_prob: 0.5 contrast_lower: 0.5 contrast_upper: 1.5
      hue_prob: 0.5 hue_delta: 18 saturation_prob: 0.5 saturation_lower: 0.5 saturation_upper: 1.5
      random_order_prob: 0.0
    }
    expand_param { prob: 0.5 max_expand_ratio: 4.0 }
    emit_constraint { emit_type: CENTER }"""
RESIZE = "prob: 1 resize_mode: WARP height: 300 width: 300"
RANDOM_RESIZE = RESIZE + "".join(f" interp_mode: {m}" for m in ("LINEAR", "AREA", "NEAREST", "CUBIC", "LANCZOS4"))
SAMPLERS = "batch_sampler { max_sample: 1 max_trials: 1 }" + "".join(
    f"""
    batch_sampler {{
      sampler {{ min_scale: 0.3 max_scale: 1.0 min_aspect_ratio: 0.5 max_aspect_ratio: 2.0 }}
      sample_constraint {{ {constraint} }}
      max_sample: 1 max_trials: 50
    }}"""
    for constraint in [
        *(f"min_jaccard_overlap: {least}" for least in (0.1, 0.3, 0.5, 0.7, 0.9)),
        "max_jaccard_overlap: 1.0",
    ]
)
LOSS = f"""layer {{
  name: "mbox_loss" type: "MultiBoxLoss" bottom: "mbox_loc" bottom: "mbox_conf" bottom: "mbox_priorbox" bottom: "label"
  top: "mbox_loss" include {{ phase: TRAIN }}
  propagate_down: true propagate_down: true propagate_down: false propagate_down: false
  loss_param {{ normalization: VALID }}
  multibox_loss_param {{
    loc_loss_type: SMOOTH_L1 conf_loss_type: SOFTMAX loc_weight: 1.0 num_classes: {CLASSES} share_location: true
    match_type: PER_PREDICTION overlap_threshold: 0.5 use_prior_for_matching: true background_label_id: 0
    use_difficult_gt: true neg_pos_ratio: 3.0 neg_overlap: 0.5 code_type: CENTER_SIZE ignore_cross_boundary_bbox: false
    mining_type: MAX_NEGATIVE
  }}
}}"""
DETECTION = f"""layer {{
  name: "mbox_conf_reshape" type: "Reshape" bottom: "mbox_conf" top: "mbox_conf_reshape"
  reshape_param {{ shape {{ dim: 0 dim: -1 dim: {CLASSES} }} }}
}}
layer {{
  name: "mbox_conf_softmax" type: "Softmax" bottom: "mbox_conf_reshape" top: "mbox_conf_softmax"
  softmax_param {{ axis: 2 }}
}}
layer {{
  name: "mbox_conf_flatten" type: "Flatten" bottom: "mbox_conf_softmax" top: "mbox_conf_flatten"
  flatten_param {{ axis: 1 }}
}}
layer {{
  name: "detection_out" type: "DetectionOutput" bottom: "mbox_loc" bottom: "mbox_conf_flatten" bottom: "mbox_priorbox"
  top: "detection_out" include {{ phase: TEST }}
  detection_output_param {{
    num_classes: {CLASSES} share_location: true background_label_id: 0 nms_param {{ nms_threshold: 0.45 top_k: 400 }}
    save_output_param {{
      output_directory: "results" output_name_prefix: "comp4_det_test_" output_format: "VOC"
      label_map_file: "data/labelmap_voc.prototxt" name_size_file: "data/test_name_size.txt" num_test_image: {IMAGES}
    }}
    code_type: CENTER_SIZE keep_top_k: 200 confidence_threshold: 0.01
  }}
}}
layer {{
  name: "detection_eval" type: "DetectionEvaluate" bottom: "detection_out" bottom: "label" top: "detection_eval"
  include {{ phase: TEST }}
  detection_evaluate_param {{
    num_classes: {CLASSES} background_label_id: 0 overlap_threshold: 0.5 evaluate_difficult_gt: false
    name_size_file: "data/test_name_size.txt"
  }}
}}"""
SOLVER = f"""train_net: "train.prototxt"
test_net: "test.prototxt"
test_iter: {IMAGES}
test_interval: 1
base_lr: 0.001
display: 1
max_iter: 1
lr_policy: "multistep"
gamma: 0.1
momentum: 0.9
weight_decay: 0.0005
snapshot: 80000
snapshot_prefix: "VGG_VOC0712_SSD_300x300"
solver_mode: CPU
device_id: 0
debug_info: false
snapshot_after_train: true
test_initialization: false
average_loss: 10
stepvalue: 80000
stepvalue: 100000
stepvalue: 120000
iter_size: 1
type: "SGD"
eval_type: "detection"
ap_version: "11point"
"""


def data_layer(phase: str, batch: int) -> str:
    transform = AUGMENTATION + f"\n    resize_param {{ {RANDOM_RESIZE} }}"
    if phase == "TEST":
        transform = f"resize_param {{ {RESIZE} interp_mode: LINEAR }}"
    return f"""layer {{
  name: "data" type: "AnnotatedData" top: "data" top: "label" include {{ phase: {phase} }}
  transform_param {{
    mean_value: 104 mean_value: 117 mean_value: 123
    {transform}
  }}
  data_param {{ source: "lmdb" batch_size: {batch} backend: LMDB }}
  annotated_data_param {{
    {SAMPLERS if phase == "TRAIN" else "batch_sampler { }"}
    label_map_file: "data/labelmap_voc.prototxt"
  }}
}}"""


def convolution(name: str, bottom: str, outputs: int, kernel: int, pad: int, stride: int = 1, dilation: int = 1) -> str:
    return f"""layer {{
  name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}"
  param {{ lr_mult: 1 decay_mult: 1 }} param {{ lr_mult: 2 decay_mult: 0 }}
  convolution_param {{
    num_output: {outputs} pad: {pad} kernel_size: {kernel} stride: {stride} dilation: {dilation}
    weight_filler {{ type: "xavier" }} bias_filler {{ type: "constant" value: 0 }}
  }}
}}"""


def body(width: float) -> Iterator[str]:
    def relu(name: str, blob: str) -> str:
        return f'layer {{ name: "{name}" type: "ReLU" bottom: "{blob}" top: "{blob}" }}'

    def channels(count: int) -> int:
        return int(count * width)

    blob = "data"
    for stage, (count, outputs) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), 1):
        for i in range(1, count + 1):
            yield convolution(f"conv{stage}_{i}", blob, channels(outputs), 3, 1)
            blob = f"conv{stage}_{i}"
            yield relu(f"relu{stage}_{i}", blob)
        window = "kernel_size: 2 stride: 2" if stage < 5 else "kernel_size: 3 stride: 1 pad: 1"
        yield f'layer {{ name: "pool{stage}" type: "Pooling" bottom: "{blob}" top: "pool{stage}"'
        yield f"  pooling_param {{ pool: MAX {window} }} }}"
        blob = f"pool{stage}"
    yield convolution("fc6", blob, channels(1024), 3, 6, dilation=6)
    yield relu("relu6", "fc6")
    yield convolution("fc7", "fc6", channels(1024), 1, 0)
    yield relu("relu7", "fc7")
    blob = "fc7"
    for stage, (narrow, outputs, pad, stride) in enumerate(
        ((256, 512, 1, 2), (128, 256, 1, 2), (128, 256, 0, 1), (128, 256, 0, 1)), 6
    ):
        for i, (of, kernel) in enumerate(((narrow, 1), (outputs, 3)), 1):
            name = f"conv{stage}_{i}"
            yield convolution(name, blob, channels(of), kernel, pad if i == 2 else 0, stride if i == 2 else 1)
            yield relu(f"{name}_relu", name)
            blob = name
    yield """layer {
  name: "conv4_3_norm" type: "Normalize" bottom: "conv4_3" top: "conv4_3_norm"
  norm_param { across_spatial: false scale_filler { type: "constant" value: 20 } channel_shared: false }
}"""


def heads() -> Iterator[str]:
    maps = [
        ("conv4_3_norm", 30, 60, (2,), 8),
        ("fc7", 60, 111, (2, 3), 16),
        ("conv6_2", 111, 162, (2, 3), 32),
        ("conv7_2", 162, 213, (2, 3), 64),
        ("conv8_2", 213, 264, (2,), 100),
        ("conv9_2", 264, 315, (2,), 300),
    ]
    for blob, least, most, ratios, step in maps:
        boxes = 2 + 2 * len(ratios)
        for kind, values in (("loc", 4), ("conf", CLASSES)):
            name = f"{blob}_mbox_{kind}"
            yield convolution(name, blob, boxes * values, 3, 1)
            yield f"""layer {{ name: "{name}_perm" type: "Permute" bottom: "{name}" top: "{name}_perm"
  permute_param {{ order: 0 order: 2 order: 3 order: 1 }} }}"""
            yield f"""layer {{ name: "{name}_flat" type: "Flatten" bottom: "{name}_perm" top: "{name}_flat"
  flatten_param {{ axis: 1 }} }}"""
        yield f"""layer {{
  name: "{blob}_mbox_priorbox" type: "PriorBox" bottom: "{blob}" bottom: "data" top: "{blob}_mbox_priorbox"
  prior_box_param {{
    min_size: {least} max_size: {most} {" ".join(f"aspect_ratio: {ratio}" for ratio in ratios)} flip: true clip: false
    variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2 step: {step} offset: 0.5
  }}
}}"""
    for kind, end, axis in (("loc", "loc_flat", 1), ("conf", "conf_flat", 1), ("priorbox", "priorbox", 2)):
        bottoms = " ".join(f'bottom: "{blob}_mbox_{end}"' for blob, *_ in maps)
        yield f"""layer {{ name: "mbox_{kind}" type: "Concat" {bottoms} top: "mbox_{kind}"
  concat_param {{ axis: {axis} }} }}"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("lmdb", "data"):
        (tmp_path / name).mkdir()
    with LmdbWriter(tmp_path / "lmdb") as writer:
        writer.put(records(IMAGES))
    names = ["background", *(f"class{row}" for row in range(1, CLASSES))]
    items = [f'item {{ name: "{n}" label: {row} display_name: "{n}" }}' for row, n in enumerate(names)]
    (tmp_path / "data" / "labelmap_voc.prototxt").write_text("\n".join(items))
    (tmp_path / "data" / "test_name_size.txt").write_text("".join(f"{i:08d} 160 160\n" for i in range(IMAGES)))
    write_nets(tmp_path, WIDTH, batch=4)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    return tmp_path


def write_nets(folder: Path, width: float, batch: int) -> None:
    common = [*body(width), *heads()]
    (folder / "train.prototxt").write_text("\n".join([data_layer("TRAIN", batch), *common, LOSS]))
    (folder / "test.prototxt").write_text("\n".join([data_layer("TEST", 1), *common, DETECTION]))


def test_a_step_and_a_test(caffe_prefix: Path, folder: Path) -> None:
    status, log = train(caffe_prefix, folder)
    assert status == 0, log[-2000:]
    assert all(0 < loss < 100 for loss in losses(log))
    assert (folder / "VGG_VOC0712_SSD_300x300_iter_1.caffemodel").is_file()
    assert re.search(r"Test net output #0: detection_eval = [01](\.\d+)?$", log, re.MULTILINE)
    assert "this Caffe writes no files for save_output_param" in log
    assert not (folder / "results").exists()
