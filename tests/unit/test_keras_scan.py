"""What was found in the images, kept for the next start: used where nothing has changed, and never trusted."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdlite_caffe.coco.label_map import LabelMap
from ssdlite_caffe.data.encoded import ImageEncoding
from ssdlite_caffe.data.lmdb_write import Order, write_lmdb
from ssdlite_caffe.data.toy_scenes import ShapesOptions, make_shapes
from ssdlite_caffe.data.voc import open_voc
from ssdlite_caffe.errors import DatasetError, TrainingError
from ssdlite_caffe.keras.feed import DataSource, TrainingData
from ssdlite_caffe.keras.scan import Objects, ObjectTable
from ssdlite_caffe.keras.scan_file import read_scan

Start = Callable[..., TrainingData]
IMAGES = 6


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are compared in several parts, as those of a large set."""
    monkeypatch.setattr("ssdlite_caffe.keras.scan._AT_ONCE", 4)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    make_shapes(tmp_path / "data" / "voc", ShapesOptions(IMAGES, 2, side=64))
    return tmp_path / "data" / "voc"


@pytest.fixture
def coco(tmp_path: Path) -> tuple[Path, Path]:
    """The annotations, and the folder of the images."""
    folder = tmp_path / "data" / "coco"
    make_shapes(folder, ShapesOptions(IMAGES, 2, "coco", "train", side=64))
    return folder / "annotations" / "instances_train.json", folder / "train"


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def start(tmp_path: Path, said: list[str]) -> Start:
    """Start with a data set, and keep what was found."""

    def run(data: Path, images: Path | None = None, labels: LabelMap | None = None) -> TrainingData:
        said.clear()
        kept = tmp_path / "scan.npz"
        source = DataSource(data, images=images, labels=labels, kept=kept, say=said.append)
        found = source.scan()
        source.keep()
        return found

    return run


@pytest.fixture
def annotations_are_not_read(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From now on, no data set can be opened."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the annotations are read")

    return lambda: monkeypatch.setattr("ssdlite_caffe.keras.feed.open_images", refuse)


def content(data: TrainingData) -> list[Any]:
    """All that a training sees of its data."""
    objects = [[part.tolist() for part in data.objects[number]] for number in range(len(data))]
    pixels = [data.pixels(number).tobytes() for number in range(len(data))]
    dtypes = [str(part.dtype) for part in data.objects.all]
    return [data.labels, data.names, objects, dtypes, pixels, [str(problem) for problem in data.problems]]


def later(path: Path) -> None:
    """Give a file another time, as a change of its content does."""
    known = path.stat()
    os.utime(path, ns=(known.st_atime_ns, known.st_mtime_ns + 10**9))


@pytest.mark.parametrize("kind", ["voc", "coco"])
def test_the_second_start_reads_nothing(
    request: pytest.FixtureRequest, kind: str, start: Start, said: list[str],
    annotations_are_not_read: Callable[[], None],
) -> None:  # fmt: skip
    """Neither images nor annotations: with an image that cannot be read, and an object that cannot be used."""
    data = (request.getfixturevalue("voc"),) if kind == "voc" else request.getfixturevalue("coco")
    images = data[-1] / "JPEGImages" if kind == "voc" else data[-1]
    sorted(images.iterdir())[1].write_bytes(b"no image")
    first = start(*data)
    assert (first.decoded, len(first), len(first.problems)) == (IMAGES, IMAGES - 1, 1)
    annotations_are_not_read()
    second = start(*data)
    assert (second.decoded, said) == (0, [])
    assert content(second) == content(first)


def test_an_lmdb_is_known_as_a_whole(voc: Path, start: Start, tmp_path: Path) -> None:
    for count in (3, 4):
        shutil.rmtree(tmp_path / "lmdb", ignore_errors=True)
        split = voc / "ImageSets" / "Main" / "trainval.txt"
        split.write_text("".join(f"{number:06d}\n" for number in range(count)))
        write_lmdb(open_voc([voc], "trainval"), tmp_path / "lmdb", ImageEncoding(), Order(False, 0, 1))
        found = []
        for decoded in (count, 0):
            data = start(tmp_path / "lmdb")
            assert (data.decoded, len(data)) == (decoded, count)
            found.append(content(data))
            del data  # one process cannot open an LMDB twice
        assert found[0] == found[1]


