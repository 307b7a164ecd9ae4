"""Convolutions read from the ops around them: every form of BatchNorm, bias, padding and activation."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump.detector.affine import Constants
from ssdlite_caffe.dump.detector.take_apart import require_detector
from ssdlite_caffe.dump.detector.units import find_units, refuse_quantised, scope_of
from ssdlite_caffe.dump.model import ConvUnit
from ssdlite_caffe.errors import ModelError
from tests.dump_graphs import GraphBuilder, shape_proto

SCOPE = "FeatureExtractor/MobilenetV2/Conv"
HEADS = ["BoxPredictor_0/BoxEncodingPredictor", "BoxPredictor_0/ClassPredictor"]
CHANNELS = 4
RNG = np.random.default_rng(11)
KERNEL = RNG.normal(size=(3, 3, 3, CHANNELS)).astype(np.float32)
GAMMA, BETA, MEAN = (RNG.normal(size=CHANNELS).astype(np.float32) for _ in range(3))
VARIANCE = RNG.uniform(0.1, 2, CHANNELS).astype(np.float32)
BIAS = RNG.normal(size=CHANNELS).astype(np.float32)
EPSILON = float(np.float32(0.002))


def start(**attrs: Any) -> GraphBuilder:
    b = GraphBuilder()
    b.node("x", "Placeholder", dtype=np.dtype("float32"), shape=shape_proto(1, 9, 7, 3))
    b.conv(SCOPE, "x", KERNEL, **attrs)
    return b


def only(b: GraphBuilder) -> tuple[ConvUnit, dict[str, FloatArray]]:
    found = find_units(Constants.of(b.graph()))
    assert len(found.units) == 1
    unit = found.units[0]
    assert set(unit.tensors.values()) == set(found.tensors)
    return unit, {part: found.tensors[name] for part, name in unit.tensors.items()}


def consts(b: GraphBuilder) -> dict[str, str]:
    values = {"gamma": GAMMA, "beta": BETA, "moving_mean": MEAN, "moving_variance": VARIANCE}
    return {
        name: b.node(f"{SCOPE}/BatchNorm/{name}/read", "Identity", b.const(f"{SCOPE}/BatchNorm/{name}", value))
        for name, value in values.items()
    }


def unfused(b: GraphBuilder, *, gamma: bool = True, beta: bool = True, swapped: bool = False) -> str:
    """The ops of tf.nn.batch_normalization; `swapped` turns the operands of every commutative one."""
    c = consts(b)
    base = f"{SCOPE}/BatchNorm/batchnorm"

    def join(name: str, op: str, *inputs: str) -> str:
        return b.node(f"{base}/{name}", op, *(inputs[::-1] if swapped and op != "Sub" else inputs))

    scale = b.node(
        f"{base}/Rsqrt", "Rsqrt", join("add", "Add", c["moving_variance"], b.const(f"{base}/add/y", EPSILON))
    )
    if gamma:
        scale = join("mul", "Mul", scale, c["gamma"])
    scaled = join("mul_1", "Mul", f"{SCOPE}/Conv2D", scale)
    if beta:
        shift = join("sub", "Sub", c["beta"], join("mul_2", "Mul", c["moving_mean"], scale))
    else:
        shift = join("mul_2", "Mul", b.node(f"{base}/Neg", "Neg", c["moving_mean"]), scale)
    return join("add_1", "Add", scaled, shift)


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("beta", [False, True])
@pytest.mark.parametrize("gamma", [False, True])
def test_unfused_batch_norm_keeps_its_parts(gamma: bool, beta: bool, swapped: bool) -> None:
    b = start()
    b.node(f"{SCOPE}/Relu6", "Relu6", unfused(b, gamma=gamma, beta=beta, swapped=swapped))
    unit, parts = only(b)
    expected = {"weights": KERNEL, "moving_mean": MEAN, "moving_variance": VARIANCE}
    expected |= ({"gamma": GAMMA} if gamma else {}) | ({"beta": BETA} if beta else {})
    assert set(parts) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(parts[name], value)
    assert unit.epsilon == EPSILON
    assert unit.activation == "relu6"
    assert unit.output == f"{SCOPE}/Relu6"
    assert unit.tensors["moving_mean"] == f"{SCOPE}/BatchNorm/moving_mean"


@pytest.mark.parametrize("op", ["FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"])
def test_fused_batch_norm_keeps_its_parts(op: str) -> None:
    b = start()
    b.node("bn", op, f"{SCOPE}/Conv2D", *consts(b).values(), epsilon=EPSILON, is_training=False)
    unit, parts = only(b)
    for name, value in {"gamma": GAMMA, "beta": BETA, "moving_mean": MEAN, "moving_variance": VARIANCE}.items():
        np.testing.assert_array_equal(parts[name], value)
    assert (unit.epsilon, unit.activation, unit.output) == (EPSILON, "none", "bn")


def test_ones_for_an_absent_gamma_are_left_out() -> None:
    b = start()
    c = consts(b)
    ones = b.const(f"{SCOPE}/BatchNorm/Const", np.ones(CHANNELS))
    b.node("bn", "FusedBatchNormV3", f"{SCOPE}/Conv2D", ones, *list(c.values())[1:], epsilon=EPSILON, is_training=False)
    assert "gamma" not in only(b)[1]


def test_unnamed_gamma_that_is_not_ones_is_kept() -> None:
    b = start()
    c = consts(b)
    other = b.const(f"{SCOPE}/BatchNorm/Const", GAMMA)
    b.node(
        "bn", "FusedBatchNormV3", f"{SCOPE}/Conv2D", other, *list(c.values())[1:], epsilon=EPSILON, is_training=False
    )
    np.testing.assert_array_equal(only(b)[1]["gamma"], GAMMA)


def test_subtracted_shift_is_no_batch_norm() -> None:
    b = start()
    add = unfused(b)
    for node in b.definition.node:
        if node.name == add:
            node.op = "Sub"
    _, parts = only(b)
    factor = GAMMA.astype(np.float64) / np.sqrt(VARIANCE.astype(np.float64) + EPSILON)
    assert set(parts) == {"weights", "scale", "offset"}
    np.testing.assert_allclose(parts["scale"], factor, rtol=6e-8)
    np.testing.assert_allclose(parts["offset"], MEAN * factor - BETA, rtol=6e-8)


def test_batch_norm_in_training_mode_is_refused() -> None:
    b = start()
    b.node("bn", "FusedBatchNormV3", f"{SCOPE}/Conv2D", *consts(b).values(), epsilon=EPSILON, is_training=True)
    with pytest.raises(ModelError, match="statistics of each batch"):
        only(b)


FACTOR = (GAMMA / np.sqrt(VARIANCE.astype(np.float64) + EPSILON)).astype(np.float32)


@pytest.mark.parametrize("shape", [(CHANNELS,), (1, CHANNELS), (1, 1, 1, CHANNELS)])
@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("subtract", [False, True])
def test_folded_constants_become_scale_and_offset_bit_for_bit(
    shape: tuple[int, ...], swapped: bool, subtract: bool
) -> None:
    b = start()
    factor = b.const(f"{SCOPE}/BatchNorm/batchnorm/mul", FACTOR.reshape(shape))
    term = b.const(f"{SCOPE}/BatchNorm/batchnorm/sub", (-BIAS if subtract else BIAS).reshape(shape))
    product = [f"{SCOPE}/Conv2D", factor]
    total = [b.node("mul_1", "Mul", *(product[::-1] if swapped else product)), term]
    if subtract:
        b.node("add_1", "Sub", *total)
    else:
        b.node("add_1", "AddV2", *(total[::-1] if swapped else total))
    unit, parts = only(b)
    assert set(parts) == {"weights", "scale", "offset"}
    np.testing.assert_array_equal(parts["scale"], FACTOR)
    np.testing.assert_array_equal(parts["offset"], BIAS)
    assert unit.epsilon is None


def test_half_folded_batch_norm_is_summed_in_float64() -> None:
    b = start()
    c = consts(b)
    factor = b.const("mul", FACTOR)
    scaled = b.node("mul_1", "Mul", f"{SCOPE}/Conv2D", factor)
    b.node("add_1", "Add", scaled, b.node("sub", "Sub", c["beta"], b.node("mul_2", "Mul", c["moving_mean"], factor)))
    _, parts = only(b)
    np.testing.assert_array_equal(parts["scale"], FACTOR)
    exact = BETA.astype(np.float64) - MEAN.astype(np.float64) * FACTOR.astype(np.float64)
    np.testing.assert_array_equal(parts["offset"], exact.astype(np.float32))


@pytest.mark.parametrize("op", ["BiasAdd", "Add", "AddV2", "Sub"])
def test_lone_bias_is_kept_bit_for_bit(op: str) -> None:
    b = start()
    b.node("bias", op, f"{SCOPE}/Conv2D", b.const("b", -BIAS if op == "Sub" else BIAS))
    unit, parts = only(b)
    assert set(parts) == {"weights", "biases"}
    np.testing.assert_array_equal(parts["biases"], BIAS)
    assert unit.tensors["biases"] == f"{SCOPE}/biases"


def test_bias_before_batch_norm_is_folded_in_float64() -> None:
    b = start()
    bias = b.node("bias", "BiasAdd", f"{SCOPE}/Conv2D", b.const("b", BIAS))
    b.node("bn", "FusedBatchNormV3", bias, *consts(b).values(), epsilon=EPSILON, is_training=False)
    _, parts = only(b)
    factor = GAMMA.astype(np.float64) / np.sqrt(VARIANCE.astype(np.float64) + EPSILON)
    np.testing.assert_allclose(parts["scale"], factor, rtol=6e-8)
    np.testing.assert_allclose(parts["offset"], (BIAS.astype(np.float64) - MEAN) * factor + BETA, rtol=6e-8)


def test_constant_minus_convolution_turns_the_sign() -> None:
    b = start()
    b.node("turned", "Sub", b.const("c", BIAS), b.node("halved", "RealDiv", f"{SCOPE}/Conv2D", b.const("d", 2.0)))
    _, parts = only(b)
    np.testing.assert_array_equal(parts["scale"], np.full(CHANNELS, -0.5, np.float32))
    np.testing.assert_array_equal(parts["offset"], BIAS)


def test_convolution_alone_has_weights_only() -> None:
    b = start()
    b.node("after", "Reshape", f"{SCOPE}/Conv2D", b.const("shape", [1, -1], "int32"))
    unit, parts = only(b)
    assert set(parts) == {"weights"}
    assert (unit.activation, unit.output) == ("none", f"{SCOPE}/Conv2D")


def test_sum_with_another_feature_map_is_no_bias() -> None:
    b = start()
    b.node("sum", "AddV2", f"{SCOPE}/Conv2D", "x")
    assert set(only(b)[1]) == {"weights"}


def relu6_ops(b: GraphBuilder, source: str, form: str) -> str:
    zero, six = b.const("zero", 0.0), b.const("six", 6.0)
    if form == "Relu6":
        return b.node("clip", "Relu6", source)
    if form == "min of max":
        return b.node("clip", "Minimum", b.node("low", "Maximum", source, zero), six)
    if form == "max of min":
        return b.node("clip", "Maximum", zero, b.node("high", "Minimum", six, source))
    if form == "min of relu":
        return b.node("clip", "Minimum", b.node("low", "Relu", source), six)
    return b.node("clip", "ClipByValue", source, zero, six)


FORMS = ["Relu6", "min of max", "max of min", "min of relu", "clip"]


@pytest.mark.parametrize("form", FORMS)
def test_relu6_in_every_dialect(form: str) -> None:
    b = start()
    relu6_ops(b, f"{SCOPE}/Conv2D", form)
    unit, _ = only(b)
    assert (unit.activation, unit.output) == ("relu6", "clip")


@pytest.mark.parametrize("order", ["x r c", "r c x", "x c r", "r x /6", "c r x"])
@pytest.mark.parametrize("form", FORMS[:2])
def test_hard_swish_in_every_order(order: str, form: str) -> None:
    b = start()
    x = f"{SCOPE}/Conv2D"
    r = relu6_ops(b, b.node("plus", "AddV2", x, b.const("three", 3.0)), form)
    c = b.const("c", 1 / 6)
    if order == "x r c":
        b.node("end", "Mul", b.node("xr", "Mul", x, r), c)
    elif order == "r c x":
        b.node("end", "Mul", x, b.node("rc", "Mul", r, c))
    elif order == "c r x":
        b.node("end", "Mul", b.node("rc", "Mul", c, r), x)
    elif order == "x c r":
        b.node("end", "Mul", b.node("xc", "Mul", x, c), r)
    else:
        b.node("end", "RealDiv", b.node("rx", "Mul", r, x), b.const("six_", 6.0))
    unit, parts = only(b)
    assert (unit.activation, unit.output, unit.gate_scale) == ("hard_swish", "end", None)
    assert set(parts) == {"weights"}


def test_hard_swish_with_another_factor_is_refused() -> None:
    b = start()
    x = f"{SCOPE}/Conv2D"
    r = b.node("r", "Relu6", b.node("plus", "Add", x, b.const("three", 3.0)))
    b.node("end", "Mul", b.node("xr", "Mul", x, r), b.const("c", 0.16667))
    with pytest.raises(ModelError, match=r"factor 0\.16666999"):
        only(b)


def test_another_shift_is_no_hard_swish() -> None:
    b = start()
    x = f"{SCOPE}/Conv2D"
    r = b.node("r", "Relu6", b.node("plus", "Add", x, b.const("two", 2.0)))
    b.node("end", "Mul", b.node("xr", "Mul", x, r), b.const("c", 1 / 6))
    assert only(b)[0].activation == "none"


def test_another_clip_is_refused() -> None:
    b = start()
    b.node("clip", "ClipByValue", f"{SCOPE}/Conv2D", b.const("zero", 0.0), b.const("one", 1.0))
    with pytest.raises(ModelError, match="activation ClipByValue"):
        only(b)


@pytest.mark.parametrize("folded", [False, True])
def test_gate_with_its_own_factor(folded: bool) -> None:
    b = start()
    bias = b.node("bias", "BiasAdd", f"{SCOPE}/Conv2D", b.const("b", BIAS + 3 if folded else BIAS))
    shifted = bias if folded else b.node("plus", "AddV2", bias, b.const("three", 3.0))
    b.node("end", "Mul", b.node("r", "Relu6", shifted), b.const("c", 0.16667))
    unit, parts = only(b)
    assert (unit.activation, unit.output) == ("hard_sigmoid", "end")
    assert unit.gate_scale == float(np.float32(0.16667))
    expected = ((BIAS + 3).astype(np.float64) - 3).astype(np.float32) if folded else BIAS
    np.testing.assert_array_equal(parts["biases"], expected)


@pytest.mark.parametrize("op", ["LeakyRelu", "Sigmoid", "Minimum"])
def test_unknown_activation_is_named(op: str) -> None:
    b = start()
    extra = (b.const("limit", 4.0),) if op == "Minimum" else ()
    b.node("odd", op, f"{SCOPE}/Conv2D", *extra)
    with pytest.raises(ModelError, match=f"{SCOPE} is followed by odd, the activation {op}"):
        only(b)


def test_relu_and_shape_readers() -> None:
    b = start()
    b.node("shape", "Shape", f"{SCOPE}/Conv2D")
    b.node("relu", "Relu", b.node("same", "Identity", f"{SCOPE}/Conv2D"))
    b.node("end", "Identity", "relu")
    assert (only(b)[0].activation, only(b)[0].output) == ("relu", "relu")


def test_stride_dilation_and_padding() -> None:
    b = GraphBuilder()
    b.node("x", "Placeholder")
    b.node("pad", "Pad", "x", b.const("p", [[0, 0], [0, 1], [2, 3], [0, 0]], "int32"))
    b.conv(SCOPE, "pad", KERNEL, strides=[1, 2, 3, 1], dilations=[1, 4, 5, 1], padding="VALID")
    unit, _ = only(b)
    assert (unit.stride, unit.dilation, unit.padding) == ((2, 3), (4, 5), (0, 1, 2, 3))


def test_explicit_padding_attribute() -> None:
    b = start(padding="EXPLICIT", explicit_paddings=[0, 0, 1, 2, 3, 4, 0, 0])
    assert only(b)[0].padding == (1, 2, 3, 4)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_padding_that_is_not_zeros_is_refused(padding: str) -> None:
    b = GraphBuilder()
    b.node("x", "Placeholder")
    filler = b.const("filler", 0.0 if padding == "SAME" else 1.0)
    b.node("pad", "PadV2", "x", b.const("p", [[0, 0], [1, 1], [1, 1], [0, 0]], "int32"), filler)
    b.conv(SCOPE, "pad", KERNEL, padding=padding)
    with pytest.raises(ModelError, match="must pad height and width with zeros"):
        only(b)


def test_depthwise_with_channel_multiplier() -> None:
    b = GraphBuilder()
    b.node("x", "Placeholder")
    kernel = np.arange(3 * 5 * 4 * 2, dtype=np.float32).reshape(3, 5, 4, 2)
    b.const("s/depthwise/depthwise_weights", kernel)
    b.node("s/depthwise/depthwise", "DepthwiseConv2dNative", "x", "s/depthwise/depthwise_weights",
           strides=[1, 1, 1, 1], padding="SAME")  # fmt: skip
    b.node("bias", "BiasAdd", "s/depthwise/depthwise", b.const("b", np.arange(8)))
    unit, parts = only(b)
    assert (unit.kind, unit.scope, unit.tensors["weights"]) == (
        "depthwise", "s/depthwise", "s/depthwise/depthwise_weights",
    )  # fmt: skip
    np.testing.assert_array_equal(parts["weights"], kernel)
    np.testing.assert_array_equal(parts["biases"], np.arange(8, dtype=np.float32))


def test_kernel_that_is_computed_is_rounded_once() -> None:
    b = GraphBuilder()
    b.node("x", "Placeholder")
    b.const(f"{SCOPE}/weights", KERNEL)
    b.node("kernel", "Mul", f"{SCOPE}/weights", b.node("third", "Exp", b.const("log", FACTOR)))
    b.node(f"{SCOPE}/Conv2D", "Conv2D", "x", "kernel", strides=[1, 1, 1, 1], padding="SAME")
    unit, parts = only(b)
    assert unit.scope == SCOPE
    exact = KERNEL.astype(np.float64) * np.exp(FACTOR.astype(np.float64))
    np.testing.assert_array_equal(parts["weights"], exact.astype(np.float32))


@pytest.mark.parametrize(
    ("node", "kernel", "scope"),
    [
        (f"{SCOPE}/Conv2D", f"{SCOPE}/weights", SCOPE),
        (f"{SCOPE}/BatchNorm/batchnorm/mul_1", f"{SCOPE}/Conv2D/merged_input", SCOPE),
        (f"{SCOPE}/Conv2D", "ConstantFolding/17", SCOPE),
        ("import/BoxPredictor_0/ClassPredictor/Conv2D", "import/BoxPredictor_0/ClassPredictor/weights",
         "BoxPredictor_0/ClassPredictor"),
        ("F/Conv2d_1_depthwise/depthwise", "k", "F/Conv2d_1_depthwise"),
        ("F/expanded_conv/depthwise/depthwise", "F/expanded_conv/depthwise/depthwise_weights/read",
         "F/expanded_conv/depthwise"),
    ],
)  # fmt: skip
def test_scope_of_a_convolution(node: str, kernel: str, scope: str) -> None:
    b = GraphBuilder()
    b.node("x", "Placeholder")
    b.node(node, "Conv2D", "x", "x")
    assert scope_of(b.graph().nodes[node], kernel) == scope


def test_shared_weights_are_refused() -> None:
    b = start()
    b.node(f"{SCOPE}/Conv2D_1", "Conv2D", "x", f"{SCOPE}/weights", strides=[1, 1, 1, 1], padding="SAME")
    with pytest.raises(ModelError, match="the same weights"):
        find_units(Constants.of(b.graph()))


def test_kernel_that_is_not_constant_is_refused() -> None:
    b = GraphBuilder()
    b.node("x", "Placeholder")
    b.node("fed", "Placeholder")
    b.node("conv", "Conv2D", "x", "fed", strides=[1, 1, 1, 1], padding="SAME")
    with pytest.raises(ModelError, match=r"kernel of conv is not constant: fed \(Placeholder\)"):
        only(b)


def test_quantised_graph_is_named() -> None:
    b = start()
    b.node("act_quant/FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxVars", f"{SCOPE}/Conv2D")
    with pytest.raises(ModelError, match=r"1 FakeQuantWithMinMaxVars nodes, the first act_quant"):
        refuse_quantised(b.graph())


def test_channels_first_is_refused() -> None:
    with pytest.raises(ModelError, match="NCHW"):
        only(start(data_format="NCHW"))


@pytest.mark.parametrize(
    ("scopes", "text"),
    [
        ([], "holds no convolution"),
        (["resnet/conv1"], "neither a MobileNet backbone nor box predictors .found resnet"),
        (["FeatureExtractor/resnet_v1_50/conv1", *HEADS],
         "backbone is not a MobileNet .found FeatureExtractor/resnet_v1_50, BoxPredictor_0"),
        (["FeatureExtractor/MobilenetV1/Conv2d_0", "WeightSharedConvolutionalBoxPredictor/ClassPredictor"],
         "no box predictors .found FeatureExtractor/MobilenetV1, WeightSharedConvolutionalBoxPredictor"),
        (["FeatureExtractor/MobilenetV2/Conv", "BoxPredictor_0/ClassPredictor"], "predictors have only ClassPredictor"),
        (["FirstStageFeatureExtractor/resnet_v1_101/conv1"], "found FirstStageFeatureExtractor/resnet_v1_101"),
    ],
)  # fmt: skip
def test_what_is_no_detector_is_described(scopes: list[str], text: str) -> None:
    with pytest.raises(ModelError, match=text):
        require_detector("m.pb", scopes)


def test_a_detector_passes() -> None:
    scopes = [
        "FeatureExtractor/MobilenetV3/Conv",
        "BoxPredictor_0/BoxEncodingPredictor",
        "BoxPredictor_0/ClassPredictor",
    ]
    require_detector("m.pb", scopes)


def test_units_are_values() -> None:
    unit, _ = only(start())
    assert dataclasses.replace(unit) == unit


def swish_graph(*, factor: float | None, sum_behind: bool = False) -> GraphBuilder:
    """A convolution, x * relu6(x + 3) with a factor or without, and a convolution (or a sum) that reads it."""
    b = GraphBuilder()
    b.node("x", "Placeholder", dtype=np.dtype("float32"), shape=shape_proto(1, 8, 8, 3))
    b.conv("a", "x", np.full((1, 1, 3, 4), 0.5), padding="SAME")
    b.node("shifted", "AddV2", "a/Conv2D", b.const("three", 3.0))
    b.node("clipped", "Relu6", "shifted")
    end = b.node("product", "Mul", "a/Conv2D", "clipped")
    if factor is not None:
        end = b.node("scaled", "Mul", "product", b.const("factor", factor))
    if sum_behind:
        end = b.node("sum", "AddV2", end, end)
    b.conv("b", end, np.full((3, 3, 4, 2), 0.1), padding="SAME")
    return b


def test_a_hard_swish_whose_sixth_is_in_the_kernels_behind_it() -> None:
    """TOCO draws the factor into the next kernel: y = conv(6 * hard_swish(x), w) = conv(hard_swish(x), 6 * w)."""
    plain = find_units(Constants.of(swish_graph(factor=1 / 6).graph()))
    drawn = find_units(Constants.of(swish_graph(factor=None).graph()))
    for found, scale, end in ((plain, 1.0, "scaled"), (drawn, 6.0, "product")):
        unit = next(unit for unit in found.units if unit.scope == "a")
        assert (unit.activation, unit.output_scale, unit.output) == ("hard_swish", scale, end)
    kernel = plain.tensors["b/weights"]
    np.testing.assert_array_equal(drawn.tensors["b/weights"], (kernel.astype(np.float64) * 6).astype(np.float32))
    np.testing.assert_array_equal(drawn.tensors["a/weights"], plain.tensors["a/weights"])


def test_a_hard_swish_without_its_sixth_before_a_sum_is_refused() -> None:
    with pytest.raises(
        ModelError, match=r"b reads sum\(a, a\), in which a ends in a hard swish without its factor 1/6"
    ):
        find_units(Constants.of(swish_graph(factor=None, sum_behind=True).graph()))


def test_a_hard_swish_with_another_factor_is_refused() -> None:
    with pytest.raises(ModelError, match=r"the factor 0\.25; it must be 1/6"):
        find_units(Constants.of(swish_graph(factor=0.25).graph()))
