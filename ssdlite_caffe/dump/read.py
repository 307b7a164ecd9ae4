"""Reading a TensorFlow detector from whatever holds it."""

from __future__ import annotations

from pathlib import Path

from ssdlite_caffe.dump.detector import take_apart
from ssdlite_caffe.dump.frozen import graph_of, parse_graph_def, read_bytes, sha256
from ssdlite_caffe.dump.model import DumpedModel


def read_frozen(path: Path) -> DumpedModel:
    """A detector from its frozen graph."""
    data = read_bytes(path)
    graph = graph_of(parse_graph_def(data, path), path)
    units, settings, skipped = take_apart(graph)
    return DumpedModel(str(path), "frozen graph", sha256(data), units.tensors, units.units, settings, skipped)


def read_model(path: Path | str, *, pipeline_config: Path | None = None) -> DumpedModel:
    """Read a detector from a frozen graph."""
    return read_frozen(Path(path))
