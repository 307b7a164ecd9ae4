"""Keras models from the family tables: names, shapes, what the layers compute, files."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ssdlite_caffe.coco.label_map import LabelMap, builtin
from ssdlite_caffe.errors import ArchError, LabelMapError, ModelError, OutputError, TensorError
from ssdlite_caffe.gen_model.arch import FAMILIES, ArchSpec, Nms
from ssdlite_caffe.gen_model.build import build, default_arch
from ssdlite_caffe.gen_model.default_boxes import tf_default_boxes
from ssdlite_caffe.gen_model.padding import same_padding
from ssdlite_caffe.keras.import_model import import_detector
from ssdlite_caffe.keras.model import KerasModel, build_model, detector_of
from ssdlite_caffe.keras.names import layer_name, node_scopes, scope_of_layer
from ssdlite_caffe.keras.store import load, save
from ssdlite_caffe.keras.weights import get_values, keras_values, set_values
from ssdlite_caffe.runtimes.decode import choose_detections, convert_scores, decode_boxes
from ssdlite_caffe.runtimes.detections import Detections
from tests.models import model_of, with_settings, with_tensors, with_unit

pytestmark = [pytest.mark.tensorflow, pytest.mark.xdist_group("keras model")]

SMALL = default_arch("v2", 4, input_size=(64, 96), width_multiplier=0.35)
SMALL_V3 = default_arch("v3-small", 3, input_size=(80, 64), width_multiplier=0.35)


@pytest.fixture(scope="module")
def detector() -> KerasModel:
    return import_detector(model_of(SMALL))


def test_every_node_has_a_scope_of_its_own() -> None:
    for family in FAMILIES:
        net = build(default_arch(family, 3, input_size=(96, 96)))
        scopes = node_scopes(net)
        assert len(set(scopes.values())) == len(scopes)
        for scope in scopes.values():
            assert "/" not in layer_name(scope)
            assert scope_of_layer(layer_name(scope)) == scope
    large = node_scopes(build(default_arch("v3-large", 3)))
    assert large["conv_3/squeeze_excite"] == "FeatureExtractor/MobilenetV3/expanded_conv_3/squeeze_excite/mul"
    assert large["conv_2/sum"] == "FeatureExtractor/MobilenetV3/expanded_conv_2/add"


@pytest.mark.parametrize(
    ("family", "head", "explicit"),
    [
        ("v1", "ssd", False),
        ("v2", "ssdlite", True),
        ("v3-large", "ssdlite", False),
        ("v3-small-minimalistic", "ssd", False),
    ],
)
def test_layers_are_the_family_tables(family: Any, head: Any, explicit: bool) -> None:
    arch = default_arch(family, 5, input_size=(70, 101), head=head, width_multiplier=0.35)
    arch = dataclasses.replace(arch, explicit_padding=explicit)
    net = build(arch)
    model = build_model(arch)
    layers = {layer.name: layer for layer in model.layers}
    for conv in net.convolutions:
        layer = layers[layer_name(conv.tf_scope)]
        kernel = (*conv.kernel, conv.in_channels, 1 if conv.depthwise else conv.num_output)
        assert tuple(layer.kernel.shape) == kernel
        assert tuple(layer.output.shape[1:]) == (*conv.out_size, conv.num_output)
        assert layer.use_bias == conv.bias
        assert (f"{layer.name}.BatchNorm" in layers) == conv.batch_norm
        padded = conv.padding != same_padding(conv.in_size, conv.kernel, conv.stride)
        assert (f"{layer.name}.Pad" in layers) == padded
    assert {name: tuple(end.shape) for name, end in model.output.items()} == {
        "box_encodings": (None, net.num_default_boxes, 4),
        "class_predictions_with_background": (None, net.num_default_boxes, 5),
    }
    if explicit:
        assert any(name.endswith(".Pad") for name in layers)


def test_training_defaults() -> None:
    model = build_model(SMALL_V3, class_bias=-4.6)
    norm = model.get_layer(layer_name("FeatureExtractor/MobilenetV3/Conv/BatchNorm"))
    assert (norm.momentum, norm.epsilon) == (0.97, 1e-3)
    np.testing.assert_allclose(model.get_layer("BoxPredictor_3.ClassPredictor").bias, -4.6)
    assert np.abs(model.get_layer("BoxPredictor_3.BoxEncodingPredictor").bias).max() == 0
    for asked, momentum in ((0.9, 0.9), (None, 0.9997)):
        norm = build_model(SMALL, momentum=asked).get_layer("BoxPredictor_0.ClassPredictor_depthwise.BatchNorm")
        assert norm.momentum == momentum


def test_batch_norm_trains_as_keras_own() -> None:
    from ssdlite_caffe.imports import import_keras

    keras, tf = import_keras()
    from ssdlite_caffe.keras.layers import FusedBatchNorm

    ours, theirs = FusedBatchNorm(momentum=0.8), keras.layers.BatchNormalization(momentum=0.8)
    values = np.random.default_rng(0).normal(3, 2, (4, 5, 6, 7)).astype(np.float32)
    for layer in (ours, theirs):
        layer.build(values.shape)
        layer.gamma.assign(np.linspace(1, 2, 7))
    results, gradients = [], []
    for layer in (ours, theirs):
        with tf.GradientTape() as tape:
            result = layer(values, training=True)
            loss = tf.reduce_sum(result**3)
        results.append(result)
        gradients.append(tape.gradient(loss, layer.gamma.value))
    np.testing.assert_allclose(*results, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(*gradients, rtol=1e-3)
    np.testing.assert_allclose(ours.moving_mean, theirs.moving_mean, rtol=1e-5)
    unbiased = 0.8 + (np.asarray(theirs.moving_variance) - 0.8) * 120 / 119
    np.testing.assert_allclose(ours.moving_variance, unbiased, rtol=1e-5)
    np.testing.assert_allclose(ours(values, training=False), theirs(values, training=False), rtol=2e-2, atol=2e-2)
    theirs.set_weights(ours.get_weights())
    np.testing.assert_allclose(ours(values), theirs(values), rtol=1e-4, atol=1e-5)
    ours.trainable = False
    before = np.asarray(ours.moving_mean)
    ours(values + 5, training=True)
    np.testing.assert_array_equal(before, ours.moving_mean)


def test_pixels_and_images_are_what_tensorflow_reads(detector: KerasModel) -> None:
    from ssdlite_caffe.runtimes.resize import network_input

    arch = detector.arch
    image = np.random.default_rng(1).integers(0, 256, (37, 53, 3), np.uint8)
    fed = network_input(image, arch.input_size, mean=arch.pixel_mean, scale=arch.pixel_scale)
    stem = detector.rebuilt(inputs="image").model.get_layer("Preprocessor")
    np.testing.assert_allclose(stem(image[None]), fed, atol=2e-7)
    exact = np.random.default_rng(2).integers(0, 256, (2, *arch.input_size, 3)).astype(np.float32)
    pixels = detector.rebuilt(inputs="pixels").model
    stem = pixels.get_layer("Preprocessor")(exact)
    np.testing.assert_array_equal(stem, exact * np.float32(2 / 255) - np.float32(1))


def test_activations_round_as_tensorflows() -> None:
    """x * relu6(x + 3) * (1/6), from left to right in float32, and not x / 6, which rounds otherwise."""
    from ssdlite_caffe.imports import import_keras

    import_keras()
    from ssdlite_caffe.keras.layers import HardSigmoid, HardSwish

    values = np.random.default_rng(0).normal(0, 3, 1000).astype(np.float32)
    inner = np.clip(values + np.float32(3), 0, 6)
    np.testing.assert_array_equal(HardSwish()(values), values * inner * np.float32(1 / 6))
    np.testing.assert_array_equal(HardSigmoid(0.16667)(values), inner * np.float32(0.16667))


@settings(max_examples=8)
@given(
    clip_first=st.booleans(),
    per_class=st.integers(1, 9),
    total=st.integers(1, 30),
    score_threshold=st.sampled_from([1e-8, 0.3]),
    converter=st.sampled_from(["sigmoid", "softmax"]),
    seed=st.integers(0, 99),
)
@example(clip_first=False, per_class=9, total=3, score_threshold=1e-8, converter="sigmoid", seed=0)
@example(clip_first=True, per_class=9, total=30, score_threshold=1e-8, converter="softmax", seed=0)
def test_detections_are_the_reference_decoders(
    clip_first: bool, per_class: int, total: int, score_threshold: float, converter: Any, seed: int
) -> None:
    nms = Nms(0.4, score_threshold, per_class, total, clip_first)
    arch = dataclasses.replace(SMALL, nms=nms, score_converter=converter, variances=(0.1, 0.2, 0.3, 0.4))
    from ssdlite_caffe.imports import import_keras

    import_keras()
    from ssdlite_caffe.keras.layers import Decode, NonMaxSuppression

    random = np.random.default_rng(seed)
    corners = tf_default_boxes(build(arch)).astype(np.float32)
    # Wide enough for boxes to leave the image altogether.
    codes = random.normal(0, 6, (2, len(corners), 4)).astype(np.float32) * np.float32([1, 1, 0.3, 0.3])
    logits = random.normal(0, 2, (2, len(corners), arch.num_classes)).astype(np.float32)
    raw = {"box_encodings": codes, "class_predictions_with_background": logits}
    found = {k: np.asarray(v) for k, v in NonMaxSuppression(arch.to_dict())(Decode(arch.to_dict())(raw)).items()}
    for image in range(2):
        variances = np.float32(arch.variances)
        boxes = decode_boxes(codes[image][:, [1, 0, 3, 2]], corners[:, [1, 0, 3, 2]], variances)
        wanted = choose_detections(boxes, convert_scores(logits[image], converter), nms)
        count = int(found["num_detections"][image])
        got = Detections(
            found["detection_classes"][image, :count].astype(np.int64),
            found["detection_scores"][image, :count],
            found["detection_boxes"][image, :count][:, [1, 0, 3, 2]],
        )
        assert len(got) == len(wanted) > 0
        np.testing.assert_array_equal(got.classes, wanted.classes)
        np.testing.assert_allclose(got.scores, wanted.scores, rtol=1e-5)
        np.testing.assert_allclose(got.boxes, wanted.boxes, atol=1e-5)
        assert (found["detection_scores"][image, count:] == 0).all()
        assert (found["detection_boxes"][image, count:] == 0).all()
        assert (found["detection_classes"][image, count:] == 1).all(), "the OD API counts from 1 there too"
        assert found["detection_scores"].shape[1] == total


def test_weights_go_in_and_come_out() -> None:
    model = model_of(SMALL_V3)
    net = build(SMALL_V3)
    values = keras_values(model, net)
    keras_model = build_model(SMALL_V3)
    set_values(keras_model, values)
    kept = get_values(keras_model)
    assert kept.keys() == values.keys()
    conv = next(c for c in net.convolutions if c.depthwise)
    np.testing.assert_array_equal(
        kept[f"{layer_name(conv.tf_scope)}/kernel"], model.tensors[f"{conv.tf_scope}/depthwise_weights"]
    )
    np.testing.assert_array_equal(
        kept["BoxPredictor_0.ClassPredictor/kernel"], model.tensors["BoxPredictor_0/ClassPredictor/weights"]
    )
    for part in ("gamma", "beta", "moving_mean", "moving_variance"):
        np.testing.assert_array_equal(
            kept[f"{layer_name(conv.tf_scope)}.BatchNorm/{part}"], model.tensors[f"{conv.tf_scope}/BatchNorm/{part}"]
        )


def test_folded_batch_norms_compute_the_same() -> None:
    model = model_of(SMALL_V3)
    scope = "FeatureExtractor/MobilenetV3/Conv"
    mean, variance, gamma, beta = (
        model.tensors[f"{scope}/BatchNorm/{part}"].astype(np.float64)
        for part in ("moving_mean", "moving_variance", "gamma", "beta")
    )
    scale = gamma / np.sqrt(variance + 1e-3)
    names = {part: f"{scope}/BatchNorm/{part}" for part in ("scale", "offset")}
    folded = with_tensors(
        model,
        {
            **{f"{scope}/BatchNorm/{part}": None for part in ("moving_mean", "moving_variance", "gamma", "beta")},
            names["scale"]: scale.astype(np.float32),
            names["offset"]: (beta - mean * scale).astype(np.float32),
        },
    )
    folded = with_unit(folded, scope, tensors={"weights": f"{scope}/weights", **names}, epsilon=None)
    fed = np.random.default_rng(0).uniform(-1, 1, (1, 80, 64, 3)).astype(np.float32)
    one, other = (import_detector(m).model(fed)["box_encodings"] for m in (model, folded))
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5 * np.abs(one).max())


def test_a_factor_of_the_logits_goes_into_the_class_predictors() -> None:
    model, net = model_of(SMALL), build(SMALL)
    plain, scaled = (keras_values(with_settings(model, logit_scale=scale), net) for scale in (1.0, 0.3))
    predictors = {layer_name(m.conf[-1].tf_scope) for m in net.feature_maps}
    for name, value in plain.items():
        wanted = value.astype(np.float64) * 0.3 if name.split("/")[0] in predictors else value
        np.testing.assert_array_equal(scaled[name], wanted.astype(np.float32), name)


def test_variances_can_be_folded_into_the_predictors() -> None:
    fed = np.random.default_rng(0).uniform(-1, 1, (1, 64, 96, 3)).astype(np.float32)
    model = with_settings(model_of(SMALL), box_coder_scales=(10.0, 8.0, 5.0, 4.0))
    kept = import_detector(model, outputs="decoded")
    folded = import_detector(model, outputs="decoded", variances="fold")
    assert folded.arch.variances == (1.0, 1.0, 1.0, 1.0)
    a, b = (d.rebuilt(outputs="raw").model(fed)["box_encodings"] for d in (kept, folded))
    np.testing.assert_allclose(np.asarray(a) * [0.1, 0.125, 0.2, 0.25], b, rtol=1e-5, atol=1e-5)
    a, b = (d.model(fed)["boxes"] for d in (kept, folded))
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5", ".h5"])
def test_files_keep_everything(detector: KerasModel, tmp_path: Path, suffix: str) -> None:
    labels = LabelMap.of_names(["Katze", "犬", "bird"])
    named = KerasModel(build_model(SMALL, labels), SMALL, labels)
    named.model.set_weights(detector.model.get_weights())
    path, again = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    save(named, path)
    save(named, again)
    assert path.read_bytes() == again.read_bytes()
    found = load(path)
    assert found.labels == labels
    assert found.arch == SMALL == named.arch
    assert detector_of(found.model) is not None
    kept, wanted = get_values(found.model), get_values(named.model)
    assert kept.keys() == wanted.keys()
    assert all((kept[name] == wanted[name]).all() for name in kept)
    with pytest.raises(OutputError, match="exists already"):
        save(named, path)


def test_files_keep_inputs_and_outputs(detector: KerasModel, tmp_path: Path) -> None:
    whole = detector.rebuilt(inputs="image", outputs="detections")
    image = np.random.default_rng(3).integers(0, 256, (1, 50, 40, 3), np.uint8)
    for suffix in (".keras", ".h5"):
        save(whole, tmp_path / f"a{suffix}")
        found = load(tmp_path / f"a{suffix}").model(image)
        for name, value in whole.model(image).items():
            np.testing.assert_array_equal(found[name], value)


def test_bad_files_are_one_line(detector: KerasModel, tmp_path: Path) -> None:
    from ssdlite_caffe.imports import import_keras

    keras, _ = import_keras()
    good = tmp_path / "good.keras"
    save(detector, good)
    data = good.read_bytes()
    cut = tmp_path / "cut.keras"
    cut.write_bytes(data[: len(data) // 2])
    text = tmp_path / "text.h5"
    text.write_text("nothing")
    weights = tmp_path / "plain.weights.h5"
    detector.model.save_weights(weights)
    other = tmp_path / "other.keras"
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(other)
    unsafe = tmp_path / "unsafe.keras"
    keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda x: x + 1)]).save(unsafe)
    shrunk = tmp_path / "shrunk.keras"
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(shrunk, "w") as target:
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename == "config.json":
                content = content.replace(b'"num_classes": 4', b'"num_classes": 5')
            target.writestr(entry.filename, content)
    for path, message in (
        (tmp_path / "none.keras", "does not exist"),
        (tmp_path, "is a folder"),
        (cut, "cannot be read"),
        (text, "cannot be read"),
        (weights, "without the description of their net"),
        (other, "not a detector"),
        (unsafe, "not a detector"),
        (shrunk, r"cannot be read|classes"),
    ):
        with pytest.raises((ModelError, LabelMapError), match=message) as error:
            load(path)
        assert "\n" not in str(error.value)
    with pytest.raises(OutputError, match="a Keras model must end in"):
        save(detector, tmp_path / "a.pb")


def test_the_configuration_says_what_the_model_is(detector: KerasModel, tmp_path: Path) -> None:
    save(detector, tmp_path / "a.keras")
    with zipfile.ZipFile(tmp_path / "a.keras") as archive:
        config = json.loads(archive.read("config.json"))
    layers = {layer["config"]["name"]: layer for layer in config["config"]["layers"]}
    assert ArchSpec.from_dict(layers["predictions"]["config"]["arch"]) == detector.arch
    assert all(layer["class_name"] != "Lambda" for layer in layers.values())


def test_what_does_not_fit_is_named() -> None:
    model = model_of(SMALL)
    net = build(SMALL)
    lost = with_tensors(model, {"BoxPredictor_1/ClassPredictor/biases": None})
    with pytest.raises(TensorError, match=r"'BoxPredictor_1/ClassPredictor/biases' .* is missing"):
        keras_values(lost, net)
    more = with_tensors(model, {"BoxPredictor_9/odd": np.zeros(3, np.float32)})
    with pytest.raises(TensorError, match=r"'BoxPredictor_9/odd' \(3,\) is not used"):
        keras_values(more, net)
    values = keras_values(model, net)
    keras_model = build_model(SMALL)
    name = "BoxPredictor_0.BoxEncodingPredictor/bias"
    with pytest.raises(TensorError, match=f"'{name}' has no value"):
        set_values(keras_model, {k: v for k, v in values.items() if k != name})
    with pytest.raises(TensorError, match="has no variable 'odd'"):
        set_values(keras_model, {**values, "odd": values[name]})
    with pytest.raises(TensorError, match=r"must have the shape \(12,\), its value has \(11,\)"):
        set_values(keras_model, {**values, name: values[name][1:]})


def test_what_cannot_be_built_is_said() -> None:
    with pytest.raises(ArchError, match="classifier"):
        build_model(default_arch("v2", 10, classifier=True))
    with pytest.raises(LabelMapError, match="2 classes but the model has 4"):
        build_model(SMALL, LabelMap.of_names(["one"]))
    with pytest.raises(LabelMapError, match="21 classes but the model has 4"):
        import_detector(model_of(SMALL), labels=builtin("voc"))
