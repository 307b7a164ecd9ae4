"""Writing LMDBs as convert_annoset does, and reading them back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdlite_caffe.coco.label_map import LabelMap, load_label_map
from ssdlite_caffe.data.annotations import Box
from ssdlite_caffe.data.coco import open_coco
from ssdlite_caffe.data.encoded import ImageEncoding
from ssdlite_caffe.data.lmdb_check import check_lmdb, decode_datum
from ssdlite_caffe.data.lmdb_store import LmdbReader, LmdbWriter
from ssdlite_caffe.data.lmdb_write import Order, annotated_datum, write_lmdb
from ssdlite_caffe.data.voc import open_voc
from ssdlite_caffe.errors import DatasetError, OutputError
from ssdlite_caffe.prototxt import caffe_pb2
from tests.commands import Command, tree
from tests.datasets import NAMES, SIZE, coco_content, encoded, pixels, some_voc, write_coco, write_voc

pytestmark = pytest.mark.opencv
LMDB_FILES = {"data.mdb", "labelmap.prototxt", "test_name_size.txt", "lmdb.json"}


def records(folder: Path) -> dict[bytes, caffe_pb2.AnnotatedDatum]:
    with LmdbReader(folder) as reader:
        return {key: caffe_pb2.AnnotatedDatum.FromString(value) for key, value in reader}


class TestWriting:
    def test_voc(self, tmp_path: Path) -> None:
        root = some_voc(tmp_path / "voc")
        summary = write_lmdb(open_voc([root], "trainval"), tmp_path / "out")
        found = records(tmp_path / "out")
        assert list(found) == [f"{i:08d}_JPEGImages/p{i}.jpg".encode() for i in range(5)]
        first = found[b"00000001_JPEGImages/p1.jpg"]
        assert first.type == caffe_pb2.AnnotatedDatum.BBOX
        assert first.datum == caffe_pb2.Datum(
            data=(root / "JPEGImages" / "p1.jpg").read_bytes(), label=-1, encoded=True
        )
        assert [group.group_label for group in first.annotation_group] == [2, 3]
        box = first.annotation_group[0].annotation[0].bbox
        sides = np.array([box.xmin, box.ymin, box.xmax, box.ymax], np.float32)
        # as convert_annoset computes: float32 by float32
        np.testing.assert_array_equal(sides, np.float32([1, 5, 12, 25]) / np.float32([80, 48, 80, 48]))
        assert (box.HasField("difficult"), box.difficult) == (True, True)
        assert {path.name for path in (tmp_path / "out").iterdir()} == LMDB_FILES
        assert load_label_map(tmp_path / "out" / "labelmap.prototxt") == LabelMap.of_names(NAMES)
        sizes = (tmp_path / "out" / "test_name_size.txt").read_text()
        assert sizes == "".join(f"p{i} 48 80\n" for i in range(5))
        assert json.loads((tmp_path / "out" / "lmdb.json").read_text()) == summary
        assert {key: summary[key] for key in ("images", "images_empty", "objects", "num_classes", "problems")} == {
            "images": 5, "images_empty": 1, "objects": 10, "num_classes": 4, "problems": [],
        }  # fmt: skip

    def test_coco(self, tmp_path: Path) -> None:
        images, path = write_coco(tmp_path, coco_content())
        summary = write_lmdb(open_coco(images, path), tmp_path / "out")
        found = records(tmp_path / "out")
        assert list(found) == [f"{i:08d}_a/p{i}.jpg".encode() for i in range(4)]
        groups = found[b"00000000_a/p0.jpg"].annotation_group
        assert [(g.group_label, [a.bbox.difficult for a in g.annotation]) for g in groups] == [
            (1, [False]),
            (2, [True]),
        ]
        assert (tmp_path / "out" / "test_name_size.txt").read_text().split()[:3] == ["100", "48", "80"]
        assert summary["objects_difficult"] == 1

    def test_resized(self, tmp_path: Path) -> None:
        data = open_voc([some_voc(tmp_path / "voc")], "trainval")
        write_lmdb(data, tmp_path / "kept")
        summary = write_lmdb(data, tmp_path / "out", ImageEncoding(size=(30, 40), encoding="png"))
        assert summary["images_encoded_anew"] == 5
        assert (tmp_path / "out" / "test_name_size.txt").read_text() == "".join(f"p{i} 48 80\n" for i in range(5))
        for one, other in zip(records(tmp_path / "out").values(), records(tmp_path / "kept").values(), strict=True):
            assert one.annotation_group == other.annotation_group
            assert one.datum.data[:4] == b"\x89PNG"
        assert check_lmdb(tmp_path / "out")["heights"] == [30, 30]

    def test_order(self, tmp_path: Path) -> None:
        data = open_voc([some_voc(tmp_path / "voc", 9)], "trainval")
        names = {}
        for name, order in {
            "plain": Order(), "one": Order(shuffle=True, seed=1, jobs=1), "again": Order(shuffle=True, seed=1, jobs=5),
            "two": Order(shuffle=True, seed=2),
        }.items():  # fmt: skip
            write_lmdb(data, tmp_path / name, order=order)
            found = list(records(tmp_path / name))
            assert [key[:9] for key in found] == [f"{i:08d}_".encode() for i in range(9)]
            names[name] = [key[9:] for key in found]
        assert names["one"] == names["again"]
        assert len({tuple(order) for order in names.values()}) == 3
        assert len({tuple(sorted(order)) for order in names.values()}) == 1
        assert (tmp_path / "one" / "data.mdb").read_bytes() == (tmp_path / "again" / "data.mdb").read_bytes()

    def test_what_is_wrong_is_left_out_and_told(self, tmp_path: Path) -> None:
        root = some_voc(tmp_path / "voc")
        (root / "JPEGImages" / "p0.jpg").write_bytes(encoded(pixels(0))[:500])
        (root / "Annotations" / "p2.xml").write_text("<annotation>")
        path = root / "Annotations" / "p1.xml"
        path.write_text(path.read_text().replace("<xmax>12</xmax>", "<xmax>0</xmax>"))
        data = open_voc([root], "trainval")
        summary = write_lmdb(data, tmp_path / "out")
        assert [key[:8] for key in records(tmp_path / "out")] == [b"00000001", b"00000003", b"00000004"]
        assert (tmp_path / "out" / "test_name_size.txt").read_text() == "p1 48 80\np3 48 80\np4 48 80\n"
        assert [(p["where"], p["effect"]) for p in summary["problems"]] == [
            (str(root / "JPEGImages" / "p0.jpg"), "image skipped"),
            (f"{path}:7", "object skipped"),
            (f"{root / 'Annotations' / 'p2.xml'}:1", "image skipped"),
        ]
        before = tree(tmp_path)
        with pytest.raises(DatasetError, match="3 problems in the data:\n") as caught:
            write_lmdb(data, tmp_path / "strict", strict=True)
        assert all(p["where"] in str(caught.value) for p in summary["problems"])
        assert tree(tmp_path) == before

    def test_nothing_usable(self, tmp_path: Path) -> None:
        root = some_voc(tmp_path / "voc", 2)
        data = open_voc([root], "trainval")
        for path in (root / "JPEGImages").iterdir():
            path.write_bytes(b"")
        before = tree(tmp_path)
        with pytest.raises(DatasetError, match="no image can be used:\n"):
            write_lmdb(data, tmp_path / "out")
        assert tree(tmp_path) == before

    def test_names_too_long_and_with_spaces(self, tmp_path: Path) -> None:
        content = coco_content()
        long = "/".join(["a" * 200] * 3)
        content["images"][1]["file_name"] = f"{long}.jpg"
        images, path = write_coco(tmp_path, content)
        summary = write_lmdb(open_coco(images, path), tmp_path / "out")
        assert "has 615 bytes, LMDB allows 511" in summary["problems"][0]["what"]
        root = write_voc(tmp_path / "voc", {"two words": [("a", (1, 2, 3, 4), 0)]})
        write_lmdb(open_voc([root], "trainval"), tmp_path / "spaces")
        assert (tmp_path / "spaces" / "test_name_size.txt").read_text() == "two%20words 48 80\n"

    def test_never_over_what_is_there(self, tmp_path: Path) -> None:
        data = open_voc([some_voc(tmp_path / "voc")], "trainval")
        write_lmdb(data, tmp_path / "out", order=Order(shuffle=True))
        before = tree(tmp_path)
        with pytest.raises(OutputError, match="exists already"):
            write_lmdb(data, tmp_path / "out")
        with pytest.raises(OutputError, match=r"holds files but no lmdb\.json"):
            write_lmdb(data, tmp_path / "voc", force=True)
        assert tree(tmp_path) == before
        write_lmdb(data, tmp_path / "out", force=True)
        assert b"00000000_JPEGImages/p0.jpg" in records(tmp_path / "out")

    def test_an_interrupt_leaves_nothing(self, tmp_path: Path) -> None:
        data = open_voc([some_voc(tmp_path / "voc", 40)], "trainval")
        before = tree(tmp_path)

        def interrupt(done: int, total: int) -> None:
            assert total == 40
            if done == 20:
                raise KeyboardInterrupt

        for jobs in (1, 3):
            with pytest.raises(KeyboardInterrupt):
                write_lmdb(data, tmp_path / "out", order=Order(jobs=jobs), progress=interrupt)
            assert tree(tmp_path) == before

    def test_kill_leaves_no_lmdb(self, tmp_path: Path) -> None:
        """After kill -9 in the middle there is no folder of that name, and the next run makes a whole one."""
        root = some_voc(tmp_path / "voc", 30)
        script = (
            "import sys, time; from pathlib import Path\n"
            "from ssdlite_caffe.data.voc import open_voc\n"
            "from ssdlite_caffe.data.lmdb_write import write_lmdb\n"
            "def slow(done, total):\n    print(done, flush=True); time.sleep(0.2)\n"
            f"write_lmdb(open_voc([Path({str(root)!r})], 'trainval'), Path({str(tmp_path / 'out')!r}), progress=slow)\n"
        )
        run = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        assert run.stdout is not None
        for _ in range(5):
            run.stdout.readline()
        os.kill(run.pid, signal.SIGKILL)
        run.communicate()
        assert run.returncode == -signal.SIGKILL
        assert not (tmp_path / "out").exists()
        write_lmdb(open_voc([root], "trainval"), tmp_path / "out")
        assert len(records(tmp_path / "out")) == 30


class TestStore:
    @settings(max_examples=15)
    @given(st.lists(st.integers(0, 200_000), max_size=12), st.integers(1, 5))
    def test_the_map_grows(self, tmp_path_factory: pytest.TempPathFactory, sizes: list[int], batch: int) -> None:
        folder = tmp_path_factory.mktemp("map")
        written = [(f"{i:08d}".encode(), bytes([i % 251]) * size) for i, size in enumerate(sizes)]
        with LmdbWriter(folder, first_map=1 << 16) as writer:
            for first in range(0, len(written), batch):
                writer.put(written[first : first + batch])
        with LmdbReader(folder) as reader:
            assert len(reader) == len(written)
            assert list(reader) == written
        assert writer.growths > 0 or sum(sizes) < 1 << 16

    def test_a_full_disk(self, tmp_path: Path) -> None:
        import resource

        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
            with pytest.raises(OutputError, match="cannot write"), LmdbWriter(tmp_path) as writer:
                writer.put([(f"{i:08d}".encode(), b"x" * (1 << 18)) for i in range(8)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)

    def test_no_lmdb(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match=r"has no data\.mdb"):
            LmdbReader(tmp_path)
        (tmp_path / "data.mdb").write_bytes(b"text" * 5000)
        with pytest.raises(DatasetError, match="cannot be read as an LMDB: MDB_INVALID"):
            LmdbReader(tmp_path)


boxes = st.builds(
    lambda label, left, top, wide, high, difficult: Box(label, left, top, left + wide, top + high, difficult),
    st.integers(1, 5), st.integers(0, 4000), st.integers(0, 4000), st.integers(1, 4000), st.integers(1, 4000),
    st.booleans(),
)  # fmt: skip


@given(st.lists(boxes, max_size=12), st.integers(1, 9000), st.integers(1, 9000))
def test_boxes_come_back(items: list[Box], height: int, width: int) -> None:
    message = caffe_pb2.AnnotatedDatum.FromString(annotated_datum(b"x", items, height, width).SerializeToString())
    labels = [group.group_label for group in message.annotation_group]
    assert labels == list(dict.fromkeys(box.label for box in items))
    for group in message.annotation_group:
        expected = [box for box in items if box.label == group.group_label]
        assert [item.instance_id for item in group.annotation] == list(range(len(expected)))
        for item, box in zip(group.annotation, expected, strict=True):
            got = item.bbox
            sides = np.float32([box.xmin, box.ymin, box.xmax, box.ymax]) / np.float32([width, height, width, height])
            assert [got.xmin, got.ymin, got.xmax, got.ymax] == sides.tolist()
            assert got.difficult == box.difficult


class TestCheck:
    def test_a_good_one(self, tmp_path: Path) -> None:
        write_lmdb(open_voc([some_voc(tmp_path / "voc")], "trainval"), tmp_path / "out")
        report = check_lmdb(tmp_path / "out")
        assert report["problems"] == []
        assert (report["records"], report["objects"], report["images_empty"]) == (5, 10, 1)
        assert [(c["label"], c["name"], c["objects"]) for c in report["classes"]] == [
            (1, "circle", 4), (2, "square", 3), (3, "triangle", 3),
        ]  # fmt: skip
        assert [c["images"] for c in report["classes"]] == [3, 3, 3]
        assert (report["heights"], report["widths"], report["num_classes"]) == ([48, 48], [80, 80], 4)

    def test_all_that_may_be_wrong(self, tmp_path: Path) -> None:
        image = encoded(pixels(0))
        good = Box(1, 1, 2, 30, 40, False)

        def value(**sides: float) -> bytes:
            message = annotated_datum(image, [good], *SIZE)
            for side, place in sides.items():
                setattr(message.annotation_group[0].annotation[0].bbox, side, place)
            return message.SerializeToString()

        raw = caffe_pb2.Datum(channels=3, height=2, width=4, data=bytes(24))

        def of(image: bytes, *boxes: Box) -> bytes:
            return annotated_datum(image, boxes, *SIZE).SerializeToString()

        small = caffe_pb2.Datum(channels=3, height=9, width=9, data=b"1")
        cases = {
            b"00000000_good": (value(), ""),
            b"00000001_raw": (caffe_pb2.AnnotatedDatum(datum=raw).SerializeToString(), ""),
            b"00000002_reversed": (value(xmin=0.9), "is reversed"),
            b"00000003_empty": (value(ymin=0.25, ymax=0.25), "is empty"),
            b"00000004_outside": (value(xmax=1.25), "extends beyond the image"),
            b"00000005_nan": (value(ymin=float("nan")), "has NaN or Inf"),
            b"00000006_label": (of(image, good._replace(label=4)), "got 4"),
            b"00000007_background": (of(image, good._replace(label=0)), "got 0"),
            b"00000008_undecodable": (of(image[:300], good), "decoded"),
            b"00000009_unparsable": (b"\xff\xff\xff", "parsed"),
            b"00000010_nothing": (b"", "has no image"),
            b"00000011_grey": (of(encoded(pixels(0)[:, :, 0])), "1 channel of 8 bits"),
            b"00000012_size": (caffe_pb2.AnnotatedDatum(datum=small).SerializeToString(), "3x9x9"),
            b"00000013_good": (value(), "an earlier record has the same name"),
            b"00000014_deep": (of(encoded(pixels(0).astype(np.uint16) * 257, ".png")), "3 channels of 16 bits"),
            b"00000015_raw_grey": (
                caffe_pb2.AnnotatedDatum(datum=caffe_pb2.Datum(channels=1, height=2, width=4, data=bytes(8)))
                .SerializeToString(),
                "Caffe stops at it",
            ),
            b"x": (value(), "the key must be"),
            b"y\xff\x1b[31m": (value(), "the key must be"),
        }  # fmt: skip
        (tmp_path / "bad").mkdir()
        with LmdbWriter(tmp_path / "bad") as writer:
            writer.put([(key, value) for key, (value, _) in cases.items()])
        (tmp_path / "bad" / "labelmap.prototxt").write_text(LabelMap.of_names(NAMES).to_prototxt())
        report = check_lmdb(tmp_path / "bad")
        found = {problem["record"]: problem["what"] for problem in report["problems"]}
        expected = {
            key.decode("utf-8", "replace").replace("\x1b", "?"): what for key, (_, what) in cases.items() if what
        }
        assert found.keys() == expected.keys()
        assert all(what in found[key] for key, what in expected.items())
        assert len(report["problems"]) == len(expected)

    def test_images_are_read_in_colour(self) -> None:
        """Grey ones, and ones of 16 bits, as Caffe reads them for a net that has three means."""
        image = pixels(0)
        grey, deep = image[:, :, 0], image.astype(np.uint16) * 257
        read = [
            decode_datum(caffe_pb2.Datum(encoded=True, data=encoded(one, ".png"))) for one in (image, grey, deep)
        ]  # fmt: skip
        for found, expected in zip(read, (image, np.repeat(grey[:, :, None], 3, axis=2), image), strict=True):
            assert found.dtype == np.uint8
            np.testing.assert_array_equal(found, expected)
        with pytest.raises(DatasetError, match="1 channel of 8 bits"):
            decode_datum(caffe_pb2.Datum(channels=1, height=2, width=4, data=bytes(8)))

    def test_drawing(self, tmp_path: Path) -> None:
        import cv2

        write_lmdb(open_voc([some_voc(tmp_path / "voc", 9)], "trainval"), tmp_path / "out")
        check_lmdb(tmp_path / "out", draw=3, out=tmp_path / "drawn")
        names = sorted(path.name for path in (tmp_path / "drawn").iterdir())
        assert names == ["00000000.png", "00000004.png", "00000008.png", "drawn.txt"]
        drawn = cv2.imread(str(tmp_path / "drawn" / "00000004.png"))
        source = cv2.imread(str(tmp_path / "voc" / "JPEGImages" / "p4.jpg"))
        assert (drawn != source).any()
        last = cv2.imread(str(tmp_path / "drawn" / "00000008.png"))
        np.testing.assert_array_equal(last, cv2.imread(str(tmp_path / "voc" / "JPEGImages" / "p8.jpg")))
        with pytest.raises(OutputError, match="exists already"):
            check_lmdb(tmp_path / "out", draw=3, out=tmp_path / "drawn")


class TestCommand:
    def test_the_way_there_and_back(self, command: Command, tmp_path: Path) -> None:
        root = some_voc(tmp_path / "voc")
        path = root / "Annotations" / "p1.xml"
        path.write_text(path.read_text().replace("<xmax>12</xmax>", "<xmax>0</xmax>"))
        result = command("lmdb", "voc", root, "-o", tmp_path / "out")
        assert result.status == 0
        assert (
            result.err
            == f"ssdlite-caffe: {path}:7: box (1, 5, 0, 25) is reversed: xmin > xmax or ymin > ymax; object skipped\n"
        )
        written = f"5 of 5 images with 9 objects (circle 4, square 2, triangle 3) are in {tmp_path / 'out'}"
        assert result.out == f"{written}; 1 object skipped\n"
        checked = command("lmdb", "check", tmp_path / "out", "--strict")
        assert (checked.status, checked.err) == (0, "")
        assert "5 records, 9 objects (3 difficult), 1 images without any" in checked.out
        with LmdbWriter(tmp_path / "out") as writer:
            writer.put([(b"z", b"")])
        assert command("lmdb", "check", tmp_path / "out").status == 0
        worse = command("lmdb", "check", tmp_path / "out", "--strict", "--json")
        assert worse.status == 1
        assert [p["record"] for p in json.loads(worse.out)["problems"]] == ["z", "z"]

    def test_json_of_coco(self, command: Command, tmp_path: Path) -> None:
        images, path = write_coco(tmp_path, coco_content())
        result = command(
            "lmdb", "coco", images, path, "-o", tmp_path / "out", "--shuffle", "--seed", 3, "-j", 2, "--json"
        )
        assert (result.status, result.err) == (0, "")
        assert json.loads(result.out) == json.loads((tmp_path / "out" / "lmdb.json").read_text())
        assert json.loads(result.out)["seed"] == 3

    def test_background_first_shifts_no_class(self, command: Command, tmp_path: Path) -> None:
        root = some_voc(tmp_path / "voc")
        kinds = {
            "a.txt": "BACKGROUND\ncircle\nsquare\ntriangle\n",
            "b.txt": "circle\nsquare\ntriangle\n",
            "c.pbtxt": "".join(f'item {{ id: {i} name: "{n}" }} ' for i, n in enumerate(("_background_", *NAMES))),
            "d.prototxt": "".join(f'item {{ label: {i} name: "{n}" }} ' for i, n in enumerate(("BackGround", *NAMES))),
        }
        for name, text in kinds.items():
            (tmp_path / name).write_text(text)
            out = tmp_path / f"out-{name}"
            result = command("lmdb", "voc", root, "-l", tmp_path / name, "-o", out, "--strict", "--json")
            assert result.status == 0
            report = json.loads(result.out)
            assert report["num_classes"] == 4
            assert [(item["label"], item["name"], item["objects"]) for item in report["classes"]] == [
                (1, "circle", 4), (2, "square", 3), (3, "triangle", 3),
            ]  # fmt: skip

    def test_strict_allows_what_the_format_means_to_be_skipped(self, command: Command, tmp_path: Path) -> None:
        content = coco_content()
        content["categories"].append({"id": 0, "name": "_background_", "supercategory": None})
        images, path = write_coco(tmp_path, content)
        result = command("lmdb", "coco", images, path, "-o", tmp_path / "out", "--strict")
        assert result.status == 0
        assert result.out.startswith("4 of 4 images with 6 objects (circle 3, square 3) are in ")
        assert result.out.endswith("out\n")
        assert (
            "categories[2]: '_background_' is background, which always has class id 0; category skipped" in result.err
        )
        content["annotations"][0]["category_id"] = 0
        path.write_text(json.dumps(content))
        failed = command("lmdb", "coco", images, path, "-o", tmp_path / "no", "--strict")
        assert failed.status == 1
        assert "1 problem in the data:" in failed.err
        assert not (tmp_path / "no").exists()

    def test_classes_without_an_object_are_named(self, command: Command, tmp_path: Path) -> None:
        content = coco_content()
        content["categories"] += [{"id": 10 + i, "name": f"rare {i}"} for i in range(9)]
        images, path = write_coco(tmp_path, content)
        said = command("lmdb", "coco", images, path, "-o", tmp_path / "out").err
        assert said.startswith("ssdlite-caffe: classes without an object: 'rare 0', 'rare 1', ")
        assert said.endswith("'rare 7' and 1 more\n")
        labels = tmp_path / "out" / "labelmap.prototxt"
        assert command("lmdb", "coco", images, path, "-l", labels, "-o", tmp_path / "again").err == ""

    def test_many_problems_are_counted_by_reason(self, command: Command, tmp_path: Path) -> None:
        root = some_voc(tmp_path / "voc")
        with (root / "ImageSets" / "Main" / "trainval.txt").open("a") as names:
            names.write("".join(f"gone{number:02}\n" for number in range(60)) + "p1\n")
        result = command("lmdb", "voc", root, "-o", tmp_path / "out")
        assert result.out.startswith("5 of 66 images with 10 objects ")
        assert result.out.endswith("; 61 images skipped\n")
        lines = result.err.splitlines()
        assert len(lines) == 50 + 1 + 2
        assert lines[50].endswith("... and 11 more; --json lists all")
        assert lines[51].startswith("ssdlite-caffe: 60 times /")
        assert lines[51].endswith("/voc/JPEGImages has no image 'goneN'; image skipped")
        assert lines[52].endswith("1 times 'JPEGImages/pN.jpg' is listed twice; image skipped")
        summary = json.loads((tmp_path / "out" / "lmdb.json").read_text())
        assert (summary["images_skipped"], summary["objects_skipped"], len(summary["problems"])) == (61, 0, 61)

    def test_strict_lists_every_problem(self, refused: Command, tmp_path: Path) -> None:
        root = some_voc(tmp_path / "voc")
        with (root / "ImageSets" / "Main" / "trainval.txt").open("a") as names:
            names.write("".join(f"gone{number:02}\n" for number in range(60)))
        said = refused("lmdb", "voc", root, "-o", tmp_path / "out", "--strict").err
        assert all(f"gone{number:02}" in said for number in range(60))

    def test_refused(self, refused: Command, tmp_path: Path) -> None:
        root = some_voc(tmp_path / "voc")
        (root / "JPEGImages" / "p1.jpg").write_bytes(b"")
        said = refused("lmdb", "voc", root, "-o", tmp_path / "out", "--strict").err
        assert f"{root / 'JPEGImages' / 'p1.jpg'}: empty (0 bytes); image skipped" in said
        assert "has no folder JPEGImages" in refused("lmdb", "voc", tmp_path, "-o", tmp_path / "out").err
        assert "exists already" in refused("lmdb", "voc", root, "-o", root).err
        assert "no such file" in refused("lmdb", "coco", root, tmp_path / "no.json", "-o", tmp_path / "out").err.lower()
        assert "it has no data.mdb" in refused("lmdb", "check", tmp_path).err
        wrong = ("lmdb", "voc", root, "-o", tmp_path / "out", "--label-map", tmp_path / "no.prototxt")
        assert "cannot read" in refused(*wrong).err

    @pytest.mark.parametrize(
        "options",
        [
            ["--resize", "300"], ["--resize", "0x3"], ["--resize", "3x3", "--min-dim", "2"],
            ["--min-dim", "9", "--max-dim", "8"], ["--quality", "0"], ["--list", "a", "--split", "b"], ["--jobs", "-1"],
        ],
        ids=" ".join,
    )  # fmt: skip
    def test_wrong_usage(self, command: Command, tmp_path: Path, options: list[str]) -> None:
        assert command("lmdb", "voc", tmp_path, "-o", tmp_path / "out", *options).status == 2
        assert list(tmp_path.iterdir()) == []

    def test_check_draws_both_or_neither(self, command: Command, tmp_path: Path) -> None:
        assert command("lmdb", "check", tmp_path, "--draw", 3).status == 2
        assert command("lmdb", "check", tmp_path, "-o", tmp_path / "x").status == 2


def test_a_turned_grey_image_is_not_turned() -> None:
    """Caffe makes no EXIF turn, and the boxes belong to the pixels as they are stored."""
    import io

    from PIL import Image

    turned = Image.fromarray(np.zeros((4, 12), np.uint8))
    exif = turned.getexif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    turned.save(stream, "JPEG", exif=exif)
    assert decode_datum(caffe_pb2.Datum(encoded=True, data=stream.getvalue())).shape == (4, 12, 3)
