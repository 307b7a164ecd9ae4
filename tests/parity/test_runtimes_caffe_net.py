"""The built Caffe against TensorFlow: layers, default boxes and detections, in every dialect; and what it stops at."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdlite_caffe.coco.label_map import numbered
from ssdlite_caffe.dump.read import read_model
from ssdlite_caffe.errors import CaffeError, MissingRuntimeError, PrototxtError
from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.load.recognise import recognise
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.text import format_message, read_net
from ssdlite_caffe.runtimes.caffe_net import CaffeNet
from ssdlite_caffe.runtimes.detector import Detector
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.tools.compare import compare_detections
from ssdlite_caffe.tools.comparison import Bounds
from ssdlite_caffe.tools.convert import ConvertOptions, convert, write_model_files
from ssdlite_caffe.tools.merge_bn import merge_folder
from ssdlite_caffe.tools.verify import verify
from ssdlite_caffe.tools.verify_report import verdict
from tests.unit.test_gen_model_compat import net_of, write_random

pytestmark = [pytest.mark.slow, pytest.mark.caffe, pytest.mark.xdist_group("caffe")]

EARLIER = [
    "--compat mobilenetv2-ssdlite -c 4 --relu6 --tfpad --nobn",
    "--compat mobilenetv2-ssdlite -c 4 -t ssd --tfpad",
    "--compat mobilenetv2-ssdlite -c 4 -v 1 --size 0.5",
    "--compat mobilenetv2-ssdlite-pinto0309 -c 4 --batchnorm",
    "--compat mobilenet-ssd -c 4",
    "--compat mobilenet-ssd-template -c 4",
]
RANDOM = Bounds(layer=1e-3, box=1e-4, score=1e-4)
"""Random weights amplify rounding; measured: boxes 3.5e-5, scores 2.9e-5."""


def assert_equal(source: Path, folder: Path, images: list[Any], bounds: Bounds | None = None) -> None:
    report = verify(source, ModelFolder.open(folder), images, runtime="caffe", bounds=bounds)
    assert report.first_failure is None, verdict(report)
    assert report.runtime == "caffe"
    rows = {row.stage: row for row in report.rows}
    assert rows["headless"].absolute == 0
    assert rows["detections"].shape[0] > 0
    print({stage: rows[stage].absolute for stage in ("boxes", "scores", "detections")})


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["bccd_v2_ssdlite_3", "zoo2018_v2_ssdlite_90", "random_v3_large_90"])
def test_a_real_model(
    caffe_prefix: Path, shared_models: Path, bccd_images: list[Any], tmp_path: Path, name: str
) -> None:
    source = shared_models / name / "frozen_inference_graph.pb"
    convert(source, tmp_path / "out", ConvertOptions())
    bounds = RANDOM if name.startswith("random") else None
    assert_equal(source, tmp_path / "out", bccd_images[:2], bounds)


@pytest.mark.tensorflow
def test_the_model_of_drawn_scenes(
    caffe_prefix: Path, shared_models: Path, scene_images: list[Any], tmp_path: Path
) -> None:
    source = shared_models / "shapes_v3_small_3" / "frozen_inference_graph.pb"
    convert(source, tmp_path / "out", ConvertOptions())
    assert_equal(source, tmp_path / "out", scene_images)


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "dialect",
    [
        Dialect(),
        Dialect(activation="stock"),
        Dialect(activation="clip"),
        Dialect(padding="slice"),
        Dialect(padding="pad-layer"),
        Dialect(padding="tf_pad"),
        Dialect(batch_norm="keep"),
        Dialect(batch_norm="fold-body"),
        Dialect(activation="clip", padding="tf_pad", batch_norm="keep"),
        Dialect(activation="stock", padding="slice", batch_norm="keep"),
        Dialect(depthwise="DepthwiseConvolution"),
    ],
    ids=lambda s: f"{s.activation}-{s.padding}-{s.batch_norm}-{s.depthwise}",
)
def test_a_dialect(
    caffe_prefix: Path, example_model: Path, scene_images: list[Any], tmp_path: Path, dialect: Dialect
) -> None:
    convert(example_model, tmp_path / "out", ConvertOptions(dialect=dialect))
    assert_equal(example_model, tmp_path / "out", scene_images[:2])


@pytest.mark.tensorflow
def test_another_nms_threshold_is_found(
    caffe_prefix: Path, example_model: Path, example_folder: Path, scene_images: list[Any], tmp_path: Path
) -> None:
    """The comparison can fail: Caffe's own numbers are compared, not OpenCV's."""
    copy = Path(shutil.copytree(example_folder, tmp_path / "copy"))
    text = (copy / "deploy.prototxt").read_text()
    assert "nms_threshold: 0.6" in text
    (copy / "deploy.prototxt").write_text(text.replace("nms_threshold: 0.6", "nms_threshold: 0.3"))
    report = verify(example_model, ModelFolder.open(copy), scene_images[:2], runtime="caffe")
    failed = [row.stage for row in report.rows if not row.ok]
    assert failed[0] == "settings"
    assert "detections" in failed


def without_data_layers(net: caffe_pb2.NetParameter, size: tuple[int, int]) -> caffe_pb2.NetParameter:
    """A train net that needs no LMDB: what its AnnotatedData gives is fed."""
    kept = [layer for layer in net.layer if layer.type != "AnnotatedData"]
    assert len(kept) == len(net.layer) - 1
    fed = caffe_pb2.LayerParameter(name="data", type="Input", top=["data", "label"])
    fed.input_param.shape.add().dim.extend([2, 3, *size])
    fed.input_param.shape.add().dim.extend([1, 1, 3, 8])
    del net.layer[:]
    net.layer.extend([fed, *kept])
    return net


def source_layers(caffe: CaffeNet, verb: str) -> list[str]:
    """Layers of the caffemodel that Caffe's log says it was "Copying" or "Ignoring" (Net::CopyTrainedLayersFrom)."""
    return [line.split()[-1] for line in caffe._log_lines() if f"] {verb} source layer " in line]


