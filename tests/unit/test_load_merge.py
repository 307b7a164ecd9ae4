"""Folding BatchNorm layers of any net: the folded net computes what the net did, in OpenCV."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.errors import PrototxtError
from ssdlite_caffe.load.merge import fit, merge_batch_norm, without_batch_norm
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.binary import blob_from_array, write_caffemodel, write_filled
from ssdlite_caffe.prototxt.shapes import infer
from ssdlite_caffe.prototxt.text import format_message, parse_net
from ssdlite_caffe.runtimes.opencv_net import OpenCvNet

NET = """
name: "mixed"
input: "data"
input_shape { dim: 1 dim: 3 dim: 9 dim: 7 }
layer { name: "stem" type: "Convolution" bottom: "data" top: "stem" param { lr_mult: 1 }
  convolution_param { num_output: 4 bias_term: false kernel_size: 3 stride: 2 pad: 1 } }
layer { name: "stem/bn" type: "BatchNorm" bottom: "stem" top: "stem" batch_norm_param { eps: 0.001 } }
layer { name: "stem/scale" type: "Scale" bottom: "stem" top: "stem" scale_param { bias_term: true } }
layer { name: "stem/relu" type: "ReLU" bottom: "stem" top: "stem" }
layer { name: "deep" type: "Convolution" bottom: "stem" top: "deep/linear"
  convolution_param { num_output: 4 group: 4 kernel_size: 3 pad: 1 } }
layer { name: "deep/bn" type: "BatchNorm" bottom: "deep/linear" top: "deep/normed" }
layer { name: "deep/scale" type: "Scale" bottom: "deep/normed" top: "deep" }
layer { name: "bare" type: "Convolution" bottom: "deep" top: "bare" convolution_param { num_output: 5 kernel_size: 1 } }
layer { name: "bare/bn" type: "BatchNorm" bottom: "bare" top: "bare" }
layer { name: "plain" type: "Convolution" bottom: "bare" top: "plain"
  convolution_param { num_output: 2 kernel_size: 1 } }
"""


def random_weights(net: caffe_pb2.NetParameter, seed: int = 0) -> caffe_pb2.NetParameter:
    """Blobs as training leaves them: the BatchNorms' sums are over a factor of about 1000."""
    random = np.random.default_rng(seed)
    weights = caffe_pb2.NetParameter(name="trained")
    types = {layer.name: layer.type for layer in net.layer}
    for name, shapes in infer(net).param_shapes.items():
        arrays = [random.normal(0, 0.5, shape) for shape in shapes]
        if types[name] == "BatchNorm":
            arrays = [arrays[0] * 999.7, random.uniform(0.05, 3, shapes[1]) * 999.7, np.asarray([999.7])]
        layer = weights.layer.add(name=name, type=types[name])
        layer.blobs.extend(blob_from_array(array.astype(np.float32)) for array in arrays)
    return weights


def outputs(folder: Path, net: caffe_pb2.NetParameter, weights: Path, names: list[str]) -> dict[str, np.ndarray]:
    (folder / "net.prototxt").write_text(format_message(net))
    shape = net.input_shape[0].dim
    blob = np.random.default_rng(1).normal(0, 1, shape).astype(np.float32)
    return OpenCvNet(folder / "net.prototxt", weights).forward(blob, names)


@pytest.mark.opencv
def test_the_folded_net_computes_the_same(tmp_path: Path) -> None:
    net = parse_net(NET)
    weights = random_weights(net)
    merged = merge_batch_norm(net, weights)
    assert merged.folded == ("stem/bn", "deep/bn", "bare/bn")
    assert merged.unused == ()
    assert [layer.name for layer in merged.net.layer] == ["stem", "stem/relu", "deep", "bare", "plain"]
    assert all(not layer.param and not layer.blobs for layer in merged.net.layer)
    fit(merged.blobs, merged.net, "merged")
    write_caffemodel(tmp_path / "trained.caffemodel", weights)
    write_filled(tmp_path / "merged.caffemodel", merged.net, merged.blobs)
    names = ["stem", "deep", "bare", "plain"]
    expected = outputs(tmp_path, net, tmp_path / "trained.caffemodel", names)
    found = outputs(tmp_path, merged.net, tmp_path / "merged.caffemodel", names)
    for name in names:
        scale = np.abs(expected[name]).max()
        assert scale > 0.1
        assert np.abs(found[name] - expected[name]).max() <= 1e-5 * scale


