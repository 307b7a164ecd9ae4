"""`ssdlite-caffe keras ...` as people type it."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.coco.label_map import load_label_map
from ssdlite_caffe.data.toy_scenes import ShapesOptions, draw_scene, make_shapes
from ssdlite_caffe.errors import SsdliteError
from ssdlite_caffe.gen_model.build import default_arch
from ssdlite_caffe.imports import import_opencv
from ssdlite_caffe.keras.import_model import import_detector
from ssdlite_caffe.keras.store import load, save
from ssdlite_caffe.runtimes.class_names import label_map_of
from ssdlite_caffe.terminal import size_text
from tests.commands import Command
from tests.models import model_of

pytestmark = [pytest.mark.tensorflow, pytest.mark.opencv, pytest.mark.xdist_group("keras commands")]


@pytest.fixture(scope="module")
def imported(example_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example model as a Keras file."""
    from ssdlite_caffe.keras.import_model import import_file

    path = tmp_path_factory.mktemp("keras") / "example.keras"
    import_file(example_model, path, label_map=str(example_model.parent / "labelmap.pbtxt"))
    return path


def test_import_says_what_it_did(command: Command, example_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.keras"
    arguments = ("keras", "import", example_model, "-o", out, "-l", example_model.parent / "labelmap.pbtxt")
    result = command(*arguments)
    assert result.status == 0
    assert "tensors used, each once" in result.out
    assert command(*arguments).err.startswith(f"ssdlite-caffe: {out} exists already; give another name")
    again = command(*arguments, "--force", "--json", "--outputs", "detections", "--inputs", "image")
    assert json.loads(again.out)["variables"] == json.loads(again.out)["tensors"]["used"]


def test_bad_input_is_one_line(refused: Command, example_model: Path, imported: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.keras"
    assert (
        "voc has 21 classes but the model has 4"
        in refused("keras", "import", example_model, "-o", out, "-l", "voc").err
    )
    assert "a Keras model must end in" in refused("keras", "import", example_model, "-o", tmp_path / "a.pb").err
    assert "does not exist" in refused("keras", "import", tmp_path / "none.pb", "-o", out).err
    wrong = refused("keras", "export", "tflite", example_model, "-o", tmp_path / "a.bin")
    assert "must end in .tflite" in wrong.err
    assert "name of a Keras model" in refused("keras", "export", "pb", example_model, "-o", tmp_path / "a.pb").err
    for name in ("a.graph", "saved_model.pb"):
        assert "must end in .pb" in refused("keras", "export", "pb", imported, "-o", tmp_path / name).err
    assert "name of a Keras model" in refused("keras", "infer", example_model, example_model.parent).err
    empty = tmp_path / "images"
    empty.mkdir()
    calibrated = ("keras", "export", "tflite", imported, "-o", tmp_path / "a.tflite", "--int8", "--calibrate", empty)
    assert "has no images" in refused(*calibrated).err


def test_usage(command: Command, imported: Path, tmp_path: Path) -> None:
    to = ("keras", "export", "tflite", imported, "-o", tmp_path / "a.tflite")
    assert command(*to, "--int8").status == 2
    assert command(*to, "--float16", "--int8", "--calibrate", tmp_path).status == 2
    assert not (tmp_path / "a.tflite").exists()


@pytest.mark.story
def test_export_measures_what_numbers_cost(command: Command, imported: Path, tmp_path: Path) -> None:
    data = tmp_path / "scenes"
    make_shapes(data, ShapesOptions(count=4, seed=11, split="test"))
    out = tmp_path / "a.tflite"
    result = command("keras", "export", "tflite", imported, "-o", out, "--float16", "--data", data, "--json")
    assert result.status == 0, result.err
    report = json.loads(result.out)
    assert report["bytes"] == out.stat().st_size
    assert report["dtype"] == "float16"
    runtimes = report["evaluation"]["runtimes"]
    assert runtimes["keras"]["ap50"] > 0.9
    assert report["evaluation"]["loss"]["ap"] == runtimes["keras"]["ap"] - runtimes["tflite"]["ap"]
    assert abs(report["evaluation"]["loss"]["ap"]) < 0.02


@pytest.mark.story
def test_export_calibrates_with_images(command: Command, imported: Path, tmp_path: Path) -> None:
    data = tmp_path / "scenes"
    make_shapes(data, ShapesOptions(count=4, seed=11, split="test"))
    out = tmp_path / "a.tflite"
    out.write_bytes(b"")
    images = data / "JPEGImages"
    shown = command(
        "keras", "export", "tflite", imported, "-o", out, "--int8", "--calibrate", images, "--calibration-count", "3",
        "--data", data, "--limit", "2", "--force",
    )  # fmt: skip
    assert shown.status == 0, shown.err
    assert "calibrated with 3 images" in shown.out
    assert "AP50 lost" in shown.out
    assert "tflite" in shown.out


@pytest.fixture
def loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command opens each Keras model once in all runs of a test: it takes seconds."""
    from ssdlite_caffe.keras import detectors

    monkeypatch.setattr(detectors, "open_detector", functools.cache(detectors.open_detector))


@pytest.mark.usefixtures("loaded_once")
def test_infer_on_images_folder_and_video(command: Command, imported: Path, tmp_path: Path) -> None:
    cv2 = import_opencv()
    folder = tmp_path / "in"
    folder.mkdir()
    scenes = [np.ascontiguousarray(draw_scene(seed)[0][..., ::-1]) for seed in (1, 2)]
    for name, scene in zip(("000000000139.png", "other.png"), scenes, strict=True):
        cv2.imwrite(str(folder / name), scene)
    coco = tmp_path / "results.json"
    result = command(
        "keras", "infer", imported, folder, "-o", tmp_path / "out", "--coco", coco, "--score-threshold", 0.5, "--json"
    )
    assert result.status == 0, result.err
    found = json.loads(result.out)["images"]
    for image, seed in zip(found, (1, 2), strict=True):
        there = {("circle", "square", "triangle")[shape.label - 1] for shape in draw_scene(seed)[1]}
        assert {detection["name"] for detection in image["detections"]} == there
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"000000000139.png", "other.png"}
    rows = json.loads(coco.read_text())
    assert [row["image_id"] for row in rows] == [139] * len(found[0]["detections"]) + ["other"] * len(
        found[1]["detections"]
    )
    first, box = rows[0], found[0]["detections"][0]["box"]
    assert first["category_id"] == found[0]["detections"][0]["class"]
    np.testing.assert_allclose(first["bbox"], [box[0], box[1], box[2] - box[0], box[3] - box[1]], atol=0.02)

    video = tmp_path / "v.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 10, (320, 320))
    for scene in scenes:
        writer.write(scene)
    writer.release()
    result = command("keras", "infer", imported, video, "-o", tmp_path / "out", "--csv")
    assert result.status == 0, result.err
    assert {line.split(",")[1] for line in result.out.splitlines()[1:]} == {"0", "1"}
    assert (tmp_path / "out" / "v.mp4").is_file()
    wrong = command("keras", "infer", imported, video, "--annotations", tmp_path / "a.json")
    assert (wrong.status, "--annotations" in wrong.err) == (2, True)
    failed = command("keras", "infer", imported, video, "--coco", tmp_path / "b.json")
    assert (failed.status, "COCO's result format" in failed.err) == (1, True)


@pytest.mark.usefixtures("loaded_once")
def test_results_are_refused_before_any_work(refused: Command, imported: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        import_opencv().imwrite(str(tmp_path / folder / "1.png"), np.zeros((9, 9, 3), np.uint8))
    (tmp_path / "v.avi").write_bytes(b"")
    annotations = tmp_path / "instances.json"
    annotations.write_text(json.dumps({"images": [], "categories": [{"id": 1, "name": "circle"}]}))
    result = tmp_path / "r.json"

    def say(*inputs: Path, out: Path = result, more: tuple[str | Path, ...] = ()) -> str:
        drawn = tmp_path / "drawn"
        done = refused("keras", "infer", imported, *inputs, "--coco", out, "--force", "-o", drawn, *more)
        assert not drawn.exists()
        return done.err

    one = tmp_path / "a" / "1.png"
    assert "is a video; COCO's result format is for images only" in say(one, tmp_path / "v.avi")
    assert "1.png have the same image id, 1" in say(tmp_path / "a", tmp_path / "b")
    assert "has no image with the file name of" in say(one, more=("--annotations", annotations))
    before = imported.read_bytes()
    assert "is one of the inputs" in say(one, out=imported)
    assert imported.read_bytes() == before
    annotations.write_text(
        json.dumps({"images": [{"id": 3, "file_name": "1.png"}], "categories": [{"id": 1, "name": "circle"}]})
    )
    assert "instances.json is one of the inputs" in say(one, out=annotations, more=("--annotations", annotations))
    assert not result.exists()


@pytest.mark.story
def test_class_names_go_with_a_frozen_graph(command: Command, imported: Path, tmp_path: Path) -> None:
    assert command("keras", "export", "pb", imported, "-o", tmp_path / "a.pb").status == 0
    assert command("convert", tmp_path / "a.pb", "-o", tmp_path / "caffe").status == 0
    names = load_label_map(tmp_path / "caffe" / "labelmap.prototxt").display_names
    assert names == ("background", "circle", "square", "triangle")
    assert command("keras", "import", tmp_path / "a.pb", "-o", tmp_path / "a.keras").status == 0
    assert load(tmp_path / "a.keras").labels.display_names == names
    (tmp_path / "other.txt").write_text("square\ncircle\ntriangle\n")
    refused = command("convert", tmp_path / "a.pb", "-o", tmp_path / "wrong", "-l", tmp_path / "other.txt")
    assert refused.status == 1
    assert "in another order; the model was trained with" in refused.err
    assert "trained with circle, square, triangle" in refused.err
    assert label_map_of(tmp_path / "a.keras", None) == (None, ""), "the names of a graph alone"
    folder = tmp_path / "folder"
    assert command("keras", "export", "pb", imported, "-o", folder / "frozen_inference_graph.pb").status == 0
    assert command("convert", folder, "-o", tmp_path / "of_folder").status == 0
    assert load_label_map(tmp_path / "of_folder" / "labelmap.prototxt").display_names == names
    (tmp_path / "link.pb").symlink_to(tmp_path / "a.pb")
    assert label_map_of(tmp_path / "link.pb", None)[1] == str(tmp_path / "a.labelmap.prototxt")
    (tmp_path / "a.labelmap.prototxt").write_text("oh")
    assert label_map_of(tmp_path / "a.pb", "voc")[1] == "voc", "what is given comes first"
    with pytest.raises(SsdliteError, match="not a label map"):
        label_map_of(tmp_path / "a.pb", None)
    (folder / "manifest.json").write_text("{}")
    assert label_map_of(folder, None) == (None, ""), "the graph of this folder is not what is read"
    (tmp_path / "new.txt").write_text("ball\nbox\nsail\n")
    assert command("convert", tmp_path / "a.pb", "-o", tmp_path / "new", "-l", tmp_path / "new.txt").status == 0
    assert load_label_map(tmp_path / "new" / "labelmap.prototxt").display_names[1:] == ("ball", "box", "sail")


def test_export_pb_with_another_threshold(command: Command, tmp_path: Path) -> None:
    from ssdlite_caffe.dump.read import read_model

    arch = default_arch("v2", 3, input_size=(64, 64), width_multiplier=0.35)
    save(import_detector(model_of(arch)), tmp_path / "a.weights.h5")
    out = tmp_path / "a.pb"
    result = command("keras", "export", "pb", tmp_path / "a.weights.h5", "-o", out, "--score-threshold", "0.125")
    assert result.status == 0, result.err
    assert size_text(out.stat().st_size) in result.out
    assert read_model(out).settings.score_threshold == 0.125


def test_import_with_another_threshold(command: Command, example_model: Path, tmp_path: Path) -> None:
    from ssdlite_caffe.keras.store import load

    out = tmp_path / "a.keras"
    result = command("keras", "import", example_model, "-o", out, "--score-threshold", "0.125")
    assert result.status == 0, result.err
    assert load(out).arch.nms.score_threshold == 0.125
