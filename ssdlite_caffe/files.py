"""Writing without loss: every file and folder appears whole or not at all.

A file is written beside its target and renamed over it; a folder is filled beside its target and renamed into
place. A full disk, an exception or Ctrl-C on the way leaves what was there before untouched.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ssdlite_caffe.errors import OutputError


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def refuse_existing(path: Path, *, force: bool) -> None:
    """Raise OutputError when `path` exists and may not be replaced.

    An empty folder counts as absent. With `force`, a file may replace a file and a folder a folder.
    """
    if not path.exists() and not path.is_symlink():
        return
    if path.is_dir() and not any(path.iterdir()):
        return
    if not force:
        raise OutputError(f"{path} exists already; give another name, or --force to replace it")


def write_bytes(path: Path, data: bytes, *, force: bool = False) -> None:
    """Write `data` to `path` in one step.

    Raises:
        OutputError: `path` exists and `force` is false, or the disk refuses.
    """
    if path.is_dir():
        raise OutputError(f"{path} is a folder, not a file")
    refuse_existing(path, force=force)
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise OutputError(f"cannot write {path}: {_reason(error)}") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def write_text(path: Path, text: str, *, force: bool = False) -> None:
    """Write `text` as UTF-8 to `path` in one step; errors as in `write_bytes`."""
    write_bytes(path, text.encode("utf-8"), force=force)


def _umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current


@contextlib.contextmanager
def new_folder(path: Path, *, marker: str, force: bool = False) -> Iterator[Path]:
    """Give a fresh folder to fill, and put it in the place of `path` when the block ends without an exception.

    Args:
        path: the folder to make.
        marker: name of a file that every folder of this kind holds. A folder without it was not made by this
            command and is never replaced, `force` or not, so that a slip of the pen cannot cost a home folder.
        force: replace an earlier folder of this kind.

    Yields:
        A temporary folder beside `path`; on any exception it is removed and `path` is left as it was.

    Raises:
        OutputError: `path` is a file, or a folder that is not empty and may not be replaced, or the disk refuses.
    """
    target = path.absolute()
    if target.exists() and not target.is_dir():
        raise OutputError(f"{path} is a file, not a folder")
    refuse_existing(target, force=force)
    if target.is_dir() and any(target.iterdir()) and not (target / marker).is_file():
        raise OutputError(f"{path} holds files but no {marker}, so it is not replaced even with --force")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise OutputError(f"cannot write {path}: {_reason(error)}") from error
    retired: Path | None = None
    try:
        yield staging
        os.chmod(staging, 0o777 & ~_umask())
        if target.exists():
            retired = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
            os.rename(target, retired / "old")
        os.rename(staging, target)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {_reason(error)}") from error
    finally:
        if retired is not None and not target.exists() and (retired / "old").exists():
            os.rename(retired / "old", target)
        shutil.rmtree(staging, ignore_errors=True)
        if retired is not None:
            shutil.rmtree(retired, ignore_errors=True)
