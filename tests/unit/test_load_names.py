"""Which blob of a net holds a convolution's result."""

from __future__ import annotations

from typing import Any

import pytest

from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.load.inexact import inexact
from ssdlite_caffe.load.names import with_blobs_of
from ssdlite_caffe.prototxt import caffe_pb2
from tests.filling import arch_of, net_of


def tops_of(net: caffe_pb2.NetParameter, family: Any) -> dict[str, str]:
    return {conv.name: conv.top for conv in with_blobs_of(build(arch_of(family)), net).convolutions}


@pytest.mark.parametrize("family", ["v1", "v2", "v3-small"])
@pytest.mark.parametrize(
    "dialect",
    [Dialect(), Dialect(activation="stock", padding="slice", batch_norm="keep", gate="deconvolution", linear="scale")],
)
def test_in_place_it_is_the_convolutions_own(family: Any, dialect: Dialect) -> None:
    desc = build(arch_of(family))
    assert with_blobs_of(desc, net_of(arch_of(family), dialect)) == desc


@pytest.mark.parametrize("padding", ["exact", "slice", "pad-layer"])
@pytest.mark.parametrize("norm", ["keep", "fold"])
@pytest.mark.parametrize("activation", ["relu6", "stock", "relu"])
def test_with_names_of_layers_the_last_layer_writes_it(activation: Any, norm: Any, padding: Any) -> None:
    """What reads a convolution's result in place reads the same layer's result here."""
    arch = arch_of("v3-small")
    nets = [
        net_of(arch, Dialect(activation, padding, norm, names=names))  # type: ignore[arg-type]
        for names in ("in-place", "tops")
    ]
    desc, found = build(arch), tops_of(nets[1], "v3-small")
    now = dict(zip((conv.top for conv in desc.convolutions), found.values(), strict=True))
    readers = 0
    for before, after in zip(*(net.layer for net in nets), strict=True):
        for own, other in zip(before.bottom, after.bottom, strict=True):
            if own in now and not before.name.startswith(own + "/"):
                readers += 1
                assert other == now[own]
    assert readers > len(found)
    assert len(set(found.values())) == len(found)


def test_single_tops_are_named_as_their_layers() -> None:
    net = net_of(arch_of("v3-small"), Dialect("stock", "slice", "keep", names="tops"), "deploy")
    single = [layer for layer in net.layer if len(layer.top) == 1]
    assert len(single) > 300
    assert all(layer.top[0] == layer.name and layer.name not in layer.bottom for layer in single)
    tops = [top for layer in net.layer for top in layer.top]
    assert len(set(tops)) == len(tops)


def test_relu_for_relu6_is_named_in_each_dialect() -> None:
    """By `load`, which sees the prototxt alone."""
    arch = arch_of()
    for names in ("in-place", "tops"):
        found = inexact(net_of(arch, Dialect(activation="relu", names=names)), build(arch))  # type: ignore[arg-type]
        assert len(found) == 1
        assert "ReLU layers" in found[0]
        assert inexact(net_of(arch, Dialect(activation="stock", names=names)), build(arch)) == []  # type: ignore[arg-type]
