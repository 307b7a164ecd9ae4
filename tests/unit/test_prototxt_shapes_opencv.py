"""Shapes against OpenCV DNN: it loads weights of the shapes inferred and gives blobs of the shapes inferred."""

import itertools

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ssdlite_caffe.prototxt.limits import LIMITS
from ssdlite_caffe.prototxt.shapes import infer
from ssdlite_caffe.prototxt.text import parse_net
from tests.opencv_nets import cv2, inputs, layer, opencv_shape

pytestmark = pytest.mark.opencv

SIZE = st.integers(1, 14)


def given_input(*dims):
    return inputs(d=dims)


def one_layer(kind, body, bottoms=("d",)):
    return layer(kind, body, bottoms)


def agree(text):
    inferred = infer(parse_net(text))
    if inferred.problems:
        with pytest.raises(cv2.error):
            opencv_shape(text, "t")
    else:
        assert opencv_shape(text, "t") == inferred.blobs["t"]


@settings(max_examples=150)
@given(st.data())
def test_convolution(data):
    height, width = data.draw(SIZE), data.draw(SIZE)
    group, per_group, out = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 2)))
    fields = [
        f"num_output: {group * out}",
        f"group: {group}",
        f"bias_term: {data.draw(st.sampled_from(['true', 'false']))}",
    ]
    for name, short, low, high in (("kernel_size", "kernel", 1, 6), ("stride", "stride", 1, 3), ("pad", "pad", 0, 3)):
        h, w = data.draw(st.integers(low, high)), data.draw(st.integers(low, high))
        fields += [f"{name}: {h}"] if data.draw(st.booleans()) else [f"{short}_h: {h} {short}_w: {w}"]
    fields.append(f"dilation: {data.draw(st.integers(1, 2))}")
    net = given_input(1, group * per_group, height, width)
    net += one_layer("Convolution", f"convolution_param {{ {' '.join(fields)} }}")
    assume(not infer(parse_net(net)).problems)
    agree(net)


@settings(max_examples=60)
@given(SIZE, SIZE, st.integers(1, 4), st.integers(1, 3), st.integers(0, 2), st.booleans())
def test_deconvolution(height, width, kernel, stride, pad, bias):
    assume(kernel > pad * 2)
    body = f"num_output: 3 kernel_size: {kernel} stride: {stride} pad: {pad} bias_term: {str(bias).lower()}"
    agree(given_input(1, 2, height, width) + one_layer("Deconvolution", f"convolution_param {{ {body} }}"))


@settings(max_examples=150)
@given(SIZE, SIZE, st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(0, 3), st.booleans())
def test_pooling(height, width, kernel_h, kernel_w, stride, pad, ceil):
    assume(pad < min(kernel_h, kernel_w) and kernel_h <= height + 2 * pad and kernel_w <= width + 2 * pad)
    body = f"kernel_h: {kernel_h} kernel_w: {kernel_w} stride: {stride} pad: {pad} ceil_mode: {str(ceil).lower()}"
    agree(given_input(2, 3, height, width) + one_layer("Pooling", f"pooling_param {{ {body} }}"))


@settings(max_examples=60)
@given(
    SIZE,
    SIZE,
    st.lists(st.sampled_from([1, 2, 3, 0.5, 1.5]), max_size=4),
    st.booleans(),
    st.booleans(),
    st.integers(1, 2),
)
def test_prior_box(height, width, ratios, flip, with_max, count):
    fields = [f"min_size: {3 + n}" for n in range(count)] + [f"aspect_ratio: {ratio}" for ratio in ratios]
    fields += [f"max_size: {9 + n}" for n in range(count) if with_max]
    body = f"prior_box_param {{ {' '.join(fields)} flip: {str(flip).lower()} clip: false variance: 0.1 }}"
    image = 'layer { name: "p" type: "Power" bottom: "d" top: "d2" }\n'
    agree(given_input(1, 2, height, width) + image + one_layer("PriorBox", body, ("d", "d2")))


