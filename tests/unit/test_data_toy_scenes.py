"""Drawn scenes: what is in them, that the same seed gives the same, and folders that our readers read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.data.coco import open_coco
from ssdlite_caffe.data.toy_scenes import CLASSES, ShapesOptions, draw_scene, make_shapes
from ssdlite_caffe.data.voc import open_voc
from ssdlite_caffe.errors import OutputError
from ssdlite_caffe.runtimes.images import read_image
from tests.commands import Command, tree


@pytest.mark.parametrize("seed", range(20))
def test_shapes_keep_inside_and_apart(seed: int) -> None:
    image, shapes = draw_scene((7, seed), 160)
    assert image.shape == (160, 160, 3)
    assert image.dtype == np.uint8
    assert 1 <= len(shapes) <= 6
    for number, shape in enumerate(shapes):
        xmin, ymin, xmax, ymax = shape.box
        assert 0 <= xmin < xmax <= 160
        assert 0 <= ymin < ymax <= 160
        assert xmax - xmin == pytest.approx(ymax - ymin)
        assert 0.1 * 160 <= xmax - xmin <= 0.44 * 160
        for other in shapes[:number]:
            a, b = shape.box, other.box
            assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]


def test_a_class_is_told_by_its_outline() -> None:
    """Share of the box that has the shape's colour: pi / 4, 1, 1 / 2."""
    shares: dict[int, list[float]] = {1: [], 2: [], 3: []}
    for seed in range(60):
        image, shapes = draw_scene((1, seed), 320)
        for shape in shapes:
            xmin, ymin, xmax, ymax = (round(v) for v in shape.box)
            inside = image[ymin:ymax, xmin:xmax].astype(float)
            colour = np.median(inside[-8:, inside.shape[1] // 2 - 3 : inside.shape[1] // 2 + 3], (0, 1))
            if min(xmin, ymin) < 6:
                continue
            corner = np.median(image[ymin - 6 : ymin, xmin - 6 : xmin], (0, 1))
            if abs(colour - corner).max() > 90:
                shares[shape.label].append(float((abs(inside - colour).max(2) < 45).mean()))
    for label, share in ((1, np.pi / 4), (2, 1.0), (3, 0.5)):
        assert len(shares[label]) > 5
        assert np.median(shares[label]) == pytest.approx(share, abs=0.05)


def test_scenes_of_two_seeds_differ() -> None:
    assert not (draw_scene((0, 1))[0] == draw_scene((1, 0))[0]).all()


def test_the_same_seed_gives_the_same_folder(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_shapes(tmp_path / name, ShapesOptions(3, 5, side=64))
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


@pytest.mark.parametrize("layout", ["voc", "coco"])
def test_our_readers_find_what_was_drawn(layout: str, tmp_path: Path) -> None:
    report = make_shapes(tmp_path / "out", ShapesOptions(4, 9, "voc" if layout == "voc" else "coco", "val", 96))
    folder = tmp_path / "out"
    if layout == "voc":
        data = open_voc([folder], "val")
    else:
        data = open_coco(folder / "val", folder / "annotations" / "instances_val.json")
    assert data.label_map.display_names[1:] == CLASSES
    assert not data.problems
    counted = 0
    for number, entry in enumerate(data.entries):
        image, shapes = draw_scene((9, number), 96)
        stored = read_image(entry.path)[..., ::-1]
        lost = (stored.astype(float) - image).reshape(12, 8, 12, 8, 3).mean((1, 3))
        assert np.abs(lost).max() < 12  # of blocks of JPEG; mostly its colours at half the size
        boxes, problems = data.objects(entry, 96, 96)
        assert not problems
        assert [box.label for box in boxes] == [shape.label for shape in shapes]
        np.testing.assert_allclose([box[1:5] for box in boxes], [shape.box for shape in shapes], atol=0.011)
        counted += len(boxes)
    assert counted == sum(report["objects"].values())


def test_command(command: Command, tmp_path: Path) -> None:
    result = command("shapes", "-o", tmp_path / "out", "--count", 2, "--seed", 3, "--side", 64, "--json")
    assert result.status == 0
    report = json.loads(result.out)
    assert report["scenes"] == 2
    assert json.loads((tmp_path / "out" / "shapes.json").read_text()) == report
    again = command("shapes", "-o", tmp_path / "out", "--count", 2)
    assert (again.status, again.out) == (1, "")
    assert again.err.count("\n") == 1
    assert "--force" in again.err
    assert command("shapes", "-o", tmp_path / "x", "--split", "../up").status == 2
    assert not (tmp_path / "x").exists()


def test_a_folder_of_other_things_stays(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(OutputError, match="holds files"):
        make_shapes(tmp_path, ShapesOptions(1, 0, side=64), force=True)
    assert tree(tmp_path) == {"letter.txt": b"dear"}
