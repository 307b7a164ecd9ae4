"""`--names tops`: a blob of its own for each layer, for readers that want it or take names of layers for blobs."""

from __future__ import annotations

import dataclasses

from ssdlite_caffe.gen_model.layers import LayerDesc, LoweredNet


def tops_named_as_layers(net: LoweredNet) -> LoweredNet:
    """Each layer writes a blob with its own name, so that no layer is in place.

    Huawei's ATC (documents of 2021-22) and old Movidius compilers want the top to have the layer's name; other tools
    print only the one or the other. Layers with several tops, and those that make the input, keep the names of their
    tops, unless a layer has the name. What is computed does not change; Caffe needs more memory.

    Before:

        layer {
          name: "conv_1/depthwise/relu"
          type: "ReLU"
          bottom: "conv_1/depthwise"
          top: "conv_1/depthwise"
        }

    After:

        layer {
          name: "conv_1/depthwise/relu"
          type: "ReLU"
          bottom: "conv_1/depthwise"
          top: "conv_1/depthwise/relu"
        }
    """
    layer_names = {layer.name for section in net.sections for layer in section.layers}
    now: dict[str, str] = {}

    def renamed(layer: LayerDesc) -> LayerDesc:
        bottoms = tuple(now.get(blob, blob) for blob in layer.bottoms)
        tops = layer.tops
        if layer.bottoms and len(tops) == 1:
            tops = (layer.name,)
        elif layer.bottoms:
            tops = tuple(f"{layer.name}/{place}" if top in layer_names else top for place, top in enumerate(tops))
        now.update(zip(layer.tops, tops, strict=True))
        return dataclasses.replace(layer, bottoms=bottoms, tops=tops)

    sections = [dataclasses.replace(section, layers=tuple(map(renamed, section.layers))) for section in net.sections]
    return dataclasses.replace(net, sections=tuple(sections))
