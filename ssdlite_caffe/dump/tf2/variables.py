"""Which convolution of the detector a variable of a TensorFlow 2 checkpoint belongs to, by its Keras name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ssdlite_caffe.dump.detector.keras_scopes import EXTRACTOR, backbone_scope, scope_of_layer
from ssdlite_caffe.errors import ModelError

KERNELS = {"kernel": False, "depthwise_kernel": True, "pointwise_kernel": False}
"""Last part of a kernel's name -> whether it is depthwise."""
_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
_BEHIND_CONV = re.compile(r"^(?P<layer>.*?)(?:_BN|_batchnorm)$")
_OF_MAP = re.compile(r"^(?P<layer>.*)/BatchNorm/feature_(?P<map>\d+)$")
_MOST_MAPS = 16
"""More than the levels that a pyramid may have. What all maps share is copied for each."""
_NAMED_BEFORE = {"bn_Conv1": "Conv1", "Conv_1_bn": "Conv_1"}


class Part(NamedTuple):
    """A part of a convolution.

    Attributes:
        scope: TensorFlow 1's; of a layer that all feature maps share, that of its use on one map.
        part: of `model.ConvUnit.tensors`.
        depthwise: whether it is a depthwise kernel; None for other parts.
    """

    scope: str
    part: str
    depthwise: bool | None = None


def parts_of(name: str, maps: int) -> list[Part]:
    """What a variable is a part of; nothing for one that is not of the detector.

    Args:
        name: `block_1_expand/kernel`, `.../PredictionTower/conv2d_0/BatchNorm/feature_2/gamma`.
        maps: number of feature maps, each of which has a copy of what all share.
    """
    layer, _, last = name.rpartition("/")
    if last in KERNELS:
        return [Part(scope, "weights", KERNELS[last]) for scope in _uses(layer, last == "depthwise_kernel", maps)]
    if last == "bias":
        return [Part(scope, "biases") for scope in _uses(layer, False, maps)]
    if last not in _NORM:
        return []
    of_map = _OF_MAP.match(layer)
    if of_map is not None:
        scope = scope_of_layer(of_map.group("layer"), int(of_map.group("map")))
        return [] if scope is None else [Part(scope, last)]
    own = layer.rpartition("/")[2]
    behind = _BEHIND_CONV.match(layer)
    conv = layer.removesuffix(own) + _NAMED_BEFORE[own] if own in _NAMED_BEFORE else behind and behind.group("layer")
    return [Part(scope, last) for scope in _normalised(conv)] if conv else []


def _uses(layer: str, depthwise: bool, maps: int) -> Iterator[str]:
    """The scopes of a layer with a kernel: one, or one a map if all share it."""
    found = dict.fromkeys(_scope(layer, use, depthwise) for use in range(maps))
    return (scope for scope in found if scope is not None)


def _scope(layer: str, use: int = 0, depthwise: bool = False) -> str | None:
    scope = scope_of_layer(layer, use, depthwise=depthwise)
    return backbone_scope(layer) if scope is None and "/" not in layer else scope


def _normalised(conv: str) -> Iterator[str]:
    """The convolution whose BatchNorm has the name of `conv`: its layer may have an ending that says what it is."""
    for ending in ("", "_conv", "_depthwise_conv"):
        scope = _scope(conv + ending)
        if scope is not None:
            yield scope
            return


def map_count(names: Iterable[str], source: str) -> int:
    """How many feature maps a pyramid has: its projections and the maps behind them; 1 where there is no pyramid.

    Raises:
        ModelError: more than a pyramid may have.
    """
    found = {
        match.group(1)
        for name in names
        if EXTRACTOR.search(name) and (match := re.search(r"(projection_\d+|bottom_up_Conv2d_\d+)", name))
    }
    if len(found) > _MOST_MAPS:
        raise ModelError(
            f"{source} has a feature pyramid of {len(found)} maps; {_MOST_MAPS} are the most that are read"
        )
    return max(len(found), 1)
