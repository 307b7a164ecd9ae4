"""The check of a GPU, with programs that say what Caffe's say: what it reads from them, and when it fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.caffe.check import run as check_run
from ssdlite_caffe.caffe.check import steps
from ssdlite_caffe.caffe.check.depthwise import _parts, moved, ours, shape_name
from ssdlite_caffe.caffe.check.machine import Machine, MissingError, StepError, python_with
from ssdlite_caffe.caffe.check.result import Result, markdown, verdict_of

SHAPE = {"n": 2, "channels": 3, "height": 8, "width": 6, "kernel": 3, "stride": 2, "pad": 1}
TESTS = """[ RUN      ] ReluTest/0.Forward
[       OK ] ReluTest/0.Forward (12 ms)
[ RUN      ] ReluTest/2.Forward
{verdict} ReluTest/2.Forward{more} (7 ms)
"""


def program(prefix: Path, name: str, text: str) -> None:
    """A program of the prefix: a shell script."""
    (prefix / "bin").mkdir(parents=True, exist_ok=True)
    path = prefix / "bin" / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with a GPU and one processor."""
    monkeypatch.setattr(steps.os, "sched_getaffinity", lambda _: {0})
    return Machine(tmp_path / "caffe", 0)


def says(machine: Machine, name: str, text: str, status: int = 0) -> None:
    program(machine.prefix, name, f"cat <<'END'\n{text}\nEND\nexit {status}")


def test_verdicts() -> None:
    def result(name: str, verdict: str) -> Result:
        return Result(name, verdict, "said", [{"a": 1, "b": 0.12345}])  # type: ignore[arg-type]

    good, bad, none = result("x", "ok"), result("y", "failed"), result("z", "skipped")
    assert verdict_of([good, none]) == "OK: 1 of 2 steps hold, 1 skipped (z)"
    assert verdict_of([good, bad, none]) == "FAILED: y (1 of 3 steps hold, 1 skipped (z))"
    assert verdict_of([none]) == "NOTHING WAS CHECKED, 1 skipped (z)"
    page = markdown({"GPU": "one"}, [good, bad])
    assert "**FAILED: y" in page
    assert "| 1 | 0.123 |" in page


def test_a_program_that_fails(machine: Machine) -> None:
    says(machine, "caffe", "I1127 10:00:00.1 1 caffe.cpp:9] Use\nF1127 10:00:00.2 1 caffe.cpp:88] Check failed: no", 1)
    with pytest.raises(StepError, match=r"caffe time ends with 1: Check failed: no"):
        machine.caffe("time", seconds=5)
    program(machine.prefix, "caffe", "echo begun; exec sleep 60")
    with pytest.raises(StepError, match="was stopped after 1 s") as stopped:
        machine.caffe("time", seconds=0.2)
    assert stopped.value.output == "begun\n"
    with pytest.raises(MissingError, match="does not start"):
        machine.run("nothing", "x", seconds=1)
    with pytest.raises(MissingError, match="no Python here has no_such_module"):
        python_with("no_such_module")
    assert python_with("numpy")


def test_the_gpu_is_described(machine: Machine) -> None:
    says(machine, "caffe", " Major revision number:         9\n Minor revision number:         0\n Name:   H100")
    assert steps.gpu_answers(machine, 5).said == "H100, compute capability 9.0"
    says(machine, "caffe", "nothing")
    with pytest.raises(StepError, match="describes no GPU"):
        steps.gpu_answers(machine, 5)


@pytest.mark.parametrize(
    ("text", "status", "verdict", "said"),
    [
        (TESTS.format(verdict="[       OK ]", more=""), 0, "ok", "2 tests ran, 1 of them on the GPU; all hold"),
        (
            TESTS.format(verdict="a.cpp:1: Failure\nwhy it fails\n[  FAILED  ]", more=", where TypeParam = x"),
            1, "failed", "1 fail; 2 tests ran, 1 of them on the GPU",
        ),
        (TESTS.format(verdict="", more="")[:75], 0, "failed", "1 tests ran, 0 of them on the GPU; those hold"),
        (TESTS.format(verdict="[       OK ]", more=""), 9, "failed", "ends with 9"),
        ("", 0, "failed", "0 tests ran"),
    ],
)  # fmt: skip
def test_layer_tests(machine: Machine, text: str, status: int, verdict: str, said: str) -> None:
    says(machine, "caffe_layer_tests", text, status)
    result = steps.layer_tests(machine, 20)
    assert result.verdict == verdict
    assert said in result.said
    if status == 1:
        assert result.rows == [{"test": "ReluTest/2.Forward", "why": "why it fails"}]


def case(folder: Path, wanted: np.ndarray) -> None:
    (folder / "net" / "wanted").mkdir(parents=True)
    np.save(folder / "net" / "wanted" / "0.npy", wanted)
    (folder / "net" / "case.json").write_text('{"input": "data", "outputs": ["mbox_loc"]}')