@pytest.mark.parametrize("stage", ["deploy", "headless", "train", "test"])
def test_nothing_is_ignored(caffe_prefix: Path, example_folder: Path, tmp_path: Path, stage: str) -> None:
    """By Caffe's own log: every layer of the caffemodel goes into the net."""
    prototxt = example_folder / f"{stage}.prototxt"
    weights = example_folder / ("train.caffemodel" if stage in ("train", "test") else "deploy.caffemodel")
    if stage in ("train", "test"):
        net = without_data_layers(read_net(prototxt), ModelFolder.open(example_folder).arch.input_size)
        prototxt = tmp_path / "net.prototxt"
        prototxt.write_text(format_message(net))
    with CaffeNet(prototxt, weights, phase="TRAIN" if stage == "train" else "TEST") as caffe:
        copied, ignored = source_layers(caffe, "Copying"), source_layers(caffe, "Ignoring")
    assert len(copied) > 100
    left = set(ignored)
    if stage == "headless":  # its weights file is the deploy net's
        assert left == {"mbox_conf_reshape", "mbox_conf_sigmoid", "mbox_conf_flatten", "detection_out"}
    elif stage == "test":  # whose file is the train net's
        assert left == {"mbox_loss"}
    else:
        assert left == set()


@pytest.mark.parametrize("stage", ["deploy", "train"])
@pytest.mark.parametrize("options", EARLIER)
def test_nothing_of_an_earlier_project_s_caffemodel_is_ignored(
    caffe_prefix: Path, tmp_path: Path, options: str, stage: str
) -> None:
    """The caffemodel has the layers and blobs that the project's own files have; see tests/earlier_nets."""
    net = net_of(f"{options} -s {stage}")
    weights, prototxt = tmp_path / "net.caffemodel", tmp_path / "net.prototxt"
    write_random(net, weights)
    prototxt.write_text(format_message(net if stage == "deploy" else without_data_layers(net, (300, 300))))
    with CaffeNet(prototxt, weights, phase="TRAIN" if stage == "train" else "TEST") as caffe:
        assert source_layers(caffe, "Ignoring") == []
        copied = source_layers(caffe, "Copying")
    assert {layer.name for layer in net.layer if layer.type in ("Convolution", "BatchNorm", "Scale")} <= set(copied)


