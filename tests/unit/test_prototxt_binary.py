"""Blobs, caffemodels and what is not one."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ssdlite_caffe.errors import OutputError, PrototxtError
from ssdlite_caffe.prototxt import binary, caffe_pb2

ARRAYS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=5),
    elements=st.floats(width=32, allow_nan=True),
)


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@given(ARRAYS)
def test_array_to_blob_and_back_keeps_every_bit(array):
    blob = binary.blob_from_array(array)
    assert tuple(blob.shape.dim) == array.shape
    assert blob.HasField("shape")
    assert same_bits(binary.blob_to_array(blob), array)


@given(ARRAYS)
def test_blob_equals_one_filled_a_number_at_a_time(array):
    blob = caffe_pb2.BlobProto(data=array.ravel().tolist())
    blob.shape.SetInParent()
    blob.shape.dim.extend(array.shape)
    assert binary.blob_from_array(array).SerializeToString() == blob.SerializeToString()


def test_layout_of_the_array_does_not_matter():
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    for view in (array.transpose(2, 0, 1), array[:, ::-1], np.asfortranarray(array), array.astype(">f4").astype("=f4")):
        assert same_bits(binary.blob_to_array(binary.blob_from_array(view)), np.ascontiguousarray(view))


@pytest.mark.parametrize("count", [31, 32, 4095, 4096, 524287, 524288])
def test_lengths_around_those_that_take_another_byte(count):
    """4 * count bytes: 127, 16383 and 2097151 are the largest numbers of one, two and three bytes on the wire."""
    array = np.arange(count, dtype=np.float32)
    assert same_bits(binary.blob_to_array(binary.blob_from_array(array)), array)


def test_arrays_read_can_be_written_to():
    array = binary.blob_to_array(binary.blob_from_array(np.ones(3, np.float32)))
    array[0] = 2
    assert array.tolist() == [2, 1, 1]


def test_other_forms_of_blobs():
    old = caffe_pb2.BlobProto(num=1, channels=2, height=3, width=1, data=range(6))
    assert binary.blob_to_array(old).tolist() == [[[[0], [1], [2]], [[3], [4], [5]]]]
    double = caffe_pb2.BlobProto(double_data=[0.1, 0.2], diff=[9])
    double.shape.dim.append(2)
    assert same_bits(binary.blob_to_array(double), np.array([0.1, 0.2], np.float32))
    double.data.extend([3, 4, 5])
    assert same_bits(binary.blob_to_array(double), np.array([0.1, 0.2], np.float32)), "Caffe takes double_data first"
    mixed = caffe_pb2.BlobProto(data=[1, 2], diff=[8, 9])
    mixed.shape.dim.extend([2, 1])
    assert binary.blob_to_array(mixed).tolist() == [[1], [2]]


@pytest.mark.parametrize(
    ("dims", "count", "message"),
    [
        ([2, 3], 5, "b holds 5 values, but its shape 2 x 3 has 6"),
        ([], 2, "b holds 2 values, but its shape single number has 1"),
        ([-1, -1], 1, "b has the impossible shape -1 x -1"),
        ([1] * 33, 1, "b has the impossible shape 1 x 1 x 1 x 1 x 1 x 1 x 1 x 1 x ... (33 axes)"),
        ([2**40, 2**40], 1, "b has the impossible shape 1099511627776 x 1099511627776"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(dims, count, message):
    blob = caffe_pb2.BlobProto(data=[0] * count)
    blob.shape.dim.extend(dims)
    with pytest.raises(PrototxtError) as error:
        binary.blob_to_array(blob, "b")
    most = "; a blob has at most 32 axes and 2147483647 values"
    assert str(error.value) == message + (most if "impossible" in message else "")


def net_of(*arrays):
    net = caffe_pb2.NetParameter(name="n")
    for index, array in enumerate(arrays):
        net.layer.add(name=f"l{index}", type="Convolution").blobs.append(binary.blob_from_array(array))
    return net


def test_caffemodel_round_trip(tmp_path):
    path = tmp_path / "n.caffemodel"
    net = net_of(np.arange(6, dtype=np.float32).reshape(1, 2, 3), np.float32([np.pi]))
    binary.write_caffemodel(path, net)
    assert binary.read_caffemodel(path) == net
    first = path.read_bytes()
    with pytest.raises(OutputError):
        binary.write_caffemodel(path, net_of())
    assert path.read_bytes() == first
    binary.write_caffemodel(path, net, force=True)
    assert path.read_bytes() == first


@given(arrays=st.lists(st.lists(ARRAYS, max_size=3), min_size=1, max_size=4))
def test_net_filled_on_the_way_to_the_file_equals_one_that_holds_its_blobs(arrays, tmp_path_factory):
    net = caffe_pb2.NetParameter(name="n", input=["data"])
    for index in range(len(arrays)):
        net.layer.add(name=f"l{index}", type="Convolution", top=[f"l{index}"], phase=caffe_pb2.TEST)
    path = tmp_path_factory.getbasetemp() / "filled.caffemodel"
    digest = binary.write_filled(path, net, {f"l{i}": blobs for i, blobs in enumerate(arrays)}, force=True)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    for layer, blobs in zip(net.layer, arrays, strict=True):
        layer.blobs.extend(binary.blob_from_array(array) for array in blobs)
    found = binary.read_caffemodel(path)
    assert found.SerializeToString(deterministic=True) == net.SerializeToString(deterministic=True)
    assert binary.unknown_fields(found) == []


def test_too_large_a_net_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    net = caffe_pb2.NetParameter(name="n")
    net.layer.add(name="a")
    blobs = {"a": [np.zeros(100, np.float32)]}
    binary.write_filled(tmp_path / "whole", net, blobs)
    monkeypatch.setattr(binary, "MAX_BYTES", (tmp_path / "whole").stat().st_size - 1)
    with pytest.raises(PrototxtError, match="more than the"):
        binary.write_filled(tmp_path / "large", net, blobs)
    assert not (tmp_path / "large").exists()


def test_files_that_are_no_caffemodel(tmp_path):
    path = tmp_path / "n.caffemodel"
    whole = net_of(np.zeros(1000, np.float32)).SerializeToString()
    cases = {
        b"": "is empty",
        whole[:-7]: "cut short",
        b'name: "n"\nlayer { name: "a" }\n': "is not a caffemodel",
        caffe_pb2.NetParameter(name="n").SerializeToString(): "holds no layers",
        caffe_pb2.NetParameter(
            layers=[caffe_pb2.V1LayerParameter(name="a")]
        ).SerializeToString(): "of the format before 2014",
    }
    for data, message in cases.items():
        path.write_bytes(data)
        with pytest.raises(PrototxtError, match=message):
            binary.read_caffemodel(path)
    with pytest.raises(PrototxtError, match="No such file"):
        binary.read_caffemodel(tmp_path / "absent")


@given(data=st.data())
def test_any_bytes_are_read_or_refused(data, tmp_path_factory):
    whole = net_of(np.arange(5, dtype=np.float32)).SerializeToString()
    cut = data.draw(st.integers(0, len(whole)))
    raw = data.draw(
        st.binary(max_size=60) | st.just(whole[:cut]) | st.binary(max_size=9).map(lambda b: whole[:cut] + b)
    )
    path = tmp_path_factory.getbasetemp() / "any.caffemodel"
    path.write_bytes(raw)
    try:
        net = binary.read_caffemodel(path)
        for layer in net.layer:
            for blob in layer.blobs:
                binary.blob_to_array(blob)
        binary.unknown_fields(net)
    except PrototxtError as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_unknown_fields_are_found_at_every_depth():
    net = net_of(np.zeros(2, np.float32))
    assert binary.unknown_fields(net) == []
    field_5000 = b"\xc2\xb8\x02"  # tag of a bytes field
    conv = caffe_pb2.ConvolutionParameter.FromString(field_5000 + b"\x01x")
    net.layer[0].convolution_param.CopyFrom(conv)
    net.layer[0].blobs[0].MergeFromString(b"\x78\x05")
    net.MergeFromString(b"\x7d\x00\x00\x00\x00")
    assert binary.unknown_fields(net) == [
        "NetParameter has field 15 (32 bits), which caffe.proto does not have",
        "layer[0].blobs[0] has field 15 (number), which caffe.proto does not have",
        "layer[0].convolution_param has field 5000 (bytes), which caffe.proto does not have",
    ]
