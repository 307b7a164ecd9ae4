"""The folders of targets whose programs can be run: what is in them; scripts and settings can be read."""

from __future__ import annotations

import ast
import dataclasses
import json
import math
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import cv2
import numpy as np
import pytest

from ssdlite_caffe import convert
from ssdlite_caffe.dump.model import DumpedModel
from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.gen_model.build import build, default_arch
from ssdlite_caffe.gen_model.prior_boxes import caffe_prior_boxes
from ssdlite_caffe.load.own_boxes import headless_priors
from ssdlite_caffe.prototxt.text import read_net
from ssdlite_caffe.resizer import Resizer
from ssdlite_caffe.runtimes.images import read_image
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.opencv_net import OpenCvNet
from ssdlite_caffe.runtimes.resize import caffe_blob, pixels_of
from ssdlite_caffe.targets.decoder import decoder_files
from ssdlite_caffe.targets.facts import Facts, NetFacts, constant_values, facts_of
from ssdlite_caffe.targets.ncnn import NCNN
from ssdlite_caffe.targets.onnx import ONNX
from ssdlite_caffe.targets.opencv import OPENCV
from ssdlite_caffe.targets.openvino import OPENVINO
from ssdlite_caffe.targets.rknn import RKNN
from ssdlite_caffe.targets.table import TARGETS
from ssdlite_caffe.targets.write import rendered
from tests.decoders import load_file, names_of, random_outputs, reference, small_net
from tests.scenes import draw_scene

RUN = ("opencv", "mnn", "openvino", "ncnn", "rknn", "sophgo", "paddle")
HEADLESS = RUN[1:]
SCALE = "0.00784313725490196"


