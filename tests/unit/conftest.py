"""Fixtures of the tests that run the command in this process."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.commands import Command, Result, tree


@pytest.fixture
def refused(command: Command, tmp_path: Path) -> Command:
    """Run a command that must fail: status 1, one message on stderr, nothing on stdout, nothing written."""

    def run(*arguments: object) -> Result:
        before = tree(tmp_path)
        result = command(*arguments)
        assert result.status == 1, result
        first, *more = result.err.splitlines()
        assert first.startswith("ssdlite-caffe: ")
        assert all(line.startswith("  ") for line in more), "only a list of problems goes on below"
        assert bool(more) == first.endswith(":")
        assert result.out == ""
        assert tree(tmp_path) == before
        return result

    return run


@pytest.fixture(scope="session")
def example_weights(example_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `dump` writes of the example model."""
    from ssdlite_caffe.tools.dump import dump

    folder = tmp_path_factory.mktemp("weights") / "out"
    dump(example_model, folder, progress=lambda _: None)
    return folder


@pytest.fixture
def weights(example_weights: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(example_weights, tmp_path / "weights"))
