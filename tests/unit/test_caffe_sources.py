"""The sources of Caffe: downloaded with their hash checked, unpacked without trusting a name."""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import io
import os
import sys
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ssdlite_caffe.caffe import release as caffe_release
from ssdlite_caffe.caffe import sources as caffe_sources
from ssdlite_caffe.caffe.release import unpack
from ssdlite_caffe.caffe.sources import FORK, downloaded_sources, tree_hash
from ssdlite_caffe.errors import BuildError

TOP = "brocolli-caffe-9.0.2"


ARCHIVE = FORK.archive


def _pin(monkeypatch: pytest.MonkeyPatch, sha256: str) -> None:
    monkeypatch.setattr(caffe_sources, "FORK", dataclasses.replace(FORK, sha256=sha256))


def _archive(path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes | tarfile.TarInfo]) -> Path:
    """A source archive with these members, and its hash as the pinned one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                tar.addfile(content)
                continue
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    _pin(monkeypatch, hashlib.sha256(path.read_bytes()).hexdigest())
    return path


def _link(target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo()
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


class TestUnpack:
    def test_takes_source_folders(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        files = {f"{TOP}/src/caffe/net.cpp": b"net", f"{TOP}/setup.py": b"no", f"{TOP}/.git/src/x.cpp": b"no"}
        folder = unpack(_archive(tmp_path / ARCHIVE, monkeypatch, files), tmp_path / "out", caffe_sources.FORK)  # type: ignore[arg-type]
        assert [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()] == ["src/caffe/net.cpp"]

    def test_wrong_hash(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        archive = _archive(tmp_path / ARCHIVE, monkeypatch, {f"{TOP}/src/a.cpp": b"a"})
        archive.write_bytes(archive.read_bytes() + b"\0")
        with pytest.raises(BuildError, match=rf"has SHA-256 [0-9a-f]{{64}}, expected {caffe_sources.FORK.sha256}"):
            unpack(archive, tmp_path / "out", caffe_sources.FORK)
        assert [path.name for path in tmp_path.iterdir()] == [ARCHIVE]

    @pytest.mark.parametrize("name", [f"{TOP}/src/../../../escape.cpp", "/tmp/escape.cpp"])
    def test_a_name_that_leads_out(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        archive = _archive(tmp_path / "a" / ARCHIVE, monkeypatch, {f"{TOP}/src/a.cpp": b"a", name: b"x"})
        with pytest.raises(BuildError, match="outside its own folder"):
            unpack(archive, tmp_path / "a" / "out", caffe_sources.FORK)
        assert [path.name for path in tmp_path.rglob("*")] == ["a", ARCHIVE]

    def test_links_are_skipped(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        files = {f"{TOP}/src": _link(str(outside)), f"{TOP}/src/a.cpp": b"a"}
        folder = unpack(_archive(tmp_path / ARCHIVE, monkeypatch, files), tmp_path / "out", caffe_sources.FORK)
        assert list(outside.iterdir()) == []
        assert (folder / "src" / "a.cpp").read_bytes() == b"a"

    def test_what_is_larger_than_a_caffe(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(caffe_release, "_MAX_UNPACKED", 1 << 20)
        files = {f"{TOP}/src/{name}.cpp": bytes(600 << 10) for name in "ab"}
        with pytest.raises(BuildError, match="more than 1 MB"):
            unpack(_archive(tmp_path / ARCHIVE, monkeypatch, files), tmp_path / "out", caffe_sources.FORK)  # type: ignore[arg-type]
        assert not (tmp_path / "out").exists()

    def test_half_of_an_archive(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        archive = _archive(tmp_path / ARCHIVE, monkeypatch, {f"{TOP}/src/a.cpp": bytes(range(256)) * 64})
        archive.write_bytes(archive.read_bytes()[:150])
        _pin(monkeypatch, hashlib.sha256(archive.read_bytes()).hexdigest())
        with pytest.raises(BuildError, match="cannot be unpacked"):
            unpack(archive, tmp_path / "out", caffe_sources.FORK)


class TestDownload:
    """From an index in a folder, which pip's settings name."""

    @pytest.fixture
    def index(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """The index's archive; its setup.py would leave a file were it run."""
        pytest.importorskip("pip")
        mark = f"open({str(tmp_path / 'ran')!r}, 'w')\n".encode()
        page = tmp_path / "simple" / "brocolli-caffe"
        archive = _archive(page / ARCHIVE, monkeypatch, {f"{TOP}/src/a.cpp": b"a", f"{TOP}/setup.py": mark})
        (page / "index.html").write_text(f'<a href="{ARCHIVE}">{ARCHIVE}</a>')
        for name in [name for name in os.environ if name.startswith("PIP_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "simple").as_uri())
        return archive

    def test_once(self, index: Path, tmp_path: Path) -> None:
        said: list[str] = []
        folder = downloaded_sources(tmp_path / "cache", said.append)
        assert (folder / "src" / "a.cpp").read_bytes() == b"a"
        assert said == [f"downloading {ARCHIVE}"]
        assert not (tmp_path / "ran").exists(), "nothing of the package is run"
        index.unlink()
        assert downloaded_sources(tmp_path / "cache", said.append) == folder
        assert len(said) == 1
        assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name, ARCHIVE]

    def test_a_broken_archive_in_the_cache_is_fetched_anew(self, index: Path, tmp_path: Path) -> None:
        kept = tmp_path / "cache" / "sources" / ARCHIVE
        kept.parent.mkdir(parents=True)
        kept.write_bytes(index.read_bytes()[:50])
        assert (downloaded_sources(tmp_path / "cache", lambda _: None) / "src" / "a.cpp").exists()

    def test_another_file_than_the_pinned(self, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        found = hashlib.sha256(index.read_bytes()).hexdigest()
        _pin(monkeypatch, "0" * 64)
        with pytest.raises(BuildError, match=f"/simple/.* gives a file with SHA-256 {found}, expected {'0' * 64}"):
            downloaded_sources(tmp_path / "cache", lambda _: None)
        assert list((tmp_path / "cache").rglob("*.*")) == []

    def test_an_index_without_it(self, index: Path, tmp_path: Path) -> None:
        (index.parent / "index.html").write_text("")
        with pytest.raises(BuildError, match=rf"9\.0\.2 cannot be downloaded: file:.*the page does not list {ARCHIVE}"):
            downloaded_sources(tmp_path / "cache", lambda _: None)

    def test_a_second_index(self, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "absent").as_uri())
        with pytest.raises(BuildError, match=r"absent/brocolli-caffe/: .*No such file"):
            downloaded_sources(tmp_path / "cache", lambda _: None)
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", (tmp_path / "simple").as_uri())
        assert (downloaded_sources(tmp_path / "cache", lambda _: None) / "src" / "a.cpp").exists()

    def test_an_index_with_a_login(self, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is sent, and it is in no message."""

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.headers["Authorization"] == "Basic " + base64.b64encode(b"me:p@ss").decode():
                    super().do_GET()
                else:
                    self.send_error(401)

            def log_message(self, *_: object) -> None:
                pass

        monkeypatch.setenv("no_proxy", "127.0.0.1")
        handler = functools.partial(Handler, directory=str(tmp_path / "simple"))
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            try:
                monkeypatch.setenv("PIP_INDEX_URL", f"http://me:wrong@127.0.0.1:{server.server_port}")
                with pytest.raises(BuildError, match="401") as raised:
                    downloaded_sources(tmp_path / "cache", lambda _: None)
                assert "wrong" not in str(raised.value)
                monkeypatch.setenv("PIP_INDEX_URL", f"http://me:p%40ss@127.0.0.1:{server.server_port}")
                assert (downloaded_sources(tmp_path / "cache", lambda _: None) / "src" / "a.cpp").exists()
            finally:
                server.shutdown()

    def test_a_python_without_pip(self, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        del index
        python = tmp_path / "python"
        python.write_text('#!/bin/sh\necho "$0: No module named pip" >&2; exit 1\n')
        python.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(python))
        with pytest.raises(BuildError, match=r"has no pip .*; install pip, or give the sources with --source"):
            downloaded_sources(tmp_path / "cache", lambda _: None)


def test_tree_hash_depends_on_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.cpp").write_text("a")
    hashes = [tree_hash(tmp_path)]
    (tmp_path / "src" / "a.cpp").rename(tmp_path / "src" / "b.cpp")
    hashes.append(tree_hash(tmp_path))
    (tmp_path / "src" / "b.cpp").write_text("b")
    hashes.append(tree_hash(tmp_path))
    assert len(set(hashes)) == 3
    (tmp_path / "src" / "b.pyc").touch()
    (tmp_path / "README.md").touch()
    assert tree_hash(tmp_path) == hashes[-1]
