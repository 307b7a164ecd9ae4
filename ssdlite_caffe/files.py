"""Writing without loss: every file and folder appears whole or not at all.

A file is written beside its target and renamed over it, and so is a new folder. A folder that is there already stays
itself, since it may be a mount point or somebody's working directory; what is in it is exchanged. A full disk, an
exception or Ctrl-C on the way leaves what was there before untouched.
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
"""Of temporary files and folders."""
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.ENOSYS}
"""What a file system says that locks no folders; of NFS, EBADF: it locks what is open for writing."""


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


def write_parts(path: Path, parts: Iterable[bytes | memoryview], *, force: bool = False) -> None:
    """Write `parts`, one after the other, to `path` in one step; where that is a link, to what it points to.

    Raises:
        OutputError: `path` exists and `force` is false, or is a folder or device, or the disk refuses.
    """
    write_together({path: parts}, force=force)


def write_together(files: Mapping[Path, Iterable[bytes | memoryview]], *, force: bool = False) -> None:
    """Write files that belong together: no old one goes before all new ones are whole; errors as in `write_parts`."""
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
                    raise OutputError(f"cannot write {writing}: it is {moves[target][0]}, which is written too")
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
    """Hash of a file, hex.

    Raises:
        OutputError: it cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror or error}") from error


def write_text(path: Path, text: str, *, force: bool = False) -> None:
    """Write `text` as UTF-8 to `path` in one step; errors as in `write_parts`.

    Raises:
        OutputError: a part of the text, as a file name of another encoding, cannot be written in UTF-8.
    """
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as error:
        line = text[: error.start].count("\n")
        raise OutputError(f"cannot write {path}: not UTF-8 text: {text.splitlines()[line].strip()[:200]!a}") from error
    write_bytes(path, data, force=force)


@contextlib.contextmanager
def new_folder(path: Path, *, marker: str, force: bool = False) -> Iterator[Path]:
    """Give a fresh folder to fill, and put it in the place of `path` when the block ends without an exception.

    Args:
        path: the folder to make.
        marker: name of a file that every folder of this kind holds. A folder without it was not made by this
            command and is never replaced, `force` or not, so that a slip of the pen cannot cost a home folder.
            It leaves first and comes last, so that a folder caught halfway by a power cut passes for none.
        force: replace an earlier folder of this kind.

    Yields:
        A temporary folder; on any exception it is removed and `path` is left as it was.

    Raises:
        OutputError: `path` is a file, or a folder that is not empty and may not be replaced, or the disk refuses.
    """
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path} is a file, not a folder")
    target = path.absolute()
    standing = target.is_dir()
    if standing and any(target.iterdir()) and not (target / marker).is_file():
        raise OutputError(
            f"{path} holds files but no {marker}, so it is not replaced, --force or not; give another name"
        )
    refuse_existing(path, force=force)
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
    except OutputError as error:  # of a file inside, whose temporary name says nothing to anyone
        raise OutputError(str(error).replace(str(staging), str(path))) from error
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


@contextlib.contextmanager
def held_folder(path: Path) -> Iterator[None]:
    """Make a folder where there is none, and hold it: files are written into it one by one, and by no other run.

    On an exception a folder that was made here goes again, where it is empty.

    Raises:
        OutputError: another run is writing there, or the disk refuses.
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
    """Remove what a killed run was writing in a folder that is held, or in one below it."""
    for leftover in folder.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            leftover.unlink()


def _exchange(folder: Path, temporary: Path, marker: str) -> None:
    """Move what is in `folder` to `old` in `temporary`, and what is in `new` there to `folder`; all or nothing."""
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
            raise OutputError(
                f"{folder} could not be put back as it was; what is missing there lies in {old}"
            ) from None
        old.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder that exists, so that two runs cannot exchange what is in it at once.

    One that does not exist yet needs none: of two runs that make it, the second cannot rename its own into place.

    Raises:
        OutputError: another run is writing there.
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
            if error.errno not in _NO_LOCKS:
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
    """An empty folder, removed at the end, unless `old` is still in it: files that could not be moved back."""
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
