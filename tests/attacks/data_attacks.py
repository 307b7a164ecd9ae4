"""Hostile arrays, archives, images, annotations, LMDBs and caffemodels; see test_data_files.py."""

from __future__ import annotations

import itertools
import json
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ssdlite_caffe.data.lmdb_store import LmdbWriter
from ssdlite_caffe.prototxt import caffe_pb2
from tests.attacks.torch_attacks import MARKER

TENSOR = "FeatureExtractor/MobilenetV2/Conv/weights"
HUGE = 1 << 40


class _Evil:
    """A pickle that calls a function when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"open({MARKER!r}, 'w')",)


def _npy(shape: tuple[int, ...]) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


def weights_folder(folder: Path, data: bytes, shape: tuple[int, ...] = (1, 1, 3, 2)) -> Path:
    """What `dump` writes, of one tensor."""
    path = folder / "weights"
    file = path / "tensors" / f"{TENSOR}.npy"
    file.parent.mkdir(parents=True)
    file.write_bytes(data)
    settings: dict[str, Any] = {}
    manifest = {
        "format": "ssdlite-caffe weights", "version": 1, "source": "a.pb", "form": "frozen graph", "sha256": "",
        "arch": None, "settings": settings, "default_boxes": None, "skipped": {}, "units": [],
        "tensors": {TENSOR: {"shape": shape, "dtype": "float32"}},
    }  # fmt: skip
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path


def pickle_in_place_of_an_array(folder: Path) -> Path:
    return weights_folder(folder, pickle.dumps(_Evil()))


def array_of_pickles(folder: Path) -> Path:
    path = folder / "a.npy"
    np.save(path, np.array([_Evil()] * 6, object), allow_pickle=True)
    data = path.read_bytes()
    path.unlink()
    return weights_folder(folder, data)


def header_that_claims_the_world(folder: Path) -> Path:
    return weights_folder(folder, _npy((HUGE,)), (HUGE,))


def manifest_in_each_other(folder: Path) -> Path:
    path = weights_folder(folder, _npy((1, 1, 3, 2)))
    (path / "manifest.json").write_text("[" * 100_000)
    return path


def link_to_another_file(folder: Path) -> Path:
    path = weights_folder(folder, b"")
    file = path / "tensors" / f"{TENSOR}.npy"
    file.unlink()
    file.symlink_to(Path(__file__))
    return path


def device_array_of_pickles(folder: Path) -> Path:
    np.save(folder / "mbox_loc.npy", np.array([_Evil()] * 8, object), allow_pickle=True)
    return folder


def device_archive_that_unpacks(folder: Path) -> Path:
    """50 MB of zeros in 50 kB."""
    with zipfile.ZipFile(folder / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mbox_loc.npy", b"\0" * 50_000_000)
    return folder / "x.npz"


def image_of_a_gigapixel(path: Path, height: int = 12_000, width: int = 12_000) -> Path:
    """A tiny PNG of a huge black image."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width + 7) // 8 + 1) * height, 9)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return path


def xml_of_nothing(path: Path) -> Path:
    path.write_bytes(b"<annotation>" + b" " * (1 << 24) + b"</annotation>")
    return path


def xml_whose_entities_multiply(path: Path) -> Path:
    """Ten of ten of ten ...: a billion laughs."""
    names = "abcdefghij"
    entities = "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in itertools.pairwise(names))
    path.write_text(f'<!DOCTYPE annotation [<!ENTITY a "ha">{entities}]><annotation>&j;</annotation>')
    return path


def xml_that_reads_another_file(path: Path) -> Path:
    path.write_text('<!DOCTYPE annotation [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotation>&a;</annotation>')
    return path


def lmdb_cut_off(folder: Path, keep: int) -> Path:
    """A database whose pages are not there: reading a page that is not in the file ends a process."""
    with LmdbWriter(folder) as writer:
        writer.put([(f"{i:08d}".encode(), b"x" * 5000) for i in range(20)])
    data = (folder / "data.mdb").read_bytes()
    (folder / "data.mdb").write_bytes(data[:keep])
    return folder


def caffemodel_of_a_shape_alone(path: Path) -> Path:
    net = caffe_pb2.NetParameter(name="n")
    blob = net.layer.add(name="a", type="Convolution").blobs.add(data=[1.0])
    blob.shape.dim.extend([HUGE, HUGE])
    path.write_bytes(net.SerializeToString())
    return path


def caffemodel_longer_than_its_file(path: Path) -> Path:
    path.write_bytes(b"\xa2\x06\xff\xff\xff\xff\x07" + b"\x0a\x01a")
    return path
