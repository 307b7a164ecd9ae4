"""The folder that a Caffe SSD fork gets, run by its own script in the built Caffe."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ssdlite_caffe import api

pytestmark = [pytest.mark.slow, pytest.mark.caffe, pytest.mark.opencv, pytest.mark.xdist_group("caffe")]


def detected(script: Path, image: Path, **variables: str) -> list[tuple[str, list[float]]]:
    """Name of the class, and score and box, of each line that a script prints."""
    done = subprocess.run(
        [sys.executable, script, image], capture_output=True, text=True, check=False, env={**os.environ, **variables}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [line.split("\t") for line in done.stdout.splitlines() if line.startswith(str(image))]
    return sorted((row[1], [float(value) for value in row[2:]]) for row in rows)


def test_both_nets_detect_what_opencv_does(example_model: Path, caffe_prefix: Path, tmp_path: Path) -> None:
    api.convert(example_model, tmp_path / "out", targets=["caffe-ssd", "opencv"])
    image = example_model.parent / "shapes.png"
    expected = detected(tmp_path / "out" / "opencv" / "detect.py", image)
    assert len(expected) > 4
    for deploy in ("deploy.prototxt", "deploy_stock.prototxt"):
        found = detected(
            tmp_path / "out" / "caffe-ssd" / "detect.py", image,
            DEPLOY=deploy, GLOG_minloglevel="2", PYTHONPATH=str(caffe_prefix / "python"),
        )  # fmt: skip
        assert [name for name, _ in found] == [name for name, _ in expected]
        for (_, values), (_, others) in zip(found, expected, strict=True):
            assert values[0] == pytest.approx(others[0], abs=2e-4)
            assert values[1:] == pytest.approx(others[1:], abs=0.11)  # printed with one digit
