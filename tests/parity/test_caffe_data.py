"""The built Caffe trains from a database that a written train net names: repeatable, and past broken records."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ssdlite_caffe.data.annotations import Box
from ssdlite_caffe.data.lmdb_store import LmdbWriter
from ssdlite_caffe.data.lmdb_write import annotated_datum
from ssdlite_caffe.data.toy_scenes import CLASSES
from tests.scenes import draw_scene

pytestmark = [pytest.mark.slow, pytest.mark.caffe, pytest.mark.xdist_group("caffe")]

SIDE = 160
STEPS = 2
SOLVER = f"""train_net: "train.prototxt"
base_lr: 0.001
lr_policy: "fixed"
max_iter: {STEPS}
display: 1
snapshot_after_train: false
random_seed: 1701
solver_mode: CPU
"""


def records(count: int) -> list[tuple[bytes, bytes]]:
    """Drawn scenes, as a database holds them."""
    import cv2

    written = []
    for seed in range(count):
        image, shapes = draw_scene(seed, SIDE)
        encoded = cv2.imencode(".png", image[:, :, ::-1])[1].tobytes()
        boxes = [Box(shape.label, *shape.box, seed % 2 == 0) for shape in shapes]
        written.append((f"{seed:08d}".encode(), annotated_datum(encoded, boxes, SIDE, SIDE).SerializeToString()))
    return written


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A solver and a train net, as `gen` writes it, over 6 scenes."""
    (tmp_path / "lmdb").mkdir()
    with LmdbWriter(tmp_path / "lmdb") as writer:
        writer.put(records(6))
    items = [f'item {{ name: "{name}" label: {row} display_name: "{name}" }}' for row, name in enumerate(CLASSES, 1)]
    (tmp_path / "labelmap.prototxt").write_text("\n".join(items))
    options = ["--stage", "train", "--size", "0.35", "--input", str(SIDE), "--batch-size", "4"]
    options += ["--lmdb", "lmdb", "--label-map", "labelmap.prototxt"]
    command = [sys.executable, "-m", "ssdlite_caffe.cli", "gen", "--class-num", str(len(CLASSES) + 1), *options]
    net = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert all(block in net for block in ("resize_param", "distort_param", "expand_param", "batch_sampler"))
    (tmp_path / "train.prototxt").write_text(net)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    return tmp_path


def train(prefix: Path, folder: Path, **environment: str) -> tuple[int, str]:
    """Status and log of `caffe train`."""
    done = subprocess.run(
        [str(prefix / "bin" / "caffe"), "train", "--solver", "solver.prototxt"],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )
    return done.returncode, done.stderr


def losses(log: str) -> list[float]:
    return [float(loss) for loss in re.findall(r"Iteration \d+, loss = (\S+)", log)]


def summary(log: str) -> str:
    """What the data layer says of itself in the end."""
    return next(line for line in log.splitlines() if "AnnotatedData layer 'data': " in line and " batches, " in line)


def test_two_steps_repeat(caffe_prefix: Path, folder: Path) -> None:
    runs = [train(caffe_prefix, folder, SSDLITE_DATA_THREADS=threads) for threads in ("1", "3")]
    assert [status for status, _ in runs] == [0, 0]
    first, second = (losses(log) for _, log in runs)
    assert len(first) == STEPS + 1
    assert all(0 < loss < 100 for loss in first)
    assert first == second
    assert "0 broken records" in summary(runs[0][1])


def test_another_seed_gives_other_images(caffe_prefix: Path, folder: Path) -> None:
    _, log = train(caffe_prefix, folder)
    (folder / "solver.prototxt").write_text(SOLVER.replace("1701", "1702"))
    assert losses(train(caffe_prefix, folder)[1]) != losses(log)


def test_a_broken_record_is_left_out(caffe_prefix: Path, folder: Path) -> None:
    with LmdbWriter(folder / "lmdb") as writer:
        writer.put([(b"00000006", b"no record")])
    status, log = train(caffe_prefix, folder)
    assert status == 0
    said = "AnnotatedData layer 'data': record 00000006 of lmdb cannot be read: it is not an AnnotatedDatum"
    assert sum(said in line for line in log.splitlines()) == 1
    assert "1 broken records" in summary(log)
    status, log = train(caffe_prefix, folder, SSDLITE_STRICT_DATA="1")
    assert status != 0
    assert any("Check failed" in line and said in line for line in log.splitlines())


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("lmdb/data.mdb", "AnnotatedData layer 'data': data_param.source lmdb holds no data.mdb"),
        ("labelmap.prototxt", "AnnotatedData layer 'data': label_map_file labelmap.prototxt does not exist"),
    ],
)
def test_a_missing_file_is_named(caffe_prefix: Path, folder: Path, gone: str, said: str) -> None:
    (folder / gone).unlink()
    status, log = train(caffe_prefix, folder)
    assert status != 0
    assert any("Check failed" in line and said in line for line in log.splitlines())
