"""verify finds the first stage that differs, and says which folders it cannot judge."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from ssdlite_caffe.errors import ImageError, ModelError, OutputError
from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.prototxt.binary import blob_from_array, blob_to_array, read_caffemodel, write_caffemodel
from ssdlite_caffe.runtimes.model_folder import REPORT, ModelFolder
from ssdlite_caffe.runtimes.reference_net import ReferenceNet
from ssdlite_caffe.runtimes.resize import caffe_blob, input_of
from ssdlite_caffe.tools.comparison import Bounds
from ssdlite_caffe.tools.convert import ConvertOptions, convert
from ssdlite_caffe.tools.remap import remap_folder
from ssdlite_caffe.tools.verify import VerifyReport, verify
from ssdlite_caffe.tools.verify_html import page
from ssdlite_caffe.tools.verify_report import print_report, verify_images
from ssdlite_caffe.tools.verify_text import verdict, worst_of_sections
from tests.scenes import draw_scene

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow, pytest.mark.opencv, pytest.mark.xdist_group("verify")]

SCENES = [(f"scene {seed}", draw_scene(seed)[0]) for seed in range(2)]


@pytest.fixture
def copy(example_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(example_folder, tmp_path / "copy"))


def change_blob(folder: Path, name: str, change: Callable[[np.ndarray], None], number: int = 0) -> None:
    """Change a blob of the deploy net's weights."""
    net = read_caffemodel(folder / "deploy.caffemodel")
    layer = next(layer for layer in net.layer if layer.name == name)
    array = blob_to_array(layer.blobs[number])
    change(array)
    layer.blobs[number].CopyFrom(blob_from_array(array))
    write_caffemodel(folder / "deploy.caffemodel", net, force=True)


def flip_largest(array: np.ndarray) -> None:
    index = np.unravel_index(np.abs(array).argmax(), array.shape)
    array[index] *= -1


def compared(source: Path, folder: Path, **kwargs: Any) -> VerifyReport:
    return verify(source, ModelFolder.open(folder), SCENES, **kwargs)


def test_an_untouched_folder_is_equal(example_model: Path, example_folder: Path) -> None:
    report = compared(example_model, example_folder)
    assert report.first_failure is None
    assert verdict(report) == "equal on 2 images"
    data = json.loads(json.dumps(report.to_dict()))
    assert data["ok"] is True
    assert data["first_failure"] is None
    stages = [row["stage"] for row in data["rows"]]
    assert stages[:4] == ["settings", "input", "Conv", "conv/depthwise"]
    whole = ["boxes in float64", "scores in float64"]
    assert stages[-7:] == ["headless", "boxes", "scores", *whole, "detections", "other files"]
    sections = worst_of_sections(report.rows)
    assert [row.stage for row in sections[-7:]] == stages[-7:]
    for stage, bound in zip(whole, (1e-7, 1e-9), strict=True):
        row = next(row for row in data["rows"] if row["stage"] == stage)
        assert row["section"] == "float64"
        assert row["bound"] == pytest.approx(bound, rel=0.01)
        assert row["absolute"] == row["double"]["absolute"] < bound
    assert len(sections) < len(report.rows) / 2


@pytest.mark.parametrize(
    ("layer", "blob", "stage"),
    [
        ("Conv", 0, "Conv"),
        ("conv/squeeze_excite/Conv_1", 0, "conv/squeeze_excite/Conv_1"),
        ("conv_5/depthwise", 0, "conv_5/depthwise"),
        ("Conv_1_mbox_conf/depthwise", 0, "Conv_1_mbox_conf/depthwise"),
        ("layer_13_2_5_mbox_conf", 1, "layer_13_2_5_mbox_conf"),  # a bias: its largest weight reads a zero here
        ("Conv_1_mbox_loc", 0, "boxes"),
    ],
)
def test_one_flipped_weight_is_found_at_its_layer(
    example_model: Path, copy: Path, layer: str, blob: int, stage: str
) -> None:
    change_blob(copy, layer, flip_largest, blob)
    report = compared(example_model, copy)
    failure = report.first_failure
    assert failure is not None
    assert failure.stage == stage
    assert verdict(report).startswith(f"not the same net: the first stage that differs is {stage}: ")
    before = [row.ok for row in report.rows[: report.rows.index(failure)]]
    assert all(before)
    shown = next(row for row in worst_of_sections(report.rows) if not row.ok)
    assert shown.stage == stage


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        (
            "deploy.prototxt",
            "nms_threshold: 0.6",
            "nms_threshold: 0.61",
            "nms_threshold of deploy.prototxt is 0.61",
        ),
        ("deploy.prototxt", "keep_top_k: 100", "keep_top_k: 99", "keep_top_k of deploy.prototxt is 99, must be 100"),
        (
            "report.json",
            '"pixel_mean": 127.5',
            '"pixel_mean": 127.0',
            "pixel_mean of report.json is 127.0",
        ),
        ("report.json", '"max_total": 100', '"max_total": 90', "max_total of report.json is 90, the model's 100"),
    ],
)
def test_settings_that_no_layer_shows(
    example_model: Path, copy: Path, name: str, old: str, new: str, said: str
) -> None:
    text = (copy / name).read_text()
    assert old in text
    (copy / name).write_text(text.replace(old, new))
    failure = compared(example_model, copy).first_failure
    assert failure is not None
    assert failure.stage == "settings"
    assert said in failure.note


