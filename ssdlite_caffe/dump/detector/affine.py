"""The ops between a convolution and its activation: BatchNorm in any form, bias, or what constant folding left of them.

Each op maps x to factor * x + term per channel, so a chain of them is one scale and one offset. If the chain is a
BatchNorm that is not folded, or a single bias, its constants are returned bit for bit. Otherwise scale and offset are
computed in float64 and rounded once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump.graph.constants import Evaluator
from ssdlite_caffe.dump.graph.view import Graph, Node, Ref, Use
from ssdlite_caffe.errors import ModelError

Vector = npt.NDArray[np.float64]

FUSED_BATCH_NORMS = frozenset({"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"})
ADDS = frozenset({"Add", "AddV2", "BiasAdd"})
DIVISIONS = frozenset({"RealDiv", "Div"})


@dataclass(frozen=True)
class BatchNormParts:
    """The constants of a BatchNorm that is not folded, float32 (C,); gamma or beta is None if the graph has none."""

    moving_mean: FloatArray
    moving_variance: FloatArray
    gamma: FloatArray | None
    beta: FloatArray | None
    epsilon: float


@dataclass(frozen=True)
class Factor:
    """y = x * value, or x / value."""

    value: Ref
    divides: bool = False


@dataclass(frozen=True)
class Term:
    """y = x + value, x - value (`minus`) or value - x (`reversed`)."""

    value: Ref
    minus: bool = False
    reversed: bool = False


Step = Factor | Term | BatchNormParts


@dataclass(frozen=True)
class Constants:
    """Two evaluators of a graph's constants: `plain` rounds as TensorFlow does, `precise` computes in float64."""

    graph: Graph
    plain: Evaluator
    precise: Evaluator

    @classmethod
    def of(cls, graph: Graph) -> Constants:
        """Evaluators of one graph."""
        return cls(graph, Evaluator(graph), Evaluator(graph, precise=True))

    def has_computed(self, name: str) -> bool:
        """Whether the value of the node `name` has been computed so far."""
        return self.plain.has_computed(name) or self.precise.has_computed(name)


def per_channel(value: npt.NDArray[Any] | None, channels: int) -> npt.NDArray[Any] | None:
    """A float constant as a (C,) vector: one value for all channels, or one per channel in the last axis; else None."""
    if value is None or value.dtype.kind != "f":
        return None
    if value.size == 1:
        return np.broadcast_to(value.reshape(()), (channels,))
    if value.size == channels and value.shape[-1] == channels:
        return value.reshape(channels)
    return None


def step_at(constants: Constants, use: Use, channels: int) -> Step | None:
    """The affine op at `use`; None if the op is not affine.

    Raises:
        ModelError: it is a fused BatchNorm that cannot be read.
    """
    node = use.node
    if node.op in FUSED_BATCH_NORMS and use.position == 0:
        return _fused(constants, node, channels)
    if node.op not in ADDS | DIVISIONS | {"Sub", "Mul"} or len(node.inputs) != 2:
        return None
    other = node.inputs[1 - use.position]
    if per_channel(constants.plain.get(other), channels) is None:
        return None
    if node.op == "Mul":
        return Factor(other)
    if node.op in DIVISIONS:
        return Factor(other, divides=True) if use.position == 0 else None
    if node.op == "Sub":
        return Term(other, minus=use.position == 0, reversed=use.position == 1)
    return Term(other)


def _fused(constants: Constants, node: Node, channels: int) -> BatchNormParts:
    if node.attr_bool("is_training", True):
        raise ModelError(
            f"{node.name} normalises with the statistics of each batch (is_training: true), as in training; "
            "export the graph for inference"
        )
    if node.attr_text("data_format", "NHWC") != "NHWC":
        raise ModelError(f"{node.name} has data format {node.attr_text('data_format')}; only NHWC graphs are read")
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    if len(node.inputs) != 5:
        raise ModelError(f"{node.name} ({node.op}) must have 5 inputs, got {len(node.inputs)}")
    parts = {}
    for name, ref in zip(names, node.inputs[1:], strict=True):
        vector = _vector(constants, ref, channels)
        if vector is None:
            raise ModelError(f"{node.name}: its {name} ({ref}) must be a constant of {channels} float values")
        parts[name] = vector
    return BatchNormParts(
        parts["moving_mean"],
        parts["moving_variance"],
        None if _is_filler(constants.graph, node.inputs[1], "gamma", parts["gamma"], 1) else parts["gamma"],
        None if _is_filler(constants.graph, node.inputs[2], "beta", parts["beta"], 0) else parts["beta"],
        epsilon=node.attr_float("epsilon", 1e-4),
    )


def _is_filler(graph: Graph, ref: Ref, name: str, value: FloatArray, number: float) -> bool:
    """Whether an input is a placeholder that the fused op needs: ones for gamma or zeros for beta, not a variable.

    Source: `fused_batch_norm` in slim's layers.py, with scale=False or center=False.
    """
    variable = re.search(rf"(?:^|/){name}(?:/|$)", graph.origin(ref).name)
    return variable is None and bool(np.all(value == number))


def _vector(constants: Constants, ref: Ref | None, channels: int) -> FloatArray | None:
    value = per_channel(constants.plain.get(ref) if ref is not None else None, channels)
    return None if value is None else np.ascontiguousarray(value, np.float32)


