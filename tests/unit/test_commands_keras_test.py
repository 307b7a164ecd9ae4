"""`keras test`: metrics, COCO's results and a subset by ids."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.coco.label_map import LabelMap, load_label_map
from ssdlite_caffe.data.labelled_images import open_images
from ssdlite_caffe.data.toy_scenes import ShapesOptions, make_shapes
from ssdlite_caffe.errors import DatasetError
from ssdlite_caffe.evaluation.coco_results import CocoIds, CocoResults, read_ids
from ssdlite_caffe.runtimes.detections import Detections
from tests.commands import Command


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same ones in both layouts; COCO's categories have ids of their own."""
    folder = tmp_path_factory.mktemp("scenes")
    make_shapes(folder / "voc", ShapesOptions(6, 4, "voc", "test"))
    make_shapes(folder / "coco", ShapesOptions(6, 4, "coco", "test"))
    file = folder / "coco" / "annotations" / "instances_test.json"
    content = json.loads(file.read_text())
    for item in content["categories"]:
        item["id"] *= 11
    for item in content["annotations"]:
        item["category_id"] *= 11
    file.write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def model(example_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from ssdlite_caffe.keras.import_model import import_file

    path = tmp_path_factory.mktemp("model") / "shapes.keras"
    import_file(example_model, path, label_map=str(example_model.parent / "labelmap.pbtxt"))
    return path


def test_results_have_cocos_form() -> None:
    results = CocoResults({1: 5, 3: 9})
    boxes = np.array([[0.1, 0.2, 0.4, 0.6], [0, 0, 1, 1], [0.5, 0.5, 1, 1]], np.float32)
    results.add(17, 50, 100, Detections(np.array([1, 2, 3]), np.array([0.9, 0.8, 0.7], np.float32), boxes))
    assert json.loads(results.to_json()) == [
        {"image_id": 17, "category_id": 5, "bbox": [10.0, 10.0, 30.0, 20.0], "score": 0.9},
        {"image_id": 17, "category_id": 9, "bbox": [50.0, 25.0, 50.0, 25.0], "score": 0.7},
    ]


def test_ids_of_annotations(tmp_path: Path) -> None:
    annotations = tmp_path / "image_info.json"
    names = [
        "deep/a.png",
        "b.png",
        "left/c.png",
        "right/c.png",
        "./e.png",
        "C:\\x\\f.png",
        "g.png",
        "in/g.png",
        "h",
        "h",
    ]
    content = {
        "images": [{"id": number, "file_name": name, "height": None} for number, name in enumerate(names, 7)],
        "categories": [{"id": 90, "name": "dog"}, {"id": 5, "name": "cow"}, {"id": 6, "name": "emu"}],
    }
    annotations.write_text(json.dumps(content))
    ids = CocoIds(LabelMap.of_names(["ant", "cow", "dog"]), annotations)
    assert ids.categories == {2: 5, 3: 90}
    places = {"x/a.png": 7, "deep/a.png": 7, "deep/b.png": 8, "b.png": 8, "x/left/c.png": 9, "/right/c.png": 10}
    places |= {"x/e.png": 11, "x/f.png": 12, "x/g.png": 13, "in/g.png": 14}
    assert {place: ids.image(Path(place)) for place in places} == places
    with pytest.raises(DatasetError, match=r"image_info\.json has no image with the file name of deep/d\.png"):
        ids.image(Path("deep/d.png"))
    for name in ("c.png", "h"):
        with pytest.raises(DatasetError, match=f"has 2 images with the file name of {name}"):
            ids.image(Path(name))
    with pytest.raises(DatasetError, match=r"has no category that the model knows; the model has ant$"):
        CocoIds(LabelMap.of_names(["ant"]), annotations)
    annotations.write_text("[]")
    with pytest.raises(DatasetError, match="is not in COCO's format"):
        CocoIds(LabelMap.of_names(["ant"]), annotations)
    annotations.write_text(json.dumps({**content, "images": [{"id": "0007", "file_name": "a.png"}]}))
    assert CocoIds(LabelMap.of_names(["cow"]), annotations).image(Path("a.png")) == "0007"
    annotations.write_text(json.dumps({**content, "images": [{"id": None, "file_name": "a.png"}]}))
    with pytest.raises(DatasetError, match=r"images\[0\] needs id, a whole number or text"):
        CocoIds(LabelMap.of_names(["cow"]), annotations)
    with pytest.raises(DatasetError, match="No such file"):
        CocoIds(LabelMap.of_names(["ant"]), tmp_path / "no" / "file.json")


def test_ids_without_annotations() -> None:
    ids = CocoIds(LabelMap.of_names(["ant", "cow"]), None)
    assert ids.categories == {1: 1, 2: 2}
    assert [ids.image(Path(name)) for name in ("x/007.png", "a.png", "x/7b.png")] == [7, "a", "7b"]


@pytest.mark.parametrize("text", ["3\n5\n", "[3, 5]", '["3", "5"]', "3 5"])
def test_lists_of_ids(text: str, tmp_path: Path) -> None:
    (tmp_path / "ids").write_text(text)
    assert read_ids(tmp_path / "ids") == {"3", "5"}


def test_ids_with_spaces(tmp_path: Path) -> None:
    (tmp_path / "ids").write_text("photo 1\r\n\r\n photo 2 \n")
    assert read_ids(tmp_path / "ids") == {"photo 1", "photo 2"}


@pytest.mark.parametrize("content", [b"", b"[1, 2", b"[[1]]", b"[null]", b"\xff\xfe\x00"])
def test_what_is_no_list_of_ids(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "ids").write_bytes(content)
    with pytest.raises(DatasetError, match="is not a list of ids"):
        read_ids(tmp_path / "ids")


def test_images_by_id(scenes: Path) -> None:
    labels = load_label_map(scenes / "voc" / "labelmap.prototxt")
    found = open_images(scenes / "voc", labels, ids=frozenset({"000002", "000004", "x"}))
    assert [image.id for image in found] == ["000002", "000004"]
    assert [str(problem) for problem in found.problems] == [
        f"{scenes / 'voc'}: 1 of 3 ids that were given are not in the data: 'x'; image skipped"
    ]
    file = scenes / "coco" / "annotations" / "instances_test.json"
    coco = open_images(file, labels, images=scenes / "coco" / "test", ids=frozenset({"3"}))
    assert len(coco) == 1
    assert [image.id for image in coco] == [3]
    assert coco.categories == {1: 11, 2: 22, 3: 33}
    with pytest.raises(DatasetError, match="none of the images"):
        open_images(scenes / "voc", labels, ids=frozenset({"x"}))


@pytest.mark.tensorflow
def test_command(scenes: Path, model: Path, command: Command, tmp_path: Path) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    file = scenes / "coco" / "annotations" / "instances_test.json"
    out = tmp_path / "out"
    result = command("keras", "test", model, "--data", file, "--images", scenes / "coco" / "test", "-o", out, "--json")
    assert result.status == 0
    report = json.loads(result.out)
    assert json.loads((out / "metrics.json").read_text()) == report
    found = report["runtimes"]["keras"]
    assert found["ap50"] > 0.9
    assert set(found["classes"]) == {"circle", "square", "triangle"}
    assert (out / "precision_recall.png").stat().st_size > 1000
    # pycocotools itself, from the two files.
    reference = COCO(str(file))
    judged = COCOeval(reference, reference.loadRes(str(out / "results.json")), "bbox")
    judged.evaluate()
    judged.accumulate()
    judged.summarize()
    assert judged.stats[:2] == pytest.approx([found["ap"], found["ap50"]], abs=2e-3)
    (tmp_path / "ids").write_text("2\n5\n")
    options = ("--data", file, "--images", scenes / "coco" / "test", "--ids", tmp_path / "ids", "--json")
    assert json.loads(command("keras", "test", model, *options).out)["images"] == 2
    other = command("keras", "test", scenes, "--data", file)
    assert other.status == 1
    assert "does not have the name of" in other.err
