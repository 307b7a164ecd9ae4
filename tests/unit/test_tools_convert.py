"""What convert writes: every file, what the report says of them, and that nothing is left of a run that failed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from ssdlite_caffe import __version__
from ssdlite_caffe.coco.label_map import load_label_map
from ssdlite_caffe.dump.read import read_model
from ssdlite_caffe.errors import LabelMapError, OutputError, SsdliteError
from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.gen_model.dialect import DataPaths, Dialect
from ssdlite_caffe.load.recognise import recognise
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.binary import read_caffemodel, unknown_fields
from ssdlite_caffe.prototxt.shapes import infer
from ssdlite_caffe.prototxt.text import read_net
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.tools import convert as tool
from ssdlite_caffe.tools.convert import ConvertOptions, convert, convert_summary, stage_dialect
from tests.commands import Command, tree
from tests.datasets import coco_content, write_coco

FILES = {
    "deploy.prototxt", "headless.prototxt", "train.prototxt", "test.prototxt", "deploy.caffemodel", "train.caffemodel",
    "labelmap.prototxt", "report.json",
}  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def types(path: Path) -> set[str]:
    return {layer.type for layer in read_net(path).layer}


def output_param(folder: Path, name: str) -> caffe_pb2.DetectionOutputParameter:
    (layer,) = (layer for layer in read_net(folder / name).layer if layer.type == "DetectionOutput")
    return layer.detection_output_param


@pytest.fixture(scope="module")
def report(example_folder: Path) -> dict[str, Any]:
    return json.loads((example_folder / "report.json").read_text())


class TestReport:
    def test_names_every_file_with_its_hash(self, example_folder: Path, report: dict[str, Any]) -> None:
        written = contents(example_folder)
        assert written.keys() == FILES
        assert report["files"].keys() == FILES - {"report.json"}
        for name, entry in report["files"].items():
            assert entry["sha256"] == hashlib.sha256(written[name]).hexdigest(), name

    def test_says_what_was_converted_and_by_what(
        self, example_model: Path, example_folder: Path, report: dict[str, Any]
    ) -> None:
        assert report["ssdlite_caffe"] == __version__
        assert report["source"] == {
            "given": str(example_model),
            "path": str(example_model),
            "relative": Path(os.path.relpath(example_model, example_folder)).as_posix(),
            "form": "frozen graph",
            "sha256": hashlib.sha256(example_model.read_bytes()).hexdigest(),
            "origins": {"weights": str(example_model), "suppression": str(example_model)},
        }
        assert report["reading"] == {"pipeline_config": None, "nms": "auto", "dequantize": False}
        assert report["tflite_nms"] is None

    def test_holds_the_architecture(self, example_model: Path, report: dict[str, Any]) -> None:
        model = read_model(example_model)
        assert ArchSpec.from_dict(report["arch"]) == recognise(model)
        assert report["tensors"] == {
            "used": len(model.tensors),
            "sha256": tool.tensors_sha256(model),
            "skipped": model.skipped,
        }
        assert report["default_boxes"] == 2034
        assert [(m["blob"], m["size"], m["boxes_per_cell"]) for m in report["feature_maps"]][:2] == [
            ("conv_8/expand", [20, 20], 3),
            ("Conv_1", [10, 10], 6),
        ]
        assert sum(m["size"][0] * m["size"][1] * m["boxes_per_cell"] for m in report["feature_maps"]) == 2034

    def test_counts_what_was_filled(self, example_folder: Path, report: dict[str, Any]) -> None:
        for name, prototxt in (("deploy.caffemodel", "deploy.prototxt"), ("train.caffemodel", "train.prototxt")):
            wanted = infer(read_net(example_folder / prototxt))
            entry = report["files"][name]
            assert entry["net"] == prototxt
            assert entry["layers_filled"] == len(wanted.param_shapes)
            assert entry["values"] == wanted.param_count

    def test_is_exact_and_has_no_notes(self, report: dict[str, Any]) -> None:
        assert report["exact"] is True
        assert report["notes"] == []

    def test_summary_says_it_in_six_lines(self, example_model: Path, report: dict[str, Any]) -> None:
        source, *lines = convert_summary(report, Path("out")).split("\n")
        assert source == f"frozen graph {example_model}"
        assert lines[0] == "v3-small ssdlite, width 1, 4 classes with background, input 320x320, sigmoid scores"
        assert lines[1] == "2034 default boxes on 20x20, 10x10, 5x5, 3x3, 2x2, 1x1"
        assert lines[2] == "NMS for each class: IoU 0.6, scores from 1e-08, 100 a class, 100 in all"
        assert lines[3].startswith("350 tensors used, each once; ")
        assert lines[4].startswith("in out: deploy.prototxt, ")
        assert len(lines) == 5


@pytest.mark.parametrize("name", ["deploy.caffemodel", "train.caffemodel"])
def test_caffemodels_hold_what_caffe_reads_and_nothing_else(example_folder: Path, name: str) -> None:
    net = read_caffemodel(example_folder / name)
    assert unknown_fields(net) == []
    prototxt = read_net(example_folder / name.replace("caffemodel", "prototxt"))
    assert [layer.name for layer in net.layer if layer.blobs] == list(infer(prototxt).param_shapes)


def test_the_hash_of_weights_knows_names_shapes_and_values(example_model: Path) -> None:
    model = read_model(example_model)
    name, value = next((name, value) for name, value in model.tensors.items() if value.ndim == 4)
    rest = {n: v for n, v in model.tensors.items() if n != name}
    flipped = value.copy()
    flipped.flat[-1] *= -1
    given = (
        model.tensors,
        dict(reversed(model.tensors.items())),
        {**rest, name: flipped},
        {**rest, name: value.reshape(-1)},
        {**rest, "other": value},
        rest,
    )
    hashes = [tool.tensors_sha256(dataclasses.replace(model, tensors=tensors)) for tensors in given]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 5


def test_the_same_model_gives_the_same_bytes(example_model: Path, example_folder: Path, tmp_path: Path) -> None:
    convert(example_model, tmp_path / "again", ConvertOptions())
    assert contents(tmp_path / "again") == contents(example_folder)


def test_batch_norm_is_folded_for_deployment_and_kept_for_training(example_folder: Path) -> None:
    for name, kept in (("deploy", False), ("headless", False), ("train", True), ("test", True)):
        assert ("BatchNorm" in types(example_folder / f"{name}.prototxt")) == kept
    assert "DetectionOutput" not in types(example_folder / "headless.prototxt")


def test_the_dialect_is_that_of_every_stage(example_model: Path, tmp_path: Path) -> None:
    dialect = Dialect(
        activation="stock", padding="symmetric", batch_norm="keep", depthwise="DepthwiseConvolution", engine="CAFFE"
    )
    report = convert(example_model, tmp_path / "out", ConvertOptions(dialect=dialect))
    for name in ("deploy", "headless", "train", "test"):
        found = types(tmp_path / "out" / f"{name}.prototxt")
        assert {"BatchNorm", "DepthwiseConvolution", "Power"} <= found
        assert "ReLU6" not in found
        entry = report["files"][f"{name}.prototxt"]
        assert Dialect(**entry["dialect"]) == dialect
        assert entry["stage"] == name
    assert report["exact"] is False
    assert report["notes"] == ["not exact: padding symmetric; detections differ from the model's own"]
    assert "note: not exact: padding symmetric" in convert_summary(report, tmp_path)


def test_a_score_threshold_replaces_the_graphs(example_model: Path, example_folder: Path, tmp_path: Path) -> None:
    report = convert(example_model, tmp_path / "out", ConvertOptions(score_threshold=0.25))
    assert report["arch"]["nms"]["score_threshold"] == 0.25
    for name in ("deploy.prototxt", "test.prototxt"):
        assert output_param(tmp_path / "out", name).confidence_threshold == 0.25
        assert output_param(example_folder, name).confidence_threshold < 1e-7
    weights = (read_caffemodel(folder / "deploy.caffemodel") for folder in (tmp_path / "out", example_folder))
    blobs = [[layer.blobs for layer in net.layer] for net in weights]
    assert blobs[0] == blobs[1]


def test_data_paths_go_into_the_train_and_test_nets(example_model: Path, tmp_path: Path) -> None:
    options = ConvertOptions(data=DataPaths(lmdb="somewhere_lmdb", batch_size=3))
    convert(example_model, tmp_path / "out", options)
    for name in ("train.prototxt", "test.prototxt"):
        data = read_net(tmp_path / "out" / name).layer[0].data_param
        assert (data.source, data.batch_size) == ("somewhere_lmdb", 3)


class TestLabelMap:
    def test_names_come_from_the_file(self, example_model: Path, tmp_path: Path) -> None:
        given = str(example_model.parent / "labelmap.pbtxt")
        convert(example_model, tmp_path / "out", ConvertOptions(label_map=given))
        labels = load_label_map(tmp_path / "out" / "labelmap.prototxt")
        assert [(entry.id, entry.name) for entry in labels.entries] == [
            (0, "none_of_the_above"), (1, "circle"), (2, "square"), (3, "triangle"),
        ]  # fmt: skip
        assert ModelFolder.open(tmp_path / "out").labels.display_names[1:] == ("circle", "square", "triangle")

    def test_without_one_classes_are_numbered(self, example_folder: Path) -> None:
        names = ModelFolder.open(example_folder).labels.display_names
        assert names == ("background", "class_1", "class_2", "class_3")

    @pytest.mark.parametrize(("name", "count"), [("coco", 91), ("voc", 21)])
    def test_of_another_class_count_is_refused(
        self, example_model: Path, tmp_path: Path, name: str, count: int
    ) -> None:
        with pytest.raises(LabelMapError, match=f"has {count} classes but the model has 4"):
            convert(example_model, tmp_path / "out", ConvertOptions(label_map=name))
        assert list(tmp_path.iterdir()) == []

    def test_with_an_id_given_twice_is_refused(self, example_model: Path, tmp_path: Path) -> None:
        path = tmp_path / "labels.pbtxt"
        path.write_text("".join(f'item {{ id: {i} name: "{n}" }}\n' for i, n in ((1, "a"), (2, "b"), (2, "c"))))
        with pytest.raises(LabelMapError, match=r"labels\.pbtxt: id 2 is given twice: 'b' and 'c'"):
            convert(example_model, tmp_path / "out", ConvertOptions(label_map=str(path)))
        assert [p.name for p in tmp_path.iterdir()] == ["labels.pbtxt"]


class TestLosses:
    """What --force must not delete."""

    @pytest.fixture
    def out(self, example_folder: Path, example_model: Path, tmp_path: Path) -> Path:
        path = Path(shutil.copytree(example_folder, tmp_path / "out"))
        for file in ("frozen_inference_graph.pb", "pipeline.config", "labelmap.pbtxt", "shapes.png"):
            shutil.copyfile(example_model.parent / file, path / file)
        return path

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ((), "the model {out}/frozen_inference_graph.pb lies inside {out}, which is replaced; move it"),
            (("--pipeline-config", "{out}/pipeline.config"), "the pipeline.config {out}/pipeline.config lies inside"),
            (("-l", "{out}/labelmap.pbtxt"), "the label map {out}/labelmap.pbtxt lies inside"),
            (("--expected", "{out}/../out/shapes.png"), "--expected {out}/../out/shapes.png lies inside"),
            (("--calibrate", "{out}", "--target", "ncnn"), "--calibrate {out} lies inside"),
            (("--calibrate", "{coco}", "--images", "{out}", "--target", "ncnn"), "--images {out} lies"),
            (("-d", "{out}/shapes.png"), "the LMDB {out}/shapes.png lies inside"),
            (("-l", "{linked}/labelmap.pbtxt"), "the label map {linked}/labelmap.pbtxt lies inside"),
        ],
    )
    def test_inputs_inside_the_folder(
        self, refused: Command, out: Path, example_model: Path, options: tuple[str, ...], said: str
    ) -> None:
        linked = out.parent / "linked"
        linked.symlink_to(out)
        names = {"out": out, "coco": write_coco(out.parent, coco_content())[1], "linked": linked}
        model = example_model if options else out / example_model.name
        before = tree(out)
        given = [option.format(**names) for option in options]
        assert said.format(**names) in refused("convert", model, "-o", out, "--force", *given).err
        assert tree(out) == before

    def test_files_in_the_folder_of_a_target(self, command: Command, example_model: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        given = ("convert", example_model, "-o", out, "--target", "ncnn", "--force")
        assert command(*given).status == 0
        (out / "ncnn" / "__pycache__").mkdir()
        (out / "ncnn" / "__pycache__" / "ssd.pyc").write_bytes(b"made by the way")
        assert command(*given).status == 0
        (out / "ncnn" / "made").mkdir()
        for number in range(5):
            (out / "ncnn" / "made" / f"{number}.bin").write_bytes(b"mine")
        before = tree(out)
        merge = ("merge-bn", out, "-o", out, "--force")
        for arguments in (given, merge):
            result = command(*arguments)
            assert (result.status, result.out) == (1, "")
            assert result.err == (
                f"ssdlite-caffe: {out} holds files that convert did not write: ncnn/made/0.bin, ncnn/made/1.bin, "
                "ncnn/made/2.bin and 2 more; they would be deleted: move them, or write another folder\n"
            )
        assert tree(out) == before
        shutil.move(out / "ncnn" / "made", tmp_path / "made")
        assert command(*given).status == 0

    def test_files_beside_ours(self, command: Command, example_model: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        given = ("convert", example_model, "-o", out, "--force")
        assert command(*given, "--expected", example_model.parent / "shapes.png").status == 0
        assert command(*given).status == 0  # what --expected wrote is ours
        for name in ("notes.txt", "expected/shapes/mine.npy", "expected/notes.txt", "deep/er/README.md"):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(b"mine")
            before = tree(out)
            result = command(*given)
            assert (result.status, result.out) == (1, "")
            assert f"holds files that convert did not write: {name}; they would be deleted" in result.err
            assert tree(out) == before
            (out / name).unlink()
        assert command(*given).status == 0


class TestFailure:
    def test_an_earlier_folder_needs_force(self, example_model: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        convert(example_model, out, ConvertOptions(score_threshold=0.5))
        before = contents(out)
        with pytest.raises(OutputError, match="exists already"):
            convert(example_model, out, ConvertOptions())
        assert contents(out) == before
        convert(example_model, out, ConvertOptions(), force=True)
        assert contents(out) != before

    @pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, SsdliteError("no")])
    @pytest.mark.parametrize("step", ["render", "filled_layers", "write_layers"])
    def test_one_that_fails_midway_leaves_the_old_folder(
        self, example_model: Path, example_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str,
        error: Any,
    ) -> None:  # fmt: skip
        """The second call of a step fails, when some files are written already."""
        real, calls = getattr(tool, step), iter(range(9))

        def failing(*args: Any, **kwargs: Any) -> Any:
            if next(calls) == 1:
                raise error
            return real(*args, **kwargs)

        monkeypatch.setattr(tool, step, failing)
        out = tmp_path / "out"
        out.mkdir()
        before = {name: data[:100] for name, data in contents(example_folder).items()}
        for name, data in before.items():
            (out / name).write_bytes(data)
        with pytest.raises(error if isinstance(error, type) else type(error)):
            convert(example_model, out, ConvertOptions(), force=True)
        assert contents(out) == before
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    def test_a_model_that_cannot_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(SsdliteError, match="does not exist"):
            convert(tmp_path / "none.pb", tmp_path / "made" / "out", ConvertOptions())
        assert list(tmp_path.iterdir()) == []


def test_progress_names_every_step(example_model: Path, tmp_path: Path) -> None:
    said: list[str] = []
    convert(example_model, tmp_path / "out", ConvertOptions(), progress=said.append)
    assert said == [
        f"reading {example_model}",
        *(f"writing {name}.prototxt" for name in ("deploy", "headless", "train", "test")),
        *(f"writing {name}.caffemodel" for name in ("deploy", "train")),
    ]


def test_fewer_detections_a_class_than_in_all_are_noted(
    example_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def identified(model: Any) -> tuple[Any, ArchSpec]:
        arch = recognise(model)
        return model, dataclasses.replace(arch, nms=dataclasses.replace(arch.nms, max_per_class=7))

    monkeypatch.setattr("ssdlite_caffe.tools.source.identify", identified)
    (note,) = convert(example_model, tmp_path / "out", ConvertOptions())["notes"]
    assert note.startswith("TensorFlow keeps at most 7 detections of each class; DetectionOutput has no such limit")


def test_gates_that_caffe_does_not_run_are_said(example_model: Path, tmp_path: Path) -> None:
    report = convert(example_model, tmp_path / "out", ConvertOptions(dialect=Dialect(gate="eltwise")))
    (note,) = [note for note in report["notes"] if "--gate" in note]
    assert note.startswith("--gate eltwise: deploy.prototxt is not for Caffe, which stops at the gates, nor for MNN")
    assert "Scale" in types(tmp_path / "out" / "train.prototxt")
    assert "Scale" not in types(tmp_path / "out" / "deploy.prototxt")
    assert report["exact"]


def test_train_and_test_nets_are_for_caffe() -> None:
    """BatchNorm stays, and a gate that Caffe cannot run is written as one that it can."""
    for gate, trained in (
        ("scale", "scale"),
        ("deconvolution", "deconvolution"),
        ("interp", "scale"),
        ("eltwise", "scale"),
    ):
        dialect = Dialect(gate=gate, names="tops")  # type: ignore[arg-type]
        for stage in ("train", "test"):
            assert stage_dialect(dialect, stage) == Dialect(batch_norm="keep", gate=trained, names="tops")  # type: ignore[arg-type]
        for stage in ("deploy", "headless"):
            assert stage_dialect(dialect, stage) == dialect  # type: ignore[arg-type]
