"""Layers that learn nothing and have blobs all the same: their prototxt says what is in them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.errors import TensorError
from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.gen_model.render import render
from ssdlite_caffe.load.constants import constant_blobs
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.binary import read_caffemodel, write_caffemodel
from ssdlite_caffe.prototxt.text import parse_net
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.tools.convert import ConvertOptions, convert
from ssdlite_caffe.tools.merge_bn import merge_folder
from ssdlite_caffe.tools.remap import remap_folder
from ssdlite_caffe.training.kit_weights import write_initial_weights
from tests.filling import arch_of, filled, layer_of, model, net_of
from tests.unit.test_tools_merge_bn import blobs

STOCK = Dialect(activation="stock", linear="scale")
SCALE = """layer {
  name: "a"
  type: "Scale"
  bottom: "x"
  top: "y"
  %s
  scale_param {
    filler { type: "constant" value: 0.5 }
    bias_term: true
    bias_filler { type: "constant" value: -2.0 }
  }
}
"""


def layer(text: str) -> caffe_pb2.LayerParameter:
    return parse_net(text).layer[0]


class TestConstantBlobs:
    def test_a_scale_layer(self) -> None:
        found = constant_blobs(layer(SCALE % ""), ((3,), (3,)))
        assert found is not None
        np.testing.assert_array_equal(found, [[0.5] * 3, [-2.0] * 3])
        assert {blob.dtype for blob in found} == {np.dtype(np.float32)}

    def test_a_deconvolution_of_ones(self) -> None:
        text = 'type: "Deconvolution" bottom: "x" convolution_param { weight_filler { type: "constant" value: 1 } }'
        found = constant_blobs(layer(f"layer {{ {text} }}"), ((4, 1, 5, 6),))
        assert found is not None
        np.testing.assert_array_equal(found[0], np.ones((4, 1, 5, 6)))

    @pytest.mark.parametrize(
        "text",
        [
            SCALE % "param { lr_mult: 1 } param { lr_mult: 2 }",
            SCALE % "param { lr_mult: 0 } param { lr_mult: 2 }",
            SCALE % "param { }",  # Caffe's default is 1
            (SCALE % "").replace('type: "constant"', 'type: "gaussian"', 1),
            (SCALE % "").replace('bias_filler { type: "constant" value: -2.0 }', ""),
            (SCALE % "").replace('bottom: "x"', 'bottom: "x" bottom: "z"'),
            (SCALE % "").replace('"Scale"', '"Bias"'),
        ],
    )
    def test_what_is_learned_is_no_constant(self, text: str) -> None:
        assert constant_blobs(layer(text), ((3,), (3,))) is None


def test_the_net_of_a_model_with_a_scale_layer_that_learns() -> None:
    """It is still an error: the model has nothing for it."""
    arch = arch_of("v3-small")
    net = net_of(arch, dataclasses.replace(STOCK, batch_norm="keep"), "train")
    shift = next(layer for layer in net.layer if layer.name.endswith("/shift"))
    shift.param[0].lr_mult = 1
    with pytest.raises(TensorError, match=f"layer {shift.name!r} .Scale. does not belong to a convolution"):
        filled(net, model("v3-small"), arch=arch)


def test_a_scale_layer_after_a_batch_norm_is_the_models_own() -> None:
    """Even if its fillers are constants and it does not learn."""
    net = net_of(arch_of(), Dialect(batch_norm="keep"), "train")
    scale = layer_of(net, "Conv/scale")
    for param in scale.param:
        param.lr_mult = 0
    for filler in (scale.scale_param.filler, scale.scale_param.bias_filler):
        filler.type = "constant"
    found = filled(net).blobs["Conv/scale"]
    np.testing.assert_array_equal(found, filled(net_of(arch_of(), Dialect(batch_norm="keep"))).blobs["Conv/scale"])
    assert len(set(found[0])) > 1


@pytest.fixture(scope="module")
def folder(example_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("constants") / "out"
    convert(example_model, out, ConvertOptions(dialect=STOCK))
    return out


def constants_in(path: Path) -> dict[str, list[list[float]]]:
    """What each Scale layer that stands for a Power layer holds."""
    names = {layer.name for layer in read_caffemodel(path).layer if f"/{layer.name.split('/')[-1]}" in POWERS}
    return {name: [sorted(set(blob.tolist())) for blob in blobs(path).get(name, ())] for name in names}


POWERS = {"/rest", "/back", "/shift", "/sixth", "/gate"}
"""Ends of the names of Power layers."""


class TestCommands:
    def test_convert_writes_them(self, folder: Path) -> None:
        for name in ("deploy.caffemodel", "train.caffemodel"):
            found = constants_in(folder / name)
            ends = {end: [each for name, each in found.items() if name.endswith(end)] for end in POWERS}
            assert {each == [[-1.0], [6.0]] for end in ("/rest", "/back") for each in ends[end]} == {True}
            assert {each == [[1.0], [3.0]] for each in ends["/shift"]} == {True}
            assert {each == [[float(np.float32(1 / 6))], [0.0]] for each in ends["/sixth"]} == {True}
            assert len(ends["/gate"]) > 5

    def test_merge_bn_makes_them_from_the_deploy_net(self, folder: Path, tmp_path: Path) -> None:
        """A training whose net has no such layers, as one that was made in another dialect."""
        weights = read_caffemodel(folder / "train.caffemodel")
        names = constants_in(folder / "train.caffemodel").keys()
        kept = [layer for layer in weights.layer if layer.name not in names]
        write_caffemodel(tmp_path / "trained.caffemodel", caffe_pb2.NetParameter(name="net", layer=kept))
        copy = tmp_path / "copy"
        copy.mkdir()
        for path in folder.iterdir():
            (copy / path.name).write_bytes(path.read_bytes())
        stock = convert_example(folder, tmp_path, Dialect(activation="stock"))
        for name in ("train.prototxt", "test.prototxt"):
            (copy / name).write_bytes((stock / name).read_bytes())
        merge_folder(copy, tmp_path / "trained.caffemodel", tmp_path / "out")
        expected = blobs(folder / "deploy.caffemodel")
        found = blobs(tmp_path / "out" / "deploy.caffemodel")
        assert found.keys() == expected.keys()
        for name in names:
            np.testing.assert_array_equal(found[name], expected[name])

    def test_remap_keeps_them(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "map.yaml").write_text("square: class_2\n")
        remap_folder(folder, tmp_path / "map.yaml", tmp_path / "out")
        for name in ("deploy.caffemodel", "train.caffemodel"):
            assert constants_in(tmp_path / "out" / name) == constants_in(folder / name)

    def test_the_first_weights_of_a_training(self, folder: Path, tmp_path: Path) -> None:
        """They are kept, or dropped where the train net has a layer of the name that takes none: Caffe would stop."""
        model = ModelFolder.open(folder)
        net = build(model.arch)
        found = {}
        for name, dialect in (("same", STOCK), ("other", Dialect(activation="stock"))):
            train = parse_net(render(net, dataclasses.replace(dialect, batch_norm="keep"), "train"))
            write_initial_weights(tmp_path / name, train, net, model.labels, folder, finetune=False)
            found[name] = blobs(tmp_path / name)
        own = blobs(folder / "train.caffemodel")
        assert found["same"].keys() == own.keys()
        assert found["other"].keys() == own.keys() - constants_in(folder / "train.caffemodel").keys()
        assert len(found["other"]) > 100


def convert_example(folder: Path, tmp_path: Path, dialect: Dialect) -> Path:
    """The model of `folder` in another dialect."""
    source = ModelFolder.open(folder).source
    assert source is not None
    assert source.path is not None
    convert(source.path, tmp_path / "converted", ConvertOptions(dialect=dialect))
    return tmp_path / "converted"
