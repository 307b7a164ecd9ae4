"""OpenCV runs every dialect with the same random weights: the exact ones agree, the others do not."""

from __future__ import annotations

import dataclasses
import functools
import itertools

import numpy as np
import pytest

from ssdlite_caffe.gen_model.arch import FamilyName
from ssdlite_caffe.gen_model.build import build, default_arch
from ssdlite_caffe.gen_model.dialect import ActivationDialect, Dialect, PaddingDialect
from ssdlite_caffe.gen_model.netdesc import NetDesc
from ssdlite_caffe.gen_model.render import render
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.binary import blob_from_array, blob_to_array
from ssdlite_caffe.prototxt.shapes import infer
from ssdlite_caffe.prototxt.text import parse

pytestmark = pytest.mark.opencv

BOUND = 4e-6
"""Between exact dialects, relative to the largest value of a blob; measured: 1.3e-6."""


@functools.cache
def net_of(family: FamilyName, *, explicit: bool = False) -> NetDesc:
    """A narrow net whose maps are odd on one axis and even on the other, and meet (0, 1), (1, 1) and (1, 2) zeros."""
    arch = default_arch(family, 3, input_size=(100, 134), width_multiplier=0.25)
    return build(dataclasses.replace(arch, explicit_padding=explicit))


def weights(net: caffe_pb2.NetParameter, desc: NetDesc) -> caffe_pb2.NetParameter:
    """The net with random blobs, the same for a layer whatever its dialect: larger kernels get zeros in front."""
    kernels = {c.name: c.kernel for c in desc.convolutions}
    filled = caffe_pb2.NetParameter()
    filled.CopyFrom(net)
    for shapes in infer(net).layers:
        layer = filled.layer[shapes.index]
        random = np.random.default_rng(list(layer.name.encode()))
        for place, shape in enumerate(shapes.params):
            if layer.type == "BatchNorm":
                blob = [random.normal(0, 0.1, shape), random.uniform(0.5, 2, shape), np.ones(shape)][place]
            elif layer.type == "Convolution" and place == 0:
                height, width = kernels[layer.name]
                blob = np.zeros(shape)
                core = random.normal(0, 1.2 / np.sqrt(shape[1] * height * width), (*shape[:2], height, width))
                blob[..., shape[2] - height :, shape[3] - width :] = core
            elif layer.type == "Scale":
                # wide enough for ReLU6 to reach 6, as trained nets do; wilder weights would make the net chaotic
                blob = random.normal(1, 0.2, shape) if place == 0 else random.normal(1.5, 2, shape)
            else:
                blob = random.normal(0, 0.5, shape)
            layer.blobs.append(blob_from_array(blob.astype(np.float32)))
    return filled


def run(
    desc: NetDesc, dialect: Dialect, layers: tuple[str, ...] = ("mbox_loc", "mbox_conf"), *, fusion: bool = True
) -> list[np.ndarray]:
    cv2 = pytest.importorskip("cv2")
    text = render(desc, dialect, "headless")
    binary = weights(parse(text, caffe_pb2.NetParameter), desc).SerializeToString()
    net = cv2.dnn.readNetFromCaffe(np.frombuffer(text.encode(), np.uint8), np.frombuffer(binary, np.uint8))
    net.enableWinograd(False)
    net.enableFusion(fusion)
    image = np.random.default_rng(5).uniform(-1, 1, (1, 3, *desc.arch.input_size)).astype(np.float32)
    net.setInput(image, "data")
    return [np.array(out) for out in net.forward(list(layers))]


def difference(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    worst = 0.0
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert np.isfinite(a).all()
        assert np.ptp(b) > 0.1, "a net that says nothing cannot be compared"
        worst = max(worst, float(np.abs(a - b).max() / np.abs(b).max()))
    return worst


@functools.cache
def reference(family: FamilyName) -> list[np.ndarray]:
    return run(net_of(family), Dialect(batch_norm="keep"))


EXACT: list[tuple[ActivationDialect, PaddingDialect]] = [
    pair for pair in itertools.product(("relu6", "stock"), ("exact", "slice", "shift")) if pair != ("relu6", "exact")
]  # type: ignore[misc]


@pytest.mark.parametrize("family", ["v1", "v2", "v3-large", "v3-small", "v3-small-minimalistic"])
@pytest.mark.parametrize(("activation", "padding"), EXACT)
def test_exact_dialects_agree(family: FamilyName, activation: ActivationDialect, padding: PaddingDialect) -> None:
    found = run(net_of(family), Dialect(activation=activation, padding=padding, batch_norm="keep"))
    assert difference(found, reference(family)) <= BOUND


@pytest.mark.parametrize("change", [{"padding": "symmetric"}, {"activation": "relu"}])
@pytest.mark.parametrize("family", ["v2", "v3-small"])
def test_the_others_do_not(family: FamilyName, change: dict[str, str]) -> None:
    dialect = dataclasses.replace(Dialect(batch_norm="keep"), **change)  # type: ignore[arg-type]
    assert difference(run(net_of(family), dialect), reference(family)) > 1e-3


@pytest.mark.parametrize("family", ["v2", "v3-large"])
def test_explicit_padding_runs_and_differs(family: FamilyName) -> None:
    found = run(net_of(family, explicit=True), Dialect(batch_norm="keep"))
    assert difference(found, reference(family)) > 1e-3


def test_hard_swish_and_gate_are_the_formulas() -> None:
    """The first squeeze-excite block of V3-small and its stem, against numpy on OpenCV's own inputs to them."""
    desc = net_of("v3-small")
    se = "conv/squeeze_excite"
    layers = ("Conv/scale", "Conv/sixth", "conv/depthwise/relu", f"{se}/Conv_1/linear", se)  # by OpenCV's names
    for dialect in (Dialect(batch_norm="keep"), Dialect(activation="stock", batch_norm="keep")):
        linear, swish, deep, logit, gated = run(desc, dialect, layers, fusion=False)
        assert (linear > 3).any()
        assert (linear < -3).any()
        np.testing.assert_allclose(swish, linear * np.clip(linear + 3, 0, 6) * np.float32(1 / 6), rtol=1e-5, atol=1e-5)
        gate = np.clip(logit + 3, 0, 6) * np.float32(0.16667)
        np.testing.assert_allclose(gated, deep * gate, rtol=1e-5, atol=1e-5)


def test_depthwise_on_maps_of_one_row_or_column() -> None:
    """OpenCV reads past such maps in its 3x3 depthwise kernel; the deploy nets are written to keep off it."""
    desc = net_of("v2")
    maps = [m for m in desc.feature_maps if 1 in m.size]
    assert [m.size for m in maps] == [(1, 2), (1, 1), (1, 1)]
    dialect = Dialect(batch_norm="keep")
    layers = weights(parse(render(desc, dialect, "headless"), caffe_pb2.NetParameter), desc).layer
    kernels = {layer.name: blob_to_array(layer.blobs[0]) for layer in layers if layer.type == "Convolution"}
    for feature_map in maps:
        conv = feature_map.loc[0]
        bottom, found = run(desc, dialect, (f"{feature_map.blob}/relu", conv.name), fusion=False)
        padded = np.pad(bottom[0].astype(np.float64), ((0, 0), (1, 1), (1, 1)))
        height, width = feature_map.size
        expected = np.zeros_like(bottom[0])
        for y, x in itertools.product(range(height), range(width)):
            expected[:, y, x] = (padded[:, y : y + 3, x : x + 3] * kernels[conv.name][:, 0]).sum((1, 2))
        np.testing.assert_allclose(found[0], expected, rtol=1e-5, atol=1e-5)
