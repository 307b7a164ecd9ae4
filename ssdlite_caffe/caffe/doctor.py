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
        headers: files below a folder of headers, of each entry one dialect, `a|b`, has to be there.
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
        wheels = dict.fromkeys(finding.pip for finding in self.missing if finding.pip)
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
_CUDA_VERSIONS = (12, 13)
_NVCC_PLACES = ("nvcc", "/usr/local/cuda/bin/nvcc")
_CUDA_EXTRA = "'ssdlite-caffe[cuda]'"
_CUDA_HINT = "have NVIDIA's CUDA toolkit 12 or 13 with its nvcc on PATH (or named by CUDACXX), or build with --cpu"


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
    """The nvcc that a GPU build takes; empty when there is none.

    CUDACXX names it. Else it is pip's, which fits the libraries of pip that lie beside it, before the one on PATH.
    """
    packages = cuda_packages()
    wheels = [os.fspath(nvcc) for nvcc in sorted(packages.glob("cu*/bin/nvcc"), reverse=True)] if packages else []
    named = os.environ.get("CUDACXX")
    for program in [named] if named else [*wheels, *_NVCC_PLACES]:
        found = shutil.which(program)
        if found:
            return found
    return ""


def _cuda_compiler() -> tuple[Finding, int]:
    """The finding for nvcc, and the major version of CUDA that the libraries have to be of."""
    newest = _CUDA_VERSIONS[-1]
    path = cuda_compiler()
    if not path:
        missing = f"no {os.environ.get('CUDACXX') or 'nvcc'} on PATH"
        return Finding("CUDA compiler", "", missing, "", _CUDA_EXTRA, f"or {_CUDA_HINT}"), newest
    version = _cuda_version(path)
    major = int(version.partition(".")[0] or 0)
    if major in _CUDA_VERSIONS:
        return Finding(f"CUDA compiler {version}", path, "", "", "", ""), major
    missing = f"{path} is of CUDA {version}, not 12 or 13" if version else f"{path} does not run"
    # With CUDACXX set, pip's would not be looked at.
    remedy = ("", f"unset CUDACXX, or {_CUDA_HINT}") if os.environ.get("CUDACXX") else (_CUDA_EXTRA, f"or {_CUDA_HINT}")
    return Finding("CUDA compiler", "", missing, "", *remedy), newest


def _cuda_version(nvcc: str) -> str:
    """Version of CUDA that a compiler is of, as `13.0`; empty when it does not say one."""
    try:
        done = subprocess.run([nvcc, "--version"], capture_output=True, text=True, timeout=60)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""
    version = re.search(r"release (\d+\.\d+)", done.stdout)
    return version.group(1) if version else ""


def _cuda_libraries(major: int, *, cudnn: bool) -> list[Need]:
    """What is compiled and linked with: of the extra `cuda`, or of packages that are named after an older CUDA."""
    kinds = [
        ("CUDA runtime", "cuda_runtime.h", f"cudart.so.{major}|cudart", "cuda-runtime"),
        ("Thrust", "cccl/thrust/version.h|thrust/version.h", "", "cuda-cccl"),
        ("cuBLAS", "cublas_v2.h", f"cublas.so.{major}|cublas", "cublas"),
        ("cuRAND", "curand.h", "curand.so.10|curand", "curand"),
        ("cuDNN", "cudnn.h", "cudnn.so.9|cudnn.so.8|cudnn", "cudnn"),
    ]
    return [
        Need(
            name,
            headers=(header,),
            libraries=(library,) if library else (),
            pip=_CUDA_EXTRA if major == _CUDA_VERSIONS[-1] else f"nvidia-{wheel}-cu{major}",
        )
        for name, header, library, wheel in kinds
        if cudnn or name != "cuDNN"
    ]


def _toolkits(nvcc: str) -> list[Path]:
    """Where CUDA's headers and libraries may lie: with the compiler, with pip's packages, in toolkits of the system."""
    packages = cuda_packages()
    named = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    toolkits = [Path(name) for name in named] + sorted(Path("/usr/local").glob("cuda*"), reverse=True)
    own = [Path(nvcc).resolve().parent.parent] if nvcc else []
    return [*own, *(sorted(packages.iterdir()) if packages else ()), *toolkits]


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
    for dialects in need.headers:
        path = _first(folder / name for folder in includes for name in dialects.split("|"))
        found = path or found
        missing += [] if path else [dialects.split("|")[0]]
    for dialects in need.libraries:
        path = _first(
            folder / f"lib{name}{end}" for folder in libs for name in dialects.split("|") for end in (".so", ".a", "")
        )
        found = path or found
        name = dialects.split("|")[0]
        missing += [] if path else [f"lib{name}" if ".so." in name else f"lib{name}.so"]
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
