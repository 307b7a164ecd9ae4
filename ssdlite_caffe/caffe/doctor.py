"""What a Caffe build needs of the machine, what of it is missing, and the command that installs it.

Everything is looked for as a file: a program on PATH, a header and a library where the compiler looks for them. So the
answer does not depend on a compiler being installed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ssdlite_caffe.errors import BuildError

_PYTHON = f"{sys.version_info[0]}{sys.version_info[1]}"
_PYTHON_VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"


@dataclass(frozen=True)
class Need:
    """A thing that a build needs. Of each of its headers and libraries, the first of the alternatives `a|b` will do.

    Attributes:
        name: what it is called.
        package: the Debian package that has it; empty where none does.
        programs: alternatives, one of which must be on PATH.
        headers: files below a folder of headers.
        libraries: files below a folder of libraries, without `lib` and `.so`.
        pip: the package of the Python index that has it.
        hint: what to do where no package has it.
    """

    name: str
    package: str = ""
    programs: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    pip: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Finding:
    """Whether a need is met.

    Attributes:
        name: of the need.
        found: a file that meets it, empty where something is missing.
        missing: files and programs that were not found.
        package, pip, hint: of the need.
    """

    name: str
    found: str = ""
    missing: str = ""
    package: str = ""
    pip: str = ""
    hint: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing


@dataclass(frozen=True)
class Diagnosis:
    """All findings for one kind of build."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether a build can begin."""
        return not self.missing

    @property
    def missing(self) -> list[Finding]:
        """The needs that are not met."""
        return [finding for finding in self.findings if not finding.ok]

    @property
    def remedy(self) -> str:
        """What installs everything that is missing, in one line."""
        packages, wheels, hints = (
            [value for value in dict.fromkeys(getattr(finding, name) for finding in self.missing) if value]
            for name in ("package", "pip", "hint")
        )
        apt = [f"{'sudo ' if os.geteuid() else ''}apt-get install {' '.join(sorted(packages))}"] if packages else []
        pip = [f"{sys.executable} -m pip install {' '.join(wheels)}"] if wheels else []
        return "; ".join([*apt, *pip, *hints])

    def require(self) -> None:
        """Do nothing where a build can begin.

        Raises:
            BuildError: something is missing; the text names it and what installs it.
        """
        if not self.ok:
            names = ", ".join(f"{finding.name} ({finding.missing})" for finding in self.missing)
            raise BuildError(f"missing for the Caffe build: {names}; run: {self.remedy}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        findings = [{**asdict(finding), "ok": finding.ok} for finding in self.findings]
        return {"ok": self.ok, "remedy": self.remedy, "findings": findings}


_CXX = os.environ.get("CXX", "").split(" ")[0] or "c++"
_OPENCV_LIBRARIES = ("opencv_core", "opencv_imgproc", "opencv_imgcodecs", "opencv_highgui", "opencv_videoio")
_NEEDS = (
    Need("C++ compiler", "g++", programs=(_CXX, "g++", "clang++")),
    Need("CMake", "cmake", programs=("cmake",)),
    Need("Ninja", "ninja-build", programs=("ninja",)),
    Need("protoc", "protobuf-compiler", programs=("protoc",)),
    Need("protobuf", "libprotobuf-dev", headers=("google/protobuf/message.h",), libraries=("protobuf",)),
    Need("Boost.System", "libboost-system-dev", headers=("boost/version.hpp",), libraries=("boost_system",)),
    Need("Boost.Thread", "libboost-thread-dev", headers=("boost/thread.hpp",), libraries=("boost_thread",)),
    Need("Boost.Filesystem", "libboost-filesystem-dev", libraries=("boost_filesystem",)),
    Need("Boost.Regex", "libboost-regex-dev", headers=("boost/regex.hpp",), libraries=("boost_regex",)),
    Need("gflags", "libgflags-dev", headers=("gflags/gflags.h",), libraries=("gflags",)),
    Need("glog", "libgoogle-glog-dev", headers=("glog/logging.h",), libraries=("glog",)),
    Need("LMDB", "liblmdb-dev", headers=("lmdb.h",), libraries=("lmdb",)),
    Need("OpenBLAS", "libopenblas-dev", headers=("cblas.h",), libraries=("openblas",)),
    Need("HDF5", "libhdf5-dev", headers=("hdf5/serial/hdf5_hl.h|hdf5_hl.h",),
         libraries=("hdf5_serial|hdf5", "hdf5_serial_hl|hdf5_hl")),
    Need("OpenCV", "libopencv-dev", headers=("opencv4/opencv2/opencv.hpp|opencv2/opencv.hpp",),
         libraries=_OPENCV_LIBRARIES),
    Need("GoogleTest", "libgtest-dev", headers=("gtest/gtest.h",), libraries=("gtest",)),
)  # fmt: skip
_CUDA_VERSIONS = (12, 13)
_CUDA_LIBRARIES = (
    ("CUDA runtime", "cuda_runtime.h", "cudart.so.{major}|cudart", "cuda-runtime"),
    ("Thrust", "cccl/thrust/version.h|thrust/version.h", "", "cuda-cccl"),
    ("cuBLAS", "cublas_v2.h", "cublas.so.{major}|cublas", "cublas"),
    ("cuRAND", "curand.h", "curand.so.10|curand", "curand"),
    ("cuDNN", "cudnn.h", "cudnn.so.9|cudnn.so.8|cudnn", "cudnn"),
)
"""(name, header, library, pip package of an older CUDA without its `nvidia-` and version)."""
_NVCC_PLACES = ("nvcc", "/usr/local/cuda/bin/nvcc")
_CUDA_EXTRA = "'ssdlite-caffe[cuda]'"
_CUDA_HINT = "install NVIDIA's CUDA toolkit 12 or 13 with its nvcc on PATH (or named by CUDACXX), or build with --cpu"


def diagnose(
    *, cuda: bool = False, cudnn: bool = True, pycaffe: bool = True, places: Sequence[Path] | None = None
) -> Diagnosis:
    """Look for everything that a build needs.

    Args:
        cuda: for a GPU build.
        cudnn: with cuDNN, in a GPU build.
        pycaffe: with the Python module.
        places: folders that hold `include` and `lib`; None for those that the compiler and CMake search.
    """
    places = _places() if places is None else places
    findings = [_look(need, places) for need in _NEEDS]
    if pycaffe:
        findings += [_python_headers(), _look(_boost_python(places), places)]
    if cuda:
        compiler, major = _cuda_compiler()
        toolkit = [*_toolkits(compiler.found), *places]
        findings += [compiler, *(_look(need, toolkit) for need in _cuda_libraries(major, cudnn=cudnn))]
    return Diagnosis(tuple(findings))


def cuda_packages() -> Path | None:
    """Folder below which pip puts CUDA's libraries: that of CUDA_PACKAGES, or `nvidia` of this Python's packages."""
    named = os.environ.get("CUDA_PACKAGES")
    folder = Path(named or Path(sysconfig.get_path("purelib")) / "nvidia")
    return folder if folder.is_dir() else None


def cuda_compiler() -> str:
    """The nvcc that a GPU build uses; empty where there is none.

    It is the one that CUDACXX names. Without CUDACXX, pip's nvcc, which fits pip's libraries, goes before that on PATH.
    """
    packages = cuda_packages()
    wheels = [os.fspath(nvcc) for nvcc in sorted(packages.glob("cu*/bin/nvcc"), reverse=True)] if packages else []
    named = os.environ.get("CUDACXX")
    programs = [named] if named else [*wheels, *_NVCC_PLACES]
    return next((found for program in programs if (found := shutil.which(program))), "")


def _cuda_compiler() -> tuple[Finding, int]:
    """The finding for nvcc, and the major version of CUDA that the libraries must have."""
    newest, path = _CUDA_VERSIONS[-1], cuda_compiler()
    if not path:
        missing = f"no {os.environ.get('CUDACXX') or 'nvcc'} on PATH"
        return Finding("CUDA compiler", missing=missing, pip=_CUDA_EXTRA, hint=f"or {_CUDA_HINT}"), newest
    version = (re.findall(r"release (\d+\.\d+)", _output(path, "--version")) or [""])[0]
    major = int(version.partition(".")[0] or 0)
    if major in _CUDA_VERSIONS:
        return Finding(f"CUDA compiler {version}", path), major
    missing = f"{path} is of CUDA {version}, not 12 or 13" if version else f"{path} does not run"
    if os.environ.get("CUDACXX"):  # while it is set, pip's nvcc would not be used
        return Finding("CUDA compiler", missing=missing, hint=f"unset CUDACXX, or {_CUDA_HINT}"), newest
    return Finding("CUDA compiler", missing=missing, pip=_CUDA_EXTRA, hint=f"or {_CUDA_HINT}"), newest


def _cuda_libraries(major: int, *, cudnn: bool) -> list[Need]:
    """What is compiled and linked with: from the extra `cuda`, or from packages that are named after an older CUDA."""
    return [
        Need(
            name,
            headers=(header,),
            libraries=(library.format(major=major),) if library else (),
            pip=_CUDA_EXTRA if major == _CUDA_VERSIONS[-1] else f"nvidia-{wheel}-cu{major}",
        )
        for name, header, library, wheel in _CUDA_LIBRARIES
        if cudnn or name != "cuDNN"
    ]


def _toolkits(nvcc: str) -> list[Path]:
    """Where CUDA's headers and libraries may be: with the compiler, with pip's packages, in toolkits of the system."""
    packages = cuda_packages()
    named = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    toolkits = [Path(name) for name in named] + sorted(Path("/usr/local").glob("cuda*"), reverse=True)
    own = [Path(nvcc).resolve().parent.parent] if nvcc else []
    return [*own, *(sorted(packages.iterdir()) if packages else ()), *toolkits]


def _places() -> list[Path]:
    named = re.split("[:;]", os.environ.get("CMAKE_PREFIX_PATH", ""))
    return [*(Path(place) for place in named if place), Path("/usr/local"), Path("/usr")]


def _look(need: Need, places: Sequence[Path]) -> Finding:
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    includes = [place / "include" / part for place in places for part in ("", multiarch)]
    libs = [place / part for place in places for part in (f"lib/{multiarch}", "lib64", "lib")]
    looked: list[tuple[str, str]] = []  # (what is missing if the other is empty, the file found)
    if need.programs:
        path = next((found for program in need.programs if (found := shutil.which(program))), "")
        looked.append((f"no {need.programs[0]} on PATH", path))
    for header in need.headers:
        names = header.split("|")
        looked.append((names[0], _first(folder / name for folder in includes for name in names)))
    for library in need.libraries:
        names = [f"lib{name}" for name in library.split("|")]
        files = [name + end for name in names for end in (".so", ".a", "")]
        shown = names[0] if ".so." in names[0] else f"{names[0]}.so"
        looked.append((shown, _first(folder / file for folder in libs for file in files)))
    missing = ", ".join(what for what, path in looked if not path)
    return Finding(need.name, "" if missing else looked[-1][1], missing, need.package, need.pip, need.hint)


def _first(paths: Iterable[Path]) -> str:
    return next((os.fspath(path) for path in paths if path.is_file()), "")


def _python_headers() -> Finding:
    header = Path(sysconfig.get_path("include")) / "Python.h"
    found, missing = (os.fspath(header), "") if header.is_file() else ("", os.fspath(header))
    return Finding(f"headers of Python {_PYTHON_VERSION}", found, missing, f"python{_PYTHON_VERSION}-dev")


def _boost_python(places: Sequence[Path]) -> Need:
    """Boost.Python. Debian builds it for the system's Python alone, so another Python's has no package."""
    libraries = (f"boost_python{_PYTHON}",)
    system = _output("/usr/bin/python3", "-c", "import sys; print('%d%d' % sys.version_info[:2])").strip()
    if system in ("", _PYTHON) or not _look(Need("", libraries=(f"boost_python{system}",)), places).ok:
        return Need("Boost.Python", "libboost-python-dev", libraries=libraries)
    hint = f"run this command with Python {system[0]}.{system[1:]}, whose Boost.Python is installed, or build with "
    return Need(f"Boost.Python of Python {_PYTHON_VERSION}", libraries=libraries, hint=f"{hint}--no-pycaffe")


def _output(*command: str) -> str:
    """What a program prints; empty where it does not run."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""
