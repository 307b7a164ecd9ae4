"""Reading and writing LMDB environments, the databases that Caffe reads; lmdb's errors are raised as ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from ssdlite_caffe.errors import DatasetError, OutputError
from ssdlite_caffe.imports import import_lmdb

DATA, LABEL_MAP = "data.mdb", "labelmap.prototxt"
"""Files in the folder: LMDB's own, and the label map that `lmdb voc` and `lmdb coco` add."""
MAX_KEY = 511
"""Longest key that LMDB allows, in bytes."""

_FIRST_MAP = 1 << 26


class LmdbWriter:
    """Writes records in the order of their keys; LMDB's map size, the limit of the file, is doubled when it is full.

    A context manager: the records are on disk when it ends without an exception.
    """

    def __init__(self, folder: Path, *, first_map: int = _FIRST_MAP) -> None:
        """Create an environment in `folder`, which must exist and be empty.

        Raises:
            OutputError: `folder` cannot be written.
        """
        self._lmdb = import_lmdb()
        self._folder = folder
        self._size = first_map
        self.growths = 0
        with self._reported():
            self._environment = self._lmdb.open(str(folder), map_size=first_map, sync=False, metasync=False)

    def __enter__(self) -> LmdbWriter:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None:
                with self._reported():
                    self._environment.sync(True)
        finally:
            self._environment.close()

    def put(self, records: Sequence[tuple[bytes, bytes]]) -> None:
        """Write records, all or none; each key must be greater than every earlier one.

        Raises:
            OutputError: `folder` cannot be written.
        """
        with self._reported():
            while True:
                try:
                    with self._environment.begin(write=True) as transaction:
                        for key, value in records:
                            if not transaction.put(key, value, append=True):
                                raise AssertionError(f"key {key!r} is out of order")
                    return
                except self._lmdb.MapFullError:
                    self._size *= 2
                    self.growths += 1
                    self._environment.set_mapsize(self._size)

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except self._lmdb.Error as error:
            raise OutputError(f"cannot write {self._folder}: {error}") from error


class LmdbReader:
    """Reads an environment. A context manager; iteration gives (key, value) in the order of the keys."""

    def __init__(self, folder: Path) -> None:
        """Open an environment.

        Raises:
            DatasetError: there is none, or it is damaged or truncated.
        """
        self._lmdb = import_lmdb()
        self._folder = folder
        if not (folder / DATA).is_file():
            raise DatasetError(f"{folder} is not an LMDB: it has no {DATA}")
        with self._reported():
            self._environment = self._lmdb.open(
                str(folder), readonly=True, create=False, lock=False, readahead=True, max_readers=1
            )
        try:
            self._check_size()
            self._length = int(self._environment.stat()["entries"])
        except BaseException:
            self._environment.close()
            raise

    def _check_size(self) -> None:
        """Refuse a file that ends before its last page: reading that page would kill the process."""
        needed = (self._environment.info()["last_pgno"] + 1) * self._environment.stat()["psize"]
        present = (self._folder / DATA).stat().st_size
        if present < needed:
            raise DatasetError(f"{self._folder / DATA} is truncated: it has {present} bytes, and needs {needed}")

    def __enter__(self) -> LmdbReader:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the environment; nothing can be read afterwards."""
        self._environment.close()

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        with self._reported(), self._environment.begin(buffers=False) as transaction, transaction.cursor() as cursor:
            yield from cursor

    def keys(self) -> list[bytes]:
        """All keys, in order; values are not read."""
        with self._reported(), self._environment.begin(buffers=False) as transaction, transaction.cursor() as cursor:
            return list(cursor.iternext(keys=True, values=False))

    def get(self, key: bytes) -> bytes:
        """The value of a key; may be called from several threads.

        Raises:
            DatasetError: there is no such key, or the file is damaged.
        """
        with self._reported(), self._environment.begin(buffers=False) as transaction:
            value: bytes | None = transaction.get(key)
        if value is None:
            raise DatasetError(f"{self._folder} has no record {key!r}")
        return value

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except self._lmdb.Error as error:
            reason = str(error).removeprefix(f"{self._folder}: ")
            raise DatasetError(f"{self._folder} cannot be read as an LMDB: {reason}") from error
