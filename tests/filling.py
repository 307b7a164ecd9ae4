"""Nets in small and what fill makes of them, for the tests of load."""

from __future__ import annotations

import functools
import re
from typing import Any

import pytest

from ssdlite_caffe.dump.model import DumpedModel
from ssdlite_caffe.errors import TensorError
from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.gen_model.build import build, default_arch
from ssdlite_caffe.gen_model.dialect import Dialect, Stage
from ssdlite_caffe.gen_model.render import render
from ssdlite_caffe.load.fill import MOST_LISTED, LayerBlobs, fill
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.text import parse_net
from tests.models import model_of

KEEP = Dialect(batch_norm="keep")
FOLD = Dialect()


def arch_of(family: Any = "v2", **changes: Any) -> ArchSpec:
    return default_arch(family, **{"num_classes": 4, "input_size": (150, 190), "width_multiplier": 0.25, **changes})


@functools.cache
def model(family: Any = "v2") -> DumpedModel:
    """Random weights, different on every axis; the tests change copies."""
    return model_of(arch_of(family))


@functools.cache
def text_of(arch: ArchSpec, dialect: Dialect, stage: Stage) -> str:
    return render(build(arch), dialect, stage)


def net_of(arch: ArchSpec, dialect: Dialect = FOLD, stage: Stage = "headless") -> caffe_pb2.NetParameter:
    return parse_net(text_of(arch, dialect, stage))


def layer_of(net: caffe_pb2.NetParameter, name: str) -> caffe_pb2.LayerParameter:
    return next(layer for layer in net.layer if layer.name == name)


def filled(
    net: caffe_pb2.NetParameter,
    given: DumpedModel | None = None,
    *,
    arch: ArchSpec | None = None,
    finetune: bool = False,
) -> LayerBlobs:
    return fill(net, build(arch or arch_of()), given or model(), finetune=finetune)


def problems(*args: Any, kind: type[Exception] = TensorError, **kwargs: Any) -> list[str]:
    """The list that a failed fill gives, without its first line, which says how many there are."""
    with pytest.raises(kind) as caught:
        filled(*args, **kwargs)
    first, *rest = str(caught.value).split("\n")
    if kind is TensorError:
        found = re.search(r"^the weights \(of a v.* classes\) do not fit the net, (\d+) problems?:$", first)
        assert found, first
        count = int(found[1])
        assert len(rest) == min(count, MOST_LISTED + 1)
    return [line.strip() for line in rest]
