"""The table for OpenCV against OpenCV itself: for each layer type, a net that it loads and runs, or refuses."""

import re

import numpy as np
import pytest

from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.limits import LIMITS
from ssdlite_caffe.prototxt.lint import lint
from ssdlite_caffe.prototxt.rules_opencv import ACTIVATIONS
from ssdlite_caffe.prototxt.rules_ssd import RULES
from ssdlite_caffe.prototxt.shapes import infer
from ssdlite_caffe.prototxt.text import parse_net
from tests.opencv_nets import cv2, inputs, layer, opencv_outputs, opencv_shape

pytestmark = pytest.mark.opencv

OPENCV = LIMITS["opencv"]
DATA = inputs(d=(1, 8, 6, 6))
PAIR = DATA + layer("Power", "", ("d",), ("e",), "e")
REGIONS = inputs(d=(1, 8, 6, 6), r=(3, 5)) + layer("Power", "power_param { scale: 0 }", ("r",), ("e",), "e")
CONV = "num_output: 8 kernel_size: 3"
PRIOR = "min_size: 2 clip: false variance: 0.1"
OUTPUT = (
    "num_classes: 2 share_location: true background_label_id: 0 nms_param { nms_threshold: 0.5 } keep_top_k: 10 "
    "code_type: CENTER_SIZE"
)
TWO, PLAIN = ("d", "e"), ("d",)

# Layer type -> its parameters, what they hold, bottoms, and the net before the layer.
NETS = {
    **dict.fromkeys(("BNLL", "AbsVal", "HardSwish", "Mish", "Split", *ACTIVATIONS), ("", "", PLAIN, DATA)),
    "Convolution": ("convolution_param", CONV, PLAIN, DATA),
    "ConvolutionDepthwise": ("convolution_param", CONV + " group: 8", PLAIN, DATA),
    "Deconvolution": ("convolution_param", CONV, PLAIN, DATA),
    "Pooling": ("pooling_param", "kernel_size: 2", PLAIN, DATA),
    "InnerProduct": ("inner_product_param", "num_output: 3", PLAIN, DATA),
    "LRN": ("lrn_param", "", PLAIN, DATA),
    "MVN": ("mvn_param", "", PLAIN, DATA),
    "BatchNorm": ("batch_norm_param", "", PLAIN, DATA),
    "Scale": ("scale_param", "", PLAIN, DATA),
    "ReLU": ("relu_param", "", PLAIN, DATA),
    "ReLU6": ("relu6_param", "", PLAIN, DATA),
    "PReLU": ("prelu_param", "", PLAIN, DATA),
    "ELU": ("elu_param", "", PLAIN, DATA),
    "Sigmoid": ("sigmoid_param", "", PLAIN, DATA),
    "TanH": ("tanh_param", "", PLAIN, DATA),
    "HardSigmoid": ("hardsigmoid_param", "", PLAIN, DATA),
    "Swish": ("swish_param", "", PLAIN, DATA),
    "Power": ("power_param", "", PLAIN, DATA),
    "Exp": ("exp_param", "", PLAIN, DATA),
    "Log": ("log_param", "", PLAIN, DATA),
    "Dropout": ("dropout_param", "", PLAIN, DATA),
    "Eltwise": ("eltwise_param", "", TWO, PAIR),
    "Axpy": ("", "", ("a", "d", "e"), inputs(a=(1, 8, 1, 1), d=(1, 8, 6, 6), e=(1, 8, 6, 6))),
    "Concat": ("concat_param", "", TWO, PAIR),
    "Slice": ("slice_param", "slice_point: 3", PLAIN, DATA),
    "Crop": ("crop_param", "", TWO, PAIR),
    "Flatten": ("flatten_param", "", PLAIN, DATA),
    "Reshape": ("reshape_param", "shape { dim: 0 dim: -1 }", PLAIN, DATA),
    "Permute": ("permute_param", "order: 0 order: 2 order: 3 order: 1", PLAIN, DATA),
    "Softmax": ("softmax_param", "", PLAIN, DATA),
    "SoftMax": ("softmax_param", "", PLAIN, DATA),
    "Normalize": ("norm_param", "", PLAIN, DATA),
    "NormalizeBBox": ("norm_param", "across_spatial: false channel_shared: false", PLAIN, DATA),
    "PriorBox": ("prior_box_param", PRIOR, TWO, PAIR),
    "ShuffleChannel": ("shuffle_channel_param", "", PLAIN, DATA),
    "Interp": ("interp_param", "height: 12 width: 10", PLAIN, DATA),
    "Reorg": ("reorg_param", "", PLAIN, DATA),
    "FlowWarp": ("", "", ("d", "f"), inputs(d=(1, 8, 6, 6), f=(1, 2, 6, 6))),
    "ROIPooling": ("roi_pooling_param", "pooled_h: 3 pooled_w: 2 spatial_scale: 0.5", TWO, REGIONS),
    "PSROIPooling": ("psroi_pooling_param", "spatial_scale: 0.5 output_dim: 2 group_size: 2", TWO, REGIONS),
    "Accum": ("", "", PLAIN, DATA),
    "Correlation": (
        "correlation_param", "pad: 2 kernel_size: 1 max_displacement: 2 stride_1: 1 stride_2: 1", TWO, PAIR,
    ),
    "Resample": ("resample_param", "type: NEAREST width: 12 height: 12 antialias: false", PLAIN, DATA),
    "MaxUnpool": (
        "pool_param",
        "pool_k_h: 2 pool_k_w: 2 pool_stride_h: 2 pool_stride_w: 2 pool_pad_h: 0 pool_pad_w: 0",
        ("p", "m"),
        DATA + layer("Pooling", "pooling_param { kernel_size: 2 stride: 2 }", ("d",), ("p", "m"), "p"),
    ),
    "Proposal": (
        "proposal_param",
        "feat_stride: 16 base_size: 16 min_size: 16 ratio: 1 scale: 8 scale: 16 pre_nms_topn: 9 post_nms_topn: 5 "
        "nms_thresh: 0.7",
        ("s", "b", "i"),
        inputs(s=(1, 4, 6, 6), b=(1, 8, 6, 6), i=(1, 3)),
    ),
    "DetectionOutput": (
        "detection_output_param", OUTPUT, ("l", "c", "p"), inputs(l=(1, 16), c=(1, 8), p=(1, 2, 16)),
    ),
}  # fmt: skip
WITHOUT_TOP = {"Input", "Silence"}  # an Input layer stands for the net's inputs; Silence has no top to look at