@pytest.mark.parametrize(
    ("cpu", "gpu", "verdict"), [(1e-6, 3.9e-6, "ok"), (1e-6, 4.5e-6, "failed"), (1e-9, 9e-7, "ok"), (2e-4, 0, "failed")]
)
def test_outputs(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpu: float, gpu: float, verdict: str
) -> None:
    case(tmp_path / "cases", np.array([2.0]))

    def forward(_: Machine, folder: Path, *, cpu: bool, **__: object) -> dict[str, np.ndarray]:
        assert folder.name == "net"
        return {"mbox_loc": np.array([2 + 2 * errors[cpu]])}

    errors = {True: cpu, False: gpu}
    monkeypatch.setattr(steps, "forward", forward)
    result = steps.outputs(machine, tmp_path / "cases", 5)
    assert result.verdict == verdict
    assert result.rows[0]["CPU"] == pytest.approx(cpu, abs=1e-12)


def log(losses: list[float], seconds: float = 0.5) -> str:
    lines = [
        f"I1127 23:59:{59 + i * seconds:09.6f} 1 solver.cpp:243] Iteration {i}, loss = {x}"
        for i, x in enumerate(losses)
    ]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (lambda x, i: x, "ok"),
        (lambda x, i: x * 1.001 if i == 0 else x, "failed"),
        (lambda x, i: x * 1.1 if i else x, "failed"),
        (lambda x, i: float("nan") if i == 30 else x, "failed"),
    ],
)
def test_training(machine: Machine, tmp_path: Path, change: Callable[[float, int], float], verdict: str) -> None:
    cpu = [20 - i * 0.1 for i in range(51)]
    gpu = [change(x, i) for i, x in enumerate(cpu)]
    script = f'case "$*" in *--gpu=0*) cat <<"A"\n{log(gpu)}\nA\n;; *) cat <<"B"\n{log(cpu)}\nB\n;; esac'
    program(machine.prefix, "caffe", script)
    result = steps.training(machine, tmp_path, 20)
    assert result.verdict == verdict
    assert len(result.rows) == 8


def test_times_are_read() -> None:
    assert steps.iteration_times(log([1, 2], 0.25)) == [pytest.approx(0.25)]
    across = "I1127 23:59:59.5 1 s.cpp:1] Iteration 10, loss = 2\nI1128 00:00:00.5 1 s.cpp:1] Iteration 20, loss = 1"
    assert steps.iteration_times(across) == [pytest.approx(1.0)]
    line = "I1127 10:00:00.1 1 caffe.cpp:9] dw/a\tforward: 0.5 ms, least 0.25 ms."
    assert steps.layer_times(line) == {"dw/a forward": (0.5, 0.25)}


def test_depthwise_shapes(machine: Machine) -> None:
    assert shape_name(SHAPE) == "2x3x8x6 k3 s2"
    there, back = 2 * 3 * 8 * 6 * 4, 2 * 3 * 4 * 3 * 4
    assert moved(SHAPE) == {"forward": there + back, "data": there + back, "weights": there + back}
    large = {**SHAPE, "n": 4096, "height": 128, "width": 128}
    parts = list(_parts([SHAPE, large, SHAPE, large]))
    assert [number for part in parts for number in part] == [0, 1, 2, 3]
    assert len(parts) > 1
    times = "\n".join(
        f"I1127 10:00:00.1 1 caffe.cpp:9] depthwise{i}\t{way}: 9 ms, least {i + 1} ms."
        for i in range(2)
        for way in ("forward", "backward")
    )
    says(machine, "caffe", times)
    assert ours(machine, [SHAPE, SHAPE], 5) == [
        dict.fromkeys(("weights", "forward", "data"), float(i + 1)) for i in range(2)
    ]


def test_without_a_gpu_the_rest_is_checked(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    program(bundle / "caffe", "caffe", "echo 'F1127 10:00:00.1 1 caffe.cpp:88] no GPU' ; exit 134")
    program(bundle / "caffe", "caffe_layer_tests", "echo '[       OK ] ReluTest/0.Forward (1 ms)'")
    (bundle / "cases").mkdir()
    said: list[str] = []
    verdict = check_run.check(bundle, tmp_path / "out", gpu=0, minutes=1, say=said.append)
    assert verdict.startswith("FAILED: the GPU answers (1 of 7 steps hold, 5 skipped (outputs; training; ")
    assert [line.split()[0] for line in said] == ["failed", "ok", *["skipped"] * 5]
    assert "no GPU" in said[0]
    written = json.loads((tmp_path / "out" / "gpu-check.json").read_text())
    assert written["verdict"] == verdict
    assert [step["verdict"] for step in written["steps"]] == [line.split()[0] for line in said]
    assert "## layer tests: ok" in (tmp_path / "out" / "gpu-check.md").read_text()
