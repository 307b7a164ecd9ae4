"""Shapes of losses and of accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ssdlite_caffe.prototxt.rule import Layer, Outcome, Rule, need_equal
from ssdlite_caffe.prototxt.sizes import Shape, ShapeError, axis_index, show


def _accuracy(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    axis = axis_index(layer.accuracy_param.axis, len(bottoms[0]))
    _need_labels(bottoms, axis)
    return Outcome(((), (bottoms[0][axis],))[: len(layer.top)])


def _softmax_loss(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    _need_labels(bottoms, axis_index(layer.softmax_param.axis, len(bottoms[0])))
    return Outcome(((), bottoms[0])[: len(layer.top)])


def _need_labels(bottoms: Sequence[Shape], axis: int) -> None:
    """Raise ShapeError unless there is one label for each index of the other axes."""
    labels = math.prod(bottoms[0][:axis] + bottoms[0][axis + 1 :])
    if math.prod(bottoms[1]) != labels:
        raise ShapeError(f"{show(bottoms[0])} needs {labels} labels, got {show(bottoms[1])}")


def _loss(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    """A loss that compares two bottoms of the same shape; its top is one number."""
    if math.prod(bottoms[0]) != math.prod(bottoms[1]):
        need_equal(bottoms[:2])
    return Outcome(((),) * len(layer.top))


def _label_loss(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    if bottoms[0][:1] != bottoms[1][:1]:
        raise ShapeError(f"bottoms have different batch sizes: {show(bottoms[0])} and {show(bottoms[1])}")
    return Outcome(((),) * len(layer.top))


LOSS_RULES: dict[str, Rule] = {
    "Accuracy": Rule(_accuracy, (2, 2), (1, 2)),
    "SoftmaxWithLoss": Rule(_softmax_loss, (2, 3), (0, 2)),
    "EuclideanLoss": Rule(_loss, (2, 2), (0, 1)),
    "SigmoidCrossEntropyLoss": Rule(_loss, (2, 2), (0, 2)),
    "SmoothL1Loss": Rule(_loss, (2, 4), (0, 1)),
    "HingeLoss": Rule(_label_loss, (2, 2), (0, 1)),
    "InfogainLoss": Rule(_label_loss, (2, 3), (0, 2)),
    "MultinomialLogisticLoss": Rule(_label_loss, (2, 2), (0, 1)),
    "ContrastiveLoss": Rule(_label_loss, (3, 3), (0, 1)),
}
