"""TensorFlow's values in the order of the converted net: a cell's default boxes are in another order there."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.gen_model.netdesc import ConvDesc, NetDesc
from ssdlite_caffe.load.own_boxes import order_in_cell


def in_caffe_order(
    net: NetDesc, conv: ConvDesc, values: npt.NDArray[Any], logit_scale: float | None
) -> npt.NDArray[Any]:
    """A layer's values (1, C, H, W) as the net has them: a class predictor's in the net's order and scaled."""
    if conv.role != "class_predictor":
        return values
    feature_map = next(m for m in net.feature_maps if conv in m.conf)
    channels = np.arange(values.shape[1]).reshape(len(feature_map.tf_boxes), -1)
    chosen = values[:, channels[list(order_in_cell(feature_map, net.arch.input_size))].reshape(-1)]
    return chosen * np.float32(1.0 if logit_scale is None else logit_scale)
