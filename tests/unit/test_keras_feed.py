"""Images for training: their order, their shares, and what is wrong with them."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdlite_caffe.data.annotations import Box
from ssdlite_caffe.data.toy_scenes import ShapesOptions, draw_scene, make_shapes
from ssdlite_caffe.errors import DatasetError
from ssdlite_caffe.keras.feed import Feed, open_training_data, order, share
from ssdlite_caffe.keras.scan import Objects


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    make_shapes(tmp_path / "scenes", ShapesOptions(5, 2, side=64))
    return tmp_path / "scenes"


@given(st.integers(0, 2**32), st.integers(1, 20), st.integers(0, 70))
def test_an_order_begun_anywhere_is_the_same(seed: int, count: int, start: int) -> None:
    whole = list(itertools.islice(order(seed, count, 0), start + 30))
    assert list(itertools.islice(order(seed, count, start), 30)) == whole[start:]
    assert [number for number, _ in whole] == list(range(start + 30))
    for epoch in range((start + 30) // count):
        seen = [image for _, image in whole[epoch * count : (epoch + 1) * count]]
        assert sorted(seen) == list(range(count))


def test_epochs_and_seeds_differ() -> None:
    places = [image for _, image in itertools.islice(order(0, 50, 0), 100)]
    assert places[:50] != places[50:]
    assert places[:50] != [image for _, image in itertools.islice(order(1, 50, 0), 50)]


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 5))
def test_shares_make_up_the_batches(workers: int, part: int, batches: int) -> None:
    batch = workers * part
    items = [(n, n * 7) for n in range(batch * batches)]
    shares = [list(share(iter(items), batch, worker, workers)) for worker in range(workers)]
    for number in range(batches):
        joined = [item for mine in shares for item in mine[number * part : (number + 1) * part]]
        assert joined == items[number * batch : (number + 1) * batch]


def test_corners_become_fractions_of_their_own_side() -> None:
    found = Objects.of([Box(2, 10, 20, 30, 60, difficult=True), Box(1, 0, 0, 50, 100, difficult=False)], 100, 50)
    np.testing.assert_array_equal(found.boxes, np.array([[0.2, 0.2, 0.6, 0.6], [0, 0, 1, 1]], np.float32))
    assert found.labels.tolist() == [2, 1]
    assert found.ignored.tolist() == [True, False]


def test_images_and_boxes(scenes: Path) -> None:
    data = open_training_data(scenes)
    assert len(data) == 5
    assert data.labels.display_names == ("background", "circle", "square", "triangle")
    for number in range(5):
        image, shapes = draw_scene((2, number), 64)
        assert np.abs(data.pixels(number).astype(float).mean((0, 1)) - image.mean((0, 1))).max() < 3  # RGB
        found = data.objects[number]
        expected = np.array([shape.box for shape in shapes])[:, [1, 0, 3, 2]] / 64
        np.testing.assert_allclose(found.boxes, expected, atol=2e-4)
        assert found.labels.tolist() == [shape.label for shape in shapes]
        assert not found.ignored.any()


def test_coco_and_lmdb_hold_the_same(scenes: Path, tmp_path: Path) -> None:
    from ssdlite_caffe.data.encoded import ImageEncoding
    from ssdlite_caffe.data.lmdb_write import Order, write_lmdb
    from ssdlite_caffe.data.voc import open_voc

    pytest.importorskip("lmdb")
    make_shapes(tmp_path / "coco", ShapesOptions(5, 2, "coco", "train", side=64))
    write_lmdb(open_voc([scenes], "trainval"), tmp_path / "lmdb", ImageEncoding(), Order(False, 0, 1))
    voc = open_training_data(scenes)
    annotations = tmp_path / "coco" / "annotations" / "instances_train.json"
    coco = open_training_data(annotations, images=tmp_path / "coco" / "train")
    lmdb = open_training_data(tmp_path / "lmdb")
    for other in (coco, lmdb):
        assert other.labels.display_names == voc.labels.display_names
        assert len(other) == 5
        for number in range(5):
            assert (other.pixels(number) == voc.pixels(number)).all()
            found, expected = (  # an LMDB groups objects by class
                sorted(
                    zip(data.objects[number].labels.tolist(), data.objects[number].boxes.round(3).tolist(), strict=True)
                )
                for data in (other, voc)
            )
            assert [label for label, _ in found] == [label for label, _ in expected]
            np.testing.assert_allclose([box for _, box in found], [box for _, box in expected], atol=2e-3)
    with pytest.raises(DatasetError, match="--images"):
        open_training_data(annotations)


def test_what_cannot_be_used_is_left_out_and_told(scenes: Path) -> None:
    (scenes / "JPEGImages" / "000001.jpg").write_bytes(b"no image")
    xml = scenes / "Annotations" / "000003.xml"
    xml.write_text(xml.read_text().replace("<name>", "<name>x", 1))
    data = open_training_data(scenes, labels=open_training_data(scenes / ".").labels)
    assert data.names == tuple(f"JPEGImages/00000{n}.jpg" for n in (0, 2, 3, 4))
    assert any("000001.jpg" in str(item) for item in data.problems)
    for number, scene in enumerate((0, 2, 3, 4)):
        assert (
            np.abs(data.pixels(number).astype(float).mean((0, 1)) - draw_scene((2, scene), 64)[0].mean((0, 1))).max()
            < 3
        )


def test_difficult_objects_do_not_count(scenes: Path) -> None:
    xml = scenes / "Annotations" / "000000.xml"
    text = xml.read_text()
    first = "<difficult>0</difficult>"
    assert first in text
    xml.write_text(text.replace(first, "<difficult>1</difficult>", 1))
    ignored = [found.ignored.tolist() for found in open_training_data(scenes).objects]
    assert ignored[0] == [True] + [False] * (len(ignored[0]) - 1)
    assert not any(itertools.chain(*ignored[1:]))


@pytest.mark.parametrize("content", [b"", b"no image"])
def test_nothing_to_train_on(scenes: Path, content: bytes) -> None:
    for path in (scenes / "JPEGImages").iterdir():
        path.write_bytes(content)
    with pytest.raises(DatasetError, match="no image with an object"):
        open_training_data(scenes)


def test_other_folders(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="JPEGImages"):
        open_training_data(tmp_path)
    with pytest.raises(DatasetError, match="nothing does not exist"):
        open_training_data(tmp_path / "nothing")


def test_a_feed_keeps_its_order_and_its_error(scenes: Path) -> None:
    data = open_training_data(scenes)
    feed = Feed(data, itertools.islice(order(3, 5, 2), 12))
    assert [int(item[0]) for item in feed()] == list(range(2, 14))
    wanted = [image for _, image in itertools.islice(order(3, 5, 2), 12)]
    found = Feed(data, itertools.islice(order(3, 5, 2), 12))()
    for image, item in zip(wanted, found, strict=True):
        assert (item[1] == data.pixels(image)).all()
        assert (item[2] == data.objects[image].boxes).all()
    (scenes / "JPEGImages" / "000004.jpg").unlink()
    feed = Feed(data, order(3, 5, 0))
    with pytest.raises(DatasetError, match=r"000004\.jpg can no longer be read"):
        list(feed())
    assert feed.error is not None
