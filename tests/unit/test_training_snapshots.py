"""Which snapshots training can go on from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.binary import blob_from_array
from ssdlite_caffe.prototxt.shapes import infer
from ssdlite_caffe.prototxt.text import parse_net
from ssdlite_caffe.training.snapshots import (
    Snapshot,
    bytes_of_snapshot,
    find_snapshots,
    flaw,
    learned_shapes,
    newest_whole,
    snapshot_at,
)

NET = parse_net("""
    input: "data" input_shape { dim: 1 dim: 3 dim: 5 dim: 7 }
    layer { name: "a" type: "Convolution" bottom: "data" top: "a" convolution_param { num_output: 4 kernel_size: 3 } }
    layer { name: "b" type: "Convolution" bottom: "a" top: "b" convolution_param { num_output: 2 kernel_size: 1 } }
""")
SOLVER = caffe_pb2.SolverParameter(snapshot_prefix="snapshot/net", type="SGD")
ADAM = caffe_pb2.SolverParameter(snapshot_prefix="snapshot/net", type="Adam")


def blobs() -> dict[str, list[np.ndarray]]:
    random = np.random.default_rng(0)
    shapes = infer(NET).param_shapes
    return {name: [random.normal(size=shape).astype(np.float32) for shape in each] for name, each in shapes.items()}


def write(folder: Path, iteration: int, solver: caffe_pb2.SolverParameter = SOLVER) -> Snapshot:
    """What Caffe writes."""
    snapshot = snapshot_at(folder, solver, iteration)
    snapshot.model.parent.mkdir(exist_ok=True)
    net = caffe_pb2.NetParameter(name="net")
    state = caffe_pb2.SolverState(iter=iteration, learned_net=f"snapshot/{snapshot.model.name}")
    for name, arrays in blobs().items():
        net.layer.add(name=name).blobs.extend(map(blob_from_array, arrays))
    histories = 2 if solver is ADAM else 1
    for _ in range(histories):
        state.history.extend(blob_from_array(array) for arrays in blobs().values() for array in arrays)
    snapshot.model.write_bytes(net.SerializeToString())
    snapshot.state.write_bytes(state.SerializeToString())
    return snapshot


@pytest.mark.parametrize("solver", [SOLVER, ADAM], ids=["SGD", "Adam"])
def test_a_whole_one(tmp_path: Path, solver: caffe_pb2.SolverParameter) -> None:
    assert flaw(write(tmp_path, 10, solver), NET, solver) == ""


def test_shared_blobs_have_one_history() -> None:
    """As Caffe writes it for the towers of a feature pyramid."""
    text = """
        input: "data" input_shape { dim: 1 dim: 3 dim: 5 dim: 7 }
        layer { name: "a" type: "Convolution" bottom: "data" top: "a" param { name: "w" } param { }
          convolution_param { num_output: 3 kernel_size: 1 } }
        layer { name: "b" type: "Convolution" bottom: "a" top: "b" param { name: "w" }
          convolution_param { num_output: 3 kernel_size: 1 } }
    """
    assert list(map(tuple, learned_shapes(parse_net(text)))) == [(3, 3, 1, 1), (3,), (3,)]


def test_cut_anywhere_it_is_not_whole(tmp_path: Path) -> None:
    """Even where a message ends, so that what is left can be parsed."""
    snapshot = write(tmp_path, 10)
    for path in (snapshot.model, snapshot.state):
        data = path.read_bytes()
        for length in range(0, len(data), 7):
            path.write_bytes(data[:length])
            assert flaw(snapshot, NET, SOLVER) != ""
        path.write_bytes(data)
    assert flaw(snapshot, NET, SOLVER) == ""


def test_a_missing_file(tmp_path: Path) -> None:
    write(tmp_path, 10).state.unlink()
    assert flaw(snapshot_at(tmp_path, SOLVER, 10), NET, SOLVER) == "net_iter_10.solverstate is missing"
    write(tmp_path, 20).model.unlink()
    assert flaw(snapshot_at(tmp_path, SOLVER, 20), NET, SOLVER) == "net_iter_20.caffemodel is missing"


def test_numbers_that_are_not_finite(tmp_path: Path) -> None:
    snapshot = write(tmp_path, 10)
    net = caffe_pb2.NetParameter.FromString(snapshot.model.read_bytes())
    net.layer[1].blobs[0].data[0] = float("nan")
    snapshot.model.write_bytes(net.SerializeToString())
    assert flaw(snapshot, NET, SOLVER) == "net_iter_10.caffemodel has NaN or Inf in layer 'b'"


def test_of_another_solver_or_iteration(tmp_path: Path) -> None:
    snapshot = write(tmp_path, 10)
    assert "it has 4 of 8 histories" in flaw(snapshot, NET, ADAM)
    snapshot.state.rename(snapshot_at(tmp_path, SOLVER, 20).state)
    snapshot.model.rename(snapshot_at(tmp_path, SOLVER, 20).model)
    assert flaw(snapshot_at(tmp_path, SOLVER, 20), NET, SOLVER) == "net_iter_20.solverstate is of iteration 10"


def test_the_newest_whole_one(tmp_path: Path) -> None:
    for iteration in (10, 20, 100):
        write(tmp_path, iteration)
    (tmp_path / "snapshot" / "net_iter_90.caffemodel.bak").touch()
    (tmp_path / "snapshot" / "other_iter_500.caffemodel").touch()
    snapshot_at(tmp_path, SOLVER, 100).state.write_bytes(b"")
    known = find_snapshots(tmp_path, SOLVER)
    assert [snapshot.iteration for snapshot in known] == [100, 20, 10]
    found, passed = newest_whole(known, NET, SOLVER)
    assert found == known[1]
    assert passed == ["the snapshot of iteration 100 is skipped: net_iter_100.solverstate is of iteration 0"]
    assert newest_whole([], NET, SOLVER) == (None, [])
    assert find_snapshots(tmp_path / "none", SOLVER) == []


def test_how_large_it_is(tmp_path: Path) -> None:
    snapshot = write(tmp_path, 10, ADAM)
    size = snapshot.model.stat().st_size + snapshot.state.stat().st_size
    assert bytes_of_snapshot(NET, ADAM) == pytest.approx(size, rel=0.4)
