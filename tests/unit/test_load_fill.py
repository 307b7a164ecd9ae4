"""Filling nets: every tensor used once, every blob filled, in every dialect; or the whole list of what is wrong."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.errors import PrototxtError, TensorError
from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.gen_model.dialect import Dialect, Stage
from ssdlite_caffe.gen_model.netdesc import NetDesc
from ssdlite_caffe.load.constants import constants
from ssdlite_caffe.load.fill import CONVOLUTIONS, fill, kernel_size
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.shapes import infer
from ssdlite_caffe.prototxt.text import parse_net
from tests.filling import FOLD, KEEP, arch_of, filled, layer_of, model, net_of, problems
from tests.models import with_tensors, with_unit

DIALECTS = [
    *(Dialect(activation=a, batch_norm=b) for a in ("relu6", "clip", "stock", "relu") for b in ("keep", "fold")),
    *(Dialect(padding=p) for p in ("slice", "pad-layer", "tf_pad", "symmetric")),
    *(Dialect(depthwise=d, engine="CAFFE") for d in ("ConvolutionDepthwise", "DepthwiseConvolution")),
    Dialect(activation="stock", padding="slice", batch_norm="keep", clip="late"),
    Dialect(batch_norm="fold-body"),
    *(Dialect(activation="stock", batch_norm=b, linear="scale") for b in ("keep", "fold")),
]  # type: ignore[list-item]
STAGES: tuple[Stage, ...] = ("train", "test", "deploy", "headless")


def constants_of(dialect: Dialect, arch: ArchSpec) -> dict[str, tuple[FloatArray, ...]]:
    """The layers of a net that learn nothing, and yet have blobs."""
    net = net_of(arch, dialect)
    return constants(net, infer(net).param_shapes)


class TestEveryDialect:
    @pytest.mark.parametrize("family", ["v1", "v2", "v3-small"])
    @pytest.mark.parametrize("dialect", DIALECTS, ids=lambda s: "-".join(dataclasses.asdict(s).values()))
    def test_every_blob_is_filled(self, family: Any, dialect: Dialect) -> None:
        stages: tuple[Stage, ...] = STAGES if dialect.batch_norm == "keep" else ("deploy", "headless")
        for stage in stages:
            net = net_of(arch_of(family), dialect, stage)
            found = filled(net, model(family), arch=arch_of(family))
            wanted = infer(net).param_shapes
            assert {name: tuple(blob.shape for blob in blobs) for name, blobs in found.blobs.items()} == wanted
            assert all(blob.dtype == np.float32 for blobs in found.blobs.values() for blob in blobs)
            assert found.left == {}

    @pytest.mark.parametrize("family", ["v1", "v2", "v3-small"])
    @pytest.mark.parametrize("norm", ["keep", "fold"])
    def test_weights_are_the_same_whatever_the_dialect(self, family: Any, norm: Any) -> None:
        """Up to the zeros in front of larger kernels, so that what one dialect computes all of them do."""
        arch = arch_of(family)
        kernels = {conv.name: conv.kernel for conv in build(arch).convolutions}

        def cores(dialect: Dialect) -> dict[str, list[FloatArray]]:
            net, found = net_of(arch, dialect), {}
            types = {layer.name: layer.type for layer in net.layer}
            for name, blobs in filled(net, model(family), arch=arch).blobs.items():
                found[name] = list(blobs)
                if types[name] in CONVOLUTIONS:
                    height, width = kernels[name]
                    core = blobs[0][..., blobs[0].shape[2] - height :, blobs[0].shape[3] - width :]
                    assert np.count_nonzero(blobs[0]) == np.count_nonzero(core)
                    found[name][0] = core
            return found

        expected = cores(Dialect(batch_norm=norm))
        convolutions = [layer for layer in net_of(arch).layer if layer.type == "Convolution"]
        larger = [c.name for c in convolutions if kernel_size(c.convolution_param) != kernels[c.name]]
        assert larger, "a net without odd padding shows nothing"
        for dialect in DIALECTS:
            found = cores(dataclasses.replace(dialect, batch_norm=norm))
            assert found.keys() - expected.keys() == set(constants_of(dialect, arch))
            for name, blobs in expected.items():
                for got, blob in zip(found[name], blobs, strict=True):
                    np.testing.assert_array_equal(got, blob, err_msg=name)

    def test_blobs_are_moved_bit_for_bit(self) -> None:
        """One layer of each kind against TensorFlow's own tensors."""
        tensors, found = model().tensors, filled(net_of(arch_of(), KEEP)).blobs
        scope = "FeatureExtractor/MobilenetV2"
        stem = tensors[f"{scope}/Conv/weights"].transpose(3, 2, 0, 1)[:, ::-1]
        np.testing.assert_array_equal(found["Conv"][0][:, :, -3:, -3:], stem)
        deep = tensors[f"{scope}/expanded_conv_2/depthwise/depthwise_weights"][..., 0].transpose(2, 0, 1)
        np.testing.assert_array_equal(found["conv_2/depthwise"][0][:, 0, -3:, -3:], deep)
        expand = tensors[f"{scope}/expanded_conv_2/expand/weights"]
        np.testing.assert_array_equal(found["conv_2/expand"][0], expand.transpose(3, 2, 0, 1))
        for layer, parts in (("bn", ("moving_mean", "moving_variance")), ("scale", ("gamma", "beta"))):
            blobs = found[f"conv_2/expand/{layer}"]
            for blob, part in zip(blobs, parts, strict=False):
                np.testing.assert_array_equal(blob, tensors[f"{scope}/expanded_conv_2/expand/BatchNorm/{part}"])
        np.testing.assert_array_equal(found["conv_2/expand/bn"][2], np.ones(1))


