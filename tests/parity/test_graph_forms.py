"""One model in the forms that TensorFlow's own tools leave it in: each converts to the same detector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ssdlite_caffe.imports import import_tensorflow
from ssdlite_caffe.prototxt.binary import blob_to_array, read_caffemodel
from ssdlite_caffe.prototxt.text import read_net
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.tools.convert import ConvertOptions, convert
from ssdlite_caffe.tools.verify import verify
from tests.scenes import draw_scene

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow, pytest.mark.opencv]

OUTPUTS = ["num_detections", "detection_boxes", "detection_scores", "detection_classes"]

ROUNDING = 3e-7
"""Between folds that TensorFlow's tools make in float32 and ours, over a blob's largest value. Measured: 2.2e-7."""

Graph = Any
"""A GraphDef."""


def node_names(graph: Graph, suffix: str) -> list[str]:
    return [node.name for node in graph.node if node.name.endswith(suffix)]


def constant(graph: Graph, name: str, value: npt.NDArray[Any]) -> str:
    tf = import_tensorflow()
    node = graph.node.add(name=name, op="Const")
    node.attr["dtype"].type = tf.as_dtype(value.dtype).as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
    return str(node.name)


def stripped(graph: Graph) -> Graph:
    return import_tensorflow().compat.v1.graph_util.extract_sub_graph(graph, OUTPUTS)


def constants_folded(graph: Graph, *optimizers: str) -> Graph:
    """Grappler's constant folding, and others of its rewrites, as every session does it; a graph saved from one keeps
    them."""
    tf = import_tensorflow()
    from tensorflow.core.protobuf import config_pb2, rewriter_config_pb2
    from tensorflow.python.grappler import tf_optimizer

    with tf.Graph().as_default() as imported:
        tf.graph_util.import_graph_def(graph, name="")
        meta = tf.compat.v1.train.export_meta_graph(graph=imported)
    meta.collection_def["train_op"].node_list.value.extend(f"{name}:0" for name in OUTPUTS)
    config = config_pb2.ConfigProto()
    rewrite = config.graph_options.rewrite_options
    rewrite.meta_optimizer_iterations = rewriter_config_pb2.RewriterConfig.ONE
    rewrite.min_graph_nodes = -1
    rewrite.fail_on_optimizer_errors = True
    rewrite.optimizers.extend(["constfold", *optimizers])
    folded = tf_optimizer.OptimizeGraph(config, meta)
    assert len(folded.node) < len(stripped(graph).node)
    return folded


def training_nodes_removed(graph: Graph) -> Graph:
    """Without Identity and CheckNumerics, but where the loops of the pre- and postprocessor need them."""
    from tensorflow.python.framework import graph_util

    loops = ("Post", "Preprocessor", "map", "Multiple")
    kept = [node.name for node in graph.node if node.op == "Identity" and node.name.startswith(loops)]
    removed = graph_util.remove_training_nodes(stripped(graph), protected_nodes=[*OUTPUTS, *kept])
    assert not [name for name in node_names(removed, "/read") if name.startswith("FeatureExtractor")]
    return stripped(removed)


def unfused(graph: Graph) -> Graph:
    """BatchNorm written out, as graphs of 2018 hold it."""
    tf = import_tensorflow()
    written = tf.compat.v1.GraphDef(versions=graph.versions)
    for node in stripped(graph).node:
        if not node.op.startswith("FusedBatchNorm"):
            written.node.add().CopyFrom(node)
            continue

        scope = node.name.rsplit("/", 1)[0] + "/batchnorm"
        x, gamma, beta, mean, variance = node.input[:5]
        epsilon = constant(written, scope + "/add/y", np.asarray(node.attr["epsilon"].f, np.float32))

        def add(name: str, kind: str, *inputs: str) -> str:
            new = written.node.add(name=name, op=kind, input=inputs)
            new.attr["T"].type = tf.float32.as_datatype_enum
            return str(new.name)

        rsqrt = add(scope + "/Rsqrt", "Rsqrt", add(scope + "/add", "Add", variance, epsilon))
        scale = add(scope + "/mul", "Mul", rsqrt, gamma)
        offset = add(scope + "/sub", "Sub", beta, add(scope + "/mul_2", "Mul", mean, scale))
        add(node.name, "Add", add(scope + "/mul_1", "Mul", x, scale), offset)
    assert node_names(written, "/batchnorm/Rsqrt")
    return written


def fused_again(graph: Graph) -> Graph:
    from tensorflow.python.tools import optimize_for_inference_lib as lib

    fused = lib.fuse_decomposed_batch_norm(training_nodes_removed(unfused(graph)))
    assert not node_names(stripped(fused), "/batchnorm/Rsqrt")
    return stripped(fused)


def batch_norms_folded(graph: Graph) -> Graph:
    """BatchNorm multiplied into the kernels, with a BiasAdd in its place."""
    from tensorflow.python.tools import optimize_for_inference_lib as lib

    folded = stripped(lib.fold_batch_norms(training_nodes_removed(graph)))
    assert not [node for node in folded.node if node.op.startswith("FusedBatchNorm")]
    return folded


def optimized_for_inference(graph: Graph) -> Graph:
    """The steps of optimize_for_inference, on the written-out BatchNorm."""
    from tensorflow.python.tools import optimize_for_inference_lib as lib

    return stripped(lib.fuse_resize_and_conv(lib.fold_batch_norms(fused_again(graph)), OUTPUTS))


def biases_added(graph: Graph) -> Graph:
    """As the Graph Transform Tool leaves it: a plain Add of a constant after each convolution."""
    folded = batch_norms_folded(graph)
    for node in folded.node:
        if node.op == "BiasAdd":
            node.op = "Add"
            node.attr.pop("data_format", None)
    return folded


FOLDED = {
    "grappler": constants_folded,
    "grappler, all": lambda graph: constants_folded(graph, "common_subgraph_elimination", "arithmetic", "constfold"),
    "no training nodes": training_nodes_removed,
    "unfused": unfused,
    "unfused, constants folded": lambda graph: constants_folded(unfused(graph)),
    "fused again": fused_again,
    "BatchNorm folded": batch_norms_folded,
    "optimized for inference": optimized_for_inference,
    "biases added": biases_added,
}
SAME_BYTES = ("grappler", "grappler, all", "no training nodes")
"""Forms that hold the very same weights."""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("example", marks=pytest.mark.xdist_group("graph forms")),
        pytest.param(
            "Object Detection API", marks=[pytest.mark.rare, pytest.mark.story, pytest.mark.xdist_group("API forms")]
        ),
    ],
)
def model(request: pytest.FixtureRequest) -> Path:
    """A frozen graph as `keras export pb` writes it, and one of the same net as the Object Detection API does."""
    if request.param == "example":
        return Path(request.getfixturevalue("example_model"))
    return Path(request.getfixturevalue("shared_models")) / "shapes_v3_small_3" / "frozen_inference_graph.pb"


@pytest.fixture(scope="module")
def graph(model: Path) -> Graph:
    read = import_tensorflow().compat.v1.GraphDef()
    read.ParseFromString(model.read_bytes())
    return read


@pytest.fixture(scope="module")
def converted(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "out"
    convert(model, folder, ConvertOptions())
    return folder


@pytest.mark.parametrize("form", FOLDED)
def test_a_rewritten_graph_converts_to_the_same_detector(
    form: str, graph: Graph, converted: Path, tmp_path: Path
) -> None:
    source = tmp_path / "graph.pb"
    source.write_bytes(FOLDED[form](graph).SerializeToString())
    convert(source, tmp_path / "out", ConvertOptions())
    report = verify(source, ModelFolder.open(tmp_path / "out"), [(str(s), draw_scene(s)[0]) for s in range(2)])
    assert report.first_failure is None
    assert_same(tmp_path / "out", converted, bound=0.0 if form in SAME_BYTES else ROUNDING)


@pytest.mark.parametrize("resource", [False, True])
def test_a_saved_model_with_variables_converts_to_the_same_bytes(
    resource: bool, graph: Graph, converted: Path, tmp_path: Path
) -> None:
    save_with_variables(graph, tmp_path / "saved", resource=resource)
    convert(tmp_path / "saved", tmp_path / "out", ConvertOptions())
    report = verify(tmp_path / "saved", ModelFolder.open(tmp_path / "out"), [("scene", draw_scene(7)[0])])
    assert report.first_failure is None
    assert_same(tmp_path / "out", converted, bound=0.0)


def save_with_variables(graph: Graph, folder: Path, *, resource: bool) -> None:
    """A SavedModel whose weights are variables again."""
    tf = import_tensorflow()
    v1 = tf.compat.v1
    constants = {
        node.name: tf.make_ndarray(node.attr["value"].tensor)
        for node in graph.node
        if node.op == "Const" and node.name.startswith(("FeatureExtractor", "BoxPredictor"))
    }
    values = {name: value for name, value in constants.items() if value.dtype == np.float32 and value.ndim}
    with tf.Graph().as_default(), v1.Session() as session:
        variables = {
            name: v1.get_variable(name, initializer=value, use_resource=resource) for name, value in values.items()
        }
        assert len(variables) > 100
        mapped = {f"{name}:0": tf.identity(variable) for name, variable in variables.items()}
        tf.graph_util.import_graph_def(graph, name="", input_map=mapped)
        session.run(v1.global_variables_initializer())
        tensor = session.graph.get_tensor_by_name
        v1.saved_model.simple_save(
            session, str(folder), {"inputs": tensor("image_tensor:0")}, {name: tensor(f"{name}:0") for name in OUTPUTS}
        )


def assert_same(folder: Path, wanted: Path, *, bound: float) -> None:
    """The same nets, and blobs within `bound` of the blob's largest value."""
    assert read_net(folder / "deploy.prototxt") == read_net(wanted / "deploy.prototxt")
    if bound == 0:
        assert (folder / "deploy.caffemodel").read_bytes() == (wanted / "deploy.caffemodel").read_bytes()
        assert (folder / "train.caffemodel").read_bytes() == (wanted / "train.caffemodel").read_bytes()
    worst = 0.0
    for found, layer in zip(*(read_caffemodel(f / "deploy.caffemodel").layer for f in (folder, wanted)), strict=True):
        assert found.name == layer.name
        for a, b in zip(found.blobs, layer.blobs, strict=True):
            ours, theirs = blob_to_array(a), blob_to_array(b)
            assert ours.shape == theirs.shape
            worst = max(worst, float(np.abs(ours - theirs).max() / np.abs(theirs).max()))
    assert worst <= bound
