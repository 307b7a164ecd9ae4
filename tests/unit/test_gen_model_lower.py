"""What the layers of every stage and dialect have to keep to."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, get_args

import pytest

from ssdlite_caffe.errors import ArchError
from ssdlite_caffe.gen_model.arch import FAMILIES, FamilyName, Nms
from ssdlite_caffe.gen_model.build import build, default_arch
from ssdlite_caffe.gen_model.dialect import (
    ActivationDialect,
    DataPaths,
    Dialect,
    PaddingDialect,
    Stage,
)
from ssdlite_caffe.gen_model.layers import (
    BatchNorm,
    Clip,
    Concat,
    Convolution,
    DetectionOutput,
    Eltwise,
    LayerDesc,
    Power,
    PriorBox,
    ReLU,
    ReLU6,
    Silence,
    Slice,
)
from ssdlite_caffe.gen_model.lower import lower
from ssdlite_caffe.gen_model.netdesc import ConvDesc, NetDesc
from ssdlite_caffe.resizer import Resizer

STAGES = get_args(Stage)
DIALECTS = [
    Dialect(activation=activation, padding=padding, batch_norm=batch_norm)
    for activation, padding, batch_norm in itertools.product(
        get_args(ActivationDialect), get_args(PaddingDialect), ("keep", "fold")
    )
]
READS_BOTTOM_BACKWARD = (Clip, Eltwise)
"""Layers whose backward pass reads their bottom as it was before them."""


def layers_of(net: NetDesc, dialect: Dialect, stage: Stage = "deploy") -> list[LayerDesc]:
    return [layer for section in lower(net, dialect, stage, DataPaths()).sections for layer in section.layers]


@pytest.fixture(scope="module")
def nets() -> dict[str, NetDesc]:
    return {name: build(default_arch(name, 4)) for name in FAMILIES}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", FAMILIES)
def test_blobs_are_written_once_and_never_under_a_reader(nets: dict[str, NetDesc], name: str, stage: Stage) -> None:
    for dialect in DIALECTS:
        layers = layers_of(nets[name], dialect, stage)
        names = [layer.name for layer in layers]
        assert len(set(names)) == len(names)
        written: set[str] = set()
        read: set[str] = set()
        last_in_place: dict[str, LayerDesc] = {}
        for layer in layers:
            assert set(layer.bottoms) <= written, layer.name
            in_place = set(layer.bottoms) & set(layer.tops)
            for blob in in_place:
                assert blob not in read, f"{layer.name} overwrites what was read before"
                assert not isinstance(layer, READS_BOTTOM_BACKWARD), layer.name
                before = last_in_place.get(blob)
                assert not isinstance(before, (ReLU, ReLU6)), f"{layer.name} hides the signs {before}"
                last_in_place[blob] = layer
            assert not (set(layer.tops) - in_place) & written, f"{layer.name} writes a blob again"
            read |= set(layer.bottoms) - in_place
            written |= set(layer.tops)
        unread = written - read
        ends = {
            "train": {"mbox_loss"},
            "test": {"detection_eval"},
            "deploy": {"detection_out"},
            "headless": {"mbox_loc", "mbox_conf", "mbox_priorbox"},
        }
        assert unread - {"label"} == ends[stage]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_convolution_layer_for_each_convolution(nets: dict[str, NetDesc], name: str) -> None:
    for dialect in DIALECTS:
        convolutions = [layer for layer in layers_of(nets[name], dialect) if isinstance(layer, Convolution)]
        assert [c.name for c in convolutions] == [c.name for c in nets[name].convolutions]
        for layer, conv in zip(convolutions, nets[name].convolutions, strict=True):
            assert layer.num_output == conv.num_output
            assert layer.bias_term == (conv.bias or dialect.batch_norm == "fold")
        norms = [layer for layer in layers_of(nets[name], dialect) if isinstance(layer, BatchNorm)]
        kept = [f"{c.name}/bn" for c in nets[name].convolutions if c.batch_norm]
        assert [n.name for n in norms] == (kept if dialect.batch_norm == "keep" else [])


def conv_layer(net: NetDesc, dialect: Dialect, name: str) -> Convolution:
    return next(c for c in layers_of(net, dialect) if isinstance(c, Convolution) and c.name == name)


def test_axes_are_padded_by_themselves() -> None:
    """At 300x299 the stem has (0, 1) zeros above and below but (1, 1) beside."""
    net = build(default_arch("v2", 4, input_size=(300, 299)))
    exact = conv_layer(net, Dialect(), "Conv")
    assert (exact.kernel, exact.pad) == ((4, 3), (1, 1))
    symmetric = conv_layer(net, Dialect(padding="symmetric"), "Conv")
    assert (symmetric.kernel, symmetric.pad) == ((3, 3), (1, 1))
    sliced = conv_layer(net, Dialect(padding="slice"), "Conv")
    assert (sliced.kernel, sliced.pad) == ((3, 3), (2, 1))
    cuts = [s for s in layers_of(net, Dialect(padding="slice")) if isinstance(s, Slice)]
    assert (cuts[0].name, cuts[0].axis, cuts[0].points) == ("Conv/slice_rows", 2, (1,))


def test_maps_of_one_pixel_are_kept_off_opencv_s_kernel(nets: dict[str, NetDesc]) -> None:
    for stage in STAGES:
        layers = [c for c in layers_of(nets["v2"], Dialect(), stage) if isinstance(c, Convolution) and c.spread]
        names = [f"layer_19_2_5_mbox_{part}/depthwise" for part in ("loc", "conf")]
        assert [c.name for c in layers] == (names if stage in ("deploy", "headless") else [])
        assert all((c.kernel, c.pad, c.dilation) == ((3, 3), (2, 2), (2, 2)) for c in layers)
    layers = layers_of(nets["v2"], Dialect(depthwise="DepthwiseConvolution"))
    assert not [c for c in layers if isinstance(c, Convolution) and c.spread]


def test_cudnn_gets_no_dilation(nets: dict[str, NetDesc]) -> None:
    """It has none, so layers of one-pixel maps are left to Caffe's own engine; OpenCV looks at no engine."""
    layers = [c for c in layers_of(nets["v2"], Dialect(engine="CUDNN")) if isinstance(c, Convolution) and c.group > 1]
    assert {(c.engine, c.spread) for c in layers} == {("CUDNN", False), ("DEFAULT", True)}
    assert {c.spread for c in layers if c.dilation != (1, 1)} == {True}


