from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdlite_caffe.errors import ArchError
from ssdlite_caffe.gen_model.arch import FAMILIES, ArchSpec, FamilyName, HeadKind, Nms, Residuals
from ssdlite_caffe.gen_model.build import build, default_arch
from ssdlite_caffe.gen_model.families import family
from ssdlite_caffe.gen_model.netdesc import AddDesc, ConvDesc, GateDesc, GlobalPoolDesc, NetDesc


def tops(net: NetDesc) -> dict[str, tuple[int, tuple[int, int]]]:
    """Every blob with its channels and size, in file order; a blob may be written once."""
    blobs: dict[str, tuple[int, tuple[int, int]]] = {"data": (3, net.arch.input_size)}
    heads = [c for m in net.feature_maps for c in (*m.loc, *m.conf)]
    for node in [*(n for s in net.sections for n in s.nodes), *heads]:
        assert node.top not in blobs
        match node:
            case ConvDesc():
                assert blobs[node.bottom] == (node.in_channels, node.in_size), node.name
                blobs[node.top] = node.num_output, node.out_size
            case AddDesc():
                assert blobs[node.bottoms[0]] == blobs[node.bottoms[1]] == (node.channels, node.size)
                blobs[node.top] = node.channels, node.size
            case GlobalPoolDesc():
                assert blobs[node.bottom] == (node.channels, node.in_size)
                blobs[node.top] = node.channels, (1, 1)
            case GateDesc():
                assert blobs[node.bottom] == (node.channels, node.size)
                assert blobs[node.gate] == (node.channels, (1, 1))
                blobs[node.top] = node.channels, node.size
    return blobs


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("head", ["ssdlite", "ssd"])
@given(
    width=st.floats(0.1, 2.0),
    size=st.tuples(st.integers(33, 420), st.integers(33, 420)),
    explicit=st.booleans(),
    kernel=st.sampled_from([3, 5]),
)
def test_every_blob_fits(
    name: FamilyName, head: str, width: float, size: tuple[int, int], explicit: bool, kernel: int
) -> None:
    arch = default_arch(name, 5, input_size=size, head=head, width_multiplier=width)  # type: ignore[arg-type]
    net = build(dataclasses.replace(arch, explicit_padding=explicit, head_kernel=kernel))
    blobs = tops(net)
    for feature_map in net.feature_maps:
        assert blobs[feature_map.blob] == (feature_map.channels, feature_map.size)
        assert blobs[f"{feature_map.blob}_mbox_loc"] == (4 * len(feature_map.tf_boxes), feature_map.size)
        assert blobs[f"{feature_map.blob}_mbox_conf"] == (5 * len(feature_map.tf_boxes), feature_map.size)
    scopes = [c.tf_scope for c in net.convolutions]
    assert len(set(scopes)) == len(scopes)


@pytest.mark.parametrize("name", FAMILIES)
@given(width=st.floats(0.1, 2.0), size=st.integers(32, 300))
def test_every_blob_of_a_classifier_fits(name: FamilyName, width: float, size: int) -> None:
    arch = default_arch(name, 7, input_size=(size, size), width_multiplier=width, classifier=True)
    net = build(arch)
    assert tops(net)["fc"] == (7, (1, 1))
    assert net.feature_maps == ()


@pytest.mark.parametrize(
    ("name", "blobs", "sizes", "channels"),
    [
        (
            "v2",
            ["conv_13/expand", "Conv_1", "layer_19_2_2", "layer_19_2_3", "layer_19_2_4", "layer_19_2_5"],
            [19, 10, 5, 3, 2, 1],
            [576, 1280, 512, 256, 256, 128],
        ),
        (
            "v1",
            ["conv11", "conv13", "conv14_2", "conv15_2", "conv16_2", "conv17_2"],
            [19, 10, 5, 3, 2, 1],
            [512, 1024, 512, 256, 256, 128],
        ),
        (
            "v3-large",
            ["conv_12/expand", "Conv_1", "layer_17_2_2", "layer_17_2_3", "layer_17_2_4", "layer_17_2_5"],
            [20, 10, 5, 3, 2, 1],
            [672, 480, 512, 256, 256, 128],
        ),
        (
            "v3-small",
            ["conv_8/expand", "Conv_1", "layer_13_2_2", "layer_13_2_3", "layer_13_2_4", "layer_13_2_5"],
            [20, 10, 5, 3, 2, 1],
            [288, 288, 512, 256, 256, 128],
        ),
    ],
)
def test_feature_maps(name: FamilyName, blobs: list[str], sizes: list[int], channels: list[int]) -> None:
    maps = build(default_arch(name, 91)).feature_maps
    assert [m.blob for m in maps] == blobs
    assert [m.size for m in maps] == [(s, s) for s in sizes]
    assert [m.channels for m in maps] == channels
    assert [len(m.tf_boxes) for m in maps] == [3, 6, 6, 6, 6, 6]


