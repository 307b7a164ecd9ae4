"""Every dialect through every command that takes a converted folder: what one command writes, the next ones take.

The dialects are read from the fields of `Dialect`, and the commands from the command line: a new choice is tested
without a change here, and a new command has to be named here.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.prototxt.binary import blob_to_array, read_caffemodel
from ssdlite_caffe.prototxt.text import read_net
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.reference_net import ReferenceNet
from ssdlite_caffe.training.gpu_bundle import raw_outputs
from tests.commands import Command
from tests.conftest import ROOT

pytestmark = [pytest.mark.story, pytest.mark.opencv, pytest.mark.xdist_group("every dialect")]

PROTOTXTS = ("deploy", "headless", "train", "test")
MODEL, LABELS, IMAGE = (
    ROOT / "examples" / name for name in ("frozen_inference_graph.pb", "labelmap.pbtxt", "shapes.png")
)
MAPPING = "square: square\ncircle: circle\n"
CLASSES, REMAPPED = ("circle", "square", "triangle"), ("square", "circle")
FOLD = 1e-6
"""Between weights folded by `convert` and by `merge-bn`, relative; measured: 0."""

TAKE_A_FOLDER = {
    "verify", "detect", "evaluate", "remap", "merge-bn", "kit", "train", "test", "lint", "load", "cut", "caffe bundle",
}  # fmt: skip
"""Or a file of it. `train` and `test` take what `kit --from` makes of it."""
TAKE_NONE = {
    "convert", "dump", "gen", "shapes", "lmdb voc", "lmdb coco", "lmdb check", "caffe build", "caffe clean",
    "caffe check", "caffe doctor", "caffe sources",
    "caffe which", "keras export pb", "keras export tflite", "keras import", "keras infer", "keras test", "keras train",
}  # fmt: skip
OPTIONS = {"batch_norm": "--bn", "input_form": "--input-form"}
"""Options of `convert` that do not have the field's name."""


def dialects() -> list[Dialect]:
    """The default, each other choice of each field, and two in which many fields differ."""
    found = [Dialect()]
    for field, choices in typing.get_type_hints(Dialect).items():
        others = [choice for choice in typing.get_args(choices) if choice != getattr(Dialect(), field)]
        found += [dataclasses.replace(Dialect(), **{field: choice}) for choice in others]
    found.append(Dialect("stock", "slice", "keep", "ConvolutionDepthwise", "CAFFE"))
    found.append(Dialect("clip", "tf_pad", "frozen", "DepthwiseConvolution"))
    others = {"linear": "scale", "gate": "deconvolution", "coefficients": "power", "names": "tops"}
    found.append(Dialect("stock", "slice", "keep", **others, outputs="per-map", fields="all", input_form="fields"))  # type: ignore[arg-type]
    return found


NOT_IN_CAFFE = ("interp", "eltwise")
"""Gates of deploy and headless nets that the Caffe built here does not run; train and test nets have other ones."""


def prototxts(dialect: Dialect) -> tuple[str, ...]:
    """Names of the nets of a folder, the one that takes deploy.caffemodel first; without priors there is no deploy."""
    return PROTOTXTS[1:] if dialect.priors == "none" else PROTOTXTS


def values(dialect: Dialect) -> list[str]:
    """Those that are not the default's."""
    return [
        str(getattr(dialect, field.name))
        for field in dataclasses.fields(Dialect)
        if getattr(dialect, field.name) != field.default
    ]


def name_of(dialect: Dialect) -> str:
    return "-".join(values(dialect)) or "default"


each_dialect = pytest.mark.parametrize("dialect", dialects(), ids=name_of)
each_dialect_rarely = pytest.mark.parametrize(
    "dialect",
    [
        pytest.param(dialect, id=name_of(dialect), marks=[pytest.mark.rare] if len(values(dialect)) == 1 else [])
        for dialect in dialects()
    ],
)
"""For most tests: those in which one field differs are left out in continuous integration; `test_detect` is not."""


