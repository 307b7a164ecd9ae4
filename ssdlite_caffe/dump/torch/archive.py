"""The zip file of torch.save: data.pkl, and a member `data/KEY` of raw numbers for each storage.

Nothing is unpacked to the disk, and nothing is decompressed: torch.save stores its members as they are, so a member
takes as many bytes as it has in the file. A member that is compressed, lies over another one or beyond the file's end,
or whose name leads elsewhere, is refused with the whole file.
"""

from __future__ import annotations

import itertools
import struct
import zipfile
import zlib
from dataclasses import dataclass

from ssdlite_caffe.dump.model_bytes import FileBytes
from ssdlite_caffe.dump.torch.names import ZIP_START
from ssdlite_caffe.errors import ModelError

MAX_PICKLE = 1 << 23
"""Bytes of data.pkl, 8 MiB; that of an SSDlite has 80 kB."""
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")


@dataclass(frozen=True)
class Member:
    """A member of the file: where its bytes are, and their checksum."""

    start: int
    size: int
    checksum: int


class Archive:
    """The members of a zip file that torch.save wrote, checked. Each is read when it is asked for."""

    def __init__(self, file: FileBytes) -> None:
        """Find and check all members.

        Raises:
            ModelError: it is no such file, is cut short, or has members that torch.save never writes.
        """
        self.file, self.source = file, (source := str(file.path))
        try:
            with zipfile.ZipFile(file.path) as archive:
                listed = archive.infolist()
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, struct.error, IndexError) as error:
            raise ModelError(f"{source} is cut short or damaged: {str(error)[:120]}") from error
        members: dict[str, Member] = {}
        ends: list[tuple[int, int, str]] = []
        for info in listed:
            _check_name(info.filename, source)
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or info.flag_bits & 1:
                raise ModelError(
                    f"{source} has a compressed or encrypted member, {_shown(info.filename)}, which torch.save never "
                    "writes; it was not unpacked"
                )
            if info.filename in members:
                raise ModelError(f"{source} has two members named {_shown(info.filename)}")
            member = self._member(info)
            members[info.filename] = member
            ends.append((info.header_offset, member.start + member.size, info.filename))
        ends.sort()
        for (_, end, _), (begin, _, name) in itertools.pairwise(ends):
            if begin < end:
                raise ModelError(f"{source} has members that lie over each other, {_shown(name)} among them")
        self._members = members
        self.root = self._root()

    def _member(self, info: zipfile.ZipInfo) -> Member:
        header = self.file.read(info.header_offset, _LOCAL_HEADER.size)
        if len(header) == _LOCAL_HEADER.size and header.startswith(ZIP_START):
            *_, name, extra = _LOCAL_HEADER.unpack(header)
            start = info.header_offset + _LOCAL_HEADER.size + name + extra
            if start + info.file_size <= self.file.size:
                return Member(start, info.file_size, info.CRC)
        raise ModelError(f"{self.source} is cut short or damaged: {_shown(info.filename)} is not within it")

    def _root(self) -> str:
        """The folder in the zip file that data.pkl is in, with a slash."""
        found = [name.removesuffix("data.pkl") for name in self._members if name.split("/")[-1] == "data.pkl"]
        if any(name.split("/")[-1] == "constants.pkl" for name in self._members):
            raise ModelError(
                f"{self.source} is a TorchScript program (torch.jit.save); give a state_dict: "
                "torch.save(model.state_dict(), 'weights.pth')"
            )
        if len(found) != 1:
            raise ModelError(f"{self.source} is a zip file, but not one of torch.save: it has {len(found)} data.pkl")
        return found[0]

    def read(self, name: str) -> bytes:
        """The bytes of a member below the root, checked against their checksum.

        Raises:
            ModelError: there is no such member, or its bytes are damaged.
        """
        member = self._members.get(self.root + name)
        if member is None:
            raise ModelError(f"{self.source} is not complete: it has no {_shown(self.root + name)}")
        found = self.file.read(member.start, member.size)
        if zlib.crc32(found) != member.checksum:
            raise ModelError(f"{self.source} is damaged: the checksum of {_shown(self.root + name)} is another one")
        return found

    def pickle(self) -> bytes:
        """The bytes of data.pkl.

        Raises:
            ModelError: it is too large, or damaged.
        """
        size = self._members[f"{self.root}data.pkl"].size
        if size > MAX_PICKLE:
            raise ModelError(f"{self.source} has a pickle of {size} bytes; at most {MAX_PICKLE} are read")
        return self.read("data.pkl")

    def little_endian(self) -> bool:
        """Whether numbers are stored with their least byte first; files of older versions do not say, and are."""
        return f"{self.root}byteorder" not in self._members or self.read("byteorder").strip() == b"little"


def _check_name(name: str, source: str) -> None:
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or name.startswith("/") or "\\" in name or ":" in parts[0] or "\0" in name:
        raise ModelError(f"{source} has a member whose name leads out of it, {_shown(name)}; nothing was unpacked")


def _shown(name: str) -> str:
    return ascii(name[:80])