class TestWhatHasChanged:
    """Only that is read again, and what is found then is what a first start finds."""

    def fresh(self, data: Path, images: Path | None = None, labels: LabelMap | None = None) -> list[Any]:
        return content(DataSource(data, images=images, labels=labels).scan())

    def test_an_image(self, voc: Path, start: Start, said: list[str]) -> None:
        start(voc)
        image = voc / "JPEGImages" / "000002.jpg"
        shutil.copy(voc / "JPEGImages" / "000003.jpg", image)
        later(image)
        again = start(voc)
        assert (again.decoded, content(again)) == (1, self.fresh(voc))
        assert said == [f"1 of {IMAGES} images were read: they are new, have changed, or could not be read before"]
        image.write_bytes(image.read_bytes()[:100])
        again = start(voc)
        assert (len(again), content(again)) == (IMAGES - 1, self.fresh(voc))
        shutil.copy(voc / "JPEGImages" / "000003.jpg", image)
        again = start(voc)
        assert (again.decoded, content(again)) == (1, self.fresh(voc))

    def test_annotations(self, voc: Path, coco: tuple[Path, Path], start: Start) -> None:
        start(voc)
        xml = voc / "Annotations" / "000002.xml"
        xml.write_text(xml.read_text().replace("<difficult>0", "<difficult>1", 1))
        again = start(voc)
        assert (again.decoded, content(again)) == (0, self.fresh(voc))
        assert again.objects[2].ignored[0]
        xml.write_text("<annotation>")
        again = start(voc)
        assert (len(again), content(again)) == (IMAGES - 1, self.fresh(voc))
        start(*coco)
        known = json.loads(coco[0].read_text())
        known["annotations"] = known["annotations"][1:]
        known["images"][3]["width"] += 1
        coco[0].write_text(json.dumps(known))
        again = start(*coco)
        assert (again.decoded, content(again)) == (0, self.fresh(*coco))
        assert len(again) == IMAGES - 1

    def test_the_list_of_images(self, voc: Path, start: Start) -> None:
        split = voc / "ImageSets" / "Main" / "trainval.txt"
        lines = split.read_text().splitlines()
        split.write_text("\n".join(lines[:4]))
        assert start(voc).decoded == 4
        split.write_text("\n".join(reversed(lines[1:])))
        again = start(voc)
        assert (again.decoded, content(again)) == (2, self.fresh(voc))

    def test_a_file_beside_them(self, voc: Path, start: Start) -> None:
        """It makes a name ambiguous."""
        start(voc)
        shutil.copy(voc / "JPEGImages" / "000002.jpg", voc / "JPEGImages" / "000002.png")
        again = start(voc)
        assert (again.decoded, content(again)) == (0, self.fresh(voc))
        assert any("ambiguous" in str(problem) for problem in again.problems)

    def test_classes(self, voc: Path, start: Start) -> None:
        start(voc)
        for names in (("triangle", "square", "circle"), ("circle",)):
            labels = LabelMap.of_names(names)
            again = start(voc, labels=labels)
            assert (again.decoded, content(again)) == (0, self.fresh(voc, labels=labels))

    def test_the_place(self, voc: Path, start: Start, tmp_path: Path) -> None:
        """Times are the same after a move, so that only an image without a size is read again; texts are new."""
        (voc / "JPEGImages" / "000001.jpg").write_bytes(b"no image")
        start(voc)
        voc.rename(tmp_path / "other")
        again = start(tmp_path / "other")
        assert (again.decoded, content(again)) == (1, self.fresh(tmp_path / "other"))
        assert "other" in str(again.problems[0])

    def test_the_working_directory(
        self, voc: Path, start: Start, monkeypatch: pytest.MonkeyPatch, annotations_are_not_read: Callable[[], None]
    ) -> None:
        monkeypatch.chdir(voc.parent)
        start(Path("voc"))
        annotations_are_not_read()
        assert start(voc).decoded == 0

    def test_an_image_is_exchanged_during_the_training(self, voc: Path, start: Start, tmp_path: Path) -> None:
        data = start(voc)
        make_shapes(tmp_path / "large", ShapesOptions(1, 3, side=80))
        shutil.copy(tmp_path / "large" / "JPEGImages" / "000000.jpg", voc / "JPEGImages" / "000002.jpg")
        with pytest.raises(DatasetError, match=r"000002\.jpg has changed since .*: it was 64x64 and is 80x80"):
            data.pixels(2)


def tampered(**changes: Any) -> Callable[[Path], None]:
    """Replace arrays of the file; a function gets the old one, and None removes it."""

    def change(path: Path) -> None:
        with np.load(path) as file:
            arrays: dict[str, Any] = dict(file)
        for name, value in changes.items():
            arrays[name] = value(arrays[name]) if callable(value) else value
        np.savez(path, **{name: array for name, array in arrays.items() if array is not None})

    return change


def header(**changes: Any) -> Callable[[Path], None]:
    """Replace parts of the header."""

    def change(old: Any) -> Any:
        return np.frombuffer(json.dumps({**json.loads(old.tobytes()), **changes}).encode(), np.uint8)

    return tampered(header=change)


