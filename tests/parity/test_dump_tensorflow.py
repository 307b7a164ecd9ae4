"""What dump reads, against what TensorFlow computes of the same graphs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdlite_caffe.dump import tensorflow_subset_pb2 as pb
from ssdlite_caffe.dump.affine import Constants
from ssdlite_caffe.dump.evaluate import Evaluator
from ssdlite_caffe.dump.graph import Graph, Ref
from ssdlite_caffe.dump.model import ConvUnit, DumpedModel, FloatArray
from ssdlite_caffe.dump.read import read_model
from ssdlite_caffe.dump.tensorflow_import import tensorflow
from ssdlite_caffe.dump.units import find_units
from ssdlite_caffe.errors import MissingRuntimeError, ModelError
from tests.conftest import ROOT

pytestmark = pytest.mark.tensorflow

try:
    tf = tensorflow("this test")
except MissingRuntimeError as missing:
    pytest.skip(str(missing), allow_module_level=True)
v1 = tf.compat.v1

EXAMPLE = ROOT / "examples" / "frozen_inference_graph.pb"
MODELS = ["shapes_v3_small_3", "bccd_v2_ssdlite_3", "zoo2018_v2_ssdlite_90", "random_v3_large_90"]


def ours(graph: Any) -> Graph:
    return Graph(pb.GraphDef.FromString(graph.as_graph_def().SerializeToString()).node, source="tf")


# ---- constant arithmetic ----

A = np.array([[0.3, -1.7, 2.5], [1e-3, 7.0, -0.1]], np.float32)
B = np.array([[3.1, 0.7, -2.0], [9.0, 1e-2, 0.25]], np.float32)
I = np.array([[7, -3, 2], [5, 0, 9]], np.int32)  # noqa: E741
J = np.array([[2, 2, -3], [4, 3, 5]], np.int32)
P = np.abs(A) + np.float32(0.1)

EXACT: dict[str, Callable[[], Any]] = {
    "add": lambda: tf.add(A, B),
    "sub": lambda: A - tf.constant(B),
    "mul": lambda: A * tf.constant(B[0]),
    "realdiv": lambda: A / tf.constant(B),
    "div int": lambda: tf.raw_ops.Div(x=I, y=J),
    "floordiv": lambda: tf.constant(I) // J,
    "floordiv float": lambda: tf.constant(A) // B,
    "mod": lambda: tf.constant(I) % J,
    "minimum": lambda: tf.minimum(A, B),
    "maximum": lambda: tf.maximum(A, tf.constant(0.5)),
    "sqrt": lambda: tf.sqrt(P),
    "square": lambda: tf.square(A),
    "neg": lambda: -tf.constant(A),
    "floor": lambda: tf.floor(A),
    "ceil": lambda: tf.math.ceil(A),
    "cast to int": lambda: tf.cast(A, tf.int32),
    "cast to float": lambda: tf.cast(I, tf.float32),
    "range": lambda: tf.range(2, 17, 3),
    "range down": lambda: tf.range(9, -4, -2),
    "range float": lambda: tf.range(np.float32(0.1), np.float32(3), np.float32(0.1)),
    "reshape": lambda: tf.reshape(A, [3, -1]),
    "tile": lambda: tf.tile(A, [2, 3]),
    "fill": lambda: tf.fill([2, 3], np.float32(0.7)),
    "broadcast_to": lambda: tf.broadcast_to(A[0], [4, 3]),
    "pack": lambda: tf.stack([A, B], axis=1),
    "pack last": lambda: tf.stack([A, B], axis=-1),
    "unpack": lambda: tf.unstack(tf.constant(A), axis=1)[2],
    "concat": lambda: tf.concat([A, B], axis=-1),
    "slice": lambda: tf.slice(A, [0, 1], [-1, 2]),
    "strided": lambda: tf.constant(A)[:, ::-2],
    "strided shrink": lambda: tf.constant(A)[1, 1:],
    "strided new axis": lambda: tf.constant(A)[..., tf.newaxis, 0],
    "strided ellipsis": lambda: tf.constant(np.arange(24).reshape(2, 3, 4))[..., 1:3],
    "strided negative": lambda: tf.constant(A)[-1:, :-1],
    "expand_dims": lambda: tf.expand_dims(A, -1),
    "squeeze": lambda: tf.squeeze(tf.constant(A[:1, :, None])),
    "squeeze axis": lambda: tf.squeeze(tf.constant(A[None, :, None]), [0]),
    "transpose": lambda: tf.transpose(A, [1, 0]),
    "shape": lambda: tf.raw_ops.Shape(input=A),
    "shape long": lambda: tf.raw_ops.Shape(input=A, out_type=tf.int64),
    "size": lambda: tf.raw_ops.Size(input=A),
    "rank": lambda: tf.raw_ops.Rank(input=A),
    "gather": lambda: tf.gather(A, [2, 0, 2], axis=1),
    "gather old": lambda: tf.raw_ops.Gather(params=A, indices=[[1], [0]]),
    "greater": lambda: tf.greater(A, B),
    "less equal": lambda: tf.less_equal(A, 0.3),
    "equal": lambda: tf.equal(I, 5),
    "select": lambda: tf.raw_ops.Select(condition=[True, False], x=A, y=B),
    "select v2": lambda: tf.where(A > 0, A, B),
    "where": lambda: tf.where(A > 0),
    "zeros_like": lambda: tf.raw_ops.ZerosLike(x=I),
    "ones_like": lambda: tf.raw_ops.OnesLike(x=A),
    "split": lambda: tf.split(A, 3, axis=1)[1],
    "split sizes": lambda: tf.split(A, [1, 2], axis=1)[1],
    "prod": lambda: tf.reduce_prod(I, axis=0),
    "sum keep": lambda: tf.reduce_sum(I, axis=1, keepdims=True),
    "mean of two": lambda: tf.reduce_mean(A, axis=0),
    "max": lambda: tf.reduce_max(A, axis=[0, 1]),
    "min": lambda: tf.reduce_min(A, axis=-1),
    "all": lambda: tf.reduce_all(A > -1, axis=1),
    "any": lambda: tf.reduce_any(A > 3, axis=0),
    "half": lambda: tf.cast(tf.constant(A, tf.float16), tf.float32),
    "bfloat16": lambda: tf.cast(tf.constant([1.5, 3.140625], tf.bfloat16), tf.float32),
    "uint8": lambda: tf.cast(tf.constant([0, 255], tf.uint8), tf.float32),
    "meshgrid": lambda: tf.meshgrid(A[0], B[1])[0],
}  # fmt: skip
CLOSE: dict[str, Callable[[], Any]] = {
    "rsqrt": lambda: tf.math.rsqrt(P),
    "exp": lambda: tf.exp(A),
    "log": lambda: tf.math.log(P),
    "pow": lambda: tf.pow(P, B),
    "reciprocal": lambda: tf.math.reciprocal(B),
}


def both(make: Callable[[], Any]) -> tuple[Any, Any]:
    with v1.Graph().as_default() as graph:
        # The operands are constants of the graph, so TensorFlow computes and does not fold while building.
        result = make()
        with v1.Session(config=no_folding()) as session:
            expected = session.run(result)
    name, _, port = result.name.partition(":")
    return Evaluator(ours(graph)).value(Ref(name, int(port))), expected


def no_folding() -> Any:
    config = v1.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    config.graph_options.optimizer_options.opt_level = -1
    return config


@pytest.mark.parametrize("name", EXACT)
def test_constants_equal_tensorflows_bit_for_bit(name: str) -> None:
    found, expected = both(EXACT[name])
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", CLOSE)
def test_transcendental_constants_agree_to_two_units(name: str) -> None:
    found, expected = both(CLOSE[name])
    assert found.dtype == expected.dtype
    np.testing.assert_array_max_ulp(found, expected, maxulp=2)


# ---- convolutions: TensorFlow's own spellings of BatchNorm ----

SCOPE = "FeatureExtractor/MobilenetV2/Conv"
RNG = np.random.default_rng(5)
KERNEL = RNG.normal(size=(3, 3, 3, 6)).astype(np.float32)
NORM = {
    "gamma": RNG.normal(1, 0.5, 6).astype(np.float32),
    "beta": RNG.normal(size=6).astype(np.float32),
    "moving_mean": RNG.normal(size=6).astype(np.float32),
    "moving_variance": RNG.uniform(0.1, 3, 6).astype(np.float32),
}
PICTURE = RNG.normal(size=(1, 7, 9, 3)).astype(np.float32)
BIAS = RNG.normal(size=6).astype(np.float32)


def norm(x: Any, form: str) -> Any:
    c = {name: tf.constant(value, name=f"{SCOPE}/BatchNorm/{name}") for name, value in NORM.items()}
    order = (c["gamma"], c["beta"], c["moving_mean"], c["moving_variance"])
    if form.startswith("Fused"):
        names = ("scale", "offset", "mean", "variance")
        fused = getattr(tf.raw_ops, form)
        return fused(x=x, **dict(zip(names, order, strict=True)), epsilon=0.003, is_training=False)[0]
    gamma = c["gamma"] if "gamma" in form else None
    beta = c["beta"] if "beta" in form else None
    return tf.nn.batch_normalization(
        x, c["moving_mean"], c["moving_variance"], beta, gamma, 0.003, name=f"{SCOPE}/BatchNorm/batchnorm"
    )


def hard_swish(x: Any) -> Any:
    return x * tf.nn.relu6(x + np.float32(3)) * np.float32(1.0 / 6.0)


ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "relu6": tf.nn.relu6,
    "relu": tf.nn.relu,
    "hard_swish": hard_swish,
    "hard_sigmoid": lambda x: tf.nn.relu6(x + 3) * 0.16667,
    "none": tf.identity,
}
BODIES: dict[str, Callable[[Any], Any]] = {
    "FusedBatchNorm": lambda x: norm(x, "FusedBatchNorm"),
    "FusedBatchNormV2": lambda x: norm(x, "FusedBatchNormV2"),
    "FusedBatchNormV3": lambda x: norm(x, "FusedBatchNormV3"),
    "gamma beta": lambda x: norm(x, "gamma beta"),
    "gamma": lambda x: norm(x, "gamma"),
    "beta": lambda x: norm(x, "beta"),
    "bare": lambda x: norm(x, "bare"),
    "bias": lambda x: tf.nn.bias_add(x, BIAS),
    "bias then fused": lambda x: norm(tf.nn.bias_add(x, BIAS), "FusedBatchNormV3"),
    "bias then unfused": lambda x: norm(tf.nn.bias_add(x, BIAS), "gamma beta"),
    "nothing": tf.identity,
}


def built(body: str, activation: str) -> tuple[Any, str, str]:
    """(graph, convolution, end) of a convolution in one form."""
    with v1.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [1, 7, 9, 3], name="x")
        kernel = tf.identity(tf.constant(KERNEL, name=f"{SCOPE}/weights"), name=f"{SCOPE}/weights/read")
        conv = tf.nn.conv2d(x, kernel, strides=[1, 2, 1, 1], padding="SAME", name=f"{SCOPE}/Conv2D")
        end = tf.identity(ACTIVATIONS[activation](BODIES[body](conv)), name="end")
        tf.reshape(end, [1, -1], name="flat")
    return graph, conv.name, end.name


def run(graph: Any, fetches: list[str], **feed: FloatArray) -> list[FloatArray]:
    with v1.Session(graph=graph, config=no_folding()) as session:
        return list(session.run(fetches, {f"{name}:0": value for name, value in feed.items()}))


def apply_unit(unit: ConvUnit, parts: dict[str, FloatArray], conv: FloatArray) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A unit's BatchNorm or bias and activation, in float64, written anew from the fields' meaning."""
    p = {name: value.astype(np.float64) for name, value in parts.items()}
    x = conv.astype(np.float64)
    if "moving_mean" in p:
        assert unit.epsilon is not None
        x = (x - p["moving_mean"]) / np.sqrt(p["moving_variance"] + unit.epsilon)
        x = x * p.get("gamma", 1.0) + p.get("beta", 0.0)
    elif "scale" in p:
        x = x * p["scale"] + p["offset"]
    elif "biases" in p:
        x = x + p["biases"]
    relu6 = np.clip(x + 3, 0, 6)
    if unit.activation == "hard_sigmoid":
        assert unit.gate_scale is not None
        return relu6 * unit.gate_scale
    results = {"relu6": np.clip(x, 0, 6), "relu": np.maximum(x, 0), "hard_swish": x * relu6 / 6, "none": x}
    return results[unit.activation or ""]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("body", BODIES)
