"""Files that are no detectors: one clear line each."""

from __future__ import annotations

import contextlib
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from ssdlite_caffe.dump.read import read_model
from ssdlite_caffe.errors import MissingRuntimeError, ModelError, SsdliteError, TensorError
from tests.dump_graphs import GraphBuilder, mini_detector


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "is empty"),
        (b'node {\n  name: "a"\n}', "a text graph"),
        (b"hello there\n", "a text file"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"\n\n  <html><body>404", "a web page"),
        (b"\x89HDF\r\n\x1a\n" + bytes(90), "Keras or HDF5"),
        (b"PK\x03\x04" + bytes(90), "zip archive"),
        (b"\x1f\x8b\x08" + bytes(90), "gzip archive"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(90), "TensorFlow Lite"),
        (b"\x08\x07\x12\x07pytorch\x1a\x03" + bytes(90), "an ONNX model"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"model {\n ssd {", "a pipeline.config"),
        (b'model_checkpoint_path: "model.ckpt"\n', "list of a folder's checkpoints"),
        (b"\x0a\xff\xff\xff\xff\x0f" + bytes(20), "not a complete TensorFlow graph"),
        (b"\x22\x02\x08\x01", "holds no nodes"),
        (b"\x08\x01\x12\x00", "graph of a SavedModel"),
    ],
)
def test_other_files_are_named(tmp_path: Path, data: bytes, text: str) -> None:
    path = tmp_path / "model.pb"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=text) as raised:
        read_model(path)
    assert "model.pb" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_every_cut_of_a_graph_is_refused(tmp_path: Path) -> None:
    definition = mini_detector().definition
    whole = definition.SerializeToString()
    # A cut between two nodes leaves a graph of fewer nodes.
    ends = set(itertools.accumulate(len(pb.GraphDef(node=[node]).SerializeToString()) for node in definition.node))
    path = tmp_path / "cut.pb"
    for length in set(range(1, len(whole), 97)) - ends:
        path.write_bytes(whole[:length])
        with pytest.raises(SsdliteError):
            read_model(path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=400))
