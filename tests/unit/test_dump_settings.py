"""Settings read from the ops of a graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump.detector.affine import Constants
from ssdlite_caffe.dump.detector.boxes import corners_of
from ssdlite_caffe.dump.detector.map_sizes import FeatureMaps, output_size
from ssdlite_caffe.dump.detector.preprocessing import first_convolution, network_input
from ssdlite_caffe.dump.detector.take_apart import take_apart
from ssdlite_caffe.dump.model import Settings, TfliteNms
from ssdlite_caffe.dump.read import read_model
from ssdlite_caffe.errors import ModelError
from tests.dump_graphs import GraphBuilder, mini_boxes, mini_detector, ref, shape_proto


def settings_of(builder: GraphBuilder) -> Settings:
    return take_apart(builder.graph())[1]


@pytest.mark.parametrize("reciprocal", [False, True])
def test_every_setting_is_read_from_its_op(reciprocal: bool) -> None:
    settings = settings_of(mini_detector(reciprocal=reciprocal))
    assert settings.input_size == (24, 32)
    assert settings.num_classes == 4
    assert settings.pixel_scale == float(np.float32(2 / 255))
    assert settings.pixel_offset == -1.0
    assert settings.box_coder_scales == (10.0, 8.0, 5.0, 4.0)
    assert settings.score_converter == "sigmoid"
    assert settings.logit_scale == 0.5
    assert settings.iou_threshold == float(np.float32(0.55))
    assert settings.score_threshold == 0.25
    assert settings.max_per_class == 11
    assert settings.max_total == 13
    assert settings.unsupported == ()
    assert settings.default_boxes is not None
    np.testing.assert_array_equal(settings.default_boxes, mini_boxes((24, 32)))


def with_folded_sizes(y_factor: FloatArray, x_factor: FloatArray, *, halved: bool = False) -> GraphBuilder:
    """Default boxes as constants, and ty and tx multiplied by such, in place of a scale first and a size then.

    With `halved`, exp(th) and exp(tw) are multiplied by half the sizes, so that nothing halves their products.
    """
    folded = GraphBuilder()
    replaced = {"ty", "tx", "height", "width", *(f"{side}/{part}" for side in "yx" for part in ("product", "centre"))}
    if halved:
        replaced |= {"y/half", "x/half"}
    folded.definition.node.extend(node for node in mini_detector().definition.node if node.name not in replaced)
    ymin, xmin, ymax, xmax = mini_boxes((24, 32)).T
    for name, value in zip(("height", "width"), sizes_of_mini_boxes(), strict=True):
        folded.const(name, value / 2 if halved else value)
    if halved:
        folded.node("y/half", "Identity", "h")
        folded.node("x/half", "Identity", "w")
    folded.node("y/product", "Mul", "codes", folded.const("ty", y_factor))
    folded.node("x/product", "Mul", folded.const("tx", x_factor), "codes:1")
    folded.const("y/centre", (ymin + ymax) / 2)
    folded.const("x/centre", (xmin + xmax) / 2)
    return folded


def sizes_of_mini_boxes() -> tuple[FloatArray, FloatArray]:
    ymin, xmin, ymax, xmax = mini_boxes((24, 32)).T
    return ymax - ymin, xmax - xmin


@pytest.mark.parametrize("halved", [False, True])
@pytest.mark.parametrize("scales", [(10.0, 8.0), (1.0, 1.0), (1 / 0.15, 7.25), (2.0, 0.3)])
def test_scales_folded_into_the_sizes(scales: tuple[float, float], halved: bool) -> None:
    """As Grappler leaves `code / scale * constant`: both constants made one, or by way of a reciprocal; and halves."""
    height, width = sizes_of_mini_boxes()
    y_scale, x_scale = map(np.float32, scales)
    graph = with_folded_sizes(height / y_scale, width * (np.float32(1) / x_scale), halved=halved)
    settings = settings_of(graph)
    assert settings.box_coder_scales == pytest.approx((*scales, 5.0, 4.0), rel=2e-7)
    assert settings.default_boxes is not None
    # The constant and its scale are rounded apart: one unit in the last place of values of 1 and more.
    np.testing.assert_allclose(settings.default_boxes, mini_boxes((24, 32)), rtol=0, atol=2**-23)
    if scales != (1 / 0.15, 7.25):
        assert settings.box_coder_scales == (*scales, 5.0, 4.0), "the shortest number that explains the sizes"


@pytest.mark.parametrize("wrong", ["one size off", "other boxes", "one of them zero"])
def test_sizes_that_no_scale_explains(wrong: str) -> None:
    height, width = sizes_of_mini_boxes()
    folded = height / 10
    if wrong == "one size off":
        folded[3] *= np.float32(1 + 2**-20)
    elif wrong == "other boxes":
        folded = np.concatenate([folded, folded])
    else:
        folded[0] = 0
    assert settings_of(with_folded_sizes(folded, width / 8)).box_coder_scales is None


def test_softmax_is_told_from_sigmoid() -> None:
    assert settings_of(mini_detector(converter="Softmax")).score_converter == "softmax"


def test_soft_nms_is_said_to_be_unsupported() -> None:
    assert settings_of(mini_detector(sigma=0.5)).unsupported == ("soft NMS (sigma 0.5)",)


def test_one_suppression_over_all_classes_is_said_to_be_unsupported() -> None:
    assert settings_of(mini_detector(class_nodes=1)).unsupported == ("NMS over all classes together",)


def test_a_single_class_needs_one_suppression_only() -> None:
    assert settings_of(mini_detector(classes=1)).unsupported == ()


def test_classes_treated_differently_are_refused() -> None:
    builder = mini_detector()
    for node in builder.definition.node:
        if node.name == "nms_1/iou":
            node.attr["value"].tensor.tensor_content = np.float32(0.7).tobytes()
    with pytest.raises(ModelError, match="2 different NMS settings for its classes"):
        settings_of(builder)


def test_area_filter_is_not_the_score_threshold() -> None:
    builder = mini_detector()
    area = builder.node("area", "Mul", "h", "w")
    for node in builder.definition.node:
        if node.name.endswith("/where"):
            name = node.name.replace("where", "area_above")
            above = builder.node(name, "Greater", area, builder.const(f"{name}/y", 0.0))
            node.input[0] = builder.node(f"{name}/both", "LogicalAnd", above, node.input[0])
    assert settings_of(builder).score_threshold == 0.25


def test_no_filter_and_no_threshold_is_unknown() -> None:
    builder = mini_detector()
    for node in builder.definition.node:
        if node.name.endswith("/scores") and node.name.startswith("nms"):
            node.op = "Identity"
            del node.input[1:]
    assert settings_of(builder).score_threshold is None


def test_scores_without_a_background_column() -> None:
    builder = mini_detector()
    for node in builder.definition.node:
        if node.name == "cut/begin":
            node.attr["value"].tensor.tensor_content = bytes(12)
    assert settings_of(builder).unsupported == ("a class predictor without a background column",)


def test_pixels_may_be_turned_and_divided() -> None:
    builder = mini_detector()
    for node in builder.definition.node:
        if node.name == "Preprocessor/mul":
            node.op = "RealDiv"
            node.input[:] = ["resize", "Preprocessor/mul/x"]
        if node.name == "Preprocessor/sub":
            node.input[:] = ["Preprocessor/sub/y", "Preprocessor/mul"]
    settings = settings_of(builder)
    assert (settings.pixel_scale, settings.pixel_offset) == (-1 / float(np.float32(2 / 255)), 1.0)


def test_colours_treated_differently_are_refused() -> None:
    builder = mini_detector()
    for node in builder.definition.node:
        if node.name == "Preprocessor/sub/y":
            node.attr["value"].tensor.tensor_shape.dim.add(size=3)
            node.attr["value"].tensor.tensor_content = np.array([123.68, 116.78, 103.94], np.float32).tobytes()
    with pytest.raises(ModelError, match="Preprocessor/sub has different values for the colour channels"):
        settings_of(builder)


def test_predictors_that_do_not_fit_are_refused() -> None:
    builder = mini_detector()
    for node in builder.definition.node:
        if node.name == "BoxPredictor_0/ClassPredictor/weights":
            node.attr["value"].tensor.tensor_shape.dim[3].size = 7
            node.attr["value"].tensor.tensor_content = bytes(5 * 7 * 4)
        if node.name == "BoxPredictor_0/ClassPredictor/biases":
            node.attr["value"].tensor.tensor_shape.dim[0].size = 7
            node.attr["value"].tensor.tensor_content = bytes(7 * 4)
    with pytest.raises(ModelError, match="got 8 and 7"):
        settings_of(builder)


def test_boxes_of_which_only_centres_and_sizes_are_left() -> None:
    boxes = mini_boxes((24, 32)).astype(np.float64)
    size = boxes[:, 2:] - boxes[:, :2]
    centre = boxes[:, :2] + size / 2
    left = {"height": size[:, 0], "width": size[:, 1], "y/centre": centre[:, 0], "x/centre": centre[:, 1]}
    folded = GraphBuilder()
    folded.definition.node.extend(node for node in mini_detector().definition.node if node.name not in left)
    for name, value in left.items():
        folded.const(name, value)
    found = settings_of(folded)
    assert found.default_boxes is not None
    np.testing.assert_allclose(found.default_boxes, boxes, rtol=0, atol=1.2e-7)
    assert found.box_coder_scales == (10.0, 8.0, 5.0, 4.0)


def test_corners_are_rounded_once() -> None:
    y, x, h, w = (np.array([v]) for v in (0.3, 0.7, 0.2, 0.5))
    np.testing.assert_array_equal(corners_of(y, x, h, w), np.array([[0.3 - 0.1, 0.45, 0.4, 0.95]], np.float32))


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation", "padding", "expected"),
    [
        (300, 3, 2, 1, "SAME", 150),
        (19, 3, 2, 1, "SAME", 10),
        (5, 3, 2, 1, "VALID", 2),
        (6, 3, 2, 1, (0, 1), 3),
        (7, 3, 1, 2, "VALID", 3),
        (1, 3, 1, 1, "VALID", 0),
    ],
)
def test_output_size(size: int, kernel: int, stride: int, dilation: int, padding: str, expected: int) -> None:
    assert output_size(size, kernel, stride, dilation, padding) == expected


def test_shape_of_a_feature_map_feeds_the_evaluator(tmp_path: Path) -> None:
    b = GraphBuilder()
    b.node("x", "Placeholder", dtype=np.dtype("float32"), shape=shape_proto(1, 25, 31, 3))
    b.node("pad", "Pad", "x", b.const("pad/p", [[0, 0], [1, 2], [0, 3], [0, 0]], "int32"))
    b.conv("a", "pad", np.ones((3, 5, 3, 4)), padding="VALID", strides=[1, 2, 3, 1])
    b.node("bn", "Mul", b.const("bn/scale", np.ones(4)), "a/Conv2D")
    b.node("act", "Relu6", "bn")
    depthwise = b.const("d/depthwise_weights", np.ones((3, 3, 4, 2)))
    b.node("d", "DepthwiseConv2dNative", "act", depthwise, strides=[1, 2, 2, 1], padding="SAME")
    graph = b.graph()
    constants = Constants.of(graph)
    stem = first_convolution(graph)
    assert stem is not None
    read = network_input(constants, stem)
    assert read.size == (25, 31)
    maps = FeatureMaps(graph, constants.plain, ref("x"), (25, 31))
    assert maps.shape(ref("act")) == (1, 13, 10, 4)
    assert maps.shape(ref("d")) == (1, 7, 5, 8)
    assert maps.shape(ref("bn/scale")) is None


def test_tflite_op_gives_all_settings() -> None:
    builder = mini_detector(class_nodes=1)
    cut = GraphBuilder()
    for node in builder.definition.node:
        if not node.name.startswith(("nms_", "total")):
            cut.definition.node.append(node)
    anchors = cut.const("anchors_const", [[0.5, 0.25, 0.2, 0.1], [0.5, 0.75, 0.4, 0.3]])
    cut.node(
        "TFLite_Detection_PostProcess", "TFLite_Detection_PostProcess", "codes/r", "scores", anchors,
        max_detections=10, max_classes_per_detection=1, nms_score_threshold=0.125, nms_iou_threshold=0.5, num_classes=3,
        y_scale=10.0, x_scale=8.0, h_scale=5.0, w_scale=4.0, use_regular_nms=True, detections_per_class=7,
    )  # fmt: skip
    settings = settings_of(cut)
    assert settings.box_coder_scales == (10.0, 8.0, 5.0, 4.0)
    assert settings.tflite_nms == TfliteNms(0.5, 0.125, 10, 1, 7, regular=True)
    assert settings.unsupported == ()
    expected = np.array([[0.4, 0.2, 0.6, 0.3], [0.3, 0.6, 0.7, 0.9]], np.float32)
    assert settings.default_boxes is not None
    np.testing.assert_allclose(settings.default_boxes, expected, rtol=0, atol=6e-8)


def test_a_graph_cut_before_its_decoder_has_no_boxes(tmp_path: Path) -> None:
    builder = mini_detector()
    cut = GraphBuilder()
    keep = ("image", "Cast", "resize", "Pre", "Feature", "BoxPredictor")
    cut.definition.node.extend(node for node in builder.definition.node if node.name.startswith(keep))
    model = read_model(cut.write(tmp_path / "cut.pb"))
    assert model.settings.num_classes == 4
    assert model.settings.default_boxes is None
    assert model.settings.score_converter is None
    assert model.settings.iou_threshold is None