def net_of(kind: str, extra: str = "") -> str:
    param, body, bottoms, before = NETS[kind]
    field = re.match(r"\w+", extra)
    if field:  # it takes the place of the field in the net
        body = re.sub(rf"\b{field.group()}: \S+", "", body) if not _repeated(param, field.group()) else body
    block = f"{param} {{ {body} {extra} }}" if param else ""
    return before + layer(kind, block, bottoms, ("t", "u") if kind == "Slice" else ("t",))


def _repeated(param: str, name: str) -> bool:
    block = caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name.get(param)
    return (
        block is not None
        and name in block.message_type.fields_by_name
        and block.message_type.fields_by_name[name].is_repeated
    )


def errors(text: str) -> list[str]:
    return [problem.text for problem in lint(text, runtime="opencv").problems if problem.severity == "error"]


def shaped(text: str) -> tuple[int, ...] | None:
    shape = next(one for one in lint(text, runtime="opencv").layers if one.shapes.name == "t").shapes.tops[0].shape
    return (*shape, 1) if shape is not None and len(shape) == 1 else shape  # OpenCV has no blobs of one axis


@pytest.mark.parametrize("kind", sorted(OPENCV.layers - WITHOUT_TOP))
def test_layers_that_the_table_has(kind: str) -> None:
    text = net_of(kind)
    assert errors(text) == []
    found = opencv_shape(text)
    expected = shaped(text)
    if kind == "DetectionOutput":
        expected, found = (1, 1, 7), (*found[:2], found[3])  # as many rows as there are detections
    if expected is None:
        assert OPENCV.rules[kind].shape(parse_net(layer(kind)).layer[0], ()).tops == (None,)
    else:
        assert found == expected


