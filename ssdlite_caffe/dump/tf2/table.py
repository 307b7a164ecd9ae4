"""The table of strings in a checkpoint's index: keys and values in blocks, each with a CRC.

Source: tensorflow/core/lib/io/{format,block,table}.cc and table_format.txt, which is LevelDB's format.
"""

from __future__ import annotations

from collections.abc import Iterator

from ssdlite_caffe.dump.tf2.crc32c import crc32c, masked

_FOOTER = 48
_MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
_TRAILER = 5
"""Bytes behind a block: the kind of its compression, and its CRC."""
_MOST_BYTES = 1 << 26
_MOST_KEYS = 1 << 16
"""Far more than a training has, whose optimiser keeps several values of each variable."""
_LONGEST_KEY = 1 << 12
_MOST_KEY_BYTES = 1 << 24
"""Of all keys together. A key may repeat what the one before begins with, so keys can be longer than the file."""


class DamagedError(Exception):
    """The bytes are not such a table; the text says where, in a few words."""


def read_table(data: bytes) -> dict[bytes, bytes]:
    """Key -> value of a table file.

    Raises:
        DamagedError: it is damaged or cut short, or its blocks are compressed.
    """
    if len(data) < _FOOTER or len(data) > _MOST_BYTES or not data.endswith(_MAGIC):
        raise DamagedError("it does not end as an index does")
    footer = memoryview(data)[-_FOOTER:]
    _, place = _handle(footer, 0)
    index, _ = _handle(footer, place)
    found: dict[bytes, bytes] = {}
    behind = length = 0
    for _, value in _entries(_block(data, index)):
        handle, _ = _handle(memoryview(value), 0)
        if handle[0] < behind:  # one large block, named thousands of times, would be read thousands of times
            raise DamagedError("its blocks lie over each other")
        behind = sum(handle)
        for key, stored in _entries(_block(data, handle)):
            found[key] = stored
            length += len(key)
            if len(found) > _MOST_KEYS or length > _MOST_KEY_BYTES:
                raise DamagedError(f"it has more than {_MOST_KEYS} keys, or {_MOST_KEY_BYTES} bytes of them")
    return found


def varint(data: memoryview, place: int) -> tuple[int, int]:
    """A number at `place`, seven bits a byte, lowest first; and the place behind it.

    Raises:
        DamagedError: it has no end within 64 bits.
    """
    value = 0
    for shift in range(0, 64, 7):
        if place >= len(data):
            break
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise DamagedError("a number in it has no end")


def _handle(data: memoryview, place: int) -> tuple[tuple[int, int], int]:
    """(offset, size) of a block, and the place behind them."""
    offset, place = varint(data, place)
    size, place = varint(data, place)
    return (offset, size), place


def _block(data: bytes, handle: tuple[int, int]) -> memoryview:
    offset, size = handle
    end = offset + size + _TRAILER
    if end > len(data) - _FOOTER:
        raise DamagedError("a block lies behind its end")
    stored = int.from_bytes(data[end - 4 : end], "little")
    if masked(crc32c(data[offset : end - 4])) != stored:
        raise DamagedError("a block differs from its checksum")
    if data[end - _TRAILER] != 0:
        raise DamagedError("its blocks are compressed")
    return memoryview(data)[offset : offset + size]


def _entries(block: memoryview) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block; a key begins with so many bytes of the one before."""
    if len(block) < 4:
        raise DamagedError("a block is too short")
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 * (restarts + 1)
    if end < 0:
        raise DamagedError("a block is too short")
    key, place = b"", 0
    while place < end:
        shared, place = varint(block, place)
        own, place = varint(block, place)
        length, place = varint(block, place)
        if shared > len(key) or place + own + length > end:
            raise DamagedError("a key or a value goes beyond its block")
        if shared + own > _LONGEST_KEY:
            raise DamagedError(f"a key has {shared + own} bytes, more than {_LONGEST_KEY}")
        key = key[:shared] + bytes(block[place : place + own])
        place += own
        yield key, bytes(block[place : place + length])
        place += length
