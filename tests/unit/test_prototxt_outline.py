"""Reading a text to its end whatever its values are, and nets of the format before 2014."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdlite_caffe.errors import PrototxtError
from ssdlite_caffe.prototxt import caffe_pb2, text
from ssdlite_caffe.prototxt.outline import outline
from ssdlite_caffe.prototxt.upgrade import is_old, type_name, upgrade


def read(source):
    return outline(source, "net", caffe_pb2.NetParameter)


def problems(source):
    return [(one.line, one.kind, one.text) for one in read(source).problems]


POOL = 'layer { name: "p"\n%s }'


@pytest.mark.parametrize(
    ("field", "kind", "said", "left"),
    [
        ("pooling_param { pool: AVE_EXC_PAD stride: 2 }", "unknown-value",
         "PoolingParameter takes MAX, AVE or STOCHASTIC as pool, got AVE_EXC_PAD", "pooling_param { stride: 2 }"),
        ("pooling_param { pool: ave }", "unknown-value",
         "PoolingParameter takes MAX, AVE or STOCHASTIC as pool, got ave",
         "pooling_param { pool: AVE }"),
        ('pooling_param { pool: "MAX" }', "unknown-value",
         'PoolingParameter takes MAX, AVE or STOCHASTIC as pool, got "MAX"', "pooling_param { pool: MAX }"),
        ("pooling_param { pool: 9 }", "unknown-value", "PoolingParameter takes MAX, AVE or STOCHASTIC as pool, got 9",
         "pooling_param { }"),
        ("phase: NONE", "unknown-value", "LayerParameter takes TRAIN or TEST as phase, got NONE", ""),
        ("pooling_param { stride: 2\n stride: 3 }", "field-twice",
         "PoolingParameter has stride twice, first on line 2; it takes one", "pooling_param { stride: 3 }"),
        ("pooling_param { stride: 2 }\npooling_param { pad: 3 }", "field-twice",
         "LayerParameter has pooling_param twice, first on line 2; it takes one",
         "pooling_param { stride: 2 pad: 3 }"),
        ("pooling_param { stride: 2.0 }", "value",
         "PoolingParameter takes a whole number from 0 to 4294967295 as stride, got 2.0",
         "pooling_param { stride: 2 }"),
        ("pooling_param { stride: 2.5 }", "value",
         "PoolingParameter takes a whole number from 0 to 4294967295 as stride, got 2.5", "pooling_param { }"),
        ("pooling_param { pad: -1 }", "value",
         "PoolingParameter takes a whole number from 0 to 4294967295 as pad, got -1", "pooling_param { }"),
        ("pooling_param { pad: '3' }", "value",
         "PoolingParameter takes a whole number from 0 to 4294967295 as pad, got '3'", "pooling_param { pad: 3 }"),
        ("softmax_param { axis: 9999999999 }", "value",
         "SoftmaxParameter takes a whole number of 32 bits as axis, got 9999999999", "softmax_param { }"),
        ("pooling_param { ceil_mode: FALSE }", "value",
         "PoolingParameter takes true or false as ceil_mode, got FALSE", "pooling_param { ceil_mode: false }"),
        ("power_param { scale: '2' }", "value", "PowerParameter takes a number as scale, got '2'",
         "power_param { scale: 2 }"),
        ("power_param { scale: two }", "value", "PowerParameter takes a number as scale, got two", "power_param { }"),
        ("type: ReLU", "value", "LayerParameter takes UTF-8 text in quotes as type, got ReLU", 'type: "ReLU"'),
        ('type: "\\377"', "value", 'LayerParameter takes UTF-8 text in quotes as type, got "\\377"', None),
        ("pooling_param: 3", "value", "LayerParameter takes a block as pooling_param, got 3", ""),
        ("type { a: 1 }", "value", "LayerParameter takes a value as type, got a block", ""),
        ("type: ['a', 'b']", "value", "LayerParameter takes one type, got a list", ""),
        ("clip_param { min: 0 }", "missing-field", "ClipParameter has no max, which it needs", None),
        ("pooling_param { strode: 2 }", "unknown-field", "PoolingParameter has no field 'strode'", "pooling_param { }"),
        ("type:\N{NO-BREAK SPACE}'a'", "character", "the character U+00A0 may only be in comments and strings",
         "type: 'a'"),
    ],
)  # fmt: skip
def test_a_problem_has_its_line_and_the_rest_is_read(field, kind, said, left):
    found = read(POOL % field + '\nlayer { name: "next" }')
    assert [(one.kind, str(one), one.layer) for one in found.problems] == [
        (kind, said, None if kind == "character" else 0)
    ]
    assert found.problems[0].line == 2 + (kind == "field-twice")
    if left is not None:
        assert found.message == text.parse_net(POOL % left + '\nlayer { name: "next" }')
    assert [one.name for one in found.message.layer] == ["p", "next"]
    if kind != "character":  # Python's parser skips it as white space
        with pytest.raises(PrototxtError):
            text.parse_net(POOL % field)


def test_all_problems_of_a_text():
    source = """name: net
layer { name: "a" name: "b" pooling_param { pool: [MAX] pool: max pad: x } blobs: 3
  top: ["a" 'b', 3] include { phase: TRAIN phase: LATER } zap { a: [{ b: 1 }, [1]] } } foo: 1
