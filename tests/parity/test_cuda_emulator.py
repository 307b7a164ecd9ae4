"""The layers' GPU code on an emulated GPU: it passes the tests that a GPU runs, and mistakes put into it are found."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.caffe]

EMULATOR = ROOT / "src_cuda" / "emulator"
ON_THE_GPU = "*/2.*:*/3.*:CopiesTest*"
"""Tests of a device run with floats and doubles on the CPU (0, 1) and on the GPU (2, 3)."""


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"emulator_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


mistakes = _module(EMULATOR / "test" / "mistakes.py")
rewriting = _module(EMULATOR / "rewrite.py")


@pytest.fixture(scope="module")
def programs() -> Path:
    folder = ROOT / "build" / "emulator" / "bin"
    if not (folder / "seeded_layer_tests").is_file():
        pytest.skip("no emulator is built: run `make emulator`")
    return folder


def run(program: Path, tests: str = "*", *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, f"--gtest_filter={tests}", "--gtest_brief=1", *options],
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, "GLOG_minloglevel": "2", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **environment},
        timeout=900,
    )


def passed(done: subprocess.CompletedProcess[str]) -> int:
    """How many tests a run passed that had no other end."""
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert "emulator: " not in done.stderr
    (count,) = [line.split()[3] for line in done.stdout.splitlines() if line.startswith("[  PASSED  ]")]
    return int(count)


def test_the_emulator_itself(programs: Path) -> None:
    done = run(programs / "emulator_tests")
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


@pytest.mark.parametrize(
    ("tests", "protect", "least"),
    [
        pytest.param("ConvGradientsTest/2.*", "0", 7, id="gradients of convolutions"),
        pytest.param(f"{ON_THE_GPU}-*Gradient*", "1", 41, id="all else"),
        pytest.param("*/2.*Gradient*-ConvGradientsTest*", "0", 5, id="gradients of the others"),
    ],
)
def test_the_layers(programs: Path, tests: str, protect: str, least: int) -> None:
    """All tests but those of gradients, and these with floats; what takes longest comes first.

    Gradients launch many thousand small kernels, for each of which it takes long to keep the host from the device.
    """
    done = run(programs / "emulated_layer_tests", tests, EMULATOR_SEED="1", EMULATOR_PROTECT=protect)
    assert passed(done) >= least


@pytest.mark.parametrize(
    ("number", "mistake"), [pytest.param(i, one, id=one.name) for i, one in enumerate(mistakes.MISTAKES, start=1)]
)
def test_a_mistake_is_found(programs: Path, number: int, mistake: mistakes.Mistake) -> None:
    done = run(
        programs / "seeded_layer_tests",
        mistake.test,
        "--gtest_break_on_failure",
        SEEDED_MISTAKE=str(number),
        EMULATOR_STOP="1",
        EMULATOR_PROTECT="1" if any("host" in kind for kind in mistake.found) else "0",
    )
    assert done.returncode != 0, "the tests passed"
    findings = [line for line in done.stderr.splitlines() if line.startswith("emulator: ")]
    if findings:
        assert findings[0].startswith(tuple(f"emulator: {kind}: " for kind in mistake.found if kind)), findings[0]
    elif mistakes.WRONG_VALUES in mistake.found:
        assert "Failure" in done.stdout
    else:
        assert any(kind in done.stderr for kind in mistake.found), done.stderr[-3000:]


def test_without_a_mistake_the_same_tests_pass(programs: Path) -> None:
    tests = sorted({mistake.test for mistake in mistakes.MISTAKES})
    assert passed(run(programs / "seeded_layer_tests", ":".join(tests), EMULATOR_PROTECT="0")) == len(tests)


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("Kernel<<<1, 2, 64>>>(x);", 1),
        ("int x;\nextern __shared__ float held[];", 2),
        ("\n\n__constant__ float weights[9];", 3),
    ],
)
def test_what_is_not_covered_is_refused(code: str, line: int) -> None:
    with pytest.raises(rewriting.RewriteError, match=f"line {line}: "):
        rewriting.rewrite(code, "a.cu")


def test_lines_keep_their_numbers() -> None:
    code = "/* a\n<<<b */ Kernel<T,\n  2>\n  <<<Blocks(n), 32>>>(n,\n    x);\n__shared__ float\n  held[4];\nlast\n"
    lines = rewriting.rewrite(code, "a.cu").splitlines()
    assert lines[2] == '#line 1 "a.cu"'
    assert lines[3:].index("last") == code.splitlines().index("last")
    assert "Kernel<T, 2>(values...)" in "".join(lines)
