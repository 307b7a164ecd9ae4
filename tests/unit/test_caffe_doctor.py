"""What is missing for a Caffe build, and the line that brings it."""

from __future__ import annotations

import json
import os
import sysconfig
from pathlib import Path

import pytest

from ssdlite_caffe.caffe import doctor as caffe_doctor
from ssdlite_caffe.caffe.doctor import diagnose
from ssdlite_caffe.errors import BuildError
from tests.commands import Command

MULTIARCH = sysconfig.get_config_var("MULTIARCH") or ""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with every header and library, some where Debian has them, and a PATH with every program."""
    folder = tmp_path / "usr"
    for need in [*caffe_doctor._NEEDS, *caffe_doctor._cuda_libraries(13, cudnn=True)]:
        for dialects in need.headers:
            _touch(folder / "include" / dialects.split("|")[0])
        for dialects in need.libraries:
            _touch(folder / "lib" / MULTIARCH / f"lib{dialects.split('|')[-1]}.so")
    for program in ("c++", "cmake", "ninja", "protoc"):
        path = _touch(folder / "bin" / program)
        path.chmod(0o755)
    _nvcc(folder / "bin" / "nvcc", "13.0")
    for name in ("CUDACXX", "CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(folder / "bin"))
    monkeypatch.setenv("CUDA_PACKAGES", str(tmp_path / "none"))
    return folder


def _nvcc(path: Path, version: str) -> Path:
    """A program that says of itself what nvcc of that version says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {version}, V{version}.88'\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def _touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_all_is_there(place: Path) -> None:
    diagnosis = diagnose(pycaffe=False, places=[place])
    assert [finding for finding in diagnosis.findings if not finding.ok] == []
    assert diagnosis.ok
    assert diagnosis.remedy == ""
    diagnosis.require()


def test_a_missing_library_is_named_with_its_package(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "include" / "lmdb.h").unlink()
    next(place.rglob("libopencv_highgui.so")).unlink()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    diagnosis = diagnose(pycaffe=False, places=[place])
    assert [(finding.name, finding.missing) for finding in diagnosis.missing] == [
        ("LMDB", "lmdb.h"),
        ("OpenCV", "libopencv_highgui.so"),
    ]
    assert diagnosis.remedy == "sudo apt-get install liblmdb-dev libopencv-dev"
    with pytest.raises(BuildError, match=r"LMDB \(lmdb\.h\), OpenCV \(.*\); run: sudo apt-get install liblmdb-dev lib"):
        diagnosis.require()


def test_another_dialect_will_do(place: Path) -> None:
    header = place / "include" / "hdf5" / "serial" / "hdf5_hl.h"
    header.rename(place / "include" / "hdf5_hl.h")
    assert diagnose(pycaffe=False, places=[place]).ok


