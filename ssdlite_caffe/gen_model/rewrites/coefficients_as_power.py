"""`--coefficients power`: weighted sums for runtimes that do not read an Eltwise layer's `coeff`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ssdlite_caffe.gen_model.layers import Eltwise, LayerDesc, LoweredNet, Power
from ssdlite_caffe.gen_model.rewrites.replace import replaced


def coefficients_as_power(net: LoweredNet) -> LoweredNet:
    """Each Eltwise sum with coefficients as Power layers, for the factors that are not 1, and a plain sum.

    MNN ignores `coeff`. Only nets of models that clip boxes before suppression have such sums (`lower_clip.py`); their
    factors are powers of two, so the results are the same.

    Before:

        layer {
          name: "prior_size"
          type: "Eltwise"
          bottom: "prior_max"
          bottom: "prior_min"
          top: "prior_size"
          eltwise_param {
            operation: SUM
            coeff: 1.0
            coeff: -1.0
          }
        }

    After:

        layer {
          name: "prior_size/term_2"
          type: "Power"
          bottom: "prior_min"
          top: "prior_size/term_2"
          power_param {
            scale: -1.0
            shift: 0.0
          }
        }
        layer {
          name: "prior_size"
          type: "Eltwise"
          bottom: "prior_max"
          bottom: "prior_size/term_2"
          top: "prior_size"
          eltwise_param {
            operation: SUM
          }
        }
    """

    def layers_for(layer: LayerDesc) -> Sequence[LayerDesc]:
        if not isinstance(layer, Eltwise) or not layer.coefficients:
            return (layer,)
        terms, bottoms = [], []
        for number, (blob, factor) in enumerate(zip(layer.bottoms, layer.coefficients, strict=True), 1):
            name = f"{layer.name}/term_{number}"
            if factor != 1:
                terms.append(Power(name=name, bottoms=(blob,), tops=(name,), scale=factor))
            bottoms.append(blob if factor == 1 else name)
        return (*terms, dataclasses.replace(layer, bottoms=tuple(bottoms), coefficients=()))

    return replaced(net, layers_for)
