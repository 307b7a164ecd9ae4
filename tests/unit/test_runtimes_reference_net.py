"""The reference runtime against OpenCV, layer by layer, and against itself: all exact dialects are one net."""

from __future__ import annotations

import math
import re
import typing
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ssdlite_caffe.errors import PrototxtError
from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.binary import blob_from_array, write_caffemodel
from ssdlite_caffe.prototxt.shapes import infer
from ssdlite_caffe.prototxt.text import parse_net
from ssdlite_caffe.runtimes.decode import decode_boxes, split_priors
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.net import open_net
from ssdlite_caffe.runtimes.reference_layers import LAYERS
from ssdlite_caffe.runtimes.reference_net import ReferenceNet
from ssdlite_caffe.runtimes.resize import caffe_blob, network_input
from ssdlite_caffe.tools.convert import ConvertOptions, convert
from tests.scenes import draw_scene

pytestmark = pytest.mark.opencv
SIZE = st.integers(1, 9)
HEADS = ["mbox_loc", "mbox_conf_flatten", "mbox_priorbox"]

LAYER_FLOAT32 = 2e-5
"""Largest difference from OpenCV of a layer's value, with values up to about 10. Measured: 6e-6."""


def write_net(folder: Path, text: str, seed: int = 0) -> tuple[Path, Path]:
    """A net and random weights of the shapes inferred; variances and the like are positive."""
    net = parse_net(text)
    random = np.random.default_rng(seed)
    weights = caffe_pb2.NetParameter()
    for layer, shapes in zip(net.layer, infer(net).layers, strict=True):
        values = [random.uniform(0.2, 1, shape).astype(np.float32) for shape in shapes.params]
        weights.layer.add(name=layer.name, type=layer.type, blobs=map(blob_from_array, values))
    (folder / "net.prototxt").write_text(text)
    write_caffemodel(folder / "net.caffemodel", weights, force=True)
    return folder / "net.prototxt", folder / "net.caffemodel"


def layer(kind: str, body: str, bottoms: tuple[str, ...] = ("d",), tops: tuple[str, ...] = ("t",)) -> str:
    ends = " ".join([*(f'bottom: "{name}"' for name in bottoms), *(f'top: "{name}"' for name in tops)])
    return f'layer {{ name: "t" type: "{kind}" {ends} {body} }}\n'


def given_input(*dims: int) -> str:
    return 'input: "d" input_shape { ' + " ".join(f"dim: {n}" for n in dims) + " }\n"


def agrees_with_opencv(folder: Path, text: str, blob: str = "t") -> None:
    files = write_net(folder, text)
    dims = list(parse_net(text).input_shape[0].dim)
    values = np.random.default_rng(1).normal(0, 2, dims).astype(np.float32)
    ours, theirs = (open_net(name, *files).forward(values, [blob])[blob] for name in ("reference", "opencv"))
    assert ours.dtype == np.float32
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() < LAYER_FLOAT32
    double = ReferenceNet(*files, double=True).forward(values, [blob])[blob]
    assert double.dtype == np.float64
    assert np.abs(ours - double).max() < LAYER_FLOAT32