def test_nothing_on_path(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    result = command("caffe", "build", "--no-pycaffe", "--prefix", tmp_path / "prefix")
    assert result.status == 1
    (line,) = result.err.splitlines()
    for name in ("C++ compiler (no c++ on PATH)", "CMake (no cmake", "Ninja (no ninja", "protoc (no protoc"):
        assert name in line
    packages = line.split("run: apt-get install ")[1].split()
    assert {"cmake", "g++", "ninja-build", "protobuf-compiler"} <= set(packages)
    assert list(tmp_path.iterdir()) == []


def test_the_other_pythons_boost(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system's Python is another one, no package helps: the line says which Python would."""
    monkeypatch.setattr(caffe_doctor, "_output", lambda *command: "39\n")
    monkeypatch.setattr(caffe_doctor, "_PYTHON", "312")
    missing = {finding.name: finding for finding in diagnose(places=[place]).missing}
    assert missing["Boost.Python"].package == "libboost-python-dev", "not even the system's own is installed"
    _touch(place / "lib" / MULTIARCH / "libboost_python39.so")
    (finding,) = [found for found in diagnose(places=[place]).missing if "Boost" in found.name]
    assert (finding.package, finding.missing) == ("", "libboost_python312.so")
    assert "Python 3.9" in finding.hint
    _touch(place / "lib" / MULTIARCH / "libboost_python312.so")
    assert not [found for found in diagnose(places=[place]).missing if "Boost" in found.name]


@pytest.fixture
def no_toolkit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Toolkits of this machine are not looked at."""
    monkeypatch.setattr(caffe_doctor, "_NVCC_PLACES", ("nvcc",))
    monkeypatch.setattr(caffe_doctor, "_toolkits", lambda nvcc: [])


@pytest.mark.usefixtures("no_toolkit")
def test_a_gpu_build_needs_more(place: Path) -> None:
    assert diagnose(cuda=True, pycaffe=False, places=[place]).ok
    (place / "bin" / "nvcc").unlink()
    (place / "include" / "cudnn.h").unlink()
    diagnosis = diagnose(cuda=True, pycaffe=False, places=[place])
    assert [(finding.name, finding.missing) for finding in diagnosis.missing] == [
        ("CUDA compiler", "no nvcc on PATH"),
        ("cuDNN", "cudnn.h"),
    ]
    assert diagnosis.remedy.split(" -m ")[1].startswith("pip install 'ssdlite-caffe[cuda]'; or install NVIDIA's")
    assert [found.name for found in diagnose(cuda=True, cudnn=False, pycaffe=False, places=[place]).missing] == [
        "CUDA compiler"
    ]
    assert diagnose(pycaffe=False, places=[place]).ok


@pytest.mark.usefixtures("no_toolkit")
@pytest.mark.parametrize("version", ["11.8", "14.0"])
def test_another_cuda(place: Path, version: str) -> None:
    nvcc = _nvcc(place / "bin" / "nvcc", version)
    with pytest.raises(BuildError) as raised:
        diagnose(cuda=True, pycaffe=False, places=[place]).require()
    (line,) = str(raised.value).splitlines()
    assert f"CUDA compiler ({nvcc} is of CUDA {version}, not 12 or 13); run: " in line
    assert "-m pip install 'ssdlite-caffe[cuda]'; or " in line


@pytest.mark.usefixtures("no_toolkit")
def test_a_named_compiler_is_the_only_one(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither that on PATH nor pip's stands in for one that CUDACXX names."""
    old = _nvcc(tmp_path / "old" / "nvcc", "11.8")
    monkeypatch.setenv("CUDACXX", str(old))
    (finding,) = diagnose(cuda=True, pycaffe=False, places=[place]).missing
    assert finding.missing == f"{old} is of CUDA 11.8, not 12 or 13"
    assert finding.hint.startswith("unset CUDACXX, or install NVIDIA's CUDA toolkit 12 or 13")
    old.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    (finding,) = diagnose(cuda=True, pycaffe=False, places=[place]).missing
    assert finding.missing == f"{old} does not run"
    monkeypatch.setenv("CUDACXX", str(tmp_path / "none"))
    (finding,) = diagnose(cuda=True, pycaffe=False, places=[place]).missing
    assert finding.missing == f"no {tmp_path / 'none'} on PATH"


@pytest.mark.usefixtures("no_toolkit")
def test_cuda_12(place: Path) -> None:
    """Libraries of another version do not do, and their packages are called otherwise."""
    _nvcc(place / "bin" / "nvcc", "12.9")
    library = next(place.rglob("libcublas.so"))
    library.rename(library.with_name("libcublas.so.13"))
    (finding,) = diagnose(cuda=True, pycaffe=False, places=[place]).missing
    assert (finding.missing, finding.pip) == ("libcublas.so.12", "nvidia-cublas-cu12")
    library.with_name("libcublas.so.12").touch()
    assert diagnose(cuda=True, pycaffe=False, places=[place]).ok


def test_of_pip_packages(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip's packages have numbered libraries alone; its compiler, which fits them, goes before that on PATH."""
    monkeypatch.setenv("CUDA_PACKAGES", str(tmp_path / "nvidia"))
    (place / "include" / "cudnn.h").rename(_touch(tmp_path / "nvidia" / "cudnn" / "include" / "cudnn.h"))
    library = next(place.rglob("libcudnn.so"))
    library.rename(_touch(tmp_path / "nvidia" / "cudnn" / "lib" / "libcudnn.so.9"))
    nvcc = _nvcc(tmp_path / "nvidia" / "cu13" / "bin" / "nvcc", "13.5")
    found = {finding.name: finding.found for finding in diagnose(cuda=True, places=[place]).findings}
    assert found["cuDNN"] == str(tmp_path / "nvidia" / "cudnn" / "lib" / "libcudnn.so.9")
    assert found["CUDA compiler 13.5"] == str(nvcc)


def test_command(command: Command, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caffe_doctor, "_places", lambda: [place])
    result = command("caffe", "doctor", "--no-pycaffe")
    assert result.status == 0
    assert result.out.splitlines()[-1] == "nothing is missing; run: ssdlite-caffe caffe build"
    (place / "include" / "gtest" / "gtest.h").unlink()
    result = command("caffe", "doctor", "--no-pycaffe")
    assert result.status == 1
    assert "MISSING  GoogleTest: gtest/gtest.h" in result.out
    assert result.out.splitlines()[-1].endswith("apt-get install libgtest-dev")
    data = json.loads(command("caffe", "doctor", "--no-pycaffe", "--json").out)
    assert data["ok"] is False
    assert [finding["name"] for finding in data["findings"] if not finding["ok"]] == ["GoogleTest"]


def test_which(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSDLITE_CAFFE_PREFIX", str(tmp_path))
    assert command("caffe", "which") == (
        1,
        "",
        f"ssdlite-caffe: no Caffe is built in {tmp_path}; build it with: ssdlite-caffe caffe build\n",
    )
    _touch(tmp_path / "bin" / "caffe")
    assert command("caffe", "which") == (0, f"{tmp_path}\n", "")