def set_to(place: Any, value: Any) -> Callable[[Any], Any]:
    def change(old: Any) -> Any:
        new = old.copy()
        new[place] = value
        return new

    return change


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"no archive"),
        lambda path: path.write_bytes(path.read_bytes()[:-200]),
        lambda path: path.write_bytes(path.read_bytes()[:1000] + bytes(50) + path.read_bytes()[1050:]),
        lambda path: path.write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,)}"),
        tampered(header=None),
        tampered(header=lambda _: np.frombuffer(b"{", np.uint8)),
        tampered(header=lambda _: np.frombuffer(b"[" * 100000, np.uint8)),
        tampered(header=lambda _: np.array({"a": 1}, object)),
        header(labels=[["none_of_the_above", "background"], ["a", "a"], ["a", "a"]]),
        header(labels=[["none_of_the_above", "background"]]),
        header(problems=[["a", "b", "all removed"]]),
        header(problems=[3]),
        tampered(boxes=None),
        tampered(boxes=lambda old: old[1:]),
        tampered(boxes=lambda old: old.astype(np.float64)),
        tampered(boxes=set_to((0, 0), np.nan)),
        tampered(boxes=set_to((0, 3), 1.5)),
        tampered(boxes=lambda old: old[:, ::-1]),
        tampered(labels=set_to(0, 9)),
        tampered(labels=set_to(0, 0)),
        tampered(counts=set_to(0, -1)),
        tampered(counts=lambda old: old[None]),
        tampered(sizes=set_to((0, 0), 0)),
        tampered(sizes=set_to(0, -5)),
        tampered(sizes=lambda old: old[1:]),
        tampered(stamps=lambda old: old[1:]),
        tampered(note_stamps=lambda old: old[1:]),
        tampered(files_lengths=lambda old: -old),
        tampered(names_lengths=lambda old: old + 1),
        tampered(files=lambda old: np.frombuffer(b"../" + old.tobytes()[3:], np.uint8)),
        tampered(files=lambda old: np.frombuffer(b"/" + old.tobytes()[1:], np.uint8)),
    ],
)
def test_a_damaged_file_is_one_line(
    voc: Path, start: Start, said: list[str], tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    """All images are read again, and the file is written anew."""
    first = start(voc)
    damage(tmp_path / "scan.npz")
    with pytest.raises(TrainingError, match="is damaged: "):
        read_scan(tmp_path / "scan.npz")
    again = start(voc)
    assert (again.decoded, content(again)) == (IMAGES, content(first))
    (line,) = said
    assert line.startswith(f"{tmp_path / 'scan.npz'} is damaged: ")
    assert line.endswith("; all images are read again")
    assert "\n" not in line
    assert start(voc).decoded == 0


def test_of_another_version(voc: Path, start: Start, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have read other images; nothing is said, since nothing is wrong."""
    start(voc)
    monkeypatch.setattr("ssdlite_caffe.keras.scan_file.__version__", "0")
    assert (start(voc).decoded, said) == (IMAGES, [])


def test_it_is_not_kept_on_a_full_disk(voc: Path, said: list[str], tmp_path: Path) -> None:
    """The training goes on."""
    (tmp_path / "scan.npz").mkdir()
    source = DataSource(voc, kept=tmp_path / "scan.npz", say=said.append)
    assert len(source.scan()) == IMAGES
    source.keep()
    assert said == [f"what was found in the images is not kept: {tmp_path / 'scan.npz'} is a folder, not a file"]


def test_names_beyond_ascii(voc: Path, start: Start, annotations_are_not_read: Callable[[], None]) -> None:
    (voc / "JPEGImages" / "000002.jpg").rename(voc / "JPEGImages" / "täg.jpg")
    (voc / "Annotations" / "000002.xml").rename(voc / "Annotations" / "täg.xml")
    split = voc / "ImageSets" / "Main" / "trainval.txt"
    split.write_text(split.read_text().replace("000002", "täg"), "utf-8")
    first = start(voc)
    annotations_are_not_read()
    assert content(start(voc)) == content(first)
    assert "JPEGImages/täg.jpg" in first.names


def test_a_table_of_objects() -> None:
    def some(count: int) -> Objects:
        return Objects(np.full((count, 4), count, np.float32), np.full(count, count, np.int32), np.ones(count, bool))

    counts = [0, 2, 0, 3, 0]
    table = ObjectTable.of([some(count) for count in counts])
    assert [len(one.labels) for one in table] == [len(one.labels) for one in table[:]] == counts
    assert [one.labels.tolist() for one in table[1:4]] == [[2, 2], [], [3, 3, 3]]
    assert table[-2].boxes.shape == (3, 4)
    with pytest.raises(IndexError):
        table[5]
    assert len(ObjectTable.of([])) == 0


def test_progress(voc: Path, tmp_path: Path) -> None:
    """What is done, how many images of how many."""
    lines: list[tuple[str, int, int]] = []
    for what in ("reading images", "comparing images"):
        source = DataSource(voc, kept=tmp_path / "scan.npz", report=lambda *line: lines.append(line))
        source.scan()
        source.keep()
        assert lines[-1] == (what, IMAGES, IMAGES)
