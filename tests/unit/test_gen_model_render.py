from __future__ import annotations

import dataclasses
import itertools
import re
from pathlib import Path
from typing import NamedTuple, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdlite_caffe.gen_model.arch import FAMILIES, FamilyName, HeadKind
from ssdlite_caffe.gen_model.build import build, default_arch
from ssdlite_caffe.gen_model.dialect import (
    ActivationDialect,
    DataPaths,
    Dialect,
    PaddingDialect,
    Stage,
)
from ssdlite_caffe.gen_model.moved_maps import is_moved
from ssdlite_caffe.gen_model.netdesc import AddDesc, ConvDesc, GateDesc, GlobalPoolDesc, NetDesc, NodeDesc
from ssdlite_caffe.gen_model.render import Solver, number, quoted, render, render_solver
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.lint import lint
from ssdlite_caffe.prototxt.text import parse

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
STRUCTURES = GOLDEN / "structures.txt"
STAGES = get_args(Stage)
DATA = DataPaths(lmdb='a "quoted"\\path', label_map="naïve\n.prototxt", name_size_file="sizes.txt", batch_size=3)


class Golden(NamedTuple):
    title: str
    family: FamilyName
    head: HeadKind = "ssdlite"
    classifier: bool = False

    def build(self) -> NetDesc:
        classes = 1001 if self.classifier else 21
        return build(default_arch(self.family, classes, head=self.head, classifier=self.classifier))


WHOLE = (Golden("v2-ssdlite", "v2"), Golden("v3-small-ssdlite", "v3-small"))
"""Nets of which every stage is kept as text."""
NETS = (
    *(Golden(f"{family}-ssdlite", family) for family in FAMILIES),
    Golden("v1-ssd", "v1", "ssd"),
    Golden("v2-ssd", "v2", "ssd"),
    *(Golden(f"{family}-classifier", family, classifier=True) for family in FAMILIES),
)
"""Nets of which the structure is kept."""


def golden_dialect(stage: Stage) -> Dialect:
    return Dialect(batch_norm="fold" if stage in ("deploy", "headless") else "keep")


def summary(net: caffe_pb2.NetParameter) -> list[str]:
    """One line a layer, for a difference that can be read."""
    return [f"{layer.name}: {layer.SerializeToString(deterministic=True).hex()}" for layer in net.layer]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("golden", WHOLE, ids=[net.title for net in WHOLE])
def test_golden_text(golden: Golden, stage: Stage, update_golden: bool) -> None:
    text = render(golden.build(), golden_dialect(stage), stage)
    path = GOLDEN / f"{golden.title}-{stage}.prototxt"
    if update_golden:
        path.write_text(text, encoding="utf-8")
    kept = path.read_text(encoding="utf-8")
    expected, found = (summary(parse(t, caffe_pb2.NetParameter)) for t in (kept, text))
    assert found == expected
    assert text == kept


def structure(title: str, net: NetDesc) -> list[str]:
    """What a net is made of, a line for each node: a difference shows which one is another."""
    lines = [f"== {title}, input {by(net.arch.input_size)}"]
    lines += [shown(node) for section in net.sections for node in section.nodes]
    for found in net.feature_maps:
        prior = found.prior
        lines.append(
            f"boxes on {found.blob}: min {prior.min_sizes} max {prior.max_sizes} ratios {prior.aspect_ratios} "
            f"flip {prior.flip} variances {prior.variances}"
        )
        lines += [shown(conv) for conv in (*found.loc, *found.conf)]
    return lines


def by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def shown(node: NodeDesc) -> str:
    match node:
        case ConvDesc():
            padding = node.padding
            kind = "depthwise" if node.depthwise else "conv"
            return (
                f"{node.name} = {kind} {by(node.kernel)}/{node.stride[0]} of {node.bottom}, pad {padding.top} "
                f"{padding.bottom} {padding.left} {padding.right}, {'bn' if node.batch_norm else 'bias'}, "
                f"{node.activation}: {node.num_output} x {by(node.out_size)}"
            )
        case AddDesc():
            return f"{node.top} = {' + '.join(node.bottoms)}: {node.channels} x {by(node.size)}"
        case GlobalPoolDesc():
            return f"{node.top} = mean of {node.bottom}: {node.channels}"
        case GateDesc():
            return f"{node.top} = {node.bottom} * {node.gate}: {node.channels} x {by(node.size)}"


def test_golden_structures(update_golden: bool) -> None:
    found = [line for net in NETS for line in structure(net.title, net.build())]
    if update_golden:
        STRUCTURES.write_text("\n".join(found) + "\n", encoding="utf-8")
    assert found == STRUCTURES.read_text(encoding="utf-8").splitlines()


