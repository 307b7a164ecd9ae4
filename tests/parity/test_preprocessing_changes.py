"""Graphs whose preprocessing was changed in one place: TensorFlow runs them, and what is read of them must agree."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from ssdlite_caffe.dump.detector.preprocessing import first_convolution
from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from ssdlite_caffe.dump.graph.view import Graph, Node
from ssdlite_caffe.dump.tf1.frozen import graph_of
from ssdlite_caffe.errors import MissingRuntimeError, ModelError, SsdliteError
from ssdlite_caffe.imports import import_tensorflow
from ssdlite_caffe.resizer import Resizer
from tests.conftest import ROOT
from tests.oracles import ORACLES, oracle_folder
from tests.post_processing_runs import taken_apart
from tests.preprocessing_changes import any_changes
from tests.preprocessing_runs import Subject, difference, subject_of

pytestmark = pytest.mark.tensorflow

try:
    tf = import_tensorflow("this test")
except MissingRuntimeError as missing:
    pytest.skip(str(missing), allow_module_level=True)

EXAMPLE = ROOT / "examples" / "frozen_inference_graph.pb"


def opened(path: Path) -> Subject:
    subject = subject_of(path)
    parts = taken_apart(subject.source.definition)
    assert parts.notes == ()
    assert difference(subject, subject.source.definition, parts) is None
    return subject


def outcomes(subject: Subject, seed: int, count: int) -> Counter[str]:
    """How many of `count` changes end in which way.

    Raises:
        AssertionError: TensorFlow runs a changed graph that is accepted without a note, and makes other network inputs
            or detections.
    """
    found: Counter[str] = Counter()
    changed = any_changes(subject.source.definition, subject.names, subject.places, seed)
    for what, definition in islice(changed, count):
        try:
            parts = taken_apart(definition)
        except SsdliteError:
            found["refused"] += 1
            continue
        if parts.notes or parts.settings.unsupported or not parts.settings.pixel_scale:
            found["noted"] += 1
            continue
        try:
            wrong = difference(subject, definition, parts)
        except (tf.errors.OpError, ValueError):
            found["not run by TensorFlow"] += 1
            continue
        assert wrong is None, f"{what}: {wrong}"
        found["the same"] += 1
    return found


@pytest.mark.slow
def test_a_changed_graph_prepares_images_the_same_or_is_named() -> None:
    found = outcomes(opened(EXAMPLE), seed=17, count=60)
    assert min(found[way] for way in ("refused", "the same")) > 5, found


@pytest.mark.story
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.rare)])
def test_many_changes(seed: int) -> None:
    found = outcomes(opened(EXAMPLE), seed=100 + seed, count=300)
    assert min(found[way] for way in ("refused", "the same")) > 30, found


@pytest.mark.rare
@pytest.mark.story
@pytest.mark.parametrize("name", ["zoo2018_v2_ssdlite_90", "bccd_v2_ssdlite_3", "shapes_v3_small_3"])
def test_many_changes_of_the_apis_own_graphs(shared_models: Path, name: str) -> None:
    found = outcomes(opened(shared_models / name / "frozen_inference_graph.pb"), seed=5, count=50)
    assert min(found[way] for way in ("refused", "the same")) > 3, found


@pytest.mark.oracle
@pytest.mark.story
@pytest.mark.rare
@pytest.mark.parametrize(
    "oracle", [oracle for oracle in ORACLES if oracle.name.startswith("v2_")][:1], ids=lambda oracle: oracle.name
)
def test_many_changes_of_an_oracle(oracle: Any) -> None:
    found = outcomes(opened(oracle_folder(oracle) / "frozen_inference_graph.pb"), seed=6, count=50)
    assert min(found[way] for way in ("refused", "the same")) > 3, found


# ---- functions ----


def with_functions(path: Path, *, called: bool = False, tall: float = 1.0) -> Path:
    """The example with a preprocessing as TensorFlow 2 writes it: a loop, and a condition, whose bodies are functions.

    Args:
        path: to write.
        called: put all of it into a function that is called.
        tall: a factor of the pixels of images that are higher than wide.
    """
    v1 = tf.compat.v1
    example = v1.GraphDef.FromString(EXAMPLE.read_bytes())

    def prepared(pixels: Any) -> Any:
        floats = tf.squeeze(v1.image.resize_bilinear(tf.expand_dims(tf.cast(pixels, tf.float32), 0), (320, 320)), [0])
        shape = tf.shape(pixels)
        higher = tf.cond(
            shape[0] > shape[1],
            lambda: tf.identity(floats) if tall == 1 else floats * tall,
            lambda: tf.identity(floats),
        )
        return higher * (2 / 255) - 1.0

    def batch(pixels: Any) -> Any:
        return tf.map_fn(prepared, pixels, fn_output_signature=tf.float32)

    v2 = v1.control_flow_v2_enabled()
    v1.enable_control_flow_v2()
    try:
        with tf.Graph().as_default() as graph:
            image = v1.placeholder(tf.uint8, (1, None, None, 3), name="image_tensor")
            tf.identity((tf.function(batch) if called else batch)(image), name="Preprocessor/sub")
    finally:
        if not v2:
            v1.disable_control_flow_v2()
    made = graph.as_graph_def()
    kept = (node for node in example.node if node.name != "image_tensor" and not node.name.startswith("Preprocessor/"))
    made.node.extend(kept)
    path.write_bytes(made.SerializeToString())
    return path


def read(path: Path) -> Any:
    from ssdlite_caffe.dump.detector.take_apart import take_apart

    return take_apart(graph_of(pb.GraphDef.FromString(path.read_bytes()), path))


@pytest.mark.parametrize("called", [False, True])
def test_control_flow_of_tensorflow_2(called: bool, tmp_path: Path) -> None:
    path = with_functions(tmp_path / "a.pb", called=called)
    definition = pb.GraphDef.FromString(path.read_bytes())
    ops = {node.op for node in definition.node} | {n.op for f in definition.library.function for n in f.node_def}
    assert {"StatelessWhile", "TensorListGetItem", "StatelessIf"} <= ops
    assert ("PartitionedCall" in ops) == called
    parts = read(path)
    assert parts.notes == ()
    assert parts.settings.resizer == Resizer()
    assert parts.settings.input_size == (320, 320)
    stem = first_convolution(Graph(definition.node, source="a.pb"))
    assert isinstance(stem, Node)


def test_another_branch_in_a_function_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not prepare images as it was read"):
        read(with_functions(tmp_path / "a.pb", tall=0.5))