NAMES = [
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "Ceil",
    "Celu",
    "CELU",
    "Cos",
    "Cosh",
    "Elu",
    "ELU",
    "Erf",
    "Floor",
    "Gelu",
    "GELU",
    "GeluApproximation",
    "HSwish",
    "HardSwish",
    "Identity",
    "LeakyReLU",
    "Mish",
    "Neg",
    "Not",
    "Reciprocal",
    "ReLU",
    "Relu",
    "ReLU6",
    "Round",
    "Selu",
    "SELU",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Silu",
    "Sin",
    "Sinh",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Square",
    "Swish",
    "Tan",
    "Tanh",
    "TanH",
    "ThresholdedRelu",
]


@pytest.mark.parametrize("kind", NAMES)
def test_names_of_activations(kind: str) -> None:
    text = DATA + layer(kind)
    if errors(text):
        with pytest.raises(cv2.error):
            opencv_shape(text)
    else:
        assert opencv_shape(text) == shaped(text)


def test_silence_and_input() -> None:
    text = (
        'layer { name: "i" type: "Input" top: "d" input_param { shape { dim: 1 dim: 2 } } }\n'
        + layer("Silence", "", ("d",), (), "s") + layer("ReLU")
    )  # fmt: skip
    assert errors(text) == []
    net = cv2.dnn.readNetFromCaffe(np.frombuffer(text.encode(), np.uint8))
    net.setInput(np.ones((1, 2), np.float32))
    assert net.forward().shape == (1, 2)


@pytest.mark.parametrize("kind", sorted(RULES.keys() - OPENCV.layers))
def test_layers_that_the_table_has_not(kind: str) -> None:
    rule = RULES[kind]
    bottoms = ("d", "e", "f", "g")[: max(rule.bottoms[0], 1 if rule.bottoms[1] else 0)]
    before = DATA + "".join(layer("Power", "", ("d",), (name,), name) for name in ("e", "f", "g"))
    params = {"DepthwiseConvolution": f"convolution_param {{ {CONV} group: 8 }}", "Tile": "tile_param { tiles: 2 }"}
    text = before + layer(kind, params.get(kind, ""), bottoms, ("t", "u")[: max(rule.tops[0], 1)])
    assert any("has no layer" in problem.text for problem in lint(text, runtime="opencv").problems)
    with pytest.raises(cv2.error):
        opencv_shape(text)


def _values(field) -> list[str]:
    if field.message_type is not None:
        return [f"{field.name} {{ }}"]
    if field.enum_type is not None:
        values = [value.name for value in field.enum_type.values]
    elif field.cpp_type == field.CPPTYPE_BOOL:
        values = ["true", "false"]
    elif field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        values = ["0.5", "2"]
    else:
        values = ["1", "2", "3"] + (["-1"] if field.cpp_type == field.CPPTYPE_INT32 else [])
    return [f"{field.name}: {value}" for value in values]


FIELDS = [
    (kind, text)
    for kind, (param, *_) in NETS.items()
    if param in caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name and kind not in ("Proposal", "DetectionOutput")
    for field in caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name[param].message_type.fields
    if not (kind == "Reshape" and field.name == "shape")
    for text in _values(field)
]


