"""The values of object-based checkpoints: checksums, the index's table, damaged and hostile files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from ssdlite_caffe.dump.tf2.bundle import Bundle
from ssdlite_caffe.dump.tf2.crc32c import crc32c
from ssdlite_caffe.dump.tf2.table import DamagedError, read_table
from ssdlite_caffe.errors import ModelError
from tests.keras_checkpoints import table, write_checkpoint

VARIABLES = {
    "Conv1/kernel": np.arange(54, dtype=np.float32).reshape(3, 3, 3, 2),
    "bn_Conv1/gamma": np.ones(2, np.float32),
    "save_counter": np.int64(3),
}


def bit_by_bit(data: bytes) -> int:
    state = 0xFFFFFFFF
    for value in data:
        state ^= value
        for _ in range(8):
            state = (state >> 1) ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "crc"),
    [(b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E)],
)
def test_checksums_of_rfc_3720(data: bytes, crc: int) -> None:
    assert crc32c(data) == crc


@pytest.mark.parametrize("length", [0, 1, 8191, 8192, 8193, 16384 + 63, 40_000])
def test_lanes_give_the_checksum_of_single_bytes(length: int) -> None:
    data = np.random.default_rng(length).bytes(length)
    assert crc32c(data) == bit_by_bit(data)


def test_values_are_read_back(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "ckpt-1", VARIABLES, slots=["Conv1/kernel"])
    bundle = Bundle(tmp_path / "ckpt-1")
    assert bundle.keys.keys() == VARIABLES.keys()
    for name, value in VARIABLES.items():
        read = bundle.value(bundle.keys[name])
        assert read.dtype == value.dtype
        assert np.array_equal(read, value)
    assert sum(".OPTIMIZER_SLOT" in key for key in bundle.shapes) == 1


@given(st.dictionaries(st.binary(min_size=1, max_size=12), st.binary(max_size=40), max_size=20))
def test_tables_are_read_back(entries: dict[bytes, bytes]) -> None:
    assert read_table(table(entries)) == entries


@pytest.mark.parametrize("name", ["ckpt-1.index", "ckpt-1.data-00000-of-00001"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_changed_byte_is_noticed(tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    write_checkpoint(folder / "ckpt-1", VARIABLES)
    file = folder / name
    content = bytearray(file.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    file.write_bytes(bytes(content))
    try:
        bundle = Bundle(folder / "ckpt-1")
        read = {key: bundle.value(stored) for key, stored in bundle.keys.items()}
    except ModelError:
        return
    assert name.endswith(".index")  # its padding has no checksum
    assert all(np.array_equal(read[key], value) for key, value in VARIABLES.items())


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.99])
@pytest.mark.parametrize("name", ["ckpt-1.index", "ckpt-1.data-00000-of-00001"])
def test_a_file_cut_short(tmp_path: Path, name: str, share: float) -> None:
    write_checkpoint(tmp_path / "ckpt-1", VARIABLES)
    file = tmp_path / name
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])

    def read() -> None:
        bundle = Bundle(tmp_path / "ckpt-1")
        for key in bundle.keys.values():
            bundle.value(key)

    with pytest.raises(ModelError, match=r"damaged|cut short|is empty"):
        read()


def hostile(**changes: object) -> bytes:
    """An index whose one variable lies elsewhere, or has another size."""
    entry = pb.BundleEntryProto(dtype=pb.DT_FLOAT, size=4, **changes)  # type: ignore[arg-type]
    header = pb.BundleHeaderProto(num_shards=1).SerializeToString()
    return table({b"": header, b"_CHECKPOINTABLE_OBJECT_GRAPH": entry.SerializeToString()})


@pytest.mark.parametrize(
    "index",
    [
        hostile(offset=1 << 62),
        hostile(offset=-4),
        hostile(shard_id=7),
        hostile(shard_id=-1),
        table({b"": pb.BundleHeaderProto(num_shards=3).SerializeToString()}),
        table({b"": pb.BundleHeaderProto(num_shards=1, endianness=1).SerializeToString()}),
        table({b"": pb.BundleHeaderProto(num_shards=1).SerializeToString()}, compression=1),
        table({b"": b"\xff\xff\xff"}),
        table({b"": b"", b"\xff\xfe": b""}),
    ],
    ids=["far", "before", "shard", "no shard", "shards", "big-endian", "compressed", "no header", "no text"],
)
def test_a_hostile_index(tmp_path: Path, index: bytes) -> None:
    (tmp_path / "ckpt-1.index").write_bytes(index)
    (tmp_path / "ckpt-1.data-00000-of-00001").write_bytes(bytes(16))
    with pytest.raises(ModelError):
        Bundle(tmp_path / "ckpt-1")


def test_a_shape_that_does_not_fit_its_bytes(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "ckpt-1", VARIABLES)
    bundle = Bundle(tmp_path / "ckpt-1")
    key = bundle.keys["Conv1/kernel"]
    bundle.shapes[key] = (1 << 40, 1 << 40)  # no such array is made
    with pytest.raises(ModelError, match="it has 216 bytes, and the shape"):
        bundle.value(key)


def test_a_number_without_end() -> None:
    with pytest.raises(DamagedError, match="has no end"):
        read_table(b"\xff" * 40 + (0xDB4775248B80FB57).to_bytes(8, "little"))
