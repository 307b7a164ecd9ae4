"""A prefix that `caffe build` really built: it moves, and pycaffe needs no more than numpy and protobuf."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = [pytest.mark.caffe, pytest.mark.xdist_group("caffe")]

NET = """
name: "net"
force_backward: true
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 5 dim: 7 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu6" type: "ReLU6" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { pool: AVE global_pooling: true } }
"""
SOLVER = """
net_param {
  layer { name: "data" type: "DummyData" top: "data" top: "label"
    dummy_data_param { shape { dim: 4 dim: 3 } shape { dim: 4 dim: 2 }
      data_filler { type: "gaussian" } data_filler { value: 1 } } }
  layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
    inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
  layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "label" top: "loss" }
}
base_lr: 0.1 lr_policy: "fixed" max_iter: 9 random_seed: 7 solver_mode: CPU
"""


def _python(prefix: Path, code: str, *, ours: bool = False) -> str:
    """What a program prints that has this prefix on its path, and `ssdlite_caffe` only if `ours`."""
    site = next(path for path in sys.path if path.endswith("site-packages"))
    paths = [prefix / "python", site, *([ROOT] if ours else [])]
    lines = ["import sys", f"sys.path += {[str(path) for path in paths]}", code]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-W", "error", "-c", "\n".join(lines)],
        capture_output=True,
        text=True,
        env={**os.environ, "GLOG_minloglevel": "2"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_prefix_moves(caffe_prefix: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(caffe_prefix, tmp_path / "a folder" / "caffe"))
    libraries = subprocess.run(["ldd", moved / "bin" / "caffe"], capture_output=True, text=True, check=True).stdout
    (library,) = [line for line in libraries.splitlines() if "libcaffe.so" in line]
    assert str(moved) in os.path.realpath(library.split(" => ")[1].split(" (")[0])
    tests = [moved / "bin" / "caffe_layer_tests", "--gtest_filter=ObjectBoxTest.*", "--gtest_brief=1"]
    report = subprocess.run(tests, capture_output=True, text=True, check=True).stdout
    assert re.search(r"PASSED  \] [1-9]", report), report
    maps = _python(moved, "import caffe\nprint(open('/proc/self/maps').read())")
    mapped = {line.split(maxsplit=5)[5] for line in maps.splitlines() if ".so" in line}
    # Names of files: a folder may be called so, and an address may spell it, in hexadecimal.
    loaded = {path for path in mapped if "caffe" in Path(path).name}
    assert len(loaded) == 2
    assert all(path.startswith(str(moved)) for path in loaded)


def test_pycaffe_with_numpy_and_protobuf_alone(caffe_prefix: Path) -> None:
    """No SciPy, scikit-image or six is imported, and no warning raised."""
    code = """
for name in ("scipy", "skimage", "six", "matplotlib"):
    sys.modules[name] = None
import caffe
print(caffe.TEST, caffe.Net, "DepthwiseConvolution" in caffe.layer_type_list())
try:
    caffe.io
except ImportError as error:
    print("io needs more:", error.name)
"""
    first, second = _python(caffe_prefix, code).splitlines()
    assert first.startswith("1 <class 'caffe._caffe.Net'> True")
    assert second.startswith("io needs more: ")


@pytest.mark.parametrize("order", ["caffe ours", "ours caffe"])
def test_one_process_has_the_messages_once(caffe_prefix: Path, order: str) -> None:
    imports = {
        "caffe": "import caffe; from caffe.proto import caffe_pb2 as theirs",
        "ours": "from ssdlite_caffe.prototxt import caffe_pb2 as ours",
    }
    code = [*(imports[name] for name in order.split()), "print(theirs is ours, ours.NetParameter(name='n').name)"]
    assert _python(caffe_prefix, "\n".join(code), ours=True) == "True n\n"
    assert _python(caffe_prefix, f"{imports['caffe']}; print(theirs.NetParameter(name='n').name)") == "n\n"


def test_forward_and_backward(caffe_prefix: Path, tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    code = f"""
import numpy as np, caffe
caffe.set_mode_cpu(); caffe.set_random_seed(3)
net = caffe.Net({str(tmp_path / "net.prototxt")!r}, caffe.TEST)
assert net.inputs == ["data"] and net.outputs == ["pool"]
assert net.top_names["conv"] == ["conv"] and net.bottom_names["pool"] == ["conv"]
assert [tuple(blob.shape) for blob in net.params["conv"]] == [(4, 3, 3, 3), (4,)]
images = np.random.default_rng(0).normal(size=(5, 3, 5, 7)).astype("f4")
every = net.forward_all(blobs=["conv"], data=images)
assert every["pool"].shape == (5, 4, 1, 1) and every["conv"].shape == (5, 4, 3, 5)
for first in (0, 2):
    part = net.forward(data=images[first:first + 2], blobs=["conv"])
    np.testing.assert_array_equal(part["conv"], every["conv"][first:first + 2])
weights = net.params["conv"][0].data
windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(2, 3))
expected = np.einsum("nchwyx,ocyx->nohw", windows, weights)
np.testing.assert_allclose(every["conv"], np.clip(expected, 0, 6), atol=1e-5)
gradient = net.backward(pool=np.ones((2, 4, 1, 1)), diffs=["conv"])
np.testing.assert_allclose(gradient["conv"], 1 / 15 * ((0 < net.blobs["conv"].data) & (net.blobs["conv"].data < 6)))
assert gradient["data"].shape == (2, 3, 5, 7) and np.abs(gradient["data"]).max() > 0
both = net.forward_backward_all(data=images[:4], pool=np.ones((4, 4, 1, 1)))
np.testing.assert_array_equal(both[0]["pool"], every["pool"][:4])
assert both[1]["data"].shape == (4, 3, 5, 7)
for wrong in ({{"data": images}}, {{"other": images[:2]}}):
    try:
        net.forward(**wrong)
    except ValueError as error:
        print(error)
"""
    assert _python(caffe_prefix, code).splitlines() == [
        "data takes a batch of 2, and 5 are given",
        "arrays are given for ['other'], and the net takes ['data']",
    ]


def test_solvers_learn_and_repeat_themselves(caffe_prefix: Path, tmp_path: Path) -> None:
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    code = f"""
import caffe
caffe.set_mode_cpu()
for make in (caffe.get_solver, caffe.SGDSolver):
    solver = make({str(tmp_path / "solver.prototxt")!r})
    losses = []
    for _ in range(9):
        solver.step(1)
        losses.append(float(solver.net.blobs["loss"].data))
    print(losses)
"""
    first, second = (json.loads(line) for line in _python(caffe_prefix, code).splitlines())
    assert first == second
    assert first[-1] < first[0] / 2
