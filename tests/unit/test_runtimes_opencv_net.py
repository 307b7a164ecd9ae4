"""Running small nets with OpenCV DNN: which values come back, and what is said of nets it cannot run."""

from __future__ import annotations

import builtins
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdlite_caffe.errors import MissingRuntimeError, PrototxtError
from ssdlite_caffe.imports import import_opencv
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.runtimes.opencv_net import OpenCvNet

pytestmark = pytest.mark.opencv

NET = """
name: "small"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 4 dim: 5 } } }
layer { name: "twice" type: "Power" bottom: "data" top: "twice" power_param { scale: 2 shift: 1 } }
layer { name: "twice/relu" type: "ReLU" bottom: "twice" top: "twice" }
layer { name: "parts" type: "Slice" bottom: "twice" top: "first" top: "rest" slice_param { axis: 1 slice_point: 1 } }
"""
INPUT = NET.split('layer { name: "twice"')[0]


def load(folder: Path, text: str) -> OpenCvNet:
    (folder / "net.prototxt").write_text(text)
    (folder / "net.caffemodel").write_bytes(caffe_pb2.NetParameter(name="small").SerializeToString())
    return OpenCvNet(folder / "net.prototxt", folder / "net.caffemodel")


@pytest.fixture
def blob() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(1, 3, 4, 5)).astype(np.float32)


def test_layers_of_one_name_have_their_own_blobs(tmp_path: Path, blob: np.ndarray) -> None:
    """As the Slice layers of the public MobileNetv2-SSDLite prototxts."""
    text = f"""{INPUT}
layer {{ name: "slice" type: "Slice" bottom: "data" top: "top" top: "below" slice_param {{ axis: 2 slice_point: 1 }} }}
layer {{ name: "slice" type: "Slice" bottom: "below" top: "left" top: "rest" slice_param {{ axis: 3 slice_point: 1 }} }}
"""
    values = load(tmp_path, text).forward(blob, ["rest", "left", "top", "below"])
    for name, expected in (
        ("top", blob[:, :, :1]),
        ("below", blob[:, :, 1:]),
        ("left", blob[:, :, 1:, :1]),
        ("rest", blob[:, :, 1:, 1:]),
    ):
        np.testing.assert_array_equal(values[name], expected)


def test_blobs_have_their_final_values(tmp_path: Path, blob: np.ndarray) -> None:
    names = ["rest", "data", "twice", "first", "twice/relu"]
    values = load(tmp_path, NET).forward(blob, names)
    expected = np.maximum(2 * blob + 1, 0)
    assert list(values) == names
    np.testing.assert_array_equal(values["data"], blob)
    np.testing.assert_allclose(values["twice"], expected, atol=1e-6)
    np.testing.assert_allclose(values["twice/relu"], expected, atol=1e-6)
    np.testing.assert_allclose(values["first"], expected[:, :1], atol=1e-6)
    np.testing.assert_allclose(values["rest"], expected[:, 1:], atol=1e-6)


def test_parts_of_a_slice_keep_their_values(tmp_path: Path, blob: np.ndarray) -> None:
    """OpenCV writes later blobs over them, except over the first, unless a layer at the end reads them."""
    layers = [(f"p{i}", "Power", "rest" if i == 0 else f"p{i - 1}", f"p{i}") for i in range(6)]
    text = (
        INPUT
        + "layer { name: 's' type: 'Slice' bottom: 'data' top: 'first' top: 'rest' slice_param { axis: 2 "
        + ("slice_point: 1 } }\n")
    )
    text += "".join(
        f"layer {{ name: '{name}' type: '{kind}' bottom: '{bottom}' top: '{top}' power_param {{ shift: 1 }} }}\n"
        for name, kind, bottom, top in layers
    )
    net = load(tmp_path, text)
    for _ in range(2):
        found = net.forward(blob, ["first", "rest", "p5"])
        np.testing.assert_array_equal(found["first"], blob[:, :, :1])
        np.testing.assert_array_equal(found["rest"], blob[:, :, 1:])
        np.testing.assert_allclose(found["p5"], blob[:, :, 1:] + 6, rtol=1e-6)


