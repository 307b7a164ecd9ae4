"""The arithmetic of Caffe's shapes: one pure function a formula."""

from __future__ import annotations

import math
from collections.abc import Sequence

Shape = tuple[int, ...]
"""Sizes of a blob's axes; feature maps are (N, C, H, W), () is a single number."""

MAX_AXES = 32
"""kMaxBlobAxes of blob.hpp."""
MAX_COUNT = 2**31 - 1
"""Most numbers in a blob: Caffe counts them in an int."""


class ShapeError(Exception):
    """A layer whose parameters and bottoms do not fit together; its text is the reason."""


def show(shape: Sequence[int]) -> str:
    """`1 x 3 x 300 x 300`; at most eight axes are written out."""
    text = " x ".join(str(n) for n in shape[:8]) or "single number"
    return text if len(shape) <= 8 else f"{text} x ... ({len(shape)} axes)"


def check(shape: Sequence[int]) -> Shape:
    """The shape, if a blob can have it.

    Raises:
        ShapeError: an axis below 1, more than `MAX_AXES` axes, or more than `MAX_COUNT` numbers.

    Source: Blob::Reshape (Caffe takes axes of 0, which no layer of a detector can use).
    """
    if len(shape) > MAX_AXES or any(n < 1 for n in shape) or math.prod(shape) > MAX_COUNT:
        raise ShapeError(f"a blob cannot have the shape {show(shape)}")
    return tuple(shape)


def axis_index(axis: int, axes: int) -> int:
    """Axis counted from the front; negative ones count from the end.

    Raises:
        ShapeError: there is no such axis.

    Source: Blob::CanonicalAxisIndex.
    """
    if not -axes <= axis < axes:
        raise ShapeError(f"there is no axis {axis} in a blob of {axes} axes")
    return axis + axes if axis < 0 else axis


def conv_size(size: int, kernel: int, *, stride: int = 1, pad: int = 0, dilation: int = 1) -> int:
    """floor((size + 2 pad - (dilation (kernel - 1) + 1)) / stride) + 1.

    Raises:
        ShapeError: the kernel is larger than the padded input.

    Source: ConvolutionLayer::compute_output_shape.
    """
    extent = dilation * (kernel - 1) + 1
    if size + 2 * pad < extent:
        raise ShapeError(f"a kernel of {extent} is larger than its padded input of {size + 2 * pad}")
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
    """ceil((size + 2 pad - kernel) / stride) + 1, less 1 when padding would leave the last window outside.

    Args:
        size: of the input along one axis.
        kernel: of the window.
        stride: of the window.
        pad: zeros on each side.
        ceil: round up, as Caffe does unless told otherwise.

    Raises:
        ShapeError: the window is larger than the padded input.

    Source: PoolingLayer::Reshape.
    """
    room = size + 2 * pad - kernel
    if room < 0:
        raise ShapeError(f"a window of {kernel} is larger than its padded input of {size + 2 * pad}")
    out = (same_size(room, stride) if ceil else room // stride) + 1
    if pad and (out - 1) * stride >= size + pad:
        out -= 1
    return out


def reshape(shape: Shape, dims: Sequence[int], axis: int = 0, num_axes: int = -1) -> Shape:
    """Shape after a Reshape layer: 0 copies the axis of that place, one -1 takes what is left.

    Args:
        shape: of the bottom.
        dims: sizes that replace `num_axes` axes from `axis` on.
        axis: first axis replaced; -1 starts behind the last one.
        num_axes: how many are replaced; -1 means all that follow.

    Raises:
        ShapeError: the numbers do not come out.

    Source: ReshapeLayer::LayerSetUp and Reshape.
    """
    if len(dims) > MAX_AXES:
        raise ShapeError(f"a blob has at most {MAX_AXES} axes, not {len(dims)}")
    start = axis if axis >= 0 else len(shape) + axis + 1
    if not 0 <= start <= len(shape):
        raise ShapeError(f"there is no axis {axis} in a blob of {len(shape)} axes")
    end = len(shape) if num_axes == -1 else start + num_axes
    if not start <= end <= len(shape):
        raise ShapeError(f"there are no {num_axes} axes from axis {axis} on in a blob of {len(shape)} axes")
    if list(dims).count(-1) > 1 or any(n < -1 for n in dims):
        raise ShapeError("a reshape has at most one -1 and nothing below it")
    middle = []
    for place, size in enumerate(dims, start):
        if size == 0 and place >= len(shape):
            raise ShapeError(f"the bottom has no axis {place} to copy")
        middle.append(shape[place] if size == 0 else size)
    out = [*shape[:start], *middle, *shape[end:]]
    count = math.prod(shape)
    if -1 in out:
        known = -math.prod(out)
        if count % known:
            raise ShapeError(f"the {count} numbers of {show(shape)} cannot be split into parts of {known}")
        out[out.index(-1)] = count // known
    if math.prod(out) != count:
        raise ShapeError(f"{show(shape)} has {count} numbers, {show(out)} has {math.prod(out)}")
    return tuple(out)


def prior_count(min_sizes: int, max_sizes: int, aspect_ratios: Sequence[float], *, flip: bool) -> int:
    """Default boxes in a cell: ratio 1 and the given ones (with `flip` also 1/r) for each min_size, one a max_size.

    A ratio within 1e-6 of an earlier one is left out.

    Source: PriorBoxLayer::LayerSetUp.
    """
    ratios = [1.0]
    for ratio in aspect_ratios:
        if all(abs(ratio - other) >= 1e-6 for other in ratios):
            ratios.append(ratio)
            if flip and ratio:
                ratios.append(1 / ratio)
    return len(ratios) * min_sizes + max_sizes
