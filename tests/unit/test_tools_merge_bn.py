"""merge-bn on folders: the trained form becomes the deploy form that convert writes of the same weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.errors import OutputError, PrototxtError
from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.prototxt.binary import blob_to_array, read_caffemodel
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.tools.convert import ConvertOptions, convert
from ssdlite_caffe.tools.merge_bn import merge_files, merge_folder
from tests.commands import Command


def blobs(path: Path) -> dict[str, list[np.ndarray]]:
    return {
        layer.name: [blob_to_array(blob) for blob in layer.blobs]
        for layer in read_caffemodel(path).layer
        if layer.blobs
    }


def assert_close(found: Path, expected: Path) -> None:
    one, other = blobs(found), blobs(expected)
    assert one.keys() == other.keys()
    for name, arrays in one.items():
        for a, b in zip(arrays, other[name], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_a_converted_folder(example_folder: Path, tmp_path: Path) -> None:
    report = merge_folder(example_folder, None, tmp_path / "out")
    assert_close(tmp_path / "out" / "deploy.caffemodel", example_folder / "deploy.caffemodel")
    assert report["layers_folded"] > 40
    folder = ModelFolder.open(tmp_path / "out")
    assert folder.arch == ModelFolder.open(example_folder).arch
    assert (folder.deploy_prototxt).read_bytes() == (example_folder / "deploy.prototxt").read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        merge_folder(example_folder, None, tmp_path / "out")
    merge_folder(example_folder, None, tmp_path / "out", force=True)


def test_a_deploy_net_that_keeps_its_batch_norms(example_model: Path, example_folder: Path, tmp_path: Path) -> None:
    convert(example_model, tmp_path / "kept", ConvertOptions(dialect=Dialect(batch_norm="keep")))
    merge_folder(tmp_path / "kept", tmp_path / "kept" / "deploy.caffemodel", tmp_path / "out")
    assert_close(tmp_path / "out" / "deploy.caffemodel", example_folder / "deploy.caffemodel")
    for name in ("deploy.prototxt", "headless.prototxt"):
        assert "BatchNorm" not in (tmp_path / "out" / name).read_text().replace("# BatchNorm", "")
    merge_files(tmp_path / "kept" / "deploy.prototxt", tmp_path / "kept" / "deploy.caffemodel", tmp_path / "files")
    assert_close(tmp_path / "files" / "deploy.caffemodel", example_folder / "deploy.caffemodel")


def test_weights_of_another_net(example_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        PrototxtError, match=r"deploy\.caffemodel with .*test\.prototxt: the weights do not fit the net: "
    ):
        merge_folder(example_folder, example_folder / "deploy.caffemodel", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_missing_is_named(example_folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(example_folder, tmp_path / "copy"))
    with pytest.raises(PrototxtError, match=r"caffemodel .*none\.caffemodel does not exist"):
        merge_folder(copy, tmp_path / "none.caffemodel", tmp_path / "out")
    (copy / "test.prototxt").unlink()
    (copy / "report.json").write_text("{")
    with pytest.raises(PrototxtError, match=r"is not a training folder or a converted model: test\.prototxt.* missing"):
        merge_folder(copy, None, tmp_path / "out")
    shutil.copy(example_folder / "test.prototxt", copy)
    with pytest.raises(PrototxtError, match=r"cannot read .*report\.json"):
        merge_folder(copy, None, tmp_path / "out")


def test_the_command(command: Command, example_folder: Path, tmp_path: Path) -> None:
    done = command("merge-bn", example_folder, "-o", tmp_path / "out", "--json")
    assert json.loads(done.out)["unused"] == []
    done = command("merge-bn", example_folder / "deploy.prototxt", "-o", tmp_path / "other")
    assert done.status == 2
