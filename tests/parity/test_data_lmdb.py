"""The real Caffe reads what `lmdb` wrote: pixels and labels come out of AnnotatedData as they went in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.data.annotations import Dataset
from ssdlite_caffe.data.coco import open_coco
from ssdlite_caffe.data.encoded import ImageEncoding
from ssdlite_caffe.data.lmdb_write import Order, write_lmdb
from ssdlite_caffe.data.voc import open_voc
from ssdlite_caffe.runtimes.caffe_net import CaffeNet
from tests.datasets import SIZE, coco_content, encoded, pixels, some_voc, write_coco

pytestmark = [pytest.mark.caffe, pytest.mark.opencv]

NET = """
layer {{
  name: "data" type: "AnnotatedData" top: "data" top: "label" include {{ phase: TEST }}
  transform_param {{ mean_value: 0 mean_value: 0 mean_value: 0 }}
  data_param {{ source: "{source}" batch_size: {batch} backend: LMDB }}
  annotated_data_param {{ label_map_file: "{source}/labelmap.prototxt" }}
}}
"""


def read_by_caffe(lmdb: Path, batch: int, prefix: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (batch, 3, H, W) of one batch, and its label blob's rows (N, 8)."""
    net = lmdb.parent / "net.prototxt"
    net.write_text(NET.format(source=lmdb, batch=batch))
    with CaffeNet(net, None, prefix=prefix) as caffe:
        found = caffe.forward({}, ["data", "label"])
    return found["data"], found["label"].reshape(-1, 8)


def expected_rows(data: Dataset, size: tuple[int, int], order: Sequence[int]) -> list[list[float]]:
    """item, label, instance, xmin, ymin, xmax, ymax, difficult; of each image the labels in order of appearance."""
    rows = []
    for item, number in enumerate(order):
        boxes = data.objects(data.entries[number], *size)[0]
        for label in dict.fromkeys(box.label for box in boxes):
            same = [box for box in boxes if box.label == label]
            for instance, box in enumerate(same):
                sides = np.float32([box.xmin, box.ymin, box.xmax, box.ymax]) / np.float32(size[::-1] * 2)
                rows.append([item, label, instance, *sides.tolist(), box.difficult])
    return rows


def test_voc(tmp_path: Path, caffe_prefix: Path) -> None:
    import cv2

    root = some_voc(tmp_path / "voc")
    for number in range(5):  # PNG has the same pixels for every reader
        (root / "JPEGImages" / f"p{number}.jpg").unlink()
        (root / "JPEGImages" / f"p{number}.png").write_bytes(encoded(pixels(number), ".png"))
    grey = cv2.cvtColor(pixels(3), cv2.COLOR_BGR2GRAY)
    (root / "JPEGImages" / "p3.png").write_bytes(encoded(grey, ".png"))
    data = open_voc([root], "trainval")
    write_lmdb(data, tmp_path / "out")
    got, rows = read_by_caffe(tmp_path / "out", 5, caffe_prefix)
    assert rows.tolist() == expected_rows(data, SIZE, range(5))
    for number in range(5):
        image = np.repeat(grey[:, :, None], 3, axis=2) if number == 3 else pixels(number)
        np.testing.assert_array_equal(got[number], image.transpose(2, 0, 1))


def test_coco_resized_and_shuffled(tmp_path: Path, caffe_prefix: Path) -> None:
    images, path = write_coco(tmp_path, coco_content())
    data = open_coco(images, path)
    order = Order(shuffle=True, seed=5)
    write_lmdb(data, tmp_path / "out", ImageEncoding(size=(30, 40), encoding="png"), order)
    got, rows = read_by_caffe(tmp_path / "out", 4, caffe_prefix)
    numbers = [data.entries.index(entry) for _, entry in order.apply(data.entries)]
    assert numbers != sorted(numbers)
    expected = expected_rows(data, SIZE, numbers)
    np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-7)
    assert got.shape == (4, 3, 30, 40)
