"""`convert --target` and `--calibrate`: what is refused, what is said, and what other commands make of such folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdlite_caffe.data import labelled_images
from ssdlite_caffe.runtimes import images as image_files
from ssdlite_caffe.runtimes.model_folder import without_targets
from ssdlite_caffe.targets import calibration
from ssdlite_caffe.targets.calibration import choose
from ssdlite_caffe.targets.table import TARGETS
from tests.commands import Command
from tests.datasets import coco_content, some_voc, write_coco, write_voc
from tests.scenes import draw_scene

BOX = (5, 5, 20, 20)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for seed in range(3):
        cv2.imwrite(str(folder / f"{seed}.png"), draw_scene(seed)[0])
    return folder


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param(["--target", "onnx"], "target onnx: layer ", id="refused"),
        pytest.param(["--calibrate", "IMAGES"], "--calibrate is for a --target that quantises; given: none", id="none"),
        pytest.param(
            ["--target", "openvino", "--calibrate", "IMAGES"],
            "--calibrate is for a --target that quantises; given: openvino", id="not quantised",
        ),
        pytest.param(["--target", "rknn", "--calibrate", "EMPTY"], "EMPTY", id="no images"),
        pytest.param(["--target", "rknn", "--calibrate", "no/such"], "no/such does not exist", id="nowhere"),
        pytest.param(["--target", "rknn", "--calibrate", "BROKEN"], "no image of ", id="all broken"),
        pytest.param(
            ["--target", "rknn", "--calibrate", "BROKEN", "--calibrate", "VOC"], "has annotations; ", id="mixed"
        ),
    ],
)  # fmt: skip
def test_refused_in_one_line(
    options: list[str], said: str, images: Path, example_model: Path, tmp_path: Path, command: Command
) -> None:
    places = {"IMAGES": images, "EMPTY": tmp_path / "empty", "BROKEN": tmp_path / "broken", "VOC": tmp_path / "voc"}
    for name in ("empty", "broken", "voc/Annotations"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "broken" / "one.png").write_bytes(b"no image")
    given = [str(places.get(one, one)) for one in options]
    result = command("convert", example_model, "-o", tmp_path / "out", "-q", *given)
    assert (result.status, result.out) == (1, "")
    assert result.err.count("\n") == 1
    assert str(places.get(said, said)) in result.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param(["--target", "nosuch"], "unknown target 'nosuch'; known are opencv, mnn,", id="unknown"),
        pytest.param(["--target", "MNN"], "unknown target 'MNN'; known are opencv, mnn,", id="capitals"),
        pytest.param(["--target", "mnn", "--target", "mnn"], "target mnn is given twice", id="twice"),
        pytest.param(
            ["--target", "rknn", "--calibrate", "VOC", "--images", "IMAGES"],
            "--images is for --calibrate with COCO's instances_*.json; given:", id="images of VOC",
        ),
        pytest.param(
            ["--target", "rknn", "--calibrate", "COCO", "--images", "IMAGES", "--split", "train"],
            "--split is for --calibrate with data in VOC's layout; given:", id="split of COCO",
        ),
        pytest.param(
            ["--target", "rknn", "--calibrate", "IMAGES", "--split", "train"],
            "--split is for --calibrate with data in VOC's layout; given:", id="split of images",
        ),
    ],
)  # fmt: skip
def test_wrong_usage(options: list[str], said: str, tmp_path: Path, command: Command) -> None:
    folder, instances = write_coco(tmp_path, coco_content())
    places = {"VOC": some_voc(tmp_path / "voc"), "COCO": instances, "IMAGES": folder}
    (tmp_path / "broken.pb").write_bytes(b"no model")
    given = [places.get(one, one) for one in options]
    result = command("convert", tmp_path / "broken.pb", "-o", tmp_path / "out", "-q", *given)
    assert (result.status, result.out) == (2, "")
    assert said in " ".join(result.err.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_annotated_images_are_decoded_once(
    example_model: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def reading(path: Path, **options: Any) -> Any:
        read.append(path)
        return image_files.read_image(path, **options)

    monkeypatch.setattr(labelled_images, "read_image", reading)
    voc = write_voc(tmp_path / "voc", {name: [("circle", BOX, 0)] for name in "abc"})
    given = ("convert", example_model, "--target", "rknn", "--calibrate", voc, "--count", 2)
    labels = ("--label-map", example_model.parent / "labelmap.pbtxt")
    assert command(*given, *labels, "-o", tmp_path / "out").status == 0
    assert [path.stem for path in read] == ["a", "b", "c"]
    read.clear()
    monkeypatch.setattr(calibration, "_KEPT_BYTES", 0)
    assert command(*given, *labels, "-o", tmp_path / "again").status == 0
    assert len(read) == 5
    listed = (tmp_path / "out" / "rknn" / "dataset.txt").read_text("utf-8").split()
    assert len(listed) == 2
    for name in listed:
        assert (tmp_path / "again" / "rknn" / name).read_bytes() == (tmp_path / "out" / "rknn" / name).read_bytes()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--calibrate", "VOC", "--split", "nosuch"], "voc has no split 'nosuch'; it has: trainval\n"),
        (["--calibrate", "COCO"], "give it with --images\n"),
        (["--calibrate", "COCO", "--images", "no/such"], "no/such is not a folder; give the folder of the images\n"),
        (["--calibrate", "no.json", "--images", "IMAGES"], "no.json does not exist"),
    ],
)
def test_data_that_cannot_be_opened_are_refused_before_the_model_is_read(
    options: list[str], said: str, tmp_path: Path, command: Command
) -> None:
    folder, instances = write_coco(tmp_path, coco_content())
    places = {"VOC": some_voc(tmp_path / "voc"), "COCO": instances, "IMAGES": folder}
    (tmp_path / "broken.pb").write_bytes(b"no model")
    given = [places.get(one, one) for one in options]
    result = command("convert", tmp_path / "broken.pb", "-o", tmp_path / "out", "-q", "--target", "rknn", *given)
    assert (result.status, result.out, result.err.count("\n")) == (1, "", 1)
    assert said in result.err


def test_annotations_of_coco(example_model: Path, tmp_path: Path, command: Command) -> None:
    folder, instances = write_coco(tmp_path, coco_content())
    result = command(
        "convert", example_model, "-o", tmp_path / "out", "--target", "rknn", "--calibrate", instances, "--images",
        folder, "--count", 2, "--label-map", example_model.parent / "labelmap.pbtxt",
    )  # fmt: skip
    assert result.status == 0, result.err
    assert "note: no calibration image has the class triangle\n" in result.out


@pytest.mark.parametrize("option", [["--count", "100"], ["--split", "train"], ["--images", "folder"]])
def test_options_of_calibration_need_it(
    option: list[str], example_model: Path, tmp_path: Path, command: Command
) -> None:
    result = command("convert", example_model, "-o", tmp_path / "out", "--target", "rknn", *option)
    assert (result.status, result.out) == (2, "")
    assert f"{option[0]} is of the images of --calibrate" in result.err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_exists_is_not_replaced(example_model: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / "out" / "mnn").mkdir(parents=True)
    result = command("convert", example_model, "-o", tmp_path / "out", "-q", "--target", "mnn")
    assert result.status == 1
    assert "exists" in result.err
    assert list((tmp_path / "out").rglob("*")) == [tmp_path / "out" / "mnn"]


def test_too_few_and_broken_images_are_named(
    images: Path, example_model: Path, tmp_path: Path, command: Command
) -> None:
    data = tmp_path / "data"
    shutil.copytree(images, data)
    (data / "bad.png").write_bytes(b"no image")
    result = command(
        "convert", example_model, "-o", tmp_path / "out", "--target", "rknn", "--calibrate", data, "--count", 5
    )
    assert result.status == 0
    assert "note: 3 calibration images, fewer than the 5 that were asked for" in result.out
    assert "note: skipped: " in result.out
    assert "bad.png" in result.out
    assert len((tmp_path / "out" / "rknn" / "dataset.txt").read_text("utf-8").split()) == 3


def test_annotations_of_no_class_of_the_model_are_refused(
    example_model: Path, tmp_path: Path, command: Command
) -> None:
    voc = write_voc(tmp_path / "voc", {"a": [("cat", BOX, 0), ("class_7", BOX, 0)], "b": [("cat", BOX, 0)], "c": []})
    result = command(
        "convert", example_model, "-o", tmp_path / "out", "-q", "--target", "rknn", "--calibrate", voc,
        "--label-map", example_model.parent / "labelmap.pbtxt",
    )  # fmt: skip
    assert (result.status, result.err.count("\n")) == (1, 1)
    assert "is of the model's classes, circle, square, triangle; it has 'cat' (2), 'class_7' (1); give " in result.err
    assert "--label-map" in result.err
    assert not (tmp_path / "out").exists()


def test_skipped_objects_are_counted_by_class(example_model: Path, tmp_path: Path, command: Command) -> None:
    objects = [("circle", BOX, 0), ("cat", BOX, 0), ("class_7", BOX, 0), ("cat", BOX, 0), ("circle", (9, 9, 9, 20), 0)]
    voc = write_voc(tmp_path / "voc", {"a": objects})
    result = command(
        "convert", example_model, "-o", tmp_path / "out", "--target", "rknn", "--calibrate", voc,
        "--label-map", example_model.parent / "labelmap.pbtxt",
    )  # fmt: skip
    assert result.status == 0, result.err
    assert [line for line in result.out.splitlines() if line.startswith("note: ")] == [
        "note: 3 objects skipped, of classes that the model does not have: 'cat' (2), 'class_7' (1)",
        "note: 1 times box (N, N, N, N) is empty: xmin = xmax or ymin = ymax; object skipped",
        "note: 1 calibration image, fewer than the 100 that were asked for",
        "note: no calibration image has any of the 2 classes: square, triangle",
    ]


def test_an_image_that_is_given_twice_counts_once(
    images: Path, example_model: Path, tmp_path: Path, command: Command
) -> None:
    (tmp_path / "link.png").symlink_to(images / "1.png")
    given = [images, images / "0.png", images.parent / images.name / ".." / images.name, tmp_path / "link.png"]
    result = command(
        "convert", example_model, "-o", tmp_path / "out", "--target", "rknn",
        *(word for path in given for word in ("--calibrate", path)),
    )  # fmt: skip
    assert result.status == 0, result.err
    assert "note: 3 calibration images, fewer than the 100" in result.out
    assert len((tmp_path / "out" / "rknn" / "dataset.txt").read_text("utf-8").split()) == 3


def test_classes_are_looked_for_whatever_the_dialect(
    images: Path, example_model: Path, tmp_path: Path, command: Command
) -> None:
    """OpenCV has no Pad layer."""
    result = command(
        "convert", example_model, "-o", tmp_path / "out", "-q", "--padding", "pad-layer", "--target", "rknn",
        "--calibrate", images, "--count", 2,
    )  # fmt: skip
    assert (result.status, result.err) == (0, "")
    assert "Pad" in (tmp_path / "out" / "deploy.prototxt").read_text("utf-8")
    assert len((tmp_path / "out" / "rknn" / "dataset.txt").read_text("utf-8").split()) == 2


def test_the_list_and_the_page_name_every_target(command: Command) -> None:
    result = command("convert", "--target", "list")
    assert result.status == 0
    page = (Path(__file__).resolve().parents[2] / "docs" / "targets.md").read_text("utf-8")
    assert {"opencv", "mnn", "openvino", "ncnn", "rknn", "sophgo", "paddle", "onnx"} <= TARGETS.keys()
    for name in TARGETS:
        assert name in result.out
        assert f"| `{name}` |" in page


def test_the_list_says_who_takes_no_net(command: Command) -> None:
    assert "none: " in command("convert", "--target", "list").out
    for words in (["--target", "list", "--json"], ["--json", "--target", "list"]):
        result = command("convert", *words)
        assert (result.status, result.err) == (0, "")
        found = {entry["target"]: entry for entry in json.loads(result.out)}
        assert list(found) == list(TARGETS)
        assert (found["bvlc"]["nets"], found["opencv"]["nets"]) == ([], ["deploy"])
        assert "has no Permute, PriorBox and DetectionOutput layers" in found["bvlc"]["refused"]
        assert found["opencv"]["refused"] == found["onnx"]["refused"] == ""
        assert found["bvlc"]["checked"]["how"] == "read"


def test_remap_does_not_carry_targets_along_and_says_so(targets_folder: Path, tmp_path: Path, command: Command) -> None:
    mapping = tmp_path / "map.txt"
    mapping.write_text("round: circle\n", "utf-8")
    result = command("remap", targets_folder, "--map", mapping, "-o", tmp_path / "out")
    assert (result.status, result.err) == (0, "")
    assert "note: the folders of targets (opencv, mnn, " in result.out
    report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert "targets" not in report
    assert not (tmp_path / "out" / "mnn").exists()


def test_merge_bn_does_not_carry_targets_along_and_says_so(
    targets_folder: Path, tmp_path: Path, command: Command
) -> None:
    result = command("merge-bn", targets_folder, "-o", tmp_path / "out")
    assert (result.status, result.err) == (0, "")
    assert "note: the folders of targets (opencv, mnn, " in result.out
    assert "targets" not in json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))


@pytest.mark.parametrize(
    "report", [{}, {"targets": None}, {"targets": []}, {"notes": ["one"]}, {"targets": {"mnn": 1}}]
)
def test_reports_without_targets_stay_as_they_are(report: dict[str, object]) -> None:
    assert without_targets(report) == {key: value for key, value in report.items() if key != "targets"}


def test_verify_checks_the_targets_files(targets_folder: Path, tmp_path: Path) -> None:
    from ssdlite_caffe.runtimes.model_folder import ModelFolder
    from ssdlite_caffe.tools.comparison import _changed_files, _files_note

    copy = tmp_path / "out"
    shutil.copytree(targets_folder, copy)
    assert _changed_files(ModelFolder.open(copy)) == {}
    (copy / "mnn" / "headless.prototxt").write_text("name: 'other'", "utf-8")
    (copy / "rknn" / "priors.npy").unlink()
    shutil.rmtree(copy / "paddle")
    changed = _changed_files(ModelFolder.open(copy))
    assert (changed["mnn/headless.prototxt"], changed["rknn/priors.npy"]) == ("changed", "missing")
    assert changed["paddle/headless.prototxt"] == "missing"
    assert _files_note({"a": "changed", "b": "missing", "c": "missing"}) == (
        "changed since the conversion: a; missing: b, c"
    )
    assert _files_note({}) == "unchanged since the conversion"
    assert not any(name.startswith("openvino") for name in changed)


def test_a_proof_has_the_hashes_of_the_targets_files(targets_folder: Path, example_model: Path, tmp_path: Path) -> None:
    from ssdlite_caffe.tools.proof_write import Fingerprints

    copy = tmp_path / "out"
    shutil.copytree(targets_folder, copy)
    (copy / "rknn" / "mine.rknn").write_bytes(b"of a user's tool")
    before = Fingerprints.of(example_model, copy, [], 1).files
    on_disk = {path.relative_to(copy).as_posix() for path in copy.glob("*/**/*") if path.is_file()}
    assert {name for name in before if "/" in name} == on_disk - {"rknn/mine.rknn"}
    (copy / "mnn" / "headless.prototxt").write_text("name: 'other'", "utf-8")
    assert Fingerprints.of(example_model, copy, [], 1).files != before


def test_the_image_with_most_classes_is_taken_first() -> None:
    """Of those with the rarest class; so that few images have all classes."""
    classes = [frozenset(one) for one in ({1}, {1, 2, 3}, {2}, {3}, {1, 2}, {3})]
    assert choose(classes, 1) == [1]
    assert 1 in choose(classes, 2)


@given(st.lists(st.frozensets(st.integers(1, 6)), min_size=1, max_size=30), st.integers(1, 40))
def test_chosen_images_have_every_class(classes: list[frozenset[int]], count: int) -> None:
    picked = choose(classes, count)
    assert picked == sorted(set(picked))
    assert len(picked) == min(count, len(classes))
    every = frozenset().union(*classes)
    if count >= len(every):
        assert frozenset().union(*(classes[index] for index in picked)) == every
