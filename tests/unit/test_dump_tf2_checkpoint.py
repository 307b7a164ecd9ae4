"""Object-based checkpoints: detectors written under TensorFlow 2's names, and read without TensorFlow."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.dump.model import DumpedModel
from ssdlite_caffe.dump.read import ReadOptions, read_model
from ssdlite_caffe.errors import ModelError, TensorError
from ssdlite_caffe.gen_model.arch import ArchSpec, Pyramid
from ssdlite_caffe.gen_model.build import build, default_arch
from ssdlite_caffe.gen_model.default_boxes import pyramid_boxes, tf_default_boxes
from ssdlite_caffe.load.own_boxes import own_default_boxes
from ssdlite_caffe.load.recognise import recognise
from tests.keras_checkpoints import keras_variables, pipeline_config, write_checkpoint
from tests.models import model_of

DEPTH = 64
"""additional_layer_depth of the small pyramids here."""


@pytest.fixture(autouse=True)
def no_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)


def ssd(width: float = 0.35, size: tuple[int, int] = (96, 128), classes: int = 4) -> ArchSpec:
    arch = default_arch("v2", classes, head="ssd", input_size=size, width_multiplier=width)
    return dataclasses.replace(arch, head_kernel=1, residuals="tf2")


def fpnlite(width: float = 0.35, size: tuple[int, int] = (96, 160), classes: int = 3, **numbers: object) -> ArchSpec:
    pyramid = dataclasses.replace(
        Pyramid(channels=max(int(DEPTH * width), 16), tower_channels=24, tower_layers=2),
        **numbers,  # type: ignore[arg-type]
    )
    boxes = pyramid_boxes(size, pyramid.min_level, pyramid.max_level)
    arch = default_arch("v2", classes, head="fpnlite", input_size=size, width_multiplier=width, boxes=boxes)
    return dataclasses.replace(arch, pyramid=pyramid, residuals="tf2")


def shared(model: DumpedModel) -> DumpedModel:
    """The model with the first map's tower and predictors, but for BatchNorms, on all maps."""
    tensors = dict(model.tensors)
    for name in model.tensors:
        if name.startswith("BoxPredictor_") and "/BatchNorm/" not in name:
            tensors[name] = model.tensors["BoxPredictor_0/" + name.partition("/")[2]]
    return dataclasses.replace(model, tensors=tensors)


def made(arch: ArchSpec) -> DumpedModel:
    model = model_of(arch, checkpoint=True)
    return model if arch.pyramid is None else shared(model)


CASES = {
    "ssd": ssd(),
    "ssd narrow": ssd(0.25, (64, 64), 2),
    "ssd wide": ssd(1.4, (64, 64), 2),
    "separable extra layers": dataclasses.replace(ssd(), extra_depthwise=True),
    "fpnlite": fpnlite(),
    "fpnlite wide": fpnlite(1.1, (64, 96)),
    "levels 4 to 5": fpnlite(0.25, (64, 96), min_level=4, max_level=5),
    "levels 2 to 6": fpnlite(0.5, (64, 64), min_level=2, max_level=6),
    "two towers": fpnlite(shared_tower=False),
    "full convolutions": fpnlite(depthwise=False, predictor_depthwise=False, tower_layers=1),
    "no BatchNorm": fpnlite(batch_norm=False, tower_batch_norm=False),
    "no tower": fpnlite(tower_layers=0, tower_channels=128),
}


def written(folder: Path, arch: ArchSpec, model: DumpedModel | None = None, *, config: str | None = None) -> Path:
    """The exporter's layout: checkpoint/ckpt-0 and pipeline.config."""
    variables = keras_variables(model or made(arch))
    write_checkpoint(folder / "checkpoint" / "ckpt-0", {"save_counter": np.int64(1), **variables})
    (folder / "pipeline.config").write_text(pipeline_config(arch, depth=DEPTH) if config is None else config)
    return folder / "checkpoint"


@pytest.mark.parametrize("name", CASES)
def test_all_weights_and_settings_are_read(name: str, tmp_path: Path) -> None:
    arch = CASES[name]
    model = made(arch)
    read = read_model(written(tmp_path, arch, model))
    assert read.form == "checkpoint"
    assert read.tensors.keys() == model.tensors.keys()
    assert all(np.array_equal(read.tensors[key], model.tensors[key]) for key in model.tensors)
    assert read.skipped == {"save_counter": "not part of the detector"}
    found = recognise(read)
    levels = arch.pyramid and (arch.pyramid.backbone_maps, arch.pyramid.coarse_maps)
    assert (found.pyramid and (found.pyramid.backbone_maps, found.pyramid.coarse_maps)) == levels
    assert found.nms.iou_threshold == pytest.approx(0.6)
    rounded = {"boxes": arch.boxes, "nms": arch.nms, "batch_norm_epsilon": arch.batch_norm_epsilon}
    assert dataclasses.replace(found, **rounded) == arch
    boxes, wanted = own_default_boxes(read, build(found)), tf_default_boxes(build(arch))
    assert np.abs(boxes - wanted).max() < 1e-6


