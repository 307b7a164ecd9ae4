"""The GPU build of Caffe where no GPU is: it links and starts, the CPU half works, and a GPU asked for is a line."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.caffe.build import read_stamp
from ssdlite_caffe.caffe.log import reason
from ssdlite_caffe.errors import CaffeError
from ssdlite_caffe.runtimes.caffe_net import CaffeNet

pytestmark = [pytest.mark.slow, pytest.mark.caffe, pytest.mark.xdist_group("caffe")]

SOLVER = 'train_net_param { name: "none" } base_lr: 0.1 lr_policy: "fixed" max_iter: 1 solver_mode: GPU'


@pytest.fixture
def prefix(monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `make caffe-cuda` builds, on a machine whose GPUs are hidden."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    prefix = Path(__file__).parents[2] / "build" / "caffe-cuda"
    if not read_stamp(prefix).get("cuda"):
        pytest.skip("no GPU build of Caffe: run `make caffe-cuda`")
    return prefix


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([os.fspath(part) for part in command], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["lib/libcaffe.so", "bin/caffe", "bin/caffe_layer_tests"])
def test_all_symbols_are_found(prefix: Path, name: str) -> None:
    if shutil.which("ldd") is None:
        pytest.skip("no ldd")
    found = run("ldd", "-r", prefix / name)
    assert found.returncode == 0, found.stderr
    assert "libcublas.so" in found.stdout
    assert ("libcudnn.so" in found.stdout) == read_stamp(prefix)["cudnn"]
    missing = [
        line for line in (found.stdout + found.stderr).splitlines() if "not found" in line or "undefined" in line
    ]
    assert missing == []


def test_a_gpu_that_is_not_there(prefix: Path, tmp_path: Path) -> None:
    solver = tmp_path / "solver.prototxt"
    solver.write_text(SOLVER, encoding="utf-8")
    for command in (["device_query"], ["train", "--solver", solver]):
        ended = run(prefix / "bin" / "caffe", *command)
        assert ended.returncode != 0
        why = reason(ended.stderr.splitlines())
        assert why.startswith("GPU 0 is asked for, and this machine has 0: "), why
    usage = run(prefix / "bin" / "caffe")
    assert usage.returncode == 2
    assert "describe a GPU" in usage.stderr


def test_the_cpu_half(prefix: Path, example_folder: Path) -> None:
    nets = example_folder / "deploy.prototxt", example_folder / "deploy.caffemodel"
    with CaffeNet(*nets, prefix=prefix) as net:
        assert not [line for line in net._log_lines() if "Ignoring source layer" in line]
        image = np.random.default_rng(0).uniform(-1, 1, (1, 3, 320, 320)).astype(np.float32)
        assert np.isfinite(net.forward(image, ["Conv"])["Conv"]).all()
    no_gpu = pytest.raises(CaffeError, match=r"no CUDA-capable device|CUDA driver version is insufficient")
    with no_gpu, CaffeNet(*nets, gpu=0, prefix=prefix) as net:
        net.forward(image, ["Conv"])
