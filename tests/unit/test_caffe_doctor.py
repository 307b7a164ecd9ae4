"""What is missing for a Caffe build, and the line that brings it."""

from __future__ import annotations

import json
import os
import sysconfig
from dataclasses import replace
from pathlib import Path

import pytest

from ssdlite_caffe.errors import BuildError
from ssdlite_caffe.tools import caffe_doctor
from ssdlite_caffe.tools.caffe_doctor import diagnose
from tests.commands import Command

MULTIARCH = sysconfig.get_config_var("MULTIARCH") or ""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with every header and library, some where Debian has them, and a PATH with every program."""
    folder = tmp_path / "usr"
    names = [*caffe_doctor._TOOLS, *caffe_doctor._LIBRARIES]
    for need in [*names, *caffe_doctor._CUDA, caffe_doctor._CUDNN]:
        for spellings in need.headers:
            _touch(folder / "include" / spellings.split("|")[0])
        for spellings in need.libraries:
            _touch(folder / "lib" / MULTIARCH / f"lib{spellings.split('|')[-1]}{'' if '.so.' in spellings else '.so'}")
    for program in ("c++", "cmake", "ninja", "protoc", "nvcc"):
        path = _touch(folder / "bin" / program)
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder / "bin"))
    monkeypatch.setenv("CUDA_PACKAGES", str(tmp_path / "none"))
    return folder


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


def test_another_spelling_will_do(place: Path) -> None:
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
    monkeypatch.setattr(caffe_doctor, "_system_python", lambda: "39")
    monkeypatch.setattr(caffe_doctor, "_PYTHON", "312")
    missing = {finding.name: finding for finding in diagnose(places=[place]).missing}
    assert missing["Boost.Python"].package == "libboost-python-dev", "not even the system's own is installed"
    _touch(place / "lib" / MULTIARCH / "libboost_python39.so")
    (finding,) = [found for found in diagnose(places=[place]).missing if "Boost" in found.name]
    assert (finding.package, finding.missing) == ("", "libboost_python312.so")
    assert "Python 3.9" in finding.hint
    _touch(place / "lib" / MULTIARCH / "libboost_python312.so")
    assert not [found for found in diagnose(places=[place]).missing if "Boost" in found.name]


def test_a_gpu_build_needs_more(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caffe_doctor, "_toolkits", list)
    monkeypatch.setattr(caffe_doctor, "_NVCC", replace(caffe_doctor._NVCC, program=("nvcc",)))
    assert diagnose(cuda=True, pycaffe=False, places=[place]).ok
    (place / "bin" / "nvcc").unlink()
    (place / "include" / "cudnn.h").unlink()
    diagnosis = diagnose(cuda=True, pycaffe=False, places=[place])
    assert [finding.name for finding in diagnosis.missing] == ["CUDA compiler", "cuDNN"]
    assert "-m pip install nvidia-cudnn-cu13; install NVIDIA's CUDA toolkit" in diagnosis.remedy
    assert [found.name for found in diagnose(cuda=True, cudnn=False, pycaffe=False, places=[place]).missing] == [
        "CUDA compiler"
    ]
    assert diagnose(pycaffe=False, places=[place]).ok


def test_of_pip_packages(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip's packages have a folder each, and numbered libraries alone."""
    monkeypatch.setenv("CUDA_PACKAGES", str(tmp_path / "nvidia"))
    (place / "include" / "cudnn.h").rename(_touch(tmp_path / "nvidia" / "cudnn" / "include" / "cudnn.h"))
    library = next(place.rglob("libcudnn.so.8"))
    library.rename(_touch(tmp_path / "nvidia" / "cudnn" / "lib" / "libcudnn.so.9"))
    (found,) = [found for found in diagnose(cuda=True, places=[place]).findings if found.name == "cuDNN"]
    assert found.found == str(tmp_path / "nvidia" / "cudnn" / "lib" / "libcudnn.so.9")


def test_command(command: Command, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caffe_doctor, "_places", lambda: [place])
    result = command("caffe", "doctor", "--no-pycaffe")
    assert result.status == 0
    assert result.out.splitlines()[-1] == "all is there: ssdlite-caffe caffe build"
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
