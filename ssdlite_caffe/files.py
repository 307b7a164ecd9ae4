"""Writing files and folders in one step: each appears complete or not at all.

A file or a new folder is written beside its target and then renamed to it. A folder that exists stays, since it may be
a mount point or somebody's working directory; the files in it are exchanged. After a full disk, an exception or Ctrl-C
the target is as it was before.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ssdlite_caffe.errors import OutputError

_PREFIX = ".ssdlite-caffe."
"""Beginning of the names of temporary files and folders."""
NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.ENOSYS}
"""Errors of file systems that cannot lock a folder; NFS answers EBADF, since it locks only what is open for writing."""


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


def refuse_unwritable(folder: Path) -> None:
    """Raise OutputError when `folder` cannot be made or written, before slow work whose result goes there.

    A file is written there and removed again, with the folders that had to be made for it: permissions alone do not
    tell (read-only file systems, access lists, root).
    """
    try:
        with _parents(folder / "file"), _temporary_file(folder):
            raise _Writable
    except _Writable:
        pass
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}") from error


class _Writable(Exception):  # noqa: N818 - not an error: lets _parents remove the folders that it made
    pass


def write_parts(path: Path, parts: Iterable[bytes | memoryview], *, force: bool = False) -> None:
    """Write `parts`, one after the other, to `path` in one step; if `path` is a link, to the file it points to.

    Raises:
        OutputError: `path` exists and `force` is false, `path` is a folder or device, or writing fails.
    """
    write_together({path: parts}, force=force)


def write_together(files: Mapping[Path, Iterable[bytes | memoryview]], *, force: bool = False) -> None:
    """Write files that belong together; all are complete before the first old one is replaced.

    Raises:
        OutputError: as in `write_parts`, or two of the names are links to the same file.
    """
    for path in files:
        if path.exists() and not path.is_file():
            raise OutputError(f"{path} is {'a folder' if path.is_dir() else 'a device'}, not a file")
        refuse_existing(path, force=force)
    moves: dict[Path, tuple[Path, Path]] = {}
    writing = Path()
    try:
        with contextlib.ExitStack() as held:
            for writing, parts in files.items():
                target = Path(os.path.realpath(writing))
                if target in moves:
                    raise OutputError(f"cannot write {writing}: it is the same file as {moves[target][0]}")
                held.enter_context(_parents(target))
                temporary = held.enter_context(_temporary_file(target.parent))
                with temporary.open("wb") as stream:
                    stream.writelines(parts)
                temporary.chmod(0o666 & ~_umask())
                moves[target] = writing, temporary
            for target, (path, temporary) in moves.items():
                writing = path
                temporary.replace(target)
    except OSError as error:
        raise OutputError(f"cannot write {writing}: {error.strerror or error}") from error


def write_bytes(path: Path, data: bytes, *, force: bool = False) -> None:
    """Write `data` to `path` in one step; errors as in `write_parts`."""
    write_parts(path, [data], force=force)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hex.

    Raises:
        OutputError: the file cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror or error}") from error


def write_text(path: Path, text: str, *, force: bool = False) -> None:
    """Write `text` as UTF-8 to `path` in one step; errors as in `write_parts`.

    Raises:
        OutputError: the text has a part, such as a file name in another encoding, that UTF-8 cannot hold.
    """
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as error:
        line = text[: error.start].count("\n")
        raise OutputError(f"cannot write {path}: not UTF-8 text: {text.splitlines()[line].strip()[:200]!a}") from error
    write_bytes(path, data, force=force)


def refuse_folder(path: Path, *, marker: str, force: bool) -> None:
    """Raise the OutputError that `new_folder` would raise for `path`; for commands that work long before they write."""
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path} is a file, not a folder")
    if path.is_dir() and any(path.iterdir()) and not (path / marker).is_file():
        raise OutputError(
            f"{path} holds files but no {marker}, so it is not replaced, even with --force; give another name"
        )
    refuse_existing(path, force=force)


@contextlib.contextmanager
def new_folder(path: Path, *, marker: str, force: bool = False) -> Iterator[Path]:
    """Yield an empty folder to fill, and move it to `path` when the block ends without an exception.

    Args:
        path: the folder to make.
        marker: name of a file that every folder of this kind has. A folder without it was made by something else and
            is never replaced, not even with `force`, so that a typing error cannot delete a home folder. The marker is
            removed first and written last, so that a folder left half exchanged by a power cut has none.
        force: replace an earlier folder of this kind.

    Yields:
        A temporary folder; on any exception it is removed and `path` is left as it was.

    Raises:
        OutputError: `path` is a file, or a folder that is not empty and may not be replaced, or writing fails.
    """
    refuse_folder(path, marker=marker, force=force)
    target = path.absolute()
    standing = target.is_dir()
    staging = target
    try:
        with _parents(target), _only_one(target), _temporary_folder(target if standing else target.parent) as temporary:
            staging = temporary / "new"
            staging.mkdir()
            yield staging
            if standing:
                _exchange(target, temporary, marker)
            else:
                staging.rename(target)
    except OutputError as error:  # of a file inside: the user knows `path`, not the temporary name
        raise OutputError(str(error).replace(str(staging), str(path))) from error
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


@contextlib.contextmanager
def held_folder(path: Path) -> Iterator[None]:
    """Make a folder if there is none, and lock it, so that no other run writes into it during the block.

    On an exception a folder that was made here is removed again if it is empty.

    Raises:
        OutputError: `path` is a file, another run holds the lock, or writing fails.
    """
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path} is a file, not a folder")
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(_parents(path / _PREFIX))
            held.enter_context(_only_one(path))
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
        yield


def remove_leftovers(folder: Path) -> None:
    """Remove a killed run's temporary files from a folder that is held by `held_folder`."""
    for leftover in folder.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            leftover.unlink()