def affine(blobs: dict[str, tuple[FloatArray, ...]], name: str, epsilon: float) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and offset, in float64, of a convolution with what follows it in the net."""
    kernel = blobs[name][0].astype(np.float64)
    if f"{name}/bn" not in blobs:
        return kernel, blobs[name][1].astype(np.float64)
    mean, variance, factor = (blob.astype(np.float64) for blob in blobs[f"{name}/bn"])
    gamma, beta = (blob.astype(np.float64) for blob in blobs[f"{name}/scale"])
    scale = gamma / np.sqrt(variance / factor + epsilon)
    return kernel * scale[:, None, None, None], beta - mean / factor * scale


def assert_same_function(
    one: dict[str, tuple[FloatArray, ...]],
    other: dict[str, tuple[FloatArray, ...]],
    names: list[str],
    epsilons: tuple[float, float],
) -> None:
    for name in names:
        for a, b in zip(affine(one, name, epsilons[0]), affine(other, name, epsilons[1]), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=3e-7 * np.abs(b).max(), err_msg=name)


class TestBatchNorm:
    names = [conv.name for conv in build(arch_of()).convolutions]  # noqa: RUF012

    def test_kept_and_folded_are_the_same_function(self) -> None:
        kept, folded = (filled(net_of(arch_of(), dialect)).blobs for dialect in (KEEP, FOLD))
        assert_same_function(folded, kept, self.names, (0, 1e-3))

    @pytest.mark.parametrize("epsilon", [1e-5, 0.05, 0.7])
    def test_a_net_of_another_epsilon(self, epsilon: float) -> None:
        """0.7 is above some variances, which cannot take up the difference; those norms are rewritten whole."""
        usual = filled(net_of(arch_of(), KEEP)).blobs
        other = filled(net_of(dataclasses.replace(arch_of(), batch_norm_epsilon=epsilon), KEEP)).blobs
        assert_same_function(other, usual, self.names, (np.float32(epsilon), 1e-3))
        moved = np.array_equal(other["Conv/scale"][0], usual["Conv/scale"][0])
        assert moved == (epsilon < 0.1)
        assert all((blobs[1] >= 0).all() for name, blobs in other.items() if name.endswith("/bn"))

    def test_a_convolution_of_another_epsilon_in_the_model(self) -> None:
        scope = "FeatureExtractor/MobilenetV2/expanded_conv_2/expand"
        changed = with_unit(model(), scope, epsilon=0.01)
        kept, folded = (filled(net_of(arch_of(), dialect), changed).blobs for dialect in (KEEP, FOLD))
        assert_same_function(folded, kept, self.names, (0, 1e-3))
        usual = filled(net_of(arch_of(), FOLD)).blobs
        assert np.abs(folded["conv_2/expand"][0] - usual["conv_2/expand"][0]).max() > 1e-4
        np.testing.assert_array_equal(folded["conv_3/expand"][0], usual["conv_3/expand"][0])

    @pytest.mark.parametrize("form", ["scale and offset", "bias", "no gamma", "bias and norm"])
    def test_other_forms_of_a_norm(self, form: str) -> None:
        scope = "FeatureExtractor/MobilenetV2/expanded_conv_2/expand"
        unit = next(unit for unit in model().units if unit.scope == scope)
        tensors = {part: model().tensors[name].astype(np.float64) for part, name in unit.tensors.items()}
        scale = tensors["gamma"] / np.sqrt(tensors["moving_variance"] + 1e-3)
        offset = tensors["beta"] - tensors["moving_mean"] * scale
        extra = np.linspace(-1, 1, len(scale))
        kernel, bias = tensors["weights"].transpose(3, 2, 0, 1), offset
        if form == "scale and offset":
            parts: dict[str, Any] = {"weights": unit.tensors["weights"], "scale": "s", "offset": "o"}
        elif form == "bias":
            parts, scale, bias = {"weights": unit.tensors["weights"], "biases": "b"}, np.ones_like(scale), extra
        elif form == "no gamma":
            parts = {part: name for part, name in unit.tensors.items() if part != "gamma"}
            scale = 1 / np.sqrt(tensors["moving_variance"] + 1e-3)
            bias = tensors["beta"] - tensors["moving_mean"] * scale
        else:
            parts, bias = {**unit.tensors, "biases": "b"}, offset + extra * scale
        unused: dict[str, FloatArray | None] = dict.fromkeys(set(unit.tensors.values()) - set(parts.values()))
        new: dict[str, FloatArray | None] = {
            name: value.astype(np.float32)
            for name, value in (("s", scale), ("o", offset), ("b", extra))
            if name in parts.values()
        }
        changed = with_tensors(with_unit(model(), scope, tensors=parts), unused | new)
        for dialect in (KEEP, FOLD):
            found = affine(filled(net_of(arch_of(), dialect), changed).blobs, "conv_2/expand", 1e-3)
            np.testing.assert_allclose(found[0], kernel * scale[:, None, None, None], rtol=0, atol=5e-7)
            np.testing.assert_allclose(found[1], bias, rtol=0, atol=1e-6)


class TestCoverage:
    def test_all_missing_tensors_are_listed_once(self) -> None:
        scope = "FeatureExtractor/MobilenetV2"
        names = [
            f"{scope}/Conv/weights",
            f"{scope}/expanded_conv_3/depthwise/BatchNorm/gamma",
            f"{scope}/expanded_conv_3/depthwise/BatchNorm/beta",
            "BoxPredictor_1/ClassPredictor/biases",
        ]
        for dialect in (KEEP, FOLD):
            found = problems(net_of(arch_of(), dialect), with_tensors(model(), dict.fromkeys(names)))
            assert len(found) == 4
            for name in names:
                assert sum(name in line and line.endswith("is missing") for line in found) == 1

    def test_all_additional_tensors_are_listed(self) -> None:
        more = {"FeatureExtractor/more": np.zeros((2, 3), np.float32), "global_step": np.zeros((), np.float32)}
        assert problems(net_of(arch_of()), with_tensors(model(), dict(more))) == [
            "tensor 'FeatureExtractor/more' (2, 3) is not used by the net",
            "tensor 'global_step' () is not used by the net",
        ]

    def test_a_convolution_that_the_model_does_not_have(self) -> None:
        scope = "FeatureExtractor/MobilenetV2/Conv_1"
        fewer = dataclasses.replace(model(), units=tuple(unit for unit in model().units if unit.scope != scope))
        for dialect in (KEEP, FOLD):
            found = problems(net_of(arch_of(), dialect), fewer)
            assert found[0] == f"the model has no weights '{scope}' for layer 'Conv_1'"
            assert [line.split("'")[1] for line in found[1:]] == sorted(
                f"{scope}/{part}"
                for part in (
                    "weights",
                    *(f"BatchNorm/{p}" for p in ("gamma", "beta", "moving_mean", "moving_variance")),
                )
            )

    @pytest.mark.parametrize(
        ("name", "shape", "message"),
        [
            ("Conv/weights", (3, 3, 4, 16), "makes a kernel of (16, 4, 3, 3), layer 'Conv' needs (16, 3, 3, 3)"),
            ("Conv/weights", (5, 3, 3, 16), "makes a kernel of (16, 3, 5, 3), layer 'Conv' needs (16, 3, 3, 3)"),
            ("Conv/weights", (9, 48), "must have 4 axes, as a kernel has, got the shape (9, 48)"),
            ("Conv/BatchNorm/moving_mean", (17,), "has the shape (17,), its kernel needs (16,)"),
            ("Conv/BatchNorm/gamma", (1,), "has the shape (1,), its kernel needs (16,)"),
            ("Conv/BatchNorm/beta", (16, 1), "has the shape (16, 1), its kernel needs (16,)"),
        ],
    )
    def test_a_tensor_of_another_shape(self, name: str, shape: tuple[int, ...], message: str) -> None:
        changed = with_tensors(model(), {f"FeatureExtractor/MobilenetV2/{name}": np.ones(shape, np.float32)})
        for dialect in (KEEP, FOLD):
            (found,) = problems(net_of(arch_of(), dialect), changed)
            assert found == f"tensor 'FeatureExtractor/MobilenetV2/{name}' {message}"

    def test_predictors_of_another_number_of_boxes(self) -> None:
        changed = model()
        for kind, outputs in (("BoxEncodingPredictor", 20), ("ClassPredictor", 23)):
            scope = f"BoxPredictor_1/{kind}"
            inputs = model().tensors[f"{scope}/weights"].shape[2]
            new: dict[str, FloatArray | None] = {
                f"{scope}/weights": np.ones((1, 1, inputs, outputs), np.float32),
                f"{scope}/biases": np.ones(outputs, np.float32),
            }
            changed = with_tensors(changed, new)
        assert problems(net_of(arch_of()), changed) == [
            "'BoxPredictor_1/BoxEncodingPredictor' has 20 outputs, 6 boxes need 24",
            "'BoxPredictor_1/ClassPredictor' has 23 outputs, not a multiple of its 6 boxes",
        ]

    def test_a_layer_that_the_net_does_not_have(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ssdlite_caffe.load.fill.MOST_LISTED", 1000)
        monkeypatch.setattr("tests.filling.MOST_LISTED", 1000)
        net = net_of(arch_of())
        last = "layer_19_2_5_mbox_conf"
        assert layer_of(net, last).type == "Convolution"
        short = caffe_pb2.NetParameter()
        short.CopyFrom(net)
        del short.layer[:]
        short.layer.extend(net.layer[: [layer.name for layer in net.layer].index("conv_2/expand")])
        found = problems(short)
        missing = [line for line in found if line.startswith("the net has no layer")]
        left = sum(layer.type == "Convolution" for layer in short.layer)
        assert len(missing) == len(build(arch_of()).convolutions) - left
        assert f"the net has no layer '{last}', which the model's BoxPredictor_5/ClassPredictor would fill" in missing
        assert any(line.startswith("tensor 'BoxPredictor_5/ClassPredictor/weights' ") for line in found)

    def test_layers_that_the_model_does_not_have(self) -> None:
        net = net_of(arch_of())
        extra = net.layer.add(name="more", type="Convolution", bottom=["mbox_conf_map"], top=["more"])
        extra.bottom[0] = "Conv"
        extra.convolution_param.num_output = 3
        extra.convolution_param.kernel_size.append(1)
        net.layer.add(name="slope", type="PReLU", bottom=["more"], top=["slope"])
        lone = net.layer.add(name="lone/bn", type="BatchNorm", bottom=["slope"], top=["lone"])
        assert problems(net) == [
            "layer 'more' is not in the model",
            "layer 'lone/bn' (BatchNorm) does not belong to a convolution of the model",
            "layer 'slope' has the type PReLU, which no MobileNet SSD has",
        ]
        assert lone.name == "lone/bn"

    def test_a_net_that_does_not_fit_together(self) -> None:
        net = net_of(arch_of())
        layer_of(net, "conv_2/expand").bottom[0] = "nowhere"
        layer_of(net, "conv_3/expand").type = "Convolutoin"
        found = problems(net, kind=PrototxtError)
        assert len(found) >= 2
        assert any("'nowhere'" in line for line in found)
        assert any("no layer type 'Convolutoin'; the nearest is 'Convolution'" in line for line in found)


def edited(
    name: str, change: Callable[[caffe_pb2.LayerParameter], object], dialect: Dialect = FOLD
) -> caffe_pb2.NetParameter:
    net = net_of(arch_of(), dialect)
    change(layer_of(net, name))
    return net


class TestEditedNets:
    def test_another_kernel_or_output_count(self) -> None:
        def kernel(layer: caffe_pb2.LayerParameter) -> None:
            layer.convolution_param.kernel_size[:] = [5]
            layer.convolution_param.pad[:] = [2]

        assert problems(edited("layer_19_2_5_mbox_conf", kernel)) == [
            "layer 'layer_19_2_5_mbox_conf' has a 5x5 kernel, the model 1x1",
        ]

    def test_no_place_for_the_offset(self) -> None:
        def no_bias(layer: caffe_pb2.LayerParameter) -> None:
            layer.convolution_param.bias_term = False

        assert problems(edited("conv_2/expand", no_bias)) == [
            "layer 'conv_2/expand' has neither bias nor BatchNorm, which the model's offset needs"
        ]

        def bias(layer: caffe_pb2.LayerParameter) -> None:
            layer.convolution_param.bias_term = True

        assert problems(edited("conv_2/expand", bias, KEEP)) == [
            "layer 'conv_2/expand' has a bias and a BatchNorm; gen writes one or the other"
        ]

        def no_shift(layer: caffe_pb2.LayerParameter) -> None:
            layer.scale_param.bias_term = False

        assert problems(edited("conv_2/expand/scale", no_shift, KEEP)) == [
            "layer 'conv_2/expand/scale' needs a BatchNorm layer 'conv_2/expand/bn' before it and bias_term: true"
        ]

    def test_a_norm_without_its_scale_layer(self) -> None:
        net = net_of(arch_of(), KEEP)
        net.layer.remove(layer_of(net, "conv_2/expand/scale"))
        assert problems(net) == ["layer 'conv_2/expand/bn' needs a Scale layer 'conv_2/expand/scale' after it"]

    @pytest.mark.parametrize(
        ("field", "value"),
        [("step", 16.0), ("step_h", 16.0), ("img_size", 300), ("clip", True), ("offset", 0.25)],
    )
    def test_prior_boxes_beside_the_centres(self, field: str, value: float | bool) -> None:
        def move(layer: caffe_pb2.LayerParameter) -> None:
            setattr(layer.prior_box_param, field, value)
            if field == "step_h":  # neither goes without the other
                layer.prior_box_param.step_w = 16.0

        (found,) = problems(edited("Conv_1_mbox_priorbox", move))
        named = {"offset": "an offset other than 0.5", "step_h": "step_h, step_w"}.get(field, field)
        assert found.startswith(f"layer 'Conv_1_mbox_priorbox' sets {named}: its boxes are not on")

    def test_another_number_of_prior_boxes(self) -> None:
        def drop(layer: caffe_pb2.LayerParameter) -> None:
            del layer.prior_box_param.max_size[:]

        assert problems(edited("Conv_1_mbox_priorbox", drop)) == [
            "layer 'Conv_1_mbox_priorbox' makes 5 boxes per cell, the model has 6"
        ]


def test_a_description_of_another_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssdlite_caffe.load.fill.MOST_LISTED", 1000)
    other: NetDesc = build(arch_of("v1"))
    with pytest.raises(TensorError) as caught:
        fill(net_of(arch_of()), other, model())
    assert "is not in the model" in str(caught.value)
    assert "is not used by the net" in str(caught.value)


def test_weights_of_another_family_are_named_and_not_all_listed() -> None:
    with pytest.raises(TensorError) as caught:
        filled(net_of(arch_of("v2")), model(), arch=arch_of("v3-small"))
    first, *rest = str(caught.value).split("\n")
    assert first.startswith("the weights (of a v3-small ssdlite, width multiplier ")
    assert len(rest) == 41
    assert re.fullmatch(r"  \.\.\. and \d+ more", rest[-1])


OWN_LAYERS = """
layer { name: "x/mean" type: "Pooling" bottom: "Conv" top: "x/mean" pooling_param { pool: AVE global_pooling: true } }
layer { name: "x/shuffle" type: "ShuffleChannel" bottom: "Conv" top: "x/s" shuffle_channel_param { group: 2 } }
layer { name: "x/interp" type: "Interp" bottom: "x/s" top: "x/i" interp_param { height: 6 width: 6 } }
layer { name: "x/reorg" type: "Reorg" bottom: "x/i" top: "x/r" }
layer { name: "x/mish" type: "Mish" bottom: "x/r" top: "x/r" }
"""
OPENCV_LAYERS = """
layer { name: "x/sum" type: "Eltwise" bottom: "Conv" bottom: "x/mean" top: "x/sum" }
layer { name: "x/gelu" type: "Gelu" bottom: "x/sum" top: "x/gelu" }
"""


@pytest.mark.parametrize("more", [OWN_LAYERS, OWN_LAYERS + OPENCV_LAYERS], ids=["forks", "opencv"])
def test_layers_of_forks_and_of_opencv_are_left_alone(more: str) -> None:
    net = net_of(arch_of())
    plain = filled(net)
    net.layer.extend(parse_net(more).layer)
    found = filled(net)
    assert found.blobs.keys() == plain.blobs.keys()
    layer_of(net, "x/mish").type = "Mich"
    with pytest.raises(PrototxtError, match="there is no layer type 'Mich'; the nearest is 'Mish'"):
        filled(net)
