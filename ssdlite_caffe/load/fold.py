"""BatchNorm arithmetic: folding into a convolution, or rewriting for Caffe's blobs; in float64, rounded once.

Results have the dtype of the tensors that go in: float32 for a net that is written. Of the same tensors in float64 they
are not rounded, which is what `tools.whole_net` compares.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.arrays import FloatArray

DoubleArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class BatchNorm:
    """Statistics and parameters of one BatchNorm, each float32 (C,).

    y = (x - mean) / sqrt(variance + epsilon) * gamma + beta.
    """

    mean: FloatArray
    variance: FloatArray
    gamma: FloatArray
    beta: FloatArray
    epsilon: float


@dataclass(frozen=True)
class Affine:
    """y = x * scale + offset for each channel, float64 (C,)."""

    scale: DoubleArray
    offset: DoubleArray


def affine_of(norm: BatchNorm) -> Affine:
    """The BatchNorm as a scale and an offset.

    scale = gamma / sqrt(variance + epsilon); offset = beta - mean * scale.

    Source: Ioffe and Szegedy 2015, algorithm 2; TensorFlow's batch_normalization.
    """
    scale = norm.gamma.astype(np.float64) / np.sqrt(norm.variance.astype(np.float64) + norm.epsilon)
    return Affine(scale, norm.beta.astype(np.float64) - norm.mean.astype(np.float64) * scale)


def chained(first: Affine, second: Affine) -> Affine:
    """The affine that computes what `first` followed by `second` computes."""
    return Affine(first.scale * second.scale, first.offset * second.scale + second.offset)


def fold_into_convolution(kernel: FloatArray, bias: FloatArray | None, affine: Affine) -> tuple[FloatArray, FloatArray]:
    """The convolution that computes what `kernel` and `bias` followed by `affine` compute.

    kernel'[o] = kernel[o] * scale[o]; bias'[o] = bias[o] * scale[o] + offset[o].

    Args:
        kernel: float32 (O, I, H, W), or with another number of spatial axes.
        bias: float32 (O,), or None for zeros.
        affine: for each of the O outputs.

    Returns:
        kernel and bias, float32, each value rounded once.

    Raises:
        ValueError: the numbers of outputs differ.
    """
    scale = _expect(affine.scale, kernel.shape[0]).reshape(-1, *(1,) * (kernel.ndim - 1))
    return (kernel * scale).astype(kernel.dtype), _bias(bias, affine, kernel)


def fold_into_deconvolution(
    kernel: FloatArray, bias: FloatArray | None, affine: Affine, *, group: int
) -> tuple[FloatArray, FloatArray]:
    """The same for a Deconvolution, whose inputs come first: kernel'[i, j] = kernel[i, j] * scale[o].

    Input i is in group g = i / (I / group), whose output j is o = g * (O / group) + j.

    Args:
        kernel: float32 (I, O / group, H, W), or with another number of spatial axes.
        bias: float32 (O,), or None for zeros.
        affine: for each of the O outputs.
        group: number of groups.

    Raises:
        ValueError: the numbers of outputs differ.

    Source: deconv_layer.cpp and base_conv_layer.cpp, backward_cpu_gemm, which Deconvolution's forward pass calls.
    """
    inputs, outputs = kernel.shape[:2]
    scale = _expect(affine.scale, outputs * group).reshape(group, outputs)
    each = np.repeat(scale, inputs // group, axis=0).reshape(inputs, outputs, *(1,) * (kernel.ndim - 2))
    return (kernel * each).astype(kernel.dtype), _bias(bias, affine, kernel)


def fold_into_inner_product(
    weights: FloatArray, bias: FloatArray | None, affine: Affine, *, transposed: bool
) -> tuple[FloatArray, FloatArray]:
    """The same for an InnerProduct: weights float32 (O, I), or (I, O) where it is transposed.

    Raises:
        ValueError: the numbers of outputs differ.
    """
    matrix: FloatArray = weights.reshape(weights.shape[-2:])  # files from before 2014 give every blob four axes
    dtype = weights.dtype
    if transposed:
        return (matrix * _expect(affine.scale, matrix.shape[1])).astype(dtype), _bias(bias, affine, weights)
    return (matrix * _expect(affine.scale, matrix.shape[0])[:, None]).astype(dtype), _bias(bias, affine, weights)


def _expect(scale: DoubleArray, outputs: int) -> DoubleArray:
    if scale.size != outputs:
        raise ValueError(f"{scale.size} scales for {outputs} outputs")
    return scale


def _bias(bias: FloatArray | None, affine: Affine, kernel: FloatArray) -> FloatArray:
    offset = affine.offset if bias is None else bias.astype(np.float64) * affine.scale + affine.offset
    return offset.astype(kernel.dtype)


def as_batch_norm(
    affine: Affine, epsilon: float, dtype: np.dtype[np.float32] | type[np.float32] = np.float32
) -> BatchNorm:
    """A BatchNorm that computes what `affine` does, for graphs whose BatchNorm is folded: mean 0, variance 1 - epsilon.

    variance + epsilon differs from 1 by the variance's rounding to float32; gamma makes up for that.
    """
    variance = np.full(affine.scale.shape, 1 - epsilon, np.float32)
    gamma = affine.scale * np.sqrt(variance.astype(np.float64) + epsilon)
    return BatchNorm(
        np.zeros(affine.scale.shape, dtype),
        variance.astype(dtype),
        gamma.astype(dtype),
        affine.offset.astype(dtype),
        epsilon,
    )


def with_epsilon(norm: BatchNorm, epsilon: float) -> BatchNorm:
    """The same function written with another epsilon.

    variance' = variance + norm.epsilon - epsilon. If that is negative for a channel (a larger epsilon, a small
    variance), the norm is computed from its scale and offset by `as_batch_norm` instead.
    """
    if _same_float32(norm.epsilon, epsilon):
        return norm
    variance = norm.variance.astype(np.float64) + (norm.epsilon - epsilon)
    if np.any(variance < 0):
        return as_batch_norm(affine_of(norm), epsilon, norm.variance.dtype)
    return BatchNorm(norm.mean, variance.astype(norm.variance.dtype), norm.gamma, norm.beta, epsilon)


def absorb_bias(norm: BatchNorm, bias: FloatArray) -> BatchNorm:
    """The BatchNorm that computes on x what `norm` computes on x + bias: mean' = mean - bias."""
    mean = norm.mean.astype(np.float64) - bias.astype(np.float64)
    return BatchNorm(mean.astype(norm.mean.dtype), norm.variance, norm.gamma, norm.beta, norm.epsilon)


def _same_float32(a: float, b: float) -> bool:
    return bool(np.float32(a) == np.float32(b))
