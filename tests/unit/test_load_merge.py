"""Folding BatchNorm layers of any net: the folded net computes what the net did, in OpenCV."""

from __future__ import annotations

import re
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from ssdlite_caffe.errors import PrototxtError
from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.load.merge import fit, merge_batch_norm, without_batch_norm
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.binary import blob_from_array, write_caffemodel, write_filled
from ssdlite_caffe.prototxt.shapes import infer
from ssdlite_caffe.prototxt.text import format_message, parse_net
from ssdlite_caffe.runtimes.opencv_net import OpenCvNet
from tests.filling import arch_of, net_of

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


FORKS = """
layer { name: "shuffle" type: "ShuffleChannel" bottom: "deep" top: "s" shuffle_channel_param { group: 2 } }
layer { name: "interp" type: "Interp" bottom: "s" top: "i" interp_param { height: 6 width: 6 } }
layer { name: "reorg" type: "Reorg" bottom: "i" top: "r" reorg_param { stride: 2 } }
layer { name: "mish" type: "Mish" bottom: "r" top: "r" }
layer { name: "mean" type: "Pooling" bottom: "r" top: "m" pooling_param { pool: AVE global_pooling: true } }
layer { name: "axpy" type: "Axpy" bottom: "m" bottom: "r" bottom: "r" top: "x" }
layer { name: "behind" type: "Convolution" bottom: "x" top: "behind"
  convolution_param { num_output: 3 kernel_size: 1 } }
"""


@pytest.mark.opencv
def test_layers_of_forks_and_of_opencv_are_left_alone(tmp_path: Path) -> None:
    """The layer before is folded, those behind keep their weights; all compute the same."""
    net = parse_net(NET + FORKS)
    weights = random_weights(net)
    write_caffemodel(tmp_path / "before.caffemodel", weights)
    merged = merge_batch_norm(net, weights)
    assert [layer.type for layer in merged.net.layer].count("BatchNorm") == 0
    assert format_message(merged.net).count("shuffle_channel_param") == 1
    assert "behind" in merged.blobs
    write_filled(tmp_path / "after.caffemodel", merged.net, merged.blobs)
    expected = outputs(tmp_path, net, tmp_path / "before.caffemodel", ["behind", "plain"])
    found = outputs(tmp_path, merged.net, tmp_path / "after.caffemodel", ["behind", "plain"])
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-5)


INPUT = 'input: "data" input_shape { dim: 1 dim: 3 dim: 9 dim: 7 }'


def layer(kind: str, name: str, bottoms: str, tops: str, more: str = "") -> str:
    """A layer; bottoms and tops are separated by spaces."""
    blobs = [*(f'bottom: "{blob}"' for blob in bottoms.split()), *(f'top: "{blob}"' for blob in tops.split())]
    return f'layer {{ name: "{name}" type: "{kind}" {" ".join(blobs)} {more} }}'


def conv(name: str, bottom: str, top: str = "", more: str = "", kind: str = "Convolution") -> str:
    return layer(kind, name, bottom, top or name, f"convolution_param {{ num_output: 4 kernel_size: 3 {more} }}")


def norm(bottom: str, top: str = "", more: str = "") -> str:
    return layer("BatchNorm", "norm", bottom, top or bottom, more)


def with_ends(net: caffe_pb2.NetParameter, blobs: list[str]) -> caffe_pb2.NetParameter:
    """The net with a layer behind each output: OpenCV knows some last layers by the names of their tops."""
    ended = caffe_pb2.NetParameter()
    ended.CopyFrom(net)
    for blob in blobs:
        ended.layer.add(name=f"{blob}/end", type="Power", bottom=[blob], top=[f"{blob}/end"])
    return ended


def assert_same(folder: Path, net: caffe_pb2.NetParameter, *, keep_rest: bool = False, seed: int = 0) -> list[str]:
    """The folded net's outputs are the net's, in OpenCV; the types of the layers that are left."""
    given = random_weights(net, seed)
    merged = merge_batch_norm(net, given, keep_rest=keep_rest)
    write_caffemodel(folder / "trained.caffemodel", given, force=True)
    write_filled(folder / "merged.caffemodel", merged.net, merged.blobs, force=True)
    names = [blob.name for blob in infer(net).outputs if blob.name != "data"]
    assert names == [blob.name for blob in infer(merged.net).outputs if blob.name != "data"]
    expected = outputs(folder, with_ends(net, names), folder / "trained.caffemodel", [f"{name}/end" for name in names])
    found = outputs(folder, with_ends(merged.net, names), folder / "merged.caffemodel", list(expected))
    for name in expected:
        assert np.isfinite(expected[name]).all()
        assert found[name].shape == expected[name].shape
        assert np.abs(found[name] - expected[name]).max() <= 2e-5 * np.abs(expected[name]).max()
    return [one.type for one in merged.net.layer]