def test_another_layer_is_ignored_and_said_so(caffe_prefix: Path, example_folder: Path, tmp_path: Path) -> None:
    net = read_net(example_folder / "deploy.prototxt")
    next(layer for layer in net.layer if layer.name == "Conv").name = "renamed"
    (tmp_path / "net.prototxt").write_text(format_message(net))
    with CaffeNet(tmp_path / "net.prototxt", example_folder / "deploy.caffemodel") as caffe:
        assert source_layers(caffe, "Ignoring") == ["Conv"]


def test_detect_is_the_same_as_opencvs(caffe_prefix: Path, example_folder: Path, scene_images: list[Any]) -> None:
    folder = ModelFolder.open(example_folder)
    detectors = [Detector(folder, runtime=runtime) for runtime in ("caffe", "opencv")]  # type: ignore[arg-type]
    for _, image in scene_images[:2]:
        one, other = (detect(image) for detect in detectors)
        found = compare_detections(one, other, box_tolerance=2e-6, score_tolerance=2e-6, max_total=100)
        assert not found.unpaired
        assert found.paired > 50


def test_merged_weights_give_the_same_boxes_and_scores(
    caffe_prefix: Path, example_model: Path, scene_images: list[Any], tmp_path: Path
) -> None:
    convert(example_model, tmp_path / "kept", ConvertOptions(dialect=Dialect(batch_norm="keep")))
    merge_folder(tmp_path / "kept", tmp_path / "kept" / "deploy.caffemodel", tmp_path / "merged")
    blob = np.random.default_rng(0).uniform(-1, 1, (1, 3, 320, 320)).astype(np.float32)
    found = []
    for name in ("kept", "merged"):
        folder = ModelFolder.open(tmp_path / name)
        with CaffeNet(folder.headless_prototxt, folder.deploy_caffemodel) as net:
            found.append(net.forward(blob, ["mbox_loc", "mbox_conf"]))
    for head in found[0]:
        scale = np.abs(found[0][head]).max()
        difference = float(np.abs(found[0][head] - found[1][head]).max() / scale)
        print(head, difference)
        assert difference <= 1e-5


@pytest.fixture
def broken(example_folder: Path, tmp_path: Path) -> Callable[[str, str], CaffeNet]:
    """Loads the deploy net with one text replaced."""

    def load(old: str, new: str) -> CaffeNet:
        text = (example_folder / "deploy.prototxt").read_text()
        assert old in text
        path = tmp_path / "net.prototxt"
        path.write_text(text.replace(old, new, 1))
        return CaffeNet(path, example_folder / "deploy.caffemodel")

    return load


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('type: "ReLU6"', 'type: "ReLU7"', r"Unknown layer type: ReLU7 in layer Conv/\S+ \(layer_factory\.hpp:\d+\)$"),
        (
            "num_output: 16\n",
            "num_output: 17\n",
            r"Check failed: .*(layer|Layer) conv/depthwise|in layer conv/depthwise",
        ),
        (
            "num_output",
            "num_putput",
            r'\d+:\d+: Message type "caffe\.ConvolutionParameter" has no field named "num_putput"',
        ),
        ('bottom: "data"', 'bottom: "dada"', r"Unknown bottom blob 'dada' \(layer 'Conv'"),
        (
            "num_output: 16\n    pad",
            "num_output: 16\n    bias_term: false\n    pad",
            r"Check failed: .* for layer Conv",
        ),
    ],
    ids=["type", "count", "field", "bottom", "weights"],
)
def test_what_caffe_rejects_is_one_line(
    caffe_prefix: Path, broken: Callable[[str, str], CaffeNet], old: str, new: str, said: str
) -> None:
    with pytest.raises(CaffeError, match=said) as caught:
        broken(old, new).close()
    assert "\n" not in str(caught.value)
    assert "***" not in str(caught.value)


