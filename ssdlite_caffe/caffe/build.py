"""Building Caffe into a prefix with CMake and Ninja: the fork's sources, our caffe.proto and our layers.

Compiling happens in a folder in the cache; only the last step, the installation, which takes a moment, changes the
prefix. The stamp in the prefix holds a hash of everything that the build depends on; where it is unchanged, nothing is
done. Only one build into a prefix runs at a time. A killed build leaves its object files, which the next one uses.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ssdlite_caffe
from ssdlite_caffe.caffe import sources as caffe_sources
from ssdlite_caffe.caffe.compile import Log, Report, Step, run
from ssdlite_caffe.caffe.doctor import cuda_compiler, cuda_packages, diagnose
from ssdlite_caffe.caffe.opencv import OPENCV, built_opencv
from ssdlite_caffe.caffe.prefix import STAMP, cache_folder, default_prefix
from ssdlite_caffe.errors import BuildError
from ssdlite_caffe.files import file_sha256, new_folder, refuse_unwritable

_PACKAGE = Path(ssdlite_caffe.__file__).resolve().parent
_PROTO = _PACKAGE / "prototxt" / "caffe.proto"
_MESSAGES = _PACKAGE / "prototxt" / "caffe_pb2.py"
_ENVIRONMENT = ("CXX", "CXXFLAGS", "LDFLAGS", "CMAKE_PREFIX_PATH", "CUDACXX", "CUDAFLAGS", "CUDAARCHS")
_GIGABYTE = 1 << 30


@dataclass(frozen=True)
class BuildOptions:
    """What to build.

    Attributes:
        prefix: folder to install into; None for the default one.
        source: a fork of the user's own; None for the pinned release.
        cuda: build for the GPU too.
        cudnn: with cuDNN, in a GPU build.
        native: with all instructions of this machine's processor, so that the build may not run on another.
        portable: for other machines: for every processor since 2013 (x86-64-v3), whatever `native` is, and with an
            OpenCV of its own in place of the system's, which depends on hundreds of libraries. See `bundle`.
        pycaffe: with the Python module, for the running Python.
        jobs: how many files to compile at once; 0 for as many as processors and memory allow.
        force: build everything again.
    """

    prefix: Path | None = None
    source: Path | None = None
    cuda: bool = False
    cudnn: bool = True
    native: bool = True
    portable: bool = False
    pycaffe: bool = True
    jobs: int = 0
    force: bool = False


def source_folder() -> Path:
    """Our C++ and CUDA sources: beside the package in a checkout, inside the package when it is installed.

    Raises:
        BuildError: they are in neither place.
    """
    for folder in (_PACKAGE / "src_cuda", _PACKAGE.parent / "src_cuda"):
        if (folder / "CMakeLists.txt").is_file():
            return folder
    raise BuildError(f"{_PACKAGE} has no src_cuda: reinstall ssdlite-caffe, or run it from a complete checkout")


def build(options: BuildOptions, report: Report) -> dict[str, Any]:
    """Build Caffe into a prefix, unless the same build is there already.

    Args:
        options: what to build.
        report: called with the progress.

    Returns:
        The stamp of the prefix, and `built`: whether this call built it.

    Raises:
        BuildError: something is missing, the sources are not Caffe's, the code does not compile, or the prefix is a
            folder with other files.
        OutputError: the prefix or the cache cannot be written.
    """
    prefix = (default_prefix() if options.prefix is None else options.prefix).absolute()
    _refuse_foreign(prefix)
    diagnose(cuda=options.cuda, cudnn=options.cudnn, pycaffe=options.pycaffe).require()
    refuse_unwritable(prefix)
    cache = cache_folder()
    refuse_unwritable(cache)
    with _only_one(prefix, cache, report) as lock:
        fork = _fork(options.source, cache, lambda what: report(Step(what)))
        stamp = _stamp(options, fork)
        built = read_stamp(prefix)
        if built.get("key") == stamp["key"] and not options.force:
            return {**built, "prefix": os.fspath(prefix), "built": False}
        log = Log(cache / "build" / f"{_name(prefix)}.log")
        try:
            folder = _work_folder(cache, prefix, stamp, fresh=options.force)
            jobs = options.jobs or default_jobs()
            opencv = built_opencv(cache, jobs, log, report, lock) if options.portable else None
            _compile(options, fork, opencv, folder, log, report, lock)
            _install(folder, prefix, stamp, log, report, lock)
        finally:
            log.close()
    return {**stamp, "prefix": os.fspath(prefix), "built": True, "log": os.fspath(log.path)}


def read_stamp(prefix: Path) -> dict[str, Any]:
    """What a prefix was built from; empty where there is no complete build."""
    try:
        stamp = json.loads((prefix / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    whole = isinstance(stamp, dict) and all((prefix / name).is_file() for name in stamp.get("files", ()))
    return stamp if whole else {}


def _refuse_foreign(prefix: Path) -> None:
    """Refuse a prefix that cannot be installed into, before the build and not after it."""
    if prefix.is_dir() and any(prefix.glob(f".ssdlite-caffe.*/*/{STAMP}")):
        (prefix / STAMP).touch()  # an installation was killed halfway: the prefix is ours, and is built again
    if prefix.is_dir() and any(prefix.iterdir()) and not (prefix / STAMP).is_file():
        raise BuildError(
            f"{prefix} holds files but no {STAMP}, so `caffe build` did not make it; name another folder with --prefix"
        )
    if prefix.exists() and not prefix.is_dir():
        raise BuildError(f"{prefix} is a file; name a folder with --prefix")


def _fork(source: Path | None, cache: Path, progress: Callable[[str], None]) -> Path:
    if source is None:
        return caffe_sources.downloaded_sources(cache, progress)
    return caffe_sources.own_sources(source)


def _stamp(options: BuildOptions, fork: Path) -> dict[str, Any]:
    """Everything that the result depends on, and `key`, a hash of it."""
    ours = source_folder()
    inputs = {
        "version": ssdlite_caffe.__version__,
        "fork": caffe_sources.FORK.sha256 if options.source is None else caffe_sources.tree_hash(fork),
        "messages": [file_sha256(_PROTO), file_sha256(_MESSAGES)],
        "src_cuda": caffe_sources.tree_hash(ours, ["."]),
        "configuration": _configuration(options, fork),
    }
    key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    return {"key": key, "cuda": options.cuda, "cudnn": options.cuda and options.cudnn, **inputs}


def _configuration(options: BuildOptions, fork: Path) -> dict[str, Any]:
    """What changes every object file when it changes."""
    compiler = os.environ.get("CXX") or "c++"
    return {
        "source": os.fspath(fork),
        "flags": _flags(options),
        "compiler": _first_line([*compiler.split(), "--version"]),
        "protoc": _first_line(["protoc", "--version"]),
        "cuda": _first_line([cuda_compiler(), "--version"], last=True) if options.cuda else "",
        "processor": _processor() if options.native and not options.portable else platform.machine(),
        **({"opencv": OPENCV.sha256} if options.portable else {}),
        "python": [sys.executable, sys.version, str(sysconfig.get_config_var("EXT_SUFFIX"))] if options.pycaffe else [],
        "environment": {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
    }


def _flags(options: BuildOptions) -> list[str]:
    """CMake's definitions."""
    switches = {
        "CUDA": options.cuda,
        "CUDNN": options.cuda and options.cudnn,
        "NATIVE": options.native and not options.portable,
        "PYCAFFE": options.pycaffe,
    }
    flags = [f"-D{name}={'ON' if value else 'OFF'}" for name, value in switches.items()]
    if options.cuda:
        flags += [f"-DCMAKE_CUDA_COMPILER={cuda_compiler()}", f"-DCUDA_PACKAGES={cuda_packages() or ''}"]
    if options.portable and platform.machine() == "x86_64":
        flags.append("-DPROCESSOR=x86-64-v3")
    return [*flags, f"-DPYTHON={sys.executable}", f"-DCAFFE_PROTO={_PROTO}", f"-DCAFFE_PB2={_MESSAGES}"]


