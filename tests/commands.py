"""Running the command in tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb


class Result(NamedTuple):
    status: int
    out: str
    err: str


Command = Callable[..., Result]


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder, hidden files too: path -> content, None for a folder."""
    paths = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes() for path in paths}


def graph_with_nan(source: Path, path: Path, names: dict[str, float]) -> Path:
    """A copy of a frozen graph with a bad value in each of these constants."""
    graph = pb.GraphDef.FromString(source.read_bytes())
    found = 0
    for node in graph.node:
        if node.name in names:
            tensor = node.attr["value"].tensor
            values = np.frombuffer(tensor.tensor_content, "<f4").copy()
            values[len(values) // 2] = names[node.name]
            tensor.tensor_content = values.tobytes()
            found += 1
    assert found == len(names)
    path.write_bytes(graph.SerializeToString())
    return path