def test_a_second_run_leaves_earlier_results_alone(tmp_path: Path, blob: np.ndarray) -> None:
    net = load(tmp_path, NET)
    before = net.forward(blob, ["twice"])["twice"]
    kept = before.copy()
    net.forward(blob + 1, ["twice"])
    np.testing.assert_array_equal(before, kept)


def test_what_the_net_has_not(tmp_path: Path, blob: np.ndarray) -> None:
    net = load(tmp_path, NET)
    with pytest.raises(PrototxtError, match="no blob or layer named third, fourth"):
        net.forward(blob, ["rest", "third", "fourth"])
    with pytest.raises(PrototxtError, match="no DetectionOutput layer"):
        net.detect(blob)
    with pytest.raises(PrototxtError, match=r"input data must have the shape \(1, 3, 4, 5\), got \(1, 3, 5, 4\)"):
        net.forward(blob.reshape(1, 3, 5, 4), ["rest"])


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ('layer { name: "c" type: "Convolution" bottom: "data" top: "c" '
         "convolution_param { num_output: 2 kernel_size: 3 } }", "cannot run"),
        ('layer { name: "c" type: "ReLU" bottom: "nowhere" top: "c" }', "cannot load .*nowhere"),
        ('layer { name: "c" type: "Imaginary" bottom: "data" top: "c" }', "cannot run"),
        ('layer { nome: "c" }', "nome"),
        ("layer {", ":4:7: Expected"),
    ],
)  # fmt: skip
def test_a_net_that_opencv_rejects_is_one_line(tmp_path: Path, blob: np.ndarray, layer: str, message: str) -> None:
    with pytest.raises(PrototxtError, match=message) as caught:
        load(tmp_path, INPUT + layer).forward(blob, ["c"])
    assert "\n" not in str(caught.value)
    assert "net.prototxt" in str(caught.value)


def test_weights_that_are_not_there_or_not_weights(tmp_path: Path) -> None:
    load(tmp_path, NET)
    (tmp_path / "net.caffemodel").write_text("not a caffemodel")
    with pytest.raises(PrototxtError, match="cannot load"):
        OpenCvNet(tmp_path / "net.prototxt", tmp_path / "net.caffemodel")
    with pytest.raises(PrototxtError, match=r"caffemodel .*none\.caffemodel does not exist"):
        OpenCvNet(tmp_path / "net.prototxt", tmp_path / "none.caffemodel")


def test_nothing_is_said_on_stderr(tmp_path: Path, blob: np.ndarray, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(PrototxtError):
        load(tmp_path, INPUT + 'layer { name: "c" type: "Imaginary" bottom: "data" top: "c" }').forward(blob, ["c"])
    assert capfd.readouterr() == ("", "")


def test_without_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "cv2":
            raise ImportError("No module named 'cv2'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingRuntimeError, match=r"needs OpenCV .*pip install 'ssdlite-caffe\[opencv\]'"):
        import_opencv()


def test_opencv_5_is_too_new(monkeypatch: pytest.MonkeyPatch) -> None:
    cv2 = import_opencv()
    monkeypatch.delattr(cv2.dnn, "readNetFromCaffe")
    monkeypatch.setattr(cv2, "__version__", "5.0.0")
    with pytest.raises(MissingRuntimeError, match=r"OpenCV 5\.0\.0 cannot read Caffe nets"):
        import_opencv()


def test_importing_the_module_imports_no_opencv() -> None:
    code = "import sys, ssdlite_caffe.commands.detection_output, ssdlite_caffe.runtimes.tensorflow_detector as t; "
    code += "sys.exit(int('cv2' in sys.modules or 'tensorflow' in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
