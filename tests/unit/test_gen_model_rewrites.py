"""Each rewrite makes the text of the example in its docstring, and only what its choice of the dialect asks for."""

from __future__ import annotations

import dataclasses
import inspect
import textwrap
import typing
from typing import Any

import pytest

from ssdlite_caffe.gen_model.arch import Nms
from ssdlite_caffe.gen_model.dialect import Dialect, Stage
from ssdlite_caffe.gen_model.rewrites import REWRITES, Rewrite
from ssdlite_caffe.prototxt.shapes import infer
from tests.filling import arch_of, net_of, text_of

each_rewrite = pytest.mark.parametrize("rewrite", REWRITES, ids=lambda r: f"{r.field}-{r.choice}")


def with_choice(rewrite: Rewrite, dialect: Dialect | None = None) -> Dialect:
    return dataclasses.replace(dialect or Dialect(), **{rewrite.field: rewrite.choice})


def without(rewrite: Rewrite) -> Dialect:
    """The dialect before a rewrite, which may be one of the default's own."""
    choices = typing.get_args(typing.get_type_hints(Dialect)[rewrite.field])
    applied = {one.choice for one in REWRITES if one.field == rewrite.field}
    return dataclasses.replace(Dialect(), **{rewrite.field: next(c for c in choices if c not in applied)})


def example(rewrite: Rewrite, word: str) -> str:
    """The text below `Before:` or `After:` in the docstring of a rewrite; empty if it has none."""
    _, _, rest = (inspect.getdoc(rewrite.rewrite) or "").partition(f"\n{word}:\n\n")
    lines = rest.split("\n")
    end = next((i for i, line in enumerate(lines) if line and not line.startswith(" ")), len(lines))
    return textwrap.dedent("\n".join(lines[:end])).strip()


@each_rewrite
def test_the_example_is_what_is_written(rewrite: Rewrite) -> None:
    """In a net whose sums have coefficients, which only a deploy net has, or else in a headless net."""
    arch = arch_of("v3-small", input_size=(320, 320), nms=Nms(clip_first=True))
    headless = rewrite.field == "outputs" or (rewrite.field, rewrite.choice) == ("priors", "none")
    stage: Stage = "headless" if headless else "deploy"
    before, after = (text_of(arch, dialect, stage) for dialect in (without(rewrite), with_choice(rewrite)))
    old, new = example(rewrite, "Before"), example(rewrite, "After")
    assert old or new
    assert old in before
    assert new in after
    if old:
        assert old not in after
    if new:
        assert new not in before


def test_each_rewrite_is_named_by_the_dialect() -> None:
    for rewrite in REWRITES:
        assert rewrite.choice in typing.get_args(typing.get_type_hints(Dialect)[rewrite.field])


class TestPowerAsScale:
    @pytest.mark.parametrize("family", ["v2", "v3-small"])
    @pytest.mark.parametrize("activation", ["relu6", "stock"])
    def test_no_power_layer_is_left(self, family: Any, activation: Any) -> None:
        net = net_of(arch_of(family), Dialect(activation, linear="scale"), "deploy")
        assert not any(layer.type == "Power" for layer in net.layer)
        assert infer(net).errors == ()

    def test_another_power_stays(self) -> None:
        net = net_of(arch_of(nms=Nms(clip_first=True)), Dialect(linear="scale"), "deploy")
        (left,) = [layer for layer in net.layer if layer.type == "Power"]
        assert left.power_param.power == -1

    def test_it_learns_nothing_in_training(self) -> None:
        net = net_of(arch_of("v3-small"), Dialect(linear="scale", batch_norm="keep"), "train")
        scales = [layer for layer in net.layer if layer.type == "Scale" and layer.name.endswith("/shift")]
        assert len(scales) > 10
        assert {(param.lr_mult, param.decay_mult) for layer in scales for param in layer.param} == {(0, 0)}
        assert {len(layer.param) for layer in scales} == {2}
