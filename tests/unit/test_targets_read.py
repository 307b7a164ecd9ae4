"""Targets whose programs were read about, not run: each rule of their documents, checked by a small grammar of ours."""

from __future__ import annotations

import dataclasses
import re
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdlite_caffe.coco.label_map import numbered
from ssdlite_caffe.errors import ArchError
from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.gen_model.build import build, default_arch
from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.gen_model.render import render
from ssdlite_caffe.load.own_boxes import layer_priors
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.binary import read_caffemodel
from ssdlite_caffe.prototxt.lint import lint
from ssdlite_caffe.prototxt.text import parse
from ssdlite_caffe.runtimes.decode import decode_boxes, split_priors
from ssdlite_caffe.runtimes.reference_net import ReferenceNet
from ssdlite_caffe.targets.calibration import Calibration
from ssdlite_caffe.targets.table import TARGETS
from ssdlite_caffe.targets.write import refuse_targets, write_target
from tests.models import model_of

READ = ("hisilicon-svp", "hisilicon-nnie", "ascend", "acuity")
Folder = Callable[..., Path]


def small(**changes: Any) -> ArchSpec:
    return dataclasses.replace(default_arch("v2", 4, input_size=(96, 128)), **changes)


@pytest.fixture
def written(tmp_path: Path) -> Folder:
    """Writes a target's folder for a small detector; `images`: how many calibration images."""

    def write(name: str, arch: ArchSpec | None = None, images: int = 0) -> Path:
        arch = arch or small()
        folder = tmp_path / name
        folder.mkdir()
        pixels = np.zeros((*arch.input_size, 3), np.uint8)
        calibration = Calibration(tuple((f"{n}.png", pixels) for n in range(images)), ()) if images else None
        net = build(arch)
        write_target(folder, TARGETS[name], net, model_of(arch), numbered(arch.num_classes), calibration)
        return folder

    return write


def parsed(path: Path) -> caffe_pb2.NetParameter:
    return parse(path.read_text("utf-8"), caffe_pb2.NetParameter, path.name, allow_unknown=True)


def block(text: str, name: str) -> dict[str, str]:
    """The fields of `name { key: value ... }`, each once, which is all of the text."""
    found = re.fullmatch(rf"{name} \{{\n((?:  \w+: \S+\n)+)\}}\n", text)
    assert found, text
    pairs = [tuple(line.strip().split(": ")) for line in found[1].splitlines()]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", READ)
def test_names_and_types_are_those_of_the_caffemodel(name: str, written: Folder) -> None:
    folder = written(name)
    for net in TARGETS[name].nets:
        text, weights = parsed(folder / net.file), read_caffemodel(folder / net.weights)
        pairs, others = ([(one.name, one.type) for one in layers] for layers in (text.layer, weights.layer))
        assert pairs == others if net is TARGETS[name].nets[0] else set(pairs) < set(others)
        assert len({one.name for one in text.layer}) == len(text.layer)


@pytest.mark.parametrize("images", [0, 2])
@pytest.mark.parametrize("name", READ)
def test_files_that_are_named_are_there(name: str, images: int, written: Folder) -> None:
    folder = written(name, images=images)
    readme = (folder / "README.md").read_text("utf-8")
    made_later = {"headless.om", "headless.wk", "deploy.om"}
    named = set(re.findall(r"`([\w.]+\.(?:prototxt|caffemodel|cfg|txt|py|c|npy|bin|h|yml|om|wk))`", readme))
    listed = TARGETS[name].calibration_list
    assert named - made_later - ({listed} if not images else set()) <= {path.name for path in folder.iterdir()}
    if images:
        lines = (folder / listed).read_text().splitlines()
        assert len(lines) == images
        assert all((folder / line).is_file() for line in lines)
    assert "read: " in readme
    assert "not run" in readme


def fed(values: dict[str, str], channel: int, pixel: float) -> float:
    """What both preprocessings make of a value: (value - mean - min) * factor."""
    mean, least = float(values[f"mean_chn_{channel}"]), float(values.get(f"min_chn_{channel}", 0))
    return (pixel - mean - least) * float(values[f"var_reci_chn_{channel}"])


