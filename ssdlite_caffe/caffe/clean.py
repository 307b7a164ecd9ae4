"""Deleting what builds of Caffe left in the cache, and on request a built Caffe."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ssdlite_caffe.caffe.prefix import STAMP, cache_folder, default_prefix
from ssdlite_caffe.errors import BuildError, OutputError


@dataclass(frozen=True)
class Cleaned:
    """What was deleted.

    Attributes:
        paths: the files and folders.
        size: their size in bytes.
    """

    paths: tuple[Path, ...]
    size: int


def clean(*, installed: bool = False, prefix: Path | None = None) -> Cleaned:
    """Delete object files, logs and downloaded sources from the cache.

    Args:
        installed: delete the built Caffe as well.
        prefix: where it is; None for the default place.

    Raises:
        BuildError: a build is running, or `prefix` holds files but no build of ours.
        OutputError: something cannot be deleted.
    """
    cache = cache_folder()
    with _no_build(cache / "build"):
        found = [path for path in _entries(cache / "build") if path.suffix != ".lock"] + _entries(cache / "sources")
        if installed:
            found += _built(default_prefix() if prefix is None else prefix)
        size = sum(_size(path) for path in found)
        for path in found:
            _delete(path)
    return Cleaned(tuple(found), size)


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _built(prefix: Path) -> list[Path]:
    if not prefix.is_dir() or not any(prefix.iterdir()):
        return []
    if not (prefix / STAMP).is_file():
        raise BuildError(
            f"{prefix} holds files but no {STAMP}, so `caffe build` did not make it; neither it nor anything else is "
            "deleted"
        )
    return [prefix]


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
    return sum(file.lstat().st_size for file in files if not file.is_dir() or file.is_symlink())


def _delete(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError as error:
        raise OutputError(f"cannot delete {error.filename or path}: {error.strerror or error}") from error


@contextlib.contextmanager
def _no_build(folder: Path) -> Iterator[None]:
    """Hold the locks of all builds, so that none runs in the block. The lock files stay: a build may wait for one.

    Raises:
        BuildError: a build holds its lock.
    """
    import fcntl

    with contextlib.ExitStack() as held:
        for path in folder.glob("*.lock"):
            stream = held.enter_context(path.open("rb"))
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BuildError(
                    f"a build of Caffe is running (it holds {path}); stop it, or wait until it has ended"
                ) from error
        yield
