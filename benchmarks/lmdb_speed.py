"""How fast is an LMDB written, and which share of the time is our own code?

Images/s on one core: for `lmdb voc` with and without decoding every image, for reading the files, for decoding each
image once and, if Caffe has been built, for Caffe's own functions in the order in which convert_annoset calls them
(benchmarks/annoset.cpp). The records of the latter are compared with ours byte by byte.

Processor time is measured, which depends less on other work on the machine than elapsed time. The data set is enlarged
with links to its files.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import common

from ssdlite_caffe.caffe.prefix import cache_folder, find_prefix
from ssdlite_caffe.coco.label_map import LabelMap
from ssdlite_caffe.data.encoded import ImageEncoding
from ssdlite_caffe.data.lmdb_store import LmdbReader, LmdbWriter
from ssdlite_caffe.data.lmdb_write import Order, write_lmdb
from ssdlite_caffe.data.voc import VocDataset, open_voc, read_xml
from ssdlite_caffe.imports import import_opencv

NAMES = ("RBC", "WBC", "Platelets")
HERE = Path(__file__).resolve().parent


def repeated(data: Path, root: Path, split: str, copies: int) -> int:
    """Make a VOC folder with `copies` links to each image of a split; the number of links."""
    names = (data / "ImageSets" / "Main" / f"{split}.txt").read_text("utf-8").split()
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    listed = [(f"{copy}_{name}", name) for copy in range(copies) for name in names]
    for link, name in listed:
        (root / "JPEGImages" / f"{link}.jpg").symlink_to(data / "JPEGImages" / f"{name}.jpg")
        (root / "Annotations" / f"{link}.xml").symlink_to(data / "Annotations" / f"{name}.xml")
    (root / "ImageSets" / "Main" / "all.txt").write_text("".join(f"{link}\n" for link, _ in listed))
    (root / "list.txt").write_text("".join(f"JPEGImages/{link}.jpg Annotations/{link}.xml\n" for link, _ in listed))
    (root / "labelmap.prototxt").write_text(LabelMap.of_names(NAMES).to_prototxt())
    return len(listed)


def processor_seconds(action: Callable[[], object]) -> float:
    """Processor time of an action, child processes included."""
    before = time.process_time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    action()
    after = time.process_time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    children = [getattr(after[1], field) - getattr(before[1], field) for field in ("ru_utime", "ru_stime")]
    return float(after[0] - before[0] + sum(children))


def build_annoset(folder: Path) -> Path | None:
    """Compile annoset.cpp with the built Caffe; None if Caffe has not been built."""
    prefix = find_prefix()
    builds = sorted((cache_folder() / "build").glob("*/generated"), key=lambda path: path.stat().st_mtime)
    sources = sorted((cache_folder() / "sources").glob("*/include"))
    if prefix is None or not builds or not sources:
        return None
    ours = HERE.parent / "src_cuda"
    program = folder / "annoset"
    subprocess.run(
        ["g++", "-O2", "-std=c++17", "-w", "-DCPU_ONLY", "-DUSE_OPENCV", "-DUSE_LMDB", HERE / "annoset.cpp",
         "-include", ours / "compat" / "names.hpp", "-I", builds[-1], "-I", ours / "include", "-I", sources[-1],
         "-I/usr/include/opencv4", "-I/usr/include/hdf5/serial", f"-L{prefix / 'lib'}", "-lcaffe",
         f"-Wl,-rpath,{prefix / 'lib'}", "-lglog", "-lgflags", "-lprotobuf", "-lboost_system", "-lboost_thread",
         "-o", program],
        check=True,
    )  # fmt: skip
    return program


class Sides:
    """The functions to measure; each call returns processor seconds."""

    def __init__(self, root: Path, out: Path, annoset: Path | None) -> None:
        self._root, self._out, self._number = root, out, 0
        self._annoset = annoset

    def all(self) -> dict[str, Callable[[], float]]:
        sides: dict[str, Callable[[], float]] = {
            "lmdb voc": lambda: self.ours(ImageEncoding()),
            "lmdb voc --no-decode": lambda: self.ours(ImageEncoding(decode=False)),
            "reading the files": lambda: processor_seconds(self.read),
            "decoding each image once": lambda: processor_seconds(self.decode),
            "of lmdb voc: checking each image": lambda: processor_seconds(self.reduced),
            "of lmdb voc: reading XML": lambda: processor_seconds(self.parse),
            "of lmdb voc: LMDB": lambda: processor_seconds(self.store),
        }
        if self._annoset is not None:
            sides["convert_annoset"] = lambda: processor_seconds(self.peer)
        return sides

    def new(self) -> Path:
        self._number += 1
        return self._out / str(self._number)

    def data(self) -> VocDataset:
        return open_voc([self._root], "all", label_map=LabelMap.of_names(NAMES))

    def ours(self, shape: ImageEncoding) -> float:
        out = self.new()
        return processor_seconds(lambda: write_lmdb(self.data(), out, shape, Order(jobs=1)))

    def peer(self) -> Path:
        assert self._annoset is not None
        out = self.new()
        subprocess.run(
            [self._annoset, self._root, self._root / "list.txt", self._root / "labelmap.prototxt", out],
            check=True, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        return out

    def read(self) -> None:
        for entry in self.data().entries:
            assert isinstance(entry.annotations, Path)
            entry.path.read_bytes()
            entry.annotations.read_bytes()

    def decode(self) -> None:
        cv2 = import_opencv()
        for entry in self.data().entries:
            cv2.imread(str(entry.path))

    def reduced(self) -> None:
        cv2 = import_opencv()
        for entry in self.data().entries:
            cv2.imread(str(entry.path), cv2.IMREAD_REDUCED_GRAYSCALE_8)

    def parse(self) -> None:
        for entry in self.data().entries:
            assert isinstance(entry.annotations, Path)
            read_xml(entry.annotations)

    def store(self) -> None:
        out = self.new()
        out.mkdir()
        records = [(f"{i:08d}".encode(), entry.path.read_bytes()) for i, entry in enumerate(self.data().entries)]
        with LmdbWriter(out) as writer:
            writer.put(records)


def compare(ours: Path, theirs: Path) -> dict[str, int]:
    """Numbers of records that are byte-identical and of those that are not."""
    with LmdbReader(ours) as one, LmdbReader(theirs) as other:
        left, right = dict(iter(one)), dict(iter(other))
    assert left.keys() == right.keys()
    same = sum(left[key] == right[key] for key in left)
    return {"same": same, "other": len(left) - same}


def main() -> None:
    parser = common.parser(__doc__, repetitions=5)
    parser.add_argument("--data", type=Path, default=common.default_images(), help="the bccd data set, VOC layout")
    parser.add_argument("--copies", type=int, default=4, help="number of links to each image")
    options = parser.parse_args()
    if options.data is None or not (options.data / "ImageSets" / "Main" / "trainval.txt").is_file():
        sys.exit("the bccd data set was not found; give its folder with --data")
    with tempfile.TemporaryDirectory() as scratch:
        root, out = Path(scratch) / "voc", Path(scratch) / "out"
        images = repeated(options.data.resolve(), root, "trainval", options.copies)
        sides = Sides(root, out, build_annoset(Path(scratch)))
        out.mkdir()
        found = common.alternate(sides.all(), options.repetitions)
        result: dict[str, Any] = {"machine": common.machine("opencv", "lmdb", "pillow"), "images": images}
        result["seconds"] = {name: common.Spread.of(values) for name, values in found.items()}
        if "convert_annoset" in found:
            write_lmdb(sides.data(), out / "ours")
            result["records"] = compare(out / "ours", sides.peer())
    common.report(result, _text(result), as_json=options.json)


def _text(result: dict[str, Any]) -> Iterator[str]:
    images, seconds = result["images"], result["seconds"]
    yield f"{images} images; least / median / most of the repetitions\n"
    rows = [
        [name, (common.Spread(*(1e6 * t / images for t in vars(spread).values()))).text("{:.0f}"),
         f"{images / spread.least:.0f}"]
        for name, spread in seconds.items()
    ]  # fmt: skip
    yield common.table(["what", "processor time for an image, us", "images/s on one core"], rows)
    total = seconds["lmdb voc"].least
    libraries = sum(
        seconds[name].least
        for name in ("of lmdb voc: checking each image", "of lmdb voc: LMDB")
    )  # fmt: skip
    yield f"\nour own code, including XML and image headers: {1 - libraries / total:.0%} of lmdb voc"
    if "records" in result:
        yield f"records byte-identical with those of Caffe's functions: {result['records']['same']}; different: " \
              f"{result['records']['other']} (lmdb voc skips empty boxes)"  # fmt: skip


if __name__ == "__main__":
    main()