@pytest.mark.parametrize("order", list(itertools.permutations(range(4)))[::5])
def test_permute(order):
    body = " ".join(f"order: {axis}" for axis in order)
    agree(given_input(2, 3, 4, 5) + one_layer("Permute", f"permute_param {{ {body} }}"))


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        *((kind, "") for kind in ("ReLU", "ReLU6", "ELU", "Power", "Sigmoid", "TanH", "HardSwish", "HardSigmoid")),
        *((kind, "") for kind in ("Swish", "BNLL", "AbsVal", "Exp", "Log", "Dropout", "LRN", "MVN", "Split")),
        *((kind, "") for kind in ("Softmax", "Flatten", "BatchNorm", "Scale", "PReLU")),
        ("Scale", "scale_param { bias_term: true }"),
        ("Normalize", "norm_param { across_spatial: false channel_shared: false }"),
        ("ConvolutionDepthwise", "convolution_param { num_output: 3 group: 3 kernel_size: 3 }"),
        ("Pooling", "pooling_param { pool: AVE global_pooling: true }"),
        ("InnerProduct", "inner_product_param { num_output: 7 }"),
        ("Flatten", "flatten_param { axis: 2 }"),
        ("Reshape", "reshape_param { shape { dim: 0 dim: -1 dim: 5 } }"),
        ("Reshape", "reshape_param { shape { dim: -1 dim: 5 } axis: 2 num_axes: 2 }"),
    ],
)  # fmt: skip
def test_layers_of_one_bottom(kind, body):
    assert kind in LIMITS["opencv"].layers
    agree(given_input(2, 3, 4, 5) + one_layer(kind, body))


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("Eltwise", ""),
        ("Eltwise", "eltwise_param { operation: PROD }"),
        ("Concat", ""),
        ("Concat", "concat_param { axis: 2 }"),
        ("Crop", ""),
        ("Scale", "scale_param { axis: 0 }"),
    ],
)
def test_layers_of_two_bottoms(kind, body):
    other = 'layer { name: "o" type: "Power" bottom: "d" top: "o" power_param { scale: 2 } }\n'
    agree(given_input(1, 3, 4, 5) + other + one_layer(kind, body, ("d", "o")))


def test_slice():
    text = given_input(1, 7, 4, 5) + (
        'layer { name: "s" type: "Slice" bottom: "d" top: "a" top: "b" slice_param { slice_point: 2 } }\n'
        'layer { name: "t" type: "Power" bottom: "b" top: "t" }\n'
    )
    agree(text)


DETECTION = """layer { name: "e" type: "Power" bottom: "d" top: "e" }
layer { name: "p" type: "PriorBox" bottom: "d" bottom: "e" top: "p" prior_box_param { PRIOR } }
layer { name: "l" type: "Convolution" bottom: "d" top: "l" convolution_param { num_output: 4 kernel_size: 1 } }
layer { name: "c" type: "Convolution" bottom: "d" top: "c" convolution_param { num_output: 2 kernel_size: 1 } }
layer { name: "lf" type: "Flatten" bottom: "l" top: "lf" }
layer { name: "cf" type: "Flatten" bottom: "c" top: "cf" }
layer { name: "t" type: "DetectionOutput" bottom: "lf" bottom: "cf" bottom: "p" top: "t"
  detection_output_param { OUTPUT } }
"""
PRIOR = ["min_size: 2", "variance: 0.1"]
OUTPUT = [
    "num_classes: 2", "share_location: true", "background_label_id: 0", "nms_param { nms_threshold: 0.5 }",
    "keep_top_k: 10", "code_type: CENTER_SIZE",
]  # fmt: skip


def detection(prior, output):
    return given_input(1, 3, 6, 5) + DETECTION.replace("PRIOR", " ".join(prior)).replace("OUTPUT", " ".join(output))


def test_detection_output_has_rows_of_seven():
    text = detection(PRIOR, OUTPUT)
    assert opencv_shape(text, "t")[3] == infer(parse_net(text)).blobs["t"][3] == 7


@pytest.mark.parametrize("left_out", [*PRIOR[1:], *OUTPUT])
def test_fields_that_opencv_takes_no_default_for(left_out):
    prior = [field for field in PRIOR if field != left_out]
    output = [field for field in OUTPUT if field != left_out]
    with pytest.raises(cv2.error):
        opencv_shape(detection(prior, output), "t")
    path = left_out.partition(":")[0].replace(" { ", ".")
    assert any(rule.wanted and rule.path.endswith(path) for rule in LIMITS["opencv"].fields)