def test_a_check_while_running_names_the_layer(caffe_prefix: Path, tmp_path: Path) -> None:
    """DetectionEvaluate finds out only from the values that a label is the background's."""
    (tmp_path / "net.prototxt").write_text("""
        layer { name: "in" type: "Input" top: "found" top: "truth"
          input_param { shape { dim: 1 dim: 1 dim: 1 dim: 7 } shape { dim: 1 dim: 1 dim: 1 dim: 8 } } }
        layer { name: "judge" type: "DetectionEvaluate" bottom: "found" bottom: "truth" top: "verdict"
          detection_evaluate_param { num_classes: 3 background_label_id: 0 } }
    """)
    net = CaffeNet(tmp_path / "net.prototxt", None)
    truth = np.asarray([0, 0, 0, 0.1, 0.1, 0.5, 0.5, 0], np.float32).reshape(1, 1, 1, 8)
    with pytest.raises(CaffeError, match=r"Check failed: .* in layer judge \(bbox_util\.cpp:\d+\)$"):
        net.forward({"found": np.zeros((1, 1, 1, 7), np.float32), "truth": truth}, ["verdict"])


def test_a_gpu_that_this_caffe_has_no_code_for(caffe_prefix: Path, example_folder: Path) -> None:
    stamp = caffe_prefix / "ssdlite-caffe.json"
    if stamp.is_file() and '"cuda": true' in stamp.read_text():
        pytest.skip("this Caffe is built for GPUs")
    with pytest.raises(CaffeError, match="Cannot use GPU in CPU-only Caffe"):
        CaffeNet(example_folder / "deploy.prototxt", example_folder / "deploy.caffemodel", gpu=0)


def test_wrong_names_and_shapes(caffe_prefix: Path, example_folder: Path, tmp_path: Path) -> None:
    weights = example_folder / "deploy.caffemodel"
    with pytest.raises(PrototxtError, match=r"caffemodel .* does not exist"):
        CaffeNet(example_folder / "deploy.prototxt", tmp_path / "none")
    with CaffeNet(example_folder / "deploy.prototxt", weights) as net:
        with pytest.raises(PrototxtError, match="has no blob named none"):
            net.forward(np.zeros((1, 3, 320, 320), np.float32), ["none"])
        with pytest.raises(PrototxtError, match=r"must have the shape \(1, 3, 320, 320\), got \(1, 3, 300, 320\)"):
            net.forward(np.zeros((1, 3, 300, 320), np.float32), ["Conv"])
        with pytest.raises(PrototxtError, match="has no input label"):
            net.forward({"label": np.zeros((1, 3, 320, 320), np.float32)}, ["Conv"])
        assert net.forward(np.zeros((1, 3, 320, 320), np.float32), ["Conv"])["Conv"].shape[0] == 1


def test_no_caffe(example_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingRuntimeError, match=r"no Caffe is built in .*; build it with: ssdlite-caffe caffe build"):
        CaffeNet(example_folder / "deploy.prototxt", example_folder / "deploy.caffemodel", prefix=tmp_path)


def test_boxes_clipped_before_suppression(
    caffe_prefix: Path, example_model: Path, scene_images: list[Any], tmp_path: Path
) -> None:
    """The layers that decode and clip in front of DetectionOutput, which then takes corners."""
    model = read_model(example_model)
    arch = recognise(model)
    arch = dataclasses.replace(arch, nms=dataclasses.replace(arch.nms, clip_first=True, score_threshold=1e-3))
    write_model_files(tmp_path, model, arch, numbered(arch.num_classes), ConvertOptions(), lambda _: None)
    folder = ModelFolder.open(tmp_path)
    assert "code_type: CORNER" in folder.deploy_prototxt.read_text()
    deploy, numpy = (Detector(folder, decoder, "caffe") for decoder in ("caffe", "numpy"))  # type: ignore[arg-type]
    for _, image in scene_images:
        found = compare_detections(deploy(image), numpy(image), box_tolerance=1e-6, score_tolerance=1e-6, max_total=100)
        assert not found.unpaired
        assert found.paired > 0
