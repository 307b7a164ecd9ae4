"""Other layers for the same net: one function a file, from a net of layers to a net of layers, and their order.

`lower` writes a net for Caffe's SSD branch and OpenCV. A runtime that lacks one of these layers, or reads it in its own
way, gets others that compute the same: each choice of `Dialect` that a rewrite stands for is in `REWRITES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.gen_model.layers import LoweredNet
from ssdlite_caffe.gen_model.rewrites.power_as_scale import power_as_scale


class Rewrite(NamedTuple):
    """A choice of a field of `Dialect`, and what makes it of the net."""

    field: str
    choice: str
    rewrite: Callable[[LoweredNet], LoweredNet]


REWRITES = (Rewrite("linear", "scale", power_as_scale),)
"""All rewrites, in the order in which they are applied."""


def rewritten(net: LoweredNet, dialect: Dialect) -> LoweredNet:
    """The net with the layers that the dialect chooses."""
    for field, choice, rewrite in REWRITES:
        if getattr(dialect, field) == choice:
            net = rewrite(net)
    return net