@pytest.fixture(scope="module")
def expected_folder(example_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some targets with the expected outputs of one image."""
    out = tmp_path_factory.mktemp("expected") / "out"
    image = example_model.parent / "shapes.png"
    convert(example_model, out, targets=["mnn", "rknn", "opencv"], expected=[image])
    return out


def types(path: Path) -> set[str]:
    return {layer.type for layer in read_net(path).layer}


@pytest.mark.parametrize("name", RUN)
def test_readme_is_short_and_names_what_is_there(name: str, targets_folder: Path) -> None:
    folder = targets_folder / name
    text = (folder / "README.md").read_text("utf-8")
    assert text.startswith(f"# {TARGETS[name].title}\n")
    assert len(text.splitlines()) <= 25
    assert "\n\n\n" not in text
    for line in text.splitlines():
        if line.startswith("      "):  # a command
            words = [word for word in shlex.split(line) if "=" not in word]
            assert (folder / words[1]).is_file(), line


@pytest.mark.parametrize("name", RUN)
def test_scripts_compile(name: str, targets_folder: Path) -> None:
    folder = targets_folder / name
    for path in folder.glob("*.py"):
        ast.parse(path.read_text("utf-8"), str(path))
        assert max(map(len, path.read_text("utf-8").splitlines())) <= 160, path
    for path in folder.glob("*.sh"):
        subprocess.run(["sh", "-n", path], check=True)


@pytest.mark.parametrize("name", RUN)
def test_report_names_every_file(name: str, targets_folder: Path) -> None:
    entry = json.loads((targets_folder / "report.json").read_text("utf-8"))["targets"][name]
    there = {path.relative_to(targets_folder / name).as_posix() for path in (targets_folder / name).rglob("*.*")}
    assert entry["files"].keys() == there
    assert entry["exact"] is (name != "ncnn")  # of its deploy net


@pytest.mark.parametrize("name", HEADLESS)
def test_headless_nets_have_no_default_boxes_and_give_the_models_outputs(name: str, targets_folder: Path) -> None:
    folder = targets_folder / name
    assert not types(folder / "headless.prototxt") & {"PriorBox", "DetectionOutput"}
    model = ModelFolder.open(targets_folder)
    blob = caffe_blob((pixels_of(model.arch, draw_scene(1)[0]) - np.float32(127.5))[None] / np.float32(127.5))
    wanted = OpenCvNet(model.headless_prototxt, model.deploy_caffemodel).forward(blob, ["mbox_loc", "mbox_conf"])
    (weights,) = folder.glob("*.caffemodel")
    found = OpenCvNet(folder / "headless.prototxt", weights).forward(blob, ["mbox_loc", "mbox_conf"])
    for output, values in wanted.items():
        assert np.abs(found[output] - values).max() <= 1e-5 * np.abs(values).max()


@pytest.mark.parametrize("name", HEADLESS)
def test_decoders_and_default_boxes(name: str, targets_folder: Path) -> None:
    folder = targets_folder / name
    net = build(ModelFolder.open(targets_folder).arch)
    boxes = [caffe_prior_boxes(m.prior, m.size, net.arch.input_size) for m in net.feature_maps]
    priors = np.load(folder / "priors.npy")
    assert priors.shape == (2034, 8)
    assert priors.dtype == np.float32
    np.testing.assert_array_equal(priors[:, :4], np.concatenate(boxes).astype(np.float32))
    np.testing.assert_array_equal(priors[:, 4:], np.broadcast_to(np.float32(net.arch.variances), (2034, 4)))
    flat = np.fromfile(folder / "priors.bin", "<f4")
    np.testing.assert_array_equal(flat, np.concatenate([priors[:, :4].ravel(), priors[:, 4:].ravel()]))
    assert {"decode.py", "decode.c", "priors.h"} <= {path.name for path in folder.iterdir()}


def test_decode_reads_priors_of_the_folder_as_of_priorbox(targets_folder: Path) -> None:
    module = load_file(targets_folder / "mnn" / "decode.py")
    priors = np.load(targets_folder / "mnn" / "priors.npy")
    blob = np.stack([priors[:, :4].ravel(), priors[:, 4:].ravel()])[None]
    generator = np.random.default_rng(0)
    loc = generator.normal(size=(1, 2034 * 4)).astype(np.float32)
    conf = generator.normal(size=(1, 2034 * 4)).astype(np.float32)
    for one, other in zip(module.decode(loc, conf, priors), module.decode(loc, conf, blob), strict=True):
        assert one.tobytes() == other.tobytes()
        assert len(one)


def test_opencvs_script_detects(targets_folder: Path) -> None:
    image = Path(__file__).resolve().parents[2] / "examples" / "shapes.png"
    done = subprocess.run(
        [sys.executable, targets_folder / "opencv" / "detect.py", image], capture_output=True, text=True, check=True
    )
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(rows) == 6
    best = max(rows, key=lambda row: float(row[2]))
    assert best[2:] == ["0.9443", "137.4", "64.0", "191.0", "116.8"]
    none = subprocess.run(
        [sys.executable, targets_folder / "opencv" / "detect.py", "no.png"], capture_output=True, text=True, check=False
    )
    assert (none.returncode, none.stderr) == (1, "no.png is not an image that OpenCV can read\n")


CAFFE = """
import types
import numpy as np
TEST = 1
class Net:
    def __init__(self, *arguments):
        self.blobs = {"data": types.SimpleNamespace(data=np.zeros((1, 3, HEIGHT, WIDTH), np.float32))}
    def forward(self):
        np.save("fed.npy", self.blobs["data"].data)
        return {"detection_out": np.float32([[[[0, 2, 0.9, 0.25, 0.25, 0.5, 1.0]]]])}
"""
"""A module for caffe-ssd's script: it detects one object of class 2, and writes what it was fed."""


def caffe_ssd(folder: Path, *arguments: object) -> list[list[str]]:
    """What caffe-ssd's script prints for a net of this folder's ssd.py."""
    module = load_file(folder / "ssd.py")
    text = CAFFE.replace("HEIGHT", str(module.HEIGHT)).replace("WIDTH", str(module.WIDTH))
    (folder / "caffe.py").write_text(text, "utf-8")
    done = subprocess.run(
        [sys.executable, folder / "detect.py", *map(str, arguments)],
        cwd=folder, capture_output=True, check=True,
    )  # fmt: skip
    return [line.split("\t") for line in done.stdout.decode("utf-8").rstrip("\n").split("\n")]


@pytest.mark.parametrize("name", ["opencv", "caffe-ssd"])
def test_names_are_lines_that_end_in_newlines_alone(name: str, targets_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(targets_folder / name, tmp_path / name)
    names = (folder / "labels.txt").read_text("utf-8").splitlines()
    (folder / "labels.txt").write_text("".join(f"{one}\u2028a\x85b\n" for one in names), "utf-8")
    image = Path(__file__).resolve().parents[2] / "examples" / "shapes.png"
    if name == "caffe-ssd":
        rows = caffe_ssd(folder, image)
    else:
        done = subprocess.run([sys.executable, folder / "detect.py", image], capture_output=True, check=True)
        rows = [line.split("\t") for line in done.stdout.decode("utf-8").rstrip("\n").split("\n")]
    assert {row[1] for row in rows} <= {f"{one}\u2028a\x85b" for one in names}


@pytest.mark.parametrize("name", ["mnn", "rknn", "opencv"])
def test_expected_outputs_are_those_of_the_folders_nets(name: str, expected_folder: Path) -> None:
    folder = expected_folder / name
    images = sorted(path.name for path in (folder / "expected").iterdir())
    assert images == ["shapes"]
    assert "- `expected/`: what the nets are given for 1 image, and should give" in (folder / "README.md").read_text()
    place, source = folder / "expected" / "shapes", expected_folder / "expected" / "shapes"
    for file in ("image.png", "input.npy", "detections.json"):
        assert (place / file).read_bytes() == (source / file).read_bytes()
    headless = list(folder.glob("headless*.prototxt"))
    assert bool(headless) == (name != "opencv")
    names = set()
    for prototxt in headless:
        (weights,) = folder.glob("*.caffemodel")
        net = read_net(prototxt)
        read = {bottom for layer in net.layer for bottom in layer.bottom}
        outputs = [top for layer in net.layer for top in layer.top if top not in read]
        found = OpenCvNet(prototxt, weights).forward(np.load(place / "input.npy"), outputs)
        assert len(outputs) in (2, 12)
        for output, values in found.items():
            file = re.sub(r"\W", "_", output)
            names.add(file)
            wanted = np.load(place / f"{file}.npy")
            assert wanted.shape == values.shape
            np.testing.assert_allclose(wanted, values, rtol=0, atol=1e-5 * max(1, np.abs(values).max()))
    assert {path.stem for path in place.glob("*.npy")} == names | {"input"}


def test_outputs_that_are_dumped_are_read_by_verify(expected_folder: Path, tmp_path: Path) -> None:
    """With values of `expected/` in place of a program's: what is dumped of them is what they were."""
    folder = shutil.copytree(expected_folder / "mnn", tmp_path / "mnn")
    script = (
        "import ssd, numpy, os\n"
        "def outputs(blob):\n"
        "    place = os.path.join('expected', 'shapes')\n"
        "    return [numpy.load(os.path.join(place, n + '.npy')) for n in ('mbox_loc', 'mbox_conf')]\n"
        "ssd.quietly(ssd.main, outputs)\n"
    )
    (folder / "stand_in.py").write_text(script, "utf-8")
    shutil.copy(folder / "expected" / "shapes" / "image.png", folder / "other.png")
    command = [sys.executable, "stand_in.py", "--dump", "dumped", "expected/shapes/input.npy", "other.png"]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    detections = json.loads((folder / "expected" / "shapes" / "detections.json").read_text("utf-8"))
    shown = [f"{one['score']:.4f}" for one in detections if one["score"] >= 0.3]
    assert len(shown) == 6
    assert [row[2] for row in rows] == shown * 2
    for name in ("shapes", "other"):
        for output in ("mbox_loc", "mbox_conf"):
            wanted = np.load(folder / "expected" / "shapes" / f"{output}.npy")
            np.testing.assert_array_equal(np.load(folder / "dumped" / name / f"{output}.npy"), wanted)


@pytest.mark.parametrize("name", ["opencv", "mnn"])
def test_a_closed_pipe_ends_a_script_quietly(name: str, targets_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(targets_folder / name, tmp_path / name)
    script = "import ssd\ndef work():\n    while True:\n        print('x' * 9999)\nssd.quietly(work)\n"
    (folder / "endless.py").write_text(script, "utf-8")
    with subprocess.Popen(
        [sys.executable, "endless.py"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1
    assert "ssd.quietly(" in (folder / "detect.py").read_text("utf-8")


def test_opencvs_script_takes_a_network_input(targets_folder: Path, tmp_path: Path) -> None:
    folder = targets_folder / "opencv"
    module = load_file(folder / "ssd.py")
    image = Path(__file__).resolve().parents[2] / "examples" / "shapes.png"
    values, (height, width) = module.read(image)
    np.save(tmp_path / "input.npy", module.blob_of(values))
    (tmp_path / "bad.npy").write_bytes(b"no array")
    np.save(tmp_path / "other.npy", np.zeros((1, 3, 8, 8), np.float32))
    command = [sys.executable, folder / "detect.py"]
    done = subprocess.run(
        [*command, image, tmp_path / "input.npy"], capture_output=True, text=True, check=True
    )  # fmt: skip
    rows = [line.split("\t")[1:] for line in done.stdout.splitlines()]
    assert len(rows) == 12
    factors = np.tile([module.WIDTH / width, module.HEIGHT / height], 2)
    for one, other in zip(rows[:6], rows[6:], strict=True):
        assert one[:2] == other[:2]
        np.testing.assert_allclose(np.float64(other[2:]), np.float64(one[2:]) * factors, atol=0.2)
    for name, said in (("bad.npy", "numpy can read"), ("other.npy", "float32 of the shape (1, 3, 320, 320)")):
        none = subprocess.run([*command, tmp_path / name], capture_output=True, text=True, check=False)
        assert (none.returncode, none.stderr.count("\n")) == (1, 1)
        assert said in none.stderr


LETTERBOXED = small_net(4, letterbox=True)


def test_a_network_input_of_a_letterbox_has_boxes_in_its_own_pixels(targets_folder: Path, tmp_path: Path) -> None:
    """DetectionOutput's: no part of the input is known to be padding."""
    folder = shutil.copytree(targets_folder / "caffe-ssd", tmp_path / "folder")
    (folder / "ssd.py").write_text(rendered(OPENCV, "ssd.py", facts(LETTERBOXED.arch, targets_folder)), "utf-8")
    blob = np.random.default_rng(0).random((1, 3, 128, 128), np.float32)
    np.save(folder / "input.npy", blob)
    ((_, _, _, *box),) = caffe_ssd(folder, "input.npy")
    assert box == ["32.0", "32.0", "64.0", "128.0"]
    np.testing.assert_array_equal(np.load(folder / "fed.npy"), blob)
    cv2.imwrite(str(folder / "image.png"), np.zeros((48, 64, 3), np.uint8))  # fills the upper three quarters
    ((_, _, _, *box),) = caffe_ssd(folder, "image.png")
    assert box == ["16.0", "16.0", "32.0", "48.0"]


def test_raw_outputs_of_a_letterboxed_network_input_are_not_divided(
    targets_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = random_outputs(LETTERBOXED, 0)[1]
    for file, text in decoder_files(LETTERBOXED, names_of(LETTERBOXED)).items():
        (tmp_path / file).write_text(text, "utf-8")
    (tmp_path / "ssd.py").write_text(rendered(OPENCV, "ssd.py", facts(LETTERBOXED.arch, targets_folder)), "utf-8")
    np.save(tmp_path / "priors.npy", outputs[2])
    np.save(tmp_path / "input.npy", np.zeros((1, 3, 128, 128), np.float32))
    monkeypatch.setitem(sys.modules, "decode", load_file(tmp_path / "decode.py"))
    monkeypatch.setattr(sys, "argv", ["detect.py", str(tmp_path / "input.npy")])
    load_file(tmp_path / "ssd.py").main(lambda blob: outputs[:2])
    shown = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    expected = reference(LETTERBOXED, outputs)
    rows = [(f"{score:.4f}", *(f"{side * 128:.1f}" for side in box))
            for score, box in zip(expected.scores, expected.boxes, strict=True) if score >= 0.3]  # fmt: skip
    assert rows
    assert [tuple(row[2:]) for row in shown] == rows


@pytest.mark.parametrize(
    "resizer",
    [
        Resizer(),
        Resizer(half_pixel_centers=True),
        Resizer(align_corners=True),
        Resizer(method="nearest"),
        Resizer(method="nearest", align_corners=True),
        Resizer(method="nearest", half_pixel_centers=True),
        Resizer("keep_aspect_ratio", min_dimension=96, max_dimension=96, pad_value=(1.0, 2.0, 3.0)),
    ],
    ids=str,
)
def test_scripts_resize_as_the_model_does(resizer: Resizer, tmp_path: Path, targets_folder: Path) -> None:
    arch = dataclasses.replace(default_arch("v2", 4, input_size=(96, 96)), resizer=resizer)
    (tmp_path / "ssd.py").write_text(rendered(OPENCV, "ssd.py", facts(arch, targets_folder)), "utf-8")
    module = load_file(tmp_path / "ssd.py")
    generator = np.random.default_rng(0)
    for size in ((50, 131), (131, 50), (300, 400), (96, 96)):
        image = generator.integers(0, 256, (*size, 3), np.uint8)
        expected = pixels_of(arch, image)[..., ::-1]
        np.testing.assert_array_equal(module.pixels(np.ascontiguousarray(image[..., ::-1])), expected)


def facts(arch: ArchSpec, folder: Path) -> Facts:
    return facts_of(OPENCV, build(arch), ModelFolder.open(folder).labels, (), ())


def test_mnn(targets_folder: Path) -> None:
    folder = targets_folder / "mnn"
    settings = json.loads((folder / "quantize.json").read_text("utf-8"))
    assert settings["format"] == "BGR"
    assert settings["mean"] == [127.5] * 3
    assert settings["normal"] == [0.00784313725490196] * 3
    assert (settings["width"], settings["height"], settings["used_sample_num"]) == (320, 320, 2)
    assert len(list((folder / settings["path"]).iterdir())) == 2
    lines = (folder / "convert.sh").read_text("utf-8")
    assert "mnnconvert -f CAFFE --modelFile model.caffemodel --prototxt deploy.prototxt" in lines
    for net in ("headless.prototxt", "deploy.prototxt"):
        scales = [layer for layer in read_net(folder / net).layer if layer.type == "Scale"]
        assert all(len(layer.bottom) == 1 for layer in scales)  # it wants weights in every one


def test_openvino(targets_folder: Path) -> None:
    lines = (targets_folder / "openvino" / "convert.sh").read_text("utf-8")
    assert "mo --framework caffe --input_model model.caffemodel --input_proto headless.prototxt" in lines


def test_ncnn(targets_folder: Path) -> None:
    folder = targets_folder / "ncnn"
    (layer,) = (layer for layer in read_net(folder / "deploy.prototxt").layer if layer.type == "DetectionOutput")
    assert round(layer.detection_output_param.confidence_threshold, 6) == 0.001
    lines = (folder / "convert.sh").read_text("utf-8")
    assert '"mean=[127.5,127.5,127.5]"' in lines
    assert f'"norm=[{SCALE},{SCALE},{SCALE}]"' in lines
    assert '"shape=[320,320,3]" pixel=BGR' in lines
    assert read_net(folder / "headless.prototxt").layer[0].type == "Input"


def readme(name: str, arch: ArchSpec, folder: Path) -> str:
    """README.md of a target's folder for a detector."""
    target = TARGETS[name]
    nets = tuple(NetFacts(one.file, one.weights, one.stage, "", ()) for one in target.nets)
    return rendered(target, "README.md", facts_of(target, build(arch), ModelFolder.open(folder).labels, nets, ()))


WITH_NETS = [name for name in TARGETS if name != "bvlc"]


@pytest.mark.parametrize("name", WITH_NETS)
def test_readme_says_what_a_letterbox_asks_for(name: str, targets_folder: Path) -> None:
    text = readme(name, LETTERBOXED.arch, targets_folder)
    stages = {net.stage for net in TARGETS[name].nets}
    for net in TARGETS[name].nets:
        said = f"\n- boxes of `{net.file}` are fractions of the network input: divide them by the image's share of it"
        assert text.count(said) == (net.stage == "deploy"), text
    assert text.count("`decode.py --image-size HxW`") == ("headless" in stages)
    assert "\n\n\n" not in text
    assert "image's share" not in readme(name, default_arch("v2", 4), targets_folder)
    assert all(line.startswith(("#", "- ", "  ")) for line in text.splitlines() if line)


@pytest.mark.parametrize("name", WITH_NETS)
def test_readme_says_what_bicubic_cannot(name: str, targets_folder: Path) -> None:
    arch = dataclasses.replace(default_arch("v2", 4, input_size=(96, 128)), resizer=Resizer(method="bicubic"))
    text = readme(name, arch, targets_folder)
    said = "TensorFlow's bicubic does, which `ssd.py` cannot: give it images that "
    assert f"{said}are 128 x 96 pixels\n" in text
    box = Resizer("keep_aspect_ratio", "bicubic", min_dimension=96, max_dimension=128)
    padded = dataclasses.replace(LETTERBOXED.arch, resizer=box)
    assert f"{said}need only be padded\n" in readme(name, padded, targets_folder)
    assert "bicubic" not in readme(name, default_arch("v2", 4), targets_folder)


def test_ncnn_says_what_its_whole_net_does_not_do(targets_folder: Path) -> None:
    folder = targets_folder / "ncnn"
    undefined = (
        "deploy.prototxt: ncnn leaves boxes undefined whose background score is at least 0.999, which sigmoid scores "
        "may have beside a class"
    )
    missing = "deploy.prototxt: detections with scores up to its threshold 0.001 are missing; the model's is 1e-08"
    entry = json.loads((targets_folder / "report.json").read_text("utf-8"))["targets"]["ncnn"]
    assert (entry["exact"], entry["inexact"][:1]) == (False, [undefined])
    assert f"- not exact: {undefined}\n" in (folder / "README.md").read_text("utf-8")
    arch = default_arch("v2", 4)
    low, high = (dataclasses.replace(arch.nms, score_threshold=value) for value in (1e-8, 0.3))
    softmax = dataclasses.replace(arch, score_converter="softmax", nms=high)
    assert NCNN.inexact_for(build(softmax)) == ()
    assert NCNN.inexact_for(build(dataclasses.replace(softmax, nms=low))) == (missing,)
    assert NCNN.inexact_for(build(dataclasses.replace(arch, nms=low))) == (undefined, missing)
    assert NCNN.inexact_for(build(dataclasses.replace(arch, irregular_boxes="boxes differ"))) == ()


def model_config(text: str) -> dict[str, str]:
    """The values of a YAML file of plain keys, each in its own line."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"(  )*\w+:( \S.*)?", line) for line in lines)
    return dict(line.strip().split(": ", 1) for line in lines if ": " in line)


def test_rknn(targets_folder: Path) -> None:
    folder = targets_folder / "rknn"
    settings = model_config((folder / "model_config.yml").read_text("utf-8"))
    assert settings["platform"] == "caffe"
    assert settings["quantize"] == settings["quant_img_RGB2BGR"] == "true"
    assert settings["mean_values"] == settings["std_values"] == "[127.5, 127.5, 127.5]"
    for key in ("prototxt_file_path", "caffemodel_file_path", "dataset"):
        assert (folder / settings[key]).is_file()
    images = (folder / settings["dataset"]).read_text("utf-8").split()
    assert len(images) == 2
    assert all((folder / image).is_file() for image in images)
    numbers = np.asarray((folder / "mbox_priorbox.txt").read_text("utf-8").split(), np.float32)
    np.testing.assert_array_equal(numbers, np.fromfile(folder / "priors.bin", "<f4"))
    net = read_net(folder / "headless.prototxt")
    assert all(layer.convolution_param.stride for layer in net.layer if layer.type == "Convolution")
    outputs = {top for layer in read_net(folder / "headless_maps.prototxt").layer for top in layer.top}
    assert not {"mbox_loc", "mbox_conf"} & outputs


def test_rknns_script_restores_constant_outputs(targets_folder: Path, tmp_path: Path) -> None:
    """With a stand-in for the toolkit, which removes them."""
    folder = shutil.copytree(targets_folder / "rknn", tmp_path / "rknn")
    (folder / "rknn").mkdir()
    (folder / "rknn" / "api.py").write_text("RKNN = None\n", "utf-8")
    script = (
        "import convert, numpy, sys\n"
        "convert.CONSTANT = {8: (1.5, 2.0), 10: (3.0,)}\n"
        "left = [numpy.full((1, 2), number) for number in range(10)]\n"
        "for values in convert.restored(left): print(values.ravel().tolist())\n"
        "convert.restored(left[1:])\n"
    )
    (folder / "try.py").write_text(script, "utf-8")
    done = subprocess.run([sys.executable, "try.py"], cwd=folder, check=False, capture_output=True, text=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 12, done.stderr
    cells = [math.prod(one.size) for one in build(ModelFolder.open(targets_folder).arch).feature_maps]
    assert rows[8] == [1.5, 2.0] * cells[4]
    assert rows[10] == [3.0] * cells[5]
    assert [row[0] for number, row in enumerate(rows) if number not in (8, 10)] == list(range(10))
    assert done.returncode == 1
    assert done.stderr.startswith("9 outputs of 12 are left, and 2 are known to be constant")


def test_constant_outputs_are_those_without_weights() -> None:
    bias = np.float32([1, -2.5])
    assert constant_values((np.full((2, 3, 1, 1), 1e-17, np.float32), bias)) == (1.0, -2.5)
    assert constant_values((np.float32([[1e-17], [1e-6]]), bias)) == ()
    assert constant_values(()) == ()


def test_rknn_without_images_is_not_quantised(targets_folder: Path) -> None:
    net = NetFacts("headless.prototxt", "headless.caffemodel", "headless", "", ())
    found = facts_of(RKNN, build(default_arch("v2", 4)), ModelFolder.open(targets_folder).labels, (net,), ())
    text = rendered(RKNN, "model_config.yml", found)
    settings = model_config(text)
    assert settings["quantize"] == "false"
    assert "dataset" not in settings


def test_calibration_images_are_resized_usual_files(targets_folder: Path) -> None:
    arch = ModelFolder.open(targets_folder).arch
    for name in ("mnn", "ncnn", "rknn", "sophgo"):
        first = sorted((targets_folder / name / "calibration").iterdir())[0]
        expected = np.rint(pixels_of(arch, np.ascontiguousarray(draw_scene(0)[0][..., ::-1])))
        np.testing.assert_array_equal(read_image(first)[..., ::-1], expected)


def test_sophgo(targets_folder: Path) -> None:
    folder = targets_folder / "sophgo"
    lines = (folder / "convert.sh").read_text("utf-8")
    assert "--mean 127.5,127.5,127.5" in lines
    assert f"--scale {SCALE},{SCALE},{SCALE} --pixel_format bgr" in lines
    assert '--input_shapes "[[1,3,320,320]]"' in lines
    assert "NET=${NET:-headless_maps}\n" in lines
    assert 'run_calibration "$NET.mlir" --dataset calibration --input_num 2' in lines
    assert "Power" not in types(folder / "headless.prototxt")
    script = ast.parse((folder / "detect.py").read_text("utf-8"))
    names = {target.id: ast.literal_eval(node.value) for node in script.body if isinstance(node, ast.Assign)
             for target in node.targets if isinstance(target, ast.Name) and target.id in ("LOC", "CONF")}  # fmt: skip
    tops = {top for layer in read_net(folder / "headless_maps.prototxt").layer for top in layer.top}
    assert len(names["LOC"]) == len(names["CONF"]) == 6
    assert {*names["LOC"], *names["CONF"]} <= tops


def test_paddle(targets_folder: Path) -> None:
    scales = [
        layer for layer in read_net(targets_folder / "paddle" / "headless.prototxt").layer if layer.type == "Scale"
    ]
    assert all(len(layer.bottom) == 1 for layer in scales)
    assert "--disable_feedback=True" in (targets_folder / "paddle" / "convert.sh").read_text("utf-8")


def test_onnx_refuses_products_of_maps() -> None:
    reason = ONNX.refuses(build(default_arch("v3-small", 4)))
    assert "Eltwise PROD" in reason
    assert "openvino" in reason
    assert ONNX.refuses(build(default_arch("v2", 4))) == ""


def test_irregular_boxes_are_the_models_own() -> None:
    net = build(dataclasses.replace(default_arch("v2", 4), irregular_boxes="boxes differ"))
    boxes = np.random.default_rng(0).random((net.num_default_boxes, 4), np.float32)  # ymin, xmin, ymax, xmax
    settings = SimpleNamespace(default_boxes=boxes, box_rounding=0, anchors=None)
    found = headless_priors(cast(DumpedModel, SimpleNamespace(settings=settings)), net)
    assert found.shape == (len(boxes), 8)
    assert {tuple(row) for row in found[:, :4].tolist()} == {tuple(row) for row in boxes[:, [1, 0, 3, 2]].tolist()}


def test_irregular_boxes_have_no_priorbox() -> None:
    arch = default_arch("v2", 4)
    regular, irregular = build(arch), build(dataclasses.replace(arch, irregular_boxes="boxes differ"))
    assert [one.stage for one in OPENVINO.nets_of(regular)] == ["headless", "deploy"]
    assert [one.stage for one in OPENVINO.nets_of(irregular)] == ["headless"]
    (only,) = OPENCV.nets_of(irregular)
    assert (only.stage, only.dialect.priors) == ("deploy", "constant")
