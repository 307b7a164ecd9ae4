"""What `load` says of nets that the weights fit, but that compute something else than the model."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any, get_args

import pytest

from ssdlite_caffe.gen_model.build import build, default_arch
from ssdlite_caffe.gen_model.compat import compat_arch
from ssdlite_caffe.gen_model.dialect import ActivationDialect, Dialect, PaddingDialect
from ssdlite_caffe.gen_model.render import render
from ssdlite_caffe.load.inexact import inexact
from ssdlite_caffe.prototxt.text import parse_net
from tests.commands import Command
from tests.filling import arch_of, net_of

DIALECTS = [
    Dialect(activation=activation, padding=padding, batch_norm=batch_norm)
    for (activation, padding), batch_norm in zip(
        itertools.product(get_args(ActivationDialect), get_args(PaddingDialect)),
        itertools.cycle(("keep", "fold", "fold-body")),
        strict=False,
    )
]


@pytest.mark.parametrize("family", ["v1", "v2", "v3-small"])
def test_it_says_what_the_dialect_says(family: Any) -> None:
    arch = arch_of(family)
    for dialect in DIALECTS:
        lines = inexact(net_of(arch, dialect), build(arch))
        relu = ["ReLU layers ("] if dialect.activation == "relu" else []
        padding = ["the same padding on both sides"] if dialect.padding == "symmetric" else []
        assert len(lines) == len(relu + padding), (dialect, lines)
        assert all(part in line for part, line in zip(relu + padding, lines, strict=True))


def test_it_counts_and_names_the_layers() -> None:
    arch = default_arch("v1", 4, head="ssd")
    net = render(build(compat_arch(arch, "mobilenetv2-ssdlite")), Dialect("relu", "symmetric"), "deploy")
    assert inexact(parse_net(net), build(arch)) == [
        "35 ReLU layers ('conv0/relu', ...), which are ReLU6 in the model",
        "5 convolutions ('conv0', ...) with the same padding on both sides; the model pads one more after than before",
    ]


def test_it_counts_at_the_net_s_own_size() -> None:
    """At 512 pixels all maps that a stride of 2 halves are even, at 300 only five of them."""
    arch = default_arch("v1", 4, head="ssd")
    net = render(build(dataclasses.replace(arch, input_size=(512, 512))), Dialect(padding="symmetric"), "deploy")
    assert inexact(parse_net(net), build(arch))[0].startswith("9 convolutions ('conv0', ...)")


def test_load_prints_it(command: Command, example_weights: Path, tmp_path: Path) -> None:
    net = tmp_path / "net.prototxt"
    assert command("gen", "-c", 4, "-v", "3-small", "--padding", "symmetric", "-o", net).status == 0
    result = command("load", example_weights, net, "-o", tmp_path / "net.caffemodel")
    assert result.status == 0
    assert "not exact: the net has 7 convolutions ('Conv', ...) with the same padding on both sides" in result.err
    assert command("gen", "-c", 4, "-v", "3-small", "-o", net, "--force").status == 0
    assert command("load", example_weights, net, "-o", tmp_path / "net.caffemodel", "--force").err == ""