def test_five_by_five() -> None:
    net = build(default_arch("v3-small", 4))
    asymmetric = [c for c in net.convolutions if c.kernel == (5, 5) and not c.padding.symmetric]
    assert asymmetric
    for conv in asymmetric:
        layer = conv_layer(net, Dialect(), conv.name)
        assert (layer.kernel, layer.pad) == ((6, 6), (2, 2))


def test_explicit_padding_needs_no_dialect() -> None:
    net = build(dataclasses.replace(default_arch("v2", 4), explicit_padding=True))
    whole = [layers_of(net, Dialect(padding=padding)) for padding in get_args(PaddingDialect)]
    assert all(layers == whole[0] for layers in whole)
    assert {c.kernel for c in whole[0] if isinstance(c, Convolution)} == {(1, 1), (3, 3)}


@pytest.mark.parametrize("name", FAMILIES)
def test_shift_has_the_kernels_and_no_larger_pad_in_depthwise_layers(nets: dict[str, NetDesc], name: str) -> None:
    shift = [c for c in layers_of(nets[name], Dialect(padding="shift")) if isinstance(c, Convolution)]
    for layer, conv in zip(shift, nets[name].convolutions, strict=True):
        assert layer.kernel == conv.kernel
        if conv.depthwise and conv.kernel == (3, 3):
            assert max(layer.pad) <= max(layer.dilation), layer.name
    for stage in ("train", "test"):
        assert layers_of(nets[name], Dialect(padding="shift"), stage) == layers_of(
            nets[name], Dialect(padding="slice"), stage
        )


def names_of(layers: list[LayerDesc], kind: type[LayerDesc]) -> set[str]:
    return {layer.name for layer in layers if isinstance(layer, kind)}