SCALE = layer("Scale", "scale", "x", "x", "scale_param { bias_term: true }")


@pytest.mark.opencv
@pytest.mark.parametrize(
    ("layers", "left"),
    [
        ([conv("x", "data", "", "pad: 2"),
          layer("Slice", "cut", "x", "rest kept", "slice_param { axis: 2 slice_point: 1 }"),
          layer("Silence", "silent", "rest", ""), norm("kept", "y"), layer("Scale", "scale", "y", "z")],
         ["Convolution", "Slice", "Silence"]),
        ([conv("x", "data", "", "pad: 2"),
          layer("Slice", "rows", "x", "rest rows", "slice_param { axis: 2 slice_point: 2 }"),
          layer("Slice", "columns", "rows", "y more", "slice_param { axis: -1 slice_point: 6 }"),
          layer("Silence", "silent", "rest more", ""), norm("y")],
         ["Convolution", "Slice", "Slice", "Silence"]),
        ([conv("x", "data"), conv("like", "data", "", "stride: 2"), layer("Crop", "crop", "x like", "y"),
          layer("Silence", "silent", "like", ""), norm("y")],
         ["Convolution", "Convolution", "Crop", "Silence"]),
        ([conv("x", "data"), layer("Dropout", "drop", "x", "x"), norm("x"), SCALE], ["Convolution", "Dropout"]),
        ([conv("x", "data"), SCALE, norm("x", "y"), layer("Scale", "again", "y", "z")], ["Convolution"]),
        ([conv("x", "data"), norm("x"), layer("Scale", "scale", "x", "x", "scale_param { axis: -3 }")],
         ["Convolution"]),
        ([conv("x", "data"), norm("x"), layer("BatchNorm", "second", "x", "y"), layer("ReLU", "relu", "y", "y")],
         ["Convolution", "ReLU"]),
        ([conv("x", "data"), SCALE, layer("ReLU", "relu", "x", "x")], ["Convolution", "Scale", "ReLU"]),
        ([conv("x", "data", "", "bias_term: false", "Deconvolution"), norm("x"), SCALE], ["Deconvolution"]),
        ([layer("InnerProduct", "x", "data", "x", "inner_product_param { num_output: 5 }"), norm("x"), SCALE],
         ["InnerProduct"]),
        ([layer("InnerProduct", "x", "data", "x", "inner_product_param { num_output: 5 bias_term: false }"), norm("x"),
          layer("Scale", "scale", "x", "y")], ["InnerProduct"]),
    ],
    ids=["Slice", "two Slices", "Crop", "Dropout", "Scale before it", "axis -3", "two BatchNorms", "Scale alone",
         "Deconvolution", "InnerProduct", "InnerProduct without bias"],
)  # fmt: skip
def test_what_is_folded(tmp_path: Path, layers: list[str], left: list[str]) -> None:
    assert assert_same(tmp_path, parse_net("\n".join([INPUT, *layers]))) == left


READ_BY_SHAPE = [
    layer("PriorBox", "boxes", "x data", "boxes", "prior_box_param { min_size: 3 }"),
    layer("Silence", "silent", "x", ""),
]


@pytest.mark.parametrize("reader", READ_BY_SHAPE, ids=["PriorBox", "Silence"])
def test_readers_of_the_shape_alone_get_the_new_name(reader: str) -> None:
    merged = without_batch_norm(parse_net("\n".join([INPUT, conv("x", "data"), reader, norm("x", "y")])))
    assert [list(one.top) for one in merged.layer if one.name == "x"] == [["y"]]
    assert merged.layer[1].bottom[0] == "y"
    assert infer(merged).errors == ()


PLAIN = conv("x", "data")
TWO = 'layer { name: "x" type: "Convolution" bottom: "data" bottom: "data" top: "x" top: "z" %s }'