def test_unit_computes_what_tensorflow_computes(body: str, activation: str) -> None:
    graph, conv, end = built(body, activation)
    found = find_units(Constants.of(ours(graph)))
    (unit,) = found.units
    parts = {part: found.tensors[name] for part, name in unit.tensors.items()}
    np.testing.assert_array_equal(parts["weights"], KERNEL)
    assert unit.activation == activation
    assert unit.stride == (2, 1)
    assert unit.output is not None
    values = run(graph, [conv, end, f"{unit.output}:0"], x=PICTURE)
    np.testing.assert_array_equal(values[1], values[2])
    expected = apply_unit(unit, parts, values[0])
    np.testing.assert_allclose(values[1], expected, rtol=1e-5, atol=1e-5)
    whole = {"gamma", "beta", "moving_mean", "moving_variance"} & set(parts)
    for part in whole:
        np.testing.assert_array_equal(parts[part], NORM[part])
    if body.startswith("Fused") or body == "gamma beta":
        assert len(whole) == 4
        assert unit.epsilon == float(np.float32(0.003))


@pytest.mark.parametrize("activation", ["relu6", "hard_swish", "hard_sigmoid"])
@pytest.mark.parametrize("body", BODIES)
def test_grapplers_constant_folding_changes_nothing(body: str, activation: str) -> None:
    graph, _, end = built(body, activation)
    expected = run(graph, [end], x=PICTURE)[0]
    folded = grappler(graph, ["flat"])
    found = find_units(Constants.of(ours(folded)))
    (unit,) = found.units
    parts = {part: found.tensors[name] for part, name in unit.tensors.items()}
    assert unit.scope == SCOPE
    with v1.Graph().as_default() as plain:
        v1.placeholder(tf.float32, [1, 7, 9, 3], name="x")
        conv = tf.nn.conv2d(plain.get_tensor_by_name("x:0"), parts["weights"], [1, 2, 1, 1], "SAME")
    result = apply_unit(unit, parts, run(plain, [conv.name], x=PICTURE)[0])
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=2e-5)