@pytest.mark.parametrize("kind", sorted({kind for kind, _ in FIELDS}))
def test_each_field_of_a_layer(kind: str) -> None:
    """Without errors OpenCV makes what lint says; with an error of its own it fails, or does not do what Caffe does."""
    differ = []
    for extra in (extra for other, extra in FIELDS if other == kind):
        text = net_of(kind, extra)
        found = errors(text)
        caffe = infer(parse_net(text))
        if not found:
            assert opencv_shape(text) == shaped(text), extra
        elif not caffe.errors:  # a net that Caffe takes, and OpenCV does not
            try:
                outcome = opencv_outputs(text)[0]
            except cv2.error:
                continue
            if outcome.shape == caffe.blobs["t"]:
                differ.append(extra.split(":")[0].split(" ")[0])
    # The shape is the same, the values are not: an image's own statistics (see below), and pixels that are not cut off.
    assert set(differ) <= {"weight_filler", "bias_filler", "use_alpha_beta", "do_all_reduce", "pad_beg", "pad_end"}


@pytest.mark.parametrize(
    "field", ["use_alpha_beta: false", "bias_filler { value: 1 }", "do_all_reduce: true", "anything: 1"]
)
def test_fields_with_which_a_batch_norm_takes_the_statistics_of_the_image(field: str) -> None:
    plain, other = net_of("BatchNorm"), net_of("BatchNorm", field)
    assert errors(plain) == []
    assert errors(other)
    assert np.abs(opencv_outputs(plain, values={"d": 3})[0] - opencv_outputs(other, values={"d": 3})[0]).min() > 1


@pytest.mark.parametrize("bottom", [(1, 8, 6, 6), (2, 8, 6, 6), (2, 8)])
@pytest.mark.parametrize(
    "other",
    [(1, 8, 6, 6), (2, 8, 6, 6), (1, 8, 1, 1), (2, 8, 1, 1), (1, 8), (2, 8), (1, 1, 6, 6), (1, 4, 6, 6), (1, 8, 6, 1),
     (1, 1, 1, 1), (1, 8, 36), (2, 1), (1, 8, 3, 3)],
)  # fmt: skip
@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("Eltwise", ""),
        ("Eltwise", "eltwise_param { operation: PROD }"),
        ("Eltwise", "eltwise_param { coeff: 1 coeff: -1 }"),
        ("Eltwise", "eltwise_param { operation: MAX coeff: 1 coeff: -1 }"),
        ("Scale", ""),
        ("Scale", "scale_param { axis: 0 }"),
        ("Scale", "scale_param { axis: 2 }"),
    ],
)
def test_bottoms_of_two_shapes(kind: str, body: str, bottom: tuple[int, ...], other: tuple[int, ...]) -> None:
    text = inputs(d=bottom, e=other) + layer(kind, body, ("d", "e"))
    if errors(text):
        with pytest.raises(cv2.error):
            opencv_shape(text)
    else:
        assert opencv_shape(text) == shaped(text)


def test_axpy_scales_another_bottom() -> None:
    text = net_of("Axpy")
    assert any("bottom 1 + bottom 0 x bottom 2" in problem.text for problem in lint(text, runtime="opencv").problems)
    assert np.all(opencv_outputs(text, values={"a": 2, "d": 3, "e": 5})[0] == 3 + 2 * 5)


@pytest.mark.parametrize("factor", [(2, 8, 1, 1), (2, 8), (1, 8, 1, 1), (1, 4, 1, 1)])
@pytest.mark.parametrize("batch", [1, 2])
def test_axpy(factor: tuple[int, ...], batch: int) -> None:
    text = inputs(a=factor, d=(batch, 8, 6, 6), e=(batch, 8, 6, 6)) + layer("Axpy", "", ("a", "d", "e"))
    if errors(text):
        with pytest.raises(cv2.error):
            opencv_shape(text)
    else:
        assert opencv_shape(text) == shaped(text)


@pytest.mark.parametrize("body", ["", "slice_param { axis: 2 }", "slice_param { slice_point: 2 slice_point: 5 }"])
@pytest.mark.parametrize("read", [(0,), (2,), (0, 1), (0, 1, 2)])
def test_slices_whose_parts_are_not_all_read(body: str, read: tuple[int, ...]) -> None:
    text = inputs(d=(1, 6, 6, 6)) + layer("Slice", body, ("d",), ("t0", "t1", "t2"), "s")
    text += "".join(layer("Power", "", (f"t{place}",), (f"p{place}",), f"p{place}") for place in read)
    shapes = [infer(parse_net(text)).blobs[f"p{place}"] for place in read]
    try:
        made: list | None = [output.shape for output in opencv_outputs(text, [f"p{place}" for place in read])]
    except cv2.error:
        made = None
    assert (made == shapes) is (errors(text) == [])


