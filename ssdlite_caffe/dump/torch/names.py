"""Telling a file of PyTorch from others, without reading it; this module imports nothing that takes long."""

from __future__ import annotations

from pathlib import Path

SUFFIXES = (".pth", ".pt", ".safetensors")
ZIP_START = b"PK\x03\x04"
LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The pickled magic number with which files of torch.save began before PyTorch 1.6."""
_HEAD = 512


def is_torch_file(path: Path) -> bool:
    """Whether a path is a file of PyTorch: by its suffix, or by its first bytes."""
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        if not path.is_file():  # opening a pipe would wait for its writer
            return False
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
    except OSError:
        return False
    return head.startswith(LEGACY_START) or (head.startswith(ZIP_START) and b"/data.pkl" in head)