@settings(max_examples=60)
@given(data=st.data())
def test_convolution(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    group, within, out = data.draw(st.sampled_from([(1, 3, 4), (2, 2, 3), (4, 1, 1), (3, 1, 2)]))
    kernel, stride, pad = (data.draw(st.tuples(*(st.integers(low, 3),) * 2)) for low in (1, 1, 0))
    dilation = data.draw(st.integers(1, 2))
    text = given_input(1, group * within, data.draw(SIZE), data.draw(SIZE)) + layer(
        "Convolution",
        f"convolution_param {{ num_output: {group * out} group: {group} kernel_h: {kernel[0]} kernel_w: {kernel[1]} "
        f"stride_h: {stride[0]} stride_w: {stride[1]} pad_h: {pad[0]} pad_w: {pad[1]} dilation: {dilation} "
        f"bias_term: {data.draw(st.sampled_from(['true', 'false']))} }}",
    )
    shape = infer(parse_net(text)).blobs["t"]
    assume(shape is not None)
    # OpenCV's depthwise kernel reads past maps of one pixel.
    assume(group == 1 or min(parse_net(text).input_shape[0].dim[2:]) > 1)
    agrees_with_opencv(tmp_path_factory.mktemp("net"), text)


@settings(max_examples=60)
@given(data=st.data())
def test_deconvolution(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    group, within, out = data.draw(st.sampled_from([(1, 3, 4), (2, 2, 3), (4, 1, 1), (3, 1, 2)]))
    # OpenCV wants less padding than kernel, and a stride that the kernel covers.
    kernel = data.draw(st.tuples(*(st.integers(1, 3),) * 2))
    stride, pad = (data.draw(st.tuples(*(st.integers(low, side - 1 + low) for side in kernel))) for low in (1, 0))
    text = given_input(1, group * within, data.draw(SIZE), data.draw(SIZE)) + layer(
        "Deconvolution",
        f"convolution_param {{ num_output: {group * out} group: {group} kernel_h: {kernel[0]} kernel_w: {kernel[1]} "
        f"stride_h: {stride[0]} stride_w: {stride[1]} pad_h: {pad[0]} pad_w: {pad[1]} "
        f"bias_term: {data.draw(st.sampled_from(['true', 'false']))} }}",
    )
    assume(infer(parse_net(text)).blobs["t"] is not None)
    agrees_with_opencv(tmp_path_factory.mktemp("net"), text)


@settings(max_examples=40)
@given(data=st.data())
def test_pooling(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    kernel, pad = data.draw(st.integers(2, 3)), data.draw(st.integers(0, 1))
    stride = data.draw(st.integers(1, kernel))  # with a larger one a window may lie outside of the map
    kind = data.draw(st.sampled_from(["MAX", "AVE"]))
    text = given_input(1, 2, data.draw(st.integers(3, 9)), data.draw(st.integers(3, 9))) + layer(
        "Pooling", f"pooling_param {{ pool: {kind} kernel_size: {kernel} stride: {stride} pad: {pad} }}"
    )
    agrees_with_opencv(tmp_path_factory.mktemp("net"), text)


@pytest.mark.parametrize(
    "body",
    [
        layer("BatchNorm", "batch_norm_param { eps: 0.01 }"),
        layer("Scale", "scale_param { bias_term: true }"),
        layer("ReLU", ""),
        layer("ReLU", "relu_param { negative_slope: 0.25 }"),
        layer("ReLU6", ""),
        layer("Power", "power_param { scale: -0.5 shift: 3 }"),
        layer("Power", "power_param { power: 2 scale: 0.5 shift: 0.25 }"),
        layer("Exp", ""),
        layer("Sigmoid", ""),
        layer("Softmax", "softmax_param { axis: 1 }"),
        layer("Pooling", "pooling_param { pool: AVE global_pooling: true }"),
        layer("Pooling", "pooling_param { pool: MAX global_pooling: true }"),
        layer("Permute", "permute_param { order: 0 order: 2 order: 3 order: 1 }"),
        layer("Flatten", "flatten_param { axis: 1 }"),
        layer("Reshape", "reshape_param { shape { dim: 0 dim: -1 dim: 4 } }"),
        layer("Slice", "slice_param { axis: 1 slice_point: 1 }", tops=("t", "u")),
        layer("Dropout", ""),
        layer("Interp", "interp_param { height: 9 width: 2 }"),
        layer("Interp", "interp_param { height: 1 width: 7 }"),
        layer("Interp", "interp_param { zoom_factor: 2 }"),
        layer("Power", "power_param { scale: 2 }", tops=("a",))
        + layer("Eltwise", "eltwise_param { coeff: 0.5 coeff: -2 }", ("d", "a")).replace('"t"', '"e"', 1),
        layer("Power", "power_param { shift: 1 }", tops=("a",))
        + layer("Eltwise", "eltwise_param { operation: PROD }", ("d", "a")).replace('"t"', '"e"', 1),
        layer("Power", "power_param { shift: 1 }", tops=("a",))
        + layer("Concat", "concat_param { axis: 2 }", ("d", "a")).replace('"t"', '"e"', 1),
        layer("Pooling", "pooling_param { pool: AVE global_pooling: true }", tops=("a",))
        + layer("Flatten", "", ("a",), ("f",)).replace('"t"', '"e"', 1)
        + layer("Scale", "scale_param { axis: 0 }", ("d", "f")).replace('"t"', '"g"', 1),
        layer("PriorBox", "prior_box_param { min_size: 7 min_size: 9 max_size: 12 max_size: 14 aspect_ratio: 2 "
              "aspect_ratio: 3 flip: true clip: false variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2 "
              "offset: 0.5 }", ("d", "d")),
        layer("PriorBox", "prior_box_param { min_size: 7 aspect_ratio: 2 flip: false clip: true variance: 0.1 "
              "step: 3 offset: 0.25 }", ("d", "d")),
    ],
    ids=lambda text: text.split('type: "')[-1].split('"')[0],
)  # fmt: skip
def test_other_layers(body: str, tmp_path: Path) -> None:
    agrees_with_opencv(tmp_path, given_input(1, 3, 4, 5) + body)


def in_double_of(folder: Path, text: str, x: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """The blob `t` in float64, and the weights of the layer `t`."""
    net = ReferenceNet(*write_net(folder, text), double=True)
    return net.forward(x, ["t"])["t"], list(net.weights.get("t", ()))


@pytest.mark.parametrize(("group", "channels", "out"), [(1, 3, 4), (3, 3, 3), (2, 4, 2)])
def test_a_convolution_in_float64_is_its_sum(group: int, channels: int, out: int, tmp_path: Path) -> None:
    """Against a loop over every output, pixel and weight, in Python's own floats."""
    x = np.random.default_rng(4).normal(0, 5, (1, channels, 6, 5))
    body = f"num_output: {out} group: {group} kernel_h: 3 kernel_w: 2 stride: 2 pad: 1"
    text = given_input(*x.shape) + layer("Convolution", f"convolution_param {{ {body} }}")
    found, (kernel, bias) = in_double_of(tmp_path, text, x)
    within, padded = channels // group, np.pad(x[0], ((0, 0), (1, 1), (1, 1)))
    assert found.shape == (1, out, 3, 3)
    for o, row, column in np.ndindex(out, 3, 3):
        first = o // (out // group) * within
        terms = [
            float(padded[first + c, 2 * row + i, 2 * column + j]) * float(kernel[o, c, i, j])
            for c, i, j in np.ndindex(within, 3, 2)
        ]
        assert found[0, o, row, column] == pytest.approx(math.fsum([*terms, float(bias[o])]), rel=1e-13, abs=1e-13)


def test_other_layers_in_float64_are_their_formulas(tmp_path: Path) -> None:
    x = np.random.default_rng(5).normal(0, 3, (1, 2, 2, 3))
    dims = given_input(*x.shape)

    def agree(found: np.ndarray, formula: Callable[[float, int], float]) -> None:
        assert found.shape == x.shape
        for place in np.ndindex(*x.shape):
            assert found[place] == pytest.approx(formula(float(x[place]), place[1]), rel=1e-13, abs=1e-14)

    found, (mean, variance, factor) = in_double_of(
        tmp_path, dims + layer("BatchNorm", "batch_norm_param { eps: 0.01 }"), x
    )
    epsilon = float(np.float32(0.01))
    agree(found, lambda v, c: (v - mean[c] / factor[0]) / math.sqrt(variance[c] / factor[0] + epsilon))
    found, (scale, shift) = in_double_of(tmp_path, dims + layer("Scale", "scale_param { bias_term: true }"), x)
    agree(found, lambda v, c: v * scale[c] + shift[c])
    found, _ = in_double_of(tmp_path, dims + layer("Power", "power_param { power: 2 scale: 0.5 shift: 0.25 }"), x)
    agree(found, lambda v, c: (v * 0.5 + 0.25) ** 2)
    found, _ = in_double_of(tmp_path, dims + layer("Sigmoid", ""), x)
    agree(found, lambda v, c: 1 / (1 + math.exp(-v)))
    found, _ = in_double_of(tmp_path, dims + layer("ReLU6", ""), x)
    agree(found, lambda v, c: min(max(v, 0.0), 6.0))
    found, _ = in_double_of(tmp_path, dims + layer("Softmax", "softmax_param { axis: 1 }"), x)
    for row, column in np.ndindex(2, 3):
        powers = [math.exp(float(value)) for value in x[0, :, row, column]]
        assert found[0, :, row, column] == pytest.approx([power / math.fsum(powers) for power in powers], rel=1e-13)


def test_default_boxes_in_float64_are_their_formulas(tmp_path: Path) -> None:
    body = (
        "min_size: 7 max_size: 14 aspect_ratio: 2 flip: true clip: false variance: 0.1 variance: 0.1 variance: 0.2 "
        "variance: 0.2 offset: 0.5"
    )
    data = 'input: "i" input_shape { dim: 1 dim: 3 dim: 30 dim: 40 }\n'
    text = data + layer("Pooling", "pooling_param { pool: AVE kernel_size: 10 stride: 10 }", ("i",), ("d",)).replace(
        '"t"', '"p"', 1
    ) + layer("PriorBox", f"prior_box_param {{ {body} }}", ("d", "i"))  # fmt: skip
    found, _ = in_double_of(tmp_path, text, np.zeros((1, 3, 30, 40)))
    wanted = []
    for row, column in np.ndindex(3, 4):
        middle, root = math.sqrt(7 * 14), math.sqrt(2)
        for width, height in ((7, 7), (middle, middle), (7 * root, 7 / root), (7 / root, 7 * root)):
            x, y = (column + 0.5) / 4, (row + 0.5) / 3
            wanted += [x - width / 80, y - height / 60, x + width / 80, y + height / 60]
    assert found[0, 0] == pytest.approx(wanted, rel=1e-13, abs=1e-14)
    assert found[0, 1] == pytest.approx([np.float32(0.1), np.float32(0.1), np.float32(0.2), np.float32(0.2)] * 48)


def test_layers_that_opencv_does_not_have(tmp_path: Path) -> None:
    x = np.random.default_rng(2).normal(0, 5, (1, 2, 5, 4)).astype(np.float32)

    def run(body: str) -> np.ndarray:
        files = write_net(tmp_path, given_input(*x.shape) + body)
        return ReferenceNet(*files).forward(x, ["t"])["t"]

    assert np.array_equal(run(layer("Split", "", tops=("t", "u"))), x)
    assert np.array_equal(run(layer("Clip", "clip_param { min: -1 max: 2 }")), np.clip(x, -1, 2))
    padded = run(layer("Pad", "pad_param { pad_u: 1 pad_d: 0 pad_l: 2 pad_r: 1 }"))
    assert np.array_equal(padded, np.pad(x, ((0, 0), (0, 0), (1, 0), (2, 1))))
    kernel = "num_output: 1 kernel_size: 3 stride: 2 bias_term: false"
    same = run(layer("Convolution", f"convolution_param {{ {kernel} tf_pad: SAME }}"))
    by_hand = run(
        layer("Pad", "pad_param { pad_u: 1 pad_d: 1 pad_l: 0 pad_r: 1 }", tops=("p",)).replace('"t"', '"q"', 1)
        + layer("Convolution", f"convolution_param {{ {kernel} }}", ("p",))
    )
    assert same.shape == (1, 1, 3, 2)
    assert np.allclose(same, by_hand, atol=1e-5)
    valid = run(layer("Convolution", f"convolution_param {{ {kernel} tf_pad: VALID pad: 1 }}"))
    assert valid.shape == (1, 1, 2, 1)


@pytest.fixture(scope="module")
def example_blob() -> np.ndarray:
    return caffe_blob(network_input(draw_scene(3)[0], (320, 320), mean=127.5, scale=1 / 127.5))


def in_double(folder: Path, blob: np.ndarray) -> dict[str, np.ndarray]:
    opened = ModelFolder.open(folder)
    return ReferenceNet(opened.deploy_prototxt, opened.deploy_caffemodel, double=True).forward(blob, HEADS)


def other_dialects() -> list[dict[str, str]]:
    """Each exact value of each field of Dialect that is not the default, alone."""
    found = []
    for name, kind in typing.get_type_hints(Dialect).items():
        for value in typing.get_args(kind):
            dialect = Dialect(**{name: value})
            if dialect != Dialect() and not dialect.inexact(clip_first=True):
                found.append({name: value})
    return found


@pytest.mark.parametrize("dialect", other_dialects(), ids=lambda choice: "-".join(*choice.items()))
def test_every_exact_dialect_is_the_same_net(
    dialect: dict[str, str], example_folder: Path, example_model: Path, example_blob: np.ndarray, tmp_path: Path
) -> None:
    """In float64, where only the weights' rounding is left: none, but where BatchNorm is kept."""
    convert(example_model, tmp_path / "out", ConvertOptions(dialect=Dialect(**dialect)))  # type: ignore[arg-type]
    ours, default = in_double(tmp_path / "out", example_blob), in_double(example_folder, example_blob)
    bound = 1e-5 if "batch_norm" in dialect else 1e-12
    assert np.abs(ours["mbox_conf_flatten"] - default["mbox_conf_flatten"]).max() < bound
    if "priors" in dialect:  # encodings are of other default boxes, which are rounded to float32
        assert np.abs(boxes_of(ours) - boxes_of(default)).max() < 2e-7
        return
    for name in HEADS:
        assert np.abs(ours[name] - default[name]).max() < bound


def boxes_of(heads: dict[str, np.ndarray]) -> np.ndarray:
    corners, variances = split_priors(heads["mbox_priorbox"])
    return np.asarray(decode_boxes(heads["mbox_loc"], corners, variances, np.float64))


def test_detections_are_opencvs(example_folder: Path, example_blob: np.ndarray) -> None:
    folder = ModelFolder.open(example_folder)
    files = folder.deploy_prototxt, folder.deploy_caffemodel
    ours, theirs = (open_net(name, *files).detect(example_blob).above(0.3) for name in ("reference", "opencv"))
    assert len(ours) == len(theirs) > 0
    assert np.array_equal(ours.classes, theirs.classes)
    assert np.abs(ours.scores - theirs.scores).max() < 1e-5
    assert np.abs(ours.boxes - theirs.boxes).max() < 1e-5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (given_input(1, 3, 4, 4) + layer("LRN", ""), "the reference runtime has no layer type 'LRN' (layer 't')"),
        (given_input(1, 3, 4, 4) + layer("ReLU", "", ("e",)), "cannot be run: "),
        (layer("DummyData", "dummy_data_param { shape { dim: 1 } }", ()), "has no layer type 'DummyData'"),
    ],
)
def test_what_it_does_not_run(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(text)
    write_caffemodel(tmp_path / "net.caffemodel", caffe_pb2.NetParameter())
    with pytest.raises(PrototxtError, match=re.escape(said)):
        ReferenceNet(tmp_path / "net.prototxt", tmp_path / "net.caffemodel")


def test_weights_of_another_net(tmp_path: Path) -> None:
    text = given_input(1, 3, 4, 4) + layer("Convolution", "convolution_param { num_output: 2 kernel_size: 1 }")
    files = write_net(tmp_path, text)
    files[0].write_text(text.replace("num_output: 2", "num_output: 5"))
    with pytest.raises(PrototxtError, match=r"has blobs 2x3x1x1, 2 for layer 't'; .* needs 5x3x1x1, 5"):
        ReferenceNet(*files)
    others = caffe_pb2.NetParameter()
    others.layer.add(name="u")
    write_caffemodel(files[1], others, force=True)
    with pytest.raises(PrototxtError, match="has blobs none for layer 't'"):
        ReferenceNet(*files)


def test_an_input_of_another_size(tmp_path: Path) -> None:
    net = ReferenceNet(*write_net(tmp_path, given_input(1, 3, 4, 5) + layer("ReLU", "")))
    with pytest.raises(PrototxtError, match=r"input d must have the shape \(1, 3, 4, 5\), got \(1, 3, 5, 4\)"):
        net.forward(np.zeros((1, 3, 5, 4), np.float32), ["t"])
    with pytest.raises(PrototxtError, match="has no blob named u"):
        net.forward(np.zeros((1, 3, 4, 5), np.float32), ["u"])
    with pytest.raises(PrototxtError, match="has no DetectionOutput layer"):
        net.detect(np.zeros((1, 3, 4, 5), np.float32))


def test_the_table_is_complete() -> None:
    """Every layer type of a deploy net in any dialect: those that the default and the others' tests ran are in it."""
    assert {"BatchNorm", "Clip", "Pad", "ReLU6", "Slice", "Exp", "PriorBox", "Silence"} <= LAYERS.keys()
