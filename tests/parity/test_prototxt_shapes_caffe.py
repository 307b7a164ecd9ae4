"""Shapes, learned blobs and refusals against the built Caffe: tiny nets that it sets up and runs, or does not."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.lint import lint
from ssdlite_caffe.prototxt.rules_forks import WITHOUT_RULE
from ssdlite_caffe.prototxt.rules_ssd import DATA_RULES, RULES
from ssdlite_caffe.prototxt.shapes import infer
from ssdlite_caffe.prototxt.text import parse_net
from tests.opencv_nets import layer

pytestmark = [pytest.mark.caffe, pytest.mark.slow, pytest.mark.xdist_group("caffe")]

# Runs with pycaffe alone. Each net in a process of its own, which a failed CHECK ends.
WORKER = """
import json, os, sys, tempfile
import caffe
caffe.set_mode_cpu()
answers = []
for text, phase in json.load(open(sys.argv[1])):
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        with tempfile.NamedTemporaryFile("w", suffix=".prototxt") as file:
            file.write(text)
            file.flush()
            net = caffe.Net(file.name, caffe.TRAIN if phase == "TRAIN" else caffe.TEST)
            net.forward()
        blobs = {name: list(blob.data.shape) for name, blob in net.blobs.items()}
        params = {name: [list(blob.data.shape) for blob in found] for name, found in net.params.items()}
        os.write(writing, json.dumps([blobs, params]).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        data = stream.read()
    os.waitpid(process, 0)
    answers.append(json.loads(data) if data else None)
json.dump(answers, open(sys.argv[2], "w"))
"""


def caffe_answers(prefix: Path, folder: Path, nets: list[tuple[str, str]]) -> list[tuple[dict, dict] | None]:
    """Shapes of the blobs and of the learned blobs of each net, None for a net that Caffe refuses."""
    (folder / "worker.py").write_text(WORKER)
    (folder / "nets.json").write_text(json.dumps(nets))
    environment = {**os.environ, "PYTHONPATH": str(prefix / "python"), "GLOG_minloglevel": "3"}
    subprocess.run(
        [sys.executable, folder / "worker.py", folder / "nets.json", folder / "answers.json"],
        check=True,
        capture_output=True,
        env=environment,
    )
    return [None if one is None else tuple(one) for one in json.loads((folder / "answers.json").read_text())]


def fed(**shapes: tuple[int, ...]) -> str:
    return "".join(
        layer(
            "Input", "input_param { shape { " + " ".join(f"dim: {size}" for size in shape) + " } }", (), (name,), name
        )
        for name, shape in shapes.items()
    )


DATA = fed(d=(2, 6, 9, 5))
PAIR = DATA + layer("Power", "", ("d",), ("e",), "e")
CONV = "num_output: 6 kernel_size: 3"
ONE, TWO = ("d",), ("d", "e")

# Layer type -> its parameters, what they hold, bottoms, the net before, and further fields that are tried one by one.
LAYERS = {
    "Convolution": ("convolution_param", CONV, ONE, DATA, ["group: 4", "dilation: 2", "axis: 2", "axis: 3", "pad_h: 1",
                    "stride_w: 2", "kernel_h: 2", "tf_pad: SAME stride: 2", "num_output: 0", "stride: 0",
                    "kernel_size: 2"]),
    "DepthwiseConvolution": ("convolution_param", CONV, ONE, DATA, ["group: 6", "group: 2", "num_output: 12"]),
    "Deconvolution": ("convolution_param", CONV, ONE, DATA, ["group: 2 stride: 2", "dilation: 2", "tf_pad: SAME"]),
    "Pooling": ("pooling_param", "kernel_size: 2", ONE, DATA, ["stride: 2", "pad: 1",
                "pad: 2", "pad_h: 1", "pad_h: 1 pad_w: 0", "stride_w: 2", "kernel_h: 3", "kernel_h: 3 kernel_w: 3",
                "global_pooling: true", "stride: 2 ceil_mode: false", "pool: AVE"]),
    "InnerProduct": ("inner_product_param", "num_output: 3", ONE, DATA, ["axis: 2", "axis: -1 transpose: true",
                     "axis: 4"]),
    "Embed": ("embed_param", "num_output: 3 input_dim: 10", ONE, DATA, ["bias_term: false", "input_dim: 0"]),
    "LRN": ("lrn_param", "", ONE, DATA, ["local_size: 4", "local_size: 3"]),
    "MVN": ("mvn_param", "", ONE, DATA, ["across_channels: true"]),
    "BatchNorm": ("batch_norm_param", "", ONE, DATA, ["use_global_stats: false"]),
    "Scale": ("scale_param", "", ONE, DATA, ["axis: 0", "num_axes: 2 bias_term: true", "num_axes: 0",
              "axis: 3 num_axes: 2"]),
    "Bias": ("bias_param", "", ONE, DATA, ["axis: 2"]),
    "PReLU": ("prelu_param", "", ONE, DATA, ["channel_shared: true"]),
    "Exp": ("exp_param", "", ONE, DATA, ["base: 2", "base: -2"]),
    "Log": ("log_param", "", ONE, DATA, ["base: 2", "base: -2"]),
    "Clip": ("clip_param", "min: 0 max: 1", ONE, DATA, []),
    "Pad": ("pad_param", "", ONE, DATA, ["pad_u: 1 pad_r: 2"]),
    "Eltwise": ("eltwise_param", "", TWO, PAIR, ["coeff: 1", "coeff: 1 coeff: -1", "operation: MAX"]),
    "Concat": ("concat_param", "", TWO, PAIR, ["axis: -1", "concat_dim: 0", "axis: 4"]),
    "Slice": ("slice_param", "", ONE, DATA, ["slice_point: 2", "axis: 2", "slice_point: 6", "slice_dim: 0"]),
    "Crop": ("crop_param", "", TWO, PAIR, ["axis: 1", "offset: 1"]),
    "Flatten": ("flatten_param", "", ONE, DATA, ["axis: 0 end_axis: -2", "end_axis: 0", "axis: 2 end_axis: 0"]),
    "Reshape": ("reshape_param", "shape { dim: 0 dim: -1 }", ONE, DATA, ["axis: 1", "num_axes: 0",
                "axis: -1 num_axes: 0"]),
    "Permute": ("permute_param", "", ONE, DATA, ["order: 0 order: 2", "order: 0 order: 2 order: 3 order: 1",
                "order: 0 order: 0", "order: 4"]),
    "Softmax": ("softmax_param", "", ONE, DATA, ["axis: -1", "axis: 4"]),
    "Normalize": ("norm_param", "", ONE, DATA, ["channel_shared: false"]),
    "PriorBox": ("prior_box_param", "min_size: 2", TWO, PAIR, ["max_size: 3 aspect_ratio: 2", "max_size: 1", "step: 4",
                 "step: 0", "step_h: 2", "step_h: 2 step_w: 2", "step: 2 step_h: 2", "img_size: 9", "img_h: 9",
                 "variance: 0.1", "variance: 0.1 variance: 0.1", "min_size: 0"]),
    "Reduction": ("reduction_param", "", ONE, DATA, ["axis: 2", "axis: -5"]),
    "Tile": ("tile_param", "tiles: 2", ONE, DATA, ["axis: 3", "axis: 4"]),
    "ArgMax": ("argmax_param", "", ONE, DATA, ["axis: 1 top_k: 2", "out_max_val: true top_k: 3"]),
    "Upsample": ("upsample_param", "scale: 2", ONE, DATA, ["dims_num: 3", "dims_num: 2"]),
    **{kind: ("", "", ONE, DATA, []) for kind in ("ReLU", "ReLU6", "ELU", "Sigmoid", "TanH", "HardSigmoid", "HardSwish",
       "Power", "Dropout", "BNLL", "AbsVal", "Threshold", "Split")},
}  # fmt: skip


def net_of(kind: str, extra: str = "") -> str:
    param, body, bottoms, before, _ = LAYERS[kind]
    for name in re.findall(r"(\w+):", extra):
        if not _is_repeated(param, name):
            body = re.sub(rf"\b{name}: \S+", "", body)
    block = f"{param} {{ {body} {extra} }}" if param else ""
    return before + layer(kind, block, bottoms, ("t", "u") if kind == "Slice" else ("t",))


def _is_repeated(param: str, name: str) -> bool:
    message = caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name[param].message_type
    return message.fields_by_name[name].is_repeated


def disagreements(prefix: Path, folder: Path, nets: dict[str, tuple[str, str]]) -> list[str]:
    answers = caffe_answers(prefix, folder, list(nets.values()))
    wrong = []
    for (name, (text, phase)), answer in zip(nets.items(), answers, strict=True):
        errors = [problem.text for problem in lint(text, phase=phase).problems if problem.severity == "error"]
        if (answer is None) is not bool(errors):
            wrong.append(f"{name}: lint says {errors}, Caffe {'refuses it' if answer is None else 'runs it'}")
            continue
        if answer is None:
            continue
        shapes = infer(parse_net(text), phase=phase)
        blobs = {blob: list(shape) for blob, shape in shapes.blobs.items() if shape is not None}
        params = {one: [list(shape) for shape in found] for one, found in shapes.param_shapes.items()}
        if blobs != {blob: answer[0][blob] for blob in blobs} or params != answer[1]:
            wrong.append(f"{name}: {blobs} and {params}, Caffe has {answer}")
    return wrong


def test_layers_and_their_fields(caffe_prefix: Path, tmp_path: Path) -> None:
    nets = {
        f"{kind} {extra}": (net_of(kind, extra), "TEST")
        for kind, (*_, extras) in LAYERS.items()
        for extra in ("", *extras)
    }
    assert disagreements(caffe_prefix, tmp_path, nets) == []


def test_counts_of_bottoms_and_tops(caffe_prefix: Path, tmp_path: Path) -> None:
    """Each layer with one bottom or top too few or too many, and in place, alone and after another reader."""
    more = "".join(layer("Power", "", ("d",), (name,), name) for name in "efgh")
    nets = {}
    for kind, (param, body, *_) in LAYERS.items():
        rule, block = RULES[kind], f"{param} {{ {body} }}" if param else ""
        tops = 2 if kind == "Slice" else rule.tops[0]
        for bottoms, made in ((rule.bottoms[0] - 1, tops), (rule.bottoms[0], tops), (rule.bottoms[0], tops - 1),
                              (rule.bottoms[0] + 1, tops), (rule.bottoms[0], rule.tops[1] + 1)):  # fmt: skip
            if made < 6 and not (kind == "PriorBox" and bottoms == 1):  # which Caffe runs: it reads past the end
                text = DATA + more + layer(kind, block, tuple("defgh"[:bottoms]), tuple("tuvwxy"[:made]))
                nets[f"{kind} {bottoms} {made}"] = text, "TEST"
        bottoms = ("d", "d")[: rule.bottoms[0]]
        if len(bottoms) == 1 and tops == 1:
            if rule.in_place:  # Caffe runs others too, and they read what they have overwritten
                nets[f"{kind} in place"] = DATA + layer(kind, block, bottoms, ("d",)), "TEST"
            read = layer("Power", "", ("d",), ("e",), "e")
            nets[f"{kind} in place, read before"] = DATA + read + layer(kind, block, bottoms, ("d",)), "TEST"
    assert len(nets) > 200
    assert disagreements(caffe_prefix, tmp_path, nets) == []


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_bottoms_of_a_detection_output(caffe_prefix: Path, tmp_path: Path, count: int) -> None:
    before = fed(l=(1, 180), c=(1, 90), d=(2, 6, 9, 5), g=(1, 1, 1, 8), h=(1, 1, 1, 8))
    before += layer("PriorBox", "prior_box_param { min_size: 2 variance: 0.1 }", ("d", "d"), ("p",), "p")
    body = "num_classes: 2 nms_param { nms_threshold: 0.5 } keep_top_k: 10 code_type: CENTER_SIZE"
    text = before + layer("DetectionOutput", f"detection_output_param {{ {body} }}", tuple("lcpgh"[:count]))
    (answer,) = caffe_answers(caffe_prefix, tmp_path, [(text, "TEST")])
    assert lint(text).ok is (answer is not None) is (count in (3, 4))


def test_every_layer_of_the_build_has_a_rule(caffe_prefix: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import caffe; print(*caffe.layer_type_list())"],
        check=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(caffe_prefix / "python")},
    )  # fmt: skip
    built = set(done.stdout.split())
    assert built <= RULES.keys()
    known = {*LAYERS, *WITHOUT_RULE, *DATA_RULES, "Silence", "DetectionOutput", "DetectionEvaluate", "MultiBoxLoss"}
    untried = {kind for kind in built - known if "Loss" not in kind}
    assert untried <= {"Accuracy", "ConvolutionDepthwise", "PSROIPooling"}
