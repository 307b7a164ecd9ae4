"""Hostile frozen graphs and .tflite files: little memory and time is taken, one line says why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.attacks import graph_attacks as attack

Harmless = Callable[[Path], str]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((1 << 14, 1 << 14, 1, 1), "repeats one value 268435455 times; at most 4194304"),
        ((1 << 40, 1, 1, 1), "repeats one value 1099511627775 times"),
        ((1 << 62, 1 << 62, 1, 1), "times; at most 4194304 such elements are read of a graph"),
        ((-1, 1, 1, 1), "has an unknown shape"),
    ],
)
def test_constants_of_a_shape_alone(sizes: tuple[int, ...], message: str, harmless: Harmless, tmp_path: Path) -> None:
    assert message in harmless(attack.constant_of_a_shape_alone(tmp_path / "a.pb", *sizes))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (attack.filled, "the kernel of FeatureExtractor/MobilenetV2/Conv/Conv2D is not constant"),
        (attack.chain_of_nodes, "it has no box predictors"),
        (attack.nodes_in_a_ring, "is not constant: b is in a loop"),
        (attack.messages_in_each_other, "is not a complete TensorFlow graph"),
    ],
)
def test_frozen_graphs(make: Callable[[Path], Path], message: str, harmless: Harmless, tmp_path: Path) -> None:
    assert message in harmless(make(tmp_path / "a.pb"))


def test_constants_that_double(harmless: Callable[..., str], tmp_path: Path) -> None:
    """They may have 2**24 elements, and all that a graph computes 2**26: half a gigabyte in float64."""
    message = harmless(attack.doubled_forty_times(tmp_path / "a.pb"), most_memory=1 << 29)
    assert "(ConcatV2): a constant may have at most 16777216 elements, got 33554432" in message


def test_functions_that_double(harmless: Harmless, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssdlite_caffe.dump.graph.functions._MAX_NODES", 5000)  # the real one takes seconds
    assert "has more than 5000 nodes and calls" in harmless(attack.functions_that_double(tmp_path / "a.pb"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (attack.tflite_offset_beyond_the_end, "cut short or damaged"),
        (attack.tflite_vector_of_all_memory, "must have one graph, got 2147483648"),
        (attack.tflite_kernel_that_thousands_read, "its constants need more than 8 times the size of the file"),
    ],
)
def test_tflite_files(make: Callable[[Path], Path], message: str, harmless: Harmless, tmp_path: Path) -> None:
    pytest.importorskip("flatbuffers")
    assert message in harmless(make(tmp_path / "a.tflite"))