class Folders(typing.NamedTuple):
    """What a model is after each command: converted, merged, remapped, and both in either order."""

    converted: Path
    merged: Path
    remapped: Path
    merged_remapped: Path
    remapped_merged: Path


Make = Callable[[Dialect], Folders]


@pytest.fixture(scope="module")
def made() -> dict[Dialect, Folders]:
    return {}


@pytest.fixture
def make(made: dict[Dialect, Folders], command: Command, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """The folders of a dialect, each written by its command."""

    def run(dialect: Dialect) -> Folders:
        if dialect not in made:
            folder = tmp_path_factory.mktemp(name_of(dialect))
            paths = Folders(*(folder / name for name in Folders._fields))
            (folder / "map.yaml").write_text(MAPPING)
            changes = {key: value for key, value in dataclasses.asdict(dialect).items() if value is not None}
            names = {key: OPTIONS.get(key, "--" + key.replace("_", "-")) for key in changes}
            options = [text for key, value in changes.items() for text in (names[key], value)]
            good(command("convert", MODEL, "-l", LABELS, *options, "-o", paths.converted))
            good(command("merge-bn", paths.converted, "-o", paths.merged))
            for source, target in ((paths.converted, paths.remapped), (paths.merged, paths.merged_remapped)):
                good(command("remap", source, "--map", folder / "map.yaml", "-o", target))
            good(command("merge-bn", paths.remapped, "-o", paths.remapped_merged))
            made[dialect] = paths
        return made[dialect]

    return run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LMDBs of drawn scenes with all classes, and with those of the mapping alone, and files with their names."""
    from ssdlite_caffe.coco.label_map import LabelMap
    from ssdlite_caffe.data.lmdb_write import write_lmdb
    from ssdlite_caffe.data.toy_scenes import ShapesOptions, make_shapes
    from ssdlite_caffe.data.voc import open_voc

    folder = tmp_path_factory.mktemp("data")
    make_shapes(folder / "scenes", ShapesOptions(count=2, seed=1))
    for name, classes in (("all", CLASSES), ("some", REMAPPED)):
        images = open_voc([folder / "scenes"], "trainval", label_map=LabelMap.of_names(classes))
        write_lmdb(images, folder / name)
        (folder / f"{name}.txt").write_text("\n".join(classes))
    return folder


def good(result: Any) -> Any:
    assert result.status == 0, result.err
    return result


def linted(command: Command, prototxt: Path, dialect: Dialect) -> None:
    """No error in Caffe or, where a net is only OpenCV's, the reason, and no error there."""
    found = command("lint", prototxt, "--json")
    if dialect.gate == "eltwise" and prototxt.stem not in ("train", "test"):
        errors = [problem["text"] for problem in json.loads(found.out)["problems"] if problem["severity"] == "error"]
        assert errors
        assert all("Eltwise does not repeat one value" in error for error in errors)
        found = command("lint", prototxt, "--runtime", "opencv", "--json")
    good(found)


def refusal(result: Any) -> str:
    """The one line of a command that cannot do what it is asked to."""
    assert result.status == 1
    (line,) = result.err.splitlines()
    assert line.startswith("ssdlite-caffe: ")
    return str(line)


def runs_in_opencv(command: Command, prototxt: Path) -> bool:
    return bool(command("lint", prototxt, "--runtime", "opencv", "--json").status == 0)


def detections(command: Command, folder: Path) -> dict[str, np.ndarray]:
    """The name of each class that is found, and its scores and boxes in pixels."""
    said = json.loads(good(command("detect", folder, IMAGE, "--json", "--score-threshold", "0.3")).out)
    found = {name: [] for name in CLASSES}
    for one in said["images"][0]["detections"]:
        found[one["name"]].append([one["score"], *one["box"]])
    assert sum(map(len, found.values())) > 2
    return {name: np.asarray(sorted(rows)) for name, rows in found.items() if rows}


def weights(path: Path) -> dict[str, list[np.ndarray]]:
    return {x.name: [blob_to_array(blob) for blob in x.blobs] for x in read_caffemodel(path).layer if x.blobs}


def difference(one: Path, other: Path) -> float:
    """The largest difference of the weights of two caffemodels, relative to the largest weight of the blob."""
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    pairs = [(a, b) for name in first for a, b in zip(first[name], second[name], strict=True)]
    assert len(pairs) > 100
    return max(float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)) for a, b in pairs)


