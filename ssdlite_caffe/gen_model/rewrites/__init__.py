"""Other layers for the same net: one function a file, from a net of layers to a net of layers, and their order.

`lower` writes a net for Caffe's SSD branch and OpenCV. A runtime that lacks one of these layers, or reads it in its own
way, gets others that compute the same: each choice of `Dialect` that a rewrite stands for is in `REWRITES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.gen_model.layers import LoweredNet
from ssdlite_caffe.gen_model.rewrites.all_fields import all_fields
from ssdlite_caffe.gen_model.rewrites.coefficients_as_power import coefficients_as_power
from ssdlite_caffe.gen_model.rewrites.gates import gate_as_deconvolution, gate_as_eltwise, gate_as_interp
from ssdlite_caffe.gen_model.rewrites.input_as_layer import input_as_layer
from ssdlite_caffe.gen_model.rewrites.outputs_per_map import outputs_per_map
from ssdlite_caffe.gen_model.rewrites.power_as_scale import power_as_scale
from ssdlite_caffe.gen_model.rewrites.priors import priors_as_constants, without_priors
from ssdlite_caffe.gen_model.rewrites.tops_named_as_layers import tops_named_as_layers


class Rewrite(NamedTuple):
    """A choice of a field of `Dialect`, and what makes it of the net."""

    field: str
    choice: str
    rewrite: Callable[[LoweredNet], LoweredNet]


REWRITES = (
    Rewrite("priors", "constant", priors_as_constants),
    Rewrite("priors", "none", without_priors),
    Rewrite("outputs", "per-map", outputs_per_map),
    Rewrite("coefficients", "power", coefficients_as_power),
    Rewrite("linear", "scale", power_as_scale),  # the Power layers of the rewrite before it, too
    Rewrite("gate", "deconvolution", gate_as_deconvolution),
    Rewrite("gate", "interp", gate_as_interp),
    Rewrite("gate", "eltwise", gate_as_eltwise),
    Rewrite("input_form", "layer", input_as_layer),
    Rewrite("fields", "all", all_fields),
    Rewrite("names", "tops", tops_named_as_layers),  # last, since it names what all others write
)
"""All rewrites, in the order in which they are applied."""


def rewritten(net: LoweredNet, dialect: Dialect) -> LoweredNet:
    """The net with the layers that the dialect chooses."""
    for field, choice, rewrite in REWRITES:
        if getattr(dialect, field) == choice:
            net = rewrite(net)
    return net