"""
    assert [(one.line, one.column, one.kind, one.field, one.lost) for one in read(source).problems] == [
        (1, 7, "value", "name", False),
        (2, 19, "field-twice", "name", False),
        (2, 51, "value", "pool", True),
        (2, 57, "field-twice", "pool", False),
        (2, 63, "unknown-value", "pool", False),
        (2, 72, "value", "pad", True),
        (2, 83, "value", "blobs", True),
        (3, 18, "value", "top", False),
        (3, 44, "field-twice", "phase", False),
        (3, 51, "unknown-value", "phase", True),
        (3, 59, "unknown-field", "zap", True),
        (3, 88, "unknown-field", "foo", True),
    ]


def test_unknown_fields_with_text_are_told_apart():
    source = 'zap: 1 zip: "a" zop { a { b: "c" } } zup { a: [1, X] } layer { name: 3 }'
    assert [one.harmless for one in read(source).unknown] == [True, False, False, True]
    source = 'zap: 1 layer { name { a: "text" } type: ["text", "text"] }'
    assert [one.harmless for one in read(source).unknown] == [True]


def test_long_values_are_cut():
    for value in ("x" * 5000, '"' + "x" * 5000 + '"', "9" * 5000):
        assert all(len(str(one)) < 200 for one in read(f"input_dim: {value}").problems)
    many = read("layers { type: PRELU }").problems[0]
    assert str(many).startswith("V1LayerParameter takes one of 40 names (NONE, ")
    assert str(many).endswith("as type, got PRELU")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("layer { top: }", 'net:1:14: Expected a value'),
        ("input_dim: [1 2]", 'net:1:15: Expected "," or "]"'),
        ("layer {\n name: \"a\n }", "net:2:8: String missing ending quote"),
        ("}", "net:1:1: Expected identifier or number"),
        ("layer { ]", "net:1:9: Expected identifier or number"),
    ],
)  # fmt: skip
def test_a_broken_structure_ends_it(source, message):
    with pytest.raises(PrototxtError) as error:
        read(source)
    assert str(error.value).startswith(message)


WORDS = ["layer", "layers", "name", "input_dim", "input_shape", "phase", "pooling_param", "pool", "scale", "foo"]
VALUES = ["nan", "TEST", "MAX", "0x1f", "017", "-1", "1.5", "1e999", "-", "true", "'b'", '"a"', '"\\xff"', "9" * 20]
PIECES = st.sampled_from([*WORDS, *VALUES, *"{}<>[]:,;", "{}", ": 3", "{ name: 'a' }", "power_param { scale: .5 }"])


@given(st.lists(PIECES, max_size=25).map(" ".join) | st.text(max_size=60))
def test_it_finds_no_problem_where_the_parser_finds_none(source):
    try:
        expected = text.parse_net(source)
    except PrototxtError:
        expected = None
    try:
        found = read(source)
    except PrototxtError:
        assert expected is None
        return
    wrong = [one for one in found.problems if one.kind != "character"]
    if expected is None:
        assert wrong
    else:
        assert wrong == []
        assert found.message.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)


OLD = """input: "data"
layers { name: "c" type: CONVOLUTION bottom: "data" top: "c" blobs_lr: 1 blobs_lr: 2 weight_decay: 1 weight_decay: 0
  param: "w" blob_share_mode: PERMISSIVE include { phase: TEST } loss_weight: 2
  convolution_param { num_output: 4 kernel_size: 3 } }
layers { name: "d" type: DATA top: "x" data_param {
  batch_size: 2 scale: 0.5 crop_size: 7 mirror: true mean_file: "m" } }
"""
NEW = """input: "data"
layer { name: "c" type: "Convolution" bottom: "data" top: "c"
  param { name: "w" lr_mult: 1 decay_mult: 1 share_mode: PERMISSIVE } param { lr_mult: 2 decay_mult: 0 }
  include { phase: TEST } loss_weight: 2 convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "d" type: "Data" top: "x" data_param { batch_size: 2 }
  transform_param { scale: 0.5 crop_size: 7 mirror: true mean_file: "m" } }
"""


def test_nets_from_before_2014():
    old = text.parse_net(OLD)
    assert is_old(old)
    assert not is_old(text.parse_net(NEW))
    assert upgrade(old) == text.parse_net(NEW)
    assert read(OLD).layer_lines == (2, 5)


def test_every_old_type_has_a_name_of_today():
    known = {value.name: type_name(value.number) for value in caffe_pb2.V1LayerParameter.LayerType.DESCRIPTOR.values}
    assert known.pop("NONE") == ""
    assert all(known.values())
    assert (known["SOFTMAX_LOSS"], known["HDF5_DATA"], known["RELU"]) == ("SoftmaxWithLoss", "HDF5Data", "ReLU")


def test_of_both_kinds_of_layers_the_old_ones_count():
    source = 'layer { name: 1 }\nlayers { name: 2 }\nlayer { name: 3 }\nlayers { type: "ReLU" }'
    found = read(source)
    assert found.layer_lines == (2, 4)
    assert [one.layer for one in found.problems] == [None, 0, None, 1]
    assert str(found.problems[3]).endswith('got "ReLU"; a type in quotes is for layer { }, not for layers { }')
    assert [one.name for one in upgrade(found.message).layer] == ["2", ""]


def test_odd_characters_take_no_longer_in_a_long_line():
    source = "\N{NO-BREAK SPACE}" * 300_000 + "\n# \N{NO-BREAK SPACE}\nname: '\N{DEGREE SIGN}' \x1f"
    assert [(one.line, one.column, one.kind) for one in read(source).problems] == [
        (1, 1, "character"),
        (3, 11, "character"),
    ]