def test_where_shift_moves_and_cuts(nets: dict[str, NetDesc]) -> None:
    """Where it costs least: a wide map by the pad of the 1x1 convolution that writes it, another one by a copy."""
    layers = layers_of(nets["v2"], Dialect(padding="shift"))
    padded = {c.name for c in layers if isinstance(c, Convolution) and c.kernel == (1, 1) and c.pad == (1, 1)}
    assert padded == {"conv/project"}
    copies = names_of(layers, Concat)
    assert {"conv_6/expand/moved_rows", "layer_19_2_2/depthwise/moved_columns"} <= copies
    assert not [name for name in copies if name.startswith("conv_1/")]
    cuts = {layer.name: layer.points for layer in layers if isinstance(layer, Slice) and "/slice_" in layer.name}
    assert cuts["conv/project/slice_rows"] == (151,)
    assert cuts["conv_1/project/slice_rows"] == cuts["Conv/slice_columns"] == (1,)
    assert "conv_1/depthwise/slice_rows" not in cuts
    # V3-small's stem is not cut, since the next layer wants its map moved.
    layers = layers_of(nets["v3-small"], Dialect(padding="shift"))
    assert not [name for name in names_of(layers, Slice) | names_of(layers, Concat) if name.startswith("Conv/")]


def test_shift_moves_axes_by_themselves() -> None:
    net = build(default_arch("v2", 4, input_size=(300, 299)))
    layers = layers_of(net, Dialect(padding="shift"))
    (project,) = [c for c in layers if isinstance(c, Convolution) and c.name == "conv/project"]
    assert project.pad == (1, 1)  # 150 x 150 pixels
    net = build(default_arch("v2", 4, input_size=(300, 297)))
    layers = layers_of(net, Dialect(padding="shift"))
    (project,) = [c for c in layers if isinstance(c, Convolution) and c.name == "conv/project"]
    assert project.pad == (1, 0)  # 150 x 149 pixels


def test_what_slices_cut_off_is_silenced(nets: dict[str, NetDesc]) -> None:
    layers = layers_of(nets["v2"], Dialect(padding="slice"))
    (silence,) = [layer for layer in layers if isinstance(layer, Silence)]
    assert "Conv/rows_before" in silence.bottoms
    assert "Conv/columns_before" in silence.bottoms
    assert not [layer for layer in layers_of(nets["v2"], Dialect()) if isinstance(layer, Silence)]


def test_activation_layers(nets: dict[str, NetDesc]) -> None:
    types = {
        activation: {layer.type for layer in layers_of(nets["v3-small"], Dialect(activation=activation))}
        for activation in get_args(ActivationDialect)
    }
    assert "Clip" in types["clip"]
    assert not {"ReLU6", "Clip"} & types["stock"]
    assert not {"ReLU6", "Clip"} & types["relu"]
    assert {"ReLU6", "ReLU"} <= types["relu6"]


def test_depthwise_type_and_engine(nets: dict[str, NetDesc]) -> None:
    dialect = Dialect(depthwise="ConvolutionDepthwise", engine="CAFFE")
    for layer in layers_of(nets["v2"], dialect):
        if isinstance(layer, Convolution):
            depthwise = layer.group > 1
            assert layer.type == ("ConvolutionDepthwise" if depthwise else "Convolution")
            assert layer.engine == ("CAFFE" if depthwise else "DEFAULT")


@pytest.mark.parametrize(
    ("depthwise", "spread"), [("Convolution", True), ("ConvolutionDepthwise", True), ("DepthwiseConvolution", False)]
)
def test_what_opencv_runs_on_one_pixel_maps_is_spread(nets: dict[str, NetDesc], depthwise: Any, spread: bool) -> None:
    layers = layers_of(nets["v2"], Dialect(depthwise=depthwise))
    found = {layer.name for layer in layers if isinstance(layer, Convolution) and layer.dilation == (2, 2)}
    heads = {f"layer_19_2_5_mbox_{part}/depthwise" for part in ("loc", "conf")}
    assert found == (heads if spread else set())


