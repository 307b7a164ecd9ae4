"""Shapes of layers and nets, and what infer reports."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.shapes import default_phase, infer
from ssdlite_caffe.prototxt.text import parse_net

INPUT = 'input: "d" input_shape { dim: 2 dim: 6 dim: 9 dim: 5 }\n'


def layer(kind, body="", bottoms=("d",), tops=("t",)):
    ends = " ".join([f'bottom: "{name}"' for name in bottoms] + [f'top: "{name}"' for name in tops])
    return f'layer {{ name: "{kind}" type: "{kind}" {ends} {body} }}\n'


def shaped(text, **options):
    result = infer(parse_net(text), **options)
    assert result.problems == ()
    return result


def reasons(text, **options):
    return [problem.text for problem in infer(parse_net(text), **options).problems]


@pytest.mark.parametrize(
    ("kind", "body", "top", "params"),
    [
        ("ReLU6", "", (2, 6, 9, 5), ()),
        (
            "Convolution",
            "convolution_param { num_output: 4 kernel_size: 3 }",
            (2, 4, 7, 3),
            ((4, 6, 3, 3), (4,)),
        ),
        (
            "Convolution",
            "convolution_param { num_output: 4 kernel_h: 3 kernel_w: 1 pad_h: 2 stride_w: 2 stride_h: 1 group: 2 "
            "bias_term: false dilation: 2 }",
            (2, 4, 9, 3),
            ((4, 3, 3, 1),),
        ),
        (
            "Convolution",
            "convolution_param { num_output: 6 kernel_size: 4 stride: 2 pad: 1 group: 6 }",
            (2, 6, 4, 2),
            ((6, 1, 4, 4), (6,)),
        ),
        (
            "Convolution",
            "convolution_param { num_output: 4 kernel_size: 3 stride: 2 tf_pad: SAME }",
            (2, 4, 5, 3),
            ((4, 6, 3, 3), (4,)),
        ),
        (
            "Convolution",
            "convolution_param { num_output: 4 kernel_size: 3 stride: 2 tf_pad: VALID pad: 7 }",
            (2, 4, 4, 2),
            ((4, 6, 3, 3), (4,)),
        ),
        (
            "DepthwiseConvolution",
            "convolution_param { num_output: 6 kernel_size: 3 group: 6 }",
            (2, 6, 7, 3),
            ((6, 1, 3, 3), (6,)),
        ),
        ("ConvolutionDepthwise", "convolution_param { kernel_size: 3 }", (2, 6, 7, 3), ((6, 1, 3, 3), (6,))),
        (
            "DepthwiseConvolution",
            "convolution_param { num_output: 6 kernel_size: 3 }",
            (2, 6, 7, 3),
            ((6, 1, 3, 3), (6,)),
        ),
        ("ShuffleChannel", "shuffle_channel_param { group: 3 }", (2, 6, 9, 5), ()),
        ("Interp", "interp_param { height: 4 width: 7 }", (2, 6, 4, 7), ()),
        ("Interp", "interp_param { zoom_factor: 3 height: 4 width: 7 }", (2, 6, 25, 13), ()),
        ("Interp", "interp_param { shrink_factor: 2 pad_beg: -1 }", (2, 6, 4, 2), ()),
        ("Interp", "interp_param { shrink_factor: 2 zoom_factor: 2 }", (2, 6, 9, 5), ()),
        ("Reorg", "reorg_param { stride: 1 }", (2, 6, 9, 5), ()),
        ("Mish", "", (2, 6, 9, 5), ()),
        ("Upsample", "upsample_param { scale: 2 }", (2, 6, 18, 10), ()),
        (
            "Deconvolution",
            "convolution_param { num_output: 4 kernel_size: 3 stride: 2 group: 2 }",
            (2, 4, 19, 11),
            ((6, 2, 3, 3), (4,)),
        ),
        ("Pooling", "pooling_param { kernel_size: 2 stride: 2 }", (2, 6, 5, 3), ()),
        ("Pooling", "pooling_param { kernel_size: 2 stride: 2 round_mode: FLOOR }", (2, 6, 4, 2), ()),
        ("Pooling", "pooling_param { kernel_size: 2 stride: 2 ceil_mode: false }", (2, 6, 4, 2), ()),
        ("Pooling", "pooling_param { pool: AVE global_pooling: true }", (2, 6, 1, 1), ()),
        ("InnerProduct", "inner_product_param { num_output: 7 }", (2, 7), ((7, 270), (7,))),
        (
            "InnerProduct",
            "inner_product_param { num_output: 7 axis: -1 transpose: true bias_term: false }",
            (2, 6, 9, 7),
            ((5, 7),),
        ),
        ("BatchNorm", "", (2, 6, 9, 5), ((6,), (6,), (1,))),
        ("Scale", "scale_param { bias_term: true }", (2, 6, 9, 5), ((6,), (6,))),
        ("Scale", "scale_param { axis: 0 num_axes: -1 }", (2, 6, 9, 5), ((2, 6, 9, 5),)),
        ("Scale", "scale_param { num_axes: 0 }", (2, 6, 9, 5), ((),)),
        ("Bias", "", (2, 6, 9, 5), ((6,),)),
        ("PReLU", "", (2, 6, 9, 5), ((6,),)),
        ("PReLU", "prelu_param { channel_shared: true }", (2, 6, 9, 5), ((),)),
        ("Normalize", "norm_param { channel_shared: false }", (2, 6, 9, 5), ((6,),)),
        ("Flatten", "", (2, 270), ()),
        ("Flatten", "flatten_param { axis: 0 end_axis: -2 }", (108, 5), ()),
        ("Flatten", "flatten_param { end_axis: 0 }", (2, 1, 6, 9, 5), ()),
        ("Embed", "embed_param { num_output: 3 input_dim: 10 }", (2, 6, 9, 5, 3), ((10, 3), (3,))),
        ("Upsample", "upsample_param { scale: 2 dims_num: 3 }", (2, 6, 9, 10), ()),
        ("Permute", "permute_param { order: 0 order: 2 order: 3 order: 1 }", (2, 9, 5, 6), ()),
        ("Permute", "permute_param { order: 2 }", (9, 2, 6, 5), ()),
        ("Reshape", "reshape_param { shape { dim: 0 dim: -1 dim: 3 } }", (2, 90, 3), ()),
        ("Softmax", "softmax_param { axis: 2 }", (2, 6, 9, 5), ()),
        ("Reduction", "reduction_param { axis: 2 }", (2, 6), ()),
        ("Reduction", "", (), ()),
        ("Tile", "tile_param { tiles: 3 }", (2, 18, 9, 5), ()),
        ("ArgMax", "argmax_param { axis: 1 top_k: 2 }", (2, 2, 9, 5), ()),
        ("ArgMax", "argmax_param { out_max_val: true top_k: 3 }", (2, 2, 3, 1), ()),
        ("Pad", "pad_param { pad_u: 1 pad_d: 2 pad_r: 3 }", (2, 6, 12, 8), ()),
        ("Upsample", "", None, ()),
    ],
)
def test_layers_of_one_bottom(kind, body, top, params):
    result = shaped(INPUT + layer(kind, body))
    assert result.blobs["t"] == top
    assert result.layers[0].params == params
    assert result.param_shapes == ({kind: params} if params else {})


@pytest.mark.parametrize(
    ("kind", "body", "tops", "shapes"),
    [
        ("Eltwise", "", ("t",), [(2, 6, 9, 5)]),
        ("Concat", "", ("t",), [(2, 12, 9, 5)]),
        ("Concat", "concat_param { axis: -1 }", ("t",), [(2, 6, 9, 10)]),
        ("Concat", "concat_param { concat_dim: 0 }", ("t",), [(4, 6, 9, 5)]),
        ("Crop", "", ("t",), [(2, 6, 9, 5)]),
        ("Accuracy", "accuracy_param { axis: 1 }", ("t",), None),
        ("EuclideanLoss", "", ("t",), [()]),
        ("SmoothL1Loss", "", ("t",), [()]),
        ("PriorBox", "prior_box_param { min_size: 3 max_size: 4 aspect_ratio: 2 }", ("t",), [(1, 2, 45 * 4 * 4)]),
    ],
)
def test_layers_of_two_bottoms(kind, body, tops, shapes):
    text = INPUT + layer("Split", "", ("d",), ("a", "b")) + layer(kind, body, ("a", "b"), tops)
    if shapes is None:
        assert any("needs 90 labels" in reason for reason in reasons(text))
    else:
        assert [top.shape for top in shaped(text).layers[-1].tops] == shapes


def test_slice_and_crop():
    text = INPUT + layer("Slice", "slice_param { axis: 2 slice_point: 2 slice_point: 6 }", ("d",), ("a", "b", "c"))
    assert [top.shape for top in shaped(text).layers[0].tops] == [(2, 6, 2, 5), (2, 6, 4, 5), (2, 6, 3, 5)]
    text += layer("Crop", "crop_param { offset: 1 offset: 0 }", ("d", "b"))
    assert shaped(text).blobs["t"] == (2, 6, 4, 5)
    text = text.replace("offset: 1", "offset: 6")
    assert reasons(text) == ["axis 2 of size 9 cannot be cropped to 4 from offset 6 on"]
    equal = layer("Slice", "", ("d",), ("a", "b", "c"))
    assert [top.shape for top in shaped(INPUT + equal).layers[0].tops] == [(2, 2, 9, 5)] * 3


def test_scale_by_a_second_bottom():
    pool = layer("Pooling", "pooling_param { global_pooling: true }", ("d",), ("p",))
    flat = layer("Flatten", "", ("p",), ("f",))
    text = INPUT + pool + flat + layer("Scale", "scale_param { axis: 0 }", ("d", "f"))
    assert shaped(text).blobs["t"] == (2, 6, 9, 5)
    assert shaped(text).layers[-1].params == ()
    wrong = INPUT + pool + layer("Scale", "scale_param { axis: 0 }", ("d", "p"))
    assert reasons(wrong) == ["the second bottom, 2 x 6 x 1 x 1, does not match 2 x 6 x 9 x 5 from axis 0 on"]


def test_axpy_and_regions():
    factor = layer("Pooling", "pooling_param { global_pooling: true }", ("d",), ("p",))
    assert shaped(INPUT + factor + layer("Axpy", "", ("p", "d", "d"))).blobs["t"] == (2, 6, 9, 5)
    regions = 'input: "r" input_shape { dim: 4 dim: 5 }\n'
    pooled = layer("ROIPooling", "roi_pooling_param { pooled_h: 3 pooled_w: 2 }", ("d", "r"))
    assert shaped(INPUT + regions + pooled).blobs["t"] == (4, 6, 3, 2)
    body = "psroi_pooling_param { spatial_scale: 1 output_dim: %d group_size: 1 }"
    assert shaped(INPUT + regions + layer("PSROIPooling", body % 6, ("d", "r"))).blobs["t"] == (4, 6, 1, 1)
    assert reasons(INPUT + regions + layer("PSROIPooling", body % 5, ("d", "r"))) == [
        "output_dim 5 and group_size 1 need 5 channels, got 2 x 6 x 9 x 5"
    ]


def test_a_detection_output_takes_three_or_four_bottoms():
    three = shaped(HEADS, phase="TEST").blobs["o"]
    four = HEADS.replace('bottom: "p" top: "o"', 'bottom: "p" bottom: "gt" top: "o"')
    assert shaped(four, phase="TEST").blobs["o"] == three
    five = four.replace('bottom: "p" bottom: "gt" top: "o"', 'bottom: "p" bottom: "gt" bottom: "gt" top: "o"')
    assert reasons(five, phase="TEST") == ["DetectionOutput takes 3 to 4 bottoms, got 5"]


def test_multiply_adds_and_parameters():
    text = INPUT + layer("Convolution", "convolution_param { num_output: 4 kernel_size: 3 group: 2 }", ("d",), ("c",))
    text += layer("InnerProduct", "inner_product_param { num_output: 10 }", ("c",))
    result = shaped(text)
    assert [one.multiply_adds for one in result.layers] == [2 * 4 * 7 * 3 * 3 * 9, 2 * 84 * 10]
    assert result.multiply_adds == 4536 + 1680
    assert result.param_count == (4 * 3 * 9 + 4) + (84 * 10 + 10)


def test_shared_parameters_count_once():
    body = 'param { name: "w" } param { } inner_product_param { num_output: 270 }'
    text = INPUT + layer("InnerProduct", body, ("d",), ("a",)) + layer("InnerProduct", body, ("d",), ("b",))
    result = infer(parse_net(text))
    assert [one.param_count for one in result.layers] == [270 * 270 + 270, 270]


HEADS = """
input: "d" input_shape { dim: 3 dim: 6 dim: 9 dim: 5 }
layer { name: "l" type: "Convolution" bottom: "d" top: "l" convolution_param { num_output: 8 kernel_size: 1 } }
layer { name: "c" type: "Convolution" bottom: "d" top: "c" convolution_param { num_output: 42 kernel_size: 1 } }
layer { name: "lf" type: "Flatten" bottom: "l" top: "lf" }
layer { name: "cf" type: "Flatten" bottom: "c" top: "cf" }
layer { name: "p" type: "PriorBox" bottom: "d" bottom: "d" top: "p" prior_box_param { min_size: 3 max_size: 4 } }
layer { name: "gt" type: "Input" top: "gt" input_param { shape { dim: 1 dim: 1 dim: 7 dim: 8 } } }
layer { name: "o" type: "DetectionOutput" bottom: "lf" bottom: "cf" bottom: "p" top: "o"
  include { phase: TEST } detection_output_param { num_classes: 21 } }
