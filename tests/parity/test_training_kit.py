"""A kit in the real Caffe: it learns, and its test scores the example model as it deserves."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.coco.label_map import LabelMap
from ssdlite_caffe.data.lmdb_write import write_lmdb
from ssdlite_caffe.data.voc import open_voc
from ssdlite_caffe.gen_model.render import Solver
from ssdlite_caffe.prototxt.binary import blob_to_array, read_caffemodel
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.training.kit import KitOptions, write_kit
from ssdlite_caffe.training.kit_check import check_kit
from tests.datasets import NAMES, encoded, voc_xml, write_voc
from tests.scenes import draw_scene

pytestmark = [pytest.mark.caffe, pytest.mark.opencv, pytest.mark.slow]


@pytest.fixture(scope="module")
def kit(example_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kit that starts from the example model, with eight scenes to train and to test on."""
    folder = tmp_path_factory.mktemp("kit")
    root = write_voc(folder / "voc", {f"s{seed}": [] for seed in range(8)})
    for seed in range(8):
        image, shapes = draw_scene(1000 + seed)
        objects = [(NAMES[shape.label - 1], shape.box, 0) for shape in shapes]
        (root / "Annotations" / f"s{seed}.xml").write_text(voc_xml(objects, (320, 320)))
        (root / "JPEGImages" / f"s{seed}.jpg").unlink()
        (root / "JPEGImages" / f"s{seed}.png").write_bytes(encoded(np.ascontiguousarray(image[..., ::-1]), ".png"))
    write_lmdb(open_voc([root], "trainval", label_map=LabelMap.of_names(NAMES)), folder / "lmdb")
    (folder / "names.txt").write_text("\n".join(NAMES))
    named = Path(shutil.copytree(example_folder, folder / "model"))
    (named / "labelmap.prototxt").write_text(LabelMap.of_names(NAMES).to_prototxt())
    options = KitOptions(
        lmdbs=(folder / "lmdb", folder / "lmdb"), source=named, frozen=True, batch_size=2,
        solver=Solver("", base_lr=1e-5, max_iter=2, display=1, mode="CPU", random_seed=7),
    )  # fmt: skip
    write_kit(str(folder / "names.txt"), ModelFolder.open(named).arch, folder / "kit", options)
    return folder / "kit"


def run(script: Path, *arguments: str, prefix: Path) -> str:
    """Run a script of the kit; what Caffe says."""
    environment = {**os.environ, "CAFFE": str(prefix / "bin" / "caffe")}
    done = subprocess.run([script, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def test_it_learns(kit: Path, caffe_prefix: Path) -> None:
    said = run(kit / "train.sh", prefix=caffe_prefix)
    losses = [float(value) for value in re.findall(r"Iteration \d+, loss = (\S+)", said)]
    assert len(losses) == 3
    assert all(0 < loss < math.inf for loss in losses)
    weights = kit / "snapshot" / "mobilenet_iter_2.caffemodel"
    assert weights.is_file()
    assert (kit / "snapshot" / "mobilenet_iter_2.solverstate").is_file()
    before = {layer.name: layer for layer in read_caffemodel(kit / "initial.caffemodel").layer}
    changed = kept = 0
    for layer in read_caffemodel(weights).layer:
        same = all(
            blob_to_array(a).tobytes() == blob_to_array(b).tobytes()
            for a, b in zip(layer.blobs, before[layer.name].blobs if layer.name in before else (), strict=False)
        )
        kept += same and layer.type == "BatchNorm"
        changed += not same
        assert same or layer.type != "BatchNorm", "frozen statistics stay"
    assert kept > 20
    assert changed > 40
    check_kit(kit, weights=weights)


def test_its_test_knows_the_example_model(kit: Path, caffe_prefix: Path) -> None:
    said = run(kit / "test.sh", str(kit / "initial.caffemodel"), prefix=caffe_prefix)
    found = re.search(r"detection_eval = (\S+)", said)
    assert found
    assert float(found[1]) > 0.95
    assert not (kit / "snapshot" / "mobilenet_iter_0.caffemodel").exists()