def test_svp_insert_op(written: Folder) -> None:
    values = block((written("hisilicon-svp") / "insert_op.cfg").read_text(), "aapp_op")
    numbers = {f"{kind}_chn_{channel}" for kind in ("mean", "var_reci") for channel in range(3)}
    assert values.keys() == {"related_input_rank", "input_format", "model_format"} | numbers
    assert values["related_input_rank"] == "0"
    assert (values["input_format"], values["model_format"]) == ("BGR_PLANAR", "BGR")
    for channel in range(3):
        assert -65504 <= float(values[f"mean_chn_{channel}"]) <= 65504
        assert 0 <= float(values[f"var_reci_chn_{channel}"]) <= 65504
        for pixel in (0, 1, 127, 255):
            assert fed(values, channel, pixel) == pytest.approx((pixel - 127.5) / 127.5, abs=1e-12)


def test_svp_net_and_anchors(written: Folder) -> None:
    folder = written("hisilicon-svp")
    net = build(small())
    types = {layer.type for layer in parsed(folder / "headless.prototxt").layer}
    assert not types & {"PriorBox", "DetectionOutput"}
    lines = (folder / "anchors.txt").read_text().splitlines()
    assert all(re.fullmatch(r"(-?\d+\.\d+ ){7}-?\d+\.\d+", line) for line in lines)
    values = np.asarray([line.split() for line in lines], np.float64)
    expected = layer_priors(net).astype(np.float64)
    expected[:, :4] *= (128, 96, 128, 96)
    np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-6)


def test_nnie_configuration(written: Folder) -> None:
    folder = written("hisilicon-nnie", images=3)
    lines = (folder / "nnie.cfg").read_text().splitlines()
    assert all(re.fullmatch(r"\[\w+\] \S+", line) for line in lines)
    values = dict(line.strip("[").split("] ") for line in lines)
    assert len(values) == len(lines)
    assert values.keys() == {
        "prototxt_file", "caffemodel_file", "net_type", "batch_num", "sparse_rate", "compile_mode", "is_simulation",
        "log_level", "instruction_name", "RGB_order", "image_type", "norm_type", "data_scale", "mean_file",
        "image_list", "internal_stride",
    }  # fmt: skip
    assert [values[key] for key in ("net_type", "image_type", "norm_type", "RGB_order")] == ["0", "1", "5", "BGR"]
    assert all((folder / values[key]).is_file() for key in values if key.endswith("_file") or key == "image_list")
    means = [float(line) for line in (folder / "mean.txt").read_text().splitlines()]
    assert len(means) == 3
    for pixel in (0, 127, 255):
        assert (pixel - means[0]) * float(values["data_scale"]) == pytest.approx((pixel - 127.5) / 127.5, abs=1e-12)
    types = {layer.type for layer in parsed(folder / "headless.prototxt").layer}
    assert not types & {"PriorBox", "DetectionOutput", "ReLU6", "Clip"}


def test_ascend_insert_op(written: Folder) -> None:
    values = block((written("ascend") / "insert_op.cfg").read_text(), "aipp_op")
    numbers = {f"{kind}_chn_{channel}" for kind in ("mean", "min", "var_reci") for channel in range(3)}
    others = {"aipp_mode", "related_input_rank", "input_format", "src_image_size_w", "src_image_size_h", "csc_switch"}
    assert values.keys() == others | {"rbuv_swap_switch"} | numbers
    assert (values["aipp_mode"], values["input_format"]) == ("static", "RGB888_U8")
    assert (values["src_image_size_w"], values["src_image_size_h"]) == ("128", "96")
    assert (values["csc_switch"], values["rbuv_swap_switch"]) == ("false", "true")
    for channel in range(3):
        assert 0 <= int(values[f"mean_chn_{channel}"]) <= 255  # a whole number
        least = float(values[f"min_chn_{channel}"])
        assert 0 <= least < 1
        assert float(np.float16(least)) == least
        for pixel in (0, 127, 255):
            assert fed(values, channel, pixel) == pytest.approx((pixel - 127.5) / 127.5, abs=1e-12)


def detection(text: str) -> dict[str, str]:
    """The fields of the last layer, which is SSDDetectionOutput."""
    start = text.rindex("layer {\n")
    found = re.fullmatch(
        r'layer \{\n  name: "detection_out"\n  type: "SSDDetectionOutput"\n  bottom: "mbox_loc"\n'
        r'  bottom: "mbox_conf_flatten"\n  bottom: "mbox_priorbox"\n  top: "detection_count"\n  top: "detection_out"\n'
        r"  ssddetectionoutput_param \{\n((?:    \w+: \S+\n)+)  \}\n\}\n",
        text[start:],
    )
    assert found, text[start:]
    return dict(line.strip().split(": ") for line in found[1].splitlines())


