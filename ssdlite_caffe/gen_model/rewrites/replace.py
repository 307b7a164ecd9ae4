"""Replacing layers of a net, for the rewrites."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from ssdlite_caffe.gen_model.layers import LayerDesc, LoweredNet


def replaced(net: LoweredNet, layers_for: Callable[[LayerDesc], Sequence[LayerDesc]]) -> LoweredNet:
    """The net with, in place of each layer, the layers that `layers_for` gives for it; sections keep their titles."""
    sections = (
        dataclasses.replace(section, layers=tuple(new for layer in section.layers for new in layers_for(layer)))
        for section in net.sections
    )
    return dataclasses.replace(net, sections=tuple(sections))


def learns(net: LoweredNet) -> bool:
    """Whether it is a train net, in which a layer that learns nothing needs learning rates of 0."""
    return any(layer.learning for section in net.sections for layer in section.layers)


def frozen(net: LoweredNet, blobs: int) -> tuple[tuple[float, float], ...]:
    """`LayerDesc.learning` of a layer of the net with that many constant blobs."""
    return ((0.0, 0.0),) * blobs if learns(net) else ()