def _first_line(command: list[str], *, last: bool = False) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError:
        return ""
    lines = done.stdout.splitlines() or [""]
    return lines[-1 if last else 0]


def _processor() -> str:
    """Hash of the processor's instruction sets: code built for one processor may crash on another."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                return hashlib.sha256(line.encode()).hexdigest()[:16]
    return platform.processor() or platform.machine()


def _name(prefix: Path) -> str:
    """Name of a prefix's files and folders in the cache."""
    return f"{prefix.name}-{hashlib.sha256(os.fspath(prefix).encode()).hexdigest()[:8]}"


@contextlib.contextmanager
def _only_one(prefix: Path, cache: Path, report: Report) -> Iterator[int]:
    """Wait for other builds into this prefix to end, and let later ones wait.

    Yields:
        The lock's file descriptor. Compilers inherit it, so that the next build waits for those of a killed build.
    """
    import fcntl

    path = cache / "build" / f"{_name(prefix)}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(Step(f"waiting for another build into {prefix}"))
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle
    finally:
        os.close(handle)


def _work_folder(cache: Path, prefix: Path, stamp: dict[str, Any], *, fresh: bool) -> Path:
    """The folder of object files: one per prefix and configuration, so that a changed source is compiled alone."""
    configuration = json.dumps(stamp["configuration"], sort_keys=True).encode()
    folder = cache / "build" / f"{_name(prefix)}-{hashlib.sha256(configuration).hexdigest()[:8]}"
    for other in folder.parent.glob(f"{_name(prefix)}-*"):
        if other.is_dir() and (fresh or other != folder):
            shutil.rmtree(other)
    if not (folder / "build.ninja").is_file():  # CMake did not finish
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _compile(
    options: BuildOptions, fork: Path, opencv: Path | None, folder: Path, log: Log, report: Report, lock: int
) -> None:
    configure = ["cmake", "-G", "Ninja", "-S", os.fspath(source_folder()), "-B", os.fspath(folder)]
    configure += [f"-DCAFFE_SOURCE={fork}", *_flags(options)]
    if opencv is not None:
        configure.append(f"-DCMAKE_PREFIX_PATH={opencv}")
    launcher = "ccache" if shutil.which("ccache") else ""  # "": an earlier build in this folder may have had it
    configure += [f"-DCMAKE_{language}_COMPILER_LAUNCHER={launcher}" for language in ("CXX", "CUDA")]
    run(configure, log, report, "configuring", keep_open=lock, folder=folder)
    jobs = options.jobs or default_jobs()
    run(["ninja", "-j", str(jobs)], log, report, "compiling", keep_open=lock, folder=folder)


def default_jobs() -> int:
    """One job per processor and per GB of memory, which is what compiling the largest files takes."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(len(os.sched_getaffinity(0)), memory // _GIGABYTE))


def _install(folder: Path, prefix: Path, stamp: dict[str, Any], log: Log, report: Report, lock: int) -> None:
    with new_folder(prefix, marker=STAMP, force=True) as new:
        command = ["cmake", "--install", os.fspath(folder), "--prefix", os.fspath(new), "--strip"]
        run(command, log, report, "installing", keep_open=lock, folder=folder)
        files = sorted(path.relative_to(new).as_posix() for path in new.rglob("*") if path.is_file())
        stamp["files"] = files
        (new / STAMP).write_text(json.dumps(stamp, indent=2) + "\n", encoding="utf-8")
