"""Checkpoints and SavedModels that TensorFlow writes, as dump reads them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump.model import ConvUnit, DumpedModel
from ssdlite_caffe.dump.read import read_model
from ssdlite_caffe.errors import MissingRuntimeError, ModelError
from ssdlite_caffe.imports import import_tensorflow
from ssdlite_caffe.resizer import Resizer
from tests.conftest import ROOT

pytestmark = pytest.mark.tensorflow

try:
    tf = import_tensorflow("this test")
except MissingRuntimeError as missing:
    pytest.skip(str(missing), allow_module_level=True)
v1 = tf.compat.v1

EXAMPLE = ROOT / "examples" / "frozen_inference_graph.pb"


def same_detector(one: DumpedModel, other: DumpedModel, *, without_graph: bool = False) -> None:
    assert set(one.tensors) == set(other.tensors)
    for name, value in one.tensors.items():
        assert other.tensors[name].tobytes() == value.tobytes(), name
        assert other.tensors[name].shape == value.shape
    others = {unit.scope: unit for unit in other.units}
    assert len(others) == len(one.units)
    for unit in one.units:
        expected = others[unit.scope]
        if without_graph:
            unit = ConvUnit(unit.scope, unit.kind, unit.tensors, unit.epsilon)
        assert without_places(unit) == without_places(expected)
    for name in ("input_size", "num_classes", "box_coder_scales", "score_converter", "logit_scale", "iou_threshold",
                 "score_threshold", "max_per_class", "max_total"):  # fmt: skip
        assert getattr(one.settings, name) == getattr(other.settings, name), name


def without_places(unit: ConvUnit) -> ConvUnit:
    """A unit whose nodes are named as if they lay in no function, where a SavedModel puts them."""
    return dataclasses.replace(unit, output=None, input=unit.input and unit.input.replace("PartitionedCall/", ""))


@pytest.mark.parametrize("name", ["shapes_v3_small_3", "zoo2018_v2_ssdlite_90"])
def test_checkpoint_holds_the_frozen_graphs_tensors(shared_models: Path, name: str, tmp_path: Path) -> None:
    folder = shared_models / name
    graph = read_model(folder / "frozen_inference_graph.pb")
    for file in ("checkpoint", "pipeline.config", "model.ckpt.index", "model.ckpt.data-00000-of-00001"):
        (tmp_path / file).symlink_to(folder / file)
    for path in (tmp_path, folder / "model.ckpt", folder / "model.ckpt.index"):
        checkpoint = read_model(path)
        assert checkpoint.form == "checkpoint"
        assert checkpoint.settings.default_boxes is None
        assert checkpoint.settings.anchors is not None
        assert checkpoint.skipped == {"global_step": "not part of the detector"}
        same_detector(graph, checkpoint, without_graph=True)


def test_saved_model_of_constants_is_the_frozen_graph(shared_models: Path) -> None:
    folder = shared_models / "shapes_v3_small_3"
    saved = read_model(folder / "saved_model")
    assert saved.form == "SavedModel"
    same_detector(read_model(folder / "frozen_inference_graph.pb"), saved)


def test_saved_model_of_functions_is_the_frozen_graph(tmp_path: Path) -> None:
    definition = v1.GraphDef.FromString(EXAMPLE.read_bytes())

    def outputs(image_tensor: Any) -> Any:
        names = ["detection_boxes:0", "detection_scores:0", "detection_classes:0", "num_detections:0"]
        return tf.graph_util.import_graph_def(
            definition, input_map={"image_tensor:0": image_tensor}, return_elements=names, name=""
        )

    wrapped = v1.wrap_function(outputs, [tf.TensorSpec([1, None, None, 3], tf.uint8)])
    module = tf.Module()
    module.detect = tf.function(lambda image: dict(enumerate_names(wrapped(image))))
    signature = module.detect.get_concrete_function(tf.TensorSpec([1, None, None, 3], tf.uint8))
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": signature})
    saved = read_model(tmp_path)
    same_detector(read_model(EXAMPLE), saved)
    assert saved.settings.default_boxes is not None
    np.testing.assert_array_equal(saved.settings.default_boxes, read_model(EXAMPLE).settings.default_boxes)


def enumerate_names(outputs: Any) -> list[tuple[str, Any]]:
    return [(f"output_{index}", value) for index, value in enumerate(outputs)]


# ---- variables ----

CONFIG = """model { ssd { num_classes: 1 image_resizer { fixed_shape_resizer { height: 8 width: 8 } } } }"""
PARTS = {
    "FeatureExtractor/MobilenetV2/Conv/weights": (3, 3, 3, 4),
    "FeatureExtractor/MobilenetV2/Conv/BatchNorm/beta": (4,),
    "FeatureExtractor/MobilenetV2/Conv/BatchNorm/moving_mean": (4,),
    "FeatureExtractor/MobilenetV2/Conv/BatchNorm/moving_variance": (4,),
    "FeatureExtractor/MobilenetV2/layer_19_1_Conv2d_2_1x1_2/weights": (1, 1, 4, 2),
    "FeatureExtractor/MobilenetV2/layer_19_1_Conv2d_2_1x1_2/BatchNorm/moving_mean": (2,),
    "FeatureExtractor/MobilenetV2/layer_19_1_Conv2d_2_1x1_2/BatchNorm/moving_variance": (2,),
    "BoxPredictor_0/BoxEncodingPredictor/weights": (1, 1, 4, 12),
    "BoxPredictor_0/BoxEncodingPredictor/biases": (12,),
    "BoxPredictor_0/ClassPredictor/weights": (1, 1, 4, 6),
    "BoxPredictor_0/ClassPredictor/biases": (6,),
}


def save_checkpoint(folder: Path, parts: dict[str, Any], config: str = CONFIG) -> Path:
    with v1.Graph().as_default():
        variables = [v1.Variable(np.asarray(value), name=name) for name, value in parts.items()]
        with v1.Session() as session:
            session.run(v1.variables_initializer(variables))
            v1.train.Saver(variables).save(session, str(folder / "model.ckpt"), write_meta_graph=False)
    (folder / "pipeline.config").write_text(config)
    return folder / "model.ckpt"


def values_of(seed: int) -> dict[str, FloatArray]:
    rng = np.random.default_rng(seed)
    return {name: rng.uniform(0.1, 1, shape).astype(np.float32) for name, shape in PARTS.items()}


@pytest.mark.parametrize("averaged", [False, True])
def test_moving_averages_and_optimiser_state(tmp_path: Path, averaged: bool) -> None:
    values = values_of(1)
    kernel = "FeatureExtractor/MobilenetV2/Conv/weights"
    average = values[kernel] + 1
    extra = {f"{kernel}/ExponentialMovingAverage": average, f"{kernel}/RMSProp": average, f"{kernel}/Momentum": average,
             "global_step": np.int64(7), "Other/weights": average}  # fmt: skip
    config = CONFIG + ("eval_config { use_moving_averages: true }" if averaged else "")
    model = read_model(save_checkpoint(tmp_path, {**values, **extra}, config))
    np.testing.assert_array_equal(model.tensors[kernel], average if averaged else values[kernel])
    assert set(model.tensors) == set(values)
    assert model.skipped[f"{kernel}/RMSProp"] == model.skipped[f"{kernel}/Momentum"] == "an optimiser's state"
    assert model.skipped["global_step"] == model.skipped["Other/weights"] == "not part of the detector"
    reasons = (f"{kernel}/ExponentialMovingAverage" in model.skipped, kernel in model.skipped)
    assert reasons == (not averaged, averaged)
    assert model.settings.num_classes == 2


def test_what_no_caffe_net_does_is_kept_from_the_config(tmp_path: Path) -> None:
    soft = "post_processing { batch_non_max_suppression { soft_nms_sigma: 0.5 } }"
    config = CONFIG.replace("num_classes: 1", f"num_classes: 1 {soft}")
    assert read_model(save_checkpoint(tmp_path, values_of(1), config)).settings.unsupported == ("soft NMS (sigma 0.5)",)


def test_checkpoint_contradicting_its_config(tmp_path: Path) -> None:
    prefix = save_checkpoint(tmp_path, values_of(1), CONFIG.replace("num_classes: 1", "num_classes: 5"))
    with pytest.raises(ModelError, match=r"contradict each other: classes with background 2"):
        read_model(prefix)


def test_checkpoint_with_a_part_gone(tmp_path: Path) -> None:
    values = values_of(1)
    del values["FeatureExtractor/MobilenetV2/Conv/weights"]
    with pytest.raises(ModelError, match=r"MobilenetV2/Conv has .* but no kernel"):
        read_model(save_checkpoint(tmp_path, values))


def test_checkpoint_cut_short(tmp_path: Path) -> None:
    prefix = save_checkpoint(tmp_path, values_of(1))
    data = tmp_path / "model.ckpt.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(ModelError, match="cannot read") as raised:
        read_model(prefix)
    assert "\n" not in str(raised.value)
    (tmp_path / "model.ckpt.index").write_bytes(b"nothing like an index")
    with pytest.raises(ModelError, match="cannot read the checkpoint"):
        read_model(prefix)


def test_object_checkpoint_is_refused(tmp_path: Path) -> None:
    module = tf.Module()
    module.v = tf.Variable(1.0)
    prefix = tf.train.Checkpoint(module=module).write(str(tmp_path / "ckpt"))
    (tmp_path / "pipeline.config").write_text(CONFIG)
    with pytest.raises(ModelError, match="is an object-based checkpoint of TensorFlow 2"):
        read_model(prefix)


@pytest.mark.parametrize("resource", [False, True])
def test_saved_model_of_variables(tmp_path: Path, resource: bool) -> None:
    values = values_of(2)
    with v1.Graph().as_default() as graph:
        v = {name: v1.get_variable(name, initializer=value, use_resource=resource) for name, value in values.items()}
        x = v1.placeholder(tf.float32, [1, 8, 8, 3], name="x")
        scope = "FeatureExtractor/MobilenetV2/Conv"
        body = tf.nn.conv2d(x, v[f"{scope}/weights"], 1, "SAME", name=f"{scope}/Conv2D")
        norm_parts = [v[f"{scope}/BatchNorm/{part}"] for part in ("beta", "moving_mean", "moving_variance")]
        body = tf.nn.relu6(tf.nn.batch_normalization(body, norm_parts[1], norm_parts[2], norm_parts[0], None, 0.001))
        ends = {}
        for head in ("BoxEncodingPredictor", "ClassPredictor"):
            name = f"BoxPredictor_0/{head}"
            y = tf.nn.conv2d(body, v[f"{name}/weights"], 1, "SAME", name=f"{name}/Conv2D")
            ends[head] = tf.reshape(tf.nn.bias_add(y, v[f"{name}/biases"]), [1, -1], name=head)
        with v1.Session(graph=graph) as session:
            session.run(v1.global_variables_initializer())
            v1.saved_model.simple_save(session, str(tmp_path / "m"), {"x": x}, ends)
    model = read_model(tmp_path / "m")
    unused = "FeatureExtractor/MobilenetV2/layer_19_1_Conv2d_2_1x1_2"
    assert set(model.tensors) == {name for name in values if not name.startswith(unused)}
    for name, value in model.tensors.items():
        np.testing.assert_array_equal(value, values[name])
    assert set(model.skipped) == {name for name in values if name.startswith(unused)}
    assert model.units[0].epsilon == float(np.float32(0.001))


# ---- resizers of checkpoints ----

LETTERBOX = "keep_aspect_ratio_resizer { min_dimension: 6 max_dimension: 8 pad_to_max_dimension: true }"


def with_resizer(text: str) -> str:
    return CONFIG.replace("fixed_shape_resizer { height: 8 width: 8 }", text)


def save_meta(prefix: Path, *, align_corners: bool) -> None:
    """A .meta file with a graph that reads images, for inference."""
    with v1.Graph().as_default() as graph:
        image = v1.placeholder(tf.uint8, (1, None, None, 3), name="image_tensor")
        shown = v1.image.resize_images(image, (8, 8), align_corners=align_corners)
        kernel = np.zeros(PARTS["FeatureExtractor/MobilenetV2/Conv/weights"], np.float32)
        tf.nn.conv2d(shown * (2.0 / 255.0) - 1.0, kernel, 1, "SAME", name="FeatureExtractor/MobilenetV2/Conv/Conv2D")
        v1.train.export_meta_graph(f"{prefix}.meta", graph=graph)


def test_a_checkpoint_s_resizer_is_its_config_s(tmp_path: Path) -> None:
    model = read_model(save_checkpoint(tmp_path, values_of(1), with_resizer(LETTERBOX)))
    expected = Resizer("keep_aspect_ratio", min_dimension=6, max_dimension=8, normalise_first=True)
    assert model.settings.resizer == expected
    assert any("does not say whether pixels are normalised before or after" in note for note in model.notes)
    with pytest.raises(ModelError, match=r"pipeline\.config is identity_resizer, which .*; allowed are"):
        read_model(save_checkpoint(tmp_path, values_of(1), with_resizer("identity_resizer { }")))


def test_the_graph_beside_a_checkpoint_is_compared_with_its_config(tmp_path: Path) -> None:
    prefix = save_checkpoint(tmp_path, values_of(1))
    save_meta(prefix, align_corners=True)
    model = read_model(prefix)
    assert model.settings.resizer == Resizer()
    (note,) = [note for note in model.notes if "resizer" in note]
    assert "the former is used: resizer fixed_shape, bilinear, not fixed_shape, bilinear, align_corners" in note
    save_meta(prefix, align_corners=False)
    assert not [note for note in read_model(prefix).notes if "resizer" in note]