def test_a_factor_of_zero_stands_for_no_statistics() -> None:
    """Caffe takes mean and variance for 0 then, whatever they are."""
    net = parse_net(NET)
    weights = random_weights(net)
    layer = next(layer for layer in weights.layer if layer.name == "bare/bn")
    layer.blobs[2].CopyFrom(blob_from_array(np.zeros(1, np.float32)))
    kernel = next(layer for layer in weights.layer if layer.name == "bare").blobs[0].data
    folded = merge_batch_norm(net, weights).blobs["bare"][0]
    np.testing.assert_allclose(folded.reshape(-1), np.asarray(kernel) / np.sqrt(1e-5), rtol=1e-6)


def changed(old: str, new: str) -> caffe_pb2.NetParameter:
    assert NET.count(old) == 1
    return parse_net(NET.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('bottom: "bare" top: "plain"', 'bottom: "stem" top: "plain"', None),
        (
            '"deep/linear" top: "deep/normed"',
            '"stem" top: "deep/normed"',
            "'deep/bn' cannot be folded: it must follow a convolution",
        ),
        (
            'bottom: "bare" top: "plain"',
            'bottom: "deep/linear" top: "plain"',
            "'deep/bn' cannot be folded: it must follow a convolution",
        ),
        (
            "eps: 0.001",
            "eps: 0.001 use_global_stats: false",
            "'stem/bn' cannot be folded: it has use_global_stats: false",
        ),
    ],
)
def test_what_cannot_be_folded_is_named(old: str, new: str, message: str | None) -> None:
    net = changed(old, new)
    weights = random_weights(net)
    if message is None:
        assert merge_batch_norm(net, weights).folded == ("stem/bn", "deep/bn", "bare/bn")
        return
    with pytest.raises(PrototxtError, match=message):
        merge_batch_norm(net, weights)


def test_a_scale_of_another_axis_stays() -> None:
    """Only one that multiplies channels can be folded; the BatchNorm still is."""
    net = changed("scale_param { bias_term: true }", "scale_param { axis: 0 num_axes: 0 }")
    assert [layer.name for layer in without_batch_norm(net).layer][:3] == ["stem", "stem/scale", "stem/relu"]


@pytest.mark.parametrize("what", ["missing", "shape", "count"])
def test_weights_that_do_not_fit(what: str) -> None:
    net = parse_net(NET)
    weights = random_weights(net)
    layer = next(layer for layer in weights.layer if layer.name == "plain")
    if what == "missing":
        weights.layer.remove(layer)
    elif what == "shape":
        layer.blobs[0].CopyFrom(blob_from_array(np.zeros((2, 4, 1, 1), np.float32)))
    else:
        del layer.blobs[1]
    said = {"missing": "plain has no weights", "shape": "plain has weights of 2x4x1x1 and 2, needs 2x5x1x1 and 2",
            "count": "plain has weights of 2x5x1x1, needs 2x5x1x1 and 2"}[what]  # fmt: skip
    with pytest.raises(PrototxtError, match=f"the weights do not fit the net: {said}"):
        merge_batch_norm(net, weights)


def test_layers_that_the_net_does_not_have_are_named() -> None:
    net = parse_net(NET)
    weights = random_weights(net)
    weights.layer.add(name="more").blobs.append(blob_from_array(np.zeros(2, np.float32)))
    assert merge_batch_norm(net, weights).unused == ("more",)


def test_old_blobs_of_four_axes_are_taken() -> None:
    net = parse_net(NET)
    weights, old = random_weights(net), random_weights(net)
    for layer in old.layer:
        for blob in layer.blobs:
            dims = [1] * (4 - len(blob.shape.dim)) + list(blob.shape.dim)
            blob.num, blob.channels, blob.height, blob.width = dims
            blob.ClearField("shape")
    one, other = merge_batch_norm(net, weights).blobs, merge_batch_norm(net, old).blobs
    for name in one:
        for a, b in zip(one[name], other[name], strict=True):
            np.testing.assert_array_equal(a, b)