@pytest.mark.parametrize(
    ("size", "top_k", "cut"), [((96, 128), None, False), ((300, 300), 1024, True)], ids=["small", "cut"]
)
def test_ascend_detection_layer(size: tuple[int, int], top_k: int | None, cut: bool, written: Folder) -> None:
    arch = small(input_size=size, score_converter="softmax")
    boxes = build(arch).num_default_boxes
    assert (boxes > 1024) is cut
    folder = written("ascend", arch)
    values = detection((folder / "deploy.prototxt").read_text())
    assert values == {
        "num_classes": "4", "share_location": "true", "background_label_id": "0",
        "iou_threshold": repr(arch.nms.iou_threshold), "top_k": str(top_k or boxes), "eta": "1.0",
        "variance_encoded_in_target": "false", "code_type": "2", "keep_top_k": str(arch.nms.max_total),
        "confidence_threshold": repr(arch.nms.score_threshold),
    }  # fmt: skip
    readme = (folder / "README.md").read_text()
    assert ("best 1024 boxes of a class" in readme) is cut
    assert "`detection_count` (1 x 8), `detection_out` (1 x 128 x 8)" in readme


def test_ascend_net_has_no_layer_in_place(written: Folder) -> None:
    layers = parsed(written("ascend") / "deploy.prototxt").layer
    for layer in layers:
        assert not set(layer.top) & set(layer.bottom)
        assert len(layer.top) != 1 or layer.type == "Input" or layer.top[0] == layer.name
    assert not {layer.type for layer in layers} & {"PriorBox", "DetectionOutput"}


def test_ascend_says_what_it_leaves_out_of_a_model_that_clips_first(written: Folder) -> None:
    arch = small()
    arch = dataclasses.replace(arch, nms=dataclasses.replace(arch.nms, clip_first=True))
    folder = written("ascend", arch)
    assert "boxes are not clipped to the image before suppression" in (folder / "README.md").read_text()
    assert "code_type: 2" in (folder / "deploy.prototxt").read_text()


def test_ascend_refuses_a_mean_that_aipp_cannot_hold() -> None:
    with pytest.raises(ArchError, match="target ascend: AIPP subtracts a mean of 0 to 255, the model's is -3"):
        refuse_targets(build(small(pixel_mean=-3.0)), [TARGETS["ascend"]])


def test_acuity_input(written: Folder) -> None:
    folder = written("acuity", images=2)
    text = (folder / "headless_inputmeta.yml").read_text()
    assert "\t" not in text
    lines = [line.strip() for line in text.splitlines()]
    for line in ("- path: dataset.txt", "- lid: data", "layout: nchw", "reverse_channel: true", "type: TEXT"):
        assert lines.count(line) == 1, line
    at = lines.index("shape:")
    assert lines[at + 1 : at + 5] == ["- 1", "- 3", "- 96", "- 128"]
    at = lines.index("mean:")
    assert lines[at + 1 : at + 4] == ["- 127.5"] * 3
    assert lines[at + 4] == "scale: 0.00784313725490196"
    types = {layer.type for layer in parsed(folder / "headless.prototxt").layer}
    assert "Clip" in types
    assert not types & {"ReLU6", "Power", "PriorBox", "DetectionOutput"}


def run_in_double(folder: Path, prototxt: str, weights: str, outputs: list[str]) -> dict[str, np.ndarray]:
    """Blobs of a net for one input, in float64, from numpy."""
    net = ReferenceNet(folder / prototxt, folder / weights, double=True)
    blob = np.random.default_rng(1).uniform(-1, 1, (1, 3, 64, 96)).astype(np.float32)
    return net.forward(blob, outputs)


