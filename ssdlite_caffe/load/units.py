"""The weights of one convolution of a DumpedModel, in Caffe's layout."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump.model import ConvUnit, DumpedModel
from ssdlite_caffe.load.fold import Affine, BatchNorm, absorb_bias, affine_of, as_batch_norm, with_epsilon
from ssdlite_caffe.load.layouts import conv_kernel, depthwise_kernel


@dataclass(frozen=True)
class UnitWeights:
    """The weights of a convolution and of its normalisation.

    Attributes:
        kernel: float32 OIHW.
        bias: float32 (O,), or None.
        norm: a BatchNorm; an Affine, where the graph has the BatchNorm folded to scale and offset; or None.
    """

    kernel: FloatArray
    bias: FloatArray | None
    norm: BatchNorm | Affine | None

    def affine(self) -> Affine | None:
        """The norm as scale and offset; None if there is no norm."""
        return affine_of(self.norm) if isinstance(self.norm, BatchNorm) else self.norm

    def batch_norm(self, epsilon: float) -> BatchNorm:
        """Norm and bias together as a BatchNorm of the given epsilon, its statistics unchanged if possible."""
        if isinstance(self.norm, BatchNorm):
            norm = self.norm if self.bias is None else absorb_bias(self.norm, self.bias)
            return with_epsilon(norm, epsilon)
        outputs = self.kernel.shape[0]
        affine = self.norm or Affine(np.ones(outputs), np.zeros(outputs))
        if self.bias is not None:
            affine = Affine(affine.scale, affine.offset + self.bias.astype(np.float64) * affine.scale)
        return as_batch_norm(affine, epsilon, self.kernel.dtype)


def unit_problems(model: DumpedModel, unit: ConvUnit) -> list[str]:
    """One sentence for each problem of the tensors of `unit`: what is missing, or does not fit together."""
    parts = unit.tensors
    missing = [
        f"tensor {name!r} ({part} of {unit.scope!r}) is missing"
        for part, name in parts.items()
        if name not in model.tensors
    ]
    if "weights" not in parts:
        missing.append(f"{unit.scope!r} has no kernel")
    if ("moving_mean" in parts) != ("moving_variance" in parts):
        missing.append(f"{unit.scope!r} has only one of moving_mean and moving_variance")
    if "moving_mean" in parts and unit.epsilon is None:
        missing.append(f"{unit.scope!r} has a BatchNorm but no epsilon")
    return missing or _misfits(model, unit)


def _misfits(model: DumpedModel, unit: ConvUnit) -> list[str]:
    kernel = model.tensors[unit.tensors["weights"]].shape
    if len(kernel) != 4:
        return [f"tensor {unit.tensors['weights']!r} must have 4 axes, as a kernel has, got the shape {kernel}"]
    wanted = (kernel[2] * kernel[3] if unit.kind == "depthwise" else kernel[3],)
    problems = [
        f"tensor {name!r} has the shape {model.tensors[name].shape}, its kernel needs {wanted}"
        for part, name in unit.tensors.items()
        if part != "weights" and model.tensors[name].shape != wanted
    ]
    variance = unit.tensors.get("moving_variance")
    if variance is not None and not (model.tensors[variance] + (unit.epsilon or 0.0) > 0).all():
        problems.append(f"tensor {variance!r} holds negative variances")
    return problems


def unit_weights(model: DumpedModel, unit: ConvUnit) -> UnitWeights:
    """The tensors of `unit` in Caffe's layout, copied bit for bit; `unit_problems` must have found no problem."""
    tensors = {part: model.tensors[name] for part, name in unit.tensors.items()}
    move = depthwise_kernel if unit.kind == "depthwise" else conv_kernel
    kernel = move(tensors["weights"])
    norm: BatchNorm | Affine | None = None
    if "moving_mean" in tensors:
        mean = tensors["moving_mean"]
        assert unit.epsilon is not None, f"{unit.scope} has statistics but no epsilon"
        norm = BatchNorm(
            mean,
            tensors["moving_variance"],
            tensors.get("gamma", np.ones_like(mean)),
            tensors.get("beta", np.zeros_like(mean)),
            unit.epsilon,
        )
    elif "scale" in tensors or "offset" in tensors:
        outputs = kernel.shape[0]
        norm = Affine(
            tensors.get("scale", np.ones(outputs, np.float32)).astype(np.float64),
            tensors.get("offset", np.zeros(outputs, np.float32)).astype(np.float64),
        )
    return UnitWeights(kernel, tensors.get("biases"), norm)
