"""The bytes of a model's files, and their hash."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ssdlite_caffe.errors import ModelError

MAX_BYTES = 1 << 31
"""protobuf's limit of one message, in bytes."""
SAVED_MODEL_START = b"\x08\x01\x12"
"""The first bytes of a SavedModel: saved_model_schema_version 1, then a meta graph."""


def read_bytes(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        ModelError: it is absent, empty, unreadable or too large.
    """
    try:
        if not path.is_file() and path.exists():
            raise ModelError(f"{path} is not a regular file")
        size = path.stat().st_size
        if size >= MAX_BYTES:
            raise ModelError(f"{path} has {size} bytes; a graph file must be smaller than {MAX_BYTES}")
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    if not data:
        raise ModelError(f"{path} is empty (0 bytes)")
    return data


def sha256(data: bytes) -> str:
    """SHA-256 of bytes, hex."""
    return hashlib.sha256(data).hexdigest()


def starts_with(path: Path, start: bytes, *, at: int = 0) -> bool:
    """Whether a file has these bytes at an offset; False also if it cannot be read."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            return stream.read(at + len(start))[at:] == start
    except OSError:
        return False
