"""Packing a built Caffe: which libraries go along, and what the archive holds."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from ssdlite_caffe.caffe.bundle import NAME, _libraries, bundle
from ssdlite_caffe.caffe.prefix import STAMP
from ssdlite_caffe.errors import BuildError, OutputError

pytestmark = pytest.mark.skipif(shutil.which("ldd") is None, reason="no ldd")


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A prefix whose program is this machine's Python, which loads more than the C library or not, as it was built."""
    folder = tmp_path / "prefix"
    (folder / "bin").mkdir(parents=True)
    (folder / "lib").mkdir()
    shutil.copy("/bin/ls", folder / "bin" / "caffe")
    (folder / STAMP).write_text(json.dumps({"files": ["bin/caffe"], "cuda": False}))
    return folder


def names(archive: Path) -> list[str]:
    with tarfile.open(archive) as tar:
        return [member.name for member in tar if member.isfile()]


@pytest.mark.parametrize("end", [".tar.xz", ".tar.gz", ".tgz"])
def test_what_is_packed(prefix: Path, tmp_path: Path, end: str) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.txt").write_text("a")
    (tmp_path / "more" / "__pycache__").mkdir()
    (tmp_path / "more" / "__pycache__" / "a.pyc").write_text("a")
    packed = bundle(prefix, tmp_path / f"out{end}", more={"more": tmp_path / "more"})
    libraries = [f"{NAME}/caffe/lib/{name}" for name in packed.libraries]
    own = [f"{NAME}/caffe/bin/caffe", f"{NAME}/caffe/{STAMP}", f"{NAME}/more/a.txt"]
    assert sorted(names(packed.path)) == sorted([*own, *libraries])
    assert packed.size == packed.path.stat().st_size
    assert packed.needed == ()
    with tarfile.open(packed.path) as tar:
        assert {(member.uid, member.gname) for member in tar} == {(0, "")}


def test_libraries_of_the_machine_and_of_cuda_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = """
        linux-vdso.so.1 (0x0)
        libcaffe.so => /prefix/lib/libcaffe.so (0x0)
        libglog.so.1 => /usr/lib/libglog.so.1 (0x0)
        libcublas.so.13 => not found
        libcudnn.so.9 => /opt/libcudnn.so.9 (0x0)
        libm.so.6 => /lib/libm.so.6 (0x0)
        libstdc++.so.6 => /lib/libstdc++.so.6 (0x0)
        /lib64/ld-linux-x86-64.so.2 (0x0)
    """
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, said, ""))
    found, needed = _libraries([tmp_path], {"libcaffe.so"})
    assert sorted(found) == ["libglog.so.1", "libstdc++.so.6"]
    assert needed == {"libcublas.so.13", "libcudnn.so.9"}
    missing = said.replace("/usr/lib/libglog.so.1 (0x0)", "not found")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, missing, ""))
    with pytest.raises(BuildError, match=r"needs libglog\.so\.1, which is not on this machine"):
        _libraries([tmp_path], {"libcaffe.so"})


def test_bad_input(prefix: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"must end in \.tar\.xz or \.tar\.gz"):
        bundle(prefix, tmp_path / "out.zip")
    with pytest.raises(BuildError, match="holds no Caffe that `caffe build` built"):
        bundle(tmp_path, tmp_path / "out.tar.xz")
    (tmp_path / "out.tar.gz").write_text("mine")
    with pytest.raises(OutputError, match=r"out\.tar\.gz"):
        bundle(prefix, tmp_path / "out.tar.gz")
    assert (tmp_path / "out.tar.gz").read_text() == "mine"
    bundle(prefix, tmp_path / "out.tar.gz", force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.tar.gz", "prefix"]