def test_all_commands_are_here() -> None:
    from tests.unit.test_commands_app import COMMANDS

    assert set(COMMANDS) == TAKE_A_FOLDER | TAKE_NONE


def test_each_choice_is_here() -> None:
    for field, choices in typing.get_type_hints(Dialect).items():
        assert {getattr(dialect, field) for dialect in dialects()} == set(typing.get_args(choices))


@each_dialect_rarely
def test_lint(make: Make, command: Command, dialect: Dialect) -> None:
    folders = make(dialect)
    for folder in (folders.converted, folders.merged_remapped):
        for name in prototxts(dialect):
            linted(command, folder / f"{name}.prototxt", dialect)


@each_dialect_rarely
def test_remap_and_merge_bn_in_either_order(make: Make, command: Command, tmp_path: Path, dialect: Dialect) -> None:
    folders = make(dialect)
    converted, merged = ModelFolder.open(folders.converted), ModelFolder.open(folders.merged)
    assert (merged.arch, merged.labels) == (converted.arch, converted.labels)
    written = {name: merged.written_as(f"{name}.prototxt") for name in prototxts(dialect)}
    for name, (found, data) in written.items():  # type: ignore[misc]
        before = converted.written_as(f"{name}.prototxt")
        folded = name in ("deploy", "headless")
        assert before is not None
        assert (found, data) == (dataclasses.replace(before[0], batch_norm="fold") if folded else before[0], before[1])
    kept = {key: converted.report[key] for key in ("source", "reading", "tensors", "tflite_nms", "exact", "notes")}
    assert kept == {key: merged.report[key] for key in kept}
    for folder in (folders.merged, folders.merged_remapped, folders.remapped_merged):
        assert {path.name for path in folder.iterdir()} == {path.name for path in folders.converted.iterdir()}
        for name in prototxts(dialect)[:-2]:
            assert "BatchNorm" not in {layer.type for layer in read_net(folder / f"{name}.prototxt").layer}
    if dialect.batch_norm == "fold":
        assert difference(folders.merged / "deploy.caffemodel", folders.converted / "deploy.caffemodel") <= FOLD
    else:
        assert merged.report["layers_folded"] > 40
    for name in ("deploy.caffemodel", "train.caffemodel"):
        assert difference(folders.merged_remapped / name, folders.remapped_merged / name) == 0
    assert (folders.merged / "train.caffemodel").read_bytes() == (folders.converted / "train.caffemodel").read_bytes()
    for source in (folders.merged, folders.merged_remapped):
        again = tmp_path / source.name
        assert good(command("merge-bn", source, "-o", again)).out.startswith("nothing to fold: ")
        for name in prototxts(dialect):
            assert (again / f"{name}.prototxt").read_bytes() == (source / f"{name}.prototxt").read_bytes()
        for name in ("deploy.caffemodel", "train.caffemodel"):
            assert difference(again / name, source / name) == 0


@each_dialect_rarely
def test_merge_bn_of_prototxts(make: Make, command: Command, tmp_path: Path, dialect: Dialect) -> None:
    folder = make(dialect).converted
    for name, file in (("test", "train.caffemodel"), (prototxts(dialect)[0], "deploy.caffemodel")):
        good(command("merge-bn", folder / f"{name}.prototxt", "-w", folder / file, "-o", tmp_path / name))
        folded = make(dialect).merged / "deploy.caffemodel"
        assert difference(tmp_path / name / "deploy.caffemodel", folded) <= FOLD
        assert "BatchNorm" not in {layer.type for layer in read_net(tmp_path / name / "deploy.prototxt").layer}
    line = refusal(
        command("merge-bn", folder / "train.prototxt", "-w", folder / "train.caffemodel", "-o", tmp_path / "train")
    )
    assert line.endswith("has nothing to read; give the test or deploy net")