def test_every_image_is_compared_in_float64(example_model: Path, copy: Path) -> None:
    """ReLU for ReLU6 is the same on a grey image, where no value of the layer reaches 6."""
    scene, grey = SCENES[0], ("grey", np.full((320, 320, 3), 127, np.uint8))
    net, model = ReferenceNet(copy / "deploy.prototxt", copy / "deploy.caffemodel"), ModelFolder.open(copy)
    relu6 = [layer.name for layer in net.layers if layer.type == "ReLU6" and layer.name.endswith("depthwise/relu")]
    tops = {name: next(layer.top[0] for layer in net.layers if layer.name == name) for name in relu6}
    seen = [net.forward(caffe_blob(input_of(model.arch, image)), list(tops.values())) for _, image in (grey, scene)]
    name = next(name for name, top in tops.items() if seen[0][top].max() < 6 <= seen[1][top].max())
    text = (copy / "deploy.prototxt").read_text()
    (copy / "deploy.prototxt").write_text(re.sub(rf'(name: "{name}"\s+type: ")ReLU6', r"\1ReLU", text))
    assert verify(example_model, ModelFolder.open(copy), [grey]).first_failure is None
    failure = verify(example_model, ModelFolder.open(copy), [grey, scene]).first_failure
    assert failure is not None
    assert failure.stage == name.removesuffix("/relu")
    assert failure.double is not None
    assert not failure.double.ok


def test_a_nan_is_found(example_model: Path, copy: Path) -> None:
    """Not lost among comparisons that are never true."""

    def spoil(array: np.ndarray) -> None:
        array[3] = np.nan

    change_blob(copy, "conv_4/expand", spoil, 1)
    report = compared(example_model, copy)
    assert report.first_failure is not None
    assert report.first_failure.stage == "conv_4/expand"
    assert np.isnan(report.first_failure.absolute)


def test_other_thresholds_are_found_in_the_detections(example_model: Path, copy: Path) -> None:
    """Raw boxes and scores agree; what DetectionOutput makes of them does not."""
    prototxt = copy / "deploy.prototxt"
    text = prototxt.read_text()
    assert "nms_threshold: 0.6" in text
    prototxt.write_text(text.replace("nms_threshold: 0.6", "nms_threshold: 0.3"))
    failed = [row for row in compared(example_model, copy).rows if not row.ok]
    assert [row.stage for row in failed] == ["settings", "detections"]
    assert "only in the reference: class" in failed[1].note


def test_an_inexact_dialect_is_named(example_model: Path, tmp_path: Path) -> None:
    convert(example_model, tmp_path / "out", ConvertOptions(dialect=Dialect(padding="symmetric")))
    report = compared(example_model, tmp_path / "out")
    assert report.first_failure is not None
    assert report.first_failure.stage == "Conv"
    assert verdict(report).endswith("(the folder says that it is not exact)")


def test_an_overridden_threshold_is_still_compared(example_model: Path, tmp_path: Path) -> None:
    """The graph's own detections do not know of it; the decoder makes TensorFlow's from its boxes."""
    convert(example_model, tmp_path / "out", ConvertOptions(score_threshold=0.2))
    report = compared(example_model, tmp_path / "out")
    assert report.first_failure is None
    detections = next(row for row in report.rows if row.stage == "detections")
    assert 0 < detections.shape[0] < 60


@pytest.mark.parametrize("name", ["headless.prototxt", "train.caffemodel", "labelmap.prototxt"])
def test_files_that_are_not_run_must_be_as_converted(example_model: Path, copy: Path, name: str) -> None:
    """The headless net is run; the others are compared with what convert wrote."""
    data = (copy / name).read_bytes()
    if name == "headless.prototxt":
        data = data.replace(b"min_size: 112.0", b"min_size: 113.0", 1)
        assert data != (copy / name).read_bytes()
    else:
        data += b"\n"
    (copy / name).write_bytes(data)
    failure = compared(example_model, copy).first_failure
    assert failure is not None
    assert failure.stage == ("headless" if name == "headless.prototxt" else "other files")
    assert failure.stage == "headless" or failure.note == f"changed since the conversion: {name}"


def test_bounds_can_be_set(example_model: Path, example_folder: Path) -> None:
    failure = compared(example_model, example_folder, bounds=Bounds(box=0, score=0)).first_failure
    assert failure is not None
    assert failure.stage in ("boxes", "scores")


