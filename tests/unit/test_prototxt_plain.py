"""Plain texts are read as protobuf's parser reads them, and all others are left to it."""

from __future__ import annotations

import pytest
from google.protobuf import text_format
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from ssdlite_caffe.errors import PrototxtError
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.plain import read_plain
from ssdlite_caffe.prototxt.text import parse
from tests.conftest import ROOT

OURS = [*sorted((ROOT / "tests" / "golden").glob("*.prototxt")), *sorted((ROOT / "coco").glob("*.prototxt"))]
TEXT = (
    'name: "net" # of few layers\nlayer {\n  name: "a/b" type: "Convolution" bottom: "x" bottom: "y"\n'
    "  include { phase: TEST }\n  param { lr_mult: 0 decay_mult: -1.5e-3 }\n  propagate_down: true\n"
    "  convolution_param { num_output: 8 bias_term: false kernel_size: 3 kernel_size: 1 engine: CAFFE"
    " weight_filler { value: 0.25 } }\n}\ninput_dim: -1\nforce_backward: true\n# end\n"
)


def by_protobuf(text: str, kind: type[Message]) -> Message | None:
    try:
        return text_format.Parse(text, kind())
    except text_format.ParseError:
        return None


def check(text: str, kind: type[Message] = caffe_pb2.NetParameter) -> bool:
    """Whether a text is plain; if it is, it is read as protobuf reads it."""
    found = read_plain(text, kind())
    if found is not None:
        assert found == by_protobuf(text, kind)
    return found is not None


@pytest.mark.parametrize("path", OURS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_our_own_files_are_plain(path: object) -> None:
    text = path.read_text("utf-8")  # type: ignore[attr-defined]
    kinds = (caffe_pb2.NetParameter, caffe_pb2.SolverParameter, caffe_pb2.LabelMap)
    assert sum(check(text, kind) for kind in kinds) >= 1


def test_the_text_of_these_tests_is_plain() -> None:
    assert check(TEXT)
    assert check("")
    assert check("  # nothing")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"net"', "'net'"), ('"net"', '"n" "et"'), ('"net"', r'"n\145t"'), ('"net"', '"n\u00e9t"'), ("a/b", "a\tb"),
        ("include {", "include: {"), ("include {", "include <"), ("TEST", "1"), ("TEST }", "TEST; }"), ("e\n", "e,\n"),
        ("num_output: 8", "num_output: 0x8"), ("num_output: 8", "num_output: 010"), ("-1.5e-3", "inf"),
        ("kernel_size: 3 kernel_size: 1", "kernel_size: [3, 1]"), ("-1.5e-3", "1.f"), ("lr_mult: 0", "lr_mult: 0,"),
        ("0.25", "- 0.25"), ("TEST }", "TEST#}\n}"), ("bottom", "\u00a0bottom"),
        ("force_backward: true", "force_backward: t"),
    ],
)  # fmt: skip
def test_other_right_texts_are_left_to_protobuf(old: str, new: str) -> None:
    text = TEXT.replace(old, new, 1)
    assert text != TEXT
    assert not check(text)
    known = by_protobuf(text, caffe_pb2.NetParameter)
    if known is not None:
        assert parse(text, caffe_pb2.NetParameter) == known


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name:", "nome:"), ('"net"', '"net" name: "again"'), ("TEST", "BOTH"), ("8", "-8"), ("8", "5000000000"),
        ("8", "8.5"), ("8", '"8"'), ("include {", "include 7"), ("# end", "}"), ("# end", "layer {"),
        ("true\n", "1.0\n"), ('"net"', "{ }"), ("TEST }", "TEST } transform_param { } transform_param { }"),
    ],
)  # fmt: skip
def test_mistakes_are_left_to_protobuf(old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = TEXT.replace(old, new, 1)
    assert not check(text)
    with pytest.raises(PrototxtError) as ours:
        parse(text, caffe_pb2.NetParameter)
    monkeypatch.setattr("ssdlite_caffe.prototxt.text.read_plain", lambda text, message: None)
    with pytest.raises(PrototxtError) as theirs:
        parse(text, caffe_pb2.NetParameter)
    assert str(ours.value) == str(theirs.value)


def test_deep_blocks_are_left_to_protobuf() -> None:
    text = "net_param { layer { } }"
    assert check(text, caffe_pb2.SolverParameter)
    deep = "train_net_param { " * 70 + "} " * 70
    assert not check(deep, caffe_pb2.SolverParameter)


PIECES = [
    *"{}:#\"'[]<>,;-.0123eE+ \n\t_ax",
    "layer",
    "name: ",
    "TEST",
    "true",
    "1.5",
    "-3",
    "00",
    "inf",
    "{ }",
    "}\n",
    '"x"',
]


@given(
    st.lists(
        st.tuples(st.integers(0, len(TEXT)), st.integers(0, 6), st.lists(st.sampled_from(PIECES), max_size=3)),
        min_size=1,
        max_size=3,
    )
)
def test_changed_texts(changes: list[tuple[int, int, list[str]]]) -> None:
    text = TEXT
    for place, removed, pieces in changes:
        text = text[:place] + "".join(pieces) + text[place + removed :]
    check(text)