@each_dialect_rarely
def test_cut(make: Make, command: Command, dialect: Dialect, tmp_path: Path) -> None:
    """The net up to the box encodings has no other head, and each layer of it is right."""
    for number, folder in enumerate(make(dialect)):
        out = tmp_path / f"{number}.prototxt"
        good(command("cut", folder, "mbox_loc", "-o", out))
        assert read_net(out).layer[-1].top[0] == "mbox_loc"
        assert not any("mbox_conf" in layer.name for layer in read_net(out).layer)
        linted(command, out, dialect)


@each_dialect_rarely
def test_the_check_of_a_gpu_runs_it(make: Make, dialect: Dialect) -> None:
    """What `caffe bundle --check --model` takes of a folder: the heads' outputs, and the net in float64."""
    for folder in make(dialect):
        model = ModelFolder.open(folder)
        wanted = raw_outputs(read_net(model.headless_prototxt))
        assert {part for part in ("mbox_loc", "mbox_conf") if any(part in name for name in wanted)} == {
            "mbox_loc",
            "mbox_conf",
        }
        net = ReferenceNet(model.headless_prototxt, model.deploy_caffemodel, double=True)
        assert set(wanted) <= net._blobs


@each_dialect
def test_detect(make: Make, command: Command, dialect: Dialect) -> None:
    """The same objects after each command, or one line where OpenCV does not have the layers."""
    folders = make(dialect)
    if not runs_in_opencv(command, folders.converted / f"{prototxts(dialect)[0]}.prototxt"):
        for folder in folders:
            assert "lint" in refusal(command("detect", folder, IMAGE))
        return
    expected = detections(command, folders.converted)
    for folder in folders[1:]:
        found = detections(command, folder)
        assert found.keys() == expected.keys() & (REMAPPED if "remapped" in folder.name else CLASSES)
        for name, rows in found.items():
            np.testing.assert_allclose(rows, expected[name], atol=0.011)  # two decimals are printed
    for decoder in ("numpy", "caffe"):
        good(command("detect", folders.merged, IMAGE, "--decoder", decoder))


@each_dialect_rarely
def test_evaluate(make: Make, command: Command, data: Path, dialect: Dialect) -> None:
    folders = make(dialect)
    runs = runs_in_opencv(command, folders.converted / f"{prototxts(dialect)[0]}.prototxt")
    for folder in (folders.converted, folders.merged_remapped):
        name = "some" if "remapped" in folder.name else "all"
        done = command("evaluate", folder, "--data", data / name, "--json")
        if not runs:
            assert "lint" in refusal(done)
        else:
            (score,) = json.loads(good(done).out)["runtimes"].values()
            assert score["ap50"] > 0.5 or not ModelFolder.open(folder).report["exact"]


@pytest.mark.tensorflow
@each_dialect_rarely
def test_verify(make: Make, command: Command, dialect: Dialect) -> None:
    folders = make(dialect)
    runs = runs_in_opencv(command, folders.converted / f"{prototxts(dialect)[0]}.prototxt")
    for folder in (folders.converted, folders.merged):
        done = command("verify", MODEL, folder, "--images", IMAGE)
        if not runs:
            assert "lint" in refusal(done)
        elif ModelFolder.open(folder).report["exact"]:
            assert good(done).out.startswith("equal")
        else:
            assert done.status == 1
            assert "the folder says that it is not exact" in done.out
    assert "has remapped classes" in refusal(command("verify", MODEL, folders.merged_remapped, "--images", IMAGE))


@each_dialect_rarely
def test_load(
    make: Make, command: Command, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, dialect: Dialect
) -> None:
    """Dumped weights go into every net of the folders, as `convert` put them there."""
    dumped = tmp_path_factory.getbasetemp() / "dumped"
    if not dumped.exists():
        good(command("dump", MODEL, "-o", dumped))
    folders, nets = make(dialect), prototxts(dialect)
    for folder, name in (*((folders.converted, name) for name in nets), (folders.merged, nets[0])):
        out = tmp_path / f"{folder.name}-{name}.caffemodel"
        good(command("load", dumped, folder / f"{name}.prototxt", "-o", out))
        stored = folder / ("train.caffemodel" if name in ("train", "test") else "deploy.caffemodel")
        assert difference(out, stored) <= FOLD