layer { name: "e" type: "DetectionEvaluate" bottom: "o" bottom: "gt" top: "e"
  include { phase: TEST } detection_evaluate_param { num_classes: 21 } }
layer { name: "m" type: "MultiBoxLoss" bottom: "lf" bottom: "cf" bottom: "p" bottom: "gt" top: "m"
  exclude { phase: TEST } multibox_loss_param { num_classes: 21 } }
"""


def test_ssd_heads_in_both_phases():
    test = shaped(HEADS, phase="TEST")
    assert test.blobs["p"] == (1, 2, 9 * 5 * 2 * 4)
    assert test.blobs["o"] == (1, 1, 1, 7)
    assert [(blob.name, blob.shape) for blob in test.outputs] == [("e", (1, 1, 21, 5))]
    assert [blob.name for blob in test.inputs] == ["d", "gt"]
    train = shaped(HEADS, phase="TRAIN")
    assert [(blob.name, blob.shape) for blob in train.outputs] == [("m", ())]
    assert {one.name for one in train.layers} ^ {one.name for one in test.layers} == {"o", "e", "m"}


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("num_output: 8", "num_output: 12", "90 default boxes need 3 x 360 box encodings (4 per box), got 3 x 540"),
        ("num_output: 42", "num_output: 40", "90 default boxes need 3 x 1890 scores (21 per box), got 3 x 1800"),
        ("max_size: 4", "max_size: 3", "each max_size must be greater than its min_size, got [3.0] and [3.0]"),
        ("detection_output_param { num_classes: 21 }", "", "num_classes is missing"),
    ],
)
def test_ssd_heads_that_do_not_fit(old, new, text):
    assert text in reasons(HEADS.replace(old, new), phase="TEST")


@pytest.mark.parametrize(
    ("transform", "data", "label"),
    [
        ("resize_param { height: 30 width: 20 }", (4, 3, 30, 20), (1, 1, 1, 8)),
        ("resize_param { height: 30 width: 20 } crop_size: 12", (4, 3, 12, 12), (1, 1, 1, 8)),
        ("crop_h: 8 crop_w: 6 force_gray: true", (4, 1, 8, 6), (1, 1, 1, 8)),
        ("resize_param { resize_mode: FIT_SMALL_SIZE height: 30 width: 20 }", None, (1, 1, 1, 8)),
        ("mirror: true", None, (1, 1, 1, 8)),
    ],
)
def test_annotated_data(transform, data, label):
    body = f"transform_param {{ {transform} }} data_param {{ batch_size: 4 }}"
    result = shaped(layer("AnnotatedData", body, (), ("d", "l")))
    assert [top.shape for top in result.layers[0].tops] == [data, label]


def test_what_follows_from_an_unknown_shape_is_not_reported_again():
    text = layer("HDF5Data", "", (), ("d",)) + layer("Convolution", "", ("d",), ("c",)) + layer("ReLU", "", ("c",))
    assert shaped(text).blobs == {"d": None, "c": None, "t": None}
    broken = INPUT + layer("Convolution", "", ("d",), ("c",)) + layer("Flatten", "", ("c",))
    assert len(reasons(broken)) == 1


def test_net_inputs_in_the_old_form():
    net = 'input: "a" input: "b" input_dim: 1 input_dim: 2 input_dim: 3 input_dim: 4 '
    both = net + "input_dim: 5 input_dim: 6 input_dim: 7 input_dim: 8 "
    assert shaped(both + layer("ReLU", "", "a")).blobs["b"] == (5, 6, 7, 8)
    assert "the net has 2 inputs but 1 input shapes" in reasons(net + layer("ReLU", "", "a"))


@pytest.mark.parametrize(
    ("net", "kind", "text"),
    [
        ("", "empty", "the net has no layers"),
        ('layers { name: "a" type: RELU }', "old-layers", "the net has the format before 2014 (V1 layers); convert"),
        (
            INPUT + layer("ReLU", "", "D"),
            "unknown-bottom",
            "bottom 'D' is not a top of an earlier layer; the nearest is 'd'",
        ),
        (INPUT + layer("Relu"), "unknown-type", "there is no layer type 'Relu'; the nearest is 'ReLU'"),
        (INPUT + layer("Eltwise"), "count", "Eltwise takes 2 or more bottoms, got 1"),
        (
            INPUT
            + layer("Pooling", "pooling_param { global_pooling: true }", tops=("gate",))
            + layer("Eltwise", "eltwise_param { operation: PROD }", ("d", "gate")),
            "shape",
            "Eltwise does not repeat one value for a whole map, got 2 x 6 x 9 x 5 and 2 x 6 x 1 x 1: OpenCV does, "
            "Caffe stops, and MNN computes something else; --gate has other layers",
        ),
        (INPUT + layer("ReLU", "", ("d",), ("a", "b")), "count", "ReLU takes 1 top, got 2"),
        (INPUT + layer("Flatten", "", ("d",), ("d",)), "in-place", "Flatten cannot write to its own bottom 'd'"),
        (INPUT + layer("Power") + layer("ReLU", "", ("d",), ("d",)), "in-place", "'d' is read by layer 'Power' before"),
        (INPUT + layer("Convolution", "convolution_param { num_output: 2 kernel_size: 1 }", ("d", "d")), "shape",
         "Convolution makes one top of each bottom, got 2 and 1"),
        (INPUT + layer("ReLU") + layer("TanH"), "duplicate-top", "top 't' is written already, by layer 'ReLU'"),
        (INPUT + layer("ReLU") + layer("ReLU", "", "t", "t"), "duplicate-name", "an earlier layer has the same name"),
        (
            INPUT + layer("ReLU", "include { phase: TEST } exclude { phase: TRAIN }"),
            "include-exclude",
            "layer ReLU has both",
        ),
        (INPUT + layer("Convolution", "convolution_param { kernel_size: 3 }"), "shape", "num_output is missing"),
        (
            INPUT + layer("Convolution", "convolution_param { num_output: 4 kernel_size: 3 group: 4 }"),
            "shape",
            "group must divide 6 input and 4 output channels, got 4",
        ),
        (
            INPUT + layer("Convolution", "convolution_param { num_output: 4 kernel_size: 6 }"),
            "shape",
            "the kernel spans 6 pixels, more than the padded input of 5",
        ),
        (
            INPUT + layer("Convolution", "convolution_param { num_output: 4 kernel_size: 3 stride: 0 }"),
            "shape",
            "kernel_size, stride and dilation must be at least 1",
        ),
        (
            INPUT + layer("Convolution", "convolution_param { num_output: 4 kernel_size: 3 kernel_h: 3 kernel_w: 3 }"),
            "shape",
            "kernel_h and kernel_w are for two spatial axes",
        ),
        (
            INPUT + layer("Convolution", "convolution_param { num_output: 4 kernel_size: [1, 2, 3] }"),
            "shape",
            "kernel_size is given 3 times for 2 spatial axes",
        ),
        (INPUT + layer("Pooling", "pooling_param { kernel_size: 2 pad: 2 }"), "shape", "pad must be smaller"),
        (INPUT + layer("ShuffleChannel", "shuffle_channel_param { group: 4 }"), "shape", "group must divide the 6"),
        (INPUT + layer("Pooling", "pooling_param { kernel_size: 3 pad_h: 1 }"), "shape", "give pad, or both pad_h"),
        (INPUT + layer("Pooling", "pooling_param { kernel_size: 3 kernel_h: 3 kernel_w: 3 }"), "shape", "give ker"),
        (INPUT + layer("PriorBox", "prior_box_param { min_size: 0 }", ("d", "d")), "shape", "min_size must be pos"),
        (INPUT + layer("DepthwiseConvolution", "convolution_param { num_output: 6 kernel_size: 3 group: 2 }"), "shape",
         "group must be 6, the channels of the bottom, or left out, got 2"),
        (INPUT + layer("DepthwiseConvolution", "convolution_param { num_output: 12 kernel_size: 3 }"), "shape",
         "num_output must be 6, the channels of the bottom, got 12"),
        (INPUT + layer("Interp"), "shape", "interp_param has no size"),
        (INPUT + layer("Interp", "interp_param { zoom_factor: 2 pad_end: 1 }"), "shape", "pad_beg and pad_end crop"),
        (INPUT + layer("Reorg"), "shape", "stride must divide the 9 x 5 pixels"),
        (INPUT + layer("Reorg", "reorg_param { reverse: true }"), "shape", "6 channels are no multiple"),
        (INPUT + layer("Axpy", "", ("d", "d", "d")), "shape", "the first bottom must be a number for each channel"),
        (INPUT + layer("LRN", "lrn_param { local_size: 4 }"), "shape", "local_size must be odd, got 4"),
        (INPUT + layer("Exp", "exp_param { base: -2 }"), "shape", "base must be positive, or -1 for e, got -2"),
        (INPUT + layer("Pooling", "pooling_param { kernel_size: 2 global_pooling: true }"), "shape", "global_pooling"),
        (INPUT + layer("PriorBox", "prior_box_param { min_size: 2 step: 0 }", ("d", "d")), "shape", "step must be pos"),
        (INPUT + layer("PriorBox", "prior_box_param { min_size: 2 step_h: 1 }", ("d", "d")), "shape", "step_w must be"),
        (INPUT + layer("PriorBox", "prior_box_param { min_size: 2 step: 1 step_h: 1 }", ("d", "d")), "shape", "give"),
        (INPUT + layer("Slice", "", ("d",), ("a", "b", "c", "e")), "shape", "axis 1 of size 6 cannot be cut"),
        (INPUT + layer("Tile", "tile_param { tiles: 100000000 }"), "shape", "a blob cannot have the shape"),
        (INPUT.replace("9", "0") + layer("ReLU"), "shape", "input d: a blob cannot have the shape 2 x 6 x 0 x 5"),
    ],
)  # fmt: skip
def test_problems(net, kind, text):
    problems = infer(parse_net(net)).problems
    assert len(problems) == 1
    assert problems[0].kind == kind
    assert problems[0].text.startswith(text)
    assert problems[0].severity == ("warning" if kind == "duplicate-name" else "error")


def test_a_blob_may_be_written_in_place_again_and_read_after():
    text = INPUT + layer("ReLU", "", ("d",), ("d",)) + layer("TanH", "", ("d",), ("d",)) + layer("Power")
    assert reasons(text) == []
    again = INPUT + layer("Power", "", ("d",), ("e",)) + layer("ReLU", "", ("e",), ("e",)) + layer("TanH", "", ("d",))
    assert reasons(again) == []


def test_all_problems_are_collected():
    text = INPUT + layer("Convolution") + layer("Relu", "", ("x",), ("y",)) + layer("Eltwise", "", ("z",), ("w",))
    found = infer(parse_net(text)).problems
    assert [problem.layer for problem in found] == [0, 1, 1, 2, 2]
    assert infer(parse_net(text)).errors == found


@pytest.mark.parametrize(
    ("rule", "state", "phases"),
    [
        ("include { phase: TRAIN }", "", {"TRAIN"}),
        ("exclude { phase: TRAIN }", "", {"TEST"}),
        ("include { phase: TRAIN } include { phase: TEST }", "", {"TRAIN", "TEST"}),
        ('include { stage: "a" }', 'state { stage: "a" stage: "b" }', {"TRAIN", "TEST"}),
        ('include { stage: "a" }', "", set()),
        ('exclude { not_stage: "a" }', "", set()),
        ('include { not_stage: "a" }', 'state { stage: "a" }', set()),
        ("include { min_level: 2 max_level: 3 }", "state { level: 3 }", {"TRAIN", "TEST"}),
        ("include { min_level: 2 max_level: 3 }", "state { level: 4 }", set()),
        ("include { min_level: 2 }", "", set()),
        ("include { min_level: 2 }", "state { level: 2 }", {"TRAIN", "TEST"}),
        ('exclude { phase: TEST stage: "a" }', "", {"TRAIN", "TEST"}),
    ],
)
def test_rules_decide_which_layers_are_in(rule, state, phases):
    net = parse_net(state + INPUT + layer("ReLU", rule) + layer("TanH", "", ("d",), ("u",)))
    assert {phase for phase in ("TRAIN", "TEST") if len(infer(net, phase=phase).layers) == 2} == phases


def test_default_phase():
    train, test = layer("ReLU", "include { phase: TRAIN }"), layer("TanH", "include { phase: TEST }")
    assert default_phase(parse_net(INPUT + train)) == "TRAIN"
    assert default_phase(parse_net(INPUT + train + test)) == "TEST"
    assert default_phase(parse_net(INPUT + layer("ReLU"))) == "TEST"


TYPES = st.sampled_from(
    (
        "ReLU", "Convolution", "Deconvolution", "Pooling", "InnerProduct", "BatchNorm", "Scale", "Eltwise", "Concat",
        "Slice", "Crop", "Pad", "Flatten", "Reshape", "Permute", "Softmax", "PriorBox", "DetectionOutput", "Tile",
        "Zap",
    )
)  # fmt: skip
SMALL = st.integers(-3, 7)
NAMES = st.sampled_from("abcd")


@settings(max_examples=200)
@given(st.data())
def test_any_net_is_shaped_or_reported(data):
    net = caffe_pb2.NetParameter(input=["a", "b"])
    for _ in range(2):
        net.input_shape.add(dim=data.draw(st.lists(st.integers(0, 6), max_size=5)))
    for _ in range(data.draw(st.integers(1, 5))):
        one = net.layer.add(name="x", type=data.draw(TYPES))
        one.bottom.extend(data.draw(st.lists(NAMES, max_size=3)))
        one.top.extend(data.draw(st.lists(NAMES, max_size=3)))
        conv = one.convolution_param
        conv.num_output, conv.group = data.draw(st.integers(0, 7)), data.draw(st.integers(0, 3))
        conv.kernel_size.extend(data.draw(st.lists(st.integers(0, 4), max_size=3)))
        conv.axis = one.inner_product_param.axis = one.scale_param.axis = data.draw(SMALL)
        one.concat_param.axis = one.slice_param.axis = one.crop_param.axis = one.tile_param.axis = data.draw(SMALL)
        one.scale_param.num_axes = one.reshape_param.num_axes = one.pad_param.pad_u = data.draw(SMALL)
        one.flatten_param.axis, one.tile_param.tiles = data.draw(SMALL), data.draw(SMALL)
        one.reshape_param.shape.dim.extend(data.draw(st.lists(SMALL, max_size=4)))
        one.permute_param.order.extend(data.draw(st.lists(st.integers(0, 5), max_size=4)))
        one.crop_param.offset.extend(data.draw(st.lists(st.integers(0, 5), max_size=4)))
        one.slice_param.slice_point.extend(data.draw(st.lists(st.integers(0, 5), max_size=3)))
        one.pooling_param.kernel_size = data.draw(st.integers(0, 4))
        one.prior_box_param.min_size.extend(data.draw(st.lists(st.integers(0, 5), max_size=2)))
    result = infer(net)
    for blob in [top for one in result.layers for top in one.tops]:
        assert blob.shape is None or all(size > 0 for size in blob.shape)