def batch_norm_of(constants: Constants, steps: list[Step], channels: int) -> BatchNormParts | None:
    """The constants of a BatchNorm written as x * m + (beta - mean * m) with m = gamma * rsqrt(variance + epsilon).

    Returns:
        None if the steps are something else. gamma and beta may be missing in the graph.

    Source: `batch_normalization` in tensorflow/python/ops/nn_impl.py.
    """
    if len(steps) != 2 or not isinstance(steps[0], Factor) or not isinstance(steps[1], Term):
        return None
    factor, term = steps[0], steps[1]
    if factor.divides or term.minus or term.reversed:
        return None
    graph = constants.graph
    multiplier = graph.origin(factor.value)
    inverse, gamma = _inverse_deviation(graph, multiplier)
    if inverse is None:
        return None
    spread = _variance_and_epsilon(constants, inverse)
    shift = _mean_and_beta(graph, graph.origin(term.value), multiplier)
    if spread is None or shift is None:
        return None
    variance, epsilon = spread
    mean, beta = shift
    vectors = [_vector(constants, ref, channels) for ref in (mean, variance, gamma, beta)]
    if vectors[0] is None or vectors[1] is None:
        return None
    if (gamma is not None and vectors[2] is None) or (beta is not None and vectors[3] is None):
        return None
    return BatchNormParts(vectors[0], vectors[1], vectors[2], vectors[3], epsilon)


def _inverse_deviation(graph: Graph, multiplier: Ref) -> tuple[Ref | None, Ref | None]:
    """(what Rsqrt reads, gamma) of rsqrt(..) or rsqrt(..) * gamma; (None, None) for anything else."""
    node = graph[multiplier]
    if node.op == "Rsqrt":
        return graph.input(node, 0), None
    if node.op == "Mul" and len(node.inputs) == 2:
        for first in (0, 1):
            root = graph[graph.origin(node.inputs[first])]
            if root.op == "Rsqrt":
                return graph.input(root, 0), node.inputs[1 - first]
    return None, None


def _variance_and_epsilon(constants: Constants, ref: Ref) -> tuple[Ref, float] | None:
    node = constants.graph[ref]
    if node.op not in ADDS or len(node.inputs) != 2:
        return None
    # TensorFlow writes variance + epsilon; the operands may be in either order.
    for variance, epsilon in (node.inputs, node.inputs[::-1]):
        value = constants.plain.scalar(epsilon)
        if value is not None:
            return variance, value
    return None


def _mean_and_beta(graph: Graph, ref: Ref, multiplier: Ref) -> tuple[Ref, Ref | None] | None:
    """(mean, beta) of beta - mean * multiplier, or of -mean * multiplier without beta."""
    node = graph[ref]
    if node.op == "Sub" and len(node.inputs) == 2:
        mean = _other_operand(graph, graph.origin(node.inputs[1]), multiplier)
        return None if mean is None else (mean, node.inputs[0])
    negated = _other_operand(graph, ref, multiplier)
    if negated is not None:
        root = graph[graph.origin(negated)]
        if root.op == "Neg" and root.inputs:
            return root.inputs[0], None
    return None


def _other_operand(graph: Graph, product: Ref, multiplier: Ref) -> Ref | None:
    node = graph[product]
    if node.op == "Mul" and len(node.inputs) == 2:
        for position in (0, 1):
            if graph.origin(node.inputs[position]) == multiplier:
                return node.inputs[1 - position]
    return None


def scale_and_offset(constants: Constants, steps: list[Step], channels: int) -> tuple[Vector, Vector]:
    """A chain of affine ops as y = scale * x + offset, float64 (C,) each."""
    scale = np.ones(channels)
    offset = np.zeros(channels)
    for step in steps:
        if isinstance(step, BatchNormParts):
            factor, term = fold_batch_norm(step)
            scale, offset = scale * factor, offset * factor + term
            continue
        value = per_channel(constants.precise.get(step.value), channels)
        assert value is not None, f"{step.value} is not constant, but step_at said so"
        value = value.astype(np.float64)
        if isinstance(step, Factor):
            factor = 1 / value if step.divides else value
            scale, offset = scale * factor, offset * factor
        elif step.reversed:
            scale, offset = -scale, value - offset
        else:
            offset = offset - value if step.minus else offset + value
    return scale, offset


def fold_batch_norm(parts: BatchNormParts) -> tuple[Vector, Vector]:
    """(factor, term) in float64: factor = gamma / sqrt(variance + epsilon), term = beta - mean * factor."""
    factor = 1 / np.sqrt(parts.moving_variance.astype(np.float64) + parts.epsilon)
    if parts.gamma is not None:
        factor = factor * parts.gamma
    term = -parts.moving_mean.astype(np.float64) * factor
    return factor, term if parts.beta is None else term + parts.beta


def lone_bias(constants: Constants, steps: list[Step], channels: int) -> FloatArray | None:
    """The bias, bit for bit, of a chain that is one addition or subtraction; None for other chains."""
    if len(steps) != 1 or not isinstance(steps[0], Term) or steps[0].reversed:
        return None
    vector = _vector(constants, steps[0].value, channels)
    if vector is None:
        return None
    return -vector if steps[0].minus else vector
