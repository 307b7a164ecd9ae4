"""Snapshots of Caffe's solver: which there are, and from which of them training can be resumed."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError

from ssdlite_caffe.errors import PrototxtError
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.binary import MAX_BYTES, blob_to_array, read_caffemodel
from ssdlite_caffe.prototxt.shapes import infer

_STATE, _MODEL = ".solverstate", ".caffemodel"
_HISTORIES = {"adam": 2, "adadelta": 2}
"""Numbers that a solver keeps for each weight, where they are more than one."""


@dataclass(frozen=True)
class Snapshot:
    """Files that Caffe writes at an iteration; either may be missing or cut short.

    Attributes:
        state: the solver's own numbers.
        model: the weights.
    """

    iteration: int
    state: Path
    model: Path


def find_snapshots(folder: Path, solver: caffe_pb2.SolverParameter) -> list[Snapshot]:
    """Snapshots of all iterations for which there is a file, the newest first.

    Args:
        folder: where Caffe runs.
        solver: gives the prefix of the names.
    """
    prefix = folder / solver.snapshot_prefix
    name = re.compile(re.escape(f"{prefix.name}_iter_") + r"(\d+)(?:\.solverstate|\.caffemodel)")
    found = {int(match[1]) for path in _entries(prefix.parent) if (match := name.fullmatch(path.name))}
    return [snapshot_at(folder, solver, iteration) for iteration in sorted(found, reverse=True)]


def _entries(folder: Path) -> Sequence[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def snapshot_at(folder: Path, solver: caffe_pb2.SolverParameter, iteration: int) -> Snapshot:
    """The names of an iteration's files, whether they exist or not."""
    prefix = f"{folder / solver.snapshot_prefix}_iter_{iteration}"
    return Snapshot(iteration, Path(prefix + _STATE), Path(prefix + _MODEL))


def flaw(snapshot: Snapshot, net: caffe_pb2.NetParameter, solver: caffe_pb2.SolverParameter) -> str:
    """Why training cannot be resumed from a snapshot; empty where it can.

    A file that was cut off where a layer ends can still be parsed, so every layer and every number is checked.

    Args:
        snapshot: the one to check.
        net: the net that is trained.
        solver: how it is trained.
    """
    shapes = infer(net, phase="TRAIN").param_shapes
    try:
        weights = read_caffemodel(snapshot.model) if snapshot.model.is_file() else None
        if weights is None:
            return f"{snapshot.model.name} is missing"
        found = {layer.name: [blob_to_array(blob) for blob in layer.blobs] for layer in weights.layer}
    except PrototxtError as error:
        return str(error)
    for name, wanted in shapes.items():
        if [blob.shape for blob in found.get(name, [])] != list(map(tuple, wanted)):
            return f"{snapshot.model.name} lacks weights of layer {name!r}"
        if not all(np.isfinite(blob).all() for blob in found[name]):
            return f"{snapshot.model.name} has NaN or Inf in layer {name!r}"
    return _state_flaw(snapshot, list(learned_shapes(net)), solver)


def learned_shapes(net: caffe_pb2.NetParameter) -> Iterator[tuple[int, ...]]:
    """Shapes of the blobs that a solver keeps a history of, in its order.

    Of blobs that share a name (`param { name }`) the first layer's is learned, and there is one history for all.
    """
    seen = set()
    for shapes in infer(net, phase="TRAIN").layers:
        named = net.layer[shapes.index].param
        for number, shape in enumerate(shapes.params):
            name = named[number].name if number < len(named) else ""
            if not name or name not in seen:
                yield shape
            seen.add(name)


def _state_flaw(snapshot: Snapshot, shapes: Sequence[Sequence[int]], solver: caffe_pb2.SolverParameter) -> str:
    name = snapshot.state.name
    if not snapshot.state.is_file():
        return f"{name} is missing"
    try:
        if snapshot.state.stat().st_size > MAX_BYTES:
            return f"{name} is too large"
        state = caffe_pb2.SolverState.FromString(snapshot.state.read_bytes())
    except (DecodeError, OSError):
        return f"{name} is cut short, or not a solverstate"
    if state.iter != snapshot.iteration:
        return f"{name} is of iteration {state.iter}"
    if Path(state.learned_net).name != snapshot.model.name:
        return f"{name} belongs to {state.learned_net!r}"
    sizes = [math.prod(shape) for shape in shapes] * _HISTORIES.get(solver.type.lower(), 1)
    if [len(blob.data) or len(blob.double_data) for blob in state.history] != sizes:
        return f"{name} is cut short, or of another net: it has {len(state.history)} of {len(sizes)} histories"
    return ""


def newest_whole(
    snapshots: Sequence[Snapshot], net: caffe_pb2.NetParameter, solver: caffe_pb2.SolverParameter
) -> tuple[Snapshot | None, list[str]]:
    """The newest snapshot that training can be resumed from, and what is wrong with newer ones.

    Args:
        snapshots: newest first.
        net: the net that is trained.
        solver: how it is trained.
    """
    skipped: list[str] = []
    for snapshot in snapshots:
        wrong = flaw(snapshot, net, solver)
        if not wrong:
            return snapshot, skipped
        skipped.append(f"the snapshot of iteration {snapshot.iteration} is skipped: {wrong}")
    return None, skipped


def bytes_of_snapshot(net: caffe_pb2.NetParameter, solver: caffe_pb2.SolverParameter) -> int:
    """Size of a snapshot's two files together, but for some headers."""
    numbers = infer(net, phase="TRAIN").param_count
    return 4 * numbers * (1 + _HISTORIES.get(solver.type.lower(), 1))
