"""The Caffe sources that a build takes: the pinned release from the package index, or a folder of the user's own."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
import ssl
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit
from urllib.request import HTTPSHandler, OpenerDirector, ProxyHandler, Request, build_opener

from ssdlite_caffe.errors import BuildError
from ssdlite_caffe.files import file_sha256, write_bytes

PROJECT = "brocolli-caffe"
VERSION = "9.0.2"
SHA256 = "c6410cc60bdd6db685d441b66be7df05410f8850ac88d6b75d48ef9b2315c08a"
ARCHIVE = f"{PROJECT}-{VERSION}.tar.gz"

NEEDED = ("include/caffe/layer.hpp", "src/caffe/net.cpp", "src/caffe/test/test_caffe_main.cpp", "tools/caffe.cpp")
"""Files by which a folder is known to hold Caffe."""

_FOLDERS = ("include", "python", "src", "tools")
_MAX_ARCHIVE = 100 << 20
_MAX_UNPACKED = 400 << 20
_READ = frozenset({".c", ".cc", ".cmake", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".py", ".txt"})

_PIP_SETTINGS = """
import json
from pip._internal.commands import create_command
pip = create_command("download").parser.get_default_values()
print(json.dumps({"indexes": [pip.index_url, *pip.extra_index_urls], "proxy": pip.proxy, "certificates": pip.cert}))
"""
"""Asks pip for its settings: its default index, its configuration files and its environment variables, merged.

pip cannot download the archive itself: it would run the archive's setup.py for the package's name and version, and that
file runs on no supported Python.
"""
_TIMEOUT_S = 180
_HREF = re.compile(r"""<a\s[^>]*?href\s*=\s*["']([^"']+)["']""", re.IGNORECASE)


def downloaded_sources(cache: Path, progress: Callable[[str], None]) -> Path:
    """The pinned release, unpacked; downloaded from the package index and through the proxy that pip is set up for.

    Args:
        cache: folder that keeps the archive and what is unpacked from it.
        progress: called with what is being done.

    Raises:
        BuildError: no index has the archive, or its SHA-256 is not the pinned one.
    """
    folder = cache / "sources" / f"{PROJECT}-{VERSION}-{SHA256[:8]}"
    if folder.is_dir():
        return folder
    archive = cache / "sources" / ARCHIVE
    archive.parent.mkdir(parents=True, exist_ok=True)
    if not archive.is_file() or file_sha256(archive) != SHA256:
        progress(f"downloading {ARCHIVE}")
        write_bytes(archive, _download(), force=True)
    return unpack(archive, folder)


def _download() -> bytes:
    """The archive, from the first of pip's indexes that has it; pip's find-links and key rings are not asked.

    Raises:
        BuildError: this Python has no pip, no index has the archive, or one gives another file.
    """
    done = subprocess.run([sys.executable, "-c", _PIP_SETTINGS], capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise BuildError(
            f"{sys.executable} has no pip to ask for the package index ({why}); install pip, or give the sources with "
            "--source"
        )
    settings = json.loads(done.stdout)
    context = ssl.create_default_context(cafile=settings["certificates"] or os.environ.get("REQUESTS_CA_BUNDLE"))
    proxies = dict.fromkeys(("http", "https"), settings["proxy"]) if settings["proxy"] else None
    opener = build_opener(ProxyHandler(proxies), HTTPSHandler(context=context))
    problems = []
    for index in settings["indexes"]:
        page = f"{index.rstrip('/')}/{PROJECT}/"
        try:
            data = _fetch(opener, _archive_link(opener, page))
        except (OSError, HTTPException, ValueError) as error:
            problems.append(f"{_without_login(page)}: {error}")
            continue
        found = hashlib.sha256(data).hexdigest()
        if found != SHA256:
            raise BuildError(f"{_without_login(page)} gives a file with SHA-256 {found}, expected {SHA256}")
        return data
    raise BuildError(f"{PROJECT} {VERSION} cannot be downloaded: {'; '.join(problems)}")


def _archive_link(opener: OpenerDirector, page: str) -> str:
    """The URL of the archive on an index's page of the project (PEP 503)."""
    text = _fetch(opener, f"{page}index.html" if page.startswith("file:") else page).decode("utf-8", "replace")
    for link in _HREF.findall(text):
        url = urljoin(page, html.unescape(link))
        if PurePosixPath(unquote(urlsplit(url).path)).name == ARCHIVE:
            return url
    raise ValueError(f"the page does not list {ARCHIVE}")


def _fetch(opener: OpenerDirector, url: str) -> bytes:
    """What a URL gives; a login in the URL is sent as HTTP basic authentication."""
    parts = urlsplit(url)
    request = Request(_without_login(url))  # noqa: S310 - the schemes that pip takes
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        # "Unredirected", since a redirect to another host must not take the login there.
        request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
    with opener.open(request, timeout=_TIMEOUT_S) as response:
        data: bytes = response.read(_MAX_ARCHIVE + 1)
    if len(data) > _MAX_ARCHIVE:
        raise ValueError(f"{_without_login(url)} is larger than {_MAX_ARCHIVE >> 20} MB")
    return data


def _without_login(url: str) -> str:
    """A URL as it may be shown: without user name and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack the pinned archive's source folders to `folder`, in one step.

    Raises:
        BuildError: the archive is not the pinned one or is damaged, names files outside its folder, or is too large.
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

    Links, devices, owners and modes are skipped; a name that leads out of `folder` is an error.
    """
    written = 0
    for member in members:
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts:
            raise BuildError(f"the archive names a file outside its own folder: {member.name!a}")
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
    """A user's own fork, checked for the files that every Caffe has.

    Raises:
        BuildError: it is not a folder, or one of these files is missing.
    """
    if not folder.is_dir():
        raise BuildError(f"--source {folder} is not a folder")
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise BuildError(f"--source {folder} is not a Caffe: it has no {missing[0]}; give the root of a Caffe SSD fork")
    return folder.resolve()


def tree_hash(folder: Path, names: Iterable[str] = _FOLDERS) -> str:
    """Hash of names and contents of the source and CMake files in the folders `names` of `folder`, hex."""
    digest = hashlib.sha256()
    for name in names:
        for path in sorted((folder / name).rglob("*")):
            if path.suffix in _READ and path.is_file():
                digest.update(f"{path.relative_to(folder).as_posix()}\0{file_sha256(path)}\n".encode())
    return digest.hexdigest()
