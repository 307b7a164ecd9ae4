"""The detect tool on the example model: what it prints, what it writes, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdlite_caffe.commands.detection_output import Output, show
from ssdlite_caffe.errors import ImageError, OutputError
from ssdlite_caffe.imports import import_opencv
from ssdlite_caffe.runtimes.decode import overlap
from ssdlite_caffe.runtimes.detector import Detector, ImageResult, detect
from ssdlite_caffe.runtimes.images import Video, read_image
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from tests.scenes import draw_scene

pytestmark = pytest.mark.opencv


def run(folder: Path, inputs: list[Path], *, output: Output = "table", **options: Any) -> bool:
    """What the command does."""
    model = ModelFolder.open(folder)
    detected = lambda progress: detect(model, inputs, progress=progress, **options)  # noqa: E731
    return show(detected, model.labels.display_names, out=options.get("out"), output=output)


@pytest.fixture(scope="module")
def model(example_folder: Path) -> ModelFolder:
    return ModelFolder.open(example_folder)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three images, one of them not square, a file that is none, and a folder with a name that is taken."""
    cv2 = import_opencv()
    folder = tmp_path / "in"
    (folder / "inner").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.png", "c.jpg", "inner/a.png")):
        scene = draw_scene(number)[0][..., ::-1]
        assert cv2.imwrite(str(folder / name), scene[:200] if name == "b.png" else scene)
    (folder / "bad.png").write_text("hello")
    return folder


def results(items: Any) -> tuple[list[ImageResult], list[ImageError]]:
    every = list(items)
    return [i for i in every if isinstance(i, ImageResult)], [i for i in every if isinstance(i, ImageError)]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_most_shapes_of_a_scene_are_found(model: ModelFolder, seed: int) -> None:
    image, shapes = draw_scene(seed)
    found = Detector(model)(np.ascontiguousarray(image[..., ::-1])).above(0.5)
    hits = 0
    for shape in shapes:
        box = np.array(shape.box, np.float32) / 320
        same = found.boxes[found.classes == shape.label]
        hits += bool(len(same) and overlap(box, same).max() > 0.6)
    assert len(shapes)
    assert hits >= 0.6 * len(shapes)


@pytest.mark.parametrize("seed", range(4))
def test_both_decoders_agree(model: ModelFolder, seed: int) -> None:
    image = np.ascontiguousarray(draw_scene(seed)[0][..., ::-1])
    one, other = Detector(model, "caffe")(image), Detector(model, "numpy")(image)
    assert len(one) == model.arch.nms.max_total
    assert one.classes.tolist() == other.classes.tolist()
    np.testing.assert_allclose(one.scores, other.scores, rtol=0, atol=3e-7)
    np.testing.assert_allclose(one.boxes, other.boxes, rtol=0, atol=3e-7)


def test_an_unreadable_image_does_not_stop_the_others(model: ModelFolder, images: Path) -> None:
    steps: list[tuple[int, int]] = []
    found, errors = results(detect(model, [images, images / "none.png"], progress=lambda *state: steps.append(state)))
    assert [r.path.name for r in found] == ["a.png", "b.png", "c.jpg"]
    assert [(r.height, r.width) for r in found] == [(320, 320), (200, 320), (320, 320)]
    assert [str(e).split(" is ")[0].split(" does ")[0] for e in errors] == [
        str(images / "bad.png"),
        str(images / "none.png"),
    ]
    assert (steps[0], steps[-1]) == ((0, 5), (5, 5))


def test_score_threshold_leaves_out(model: ModelFolder, images: Path) -> None:
    [low], _ = results(detect(model, [images / "a.png"], score_threshold=0.05))
    [high], _ = results(detect(model, [images / "a.png"], score_threshold=0.6))
    assert len(high.detections) < len(low.detections)
    assert high.detections.scores.min() >= 0.6
    assert high.detections.scores.tolist() == low.detections.scores[: len(high.detections)].tolist()


