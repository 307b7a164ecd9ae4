"""merge-bn on folders: the trained form becomes the deploy form that convert writes of the same weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.data.lmdb_write import write_lmdb
from ssdlite_caffe.data.voc import open_voc
from ssdlite_caffe.errors import ModelError, OutputError, PrototxtError
from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.gen_model.render import Solver
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.binary import blob_to_array, read_caffemodel, write_caffemodel
from ssdlite_caffe.prototxt.text import read_net
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.tools.convert import ConvertOptions, convert
from ssdlite_caffe.tools.merge_bn import merge_files, merge_folder
from ssdlite_caffe.tools.remap import remap_folder
from ssdlite_caffe.tools.verify import verify
from ssdlite_caffe.training.kit import KitOptions, write_kit
from tests.commands import Command, tree
from tests.datasets import NAMES, some_voc


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


SLICE = Dialect(padding="slice", batch_norm="keep")


@pytest.fixture(scope="module")
def sliced(example_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example model in a dialect with layers between convolutions and BatchNorms."""
    out = tmp_path_factory.mktemp("sliced") / "out"
    convert(example_model, out, ConvertOptions(dialect=SLICE))
    return out


def test_slices_between_take_whole_channels_along(sliced: Path, example_model: Path, tmp_path: Path) -> None:
    folded = tmp_path / "folded"
    convert(example_model, folded, ConvertOptions(dialect=Dialect(padding="slice")))
    merge_folder(sliced, None, tmp_path / "out")
    assert_close(tmp_path / "out" / "deploy.caffemodel", folded / "deploy.caffemodel")
    for name in ("deploy.prototxt", "headless.prototxt"):
        ours, theirs = read_net(tmp_path / "out" / name), read_net(folded / name)
        for layer in (*ours.layer, *theirs.layer):
            if layer.type == "Convolution":
                layer.convolution_param.bias_term = True  # its default
        assert ours == theirs


def test_the_folder_has_what_other_commands_need(sliced: Path, tmp_path: Path) -> None:
    """Its report is the source's, but for the BatchNorms, so it can be remapped, trained further and compared."""
    merge_folder(sliced, None, tmp_path / "out")
    before, after = ModelFolder.open(sliced), ModelFolder.open(tmp_path / "out")
    assert after.labels == before.labels
    assert after.written_as("deploy.prototxt") == (Dialect(padding="slice"), before.written_as("deploy.prototxt")[1])  # type: ignore[index]
    assert after.written_as("train.prototxt") == before.written_as("train.prototxt")
    added = {"merged_from", "layers_folded", "unused"}
    assert {key: value for key, value in after.report.items() if key not in {"files", *added}} == {
        key: value for key, value in before.report.items() if key != "files"
    }
    assert after.report.keys() == before.report.keys() | added
    assert after.report["files"].keys() == before.report["files"].keys()
    for name in ("train.prototxt", "test.prototxt", "train.caffemodel", "labelmap.prototxt"):
        assert (tmp_path / "out" / name).read_bytes() == (sliced / name).read_bytes()
        assert after.report["files"][name] == before.report["files"][name]


