"""What a Caffe build needs of the machine, what of it is missing, and the one line that brings it.

Everything is looked for by its file: a program on PATH, a header and a library where the compiler looks for them. So
the answer does not depend on a compiler being there already.
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


@dataclass(frozen=True)
class Need:
    """A thing that a build needs.

    Attributes:
        name: what it is called.
        package: the Debian package that brings it; empty where none does.
        program: a program of which one has to be on PATH.
        headers: files below a folder of headers, of each entry one spelling, `a|b`, has to be there.
        libraries: likewise below a folder of libraries, without `lib` and `.so`.
        pip: the package of the Python index that brings it.
        hint: what to do where no package brings it.
    """

    name: str
    package: str = ""
    program: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    pip: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Finding:
    """Whether a need is met.

    Attributes:
        name: of the need.
        found: the file that meets it, empty when it is not met.
        missing: what was looked for in vain.
        package: the Debian package that brings it.
        pip: the package of the Python index that brings it.
        hint: what to do where no package brings it.
    """

    name: str
    found: str
    missing: str
    package: str
    pip: str
    hint: str

    @property
    def ok(self) -> bool:
        """Whether it is there."""
        return not self.missing


@dataclass(frozen=True)
class Diagnosis:
    """All findings for one kind of build."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether a build can begin."""
        return all(finding.ok for finding in self.findings)

    @property
    def missing(self) -> list[Finding]:
        """What is not there."""
        return [finding for finding in self.findings if not finding.ok]

    @property
    def remedy(self) -> str:
        """What brings everything that is missing, in a line."""
        remedies = []
        packages = sorted({finding.package for finding in self.missing if finding.package})
        if packages:
            remedies.append(f"{'sudo ' if os.geteuid() else ''}apt-get install {' '.join(packages)}")
        wheels = [finding.pip for finding in self.missing if finding.pip]
        if wheels:
            remedies.append(f"{sys.executable} -m pip install {' '.join(wheels)}")
        return "; ".join([*remedies, *dict.fromkeys(finding.hint for finding in self.missing if finding.hint)])

    def require(self) -> None:
        """Raise for what is missing.

        Raises:
            BuildError: something is; the text names it and what brings it.
        """
        if not self.ok:
            names = ", ".join(f"{finding.name} ({finding.missing})" for finding in self.missing)
            raise BuildError(f"missing for the Caffe build: {names}; run: {self.remedy}")

    def to_dict(self) -> dict[str, Any]:
        """The diagnosis as JSON takes it."""
        findings = [{**asdict(finding), "ok": finding.ok} for finding in self.findings]
        return {"ok": self.ok, "remedy": self.remedy, "findings": findings}


_TOOLS = (
    Need("C++ compiler", "g++", program=(os.environ.get("CXX", "").split(" ")[0] or "c++", "g++", "clang++")),
    Need("CMake", "cmake", program=("cmake",)),
    Need("Ninja", "ninja-build", program=("ninja",)),
    Need("protoc", "protobuf-compiler", program=("protoc",)),
)
_LIBRARIES = (
    Need("protobuf", "libprotobuf-dev", headers=("google/protobuf/message.h",), libraries=("protobuf",)),
    Need("Boost.System", "libboost-system-dev", headers=("boost/version.hpp",), libraries=("boost_system",)),
    Need("Boost.Thread", "libboost-thread-dev", headers=("boost/thread.hpp",), libraries=("boost_thread",)),
    Need("Boost.Filesystem", "libboost-filesystem-dev", libraries=("boost_filesystem",)),
    Need("Boost.Regex", "libboost-regex-dev", headers=("boost/regex.hpp",), libraries=("boost_regex",)),
    Need("gflags", "libgflags-dev", headers=("gflags/gflags.h",), libraries=("gflags",)),
    Need("glog", "libgoogle-glog-dev", headers=("glog/logging.h",), libraries=("glog",)),
    Need("LMDB", "liblmdb-dev", headers=("lmdb.h",), libraries=("lmdb",)),
    Need("OpenBLAS", "libopenblas-dev", headers=("cblas.h",), libraries=("openblas",)),
    Need(
        "HDF5",
        "libhdf5-dev",
        headers=("hdf5/serial/hdf5_hl.h|hdf5_hl.h",),
        libraries=("hdf5_serial|hdf5", "hdf5_serial_hl|hdf5_hl"),
    ),
    Need(
        "OpenCV",
        "libopencv-dev",
        headers=("opencv4/opencv2/opencv.hpp|opencv2/opencv.hpp",),
        libraries=("opencv_core", "opencv_imgproc", "opencv_imgcodecs", "opencv_highgui", "opencv_videoio"),
    ),
    Need("GoogleTest", "libgtest-dev", headers=("gtest/gtest.h",), libraries=("gtest",)),
)
_NVCC = Need(
    "CUDA compiler",
    program=(os.environ.get("CUDACXX") or "nvcc", "/usr/local/cuda/bin/nvcc"),
    hint="install NVIDIA's CUDA toolkit 12 or 13 and put its nvcc on PATH, or build with --cpu",
)
_CUDA = (
    Need("cuBLAS", headers=("cublas_v2.h",), libraries=("cublas|cublas.so.13|cublas.so.12",), pip="nvidia-cublas"),
    Need("cuRAND", headers=("curand.h",), libraries=("curand|curand.so.10",), pip="nvidia-curand"),
)
_CUDNN = Need("cuDNN", headers=("cudnn.h",), libraries=("cudnn|cudnn.so.9|cudnn.so.8",), pip="nvidia-cudnn-cu13")


