"""Files and folders that are not models read here: each is named at once, without TensorFlow."""

from __future__ import annotations

import io
import json
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from ssdlite_caffe.dump.locate import locate
from ssdlite_caffe.dump.read import ReadOptions, read_model
from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.runtimes.tensorflow_detector import TensorFlowDetector


@pytest.fixture(autouse=True)
def no_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)


@pytest.fixture(params=["read", "run"])
def opened(request: pytest.FixtureRequest) -> Callable[[Path], object]:
    """What `convert` does with a model, and what `verify` and `evaluate` do."""
    return read_model if request.param == "read" else TensorFlowDetector


def zipped(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return stream.getvalue()


def safetensors() -> bytes:
    header = json.dumps({"head.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4)


def arrays() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, a=np.zeros(2))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("weights.pth", zipped("weights/data.pkl", "weights/data/0"), "is a PyTorch file"),
        ("old.pt", pickle.dumps(0x1950A86A20F9469CFC6C, 2) + bytes(60), "is a PyTorch file"),
        ("model.safetensors", safetensors(), "is a safetensors file"),
        ("detector.zip", zipped("metadata.json", "config.json", "model.weights.h5"), r"is a Keras model; .*\.keras"),
        ("detector.hdf5", b"\x89HDF\r\n\x1a\n" + bytes(90), r"is a Keras or HDF5 file \(.h5\); .*\.h5"),
        ("arrays.npz", arrays(), "is a NumPy archive"),
        ("deploy.caffemodel", b"\x0a\x03net", "is a file of Caffe already; give the TensorFlow model"),
        ("deploy.prototxt", b"layer { }", "is a file of Caffe already; give the TensorFlow model"),
        ("archive.zip", zipped("frozen_inference_graph.pb"), "is a zip archive; unpack it"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files(tmp_path: Path, opened: Callable[[Path], object], name: str, data: bytes, text: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ModelError, match=text) as raised:
        opened(tmp_path / name)
    assert str(raised.value).startswith(str(tmp_path / name))


@pytest.mark.parametrize("place", ["", "checkpoint", "ckpt-0", "ckpt-0.index", "ckpt-0.data-00000-of-00001"])
def test_an_object_based_checkpoint(tmp_path: Path, opened: Callable[[Path], object], place: str) -> None:
    (tmp_path / "ckpt-0.index").write_bytes(
        b"\0\0\0\0\0\x1c\x1f_CHECKPOINTABLE_OBJECT_GRAPH\x08\x07model/_box_predictor"
    )
    (tmp_path / "ckpt-0.data-00000-of-00001").write_bytes(b"x")
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "ckpt-0"\n')
    with pytest.raises(ModelError, match=r"ckpt-0 is an object-based checkpoint of TensorFlow 2; .* not read"):
        opened(tmp_path / place)


def saved_model(folder: Path, *names: str) -> None:
    saved = pb.SavedModel(saved_model_schema_version=1)
    meta = saved.meta_graphs.add()
    meta.meta_info_def.tags.append("serve")
    meta.graph_def.node.add(name="StatefulPartitionedCall", op="StatefulPartitionedCall")
    function = meta.graph_def.library.function.add()
    for name in names:
        function.node_def.add(name=name, op="Conv2D")
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(saved.SerializeToString())


@pytest.mark.parametrize("place", ["", "saved_model", "saved_model/saved_model.pb"])
def test_a_saved_model_of_tensorflow_2(tmp_path: Path, opened: Callable[[Path], object], place: str) -> None:
    saved_model(tmp_path / "saved_model", "ssd_mobile_net_v2_fpn_keras_feature_extractor/model/Conv1/Conv2D")
    with pytest.raises(
        ModelError,
        match=r"saved_model is a SavedModel of TensorFlow 2's Object Detection API "
        r"\(ssd_mobile_net_v2_fpn_keras_feature_extractor\); detectors of TensorFlow 2 are not read",
    ):
        opened(tmp_path / place)


def test_a_saved_model_of_another_net(tmp_path: Path, opened: Callable[[Path], object]) -> None:
    saved_model(tmp_path / "saved_model", "resnet50/conv1_conv/Conv2D")
    with pytest.raises(ModelError, match="is a SavedModel of TensorFlow 2, and not an SSD MobileNet"):
        opened(tmp_path)


def test_a_graph_of_tensorflow_1_that_tensorflow_2_saved_is_left_to_tensorflow(tmp_path: Path) -> None:
    from ssdlite_caffe.errors import MissingRuntimeError

    saved_model(tmp_path / "saved_model", "import/FeatureExtractor/MobilenetV2/Conv/Conv2D")
    with pytest.raises(MissingRuntimeError):
        read_model(tmp_path)


@pytest.mark.parametrize(
    ("files", "text"),
    [
        (("weights.pth", "model.json"), r"holds weights\.pth, no TensorFlow model \(PyTorch\)"),
        (("deploy.prototxt", "deploy.caffemodel"), "is a converted model; give the TensorFlow model"),
        (("kit.json",), "is a training folder"),
        (("JPEGImages/a.jpg", "Annotations/a.xml"), "holds annotated images, not a model; are the arguments swapped"),
        (("data.mdb", "lock.mdb"), "is an LMDB, not a model"),
        (("b.pb", "a.pb"), r"holds graphs of other names \(a\.pb, b\.pb\); give the file, as in .*a\.pb"),
        ((), r"holds no manifest\.json"),
    ],
)
def test_folders(tmp_path: Path, opened: Callable[[Path], object], files: tuple[str, ...], text: str) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ModelError, match=text) as raised:
        opened(tmp_path)
    assert str(raised.value).startswith(str(tmp_path))


def test_a_checkpoint_without_a_graph_is_read_but_not_run(tmp_path: Path) -> None:
    for name in ("model.ckpt.index", "model.ckpt.data-00000-of-00001"):
        (tmp_path / name).write_bytes(b"x")
    assert locate(tmp_path).kind == "checkpoint"
    with pytest.raises(ModelError, match=r"is a checkpoint without model\.ckpt\.meta, so it has no graph to run; give"):
        TensorFlowDetector(tmp_path)
    with pytest.raises(ModelError, match=r"no .*pipeline\.config"):
        read_model(tmp_path, ReadOptions())
