"""The Caffe sources that a build takes: the pinned release from the package index, or a folder of the user's own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from ssdlite_caffe.caffe.release import Release, downloaded_release
from ssdlite_caffe.errors import BuildError
from ssdlite_caffe.files import file_sha256

_FOLDERS = ("include", "python", "src", "tools")
FORK = Release("brocolli-caffe", "9.0.2", "c6410cc60bdd6db685d441b66be7df05410f8850ac88d6b75d48ef9b2315c08a", _FOLDERS)
"""A Caffe SSD fork."""

NEEDED = ("include/caffe/layer.hpp", "src/caffe/net.cpp", "src/caffe/test/test_caffe_main.cpp", "tools/caffe.cpp")
"""Files by which a folder is known to hold Caffe."""

_READ = frozenset({".c", ".cc", ".cmake", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".py", ".txt"})


def downloaded_sources(cache: Path, progress: Callable[[str], None]) -> Path:
    """The pinned release of the fork, unpacked; see `downloaded_release`."""
    return downloaded_release(FORK, cache, progress)


def own_sources(folder: Path) -> Path:
    """A user's own fork, checked for the files that every Caffe has.

    Raises:
        BuildError: it is not a folder, or one of these files is missing.
    """
    if not folder.is_dir():
        raise BuildError(f"--source {folder} is not a folder")
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise BuildError(f"--source {folder} is not a Caffe: it has no {missing[0]}; give the root of a Caffe SSD fork")
    return folder.resolve()


def tree_hash(folder: Path, names: Iterable[str] = _FOLDERS) -> str:
    """Hash of names and contents of the source and CMake files in the folders `names` of `folder`, hex."""
    digest = hashlib.sha256()
    for name in names:
        for path in sorted((folder / name).rglob("*")):
            if path.suffix in _READ and path.is_file():
                digest.update(f"{path.relative_to(folder).as_posix()}\0{file_sha256(path)}\n".encode())
    return digest.hexdigest()