def test_names_of_the_public_v2_prototxts() -> None:
    net = build(default_arch("v2", 21))
    names = [c.name for c in net.convolutions]
    for name in ("Conv", "conv/depthwise", "conv/project", "conv_1/expand", "conv_16/project", "Conv_1"):
        assert name in names
    for name in ("layer_19_1_2", "layer_19_2_2/depthwise", "layer_19_2_5", "conv_13/expand_mbox_loc/depthwise"):
        assert name in names
    sums = [n.name for s in net.sections for n in s.nodes if isinstance(n, AddDesc)]
    assert sums == [f"conv_{i}/sum" for i in (2, 4, 5, 7, 8, 9, 11, 12, 14, 15)]


def test_names_of_the_public_v1_prototxts() -> None:
    names = [c.name for c in build(default_arch("v1", 21, head="ssd")).convolutions]
    expected = ["conv0"]
    expected += [f"conv{i}{part}" for i in range(1, 14) for part in ("/dw", "")]
    expected += [f"conv{i}_{part}" for i in range(14, 18) for part in (1, 2)]
    assert names[: len(expected)] == expected
    assert names[len(expected) :][:3] == ["conv11_mbox_loc", "conv11_mbox_conf", "conv13_mbox_loc"]


def test_scopes_of_extra_layers_hold_the_final_depth() -> None:
    """TensorFlow truncates here and rounds to 8 in the body: get_depth_fn against _make_divisible."""
    scopes = {c.tf_scope for c in build(default_arch("v2", 3, width_multiplier=0.35)).convolutions}
    assert "FeatureExtractor/MobilenetV2/layer_19_2_Conv2d_2_3x3_s2_179_depthwise" in scopes
    assert "FeatureExtractor/MobilenetV2/layer_19_1_Conv2d_5_1x1_22" in scopes


def test_classifier_scopes_and_widths() -> None:
    narrow = {
        c.tf_scope: c.num_output
        for c in build(default_arch("v2", 1001, width_multiplier=0.5, classifier=True)).convolutions
    }
    assert narrow["MobilenetV2/Conv_1"] == 1280  # finegrain_classification_mode keeps it
    assert narrow["MobilenetV2/Conv"] == 16
    assert narrow["MobilenetV2/Logits/Conv2d_1c_1x1"] == 1001
    large = {c.tf_scope: c.num_output for c in build(default_arch("v3-large", 1001, classifier=True)).convolutions}
    assert large["MobilenetV3/expanded_conv_14/project"] == 160
    assert large["MobilenetV3/Conv_1"] == 960
    assert large["MobilenetV3/Conv_2"] == 1280
    narrow = {
        c.tf_scope: c.num_output
        for c in build(default_arch("v3-large", 1001, width_multiplier=0.75, classifier=True)).convolutions
    }
    assert narrow["MobilenetV3/Conv_1"] == 720
    assert narrow["MobilenetV3/Conv_2"] == 1280


def test_minimalistic_has_neither_gates_nor_swish() -> None:
    net = build(default_arch("v3-large-minimalistic", 3))
    body = [c for c in net.convolutions if c.role in ("expand", "depthwise", "project")]
    assert {c.activation for c in body} == {"relu", "none"}
    assert {c.kernel for c in body if c.depthwise} == {(3, 3)}
    assert not any(isinstance(n, GateDesc) for s in net.sections for n in s.nodes)


