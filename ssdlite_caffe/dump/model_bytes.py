"""The bytes of a model's files, and their hash."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from ssdlite_caffe.errors import ModelError

MAX_BYTES = 1 << 31
"""protobuf's limit of one message, in bytes."""
_SHARD = re.compile(r"\.data-(\d{5})-of-(\d{5})$")
SAVED_MODEL_START = b"\x08\x01\x12"
"""The first bytes of a SavedModel: saved_model_schema_version 1, then a meta graph."""


def read_bytes(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        ModelError: it is absent, empty, unreadable or too large.
    """
    return FileBytes(path).read()


class FileBytes:
    """The bytes of a file, of which a part is read when it is asked for."""

    def __init__(self, path: Path) -> None:
        """Look at the file.

        Raises:
            ModelError: it is absent, empty, unreadable or too large.
        """
        self.path = path
        try:
            if not path.is_file() and path.exists():
                raise ModelError(f"{path} is not a regular file")
            self.size = path.stat().st_size
        except OSError as error:
            raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
        if self.size >= MAX_BYTES:
            raise ModelError(f"{path} has {self.size} bytes; a graph file must be smaller than {MAX_BYTES}")
        if not self.read(0, 1):
            raise ModelError(f"{path} is empty (0 bytes)")

    def read(self, start: int = 0, size: int = -1) -> bytes:
        """Bytes from `start` on, fewer than `size` at the end of the file; all that follow without a size.

        Raises:
            ModelError: the file cannot be read.
        """
        try:
            with self.path.open("rb") as stream:
                stream.seek(start)
                return stream.read(size)
        except OSError as error:
            raise ModelError(f"cannot read {self.path}: {error.strerror or error}") from error

    def sha256(self) -> str:
        """SHA-256 of the file, hex."""
        try:
            return hash_files([self.path])
        except OSError as error:
            raise ModelError(f"cannot read {self.path}: {error.strerror or error}") from error


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


def shards(prefix: Path) -> list[Path]:
    """The data files of a checkpoint, in order.

    Raises:
        ModelError: the index or a shard is missing; the text names it.
    """
    index = prefix.with_name(prefix.name + ".index")
    if not index.is_file():
        raise ModelError(f"the checkpoint {prefix} is not complete: {index} is missing")
    present = {}
    total = 1
    for path in sorted(prefix.parent.iterdir()):
        found = _SHARD.search(path.name) if path.name.startswith(prefix.name + ".data-") else None
        if found and path.name == prefix.name + found.group(0):
            present[int(found.group(1))] = path
            total = max(total, int(found.group(2)))
    missing = [f"{prefix.name}.data-{i:05d}-of-{total:05d}" for i in range(total) if i not in present]
    if missing:
        raise ModelError(f"the checkpoint {prefix} is not complete: {', '.join(missing[:4])} missing")
    return [present[i] for i in range(total)]


def hash_files(paths: list[Path]) -> str:
    """SHA-256 of the bytes of all files, one after the other, hex."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
