"""A built Caffe as one archive that runs on another machine of the same system, where nothing of ours is installed.

The archive holds the prefix and, in its `lib`, every shared library that the programs load, but for those of the
machine: the C library's (a newer one will do) and CUDA's, which a GPU build looks for where the machine has them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ssdlite_caffe.caffe.build import read_stamp
from ssdlite_caffe.errors import BuildError
from ssdlite_caffe.files import refuse_existing, refuse_unwritable

NAME = "ssdlite-caffe"
"""Folder that an archive unpacks to; the built Caffe is its folder `caffe`."""

_ENDS = (".xz", ".gz", ".tgz")
_LINE = re.compile(r"^\s*(?P<name>\S+) => (?P<path>not found|/\S+)", re.MULTILINE)
_OF_THE_MACHINE = re.compile(
    r"(ld-linux.*|lib(c|m|dl|rt|pthread|resolv|util|nsl|anl|mvec|nss_.*|BrokenLocale|thread_db))\.so\..*"
)
"""The C library: it fits the machine's kernel and loader, and programs run with a newer one."""
_CUDA = re.compile(r"lib(cuda|cudart|cublas|cublasLt|curand|cudnn.*|nvrtc.*|nvJitLink)\.so\..*")


@dataclass(frozen=True)
class Bundled:
    """What was packed.

    Attributes:
        path: of the archive.
        size: in bytes.
        libraries: names of the machine's libraries in it.
        needed: names of the libraries that the other machine must have, CUDA's.
    """

    path: Path
    size: int
    libraries: tuple[str, ...]
    needed: tuple[str, ...]


def bundle(
    prefix: Path, out: Path, *, more: Mapping[str, Path] | None = None, force: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Bundled:  # fmt: skip
    """Pack a built Caffe.

    Args:
        prefix: where it is.
        out: archive to write, `.tar.xz` or `.tar.gz`.
        more: files and folders to put beside the folder `caffe`, by name.
        force: replace `out`.
        progress: called with what is being done.

    Raises:
        BuildError: the prefix holds no complete build, or one of its libraries is missing.
        OutputError: `out` exists, or cannot be written.
    """
    if out.suffix not in _ENDS:
        raise BuildError(f"{out} must end in .tar.xz or .tar.gz: what is written is a compressed tar archive")
    stamp = read_stamp(prefix)
    if not stamp:
        raise BuildError(f"{prefix} holds no Caffe that `caffe build` built")
    refuse_existing(out, force=force)
    out.parent.mkdir(parents=True, exist_ok=True)
    refuse_unwritable(out.parent)
    progress("looking for the libraries")
    own = {path.name for path in (prefix / "lib").iterdir()}
    libraries, needed = _libraries(_programs(prefix), own)
    progress("packing")
    descriptor, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
    os.close(descriptor)
    unfinished = Path(name)
    try:
        with _archive(unfinished, out.suffix) as tar:
            for file in sorted(stamp["files"]):
                tar.add(prefix / file, f"{NAME}/caffe/{file}", filter=_plain)
            tar.add(prefix / "ssdlite-caffe.json", f"{NAME}/caffe/ssdlite-caffe.json", filter=_plain)
            for library, path in sorted(libraries.items()):
                tar.add(path.resolve(), f"{NAME}/caffe/lib/{library}", filter=_plain)
            for called, path in sorted((more or {}).items()):
                tar.add(path, f"{NAME}/{called}", filter=_plain)
        unfinished.chmod(0o644)
        unfinished.replace(out)
    finally:
        unfinished.unlink(missing_ok=True)
    return Bundled(out, out.stat().st_size, tuple(sorted(libraries)), tuple(sorted(needed)))


def _archive(path: Path, end: str) -> tarfile.TarFile:
    """A new archive. gzip's usual level: its best one takes twice as long for a hundredth of the size."""
    return tarfile.open(path, "w:xz") if end == ".xz" else tarfile.open(path, "w:gz", compresslevel=6)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Without this machine's users, and without caches."""
    if "__pycache__" in member.name:
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _programs(prefix: Path) -> Iterator[Path]:
    yield from sorted((prefix / "bin").iterdir())
    yield from sorted((prefix / "lib").glob("*.so*"))
    yield from sorted((prefix / "python").glob("caffe/*.so"))


def _libraries(programs: Iterable[Path], own: set[str]) -> tuple[dict[str, Path], set[str]]:
    """What the programs load: files by name, and names of those that the other machine must have."""
    ldd = shutil.which("ldd")
    if ldd is None:
        raise BuildError("there is no ldd, which says what a program loads")
    found: dict[str, Path] = {}
    needed: set[str] = set()
    for program in programs:
        said = subprocess.run([ldd, program], capture_output=True, text=True, check=False)  # noqa: S603
        if said.returncode:
            raise BuildError(f"ldd says nothing about {program}: {said.stderr.strip()}")
        for name, path in _LINE.findall(said.stdout):
            if _CUDA.fullmatch(name):
                needed.add(name)
            elif path == "not found":
                raise BuildError(f"{program} needs {name}, which is not on this machine")
            elif name not in own and not _OF_THE_MACHINE.fullmatch(name):
                found[name] = Path(path)
    return found, needed