def grappler(graph: Any, ends: list[str]) -> Any:
    from tensorflow.core.protobuf import config_pb2, rewriter_config_pb2
    from tensorflow.python.grappler import tf_optimizer

    with graph.as_default():
        collection = graph.get_collection_ref(v1.GraphKeys.TRAIN_OP)
        collection[:] = [graph.get_operation_by_name(name) for name in ends]
        meta = v1.train.export_meta_graph(graph_def=graph.as_graph_def(), graph=graph)
    config = config_pb2.ConfigProto()
    config.graph_options.rewrite_options.optimizers.extend(["constfold"])
    config.graph_options.rewrite_options.min_graph_nodes = -1
    config.graph_options.rewrite_options.meta_optimizer_iterations = rewriter_config_pb2.RewriterConfig.ONE
    definition = tf_optimizer.OptimizeGraph(config, meta)
    with v1.Graph().as_default() as folded:
        v1.import_graph_def(definition, name="")
    return folded


# ---- whole detectors ----


@pytest.fixture(scope="module", params=["example", *MODELS])
def frozen(request: pytest.FixtureRequest) -> Path:
    if request.param == "example":
        return EXAMPLE
    folder: Path = request.getfixturevalue("shared_models")
    return folder / str(request.param) / "frozen_inference_graph.pb"


