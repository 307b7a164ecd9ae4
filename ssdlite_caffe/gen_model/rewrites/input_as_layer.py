"""`--input-form layer`: the net's input as a layer."""

from __future__ import annotations

import dataclasses

from ssdlite_caffe.gen_model.layers import Input, LayerSection, LoweredNet


def input_as_layer(net: LoweredNet) -> LoweredNet:
    """An Input layer in place of the `input` and `input_shape` fields of a net.

    ncnn's caffe2ncnn reads no other input. BVLC Caffe has the layer since 2016 and reads the fields as if they were
    one; older forks, such as those of 2015 from which some SSD branches come, have the fields alone. Train and test
    nets have data layers.

    Before:

        input: "data"
        input_shape {
          dim: 1
          dim: 3
          dim: 320
          dim: 320
        }

    After:

        layer {
          name: "data"
          type: "Input"
          top: "data"
          input_param {
            shape {
              dim: 1
              dim: 3
              dim: 320
              dim: 320
            }
          }
        }
    """
    if net.input_shape is None:
        return net
    _, channels, height, width = net.input_shape
    layer = Input(name="data", bottoms=(), tops=("data",), shape=net.input_shape)
    section = LayerSection("input", (layer,), f"{channels} x {height} x {width}")
    return dataclasses.replace(net, sections=(section, *net.sections), input_shape=None)