@pytest.mark.parametrize(
    ("layers", "why"),
    [
        ([norm("data", "y"), conv("x", "y")], "'data' comes from outside of the net"),
        ([PLAIN, conv("z", "data"), layer("Concat", "both", "x z", "y"), norm("y")],
         "layer 'both' of type Concat makes"),
        ([PLAIN, layer("Pooling", "pool", "x", "y", "pooling_param { kernel_size: 2 }"), norm("y")],
         "of type Pooling makes"),
        ([PLAIN, layer("Pad", "pad", "x", "y", "pad_param { pad_u: 1 }"), norm("y")], "of type Pad makes"),
        ([PLAIN, layer("ReLU", "relu", "x", "x"), norm("x")], "layer 'relu' of type ReLU makes"),
        ([PLAIN, layer("Slice", "cut", "x", "y z"), norm("y")], "type Slice makes, which does not keep whole channels"),
        ([PLAIN, layer("Slice", "cut", "x", "y z", "slice_param { axis: 2 slice_point: 2 }"), norm("y"),
          layer("ReLU", "relu", "z", "z")], "no other layer reads, and layer 'relu' reads 'z', too"),
        ([PLAIN, norm("x", "y"), layer("ReLU", "relu", "x", "z")],
         "no other layer reads, and layer 'relu' reads 'x', too"),
        ([conv("x", "data", "", "axis: 2"), norm("x")], "layer 'x' before it has its outputs on axis 2"),
        ([TWO % "convolution_param { num_output: 4 kernel_size: 3 }", norm("x")], "several bottoms or tops"),
        ([PLAIN, norm("x", "", "batch_norm_param { use_global_stats: false }")], "it has use_global_stats: false"),
    ],
)  # fmt: skip
def test_what_cannot_be_folded(tmp_path: Path, layers: list[str], why: str) -> None:
    """By name and with the reason; it can be left, and the others are folded."""
    net = parse_net("\n".join([INPUT, *layers]))
    with pytest.raises(PrototxtError, match=f"^BatchNorm 'norm' cannot be folded: .*{re.escape(why)}"):
        merge_batch_norm(net, random_weights(net))
    more = parse_net("\n".join([INPUT, *layers, conv("more", "data"), layer("BatchNorm", "fine", "more", "more")]))
    merged = merge_batch_norm(more, random_weights(more), keep_rest=True)
    assert merged.folded == ("fine",)
    assert len(merged.kept) == 1
    assert [one for one in merged.net.layer if one.name == "norm"] == [one for one in more.layer if one.name == "norm"]


DATA = (
    'layer { name: "%s" type: "Data" top: "data" top: "label" include { phase: %s } data_param { batch_size: 1 } %s }'
)
CROP = "transform_param { crop_size: 9 }"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('layers { name: "x" type: CONVOLUTION bottom: "data" top: "x" }', "the net has the format before 2014"),
        ('name: "none"', "the net has no layers"),
        (PLAIN + norm("x"), "layer 'x': bottom 'data' is not a top of an earlier layer"),
        (DATA % ("feed", "TRAIN", CROP) + PLAIN + norm("x"),
         r"this is a train net: without the layers that are for TRAIN alone \(feed \(Data\)\) layer 'x' has nothing"),
        (INPUT + layer("BatchNorm", "norm", "", "x"), "layer 'norm': BatchNorm takes 1 bottom, got 0"),
        (INPUT + conv("x", "data") + layer("BatchNorm", "x", "x", "x"), "2 layers with weights are named 'x'"),
    ],
    ids=["before 2014", "empty", "no input", "train net", "no bottom", "one name twice"],
)  # fmt: skip
def test_nets_that_cannot_be_merged(text: str, why: str) -> None:
    net = parse_net(text)
    with pytest.raises(PrototxtError, match=f"^{why}"):
        merge_batch_norm(net, random_weights(net))


def test_a_net_for_both_phases() -> None:
    """Its TEST layers are taken, as Caffe takes them."""
    data = (DATA % ("feed", "TRAIN", CROP), DATA % ("check", "TEST", CROP))
    net = parse_net("\n".join([*data, PLAIN, norm("x")]))
    merged = merge_batch_norm(net, random_weights(net))
    assert merged.train_only == ("feed",)
    assert [one.name for one in merged.net.layer] == ["check", "x"]


@pytest.mark.parametrize("source", ['input: "data"', DATA % ("feed", "TEST", ""), "unknown"])
def test_shapes_need_not_be_known(source: str) -> None:
    """OpenCV takes nets whose input gets its shape later; forks have layers of their own."""
    rest = PLAIN + norm("x") + SCALE
    plain = parse_net(INPUT + rest)
    given = random_weights(plain)
    ours = layer("OurOwn", "own", "image", "data")
    net = parse_net((INPUT.replace("data", "image") + ours if source == "unknown" else source) + rest)
    found, expected = merge_batch_norm(net, given), merge_batch_norm(plain, given)
    for one, other in zip(found.blobs["x"], expected.blobs["x"], strict=True):
        np.testing.assert_array_equal(one, other)
    del given.layer[-1].blobs[:]
    with pytest.raises(PrototxtError, match="the weights do not fit the net: Scale 'scale' has 0 blobs, needs 1 or 2"):
        merge_batch_norm(net, given)
    given.layer[1].blobs[0].CopyFrom(blob_from_array(np.zeros(3, np.float32)))
    with pytest.raises(PrototxtError, match="BatchNorm 'norm' has weights of 3 and 4 and 1, needs a mean"):
        merge_batch_norm(net, given)