def diagnose(
    *, cuda: bool = False, cudnn: bool = True, pycaffe: bool = True, places: Sequence[Path] | None = None
) -> Diagnosis:
    """Look for everything that a build needs.

    Args:
        cuda: for a GPU build.
        cudnn: with cuDNN, in a GPU build.
        pycaffe: with the Python module.
        places: folders that hold `include` and `lib`; None for those the compiler and CMake search.
    """
    needs = [*_TOOLS, *_LIBRARIES]
    places = _places() if places is None else places
    findings = [_look(need, places) for need in needs]
    if pycaffe:
        findings += [_python_headers(), _look(_boost_python(places), places)]
    if cuda:
        toolkit = [*_toolkits(), *places]
        findings += [_look(need, toolkit) for need in (_NVCC, *_CUDA, *((_CUDNN,) if cudnn else ()))]
    return Diagnosis(tuple(findings))


def cuda_packages() -> Path | None:
    """Folder below which pip puts CUDA's libraries: that of CUDA_PACKAGES, or `nvidia` of this Python's packages."""
    named = os.environ.get("CUDA_PACKAGES")
    folder = Path(named or Path(sysconfig.get_path("purelib")) / "nvidia")
    return folder if folder.is_dir() else None


def _toolkits() -> list[Path]:
    packages = cuda_packages()
    named = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    toolkits = [Path(name) for name in named] + sorted(Path("/usr/local").glob("cuda*"), reverse=True)
    return [*(sorted(packages.iterdir()) if packages else ()), *toolkits]


def _places() -> list[Path]:
    named = re.split("[:;]", os.environ.get("CMAKE_PREFIX_PATH", ""))
    return [*(Path(place) for place in named if place), Path("/usr/local"), Path("/usr")]


def _look(need: Need, places: Sequence[Path]) -> Finding:
    found = ""
    for program in need.program:
        found = shutil.which(program) or ""
        if found:
            break
    missing = [] if found or not need.program else [f"no {need.program[0]} on PATH"]
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    includes = [place / "include" / part for place in places for part in ("", multiarch)]
    libs = [place / part for place in places for part in (f"lib/{multiarch}", "lib64", "lib")]
    for spellings in need.headers:
        path = _first(folder / name for folder in includes for name in spellings.split("|"))
        found = path or found
        missing += [] if path else [spellings.split("|")[0]]
    for spellings in need.libraries:
        path = _first(
            folder / f"lib{name}{end}" for folder in libs for name in spellings.split("|") for end in (".so", ".a", "")
        )
        found = path or found
        missing += [] if path else [f"lib{spellings.split('|')[0]}.so"]
    return Finding(need.name, "" if missing else found, ", ".join(missing), need.package, need.pip, need.hint)


def _first(paths: Iterable[Path]) -> str:
    return next((os.fspath(path) for path in paths if path.is_file()), "")


def _python_headers() -> Finding:
    header = Path(sysconfig.get_path("include")) / "Python.h"
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    path = os.fspath(header)
    found, missing = (path, "") if header.is_file() else ("", path)
    return Finding(f"headers of Python {version}", found, missing, f"python{version}-dev", "", "")


def _boost_python(places: Sequence[Path]) -> Need:
    """Boost.Python is built for one Python, the system's: another's pycaffe has no package to take it from."""
    need = Need("Boost.Python", "libboost-python-dev", libraries=(f"boost_python{_PYTHON}",))
    system = _system_python()
    if system in ("", _PYTHON) or not _look(Need("", libraries=(f"boost_python{system}",)), places).ok:
        return need
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return Need(
        f"Boost.Python of Python {version}",
        libraries=need.libraries,
        hint=f"run this command with Python {system[0]}.{system[1:]}, whose Boost.Python is installed, or build with "
        "--no-pycaffe",
    )


def _system_python() -> str:
    """Version of the system's Python, as `311`; empty when there is none."""
    try:
        code = "import sys; print('%d%d' % sys.version_info[:2])"
        done = subprocess.run(["/usr/bin/python3", "-c", code], capture_output=True, text=True, timeout=30)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
