"""The frames between us and the process that runs Caffe."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ssdlite_caffe.runtimes.caffe_worker import noted_layer, receive, send

shapes = st.dictionaries(st.text(max_size=5), st.lists(st.integers(0, 3), max_size=4).map(tuple), max_size=4)


@given(shapes, st.dictionaries(st.text(max_size=3), st.integers()))
def test_round_trip(arrays: dict[str, tuple[int, ...]], message: dict[str, int]) -> None:
    message.pop("arrays", None)
    random = np.random.default_rng(0)
    sent = {name: random.normal(size=shape).astype(np.float32) for name, shape in arrays.items()}
    stream = io.BytesIO()
    send(stream, message, sent)
    send(stream, {"next": 1}, {})
    stream.seek(0)
    frame = receive(stream)
    assert frame is not None
    found, got = frame
    assert found == message
    assert got.keys() == sent.keys()
    for name, array in sent.items():
        np.testing.assert_array_equal(got[name], array)
        assert got[name].shape == array.shape
    assert receive(stream) == ({"next": 1}, {})
    assert receive(stream) is None


def test_arrays_of_another_order_and_type_are_sent_as_they_read() -> None:
    stream = io.BytesIO()
    array = np.arange(6, dtype=np.float64).reshape(2, 3)
    send(stream, {}, {"a": array.T})  # type: ignore[dict-item]
    stream.seek(0)
    frame = receive(stream)
    assert frame is not None
    np.testing.assert_array_equal(frame[1]["a"], array.T)


def test_a_frame_that_is_cut_off_is_an_end() -> None:
    whole = io.BytesIO()
    send(whole, {"a": 1}, {"b": np.ones((2, 2), np.float32)})
    data = whole.getvalue()
    for length in range(len(data)):
        assert receive(io.BytesIO(data[:length])) is None


def test_the_layer_noted_last(tmp_path: Path) -> None:
    path = tmp_path / "layer"
    path.write_bytes(b"")
    assert noted_layer(path) == ""
    path.write_bytes(struct.pack("<I", 3) + b"abc" + b"left of a longer name")
    assert noted_layer(path) == "abc"
