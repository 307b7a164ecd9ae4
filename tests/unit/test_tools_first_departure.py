"""The search for the first blob that departs, in graphs of any form."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdlite_caffe.errors import DeviceError
from ssdlite_caffe.prototxt.text import parse_net
from ssdlite_caffe.tools.first_departure import _words, first_departing, parents_of
from tests.opencv_nets import layer

Graph = dict[str, set[str]]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    count = draw(st.integers(1, 40))
    reach = draw(st.integers(1, 40))
    made: Graph = {}
    for number in range(count):
        before = [f"b{one}" for one in range(max(0, number - reach), number)]
        made[f"b{number}"] = draw(st.sets(st.sampled_from(before), max_size=3)) if before else set()
    return made


def below(graph: Graph, wrong: set[str]) -> set[str]:
    """Blobs that are wrong themselves, or computed from such."""
    found: set[str] = set()
    for name, parents in graph.items():
        if name in wrong or parents & found:
            found.add(name)
    return found


@given(graphs(), st.data())
def test_a_wrong_layer_is_found(graph: Graph, data: st.DataObject) -> None:
    """Whatever the branches; of several wrong layers, one that reads nothing wrong."""
    wrong = data.draw(st.sets(st.sampled_from(sorted(graph)), min_size=1, max_size=3))
    departing, asked = below(graph, wrong), []
    read = set().union(*graph.values())
    outputs = [name for name in graph if name not in read]

    def departs(name: str) -> bool:
        asked.append(name)
        return name in departing

    found = first_departing(graph, outputs, departs)
    assert found in wrong
    assert not graph[str(found)] & departing
    assert len(asked) == len(set(asked))


@given(graphs(), st.data())
def test_a_departure_that_vanishes_again(graph: Graph, data: st.DataObject) -> None:
    """Answers in no order: what is named departs, and all that it reads does not."""
    departing = data.draw(st.sets(st.sampled_from(sorted(graph))))
    last = list(graph)[-1]
    found = first_departing(graph, [last], departing.__contains__)
    assert (found is None) == (last not in departing)
    if found is not None:
        assert found in departing
        assert not graph[found] & departing


def test_it_halves() -> None:
    chain = {f"b{number}": ({f"b{number - 1}"} if number else set()) for number in range(1000)}
    for wrong in (0, 1, 499, 998, 999):
        asked = []

        def departs(name: str, wrong: int = wrong, asked: list[str] = asked) -> bool:
            asked.append(name)
            return int(name[1:]) >= wrong

        assert first_departing(chain, ["b999"], departs) == f"b{wrong}"
        assert len(asked) <= math.log2(1000) + 3


def test_parents() -> None:
    net = parse_net(
        layer("Power", "", ("d",), ("a",), "one") + layer("ReLU", "", ("a",), ("a",), "two")
        + layer("PriorBox", "", ("a", "d"), ("p",), "three") + layer("Eltwise", "", ("a", "p"), ("e",), "four")
    )  # fmt: skip
    assert parents_of(net.layer, "d") == {"a": set(), "p": {"a"}, "e": {"a", "p"}}


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("", r"must have \{net\} and \{output\}"),
        ("run {net}", r"must have \{output\}; its places are \{net\}, \{weights\}"),
        ("run '{net} {output}", "No closing quotation"),
    ],
)
def test_commands_refused(command: str, said: str) -> None:
    with pytest.raises(DeviceError, match=f"--first-departure: .*{said}"):
        _words(command)
