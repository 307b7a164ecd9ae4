"""`--linear scale`: scale * x + shift by Scale layers, for runtimes without Power."""

from __future__ import annotations

from collections.abc import Sequence

from ssdlite_caffe.gen_model.layers import ConstantScale, LayerDesc, LoweredNet, Power
from ssdlite_caffe.gen_model.rewrites.replace import frozen, replaced


def power_as_scale(net: LoweredNet) -> LoweredNet:
    """Each Power layer with power 1 as a Scale layer with one bottom, whose blobs hold scale and shift.

    Sophgo's tpu-mlir does not implement Power, and VeriSilicon's Acuity has none; both have Scale. The numbers are
    rounded to float32 in either layer: the results are the same. Power layers with another power stay.

    Before:

        layer {
          name: "Conv/shift"
          type: "Power"
          bottom: "Conv/linear"
          top: "Conv/ramp"
          power_param {
            scale: 1.0
            shift: 3.0
          }
        }

    After:

        layer {
          name: "Conv/shift"
          type: "Scale"
          bottom: "Conv/linear"
          top: "Conv/ramp"
          scale_param {
            filler {
              type: "constant"
              value: 1.0
            }
            bias_term: true
            bias_filler {
              type: "constant"
              value: 3.0
            }
          }
        }
    """
    learning = frozen(net, 2)

    def layers_for(layer: LayerDesc) -> Sequence[LayerDesc]:
        if not isinstance(layer, Power) or layer.power != 1:
            return (layer,)
        return (
            ConstantScale(
                name=layer.name,
                bottoms=layer.bottoms,
                tops=layer.tops,
                phase=layer.phase,
                learning=learning,
                constants=(layer.scale, layer.shift),
            ),
        )

    return replaced(net, layers_for)
