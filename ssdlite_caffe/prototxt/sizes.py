"""The formulas of Caffe's shapes, each as one pure function."""

from __future__ import annotations

import math
from collections.abc import Sequence

Shape = tuple[int, ...]
"""Sizes of a blob's axes; feature maps are (N, C, H, W), () is a single number."""

MAX_AXES = 32
"""kMaxBlobAxes of blob.hpp."""
MAX_COUNT = 2**31 - 1
"""Most values in a blob: Caffe counts them in an int."""


class ShapeError(Exception):
    """A layer's parameters and bottoms do not fit together; the text says why."""


def show(shape: Sequence[int]) -> str:
    """A shape as text, `1 x 3 x 300 x 300`; at most eight axes are written."""
    text = " x ".join(str(n) for n in shape[:8]) or "single number"
    return text if len(shape) <= 8 else f"{text} x ... ({len(shape)} axes)"


def check(shape: Sequence[int]) -> Shape:
    """The shape as a tuple, if a blob can have it.

    Raises:
        ShapeError: an axis is below 1, or there are more than `MAX_AXES` axes or `MAX_COUNT` values.

    Source: Blob::Reshape (Caffe allows axes of size 0, which no layer of a detector can use).
    """
    if len(shape) > MAX_AXES or any(n < 1 for n in shape) or math.prod(shape) > MAX_COUNT:
        raise ShapeError(
            f"a blob cannot have the shape {show(shape)}: at most {MAX_AXES} axes, each at least 1, and {MAX_COUNT} "
            "values"
        )
    return tuple(shape)


def axis_index(axis: int, axes: int) -> int:
    """An axis counted from the front; a negative `axis` counts from the end.

    Raises:
        ShapeError: there is no such axis.

    Source: Blob::CanonicalAxisIndex.
    """
    if not -axes <= axis < axes:
        raise ShapeError(f"axis {axis} is outside a blob of {axes} axes")
    return axis + axes if axis < 0 else axis


def conv_size(size: int, kernel: int, *, stride: int = 1, pad: int = 0, dilation: int = 1) -> int:
    """floor((size + 2 pad - (dilation (kernel - 1) + 1)) / stride) + 1.

    Raises:
        ShapeError: the kernel is larger than the padded input.

    Source: ConvolutionLayer::compute_output_shape.
    """
    extent = dilation * (kernel - 1) + 1
    if size + 2 * pad < extent:
        raise ShapeError(f"the kernel spans {extent} pixels, more than the padded input of {size + 2 * pad}")
    return (size + 2 * pad - extent) // stride + 1


def deconv_size(size: int, kernel: int, *, stride: int = 1, pad: int = 0, dilation: int = 1) -> int:
    """(size - 1) stride + dilation (kernel - 1) + 1 - 2 pad.

    Source: DeconvolutionLayer::compute_output_shape.
    """
    return stride * (size - 1) + dilation * (kernel - 1) + 1 - 2 * pad


def same_size(size: int, stride: int) -> int:
    """ceil(size / stride), TensorFlow's SAME padding."""
    return -(-size // stride)


def pool_size(size: int, kernel: int, *, stride: int = 1, pad: int = 0, ceil: bool = True) -> int:
    """ceil((size + 2 pad - kernel) / stride) + 1, less 1 if the last window would begin in the padding.

    Args:
        size: of the input along one axis.
        kernel: size of the window.
        stride: of the window.
        pad: zeros on each side.
        ceil: round up, as Caffe does by default.

    Raises:
        ShapeError: the window is larger than the padded input.

    Source: PoolingLayer::Reshape.
    """
    rest = size + 2 * pad - kernel
    if rest < 0:
        raise ShapeError(f"the window of {kernel} is larger than the padded input of {size + 2 * pad}")
    out = (same_size(rest, stride) if ceil else rest // stride) + 1
    if pad and (out - 1) * stride >= size + pad:
        out -= 1
    return out


def reshape(shape: Shape, dims: Sequence[int], axis: int = 0, num_axes: int = -1) -> Shape:
    """Shape after a Reshape layer: 0 keeps the size of that axis, one -1 takes what is left.

    Args:
        shape: of the bottom.
        dims: sizes that replace `num_axes` axes from `axis` on.
        axis: first axis replaced; -1 starts behind the last one.
        num_axes: how many are replaced; -1 means all that follow.

    Raises:
        ShapeError: an axis does not exist, or the count of values would change.

    Source: ReshapeLayer::LayerSetUp and Reshape.
    """
    if len(dims) > MAX_AXES:
        raise ShapeError(f"a blob has at most {MAX_AXES} axes, got {len(dims)}")
    start = axis if axis >= 0 else len(shape) + axis + 1
    if not 0 <= start <= len(shape):
        raise ShapeError(f"axis {axis} is outside a blob of {len(shape)} axes")
    end = len(shape) if num_axes == -1 else start + num_axes
    if not start <= end <= len(shape):
        raise ShapeError(f"num_axes {num_axes} from axis {axis} on exceeds a blob of {len(shape)} axes")
    if list(dims).count(-1) > 1 or any(n < -1 for n in dims):
        raise ShapeError(f"a reshape takes sizes of 0 and more and at most one -1, got {list(dims)}")
    middle = []
    for place, size in enumerate(dims, start):
        if size == 0 and place >= len(shape):
            raise ShapeError(f"dim 0 copies axis {place}, but the bottom has {len(shape)} axes")
        middle.append(shape[place] if size == 0 else size)
    out = [*shape[:start], *middle, *shape[end:]]
    count = math.prod(shape)
    if -1 in out:
        known = -math.prod(out)
        if count % known:
            raise ShapeError(f"the {count} values of {show(shape)} are not a multiple of {known}, which -1 needs")
        out[out.index(-1)] = count // known
    if math.prod(out) != count:
        raise ShapeError(f"{show(shape)} has {count} values, but {show(out)} has {math.prod(out)}")
    return tuple(out)


def prior_count(min_sizes: int, max_sizes: int, aspect_ratios: Sequence[float], *, flip: bool) -> int:
    """Default boxes per cell: for each min_size ratio 1 and the given ones (with `flip` also 1/r), one per max_size.

    A ratio within 1e-6 of an earlier one is skipped.

    Source: PriorBoxLayer::LayerSetUp.
    """
    ratios = [1.0]
    for ratio in aspect_ratios:
        if all(abs(ratio - other) >= 1e-6 for other in ratios):
            ratios.append(ratio)
            if flip and ratio:
                ratios.append(1 / ratio)
    return len(ratios) * min_sizes + max_sizes