def test_a_training_has_slots_and_other_objects(tmp_path: Path) -> None:
    arch = ssd()
    variables = keras_variables(made(arch), suffix="_1")  # of a process that had built another model before
    write_checkpoint(tmp_path / "ckpt-7", {"step": np.int64(7), **variables}, slots=list(variables))
    (tmp_path / "pipeline.config").write_text(pipeline_config(arch))
    read = read_model(tmp_path)
    assert len(read.tensors) == len(variables)
    assert sum(reason == "an optimiser's state" for reason in read.skipped.values()) == len(variables)
    assert np.array_equal(read.tensors["FeatureExtractor/MobilenetV2/Conv/weights"], variables["Conv1/kernel"])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("model { ssd { num_classes: 7 } }", "classes with background 4 in the model, 8 in the pipeline.config"),
        (
            'model { ssd { feature_extractor { type: "ssd_mobilenet_v2_fpn_keras" } } }',
            "the checkpoint is of ssd_mobilenet_v2_keras, the pipeline.config of ssd_mobilenet_v2_fpn_keras",
        ),
        (
            "model { ssd { feature_extractor { depth_multiplier: 0.5 } } }",
            "the checkpoint is of width multiplier 0.35, the pipeline.config's depth_multiplier is 0.5",
        ),
        (
            "model { ssd { feature_extractor { conv_hyperparams { activation: RELU } } } }",
            "another activation than ReLU6 in the backbone",
        ),
    ],
)
def test_a_pipeline_config_of_another_detector_is_refused(tmp_path: Path, change: str, text: str) -> None:
    checkpoint = written(tmp_path, ssd(), config=pipeline_config(ssd(), changes=change))
    with pytest.raises(ModelError, match=text):
        recognise(read_model(checkpoint))


@pytest.mark.parametrize(
    ("pyramid", "text"),
    [
        ({"max_level": 6}, "feature maps 5 in the checkpoint, 4 in the pipeline.config"),
        ({"tower_layers": 3}, "layers before the predictors 2 in the checkpoint, 3 in the pipeline.config"),
        ({"tower_channels": 32}, "channels of the towers 24 in the checkpoint, 32 in the pipeline.config"),
        ({"shared_tower": False}, "one tower for boxes and classes True in the checkpoint, False"),
        ({"depthwise": False}, "a separable pyramid True in the checkpoint, False in the pipeline.config"),
        ({"predictor_depthwise": False}, "separable predictors True in the checkpoint, False"),
    ],
)
def test_a_pyramid_of_other_numbers_is_refused(tmp_path: Path, pyramid: dict[str, object], text: str) -> None:
    checkpoint = written(tmp_path, fpnlite(), config=pipeline_config(fpnlite(**pyramid), depth=DEPTH))
    with pytest.raises(ModelError, match=text):
        read_model(checkpoint)


def test_a_checkpoint_without_its_pipeline_config(tmp_path: Path) -> None:
    checkpoint = written(tmp_path, ssd())
    (tmp_path / "pipeline.config").rename(tmp_path / "other.config")
    with pytest.raises(ModelError, match=r"there is no .*pipeline\.config; give its pipeline\.config"):
        read_model(checkpoint)
    assert read_model(checkpoint, ReadOptions(pipeline_config=tmp_path / "other.config")).settings.num_classes == 4


def test_a_checkpoint_of_another_model(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "ckpt-1", {"dense/kernel": np.zeros((2, 2), np.float32)})
    (tmp_path / "pipeline.config").write_text(pipeline_config(ssd()))
    with pytest.raises(ModelError, match=r"not of an SSD MobileNet that is read .*: its variables are dense/kernel"):
        read_model(tmp_path)


def test_a_weight_that_is_no_number(tmp_path: Path) -> None:
    model = made(ssd())
    model.tensors["FeatureExtractor/MobilenetV2/Conv/weights"][0, 0, 0, 0] = np.nan
    with pytest.raises(TensorError, match=r"FeatureExtractor/MobilenetV2/Conv/weights \(1 of"):
        read_model(written(tmp_path, ssd(), model))


def test_a_convolution_without_its_kernel(tmp_path: Path) -> None:
    variables = keras_variables(made(ssd()))
    del variables["block_3_expand/kernel"]
    write_checkpoint(tmp_path / "ckpt-0", variables)
    (tmp_path / "pipeline.config").write_text(pipeline_config(ssd()))
    with pytest.raises(ModelError, match=r"expanded_conv_3/expand has .*gamma.* but no kernel"):
        read_model(tmp_path)
