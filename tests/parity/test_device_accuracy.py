"""`verify --dump --annotations`: the average precision of a device and of TensorFlow is that of `evaluate`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdlite_caffe import evaluate
from ssdlite_caffe.coco.label_map import LabelMap
from ssdlite_caffe.commands.device_accuracy import with_accuracy
from ssdlite_caffe.data.annotations import Box
from ssdlite_caffe.data.toy_scenes import ShapesOptions, make_shapes
from ssdlite_caffe.evaluation.named_truth import NamedTruth
from ssdlite_caffe.resizer import Resizer
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.images import read_image
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.net import open_net
from ssdlite_caffe.runtimes.resize import preprocess
from ssdlite_caffe.tools.convert import ConvertOptions, convert
from ssdlite_caffe.tools.device_accuracy import lost_text
from ssdlite_caffe.tools.device_check import DumpReport
from tests.commands import Command

pytestmark = [pytest.mark.tensorflow, pytest.mark.opencv, pytest.mark.slow, pytest.mark.xdist_group("verify")]
NAMES = ("background", "circle", "square", "triangle")
HEADS = ["mbox_loc", "mbox_conf", "mbox_priorbox"]


@pytest.fixture(scope="module")
def folder(example_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("accuracy") / "out"
    labels = example_model.parent / "labelmap.pbtxt"
    convert(example_model, out, ConvertOptions(label_map=str(labels)))
    return out


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two drawn scenes that are not as large as the net's input."""
    path = tmp_path_factory.mktemp("scenes") / "voc"
    make_shapes(path, ShapesOptions(count=2, seed=77, split="test", side=200))
    return path


@pytest.fixture(scope="module")
def values(folder: Path, scenes: Path) -> dict[str, dict[str, np.ndarray]]:
    opened = ModelFolder.open(folder)
    arch, net = opened.arch, open_net("opencv", opened.headless_prototxt, opened.deploy_caffemodel)
    found = {}
    for path in sorted((scenes / "JPEGImages").iterdir()):
        pixels = read_image(path)[:, :, ::-1]
        blob = preprocess(pixels, arch.input_size, mean=arch.pixel_mean, scale=arch.pixel_scale)
        found[path.stem] = net.forward(blob, HEADS)
    return found


def dump(place: Path, values: dict[str, dict[str, np.ndarray]], noise: float = 0.0) -> Path:
    random = np.random.default_rng(0)
    for name, outputs in values.items():
        (place / name).mkdir(parents=True)
        for blob, one in outputs.items():
            spread = noise if blob == "mbox_loc" else 0.0
            np.save(place / name / f"{blob}.npy", (one + random.normal(0, spread, one.shape)).astype(np.float32))
    return place


def test_it_is_what_evaluate_says(
    command: Command, example_model: Path, folder: Path, scenes: Path, values: dict[str, dict[str, np.ndarray]],
    tmp_path: Path,
) -> None:  # fmt: skip
    wanted = {one.runtime: one for one in evaluate(folder, scenes, runtimes=["tensorflow", "opencv"]).scores}
    exact, noisy = dump(tmp_path / "exact", values), dump(tmp_path / "noisy", values, 1.5)
    arguments = ("verify", example_model, folder, "--images", scenes / "JPEGImages", "--annotations", scenes)
    page = tmp_path / "page.html"
    done = command(*arguments, "--dump", exact, "--json", "--html", page)
    assert done.status == 0, done.err
    said = json.loads(done.out)["accuracy"]
    for side, runtime in (("tensorflow", "tensorflow"), ("device", "opencv")):
        for key in ("ap", "ap50"):
            assert said[side][key] == pytest.approx(getattr(wanted[runtime], key), abs=1e-6)
            for number, one in wanted[runtime].classes.items():
                name = NAMES[number]
                assert said["classes"][name][side][key] == pytest.approx(getattr(one, key), abs=1e-6)
                assert said["classes"][name]["objects"] == one.objects
    assert said["lost"]["ap"] == pytest.approx(0, abs=1e-6)
    assert (said["images"], said["problems"]) == (2, [])
    text = page.read_text()
    assert text.count("<img ") == 6
    assert len(said["classes"]) > 1
    assert all(f">{name}</td>" in text for name in said["classes"])
    assert "mbox_loc" in text
    assert "none lost" in text
    again = command(*arguments, "--dump", exact, "--html", page)
    assert (again.status, again.err.count("\n")) == (1, 1)
    assert "exists already" in again.err

    done = command(*arguments, "--dump", noisy)
    assert done.status == 0
    second = done.out.splitlines()[1]
    assert second.startswith("AP ")
    assert " lost; AP50 " in second
    assert second.endswith(f"(2 images, {said['objects']} objects)")
    assert max(map(len, done.out.splitlines()[2:])) <= 80

    coco = coco_of(scenes, tmp_path / "all.json")
    done = command(*arguments[:-1], coco, "--dump", exact, "--json")
    assert done.status == 0, done.err
    assert json.loads(done.out)["accuracy"]["tensorflow"] == said["tensorflow"]