@pytest.fixture(scope="module")
def loaded(frozen: Path) -> tuple[DumpedModel, Any]:
    definition = v1.GraphDef.FromString(frozen.read_bytes())
    with v1.Graph().as_default() as graph:
        v1.import_graph_def(definition, name="")
    return read_model(frozen), graph


def test_default_boxes_are_tensorflows(loaded: tuple[DumpedModel, Any]) -> None:
    model, graph = loaded
    expected = run(graph, ["Concatenate/concat:0"])[0]
    assert model.settings.default_boxes is not None
    np.testing.assert_array_equal(model.settings.default_boxes, expected)


def test_every_tensor_is_the_graphs(loaded: tuple[DumpedModel, Any]) -> None:
    """Kernels, biases and BatchNorm parts as a session gives them; unfused ones under their variables' names."""
    model, graph = loaded
    present = [name for name in model.tensors if name in {op.name for op in graph.get_operations()}]
    assert len(present) == len(model.tensors)
    for name, value in zip(present, run(graph, [f"{name}:0" for name in present]), strict=True):
        assert model.tensors[name].tobytes() == value.tobytes()
        assert model.tensors[name].shape == value.shape
    assert model.skipped == {}


def test_every_unit_computes_what_its_part_of_the_graph_does(loaded: tuple[DumpedModel, Any]) -> None:
    model, graph = loaded
    convs = [op for op in graph.get_operations() if op.type in ("Conv2D", "DepthwiseConv2dNative")]
    assert len(convs) == len(model.units)
    by_kernel = {op.inputs[1].op.name.removesuffix("/read"): op for op in convs}
    size = model.settings.input_size
    assert size is not None
    picture = np.random.default_rng(1).integers(0, 256, (1, *size, 3), np.uint8)
    names = [by_kernel[unit.tensors["weights"]].outputs[0].name for unit in model.units]
    values = run(graph, names + [f"{unit.output}:0" for unit in model.units], image_tensor=picture)
    for unit, conv, end in zip(model.units, values[: len(names)], values[len(names) :], strict=True):
        parts = {part: model.tensors[name] for part, name in unit.tensors.items()}
        expected = apply_unit(unit, parts, conv)
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(end / scale, expected / scale, rtol=0, atol=3e-6, err_msg=unit.scope)


