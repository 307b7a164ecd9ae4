"""Parsing prototxt: errors with their place, unknown fields, nothing else than PrototxtError."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdlite_caffe.errors import PrototxtError
from ssdlite_caffe.prototxt import caffe_pb2, text
from ssdlite_caffe.prototxt.outline import MAX_BYTES, Outline
from ssdlite_caffe.prototxt.outline import outline as outline_of

NET = """name: "n"  # a comment with { and "
input: "data"
input_shape { dim: [1, 3, 8, 6] }
layer {
  name: "a" 'b'
  type: "Convolution" bottom: "data"; top: "a",
  convolution_param < num_output: 4 kernel_size: 3 >
}
layer: { name: "c" type: "PriorBox" prior_box_param { min_size: 0.1 min_size: [2e1, 3] clip: false } }
"""


def outline(source: str) -> Outline[caffe_pb2.NetParameter]:
    return outline_of(source, "<text>", caffe_pb2.NetParameter)


def test_every_dialect_of_the_text_format_parses():
    net = text.parse_net(NET)
    assert [layer.name for layer in net.layer] == ["ab", "c"]
    assert list(net.input_shape[0].dim) == [1, 3, 8, 6]
    assert net.layer[0].convolution_param.num_output == 4
    assert list(net.layer[1].prior_box_param.min_size) == pytest.approx([0.1, 20, 3])


def test_layer_lines():
    assert outline(NET).layer_lines == (4, 9)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("layer {", 'n.prototxt:1:7: Expected "}"'),
        ("layer }", 'n.prototxt:1:7: Expected "{"'),
        ('name "x"', 'n.prototxt:1:6: Expected ":"'),
        ('name: "a"\nname: "b"', 'n.prototxt:2:7: Message type "caffe.NetParameter" should not have multiple "name"'),
        ("layer { phase: NONE }", 'n.prototxt:1:16: Enum type "caffe.Phase" has no value named NONE'),
        ("\n\ninput_dim: 3000000000", "n.prototxt:3:12: Value out of range: 3000000000"),
        ("layer { top: 3 }", "n.prototxt:1:14: Expected string but found: '3'"),
        ('name: "a\n"', "n.prototxt:1:7: String missing ending quote: '\"a'"),
        ("layer {\n  nme: 3 }", "n.prototxt:2:3: LayerParameter has no field 'nme'"),
        (
            "a: 1 layer { b { c: 2 } } d < >",
            "n.prototxt:1:1: NetParameter has no field 'a' (2 more unknown fields below)",
        ),
    ],
)
def test_errors_name_file_line_and_column(source, message):
    with pytest.raises(PrototxtError) as error:
        text.parse_net(source, name="n.prototxt")
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_an_error_does_not_repeat_a_long_line():
    with pytest.raises(PrototxtError) as error:
        text.parse_net('name: "' + "x" * 100_000 + '" input_dim: ' + "9" * 5000)
    assert len(str(error.value)) < 300


def test_outline_finds_every_unknown_field():
    source = (
        'name: "n" zap: 1\n'
        'layer { foo: [1, {a: 2}] bar { layer { } } name: "a" "b" }\n\n'
        "layer { baz < x: -1 > [ext.x/y]: 2 }\nend: 3"
    )
    found = outline(source).unknown
    assert [(f.line, f.column, f.field, f.message, f.layer) for f in found] == [
        (1, 11, "zap", "NetParameter", None),
        (2, 9, "foo", "LayerParameter", 0),
        (2, 26, "bar", "LayerParameter", 0),
        (4, 9, "baz", "LayerParameter", 1),
        (4, 23, "[ext.x/y]", "LayerParameter", 1),
        (5, 1, "end", "NetParameter", None),
    ]
    assert outline(source).layer_lines == (2, 4)


def test_unknown_fields_can_be_left_out():
    net = text.parse(
        'layer { name: "a" foo { b: [1, 2] c < d: "e" > } } x: 3', caffe_pb2.NetParameter, allow_unknown=True
    )
    assert text.format_message(net) == 'layer {\n  name: "a"\n}\n'


@pytest.mark.parametrize("allow_unknown", [False, True])
@pytest.mark.parametrize(
    ("start", "end"), [("a {", "}"), ("layer { x {", "} }"), ("a <", ">"), ("a: [{ b:", "1 }]"), ("a {", "")]
)
def test_deep_nesting_is_an_error_of_one_line(start, end, allow_unknown):
    with pytest.raises(PrototxtError):
        text.parse(start * 20_000 + end * 20_000, caffe_pb2.NetParameter, allow_unknown=allow_unknown)


def test_size_is_bounded(tmp_path):
    path = tmp_path / "big.prototxt"
    path.write_text("#" + "é" * (MAX_BYTES // 2), encoding="utf-8")
    with pytest.raises(PrototxtError, match="is larger than the 16 MiB"):
        text.read_net(path)
    with pytest.raises(PrototxtError, match="is larger than the 16 MiB"):
        text.parse_net(" " * (MAX_BYTES + 1))


def test_reading_files(tmp_path):
    path = tmp_path / "n.prototxt"
    path.write_bytes(b"\xef\xbb\xbf" + NET.replace("\n", "\r\n").encode())
    assert text.read_net(path) == text.parse_net(NET)
    with pytest.raises(PrototxtError, match="No such file"):
        text.read_net(tmp_path / "absent")
    with pytest.raises(PrototxtError, match="is a folder"):
        text.read_net(tmp_path)
    path.write_bytes(b'name: "\xff"')
    with pytest.raises(PrototxtError, match="is not text"):
        text.read_net(path)


WORDS = ["layer", "name", "input_dim", "input_shape", "phase", "convolution_param", "kernel_size", "foo"]
VALUES = ["nan", "TEST", "0x", "-1", "1e999", "-", "/", "#"]
FRAGMENTS = st.sampled_from([*WORDS, *VALUES, *"{}<>[]:,;\n\0", '"a"', "'b", '"\\xff"', "9" * 5000])


@given(st.lists(FRAGMENTS, max_size=30).map(" ".join) | st.text(max_size=60), st.booleans())
def test_any_text_is_parsed_or_refused(source, allow_unknown):
    try:
        net = text.parse(source, caffe_pb2.NetParameter, allow_unknown=allow_unknown)
    except PrototxtError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert allow_unknown or outline(source).unknown == ()
        assert len(outline(source).layer_lines) == len(net.layer)


@given(st.floats(width=32, allow_nan=False), st.lists(st.integers(1, 2**31 - 1), max_size=4), st.text(max_size=9))
def test_formatting_and_parsing_give_the_message_back(number, dims, name):
    net = caffe_pb2.NetParameter(name=name.encode("utf-8", "replace").decode())
    layer = net.layer.add(name="a", top=["b"])
    layer.power_param.scale = number
    layer.input_param.shape.add(dim=dims)
    assert text.parse_net(text.format_message(net)) == net


def test_folders_and_caffemodels_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(PrototxtError, match=r"is a folder; give a prototxt in it, such as .*deploy\.prototxt"):
        text.read_net(tmp_path)
    for name in ("net.caffemodel", "net.prototxt"):
        (tmp_path / name).write_bytes(b"\x0a\x00\x01")
        with pytest.raises(PrototxtError, match="is a binary file such as a caffemodel"):
            text.read_net(tmp_path / name)


def test_unknown_fields_of_layers_that_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    source = 'layer { name: "a" type: "Convolution" }\nlayer { name: "b" type: "Zap" zap_param { x: 1 } }\n'
    path.write_text(source)
    assert [layer.name for layer in text.read_net_for(path, {"Convolution"}).layer] == ["a", "b"]
    for types, more, message in (
        ({"Convolution", "Zap"}, "", "2:31: LayerParameter has no field 'zap_param'"),
        ({"Convolution"}, "zap: 1", "3:1: NetParameter has no field 'zap'"),
        ({"Convolution"}, 'layer { type: "Convolution" zap: 1 }', "3:29: LayerParameter has no field 'zap'"),
        ({"Convolution"}, "name: 3", "3:7: NetParameter takes UTF-8 text in quotes as name, got 3"),
        ({"Convolution"}, "layer { phase: 7 }", "3:16: LayerParameter takes TRAIN or TEST as phase, got 7"),
    ):
        path.write_text(source + more)
        with pytest.raises(PrototxtError) as error:
            text.read_net_for(path, types)
        assert str(error.value) == f"{path}:{message}"