def test_unknown_family() -> None:
    with pytest.raises(ArchError, match="v9"):
        family("v9")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": ()}, "for 6 feature maps, got 0"),
        ({"input_size": (300, 20)}, "input size of a detector must be at least 33x33, got 300x20"),
        ({"num_classes": 1}, "class count must be at least 2"),
        ({"num_classes": 99999999999}, "class count must be at most 1000000, got 99999999999"),
        ({"head_kernel": 1}, "predictor kernel"),
        ({"head_kernel": 0, "head": "ssd"}, "predictor kernel"),
        ({"classifier": True}, "no default boxes"),
        ({"gate_scale": 0.0}, "gates must be positive, got 0.0"),
        ({"gate_scale": math.nan}, "gates must be positive, got nan"),
        ({"pixel_mean": -math.inf}, "pixel mean must be within .*, got -inf"),
    ],
)
def test_parts_that_do_not_fit(change: dict[str, object], message: str) -> None:
    arch = default_arch("v2", 3)
    with pytest.raises(ArchError, match=message):
        build(dataclasses.replace(arch, **change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("part", "value"),
    [("pixel_scale", 10**400), ("gate_scale", 10**400), ("width_multiplier", 10**400), ("input_size", [math.inf, 1])],
)
def test_numbers_that_no_float_is(part: str, value: object) -> None:
    """As JSON may have them."""
    with pytest.raises(ArchError, match="not an architecture"):
        ArchSpec.from_dict({**default_arch("v2", 3).to_dict(), part: value})


@pytest.mark.parametrize("value", [0, 2**31, 1.5, math.nan, 10**400])
def test_counts_of_detections(value: int) -> None:
    with pytest.raises(ArchError, match=r"max_total must be a whole number in 1..2147483647, got .{1,20}$"):
        Nms(max_total=value)


def test_v3_classifiers_are_square() -> None:
    with pytest.raises(ArchError, match="square"):
        build(default_arch("v3-small", 10, input_size=(192, 224), classifier=True))


@pytest.mark.parametrize(
    ("name", "width", "convolutions", "weights", "multiply_adds"),
    [
        ("v1", 0.25, 28, 210416, 40777088),
        ("v1", 0.5, 28, 813280, 148990720),
        ("v1", 1.0, 28, 3196352, 567727616),
        ("v2", 0.35, 53, 396128, 58019888),
        ("v2", 0.5, 53, 683216, 95865920),
        ("v2", 1.0, 53, 2203840, 299508352),
        ("v2", 1.4, 53, 4287552, 580423536),
        ("v3-large", 0.75, 64, 2702288, 153294704),
        ("v3-small", 0.75, 54, 1015144, 42386608),
        ("v3-large-minimalistic", 0.75, 48, 1763024, 147536624),
        ("v3-small-minimalistic", 0.75, 36, 708072, 39060144),
        ("v3-large", 1.0, 64, 4185352, 215323840),
        ("v3-small", 1.0, 54, 1513096, 55497664),
        ("v3-large-minimalistic", 1.0, 48, 2631688, 207870784),
        ("v3-small-minimalistic", 1.0, 36, 1017864, 51275712),
        ("v3-large", 1.25, 64, 6633848, 354343520),
        ("v3-small", 1.25, 54, 2358776, 89975264),
        ("v3-large-minimalistic", 1.25, 48, 4142456, 344534624),
        ("v3-small-minimalistic", 1.25, 36, 1587832, 84558688),
    ],
)
def test_classifiers_are_slim_s(
    name: FamilyName, width: float, convolutions: int, weights: int, multiply_adds: int
) -> None:
    """Counted in the graphs that slim itself builds for 11 classes at 224x224 (narrow ones: finegrain mode)."""
    convs = build(default_arch(name, 11, width_multiplier=width, classifier=True)).convolutions
    sizes = [c.num_output * (c.in_channels // c.group) * c.kernel[0] * c.kernel[1] for c in convs]
    assert len(convs) == convolutions
    assert sum(sizes) == weights
    assert sum(n * c.out_size[0] * c.out_size[1] for n, c in zip(sizes, convs, strict=True)) == multiply_adds


class TestWhatPipelineConfigsSwitchByThemselves:
    def test_extra_layers_need_not_be_as_the_predictors(self) -> None:
        def kinds(head: HeadKind, extra_depthwise: bool | None) -> tuple[set[bool], set[bool]]:
            arch = dataclasses.replace(default_arch("v2", 4, head=head), extra_depthwise=extra_depthwise)
            convs = build(arch).convolutions
            extras = {c.depthwise for c in convs if c.role == "extra" and c.kernel == (3, 3)}
            heads = {len(m.loc) == 2 for m in build(arch).feature_maps}
            return extras, heads

        assert kinds("ssd", None) == ({False}, {False})
        assert kinds("ssd", True) == ({True}, {False})
        assert kinds("ssdlite", None) == ({True}, {True})
        assert kinds("ssdlite", False) == ({False}, {True})

    @pytest.mark.parametrize(
        ("width", "tf1_alone"), [(0.35, {0, 2}), (0.5, {0}), (0.75, set()), (1.0, set()), (1.4, set())]
    )
    def test_residual_sums_of_both_tensorflows(self, width: float, tf1_alone: set[int]) -> None:
        """The blocks are those of the OD API's own Keras model of each width, and of slim's nets."""

        def sums(rule: Residuals) -> set[int]:
            arch = dataclasses.replace(default_arch("v2", 4, width_multiplier=width), residuals=rule)
            tops = (n.top for section in build(arch).sections for n in section.nodes if isinstance(n, AddDesc))
            return {int(top.removeprefix("conv").removeprefix("_") or 0) for top in tops}

        both = {4, 5, 7, 8, 9, 11, 12, 14, 15} | ({2} - tf1_alone)
        assert sums("tf2") == both
        assert sums("tf1") == both | tf1_alone

    @pytest.mark.parametrize(
        ("rule", "width", "channels"),
        [("tf1", 0.5, 640), ("tf2", 0.5, 640), ("tf1", 1.4, 1792), ("tf2", 1.0, 1280), ("tf2", 1.4, 1280)],
    )
    def test_the_last_convolution_of_both_tensorflows(self, rule: Residuals, width: float, channels: int) -> None:
        """Keras' is no wider than 1280, as a real model of width 1.4 has it."""
        arch = dataclasses.replace(default_arch("v2", 4, width_multiplier=width), residuals=rule)
        assert next(c.num_output for c in build(arch).convolutions if c.name == "Conv_1") == channels
