"""Cutting a net at a blob: what stays, and that the value there is the whole net's."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.errors import PrototxtError
from ssdlite_caffe.prototxt.cut import Cut, cut_net
from ssdlite_caffe.prototxt.shapes import infer
from ssdlite_caffe.prototxt.text import format_message, parse_net, read_net
from ssdlite_caffe.runtimes.net import NetRuntime, open_net
from ssdlite_caffe.runtimes.reference_net import ReferenceNet
from tests.commands import Command
from tests.opencv_nets import inputs, layer

NET = (
    inputs(other=(1, 3), d=(1, 4, 8, 8))
    + layer("Power", "power_param { scale: 2 }", ("d",), ("a",), "double")
    + layer("ReLU", "", ("a",), ("a",), "a/relu")
    + layer("Pooling", "pooling_param { kernel_size: 2 }", ("a",), ("early",), "pool")
    + layer("Power", "power_param { shift: 1 }", ("a",), ("a",), "a/more")
    + layer("Slice", "slice_param { axis: 1 }", ("a",), ("left", "right"), "halves")
    + layer("Eltwise", "", ("left", "left"), ("sum",), "sum")
)


def names(cut: Cut) -> list[str]:
    return [one.name for one in cut.net.layer]


def test_in_place_layers_belong_to_their_blob() -> None:
    cut = cut_net(parse_net(NET), "a")
    assert names(cut) == ["double", "a/relu", "a/more"]
    assert (cut.blob, cut.layer, cut.layers, cut.of, cut.unread) == ("a", "a/more", 3, 6, ())


def test_a_layer_ends_before_those_that_change_its_blob() -> None:
    for name, kept in (("double", ["double"]), ("a/relu", ["double", "a/relu"])):
        assert names(cut_net(parse_net(NET), name)) == kept


def test_a_branch_takes_the_value_that_it_reads() -> None:
    assert names(cut_net(parse_net(NET), "early")) == ["double", "a/relu", "pool"]


def test_a_layer_with_the_name_of_a_blob() -> None:
    net = parse_net(inputs(d=(1, 2)) + layer("Power", "", ("d",), ("a",), "a") + layer("ReLU", "", ("a",), ("a",), "r"))
    assert names(cut_net(net, "a")) == ["a", "r"]
    assert names(cut_net(net, "a", at_layer=True)) == ["a"]


def test_inputs_that_are_not_read_are_dropped_with_their_shape() -> None:
    cut = cut_net(parse_net(NET), "sum")
    assert list(cut.net.input) == ["d"]
    assert [list(shape.dim) for shape in cut.net.input_shape] == [[1, 4, 8, 8]]
    assert cut.unread == ("right",)
    old = parse_net(
        'input: "x" input: "d" input_dim: 1 input_dim: 2 input_dim: 3 input_dim: 4 '
        "input_dim: 5 input_dim: 6 input_dim: 7 input_dim: 8 " + layer("ReLU", "", ("d",), ("t",))
    )
    assert list(cut_net(old, "t").net.input_dim) == [5, 6, 7, 8]


@pytest.mark.parametrize(
    ("shapes", "left"),
    [("shape { dim: 1 dim: 3 } shape { dim: 1 dim: 5 }", [[1, 5]]), ("shape { dim: 1 dim: 5 }", [[1, 5]])],
)
def test_tops_of_an_input_layer(shapes: str, left: list[list[int]]) -> None:
    net = parse_net(layer("Input", f"input_param {{ {shapes} }}", (), ("x", "d"), "in") + layer("ReLU", "", ("d",)))
    cut = cut_net(net, "t")
    assert list(cut.net.layer[0].top) == ["d"]
    assert [list(shape.dim) for shape in cut.net.layer[0].input_param.shape] == left
    assert (cut.layers, cut.of) == (1, 1)


def test_a_net_of_before_2014() -> None:
    text = inputs(d=(1, 2)) + 'layers { name: "r" type: RELU bottom: "d" top: "t" } layers { name: "s" type: TANH '
    cut = cut_net(parse_net(text + 'bottom: "t" top: "u" }'), "t")
    assert [(one.name, one.type) for one in cut.net.layer] == [("r", "ReLU")]
    assert not cut.net.layers


def test_layers_of_another_phase_are_dropped() -> None:
    text = (
        layer("Input", "include { phase: TRAIN } input_param { shape { dim: 9 } }", (), ("d",), "train")
        + layer("Input", "include { phase: TEST } input_param { shape { dim: 7 } }", (), ("d",), "test")
        + layer("ReLU")
    )
    assert names(cut_net(parse_net(text), "t")) == ["test", "t"]
    assert names(cut_net(parse_net(text), "t", phase="TRAIN")) == ["train", "t"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("d", "'d' is an input of the net; give a blob that a layer computes"),
        ("lefft", "the net has no blob or layer named 'lefft' in phase TEST; the nearest is 'left'"),
        ("", "the net has no blob or layer named '' in phase TEST"),
        ("end", "layer 'end' reads 'later', which no layer before it writes"),
        ("silence", "layer 'silence' (Silence) computes no blob; give another layer"),
        ("twice", "2 layers are named 'twice'; give the name of a blob"),
    ],
)
def test_refused(name: str, said: str) -> None:
    text = (
        NET
        + layer("Eltwise", "", ("sum", "later"), ("end",), "end")
        + layer("ReLU", "", ("sum",), ("later",), "twice")
        + layer("ReLU", "", ("right",), ("last",), "twice")
        + layer("Silence", "", ("last",), (), "silence")
    )
    with pytest.raises(PrototxtError) as error:
        cut_net(parse_net(text), name)
    assert str(error.value) == said


def _same_as_whole(folder: Path, out: Path, runtime: NetRuntime, share: float) -> None:
    """The values of several blobs in the cut net and in the whole one, up to a share of the largest."""
    deploy, weights = folder / "deploy.prototxt", folder / "deploy.caffemodel"
    net = read_net(deploy)
    height, width = infer(net).inputs[0].shape[2:]  # type: ignore[index]
    blob = np.random.default_rng(0).uniform(-1, 1, (1, 3, height, width)).astype(np.float32)
    # Of the whole net OpenCV does not give these; of the cut one it does.
    tops = [
        one.top[0]
        for one in net.layer
        if one.type not in ("Input", "DetectionOutput") and not one.top[0].endswith("/linear")
    ]
    chosen = list(dict.fromkeys([*tops[::17], "mbox_loc", "mbox_conf_flatten", "mbox_priorbox"]))
    assert len(chosen) > 8
    whole = open_net(runtime, deploy, weights)
    for name in chosen:
        cut = cut_net(net, name)
        out.write_text(format_message(cut.net))
        assert [top.name for top in infer(cut.net).outputs] == [name]
        wanted = whole.forward(blob, [name])[name]
        found = open_net(runtime, out, weights).forward(blob, [name])[name]
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() <= share * np.abs(wanted).max(), name


@pytest.mark.opencv
def test_opencv_computes_the_same(example_folder: Path, tmp_path: Path) -> None:
    """Up to the last bits: which layers OpenCV computes in one step depends on what is asked of it. Measured: 4e-7."""
    _same_as_whole(example_folder, tmp_path / "cut.prototxt", "opencv", 1e-6)


@pytest.mark.caffe
def test_caffe_computes_the_same(example_folder: Path, caffe_prefix: Path, tmp_path: Path) -> None:
    _same_as_whole(example_folder, tmp_path / "cut.prototxt", "caffe", 0)


def test_a_layer_before_its_activation(example_folder: Path, tmp_path: Path, command: Command) -> None:
    """At the layer the values are below zero, after its blob's last layer they are not."""
    out, weights = tmp_path / "cut.prototxt", example_folder / "deploy.caffemodel"
    deploy = read_net(example_folder / "deploy.prototxt")
    relu = next(one for one in deploy.layer if one.type == "ReLU6" and one.bottom[0] == one.top[0])
    blob = np.random.default_rng(0).uniform(-1, 1, (1, 3, 320, 320)).astype(np.float32)
    least = {}
    begins = next(one.name for one in deploy.layer if relu.top[0] in one.top)
    for what in ([relu.top[0]], [begins, "--layer"]):
        done = command("cut", example_folder, *what, "-o", out, "--force")
        assert done.status == 0, done.err
        values = ReferenceNet(out, weights).forward(blob, [relu.top[0]])[relu.top[0]]
        least[len(what)] = float(values.min())
    assert least[1] >= 0 > least[2]


def test_the_command(example_folder: Path, tmp_path: Path, command: Command, refused: Command) -> None:
    out = tmp_path / "cut.prototxt"
    done = command("cut", example_folder, "mbox_loc", "-o", out)
    assert (done.status, done.err) == (0, "")
    assert "up to mbox_loc (1x" in done.out
    again = refused("cut", example_folder, "mbox_loc", "-o", out)
    assert "exists already" in again.err
    copy = shutil.copy(example_folder / "deploy.prototxt", tmp_path)
    assert "is the net that is cut" in refused("cut", copy, "mbox_loc", "-o", copy, "--force").err
    assert "no blob or layer named 'nix'" in refused("cut", copy, "nix", "-o", tmp_path / "x").err
    (tmp_path / "empty").mkdir()
    assert "has no deploy.prototxt and no headless.prototxt" in refused("cut", tmp_path / "empty", "a", "-o", "x").err
