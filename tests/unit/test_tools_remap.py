from __future__ import annotations

import dataclasses
import hashlib
import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdlite_caffe.coco.label_map import builtin, load_label_map
from ssdlite_caffe.errors import ArchError, LabelMapError, OutputError, PrototxtError, SsdliteError
from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.gen_model.build import build, default_arch
from ssdlite_caffe.gen_model.dialect import DataPaths, Dialect
from ssdlite_caffe.gen_model.netdesc import NetDesc
from ssdlite_caffe.gen_model.render import render
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.binary import (
    blob_from_array,
    blob_to_array,
    read_caffemodel,
    unknown_fields,
    write_caffemodel,
)
from ssdlite_caffe.prototxt.text import parse_net, read_net
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.tools.convert import STAGES, WEIGHTS, ConvertOptions, convert
from ssdlite_caffe.tools.remap import change_classes, move_classes, remap_folder
from tests.scenes import draw_scene

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MAPPING = "three corners: [pyramid, triangle]\nround: circle\n"
ROWS = (0, 3, 1)


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example model with its label map, and a dialect that is not the default."""
    out = tmp_path_factory.mktemp("converted") / "model"
    options = ConvertOptions(
        dialect=Dialect(activation="stock", padding="slice"),
        label_map=str(EXAMPLES / "labelmap.pbtxt"),
        data=DataPaths(lmdb="here/lmdb", batch_size=5),
    )
    convert(EXAMPLES / "frozen_inference_graph.pb", out, options)
    return out


@pytest.fixture
def source(converted: Path, tmp_path: Path) -> Path:
    """A copy of the converted model to spoil."""
    return Path(shutil.copytree(converted, tmp_path / "source"))


@pytest.fixture(scope="session")
def remapped(converted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("remapped") / "model"
    mapping = out.with_name("shapes.yaml")
    mapping.write_text(MAPPING)
    remap_folder(converted, mapping, out)
    return out


def arrays(path: Path) -> dict[str, list[np.ndarray]]:
    net = read_caffemodel(path)
    assert unknown_fields(net) == []
    return {layer.name: [blob_to_array(blob) for blob in layer.blobs] for layer in net.layer if layer.blobs}


def report_of(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report


def conf_boxes(arch: ArchSpec) -> dict[str, int]:
    return {m.conf[-1].name: len(m.tf_boxes) for m in build(arch).feature_maps}


@pytest.mark.parametrize("name", WEIGHTS)
def test_only_rows_of_class_predictors_move(converted: Path, remapped: Path, name: str) -> None:
    old, new = arrays(converted / name), arrays(remapped / name)
    boxes = conf_boxes(ModelFolder.open(converted).arch)
    assert list(old) == list(new)
    assert len(boxes) == 6
    assert boxes.keys() <= old.keys()
    for layer, blobs in new.items():
        for before, after in zip(old[layer], blobs, strict=True):
            if layer not in boxes:
                assert after.tobytes() == before.tobytes()
                assert after.shape == before.shape
                continue
            kept = [before[box * 4 + row] for box in range(boxes[layer]) for row in ROWS]
            assert after.shape == (boxes[layer] * 3, *before.shape[1:])
            assert after.tobytes() == b"".join(row.tobytes() for row in kept)


def test_prototxts_follow(converted: Path, remapped: Path) -> None:
    boxes = conf_boxes(ModelFolder.open(converted).arch)
    for name, stage in STAGES:
        old, new = read_net(converted / name), read_net(remapped / name)
        counts = 0
        for before, after in zip(old.layer, new.layer, strict=True):
            if before.name in boxes:
                assert after.convolution_param.num_output == boxes[before.name] * 3
                before.convolution_param.num_output = after.convolution_param.num_output
            for block in ("multibox_loss_param", "detection_output_param", "detection_evaluate_param"):
                if before.HasField(block):
                    assert getattr(after, block).num_classes == 3
                    getattr(before, block).num_classes = 3
                    counts += 1
            if before.type == "Reshape":
                assert list(before.reshape_param.shape.dim)[-1] == 4
                assert list(after.reshape_param.shape.dim)[-1] == 3
                before.reshape_param.shape.dim[-1] = 3
            assert after == before, before.name
        assert counts == {"deploy": 1, "headless": 0, "train": 1, "test": 2}[stage]
    assert read_net(remapped / "train.prototxt").layer[0].data_param.source == "here/lmdb"
    assert "ReLU6" not in {layer.type for layer in read_net(remapped / "deploy.prototxt").layer}


def test_caffemodels_hold_the_net_of_their_prototxt(remapped: Path) -> None:
    for name, prototxt in WEIGHTS.items():
        weights = read_caffemodel(remapped / name)
        for layer in weights.layer:
            layer.ClearField("blobs")
        assert weights == read_net(remapped / prototxt)


def test_label_map_and_report_follow(converted: Path, remapped: Path) -> None:
    folder = ModelFolder.open(remapped)
    old, new = report_of(converted), folder.report
    assert folder.labels.display_names == ("background", "three corners", "round")
    assert folder.arch == dataclasses.replace(ArchSpec.from_dict(old["arch"]), num_classes=3)
    assert new["remapped_from"] == {
        "mapping": str(remapped.with_name("shapes.yaml")),
        "rows": list(ROWS),
        "classes": ["background", "triangle", "circle"],
        "sha256": {name: old["files"][name]["sha256"] for name in WEIGHTS},
    }
    assert {p.name for p in remapped.iterdir()} == {*new["files"], "report.json"}
    for name, entry in new["files"].items():
        assert entry["sha256"] == hashlib.sha256((remapped / name).read_bytes()).hexdigest()
    for name in WEIGHTS:
        assert new["files"][name]["values"] == sum(
            blob.size for blobs in arrays(remapped / name).values() for blob in blobs
        )
    same = {"arch", "files", "remapped_from"}
    assert {k: v for k, v in new.items() if k not in same} == {k: v for k, v in old.items() if k not in same}


def test_all_classes_in_order_change_nothing(converted: Path, tmp_path: Path) -> None:
    mapping = tmp_path / "same.json"
    mapping.write_text('{"circle": "circle", "square": "square", "triangle": "triangle"}')
    remap_folder(converted, mapping, tmp_path / "out")
    for file in converted.iterdir():
        other = tmp_path / "out" / file.name
        if file.suffix == ".caffemodel":
            assert read_caffemodel(other) == read_caffemodel(file), file.name
        elif file.name != "report.json":
            assert other.read_bytes() == file.read_bytes(), file.name


def test_two_mappings_after_each_other_are_one(converted: Path, remapped: Path, tmp_path: Path) -> None:
    (tmp_path / "second.yaml").write_text("ball: round\n")
    (tmp_path / "both.yaml").write_text("ball: circle\n")
    twice = remap_folder(remapped, tmp_path / "second.yaml", tmp_path / "twice")
    remap_folder(converted, tmp_path / "both.yaml", tmp_path / "once")
    for file in (tmp_path / "once").iterdir():
        if file.name != "report.json":
            assert (tmp_path / "twice" / file.name).read_bytes() == file.read_bytes(), file.name
    assert twice["remapped_from"]["remapped_from"] == report_of(remapped)["remapped_from"]


def random_weights(net: NetDesc, dialect: Dialect) -> caffe_pb2.NetParameter:
    """The train net with distinct numbers in its convolutions."""
    parsed = parse_net(render(net, dialect, "train", DataPaths()))
    random = np.random.default_rng(1)
    convs = {conv.name: conv for conv in net.convolutions}
    for layer in parsed.layer:
        if (conv := convs.get(layer.name)) is not None:
            shape = (conv.num_output, conv.in_channels // conv.group, 1, 1)
            layer.blobs.append(blob_from_array(random.normal(size=shape).astype(np.float32)))
            layer.blobs.append(blob_from_array(random.normal(size=shape[:1]).astype(np.float32)))
    return parsed


@pytest.mark.parametrize(
    "arch",
    [
        default_arch("v1", 5, head="ssd", input_size=(97, 160), width_multiplier=0.25, score_converter="softmax"),
        default_arch("v2", 5, head="ssd", input_size=(160, 97), width_multiplier=0.35),
        default_arch("v3-large", 5, input_size=(128, 97), width_multiplier=0.5),
    ],
    ids=lambda arch: f"{arch.family}-{arch.head}",
)
def test_other_families_and_heads(arch: ArchSpec) -> None:
    nets = build(arch), build(dataclasses.replace(arch, num_classes=7))
    rows = (0, 4, 4, 1, 2, 3, 1)
    old = random_weights(nets[0], Dialect(batch_norm="keep"))
    new = parse_net(render(nets[1], Dialect(batch_norm="keep"), "train", DataPaths()))
    assert move_classes(old, new, nets, rows) == []
    before = {layer.name: [blob_to_array(blob) for blob in layer.blobs] for layer in old.layer}
    boxes = conf_boxes(arch)
    for layer in new.layer:
        for was, blob in zip(before[layer.name], layer.blobs, strict=True):
            now = blob_to_array(blob)
            if layer.name in boxes:
                assert now.shape[0] == layer.convolution_param.num_output
                was = np.stack([was[box * 5 + row] for box in range(boxes[layer.name]) for row in rows])
            assert now.tobytes() == was.tobytes()


def test_softmax_over_fewer_classes_is_noted(source: Path, tmp_path: Path) -> None:
    report = report_of(source)
    report["arch"]["score_converter"] = "softmax"
    (source / "report.json").write_text(json.dumps(report))
    (tmp_path / "m.yaml").write_text(MAPPING)
    notes = remap_folder(source, tmp_path / "m.yaml", tmp_path / "out")["notes"]
    assert [note for note in notes if "softmax" in note] == [
        "softmax is computed over the remaining classes, so their scores are higher than the source model's"
    ]


@pytest.mark.opencv
def test_opencv_gives_the_kept_classes_their_old_scores(converted: Path, remapped: Path) -> None:
    from ssdlite_caffe.runtimes.opencv_net import OpenCvNet
    from ssdlite_caffe.runtimes.resize import preprocess

    image, _ = draw_scene(3)
    arch = ModelFolder.open(converted).arch
    blob = preprocess(image, arch.input_size, mean=arch.pixel_mean, scale=arch.pixel_scale)
    outputs = []
    for folder in (converted, remapped):
        net = OpenCvNet(folder / "headless.prototxt", folder / "deploy.caffemodel")
        outputs.append(net.forward(blob, ["mbox_loc", "mbox_conf"]))
    old, new = outputs
    np.testing.assert_array_equal(new["mbox_loc"], old["mbox_loc"])
    kept = old["mbox_conf"].reshape(-1, 4)[:, list(ROWS)]
    assert kept.std() > 0.5, "logits that hardly differ would prove little"
    np.testing.assert_array_equal(new["mbox_conf"].reshape(-1, 3), kept)


def spoil_class_count(source: Path) -> None:
    report = report_of(source)
    report["arch"]["num_classes"] = 6
    (source / "report.json").write_text(json.dumps(report))
    labels = load_label_map(source / "labelmap.prototxt").to_prototxt()
    extra = "".join(f'item {{ name: "extra{row}" label: {row} }}\n' for row in (4, 5))
    (source / "labelmap.prototxt").write_text(labels + extra)


def spoil_label_map(source: Path) -> None:
    text = (source / "labelmap.prototxt").read_text()
    (source / "labelmap.prototxt").write_text(text + 'item { name: "extra" label: 4 }')


def spoil_files(source: Path) -> None:
    report = report_of(source)
    report["files"] = []
    (source / "report.json").write_text(json.dumps(report))


def spoil_dialect(source: Path) -> None:
    report = report_of(source)
    report["files"]["test.prototxt"]["dialect"]["padding"] = "none"
    (source / "report.json").write_text(json.dumps(report))


def spoil_dialect_key(source: Path) -> None:
    report = report_of(source)
    report["files"]["test.prototxt"]["dialect"]["pading"] = "exact"
    (source / "report.json").write_text(json.dumps(report))


def spoil_layers(source: Path) -> None:
    net = read_caffemodel(source / "train.caffemodel")
    first = next(layer for layer in net.layer if layer.name == "Conv")
    first.name = "Konv"
    write_caffemodel(source / "train.caffemodel", net, force=True)


def spoil_weights(source: Path) -> None:
    data = (source / "train.caffemodel").read_bytes()
    (source / "train.caffemodel").write_bytes(data[:-100])


def spoil_arch(source: Path) -> None:
    report = report_of(source)
    report["arch"]["family"] = "v9"
    (source / "report.json").write_text(json.dumps(report))


@pytest.mark.parametrize(
    ("spoil", "kind", "message"),
    [
        (
            spoil_class_count,
            PrototxtError,
            "(6 classes): layer 'conv_8/expand_mbox_conf' must have 3 boxes x 6 classes = 18 outputs, its "
            "weights have the shape (12, 288, 1, 1)",
        ),
        (spoil_label_map, LabelMapError, "labelmap.prototxt has 5 classes but the model has 4"),
        (spoil_files, PrototxtError, "has no list of files"),
        (
            spoil_dialect,
            PrototxtError,
            "padding must be one of exact, slice, shift, pad-layer, tf_pad, symmetric, got 'none'",
        ),
        (spoil_dialect_key, PrototxtError, "'pading'"),
        (spoil_layers, PrototxtError, "layer 'Konv' is not in the net; layer 'Conv' has no weights"),
        (spoil_weights, PrototxtError, "train.caffemodel is not a caffemodel, or is cut short"),
        (spoil_arch, ArchError, "unknown family 'v9'"),
        (lambda source: (source / "deploy.caffemodel").unlink(), PrototxtError, "deploy.caffemodel missing"),
        (lambda source: (source / "train.caffemodel").unlink(), PrototxtError, "cannot read"),
    ],
)
def test_files_that_do_not_fit_change_nothing(
    source: Path, tmp_path: Path, spoil: Any, kind: type[SsdliteError], message: str
) -> None:
    spoil(source)
    (tmp_path / "m.yaml").write_text(MAPPING)
    before = {file.name: file.read_bytes() for file in source.iterdir()}
    with pytest.raises(kind) as error:
        remap_folder(source, tmp_path / "m.yaml", source, force=True)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert {file.name: file.read_bytes() for file in source.iterdir()} == before
    assert {file.name for file in tmp_path.iterdir()} == {"source", "m.yaml"}


def test_a_class_that_the_model_lacks(converted: Path, tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text("a: sqare\n")
    with pytest.raises(LabelMapError, match=r"4 classes: the model lacks 'sqare' \(did you mean 'square'\?\)"):
        remap_folder(converted, tmp_path / "m.yaml", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_is_replaced_only_with_force(source: Path, tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(MAPPING)
    with pytest.raises(OutputError, match="exists already"):
        remap_folder(source, tmp_path / "m.yaml", source)
    remap_folder(source, tmp_path / "m.yaml", source, force=True)
    assert ModelFolder.open(source).arch.num_classes == 3


def test_what_is_read_must_not_lie_in_the_folder_that_is_replaced(source: Path, tmp_path: Path) -> None:
    (source / "m.yaml").write_text(MAPPING)
    with pytest.raises(OutputError, match=r"the mapping .*m\.yaml lies inside .*source, which is replaced"):
        remap_folder(source, source / "m.yaml", source, force=True)
    inner = Path(shutil.copytree(source, source / "inner"))
    with pytest.raises(OutputError, match=r"the folder .*inner lies inside .*source, which is replaced"):
        remap_folder(inner, shutil.copyfile(inner / "m.yaml", tmp_path / "m.yaml"), source, force=True)
    assert (inner / "m.yaml").is_file()


def test_coco2voc_is_remap_with_its_mapping(
    converted: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["coco2voc", str(converted), "-o", str(converted / "never")])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("ssdlite_caffe.coco.coco2voc", run_name="__main__")
    assert end.value.code == 1
    assert "does not fit the model's 4 classes: the model lacks 'airplane'" in capsys.readouterr().err


def test_coco2voc_on_a_coco_model(shared_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = shared_models / "zoo2018_v2_ssdlite_90" / "frozen_inference_graph.pb"
    convert(model, tmp_path / "coco", ConvertOptions(label_map="coco"))
    monkeypatch.setattr("sys.argv", ["coco2voc", str(tmp_path / "coco"), "-o", str(tmp_path / "voc")])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("ssdlite_caffe.coco.coco2voc", run_name="__main__")
    assert end.value.code in (0, None)
    assert ModelFolder.open(tmp_path / "voc").labels == builtin("voc")
    old, new = (arrays(tmp_path / name / "deploy.caffemodel")["Conv_1_mbox_conf"] for name in ("coco", "voc"))
    person, tv, box = 15, 20, 4
    for before, after in zip(old, new, strict=True):
        assert after.shape[0] == 6 * 21
        assert after[box * 21 + person].tobytes() == before[box * 91 + 1].tobytes()
        assert after[box * 21 + tv].tobytes() == before[box * 91 + 72].tobytes()


def test_what_was_changed_by_hand_stays(converted: Path, source: Path, tmp_path: Path) -> None:
    """Such a prototxt is not rendered again: its class counts are changed."""
    text = (source / "deploy.prototxt").read_text()
    assert text.count("keep_top_k: 100") == 1
    (source / "deploy.prototxt").write_text(text.replace("keep_top_k: 100", "keep_top_k: 7"))
    (tmp_path / "m.yaml").write_text(MAPPING)
    remap_folder(source, tmp_path / "m.yaml", tmp_path / "changed")
    remap_folder(converted, tmp_path / "m.yaml", tmp_path / "expected")
    found, expected = (read_net(tmp_path / name / "deploy.prototxt") for name in ("changed", "expected"))
    assert found.layer[-1].detection_output_param.keep_top_k == 7
    found.layer[-1].detection_output_param.keep_top_k = 100
    assert found == expected
    for name in ("headless.prototxt", "train.prototxt", "train.caffemodel"):
        assert (tmp_path / "changed" / name).read_bytes() == (tmp_path / "expected" / name).read_bytes()


@pytest.mark.parametrize("name", [name for name, _ in STAGES])
def test_class_counts_are_changed_as_if_rendered(converted: Path, remapped: Path, name: str) -> None:
    folders = ModelFolder.open(converted), ModelFolder.open(remapped)
    net = read_net(converted / name)
    change_classes(net, (build(folders[0].arch), build(folders[1].arch)))
    assert net == read_net(remapped / name)