@pytest.mark.parametrize("read", [True, False])
def test_a_slice_of_one_part(read: bool) -> None:
    text = DATA + layer("Slice", "", ("d",), ("s",), "s") + layer("Power", "", ("s",), ("t",)) * read
    assert (errors(text) == []) is read
    if read:
        assert opencv_shape(text) == shaped(text)
    else:
        with pytest.raises(cv2.error):
            opencv_shape(text, "s")


@pytest.mark.parametrize(
    "order", ["", "0", "0 1", "1", "0 2", "0 2 3", "0 2 3 1", "3 2 1 0", "0 0 1 2", "0 1 2 4", "1 0 2 3 3"]
)
def test_orders_of_a_permute(order: str) -> None:
    body = "permute_param { " + " ".join(f"order: {axis}" for axis in order.split()) + " }"
    text = DATA + layer("Permute", body)
    if errors(text):
        with pytest.raises(cv2.error):
            opencv_shape(text)
    else:
        assert opencv_shape(text) == shaped(text)


@pytest.mark.parametrize("count", [3, 4])
def test_bottoms_of_a_detection_output(count: int) -> None:
    text = inputs(l=(1, 16), c=(1, 8), p=(1, 2, 16), g=(1, 1, 1, 8)) + layer("Power", "", ("g",), ("h",), "h")
    text += layer("DetectionOutput", f"detection_output_param {{ {OUTPUT} }}", ("l", "c", "p", "h")[:count])
    assert errors(text) == []
    assert opencv_shape(text)[3] == 7
    refused = text.replace("CENTER_SIZE", "CORNER_SIZE")
    assert any("CORNER_SIZE" in one for one in errors(refused))
    with pytest.raises(cv2.error):
        opencv_shape(refused)


UNKNOWN = [
    ("", "zap: 1"), ("", "zap { a: 1 b { c: WORD } }"), ("", 'zap: "text"'), ("", 'zap { a: "text" }'),
    *((param, "zap: 1") for param in sorted({param for param, *_ in NETS.values()} - {""})),
]  # fmt: skip


@pytest.mark.parametrize(("param", "field"), UNKNOWN)
def test_unknown_fields(param: str, field: str) -> None:
    """Those that do no harm in OpenCV are warnings; without a runtime they are errors."""
    kind = next((kind for kind, (other, *_) in NETS.items() if other == param), "ReLU")
    text = net_of(kind, field) if param else DATA + layer("ReLU", field)
    if param and param not in caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name:
        assert errors(text) == []  # a block of which Caffe's messages know nothing
        assert opencv_shape(text)
        return
    found = [problem for problem in lint(text, runtime="opencv").problems if problem.kind == "unknown-field"]
    if found[0].severity == "warning":
        assert found[0].text.endswith("OpenCV DNN loads the net all the same")
        assert opencv_shape(text)[-1] == shaped(text)[-1]
    assert not lint(text).ok


@pytest.mark.parametrize(
    ("param", "field"),
    [("", 'zap: "text"'), ("", 'zap { a { b: "text" } }'), ("convolution_param", "zap: 1"), ("pooling_param", "zap: 1"),
     ("prior_box_param", "zap: 1")],
)  # fmt: skip
def test_unknown_fields_that_stay_errors(param: str, field: str) -> None:
    kind = next((kind for kind, (other, *_) in NETS.items() if other == param), "ReLU")
    text = net_of(kind, field) if param else DATA + layer("ReLU", field)
    assert errors(text)
    with pytest.raises(cv2.error):
        opencv_shape(text)


