"""`--gate`: squeeze-excite gates for runtimes without Scale layers of two bottoms."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ssdlite_caffe.gen_model.layers import Eltwise, Flatten, Gate, Interp, LayerDesc, LoweredNet, Spread
from ssdlite_caffe.gen_model.rewrites.replace import frozen, replaced


def gate_as_deconvolution(net: LoweredNet) -> LoweredNet:
    """Each gate as a depthwise Deconvolution that makes a map of its 1 x 1 values, and a product of two maps.

    MNN wants weights in a Scale layer, and X2Paddle and caffe2onnx take no second bottom. The Deconvolution's kernel is
    the whole map and holds ones, so each value is multiplied by 1 once: the results are the same. The caffemodel grows
    by channels x height x width ones a gate.

    Before:

        layer {
          name: "conv/squeeze_excite/flat"
          type: "Flatten"
          bottom: "conv/squeeze_excite/Conv_1"
          top: "conv/squeeze_excite/flat"
          flatten_param {
            axis: 1
          }
        }
        layer {
          name: "conv/squeeze_excite"
          type: "Scale"
          bottom: "conv/depthwise"
          bottom: "conv/squeeze_excite/flat"
          top: "conv/squeeze_excite"
          scale_param {
            axis: 0
          }
        }

    After:

        layer {
          name: "conv/squeeze_excite/map"
          type: "Deconvolution"
          bottom: "conv/squeeze_excite/Conv_1"
          top: "conv/squeeze_excite/map"
          convolution_param {
            num_output: 16
            bias_term: false
            kernel_size: 80
            stride: 1
            group: 16
            weight_filler {
              type: "constant"
              value: 1.0
            }
          }
        }
        layer {
          name: "conv/squeeze_excite"
          type: "Eltwise"
          bottom: "conv/depthwise"
          bottom: "conv/squeeze_excite/map"
          top: "conv/squeeze_excite"
          eltwise_param {
            operation: PROD
          }
        }
    """
    learning = frozen(net, 1)

    def spread(gate: Gate, values: str, name: str) -> LayerDesc:
        return Spread(
            name=name, bottoms=(values,), tops=(name,), learning=learning, channels=gate.channels, size=gate.size
        )

    return _products(net, spread)


def gate_as_interp(net: LoweredNet) -> LoweredNet:
    """Each gate as an Interp layer that makes a map of its 1 x 1 values, and a product of two maps.

    For MNN and tpu-mlir, without the ones that `gate_as_deconvolution` adds to the caffemodel. Interp is a layer of
    PSPNet's and DeepLab's forks that neither BVLC's Caffe nor the one built here has. Bilinear resizing of a single
    pixel repeats it: the results are the same.

    Before: see `gate_as_deconvolution`, whose Deconvolution is here

    After:

        layer {
          name: "conv/squeeze_excite/map"
          type: "Interp"
          bottom: "conv/squeeze_excite/Conv_1"
          top: "conv/squeeze_excite/map"
          interp_param {
            height: 80
            width: 80
          }
        }
    """

    def resized(gate: Gate, values: str, name: str) -> LayerDesc:
        return Interp(name=name, bottoms=(values,), tops=(name,), size=gate.size)

    return _products(net, resized)


def gate_as_eltwise(net: LoweredNet) -> LoweredNet:
    """Each gate as a product of a map, C x H x W, and its values, C x 1 x 1, of which each is used for a whole channel.

    For X2Paddle, and OpenCV takes it too; the results are the same. Caffe's Eltwise wants equal shapes and stops. MNN
    converts the net without a word and computes something else.

    After:

        layer {
          name: "conv/squeeze_excite"
          type: "Eltwise"
          bottom: "conv/depthwise"
          bottom: "conv/squeeze_excite/Conv_1"
          top: "conv/squeeze_excite"
          eltwise_param {
            operation: PROD
          }
        }
    """
    return _products(net, None)


def _products(net: LoweredNet, make_map: Callable[[Gate, str, str], LayerDesc] | None) -> LoweredNet:
    """Gates as products; `make_map` gives the layer from a gate's values to the blob of the given name."""
    layers = [layer for section in net.sections for layer in section.layers]
    read = {layer.bottoms[1] for layer in layers if isinstance(layer, Gate)}
    flattened = {
        layer.tops[0]: layer.bottoms[0] for layer in layers if isinstance(layer, Flatten) and layer.tops[0] in read
    }

    def layers_for(layer: LayerDesc) -> Sequence[LayerDesc]:
        if isinstance(layer, Flatten) and layer.tops[0] in flattened:
            return ()
        if not isinstance(layer, Gate):
            return (layer,)
        x, values = layer.bottoms[0], flattened[layer.bottoms[1]]
        maps = () if make_map is None else (make_map(layer, values, f"{layer.name}/map"),)
        factor = maps[0].tops[0] if maps else values
        product = Eltwise(name=layer.name, bottoms=(x, factor), tops=layer.tops, operation="PROD")
        return (*maps, product)

    return replaced(net, layers_for)