def test_random_bytes(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "random.pb"
    path.write_bytes(data)
    with pytest.raises(ModelError):
        read_model(path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_graphs_raise_or_are_read(tmp_path: Path, data: st.DataObject) -> None:
    """A few bytes changed in a good graph: whatever comes of it, it is our error or a model."""
    damaged = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.pb"
    path.write_bytes(bytes(damaged))
    with contextlib.suppress(SsdliteError):
        read_model(path)


WHOLE = mini_detector().definition.SerializeToString()


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_rewired_graphs_raise_or_are_read(tmp_path: Path, data: st.DataObject) -> None:
    """Inputs, ops and attributes of a good graph exchanged at random: our error or a model."""
    definition = pb.GraphDef.FromString(WHOLE)
    names = [node.name for node in definition.node]
    for _ in range(data.draw(st.integers(1, 3))):
        node = definition.node[data.draw(st.integers(0, len(names) - 1))]
        kind = data.draw(st.sampled_from(["input", "drop", "op", "attr"]))
        if kind == "input" and node.input:
            node.input[data.draw(st.integers(0, len(node.input) - 1))] = data.draw(st.sampled_from(names))
        elif kind == "drop" and node.input:
            del node.input[-1]
        elif kind == "op":
            node.op = definition.node[data.draw(st.integers(0, len(names) - 1))].op
        else:
            node.attr.clear()
    path = tmp_path / "rewired.pb"
    path.write_bytes(definition.SerializeToString())
    with contextlib.suppress(SsdliteError):
        read_model(path)


def test_nan_names_every_tensor(tmp_path: Path) -> None:
    builder = mini_detector()
    for node in builder.definition.node:
        if node.name in ("BoxPredictor_0/ClassPredictor/biases", "FeatureExtractor/MobilenetV2/Conv/weights"):
            tensor = node.attr["value"].tensor
            values = np.frombuffer(tensor.tensor_content, np.float32).copy()
            values[1] = np.nan
            tensor.tensor_content = values.tobytes()
    with pytest.raises(TensorError) as raised:
        read_model(builder.write(tmp_path / "nan.pb"))
    assert "BoxPredictor_0/ClassPredictor/biases (1 of 8)" in str(raised.value)
    assert "FeatureExtractor/MobilenetV2/Conv/weights (1 of 135)" in str(raised.value)


def test_a_node_without_all_its_inputs(tmp_path: Path) -> None:
    b = GraphBuilder()
    b.node("x", "Placeholder")
    b.node("m", "Mul", "x")
    with pytest.raises(ModelError, match=r"the node 'm' \(Mul\) must have 2 inputs, got 1; the graph is damaged"):
        read_model(b.write(tmp_path / "short.pb"))


def test_a_graph_that_is_not_frozen(tmp_path: Path) -> None:
    b = GraphBuilder()
    b.node("v", "VariableV2")
    b.node("x", "Placeholder")
    b.node("c", "Conv2D", "x", "v")
    with pytest.raises(ModelError, match="not frozen: it holds 1 VariableV2"):
        read_model(b.write(tmp_path / "g.pb"))


def test_convolutions_inside_functions(tmp_path: Path) -> None:
    b = GraphBuilder()
    b.node("x", "Placeholder")
    function = b.definition.library.function.add()
    function.node_def.add(name="c", op="Conv2D")
    with pytest.raises(ModelError, match="inside functions"):
        read_model(b.write(tmp_path / "g.pb"))


def test_folders_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        read_model(tmp_path / "gone.pb")
    with pytest.raises(
        ModelError,
        match=r"holds no manifest\.json, saved_model\.pb, frozen_inference_graph\.pb, tflite_graph\.pb, checkpoint, "
        r"\.tflite file or state_dict",
    ):
        read_model(tmp_path)
    (tmp_path / "saved_model.pbtxt").write_text("x")
    with pytest.raises(ModelError, match="in text form"):
        read_model(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"\x08\x01\x12\x7f")
    with pytest.raises(ModelError, match="not a complete SavedModel"):
        read_model(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"\x08\x01")
    with pytest.raises(ModelError, match="holds no graph"):
        read_model(tmp_path)


def test_saved_model_of_constants_needs_no_tensorflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    graph = mini_detector()
    saved = pb.SavedModel(saved_model_schema_version=1)
    meta = saved.meta_graphs.add(graph_def=graph.definition)
    meta.meta_info_def.tags.append("serve")
    saved.meta_graphs.add().meta_info_def.tags.append("train")
    (tmp_path / "saved_model.pb").write_bytes(saved.SerializeToString())
    for path in (tmp_path, tmp_path / "saved_model.pb"):
        model = read_model(path)
        assert model.form == "SavedModel"
        assert model.settings.num_classes == 4
    meta.meta_info_def.tags[0] = "other"
    (tmp_path / "saved_model.pb").write_bytes(saved.SerializeToString())
    with pytest.raises(ModelError, match=r"must have one graph with the tag serve, got 2 graphs .other; train."):
        read_model(tmp_path)


def checkpoint_files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).write_bytes(b"x")
    return folder / "model.ckpt"


def test_checkpoints_with_parts_missing(tmp_path: Path) -> None:
    prefix = checkpoint_files(tmp_path, "model.ckpt.data-00000-of-00003", "model.ckpt.data-00002-of-00003")
    with pytest.raises(ModelError, match=r"model\.ckpt\.index is missing"):
        read_model(prefix)
    checkpoint_files(tmp_path, "model.ckpt.index")
    for path in (prefix, tmp_path, tmp_path / "model.ckpt.index", tmp_path / "model.ckpt.data-00000-of-00003"):
        with pytest.raises(ModelError, match=r"model\.ckpt\.data-00001-of-00003 missing"):
            read_model(path)
    checkpoint_files(tmp_path, "model.ckpt.data-00001-of-00003")
    with pytest.raises(ModelError, match=r"no .*pipeline\.config; give its pipeline.config with --pipeline-config"):
        read_model(prefix)
    checkpoint_files(tmp_path, "other.index")
    with pytest.raises(ModelError, match=r"must hold one checkpoint, found model\.ckpt, other;"):
        read_model(tmp_path)


def test_checkpoint_without_tensorflow_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    prefix = checkpoint_files(tmp_path, "model.ckpt.index", "model.ckpt.data-00000-of-00001")
    (tmp_path / "pipeline.config").write_text(
        "model { ssd { num_classes: 3 image_resizer { fixed_shape_resizer {} } } }"
    )
    with pytest.raises(MissingRuntimeError, match=r"pip install 'ssdlite-caffe\[tensorflow\]'"):
        read_model(prefix)


def test_checkpoint_file_names_the_latest(tmp_path: Path) -> None:
    checkpoint_files(tmp_path, "a.index", "b.index")
    (tmp_path / "checkpoint").write_text(
        'model_checkpoint_path: "/somewhere/else/b"\nall_model_checkpoint_paths: "a"\n'
    )
    with pytest.raises(ModelError, match=r"checkpoint .*/b is not complete: b\.data-00000-of-00001 missing"):
        read_model(tmp_path)


def test_a_folder_s_frozen_graph_goes_before_its_checkpoint(tmp_path: Path, example_model: Path) -> None:
    (tmp_path / "frozen_inference_graph.pb").write_bytes(example_model.read_bytes())
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt"\n')
    (tmp_path / "model.ckpt.index").write_bytes(b"")
    assert read_model(tmp_path).form == "frozen graph"