def kit(command: Command, data: Path, source: Path, out: Path, *options: object) -> Path:
    name = "some" if "remapped" in source.name else "all"
    good(
        command("kit", data / f"{name}.txt", "--train", data / name, "--test", data / name, "--from", source,
                "--batch-size", 1, "--iterations", 1, "--zoom", 1, "--seed", 1, "--mode", "CPU", "-o", out, *options)
    )  # fmt: skip
    return out


@each_dialect_rarely
def test_kit(make: Make, command: Command, data: Path, tmp_path: Path, dialect: Dialect) -> None:
    """The kit's nets are written as the folder's are, and its first weights are the folder's, bit for bit."""
    folders = make(dialect)
    for folder in (folders.converted, folders.merged_remapped):
        written = kit(command, data, folder, tmp_path / folder.name)
        assert difference(written / "initial.caffemodel", folder / "train.caffemodel") == 0
        if dialect.priors == "none":  # a kit has a deploy net, with PriorBox layers
            assert "PriorBox" in {layer.type for layer in read_net(written / "deploy.prototxt").layer}
            continue
        ours, theirs = (read_net(path / "deploy.prototxt") for path in (written, folders.merged))
        assert len(ours.layer) == len(theirs.layer)
        assert [layer.type for layer in ours.layer] == [layer.type for layer in theirs.layer]


PADDINGS: tuple[str, ...] = typing.get_args(typing.get_type_hints(Dialect)["padding"])


@pytest.mark.parametrize(
    ("source", "target"),
    [*((Dialect().padding, other) for other in PADDINGS), *((p, PADDINGS[0]) for p in PADDINGS[1:])],
)
def test_kit_with_another_padding(
    make: Make, command: Command, data: Path, tmp_path: Path, source: str, target: str
) -> None:
    """Kernels get the size that the padding needs; the detections stay the same."""
    folder = make(dataclasses.replace(Dialect(), padding=source)).converted  # type: ignore[arg-type]
    other = make(dataclasses.replace(Dialect(), padding=target)).converted  # type: ignore[arg-type]
    written = kit(command, data, folder, tmp_path / "kit", "--padding", target)
    assert difference(written / "initial.caffemodel", other / "train.caffemodel") == 0


@pytest.mark.caffe
@each_dialect_rarely
def test_a_step_of_training(
    make: Make, command: Command, caffe_prefix: Path, data: Path, tmp_path: Path, dialect: Dialect
) -> None:
    """And what was trained goes through the commands as well; one line where the Caffe built here lacks the engine."""
    folders = make(dialect)
    trained = kit(command, data, folders.merged, tmp_path / "kit")
    done = command("train", trained, "--cpu")
    if dialect.engine == "CUDNN" and done.status:
        assert "asks for engine CUDNN, and this Caffe is built without cuDNN" in done.err.splitlines()[-1]
        return
    good(done)
    mine = tmp_path / "mine"
    good(command("merge-bn", trained, "-o", mine))
    (tmp_path / "map.yaml").write_text(MAPPING)
    good(command("remap", mine, "--map", tmp_path / "map.yaml", "-o", tmp_path / "remapped"))
    kit(command, data, mine, tmp_path / "further")
    runtime = "opencv" if dialect.gate in NOT_IN_CAFFE else "caffe"
    good(command("detect", tmp_path / "remapped", IMAGE, "--runtime", runtime))
    assert "does not say that they are a TensorFlow model's" in refusal(
        command("verify", MODEL, mine, "--images", IMAGE)
    )


@pytest.mark.parametrize("words", [("convert",), ("dump",), ("keras", "import")])
def test_what_takes_no_folder_says_so(make: Make, command: Command, tmp_path: Path, words: tuple[str, ...]) -> None:
    line = refusal(command(*words, make(Dialect()).merged, "-o", tmp_path / "out.keras"))
    assert "is a converted model" in line
