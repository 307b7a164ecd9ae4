"""What every hostile file must come to: one line, status 1, nothing written, little memory, no code of its own run."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import Command, tree

MOST_MEMORY = 64 << 20
"""Bytes beside four times the files; a bomb unpacks to more."""
MOST_SECONDS = 60.0
"""Of a busy machine; what takes for ever takes longer."""


@pytest.fixture
def harmless(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Convert a hostile model in a folder of its own, and give the message without the model's name."""

    def run(path: Path, *, most_memory: int = MOST_MEMORY) -> str:
        assert path.parent == tmp_path
        monkeypatch.chdir(tmp_path)
        size, before = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()), tree(tmp_path)
        tracemalloc.start()
        begin = time.monotonic()
        try:
            result = command("convert", path, "-o", tmp_path / "out")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert time.monotonic() - begin < MOST_SECONDS
        assert result.status == 1, result
        assert result.out == ""
        assert result.err.count("\n") == 1, result.err
        assert "Traceback" not in result.err
        assert tree(tmp_path) == before
        assert peak < most_memory + 4 * size, f"{peak >> 20} MiB"
        assert str(path) in result.err
        return result.err.replace(str(path), "FILE")

    return run
