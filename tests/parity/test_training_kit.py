"""A kit in the real Caffe: it learns, from a state_dict too, and its test scores the example model as it deserves."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdlite_caffe.coco.label_map import LabelMap
from ssdlite_caffe.data.lmdb_write import write_lmdb
from ssdlite_caffe.data.voc import open_voc
from ssdlite_caffe.gen_model.render import Solver
from ssdlite_caffe.prototxt.binary import blob_to_array, read_caffemodel
from ssdlite_caffe.runtimes.detector import Detector
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.tools.compare import compare_detections
from ssdlite_caffe.tools.convert import ConvertOptions, convert
from ssdlite_caffe.tools.merge_bn import merge_folder
from ssdlite_caffe.tools.tolerances import BOX, SCORE
from ssdlite_caffe.training.kit import KitOptions, write_kit
from ssdlite_caffe.training.kit_check import check_kit
from tests.datasets import NAMES, encoded, voc_xml, write_voc
from tests.scenes import draw_scene
from tests.torch_files import random_weights, write_state_dict

pytestmark = [pytest.mark.caffe, pytest.mark.opencv, pytest.mark.slow]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with eight scenes in the LMDB `lmdb`, and `names.txt`."""
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
    return folder


@pytest.fixture(scope="module")
def kit(example_folder: Path, data: Path) -> Path:
    """A kit that starts from the example model, with eight scenes to train and to test on."""
    folder = data
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


def test_from_torchvision(data: Path, caffe_prefix: Path, scene_images: list[Any], tmp_path: Path) -> None:
    """Two steps from a state_dict's weights, then merge-bn: Caffe and OpenCV detect the same."""
    convert(write_state_dict(tmp_path / "weights.pth", random_weights(3)), tmp_path / "model", ConvertOptions())
    source = ModelFolder.open(tmp_path / "model")
    options = KitOptions(
        lmdbs=(data / "lmdb", data / "lmdb"), source=source.path, finetune=True, batch_size=2,
        solver=Solver("", base_lr=1e-5, max_iter=2, display=1, mode="CPU", random_seed=7),
    )  # fmt: skip
    write_kit(str(data / "names.txt"), source.arch, tmp_path / "kit", options)
    said = run(tmp_path / "kit" / "train.sh", prefix=caffe_prefix)
    losses = [float(value) for value in re.findall(r"Iteration \d+, loss = (\S+)", said)]
    assert len(losses) == 3
    assert all(0 < loss < math.inf for loss in losses)
    merge_folder(tmp_path / "kit", tmp_path / "kit" / "snapshot" / "mobilenet_iter_2.caffemodel", tmp_path / "mine")
    merged = ModelFolder.open(tmp_path / "mine")
    assert (merged.arch.code_limit, merged.arch.nms.top_k) == (source.arch.code_limit, 300)
    one, other = (Detector(merged, runtime=runtime)(scene_images[0][1]) for runtime in ("caffe", "opencv"))  # type: ignore[arg-type]
    found = compare_detections(one, other, box_tolerance=BOX, score_tolerance=SCORE, max_total=300)
    assert not found.unpaired
    assert found.paired > 50
