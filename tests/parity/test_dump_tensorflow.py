"""What dump reads, against what TensorFlow computes of the same graphs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump.detector.affine import Constants
from ssdlite_caffe.dump.detector.units import find_units
from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from ssdlite_caffe.dump.graph.constants import Evaluator
from ssdlite_caffe.dump.graph.view import Graph, Ref
from ssdlite_caffe.dump.model import ConvUnit, DumpedModel
from ssdlite_caffe.dump.read import read_model
from ssdlite_caffe.errors import MissingRuntimeError
from ssdlite_caffe.imports import import_tensorflow
from tests.conftest import ROOT
from tests.real_models import real_models

pytestmark = pytest.mark.tensorflow

try:
    tf = import_tensorflow("this test")
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


# ---- convolutions: TensorFlow's own dialects of BatchNorm ----

SCOPE = "FeatureExtractor/MobilenetV2/Conv"
RNG = np.random.default_rng(5)
KERNEL = RNG.normal(size=(3, 3, 3, 6)).astype(np.float32)
NORM = {
    "gamma": RNG.normal(1, 0.5, 6).astype(np.float32),
    "beta": RNG.normal(size=6).astype(np.float32),
    "moving_mean": RNG.normal(size=6).astype(np.float32),
    "moving_variance": RNG.uniform(0.1, 3, 6).astype(np.float32),
}
IMAGE = RNG.normal(size=(1, 7, 9, 3)).astype(np.float32)
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
    values = run(graph, [conv, end, f"{unit.output}:0"], x=IMAGE)
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
    expected = run(graph, [end], x=IMAGE)[0]
    folded = grappler(graph, ["flat"])
    found = find_units(Constants.of(ours(folded)))
    (unit,) = found.units
    parts = {part: found.tensors[name] for part, name in unit.tensors.items()}
    assert unit.scope == SCOPE
    with v1.Graph().as_default() as plain:
        v1.placeholder(tf.float32, [1, 7, 9, 3], name="x")
        conv = tf.nn.conv2d(plain.get_tensor_by_name("x:0"), parts["weights"], [1, 2, 1, 1], "SAME")
    result = apply_unit(unit, parts, run(plain, [conv.name], x=IMAGE)[0])
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


@pytest.fixture(scope="module", params=real_models(["example", *MODELS], group=True))
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
    assert model.settings.default_boxes is not None
    if "Concatenate/concat" in {op.name for op in graph.get_operations()}:
        expected = run(graph, ["Concatenate/concat:0"])[0]
        np.testing.assert_array_equal(model.settings.default_boxes, expected)
        return
    # Our own graphs hold centres and sizes alone; codes of 0 are decoded to the default boxes.
    zeros = np.zeros((1, *graph.get_tensor_by_name("predictions/concat:0").shape[1:]), np.float32)
    expected = run(graph, ["Postprocessor/Decode/transpose_1:0"], **{"predictions/concat": zeros})[0]
    np.testing.assert_array_equal(model.settings.default_boxes, expected.reshape(-1, 4))


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
    image = np.random.default_rng(1).integers(0, 256, (1, *size, 3), np.uint8)
    names = [by_kernel[unit.tensors["weights"]].outputs[0].name for unit in model.units]
    values = run(graph, names + [f"{unit.output}:0" for unit in model.units], image_tensor=image)
    for unit, conv, end in zip(model.units, values[: len(names)], values[len(names) :], strict=True):
        parts = {part: model.tensors[name] for part, name in unit.tensors.items()}
        expected = apply_unit(unit, parts, conv)
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(end / scale, expected / scale, rtol=0, atol=3e-6, err_msg=unit.scope)


def test_settings_are_the_pipelines(frozen: Path, loaded: tuple[DumpedModel, Any]) -> None:
    """The graph's settings against those that it was exported with, and network input against the graph's."""
    from ssdlite_caffe.dump.pipeline.config import settings_from_pipeline

    model, _ = loaded
    pipeline = settings_from_pipeline(frozen.with_name("pipeline.config"))
    for name in ("input_size", "num_classes", "box_coder_scales", "score_converter", "logit_scale", "iou_threshold",
                 "score_threshold", "max_per_class", "max_total"):  # fmt: skip
        assert getattr(model.settings, name) == getattr(pipeline, name), name
        assert getattr(model.settings, name) is not None
    assert (model.settings.pixel_scale, model.settings.pixel_offset) == (float(np.float32(2 / 255)), -1.0)
    assert model.settings.unsupported == ()
