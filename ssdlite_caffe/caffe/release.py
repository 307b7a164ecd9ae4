"""Pinned source releases from the package index: downloaded as pip is set up, checked, unpacked."""

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
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit
from urllib.request import HTTPSHandler, OpenerDirector, ProxyHandler, Request, build_opener

from ssdlite_caffe.errors import BuildError
from ssdlite_caffe.files import file_sha256, write_bytes


@dataclass(frozen=True)
class Release:
    """A source archive of the package index.

    Attributes:
        project: on the index.
        version: of the release.
        sha256: of the archive.
        folders: what is kept of the archive's own folder.
    """

    project: str
    version: str
    sha256: str
    folders: tuple[str, ...]

    @property
    def archive(self) -> str:
        """File name of the archive."""
        return f"{self.project}-{self.version}.tar.gz"


_MAX_ARCHIVE = 100 << 20
_MAX_UNPACKED = 400 << 20

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


def downloaded_release(release: Release, cache: Path, progress: Callable[[str], None]) -> Path:
    """The release, unpacked; downloaded from the package index and through the proxy that pip is set up for.

    Args:
        release: which one.
        cache: folder that keeps the archive and what is unpacked from it.
        progress: called with what is being done.

    Raises:
        BuildError: no index has the archive, or its SHA-256 is not the pinned one.
    """
    folder = cache / "sources" / f"{release.project}-{release.version}-{release.sha256[:8]}"
    if folder.is_dir():
        return folder
    archive = cache / "sources" / release.archive
    archive.parent.mkdir(parents=True, exist_ok=True)
    if not archive.is_file() or file_sha256(archive) != release.sha256:
        progress(f"downloading {release.archive}")
        write_bytes(archive, _download(release), force=True)
    return unpack(archive, folder, release)


def _download(release: Release) -> bytes:
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
        page = f"{index.rstrip('/')}/{release.project}/"
        try:
            data = _fetch(opener, _archive_link(opener, page, release.archive))
        except (OSError, HTTPException, ValueError) as error:
            problems.append(f"{_without_login(page)}: {error}")
            continue
        found = hashlib.sha256(data).hexdigest()
        if found != release.sha256:
            raise BuildError(f"{_without_login(page)} gives a file with SHA-256 {found}, expected {release.sha256}")
        return data
    raise BuildError(f"{release.project} {release.version} cannot be downloaded: {'; '.join(problems)}")


def _archive_link(opener: OpenerDirector, page: str, archive: str) -> str:
    """The URL of the archive on an index's page of the project (PEP 503)."""
    text = _fetch(opener, f"{page}index.html" if page.startswith("file:") else page).decode("utf-8", "replace")
    for link in _HREF.findall(text):
        url = urljoin(page, html.unescape(link))
        if PurePosixPath(unquote(urlsplit(url).path)).name == archive:
            return url
    raise ValueError(f"the page does not list {archive}")


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


def unpack(archive: Path, folder: Path, release: Release) -> Path:
    """Unpack a release's archive, what is kept of it, to `folder` in one step.

    Raises:
        BuildError: the archive is not the pinned one or is damaged, names files outside its folder, or is too large.
    """
    found = file_sha256(archive)
    if found != release.sha256:
        wanted = f"expected {release.sha256}: it is not {release.project} {release.version}"
        raise BuildError(f"{archive} has SHA-256 {found}, {wanted}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpack.") as temporary:
        try:
            with tarfile.open(archive, "r:gz") as tar:
                _extract(tar, Path(temporary) / "new", release.folders)
        except (tarfile.TarError, EOFError) as error:
            raise BuildError(f"{archive} cannot be unpacked: {error}") from error
        (Path(temporary) / "new").rename(folder)
    return folder


def _extract(members: tarfile.TarFile, folder: Path, folders: tuple[str, ...]) -> None:
    """Write the plain files under `folders`, without the archive's own top folder.

    Links, devices, owners and modes are skipped; a name that leads out of `folder` is an error.
    """
    written = 0
    for member in members:
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts:
            raise BuildError(f"the archive names a file outside its own folder: {member.name!a}")
        inside = path.parts[1:]
        if not member.isfile() or not inside or inside[0] not in folders:
            continue
        written += member.size
        if written > _MAX_UNPACKED:
            raise BuildError(f"the archive unpacks to more than {_MAX_UNPACKED >> 20} MB")
        target = folder.joinpath(*inside)
        target.parent.mkdir(parents=True, exist_ok=True)
        stream = members.extractfile(member)
        assert stream is not None  # a plain file
        target.write_bytes(stream.read())