def test_learning_rates_and_fillers_only_in_training(nets: dict[str, NetDesc]) -> None:
    for stage in STAGES:
        for layer in layers_of(nets["v2"], Dialect(batch_norm="keep"), stage):
            if isinstance(layer, Convolution):
                blobs = 1 + layer.bias_term
                assert len(layer.learning) == (blobs if stage == "train" else 0)
                assert layer.fillers == (stage == "train")
            if isinstance(layer, BatchNorm):
                assert layer.learning == (((0.0, 0.0),) * 3 if stage == "train" else ())


def test_every_default_box_reaches_nms(nets: dict[str, NetDesc]) -> None:
    (output,) = [layer for layer in layers_of(nets["v2"], Dialect()) if isinstance(layer, DetectionOutput)]
    assert (output.top_k, output.keep_top_k, output.nms_threshold) == (1917, 100, 0.6)
    net = build(default_arch("v2", 4, nms=Nms(top_k=7, max_total=5, iou_threshold=0.3, score_threshold=0.2)))
    (output,) = [layer for layer in layers_of(net, Dialect()) if isinstance(layer, DetectionOutput)]
    assert (output.top_k, output.keep_top_k, output.nms_threshold, output.confidence_threshold) == (7, 5, 0.3, 0.2)


def test_a_letterbox_s_deploy_net_gives_all_detections() -> None:
    """Those in the padding are dropped afterwards; -1 for all would make OpenCV write beyond its memory."""
    resizer = Resizer("keep_aspect_ratio", min_dimension=300, max_dimension=300)
    net = build(dataclasses.replace(default_arch("v2", 4), resizer=resizer))
    kept = {}
    for stage in ("deploy", "test"):
        (output,) = [layer for layer in layers_of(net, Dialect(), stage) if isinstance(layer, DetectionOutput)]
        kept[stage] = output.keep_top_k
    assert kept == {"deploy": 1917 * 3, "test": 100}


def test_prior_boxes_look_at_map_and_image(nets: dict[str, NetDesc]) -> None:
    priors = [layer for layer in layers_of(nets["v1"], Dialect()) if isinstance(layer, PriorBox)]
    assert [p.bottoms for p in priors] == [(m.blob, "data") for m in nets["v1"].feature_maps]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", FAMILIES)
def test_classifiers(name: FamilyName, stage: Stage) -> None:
    layers = layers_of(build(default_arch(name, 10, classifier=True)), Dialect(), stage)
    types = [layer.type for layer in layers]
    ends = {
        "train": ["SoftmaxWithLoss", "Accuracy"],
        "test": ["SoftmaxWithLoss", "Accuracy"],
        "deploy": ["Softmax"],
        "headless": [],
    }
    assert types[len(types) - len(ends[stage]) :] == ends[stage]
    assert layers[len(types) - len(ends[stage]) - 1].name == "fc"
    assert ("Dropout" in types) == (stage == "train")


def test_data_layer_crops_squares_only() -> None:
    net = build(default_arch("v2", 10, input_size=(224, 192), classifier=True))
    assert layers_of(net, Dialect(), "deploy")
    with pytest.raises(ArchError, match="squares"):
        layers_of(net, Dialect(), "train")


def test_convdesc_names_are_the_blobs_heads_read(nets: dict[str, NetDesc]) -> None:
    """Whatever the dialect, the activated value stands in the blob of the convolution's name."""
    for dialect in DIALECTS:
        tops = {top for layer in layers_of(nets["v3-large"], dialect) for top in layer.tops}
        body = [n for s in nets["v3-large"].sections for n in s.nodes if isinstance(n, ConvDesc)]
        assert {c.top for c in body} <= tops


@pytest.mark.parametrize("activation", get_args(ActivationDialect))
def test_no_power_in_place_in_training(nets: dict[str, NetDesc], activation: ActivationDialect) -> None:
    """Caffe's Power fills its bottom's gradient before it reads its top's: in place, the gradient ends there."""
    powers = [
        layer
        for net in nets.values()
        for layer in layers_of(net, Dialect(activation=activation, batch_norm="keep"), "train")
        if isinstance(layer, Power)
    ]
    assert powers
    assert not [layer.name for layer in powers if set(layer.bottoms) & set(layer.tops)]
