"""How much memory a conversion takes beside the libraries: the weights once, and one layer or tensor more."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ssdlite_caffe.dump.model import DumpedModel
from ssdlite_caffe.dump.read import read_model
from ssdlite_caffe.errors import TensorError
from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.gen_model.render import render
from ssdlite_caffe.load.fill import fill, filled_layers
from ssdlite_caffe.load.identify import identify
from ssdlite_caffe.prototxt.binary import write_filled, write_layers
from ssdlite_caffe.prototxt.text import parse_net
from tests.models import with_tensors
from tests.torch_files import random_weights, write_state_dict

MORE = 0.35
"""Of the file's size: the largest tensor (a tenth) twice, the net's messages and descriptions."""


def peak(action: Callable[[], Any]) -> tuple[Any, int]:
    """What a function returns, and the most bytes that it held at once."""
    tracemalloc.start()
    try:
        return action(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_state_dict(tmp_path_factory.mktemp("memory") / "weights.pth", random_weights(3))


@pytest.fixture(scope="module")
def model(source: Path) -> DumpedModel:
    return read_model(source)


def test_a_state_dict_is_in_memory_once(source: Path, model: DumpedModel) -> None:
    """The fixture `model` has imported what reading needs."""
    again, most = peak(lambda: read_model(source))
    assert again.tensors.keys() == model.tensors.keys()
    assert most < (1 + MORE) * source.stat().st_size


@pytest.mark.parametrize("norm", ["keep", "fold"])
def test_a_caffemodel_is_written_layer_by_layer(norm: Any, source: Path, model: DumpedModel, tmp_path: Path) -> None:
    net = build(identify(model)[1])
    text = render(net, Dialect(batch_norm=norm), "deploy")
    at_once, layers = parse_net(text), parse_net(text)
    write_filled(tmp_path / "at-once", at_once, fill(at_once, net, model).blobs)
    _, most = peak(lambda: write_layers(tmp_path / "layers", layers, filled_layers(layers, net, model)))
    assert most < MORE * source.stat().st_size
    assert (tmp_path / "layers").read_bytes() == (tmp_path / "at-once").read_bytes()


def test_nothing_is_written_if_the_last_check_fails(model: DumpedModel, tmp_path: Path) -> None:
    net = build(identify(model)[1])
    parsed = parse_net(render(net, Dialect(), "deploy"))
    more = with_tensors(model, {"stray": next(iter(model.tensors.values()))})
    with pytest.raises(TensorError, match=r"'stray' .* is not used by the net"):
        write_layers(tmp_path / "net", parsed, filled_layers(parsed, net, more))
    assert list(tmp_path.iterdir()) == []