def test_twice(command: Command, sliced: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert "58 BatchNorms of" in command("merge-bn", sliced, "-o", first).out
    said = command("merge-bn", first, "-o", second)
    assert said.out == (
        f"nothing to fold: {first} has no BatchNorm that is not folded already; {second} has the same net and weights\n"
    )
    ours, theirs = (json.loads((folder / "report.json").read_text()) for folder in (second, first))
    assert ours.pop("layers_folded") == 0
    theirs.pop("layers_folded")
    assert ours == theirs
    assert {name: data for name, data in tree(second).items() if name != "report.json"} == {
        name: data for name, data in tree(first).items() if name != "report.json"
    }


def test_a_folder_of_version_0_2(command: Command, sliced: Path, tmp_path: Path) -> None:
    """It has no train net, and its report no dialect."""
    old = tmp_path / "old"
    report = merge_folder(sliced, None, old)
    for name in ("train.prototxt", "test.prototxt", "train.caffemodel"):
        (old / name).unlink()
    files = {name: {"sha256": entry["sha256"]} for name, entry in report["files"].items() if (old / name).is_file()}
    kept = {key: report[key] for key in ("ssdlite_caffe", "merged_from", "layers_folded", "unused", "arch")}
    (old / "report.json").write_text(json.dumps({**kept, "files": files}))
    assert command("merge-bn", old, "-o", tmp_path / "again").out.startswith("nothing to fold: ")
    (tmp_path / "map.yaml").write_text("one: class_1\n")
    remap_folder(old, tmp_path / "map.yaml", tmp_path / "mapped")
    remap_folder(sliced, tmp_path / "map.yaml", tmp_path / "direct")
    merge_folder(tmp_path / "direct", None, tmp_path / "expected")
    assert_close(tmp_path / "mapped" / "deploy.caffemodel", tmp_path / "expected" / "deploy.caffemodel")
    assert (
        read_net(tmp_path / "mapped" / "deploy.prototxt").layer
        == read_net(tmp_path / "expected" / "deploy.prototxt").layer
    )


def trained_further(net: caffe_pb2.NetParameter) -> None:
    next(layer for layer in net.layer if layer.name == "Conv").blobs[0].data[0] += 1


def test_a_training_folder_can_be_trained_further(example_folder: Path, example_model: Path, tmp_path: Path) -> None:
    """Its merged folder has the trained weights with BatchNorm, and names the same LMDBs."""
    data = tmp_path / "data"
    write_lmdb(open_voc([some_voc(data / "voc", 4)], "trainval"), data / "lmdb")
    (data / "names.txt").write_text("\n".join(NAMES))
    arch = ModelFolder.open(example_folder).arch

    def kit(source: Path, out: Path) -> Path:
        options = KitOptions(lmdbs=(data / "lmdb", data / "lmdb"), source=source, finetune=True, solver=Solver(""))
        write_kit(str(data / "names.txt"), arch, out, options)
        return out

    first = kit(example_folder, tmp_path / "kit")
    trained = read_caffemodel(first / "initial.caffemodel")
    fresh = {layer.name: layer for layer in read_caffemodel(example_folder / "train.caffemodel").layer}
    known = {layer.name for layer in trained.layer}
    trained.layer.extend(layer for name, layer in fresh.items() if name not in known)  # as a snapshot has all layers
    trained_further(trained)
    write_caffemodel(first / "snapshot.caffemodel", trained)
    out = tmp_path / "deep" / "merged"
    report = merge_folder(first, first / "snapshot.caffemodel", out)
    assert report["layers_folded"] == 58
    assert blobs(out / "train.caffemodel").keys() == blobs(first / "snapshot.caffemodel").keys()
    for name in ("train", "test"):
        layer = read_net(out / f"{name}.prototxt").layer[0]
        assert (out / layer.data_param.source).resolve() == (data / "lmdb").resolve()
    second = kit(out, tmp_path / "further")
    assert second.is_dir()
    with pytest.raises(ModelError, match=r"has the weights of .*snapshot\.caffemodel, and its report does not"):
        verify(example_model, ModelFolder.open(out), [])


def test_other_weights_are_not_the_source_model(sliced: Path, example_model: Path, tmp_path: Path) -> None:
    """evaluate would compare with the TensorFlow model, and verify call it another model."""
    net = read_caffemodel(sliced / "train.caffemodel")
    trained_further(net)
    write_caffemodel(tmp_path / "snapshot.caffemodel", net)
    merge_folder(sliced, tmp_path / "snapshot.caffemodel", tmp_path / "out")
    folder = ModelFolder.open(tmp_path / "out")
    assert not folder.report.keys() & {"source", "reading", "tensors"}
    with pytest.raises(ModelError, match="its report does not say that they are a TensorFlow model's"):
        verify(example_model, folder, [])


@pytest.mark.parametrize("option", [[], ["--keep-rest"]])
def test_the_command_on_a_net_from_elsewhere(command: Command, tmp_path: Path, option: list[str]) -> None:
    from tests.unit.test_load_merge import INPUT, PLAIN, layer, norm, parse_net, random_weights

    text = "\n".join(
        [INPUT, layer("BatchNorm", "first", "data", "begin"), PLAIN.replace('"data"', '"begin"'), norm("x")]
    )
    (tmp_path / "net.prototxt").write_text(text)
    write_caffemodel(tmp_path / "net.caffemodel", random_weights(parse_net(text)))
    done = command(
        "merge-bn", tmp_path / "net.prototxt", "-w", tmp_path / "net.caffemodel", "-o", tmp_path / "out", *option
    )
    why = "BatchNorm 'first' cannot be folded: it must follow a convolution, and 'data' comes from outside of the net"
    if not option:
        assert (done.status, done.out) == (1, "")
        assert done.err.endswith(f"net.prototxt: {why}\n")
        return
    assert done.out.splitlines()[1:] == [f"  {why}"]
    assert done.out.startswith("1 BatchNorm of ")


def test_a_train_prototxt_is_refused_in_one_line(command: Command, example_folder: Path, tmp_path: Path) -> None:
    done = command("merge-bn", example_folder / "train.prototxt", "-w", example_folder / "train.caffemodel",
                   "-o", tmp_path / "out")  # fmt: skip
    assert done.status == 1
    assert len(done.err.splitlines()) == 1
    assert "this is a train net: without the layers that are for TRAIN alone (data (AnnotatedData), " in done.err
    assert done.err.endswith("has nothing to read; give the test or deploy net\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("change", ["another layer", "gone"])
def test_a_train_net_that_does_not_fit_is_skipped(command: Command, sliced: Path, tmp_path: Path, change: str) -> None:
    """What is deployed does not depend on it, so it is named and the rest is written."""
    copy = Path(shutil.copytree(sliced, tmp_path / "copy"))
    if change == "gone":
        (copy / "train.prototxt").unlink()
    else:
        param = "convolution_param { num_output: 2 kernel_size: 1 }"
        more = f'layer {{ name: "more" type: "Convolution" bottom: "Conv" top: "more" {param} }}'
        (copy / "train.prototxt").write_text((copy / "train.prototxt").read_text() + more)
    done = command("merge-bn", copy, "-o", tmp_path / "out")
    assert done.status == 0
    why = "more has no weights" if change == "another layer" else "No such file or directory"
    (line,) = done.out.splitlines()[1:]
    assert line.startswith("  note: train.prototxt and its weights are skipped: ")
    assert line.endswith(why)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"deploy.prototxt", "deploy.caffemodel", "headless.prototxt", "labelmap.prototxt", "report.json"}
    assert ModelFolder.open(tmp_path / "out").report["files"].keys() == names - {"report.json"}