def test_settings_are_the_pipelines(frozen: Path, loaded: tuple[DumpedModel, Any]) -> None:
    """The graph's settings against those that it was exported with, and network input against the graph's."""
    from ssdlite_caffe.dump.pipeline import settings_from_pipeline

    model, _ = loaded
    pipeline = settings_from_pipeline(frozen.with_name("pipeline.config"))
    for name in ("input_size", "num_classes", "box_coder_scales", "score_converter", "logit_scale", "iou_threshold",
                 "score_threshold", "max_per_class", "max_total"):  # fmt: skip
        assert getattr(model.settings, name) == getattr(pipeline, name), name
        assert getattr(model.settings, name) is not None
    assert (model.settings.pixel_scale, model.settings.pixel_offset) == (float(np.float32(2 / 255)), -1.0)
    assert model.settings.unsupported == ()


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
        assert dataclasses.replace(unit, output=None) == dataclasses.replace(expected, output=None)
    for name in ("input_size", "num_classes", "box_coder_scales", "score_converter", "logit_scale", "iou_threshold",
                 "score_threshold", "max_per_class", "max_total"):  # fmt: skip
        assert getattr(one.settings, name) == getattr(other.settings, name), name


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


def test_checkpoint_contradicting_its_config(tmp_path: Path) -> None:
    prefix = save_checkpoint(tmp_path, values_of(1), CONFIG.replace("num_classes: 1", "num_classes: 5"))
    with pytest.raises(ModelError, match=r"contradict each other: classes with background 2"):
        read_model(prefix)


def test_checkpoint_with_a_part_gone(tmp_path: Path) -> None:
    values = values_of(1)
    del values["FeatureExtractor/MobilenetV2/Conv/weights"]
    with pytest.raises(ModelError, match=r"MobilenetV2/Conv has .* and no kernel"):
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
    with pytest.raises(ModelError, match="object checkpoint"):
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
