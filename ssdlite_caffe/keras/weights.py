"""From a TensorFlow model's weights to the variables of a Keras model; every tensor and variable is accounted for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.coco.remap import remap_rows
from ssdlite_caffe.dump.model import DumpedModel
from ssdlite_caffe.errors import TensorError
from ssdlite_caffe.gen_model.netdesc import ConvDesc, NetDesc
from ssdlite_caffe.keras.names import batch_norm_scope, layer_name
from ssdlite_caffe.load.fold import fold_into_convolution
from ssdlite_caffe.load.units import UnitWeights, unit_problems, unit_weights

Values = dict[str, FloatArray]
"""Keras variable (`<layer>/kernel`) -> value."""


def keras_values(model: DumpedModel, net: NetDesc) -> Values:
    """The value of each Keras variable, in Keras' layouts, which are TensorFlow's.

    A BatchNorm keeps its gamma, beta and statistics if the model has them; one that was folded to a scale and an offset
    gets equivalent values with mean 0. If its epsilon is not the net's, the difference is added to the variance. A
    factor between class predictor and score converter is multiplied into the predictor.

    Raises:
        TensorError: a tensor is missing, unused or does not fit; all are listed.
    """
    units = {unit.scope: unit for unit in model.units}
    problems: list[str] = []
    values: Values = {}
    used: set[str] = set()
    for conv in net.convolutions:
        unit = units.get(conv.tf_scope)
        if unit is None:
            problems.append(f"the model has no convolution {conv.tf_scope!r}")
            continue
        found = unit_problems(model, unit)
        if found:
            problems += found
            continue
        used.update(unit.tensors.values())
        values.update(_of_conv(conv, unit_weights(model, unit), net, model.settings.logit_scale or 1.0))
    for name in sorted(model.tensors.keys() - used):
        problems.append(f"tensor {name!r} {model.tensors[name].shape} is not used by the Keras model")
    if problems:
        raise TensorError(_listed(f"the weights of {model.source} do not fit the Keras model", problems))
    return values


def set_values(model: Any, values: Values) -> None:
    """Assign every variable of a Keras model from `values`, each once.

    Raises:
        TensorError: a variable has no value, a value has no variable, or their shapes differ; all are listed.
    """
    variables = dict(_variables(model))
    problems = [f"variable {name!r} has no value" for name in variables if name not in values]
    problems += [f"the model has no variable {name!r}" for name in values if name not in variables]
    problems += [
        f"variable {name!r} must have the shape {tuple(variable.shape)}, its value has {values[name].shape}"
        for name, variable in variables.items()
        if name in values and tuple(variable.shape) != values[name].shape
    ]
    if problems:
        raise TensorError(_listed("the weights do not fit the Keras model", problems))
    for name, variable in variables.items():
        variable.assign(values[name])


def get_values(model: Any) -> Values:
    """The values of every variable of a Keras model; the inverse of `set_values`."""
    return {name: np.asarray(variable) for name, variable in _variables(model)}


def with_moved_classes(values: Values, predictors: Sequence[str], rows: Sequence[int]) -> Values:
    """The values of a model with its classes in another order; the weights are copied, never computed.

    Args:
        values: of every variable.
        predictors: layers of the class predictors, whose last axis is (box, class).
        rows: for each new class id the old one, background included.
    """
    return {
        name: np.moveaxis(remap_rows(np.moveaxis(value, -1, 0), value.shape[-1] // len(rows), len(rows), rows), 0, -1)
        if name.rpartition("/")[0] in predictors
        else value
        for name, value in values.items()
    }


def _variables(model: Any) -> Iterator[tuple[str, Any]]:
    for layer in model.layers:
        for variable in layer.weights:
            if "seed_generator" not in variable.path:
                yield f"{layer.name}/{variable.name}", variable


def _of_conv(
    conv: ConvDesc, weights: UnitWeights, net: NetDesc, logit_scale: float
) -> Iterator[tuple[str, FloatArray]]:
    layer = layer_name(conv.tf_scope)
    kernel, bias = weights.kernel, weights.bias
    if conv.batch_norm:
        norm = weights.batch_norm(net.arch.batch_norm_epsilon)
        prefix = layer_name(batch_norm_scope(conv))
        yield f"{prefix}/gamma", norm.gamma
        yield f"{prefix}/beta", norm.beta
        yield f"{prefix}/moving_mean", norm.mean
        yield f"{prefix}/moving_variance", norm.variance
    else:
        affine = weights.affine()
        if affine is not None:
            kernel, bias = fold_into_convolution(kernel, bias, affine)
        if bias is None:
            bias = np.zeros(conv.num_output, np.float32)
        if conv.role == "class_predictor" and logit_scale != 1.0:
            kernel, bias = ((v * np.float64(logit_scale)).astype(np.float32) for v in (kernel, bias))
        yield f"{layer}/bias", bias
    # OIHW back to HWIO, or C1HW to HWC1: values are moved, not computed.
    axes = (2, 3, 0, 1) if conv.depthwise else (2, 3, 1, 0)
    yield f"{layer}/kernel", np.ascontiguousarray(kernel.transpose(axes))


def _listed(what: str, problems: list[str]) -> str:
    count = len(problems)
    shown = "; ".join(problems[:6]) + (f"; and {count - 6} more" if count > 6 else "")
    return f"{what}, {count} problem{'s' * (count > 1)}: {shown}"
