"""Default boxes that a net holds as numbers, in place of PriorBox layers: the model's own.

`load/boxes.py` folds the difference of TensorFlow's boxes and PriorBox's into the box predictor. With the model's own
boxes there is no difference: every factor is 1 and every offset 0, so weights are only moved, and keep every bit. The
boxes of a cell are in the order in which PriorBox would have them, so that predictors are alike in all dialects.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump.model import DumpedModel
from ssdlite_caffe.gen_model.default_boxes import anchor_boxes, tf_default_boxes
from ssdlite_caffe.gen_model.layers import BOXES_LAYER
from ssdlite_caffe.gen_model.netdesc import FeatureMapDesc, NetDesc
from ssdlite_caffe.gen_model.prior_boxes import caffe_prior_boxes, cell_sizes
from ssdlite_caffe.load.boxes import Sizes, match_cell
from ssdlite_caffe.prototxt import caffe_pb2


def holds_own_boxes(net: caffe_pb2.NetParameter, desc: NetDesc) -> bool:
    """Whether the predictors of a net are for the model's own boxes; else they are for those of PriorBox layers."""
    return bool(desc.arch.irregular_boxes) or any(layer.name == BOXES_LAYER for layer in net.layer)


def own_default_boxes(model: DumpedModel, net: NetDesc) -> FloatArray:
    """The model's default boxes, float32 (N, 4): ymin, xmin, ymax, xmax as fractions, in TensorFlow's order.

    They are those of its graph, bit for bit. Where it has none, or has regular ones in a rounded form, they are
    computed from the pipeline.config's anchors or from the architecture, in float64 and rounded once.
    """
    settings, arch = model.settings, net.arch
    if settings.default_boxes is not None and (arch.irregular_boxes or not settings.box_rounding):
        return settings.default_boxes
    if arch.irregular_boxes and settings.anchors is not None:
        return anchor_boxes(settings.anchors, [m.size for m in net.feature_maps], arch.input_size).astype(np.float32)
    return tf_default_boxes(net).astype(np.float32)


def order_in_cell(feature_map: FeatureMapDesc, input_size: tuple[int, int]) -> tuple[int, ...]:
    """For each of Caffe's boxes in a cell, the index of TensorFlow's box that it stands for."""
    return match_cell(feature_map.tf_boxes, cell_sizes(feature_map.prior, input_size)).source


def sizes_in_cell(feature_map: FeatureMapDesc, input_size: tuple[int, int], *, own: bool) -> Sizes:
    """(height, width) of a cell's boxes in Caffe's order: TensorFlow's own, or those of the PriorBox layer."""
    if not own:
        return cell_sizes(feature_map.prior, input_size)
    return tuple(feature_map.tf_boxes[i] for i in order_in_cell(feature_map, input_size))


def caffe_order(net: NetDesc) -> npt.NDArray[np.intp]:
    """Index of each of Caffe's default boxes in TensorFlow's order."""
    parts, start = [], 0
    for feature_map in net.feature_maps:
        cells, count = feature_map.size[0] * feature_map.size[1], len(feature_map.tf_boxes)
        within = np.asarray(order_in_cell(feature_map, net.arch.input_size))
        parts.append((start + np.arange(cells)[:, None] * count + within).reshape(-1))
        start += cells * count
    return np.concatenate(parts)


def own_priors(boxes: FloatArray, net: NetDesc) -> FloatArray:
    """The model's own boxes and variances in Caffe's order, float32 (N, 8): xmin, ymin, xmax, ymax, then variances.

    Args:
        boxes: from `own_default_boxes`.
        net: has the order and the variances.
    """
    corners = boxes[caffe_order(net)][:, [1, 0, 3, 2]]
    return np.concatenate([corners, np.broadcast_to(np.asarray(net.arch.variances, np.float32), corners.shape)], axis=1)


def layer_priors(net: NetDesc) -> FloatArray:
    """What the PriorBox layers of a net make, in the form of `own_priors`; computed in float64 and rounded once."""
    size = net.arch.input_size
    parts = [
        np.concatenate([corners, np.broadcast_to(np.asarray(m.prior.variances), corners.shape)], axis=1)
        for m in net.feature_maps
        for corners in (caffe_prior_boxes(m.prior, m.size, size),)
    ]
    return np.concatenate(parts).astype(np.float32)


def headless_priors(model: DumpedModel, net: NetDesc) -> FloatArray:
    """What the box encodings of a net without default boxes are relative to, in the form of `own_priors`."""
    return own_priors(own_default_boxes(model, net), net) if net.arch.irregular_boxes else layer_priors(net)


def code_limits(net: NetDesc, corners: npt.NDArray[Any]) -> npt.NDArray[np.float64] | None:
    """The most that variance * encoding of width and height may be, float64 (N, 2); None without a `code_limit`.

    The model limits log(size / its default box's size) to L. The net's default box may have another size, which is
    folded into the predictor, so the net's limit is L + log(the model's size / the net's).

    Args:
        net: has the limit and the model's default boxes.
        corners: the net's default boxes (N, 4): xmin, ymin, xmax, ymax, in Caffe's order.
    """
    if net.arch.code_limit is None:
        return None
    size, parts = net.arch.input_size, []
    for m in net.feature_maps:
        own = np.asarray(sizes_in_cell(m, size, own=True))[:, ::-1]
        parts.append(np.tile(own, (m.size[0] * m.size[1], 1)))
    given = np.asarray(corners, np.float64)
    return net.arch.code_limit + np.log(np.concatenate(parts) / (given[:, 2:] - given[:, :2]))


def boxes_layer_blobs(priors: FloatArray, channels: int = 3) -> tuple[FloatArray, FloatArray]:
    """Weights and bias of the layer BOXES_LAYER for priors (N, 8): zeros (8 N, channels); corners, then variances."""
    bias = np.concatenate([priors[:, :4].reshape(-1), priors[:, 4:].reshape(-1)]).astype(np.float32)
    return np.zeros((len(bias), channels), np.float32), bias