def _exchange(folder: Path, temporary: Path, marker: str) -> None:
    """Move the files of `folder` to `temporary`/old and those of `temporary`/new to `folder`; undo all on an error."""
    new, old = temporary / "new", temporary / "old"
    old.mkdir()
    leaving = sorted((e.name for e in folder.iterdir() if e != temporary), key=lambda name: name != marker)
    coming = sorted((e.name for e in new.iterdir()), key=lambda name: name == marker)
    moves = [*((folder / name, old / name) for name in leaving), *((new / name, folder / name) for name in coming)]
    try:
        for source, place in moves:
            source.rename(place)
    except BaseException:
        for source, place in reversed(moves):
            if not os.path.lexists(source):
                with contextlib.suppress(OSError):
                    place.rename(source)
        if any(old.iterdir()):
            raise OutputError(f"{folder} could not be restored; move its missing files back from {old}") from None
        old.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Lock a folder that exists, so that two runs cannot exchange its files at the same time.

    A folder that does not exist needs no lock: of two runs that make it, the second cannot rename its own to it.

    Raises:
        OutputError: another run holds the lock.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no advisory locks on folders
        yield
        return
    if not folder.is_dir():
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(f"another run is writing {folder}; wait for it, or give another name") from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def _parents(path: Path) -> Iterator[None]:
    """Make the folders above `path`; on an exception those that were made are removed again."""
    file = next((folder for folder in path.parents if folder.exists() and not folder.is_dir()), None)
    if file is not None:
        raise NotADirectoryError(errno.ENOTDIR, f"{file} is not a folder")
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


@contextlib.contextmanager
def _temporary_file(folder: Path) -> Iterator[Path]:
    """An empty file, removed if it is still there at the end."""
    handle, name = tempfile.mkstemp(prefix=_PREFIX, dir=folder)
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


@contextlib.contextmanager
def _temporary_folder(folder: Path) -> Iterator[Path]:
    """An empty folder, removed at the end unless `old` is still in it: the files that could not be moved back."""
    temporary = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=folder))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary / "new", ignore_errors=True)
        with contextlib.suppress(OSError):
            temporary.rmdir()


def _umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current
