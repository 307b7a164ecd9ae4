"""`--outputs per-map`: a headless net's outputs of each feature map on their own, for int8."""

from __future__ import annotations

from collections.abc import Sequence

from ssdlite_caffe.gen_model.layers import Concat, LayerDesc, LoweredNet
from ssdlite_caffe.gen_model.rewrites.replace import replaced

JOINED = ("mbox_loc", "mbox_conf")
"""The layers that join the outputs of all feature maps."""


def outputs_per_map(net: LoweredNet) -> LoweredNet:
    """A net that ends at each feature map's box encodings and logits, without the layers that join them.

    Programs that quantise to int8 give what one Concat joins one scale, though box encodings range to 8 on one map and
    to 1 on another. Each map's values are in the order of the joined output, map after map: joined, they are the same.
    mbox_priorbox, whose numbers are constants, stays joined. A net that goes on from the joined outputs is not changed.

    Before:

        layer {
          name: "mbox_loc"
          type: "Concat"
          bottom: "conv_8/expand_mbox_loc_flat"
          bottom: "Conv_1_mbox_loc_flat"

    After: nothing; the outputs are conv_8/expand_mbox_loc_flat, Conv_1_mbox_loc_flat, ...
    """
    read = {blob for section in net.sections for layer in section.layers for blob in layer.bottoms}

    def layers_for(layer: LayerDesc) -> Sequence[LayerDesc]:
        ends = isinstance(layer, Concat) and layer.name in JOINED and layer.tops[0] not in read
        return () if ends else (layer,)

    return replaced(net, layers_for)
