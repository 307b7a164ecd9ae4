"""`--fields all`: every setting of a convolution, for readers with other defaults than Caffe's."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ssdlite_caffe.gen_model.layers import Convolution, LayerDesc, LoweredNet, Spread, Upsample
from ssdlite_caffe.gen_model.rewrites.replace import replaced


def all_fields(net: LoweredNet) -> LoweredNet:
    """Each convolution with pad, stride, dilation, group and bias_term, also where they have Caffe's defaults.

    RKNN reads a stride of a Deconvolution that is not written as 0, and small readers of a board's own often have no
    defaults at all. The net is the same.

    Before:

        layer {
          name: "conv/squeeze_excite/Conv"
          type: "Convolution"
          bottom: "conv/squeeze_excite/pool"
          top: "conv/squeeze_excite/Conv"
          convolution_param {
            num_output: 8
            kernel_size: 1
          }
        }

    After:

        layer {
          name: "conv/squeeze_excite/Conv"
          type: "Convolution"
          bottom: "conv/squeeze_excite/pool"
          top: "conv/squeeze_excite/Conv"
          convolution_param {
            num_output: 8
            bias_term: true
            pad: 0
            kernel_size: 1
            stride: 1
            dilation: 1
            group: 1
          }
        }
    """

    def layers_for(layer: LayerDesc) -> Sequence[LayerDesc]:
        if isinstance(layer, Convolution | Spread | Upsample):
            return (dataclasses.replace(layer, all_fields=True),)
        return (layer,)

    return replaced(net, layers_for)
