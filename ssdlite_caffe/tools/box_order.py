"""TensorFlow's values in the order of the converted net: a cell's default boxes are in another order there."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.gen_model.default_boxes import cell_sizes
from ssdlite_caffe.gen_model.netdesc import ConvDesc, FeatureMapDesc, NetDesc
from ssdlite_caffe.load.boxes import match_cell


def _match(feature_map: FeatureMapDesc, input_size: tuple[int, int]) -> tuple[int, ...]:
    return match_cell(feature_map.tf_boxes, cell_sizes(feature_map.prior, input_size)).source


def caffe_order(net: NetDesc) -> npt.NDArray[np.intp]:
    """Index of each of Caffe's default boxes in TensorFlow's order."""
    parts, start = [], 0
    for feature_map in net.feature_maps:
        cells, count = feature_map.size[0] * feature_map.size[1], len(feature_map.tf_boxes)
        within = np.asarray(_match(feature_map, net.arch.input_size))
        parts.append((start + np.arange(cells)[:, None] * count + within).reshape(-1))
        start += cells * count
    return np.concatenate(parts)


def in_caffe_order(
    net: NetDesc, conv: ConvDesc, values: npt.NDArray[Any], logit_scale: float | None
) -> npt.NDArray[Any]:
    """A layer's values (1, C, H, W) as the net has them: a class predictor's in the net's order and scaled."""
    if conv.role != "class_predictor":
        return values
    feature_map = next(m for m in net.feature_maps if conv in m.conf)
    channels = np.arange(values.shape[1]).reshape(len(feature_map.tf_boxes), -1)
    chosen = values[:, channels[list(_match(feature_map, net.arch.input_size))].reshape(-1)]
    return chosen * np.float32(1.0 if logit_scale is None else logit_scale)