def test_golden_folder_is_small_and_without_leftovers() -> None:
    names = {f"{net.title}-{stage}.prototxt" for net in WHOLE for stage in STAGES} | {STRUCTURES.name}
    assert {path.name for path in GOLDEN.iterdir()} == names
    assert sum(path.stat().st_size for path in GOLDEN.iterdir()) < 1_000_000


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("golden", NETS, ids=[net.title for net in NETS])
def test_lint_finds_nothing(golden: Golden, stage: Stage) -> None:
    """Shapes are inferred through the whole text in every dialect, and every field is one that Caffe's proto has."""
    size = None if golden.classifier else (161, 224)
    arch = default_arch(golden.family, 7, head=golden.head, classifier=golden.classifier, input_size=size)
    net = build(arch)
    for activation, padding in zip(
        itertools.cycle(get_args(ActivationDialect)), get_args(PaddingDialect), strict=False
    ):
        report = lint(render(net, Dialect(activation=activation, padding=padding), stage, DATA))
        assert list(report.problems) == []
        assert len(report.layers) > 50


def test_shapes_are_build_s() -> None:
    """What lint infers from the text is what build decided."""
    net = build(default_arch("v3-large", 7, input_size=(224, 161)))
    for padding in get_args(PaddingDialect):
        report = lint(render(net, Dialect(padding=padding, batch_norm="keep"), "deploy"))
        shapes = {top.name: top.shape for layer in report.layers for top in layer.shapes.tops}
        for conv in net.convolutions:
            shape = shapes[conv.top]
            moved = padding == "shift" and is_moved(shape, conv.out_size)
            assert shape == (1, conv.num_output, *conv.out_size) or moved


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_quoted_reads_back(text: str) -> None:
    assert parse(f"name: {quoted(text)}", caffe_pb2.NetParameter).name == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_number_reads_back(value: float) -> None:
    assert float(number(value)) == value


def test_scale_is_exact() -> None:
    text = render(build(default_arch("v2", 4)), Dialect(), "train")
    assert "scale: 0.00784313725490196\n" in text
    net = parse(text, caffe_pb2.NetParameter)
    assert net.layer[0].transform_param.scale == caffe_pb2.TransformationParameter(scale=1 / 127.5).scale


def test_paths_of_the_data_layers() -> None:
    net = build(default_arch("v2", 4))
    for stage, batch in (("train", 3), ("test", 3)):
        data = parse(render(net, Dialect(), stage, DATA), caffe_pb2.NetParameter).layer[0]
        assert (data.data_param.source, data.data_param.batch_size) == (DATA.lmdb, batch)
        assert data.annotated_data_param.label_map_file == DATA.label_map
    for stage, source, batch in (("train", "trainval_lmdb", 24), ("test", "test_lmdb", 8)):
        data = parse(render(net, Dialect(), stage), caffe_pb2.NetParameter).layer[0]
        assert (data.data_param.source, data.data_param.batch_size) == (source, batch)


def test_training_has_the_whole_augmentation() -> None:
    net = parse(render(build(default_arch("v2", 4, input_size=(200, 300))), Dialect(), "train"), caffe_pb2.NetParameter)
    data = net.layer[0]
    assert len(data.annotated_data_param.batch_sampler) == 7
    overlaps = [s.sample_constraint.min_jaccard_overlap for s in data.annotated_data_param.batch_sampler[1:6]]
    assert overlaps == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])
    assert len(data.transform_param.resize_param.interp_mode) == 5
    assert (data.transform_param.resize_param.height, data.transform_param.resize_param.width) == (200, 300)
    assert data.transform_param.mirror
    assert data.transform_param.distort_param.hue_prob == 0.5
    assert data.transform_param.expand_param.max_expand_ratio == 4.0
    (loss,) = [layer for layer in net.layer if layer.type == "MultiBoxLoss"]
    assert loss.multibox_loss_param.conf_loss_type == caffe_pb2.MultiBoxLossParameter.LOGISTIC
    assert loss.multibox_loss_param.num_classes == 4
    test = parse(render(build(default_arch("v2", 4)), Dialect(), "test"), caffe_pb2.NetParameter).layer[0]
    assert not test.transform_param.mirror
    assert not test.annotated_data_param.batch_sampler


def test_softmax() -> None:
    net = build(default_arch("v2", 4, score_converter="softmax"))
    deploy = parse(render(net, Dialect(), "deploy"), caffe_pb2.NetParameter)
    (softmax,) = [layer for layer in deploy.layer if layer.type == "Softmax"]
    assert softmax.softmax_param.axis == 2
    (output,) = [layer for layer in deploy.layer if layer.type == "DetectionOutput"]
    assert list(output.bottom) == ["mbox_loc", "mbox_conf_flatten", "mbox_priorbox"]
    train = parse(render(net, Dialect(), "train"), caffe_pb2.NetParameter)
    assert train.layer[-1].multibox_loss_param.conf_loss_type == caffe_pb2.MultiBoxLossParameter.SOFTMAX