class TestRefused:
    def test_a_folder_of_another_model(self, example_model: Path, copy: Path) -> None:
        report = json.loads((copy / REPORT).read_text())
        for tensors in ({**report["tensors"], "sha256": "0" * 64}, {}, None, 3):
            (copy / REPORT).write_text(json.dumps({**report, "tensors": tensors}))
            with pytest.raises(ModelError, match="was converted from another model: its weights differ from those of"):
                compared(example_model, copy)

    def test_remapped_classes(self, example_model: Path, example_folder: Path, tmp_path: Path) -> None:
        (tmp_path / "map.yaml").write_text("round: [class_1]\n")
        remap_folder(example_folder, tmp_path / "map.yaml", tmp_path / "out")
        with pytest.raises(ModelError, match="has remapped classes; give the folder that it was remapped from"):
            compared(example_model, tmp_path / "out")

    def test_no_image(self, example_model: Path, example_folder: Path) -> None:
        with pytest.raises(ModelError, match="at least one image"):
            verify(example_model, ModelFolder.open(example_folder), [])

    def test_an_image_that_is_not_there(self, example_model: Path, example_folder: Path, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match="does not exist"):
            verify_images(example_model, example_folder, [tmp_path / "none.png"])


@pytest.fixture(scope="module")
def shapes(shared_models: Path) -> Path:
    """A model of which there is a checkpoint."""
    return shared_models / "shapes_v3_small_3"


@pytest.fixture(scope="module")
def from_checkpoint(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("checkpoint") / "out"
    convert(shapes / "model.ckpt", out, ConvertOptions())
    return out


def test_a_checkpoint_is_compared_through_the_graph_frozen_from_it(shapes: Path, from_checkpoint: Path) -> None:
    assert compared(shapes / "frozen_inference_graph.pb", from_checkpoint).first_failure is None


def test_the_graph_of_a_checkpoint_is_in_its_meta_file(shapes: Path, from_checkpoint: Path, tmp_path: Path) -> None:
    report = compared(shapes / "model.ckpt", from_checkpoint)
    assert report.first_failure is None
    assert len([row for row in report.rows if row.relative_bound]) == 82, "all 88 layers but the 6 box predictors"
    for path in (*shapes.glob("model.ckpt.[di]*"), shapes / "pipeline.config"):
        shutil.copy(path, tmp_path)
    with pytest.raises(ModelError, match=r"without model\.ckpt\.meta, so it has no graph to run"):
        compared(tmp_path / "model.ckpt", from_checkpoint)


def test_the_graph_of_a_training_is_rejected(shapes: Path, from_checkpoint: Path, tmp_path: Path) -> None:
    for path in (*shapes.glob("model.ckpt.*"), shapes / "pipeline.config"):
        shutil.copy(path, tmp_path)
    meta = (tmp_path / "model.ckpt.meta").read_bytes()
    definition = pb.MetaGraphDef.FromString(meta)
    for node in definition.graph_def.node:
        if node.op.startswith("FusedBatchNorm"):
            node.attr["is_training"].b = True
    (tmp_path / "model.ckpt.meta").write_bytes(definition.SerializeToString())
    with pytest.raises(ModelError, match=r"model\.ckpt\.meta is the graph of a training, so this checkpoint has no"):
        compared(tmp_path / "model.ckpt", from_checkpoint)


def test_the_table_shows_whole_names(
    example_model: Path, example_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = compared(example_model, example_folder)
    print_report(report, all_layers=True)
    shown = capsys.readouterr().out
    assert all(f"\n{row.stage} " in shown for row in report.rows)
    assert shown.startswith("equal on 2 images\n")
    print_report(report)
    assert len(capsys.readouterr().out.splitlines()) < len(shown.splitlines()) / 2


def test_the_page_holds_both_sides(example_model: Path, example_folder: Path, tmp_path: Path) -> None:
    html = tmp_path / "made" / "page.html"
    said: list[str] = []
    odd = tmp_path / "p\udcff.png"
    shutil.copy(example_model.parent / "shapes.png", odd)
    report = verify_images(example_model, example_folder, [odd], html=html)
    assert "p\\udcff.png" in html.read_text()
    options: dict[str, Any] = {"limit": 2, "html": html, "progress": said.append}
    with pytest.raises(OutputError, match="exists already"):
        verify_images(example_model, example_folder, [], **options)
    report = verify_images(example_model, example_folder, [], **options, force=True)
    text = html.read_text()
    assert (text.count("data:image/jpeg;base64,"), text.count("data:image/png;base64,")) == (4, 2)
    assert verdict(report) in text
    assert said == ["starting TensorFlow", "compared drawn 0", "compared drawn 1"]
    assert page(report, [], []).count("data:") == 0
    verify_images(example_model, example_folder, [], **options, force=True)
    assert html.read_text() == text, "the same comparison gives the same page"