def test_drawn_images_keep_their_names_and_never_meet(model: ModelFolder, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    inputs = [images, images / "inner" / "a.png", images / "a.png"]
    found, _ = results(detect(model, inputs, out=out))
    assert sorted(p.name for p in out.iterdir()) == ["a.png", "a_2.png", "a_3.png", "b.png", "c.jpg"]
    assert len(found) == 5
    original = read_image(images / "a.png")
    drawn = read_image(out / "a.png")
    assert drawn.shape == original.shape
    assert (drawn != original).any()
    np.testing.assert_array_equal(drawn, read_image(out / "a_3.png"))
    assert (read_image(out / "a_2.png") != drawn).any()


def test_existing_images_are_not_replaced_unasked(model: ModelFolder, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "b.png").write_text("mine")
    with pytest.raises(OutputError, match=r"b\.png exists already"):
        list(detect(model, [images], out=out))
    assert [p.name for p in out.iterdir()] == ["b.png"]
    results(detect(model, [images / "b.png"], out=out, force=True))
    assert read_image(out / "b.png").shape == (200, 320, 3)


def test_inputs_are_never_written_over(model: ModelFolder, images: Path, tmp_path: Path) -> None:
    before = (images / "a.png").read_bytes()
    with pytest.raises(OutputError, match=r"a\.png is an input"):
        list(detect(model, [images / "a.png"], out=images, force=True))
    assert (images / "a.png").read_bytes() == before
    with pytest.raises(OutputError, match="-o must name a folder"):
        list(detect(model, [images / "a.png"], out=images / "c.jpg"))


@pytest.fixture
def video(tmp_path: Path) -> Path:
    cv2 = import_opencv()
    path = tmp_path / "v.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 12.5, (320, 240))
    for seed in range(3):
        writer.write(np.ascontiguousarray(draw_scene(seed)[0][:240, :, ::-1]))
    writer.release()
    return path


def test_a_video_gives_a_result_a_frame_and_a_video(model: ModelFolder, video: Path, tmp_path: Path) -> None:
    found, errors = results(detect(model, [video], out=tmp_path / "out"))
    assert not errors
    assert [r.frame for r in found] == [0, 1, 2]
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["v.mp4"]
    with Video(tmp_path / "out" / "v.mp4") as drawn:
        frames = list(drawn)
        assert drawn.rate == 12.5
    assert [f.shape for f in frames] == [(240, 320, 3)] * 3


def test_a_video_left_midway_leaves_nothing(model: ModelFolder, video: Path, tmp_path: Path) -> None:
    running = detect(model, [video], out=tmp_path / "out")
    next(running)
    running.close()  # type: ignore[attr-defined]
    assert list((tmp_path / "out").iterdir()) == []


def test_json_and_csv_say_the_same(
    example_folder: Path, images: Path, video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = [images, video]
    assert run(example_folder, inputs, output="json")
    printed = capsys.readouterr()
    data = json.loads(printed.out)
    assert "bad.png is not an image" in printed.err
    assert [Path(p["image"]).name for p in data["images"]] == ["a.png", "b.png", "c.jpg"] + ["v.avi"] * 3
    assert [p.get("frame") for p in data["images"]] == [None, None, None, 0, 1, 2]
    assert data["errors"] == [f"{images / 'bad.png'} is not an image that OpenCV can read, or is truncated"]
    assert run(example_folder, inputs, output="csv")
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    flat = [(p, d) for p in data["images"] for d in p["detections"]]
    assert len(rows) == len(flat) > 6
    for row, (image, detection) in zip(rows, flat, strict=True):
        assert row["image"] == image["image"]
        assert row["frame"] == str(image.get("frame", ""))
        assert (int(row["class"]), row["name"]) == (detection["class"], detection["name"])
        assert float(row["score"]) == detection["score"]
        assert [float(row[k]) for k in ("xmin", "ymin", "xmax", "ymax")] == detection["box"]
        assert 0 <= detection["box"][0] < detection["box"][2] <= image["width"]
        assert 0 <= detection["box"][1] < detection["box"][3] <= image["height"]


def test_table(example_folder: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = tmp_path / "[bold]nothing here.png"
    assert import_opencv().imwrite(str(plain), np.full((30, 40, 3), 128, np.uint8))
    assert not run(example_folder, [images / "a.png", plain], score_threshold=0.5, out=tmp_path / "out")
    printed = capsys.readouterr()
    assert printed.err == ""
    for text in (
        str(images / "a.png"),
        "[bold]nothing here.png",
        "class_",
        f"images with boxes are in {tmp_path / 'out'}",
    ):
        assert text in printed.out