def test_files_say_when_they_are_not_exact() -> None:
    net = build(default_arch("v2", 4))
    for dialect, count in (
        (Dialect(), 0),
        (Dialect(padding="slice", activation="stock"), 0),
        (Dialect(padding="symmetric"), 1),
        (Dialect(padding="symmetric", activation="relu"), 2),
    ):
        assert render(net, dialect, "deploy").count("NOT EXACT") == count
    explicit = build(dataclasses.replace(net.arch, explicit_padding=True))
    assert "NOT EXACT" not in render(explicit, Dialect(padding="symmetric"), "deploy")


def test_headings_hold_the_shape_that_comes_out() -> None:
    text = render(build(default_arch("v2", 4)), Dialect(), "deploy")
    assert re.findall(r"^# ---- (conv_1|Conv|layer_19_2_2):.* -> (.*) ----$", text, re.M) == [
        ("Conv", "32 x 150 x 150"),
        ("conv_1", "24 x 75 x 75"),
        ("layer_19_2_2", "512 x 5 x 5"),
    ]


def test_headless_says_what_is_left_out() -> None:
    text = render(build(default_arch("v2", 4)), Dialect(), "headless")
    assert text.splitlines()[-2].startswith("# Left out: the sigmoid")
    assert parse(text, caffe_pb2.NetParameter).layer[-1].name == "mbox_priorbox"
    assert "of each feature map" not in text
    text = render(build(default_arch("v2", 4)), Dialect(outputs="per-map"), "headless")
    assert text.splitlines()[-2].startswith("# Outputs: box encodings (*_mbox_loc_flat)")
    assert parse(text, caffe_pb2.NetParameter).layer[-1].name == "mbox_priorbox"


def test_tf_pad_and_pad_layers() -> None:
    net = build(default_arch("v2", 4))
    deploy = parse(render(net, Dialect(padding="tf_pad"), "deploy"), caffe_pb2.NetParameter)
    assert deploy.layer[1].convolution_param.HasField("tf_pad")
    assert not deploy.layer[1].convolution_param.pad
    deploy = parse(render(net, Dialect(padding="pad-layer"), "deploy"), caffe_pb2.NetParameter)
    pad = deploy.layer[1].pad_param
    assert (pad.pad_u, pad.pad_d, pad.pad_l, pad.pad_r) == (0, 1, 0, 1)


def test_solver() -> None:
    solver = parse(render_solver(Solver("train.prototxt", "test.prototxt", test_iter=10)), caffe_pb2.SolverParameter)
    assert (solver.train_net, list(solver.test_net), list(solver.test_iter)) == (
        "train.prototxt",
        ["test.prototxt"],
        [10],
    )
    assert solver.eval_type == "detection"
    assert parse(render_solver(Solver("train.prototxt")), caffe_pb2.SolverParameter).test_net == []
    assert (solver.type, solver.lr_policy, solver.power, round(solver.momentum, 6)) == ("Adam", "poly", 1.0, 0.9)
    stepped = parse(render_solver(Solver("train.prototxt", steps=(7, 9))), caffe_pb2.SolverParameter)
    assert (stepped.lr_policy, list(stepped.stepvalue), stepped.gamma) == ("multistep", [7, 9], pytest.approx(0.1))


def test_predictors_begin_near_zero() -> None:
    """A normal filler for box and class predictors alone, msra's for the rest."""
    train = parse(render(build(default_arch("v2", 4)), Dialect(), "train"), caffe_pb2.NetParameter)
    fillers = {x.name: x.convolution_param.weight_filler for x in train.layer if x.type == "Convolution"}
    normal = {name for name, filler in fillers.items() if filler.type == "gaussian"}
    assert normal == {name for name in fillers if name.endswith(("_mbox_loc", "_mbox_conf"))}
    assert len(normal) == 12
    assert all(fillers[name].std == pytest.approx(0.03) for name in normal)
    assert all(fillers[name].type == "msra" for name in fillers.keys() - normal)


@pytest.mark.parametrize("zoom", [1.0, 2.5])
def test_zoom(zoom: float) -> None:
    train = parse(
        render(build(default_arch("v2", 4)), Dialect(), "train", DataPaths(zoom=zoom)), caffe_pb2.NetParameter
    )
    transform = train.layer[0].transform_param
    assert transform.HasField("expand_param") == (zoom > 1)
    assert zoom == 1 or transform.expand_param.max_expand_ratio == zoom


@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_weight_of_the_boxes_loss(weight: float) -> None:
    text = render(build(default_arch("v2", 4)), Dialect(), "train", DataPaths(loc_weight=weight))
    assert parse(text, caffe_pb2.NetParameter).layer[-1].multibox_loss_param.loc_weight == weight