def test_shared_weights_are_folded_apart() -> None:
    """Each convolution gets its own; a caffemodel may hold those that are shared only once."""
    shared = 'param { name: "w" } param { name: "b" }'
    layers = [layer("Convolution", name, "data", name, f"{shared} convolution_param {{ num_output: 4 kernel_size: 3 }}")
              for name in ("x", "z")]  # fmt: skip
    net = parse_net("\n".join([INPUT, *layers, norm("x")]))
    given = random_weights(net)
    once = caffe_pb2.NetParameter(layer=[one for one in given.layer if one.name != "z"])
    merged = merge_batch_norm(net, once)
    assert not merged.net.layer[0].param
    kernel = np.asarray(given.layer[0].blobs[0].data)
    np.testing.assert_array_equal(merged.blobs["z"][0].reshape(-1), kernel)
    assert np.abs(merged.blobs["x"][0].reshape(-1) - kernel).max() > 0.01


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_variance_that_none_can_be(value: float) -> None:
    net = parse_net(INPUT + PLAIN + norm("x"))
    given = random_weights(net)
    given.layer[1].blobs[1].data[2] = value
    with pytest.raises(PrototxtError, match="'norm' has a variance that is negative, NaN or Inf"):
        merge_batch_norm(net, given)


KINDS = {
    "Convolution": ("Convolution", 1),
    "grouped": ("Convolution", 2),
    "depthwise": ("Convolution", 4),
    "Deconvolution": ("Deconvolution", 1),
}

BETWEEN = ["Slice", "Dropout", "Scale"]


@st.composite
def chains(draw: st.DrawFn) -> str:
    """A net of blocks: a layer with weights, its BatchNorm, and what may lie between them and follow."""
    lines, blob, rows = ['input: "data" input_shape { dim: 1 dim: 4 dim: 16 dim: 11 }'], "data", 16
    for name in ("a", "b", "c")[: draw(st.integers(1, 3))]:
        kind, group = KINDS[draw(st.sampled_from(list(KINDS)))]
        bias = "true" if draw(st.booleans()) else "false"
        lines.append(conv(name, blob, name, f"pad: 1 group: {group} bias_term: {bias}", kind))
        blob = name
        for place, between in enumerate(draw(st.lists(st.sampled_from(BETWEEN), max_size=2))):
            top = blob
            if between == "Slice":
                rows, top = rows - 2, f"{name}/cut{place}"
                cut = f"slice_param {{ axis: 2 slice_point: {rows} }}"
                lines.append(layer("Slice", top, blob, f"{top} {top}/rest", cut))
                lines.append(layer("Silence", f"{top}/silence", f"{top}/rest", ""))
            else:
                lines.append(layer(between, f"{name}/{between}{place}", blob, blob))
            blob = top
        in_place = draw(st.booleans())
        for after in ("BatchNorm", "Scale")[: draw(st.integers(1, 2))]:
            top = blob if in_place else f"{name}/{after}"
            lines.append(layer(after, f"{name}/{after}", blob, top))
            blob = top
        if draw(st.booleans()):
            lines.append(layer("ReLU", f"{name}/relu", blob, blob))
    return "\n".join(lines)


@pytest.mark.opencv
@pytest.mark.slow
@hypothesis.settings(max_examples=40, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(text=chains(), seed=st.integers(0, 999))
def test_random_nets_compute_the_same(tmp_path: Path, text: str, seed: int) -> None:
    net = parse_net(text)
    hypothesis.assume(not infer(net).errors)
    assert "BatchNorm" not in assert_same(tmp_path, net, seed=seed)


def test_blobs_named_as_their_layers_stay_so() -> None:
    """With `--names tops`; an output keeps its name."""
    for stage in ("deploy", "headless"):
        arch = arch_of("v3-small")
        kept, folded = (net_of(arch, Dialect(batch_norm=n, names="tops"), stage) for n in ("keep", "fold"))  # type: ignore[arg-type]
        found = without_batch_norm(kept)
        assert [(x.name, list(x.bottom), list(x.top)) for x in found.layer] == [
            (x.name, list(x.bottom), list(x.top)) for x in folded.layer
        ]
    net = parse_net(INPUT + PLAIN + norm("x", "n").replace('name: "norm"', 'name: "n"'))
    assert [list(layer.top) for layer in without_batch_norm(net).layer] == [["n"]]


def test_a_bias_layer_is_folded_too() -> None:
    """OpenCV has no Bias layer."""
    net = parse_net(INPUT + PLAIN + norm("x") + layer("Bias", "more", "x", "y"))
    given = random_weights(net)
    found, without = merge_batch_norm(net, given), merge_batch_norm(parse_net(INPUT + PLAIN + norm("x")), given)
    assert [one.type for one in found.net.layer] == ["Convolution"]
    expected = without.blobs["x"][1] + np.asarray(given.layer[2].blobs[0].data)
    np.testing.assert_allclose(found.blobs["x"][1], expected, rtol=1e-5, atol=1e-6)