def test_every_net_computes_the_same(written: Folder) -> None:
    """Box encodings, or boxes where the default boxes are constants, and logits; weights are the caffemodel's own."""
    arch = default_arch("v3-small", 4, input_size=(64, 96))
    usual = run_in_double(
        written("caffe-ssd", arch), "deploy.prototxt", "deploy.caffemodel", ["mbox_loc", "mbox_conf", "mbox_priorbox"]
    )
    for name in ("hisilicon-svp", "hisilicon-nnie", "acuity"):
        found = run_in_double(
            written(name, arch), "headless.prototxt", "headless.caffemodel", ["mbox_loc", "mbox_conf"]
        )
        for blob, values in found.items():
            np.testing.assert_allclose(values, usual[blob], rtol=1e-6, atol=1e-6, err_msg=f"{name} {blob}")
    folder = written("ascend", arch)
    text = (folder / "deploy.prototxt").read_text()
    (folder / "body.prototxt").write_text(text[: text.rindex("layer {\n")])
    found = run_in_double(folder, "body.prototxt", "deploy.caffemodel", [*usual, "mbox_conf_flatten"])
    boxes = [decode_boxes(one["mbox_loc"], *split_priors(one["mbox_priorbox"])) for one in (usual, found)]
    np.testing.assert_allclose(boxes[1], boxes[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["mbox_conf"], usual["mbox_conf"], rtol=1e-6, atol=1e-6)
    scores = 1 / (1 + np.exp(-usual["mbox_conf"]))
    np.testing.assert_allclose(found["mbox_conf_flatten"], scores, rtol=1e-6, atol=1e-6)


PEGASUS = """
test "$1" = import && echo '{"Layers": {"attach_1": {"op": "output"}, "in/17": {"op": "input"}}}' > headless_maps.json
exit 0
"""


def run(folder: Path, *arguments: str, body: str = "", net: str = "headless") -> subprocess.CompletedProcess[str]:
    """Run convert.sh with programs that write down how they were started."""
    places = folder.parent / "bin"
    places.mkdir()
    for name in ("atc", "pegasus"):
        program = places / name
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> started\n{body}')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return subprocess.run(
        ["sh", folder / "convert.sh", *arguments], capture_output=True, text=True, check=False,
        env={"PATH": f"{places}:/usr/bin:/bin", "NET": net},
    )  # fmt: skip


@pytest.mark.parametrize("name", ["hisilicon-svp", "ascend"])
def test_atc_is_started_with_files_that_are_there(name: str, written: Folder) -> None:
    folder = written(name, images=1)
    done = run(folder, "CHIP")
    assert (done.returncode, done.stderr) == (0, "")
    values = dict(line.lstrip("-").split("=", 1) for line in (folder / "started").read_text().splitlines())
    assert values["framework"] == "0"
    assert values["soc_version"] == "CHIP"
    for key in ("model", "weight", "insert_op_conf"):
        assert (folder / values[key]).is_file()
    if name == "ascend":
        assert values["input_shape"] == "data:1,3,96,128"
    else:
        assert values["image_list"] == "data:image_list.txt"


def test_pegasus_is_given_its_own_name_of_the_input(written: Folder) -> None:
    folder = written("acuity", images=3)
    done = run(folder, "CHIP", body=PEGASUS, net="headless_maps")
    assert (done.returncode, done.stderr) == (0, "")
    text = (folder / "inputmeta.yml").read_text()
    assert "lid: in/17\n" in text
    started = (folder / "started").read_text().split()
    assert started.count("inputmeta.yml") == 2
    assert started[started.index("--iterations") + 1] == "3"
    assert started.count("headless_maps.prototxt") == started.count("nb/headless_maps") == 1


@pytest.mark.parametrize(("name", "listed"), [("hisilicon-svp", "image_list.txt"), ("acuity", "dataset.txt")])
def test_without_images_the_script_says_what_is_missing(name: str, listed: str, written: Folder) -> None:
    folder = written(name)
    done = run(folder, "CHIP")
    assert (done.returncode, done.stderr) == (1, f"{listed} is missing; see README.md\n")
    assert not (folder / "started").exists()


def test_bvlc_is_refused_with_its_reason() -> None:
    with pytest.raises(ArchError, match="target bvlc: BVLC Caffe has no Permute, PriorBox and DetectionOutput"):
        refuse_targets(build(small()), [TARGETS["bvlc"]])


def test_a_caffe_fork_gets_the_usual_nets(written: Folder) -> None:
    folder, net = written("caffe-ssd"), build(small())
    assert (folder / "deploy.prototxt").read_text() == render(net, Dialect(), "deploy")
    assert (folder / "deploy_stock.prototxt").read_text() == render(net, Dialect(activation="stock"), "deploy")
    compile((folder / "detect.py").read_text(), "detect.py", "exec")


@pytest.mark.parametrize(("family", "clip_first"), [("v1", False), ("v2", True), ("v3-small", True)])
@pytest.mark.parametrize("name", TARGETS)
def test_lint_finds_no_error_in_a_targets_nets(name: str, family: str, clip_first: bool) -> None:
    arch = default_arch(family, 4)
    arch = dataclasses.replace(arch, nms=dataclasses.replace(arch.nms, clip_first=clip_first))
    net, target = build(arch), TARGETS[name]
    if target.refuses(net):
        assert name == "bvlc" or (name == "onnx" and family.startswith("v3"))
        return
    for one in target.nets_of(net):
        text = render(net, one.dialect, one.stage)
        report = lint(one.edit.text(text) if one.edit else text, runtime=target.limits)
        assert [problem for problem in report.problems if problem.severity == "error"] == []