def coco_of(scenes: Path, path: Path) -> Path:
    """The annotations of a folder in VOC's layout in COCO's format."""
    import xml.etree.ElementTree as ElementTree

    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(sorted((scenes / "JPEGImages").iterdir())):
        images.append({"id": number, "file_name": image.name})
        for one in ElementTree.parse(scenes / "Annotations" / f"{image.stem}.xml").iter("object"):
            left, top, right, bottom = (float(one.findtext(f"bndbox/{side}") or "") for side in
                                        ("xmin", "ymin", "xmax", "ymax"))  # fmt: skip
            annotations.append({
                "id": len(annotations), "image_id": number, "category_id": NAMES.index(one.findtext("name") or ""),
                "bbox": [left, top, right - left, bottom - top], "iscrowd": 0,
            })  # fmt: skip
    categories = [{"id": number, "name": name} for number, name in enumerate(NAMES) if number]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def test_refused_before_tensorflow_starts(
    command: Command, example_model: Path, folder: Path, scenes: Path, values: dict[str, dict[str, np.ndarray]],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    import sys

    monkeypatch.setitem(sys.modules, "tensorflow", None)
    exact = dump(tmp_path / "exact", values)
    arguments = ("verify", example_model, folder, "--images", scenes / "JPEGImages", "--dump", exact)
    less = Path(shutil.copytree(scenes, tmp_path / "less"))
    gone = sorted((less / "JPEGImages").iterdir())[0]
    gone.unlink()
    labels = tmp_path / "labels.txt"
    labels.write_text("cat\ndog\ncow\n")
    for more, said in (
        (("--annotations", less), f"has no annotations of 1 of 2 images: {gone.stem}"),
        (("--annotations", tmp_path / "none"), "does not exist; give a folder in VOC's layout"),
        (
            ("--annotations", scenes, "--label-map", labels),
            "has no object of the classes cat, dog, cow in these images;",
        ),
        (("--annotations", scenes, "--label-map", "voc"), "the label map has 21 classes but the model has 4"),
    ):
        done = command(*arguments, *more)
        assert (done.status, done.out, done.err.count("\n")) == (1, "", 1), done
        assert said in done.err
    for more in (("--label-map", "voc"), ("--annotated-images", scenes)):
        assert command(*arguments, *more).status == 2
    assert command("verify", example_model, folder, "--annotations", scenes).status == 2


def test_a_dump_without_detections(
    command: Command, example_model: Path, folder: Path, scenes: Path, values: dict[str, dict[str, np.ndarray]],
    tmp_path: Path,
) -> None:  # fmt: skip
    """Outputs that are missing are an error; NaN are counted, and a note says why there is no average precision."""
    name = sorted(values)[0]
    image = next((scenes / "JPEGImages").glob(f"{name}.*"))
    arguments = ("verify", example_model, folder, "--images", image, "--annotations", scenes, "--dump", tmp_path / "x")
    place = dump(tmp_path / "x", {name: values[name]}) / name
    loc = np.load(place / "mbox_loc.npy")
    loc[0, 3] = np.nan
    np.save(place / "mbox_loc.npy", loc)
    done = command(*arguments)
    assert done.status == 1
    assert "note: no average precision: outputs are NaN or Inf" in done.out
    (place / "mbox_conf.npy").unlink()
    np.save(place / "mbox_loc.npy", np.zeros_like(loc))
    done = command(*arguments)
    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
    assert f"--annotations needs the detections of {name}, which are made of mbox_loc" in done.err


def test_a_letterbox(folder: Path) -> None:
    """Detections are fractions of the net's input, objects pixels of the image, which fills the upper half of it."""
    import dataclasses

    opened = ModelFolder.open(folder)
    resizer = Resizer("keep_aspect_ratio", min_dimension=320, max_dimension=320)
    opened = dataclasses.replace(opened, arch=dataclasses.replace(opened.arch, resizer=resizer))
    boxes = ((Box(1, 100, 50, 300, 150, False),),)
    truth = NamedTruth("x", boxes, ((200, 400),), LabelMap.of_names(["a", "b", "c"]).display_names, ())
    there = Detections(np.array([1]), np.array([0.9], np.float32), np.array([[0.25, 0.125, 0.75, 0.375]], np.float32))
    wrong = dataclasses.replace(there, boxes=np.array([[0.25, 0.25, 0.75, 0.75]], np.float32))
    report = with_accuracy(DumpReport("x", ("a",), (), (), None, ()), opened, truth, [(there, wrong)])
    assert report.accuracy is not None
    total = report.accuracy.total
    assert (total.tensorflow.ap, total.device.ap, total.lost.ap) == pytest.approx((1, 0, 1))
    assert total.objects == 1


def test_words() -> None:
    assert [lost_text(value) for value in (0.01234, -0.5, 0.00004, -0.00004)] == [
        "0.0123 lost", "0.5000 gained", "none lost", "none lost",
    ]  # fmt: skip
