"""The contract with the scripts of tests/targets: what is read of a run that went well, failed or crashed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.gen_model.build import default_arch
from ssdlite_caffe.prototxt import caffe_pb2
from tests.targets import process
from tests.targets.cases import Case
from tests.targets.measure import _compared, named, outputs_of

SCRIPT = """
import os
def run(job):
    job.versions("numpy")
    with job.step("load"):
        print("reading", job.prototxt.read_text())
    with job.step("run"):
        {body}
        job.save(0, "out", job.inputs[0] * 2)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "job"
    made.mkdir()
    (made / "net.prototxt").write_text("a net")
    (made / "job.json").write_text(json.dumps({"precision": "fp32", "outputs": ["out"], "mean": 127.5, "scale": 0.5}))
    np.savez(made / "inputs.npz", **{"0": np.arange(3, dtype=np.float32)})  # type: ignore[arg-type]
    return made


def run(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> process.Outcome:
    """Run a script with this body of its step `run`."""
    scripts = folder.parent / "scripts"
    scripts.mkdir()
    (scripts / "runner.py").write_bytes((process.RUNNERS / "runner.py").read_bytes())
    (scripts / "run_it.py").write_text(SCRIPT.format(body=body))
    monkeypatch.setattr(process, "RUNNERS", scripts)
    return process.run(Path(sys.executable), "it", folder)


def test_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(folder, "job.tell(message='a note')", monkeypatch)
    assert (found.loads, found.runs, found.error) == (True, True, "")
    assert found.versions == {"numpy": np.__version__}
    assert found.messages == ["a note"]
    assert "reading a net" in found.log
    np.testing.assert_array_equal(found.outputs[0]["out"], [0, 2, 4])


def test_failure_names_the_step(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(folder, "raise ValueError('no layer ' + chr(10) + 'Exp')", monkeypatch)
    assert (found.loads, found.runs, found.error) == (True, False, "no layer Exp")
    assert "ValueError" in found.log
    assert not found.outputs


def test_crash(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(folder, "os.abort()", monkeypatch)
    assert (found.loads, found.runs, found.error) == (True, False, "ended by SIGABRT")


def test_too_long(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "TIMEOUT", 2.0)
    found = run(folder, "import time; time.sleep(60)", monkeypatch)
    assert (found.runs, found.error) == (False, "not done after 2 s")


def test_names_of_outputs() -> None:
    one, two = np.ones(1, np.float32), np.zeros(2, np.float32)
    assert named({"mbox/conf": one, "mbox_loc": two}, ["mbox_loc", "mbox_conf"]) == {"mbox_loc": two, "mbox_conf": one}
    assert named({"#0": one, "#1": two}, ["mbox_loc", "mbox_conf"]) == {"mbox_loc": one, "mbox_conf": two}
    assert not named({"#0": one}, ["mbox_loc", "mbox_conf"])["mbox_conf"].size


def test_outputs_are_what_no_layer_reads() -> None:
    net = caffe_pb2.NetParameter()
    for name, bottoms in (("conv", ["data"]), ("prior", ["conv", "data"]), ("flat", ["conv"]), ("priors", ["prior"])):
        net.layer.add(name=name, bottom=bottoms, top=[name])
    assert outputs_of(net) == ["flat", "priors"]


def test_detections_near_the_least_score_are_not_lost() -> None:
    """int8 is compared from 0.3 on, and scores may differ by 0.2: one of 0.31 may be 0.29, one of 0.6 may not."""

    def rows(*scores: float) -> dict[str, np.ndarray]:
        found = [[0, 1, score, 0.1 * n, 0.1, 0.1 * n + 0.05, 0.2] for n, score in enumerate(scores)]
        return {"detection_out": np.float32(found).reshape(1, 1, -1, 7), "mbox_priorbox": np.zeros(0, np.float32)}

    case, arch = Case("tpu_mlir", "example", "deploy", precision="int8"), default_arch("v2", 4)
    for program, counts in (
        (rows(0.9, 0.6, 0.29), (2, 2, 0)), (rows(0.9, 0.01, 0.31), (2, 3, 0)), (rows(0.9, 0.6, 0.31, 0.8), (3, 3, 1)),
    ):  # fmt: skip
        found = _compared(case, arch, [rows(0.9, 0.6, 0.31)], [program])
        assert (found["paired"], found["expected"], found["extra"]) == counts
