"""Hostile arrays, archives, images, annotations, LMDBs and caffemodels: no code runs, nothing large is unpacked."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ssdlite_caffe.data.lmdb_store import LmdbReader
from ssdlite_caffe.data.voc import read_xml
from ssdlite_caffe.errors import DatasetError, DeviceError, PrototxtError
from ssdlite_caffe.prototxt.binary import blob_to_array, read_caffemodel
from ssdlite_caffe.tools.device_outputs import read_outputs
from tests.attacks import data_attacks as attack

Harmless = Callable[[Path], str]


def test_that_the_attack_is_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = attack.pickle_in_place_of_an_array(tmp_path) / "tensors" / f"{attack.TENSOR}.npy"
    pickle.loads(file.read_bytes()).close()
    assert (tmp_path / attack.MARKER).exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (attack.pickle_in_place_of_an_array, f"{attack.TENSOR}: the magic string is not correct"),
        (attack.array_of_pickles, "holds pickled objects, which are never loaded"),
        (attack.header_that_claims_the_world, "bytes, its shape needs 4398046511232"),
        (attack.manifest_in_each_other, "manifest.json is not JSON"),
        (attack.link_to_another_file, "is a link or a special file, not a regular file"),
    ],
)
def test_weights(make: Callable[[Path], Path], message: str, harmless: Harmless, tmp_path: Path) -> None:
    assert message in harmless(make(tmp_path))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (attack.device_array_of_pickles, "has the dtype object; floats and integers are read"),
        (attack.device_archive_that_unpacks, "has 50000000 bytes, more than mbox_loc"),
    ],
)
def test_outputs_of_devices(make: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=message):
        read_outputs(make(tmp_path), {"mbox_loc": (1, 8), "mbox_conf": (1, 6)}, ("mbox_loc", "mbox_conf"), [])


def test_an_image_that_unpacks(tmp_path: Path) -> None:
    """In a process of its own: OpenCV reads its limit once, when it is loaded."""
    path = attack.image_of_a_gigapixel(tmp_path / "bomb.png")
    code = f"""
from pathlib import Path
from ssdlite_caffe.errors import ImageError
from ssdlite_caffe.runtimes.images import read_image
try:
    read_image(Path({str(path)!r}))
except ImageError as error:
    print(error)
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENCV")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert "bomb.png as an image: pixels <=" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (attack.xml_of_nothing, r"larger than 16\.8 MB"),
        (attack.xml_whose_entities_multiply, "DOCTYPE declarations are not allowed"),
        (attack.xml_that_reads_another_file, "DOCTYPE declarations are not allowed"),
    ],
)
def test_annotations(make: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=message):
        read_xml(make(tmp_path / "a.xml"))


@pytest.mark.parametrize("keep", [0, 100, 5000, 9000, 30_000])
def test_lmdbs(keep: int, tmp_path: Path) -> None:
    path = attack.lmdb_cut_off(tmp_path, keep)
    with pytest.raises(DatasetError), LmdbReader(path) as reader:
        list(reader)


def test_caffemodels(tmp_path: Path) -> None:
    with pytest.raises(PrototxtError, match="has the impossible shape 1099511627776 x 1099511627776"):
        blob_to_array(read_caffemodel(attack.caffemodel_of_a_shape_alone(tmp_path / "a")).layer[0].blobs[0], "b")
    with pytest.raises(PrototxtError, match="cut short"):
        read_caffemodel(attack.caffemodel_longer_than_its_file(tmp_path / "b"))