@pytest.mark.parametrize("rule", ["include { phase: TRAIN }", "exclude { phase: TEST }", 'include { stage: "x" }'])
@pytest.mark.parametrize(("kind", "runs"), [("ReLU", True), ("Threshold", False)])
def test_layers_of_every_phase_are_read(rule: str, kind: str, runs: bool) -> None:
    text = DATA + layer("Power") + layer(kind, rule, ("d",), ("x",), "x")
    assert (errors(text) == []) is runs
    if runs:
        assert opencv_shape(text)
    else:
        with pytest.raises(cv2.error):
            opencv_shape(text)


@pytest.mark.parametrize("kind", ["Pooling", "Flatten", "InnerProduct", "ReLU", "Softmax"])
@pytest.mark.parametrize("read", [True, False])
def test_any_layer_may_work_in_place(kind: str, read: bool) -> None:
    param, body, *_ = NETS[kind]
    text = DATA + layer("Power", "", ("d",), ("e",), "e") * read + layer(kind, f"{param} {{ {body} }}", ("d",), ("d",))
    assert errors(text) == []
    assert lint(text).ok is (kind in ("ReLU", "Softmax") and not read)
    assert opencv_shape(text) == shaped(text)


@pytest.mark.parametrize(
    "text",
    [
        "\N{BYTE ORDER MARK}" + DATA + layer("ReLU"),
        DATA + layer("Pooling", "pooling_param { pool: AVE_EXC_PAD kernel_size: 2 }"),
        DATA + layer("Pooling", "pooling_param { pool: max kernel_size: 2 }"),
        DATA + layer("Pooling", "pooling_param { pool: 9 kernel_size: 2 }"),
        DATA + layer("Pooling", 'pooling_param { pool: "MAX" kernel_size: 2 }'),
        DATA + layer("Pooling", "pooling_param { kernel_size: 2 kernel_size: 3 }"),
        DATA + layer("Pooling", "pooling_param { kernel_size: 2.0 }"),
        DATA + layer("Pooling", 'pooling_param { kernel_size: "2" }'),
        DATA + layer("Pooling", "pooling_param { kernel_size: 2 pad: -1 }"),
        DATA + layer("Pooling", "pooling_param { kernel_size: 99999999999 }"),
        DATA + layer("Pooling", "pooling_param { kernel_size: [2] }"),
        DATA + layer("Pooling", "pooling_param { kernel_size: 2 ceil_mode: TRUE }"),
        DATA + layer("ReLU", "relu_param { } relu_param { }"),
        DATA + layer("ReLU", 'name: "again"'),
        DATA + layer("ReLU", "relu_param: 3"),
        DATA + layer("Power", 'power_param { scale: "1" }'),
        DATA.replace('"d"', "d") + layer("ReLU"),
        DATA.replace("dim: 8", "dim:\N{NO-BREAK SPACE}8") + layer("ReLU"),
    ],
)
def test_texts_that_are_refused(text: str) -> None:
    assert errors(text)
    with pytest.raises(cv2.error):
        cv2.dnn.readNetFromCaffe(np.frombuffer(text.encode(), np.uint8))


@pytest.mark.parametrize(
    "text",
    [
        DATA + layer("Pooling", "pooling_param { pool: 1 kernel_size: 0x2 stride: 01 }"),
        DATA + layer("Pooling", "pooling_param < kernel_size: 2; ceil_mode: t, >"),
        DATA + layer("Power", "power_param { scale: - 1.f shift: 1e-3 power: inf }"),
        DATA.replace("\n", "\r\n") + "# \N{DEGREE SIGN}\n" + layer("ReLU"),
        DATA + "layer: { name: 't' type: 'Re' \"LU\" bottom: ['d'] top: \"\\x74\" }",
        DATA + 'layers { name: "t" type: RELU bottom: "d" top: "t" blobs_lr: 1 weight_decay: 0 }',
    ],
)
def test_texts_that_are_read(text: str) -> None:
    assert errors(text) == []
    assert opencv_shape(text) == shaped(text)
