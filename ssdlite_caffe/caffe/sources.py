"""The Caffe sources that a build takes: the pinned release from the package index, or a folder of the user's own."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from ssdlite_caffe.errors import BuildError
from ssdlite_caffe.files import file_sha256

PROJECT = "brocolli-caffe"
VERSION = "9.0.2"
SHA256 = "c6410cc60bdd6db685d441b66be7df05410f8850ac88d6b75d48ef9b2315c08a"
ARCHIVE = f"{PROJECT}-{VERSION}.tar.gz"

NEEDED = ("include/caffe/layer.hpp", "src/caffe/net.cpp", "src/caffe/test/test_caffe_main.cpp", "tools/caffe.cpp")
"""Files that tell a Caffe from other folders."""

_FOLDERS = ("include", "python", "src", "tools")
_MAX_UNPACKED = 400 << 20
_READ = frozenset({".c", ".cc", ".cmake", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".py", ".txt"})

_BACKEND = f"""
class __legacy__:
    @staticmethod
    def get_requires_for_build_wheel(config_settings=None):
        return []

    @staticmethod
    def prepare_metadata_for_build_wheel(folder, config_settings=None):
        import os
        name = "{PROJECT.replace("-", "_")}-{VERSION}.dist-info"
        os.makedirs(os.path.join(folder, name))
        with open(os.path.join(folder, name, "METADATA"), "w") as stream:
            stream.write("Metadata-Version: 2.1\\nName: {PROJECT}\\nVersion: {VERSION}\\n")
        return name
"""
"""A stand-in for setuptools while pip downloads. pip asks every source package for its name and version through its
setup.py, and the one of this package runs on no Python of today; so nothing of it is run, and pip is answered here."""


def downloaded_sources(cache: Path, progress: Callable[[str], None]) -> Path:
    """The pinned release, unpacked; downloaded with pip, and so from the index and proxy that pip is set up for.

    Args:
        cache: folder that keeps the archive and what is unpacked from it.
        progress: called with what is being done.

    Raises:
        BuildError: it cannot be downloaded, or is not the file it was.
    """
    folder = cache / "sources" / f"{PROJECT}-{VERSION}-{SHA256[:8]}"
    if folder.is_dir():
        return folder
    archive = cache / "sources" / ARCHIVE
    archive.parent.mkdir(parents=True, exist_ok=True)
    if not archive.is_file() or file_sha256(archive) != SHA256:
        progress(f"downloading {ARCHIVE}")
        with tempfile.TemporaryDirectory(dir=archive.parent, prefix=".download.") as temporary:
            _download(Path(temporary)).replace(archive)
    return unpack(archive, folder)


def _download(folder: Path) -> Path:
    """Let pip download the archive, its hash checked, into `folder`."""
    stand_in = folder / "stand_in" / "setuptools"
    stand_in.mkdir(parents=True)
    (stand_in / "__init__.py").touch()
    (stand_in / "build_meta.py").write_text(_BACKEND)
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{PROJECT}=={VERSION} --hash=sha256:{SHA256}\n")
    options = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--use-pep517", "--require-hashes"]
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        *options,
    ]
    done = subprocess.run(  # noqa: S603
        [*command, "--requirement", os.fspath(requirements), "--dest", os.fspath(folder)],
        env={**os.environ, "PYTHONPATH": os.fspath(stand_in.parent)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode == 0 and (folder / ARCHIVE).is_file():
        return folder / ARCHIVE
    raise BuildError(f"{PROJECT} {VERSION} cannot be downloaded: {_why(done.stderr)}")


def _why(output: str) -> str:
    """The reason in pip's output, in a line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if any("DO NOT MATCH THE HASHES" in line for line in lines):
        got = next((line.split()[-1] for line in lines if line.startswith("Got")), "another")
        return f"the index gives a file with SHA-256 {got}, expected {SHA256}"
    if any("No module named pip" in line for line in lines):
        return f"{sys.executable} has no pip; install it, or give the sources with --source"
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or ["pip says nothing"])[0]


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack the pinned archive's source folders to `folder`, all of it or nothing.

    Raises:
        BuildError: the archive is not the pinned one, or holds what a source archive does not.
    """
    found = file_sha256(archive)
    if found != SHA256:
        raise BuildError(f"{archive} has SHA-256 {found}, expected {SHA256}: it is not {PROJECT} {VERSION}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpack.") as temporary:
        try:
            with tarfile.open(archive, "r:gz") as tar:
                _extract(tar, Path(temporary) / "new")
        except (tarfile.TarError, EOFError) as error:
            raise BuildError(f"{archive} cannot be unpacked: {error}") from error
        (Path(temporary) / "new").rename(folder)
    return folder


def _extract(members: tarfile.TarFile, folder: Path) -> None:
    """Write the plain files under `_FOLDERS`, without the archive's own top folder.

    Only names and bytes are taken: no links, devices, owners or modes, and no name that leads out of `folder`.
    """
    written = 0
    for member in members:
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts:
            raise BuildError(f"the archive names a file outside of its folder: {member.name!a}")
        inside = path.parts[1:]
        if not member.isfile() or not inside or inside[0] not in _FOLDERS:
            continue
        written += member.size
        if written > _MAX_UNPACKED:
            raise BuildError(f"the archive unpacks to more than {_MAX_UNPACKED >> 20} MB")
        target = folder.joinpath(*inside)
        target.parent.mkdir(parents=True, exist_ok=True)
        stream = members.extractfile(member)
        assert stream is not None  # a plain file
        target.write_bytes(stream.read())


def own_sources(folder: Path) -> Path:
    """A user's own fork, checked for what every Caffe has.

    Raises:
        BuildError: it is no folder, or no Caffe.
    """
    if not folder.is_dir():
        raise BuildError(f"--source {folder} is not a folder")
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise BuildError(f"--source {folder} is not a Caffe: it has no {missing[0]}")
    return folder.resolve()


def tree_hash(folder: Path, names: Iterable[str] = _FOLDERS) -> str:
    """Hash of names and contents of the source and CMake files in the folders `names` of `folder`, hex."""
    digest = hashlib.sha256()
    for name in names:
        for path in sorted((folder / name).rglob("*")):
            if path.suffix in _READ and path.is_file():
                digest.update(f"{path.relative_to(folder).as_posix()}\0{file_sha256(path)}\n".encode())
    return digest.hexdigest()
