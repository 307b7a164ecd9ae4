"""The commands of examples/README.md, one after the other, on few scenes and for few steps."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = [pytest.mark.story, pytest.mark.tensorflow, pytest.mark.opencv]

SMALLER = {"--count": "8", "--iterations": "3", "--batch-size": "2"}


def commands() -> list[list[str]]:
    """The page's indented lines, those that end in a backslash joined."""
    page = (ROOT / "examples" / "README.md").read_text().replace("\\\n", " ")
    return [shlex.split(line) for line in page.splitlines() if line.startswith("    ")]


def test_from_nothing_to_a_caffe_model(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    replaced = 0
    for program, *arguments in commands():
        assert program == "ssdlite-caffe"
        for index, option in enumerate(arguments[:-1]):
            if option in SMALLER:
                arguments[index + 1] = SMALLER[option]
                replaced += 1
        command = [sys.executable, "-m", "ssdlite_caffe.cli", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{shlex.join(arguments)}: {done.stderr}"
    assert replaced == 4, "both folders of scenes, iterations and batch size"
    scores = json.loads((tmp_path / "scenes" / "score" / "metrics.json").read_text())
    assert scores["runtimes"], "three steps find little, but are scored"
    assert {path.name for path in (tmp_path / "scenes" / "images").iterdir()} == {"shapes.png"}
    report = json.loads((tmp_path / "scenes" / "caffe" / "report.json").read_text())
    assert report["arch"]["family"] == "v3-small"
