"""TensorFlow's padding of convolutions, and how it is written with Caffe's `pad`, which is symmetric.

Most functions are for one axis; their callers make (height, width) pairs of the results.
"""

from __future__ import annotations

from dataclasses import dataclass

from ssdlite_caffe.errors import ArchError
from ssdlite_caffe.gen_model.netdesc import Padding


def effective_kernel(kernel: int, dilation: int = 1) -> int:
    """Length of a kernel with its dilation, in pixels."""
    return (kernel - 1) * dilation + 1


def same_axis(in_size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Zeros (before, after) that TensorFlow's SAME padding adds on one axis.

    total = max((ceil(in / s) - 1) * s + k - in, 0); before = floor(total / 2); after = total - before.

    Source: tensorflow/core/framework/kernel_shape_util.cc, GetWindowedOutputSizeVerbose.
    """
    out = -(-in_size // stride)
    total = max((out - 1) * stride + effective_kernel(kernel, dilation) - in_size, 0)
    return total // 2, total - total // 2


def fixed_axis(kernel: int, dilation: int = 1) -> tuple[int, int]:
    """Zeros (before, after) of TensorFlow's use_explicit_padding, which do not depend on the input's size.

    Source: `_fixed_padding` in slim's nets/mobilenet/mobilenet.py; `fixed_padding` in the OD API's utils/ops.py.
    """
    total = effective_kernel(kernel, dilation) - 1
    return total // 2, total - total // 2


def out_axis(in_size: int, kernel: int, stride: int, before: int, after: int, dilation: int = 1) -> int:
    """Windows that fit on one axis, rounded down as in Caffe and TensorFlow's VALID; 0 or less if none fits."""
    return (in_size + before + after - effective_kernel(kernel, dilation)) // stride + 1


def same_padding(
    in_size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int] = (1, 1)
) -> Padding:
    """`same_axis` on both axes; every argument is (height, width)."""
    top, bottom = same_axis(in_size[0], kernel[0], stride[0], dilation[0])
    left, right = same_axis(in_size[1], kernel[1], stride[1], dilation[1])
    return Padding(top, bottom, left, right)


def explicit_padding(kernel: tuple[int, int], dilation: tuple[int, int] = (1, 1)) -> Padding:
    """`fixed_axis` on both axes; every argument is (height, width)."""
    top, bottom = fixed_axis(kernel[0], dilation[0])
    left, right = fixed_axis(kernel[1], dilation[1])
    return Padding(top, bottom, left, right)


def output_size(
    in_size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: Padding,
    dilation: tuple[int, int] = (1, 1),
) -> tuple[int, int]:
    """(height, width) of the feature map that comes out."""
    return (
        out_axis(in_size[0], kernel[0], stride[0], padding.top, padding.bottom, dilation[0]),
        out_axis(in_size[1], kernel[1], stride[1], padding.left, padding.right, dilation[1]),
    )


@dataclass(frozen=True)
class ExactAxis:
    """A kernel enlarged by `zeros` zero taps in front, and the symmetric pad with which it has TensorFlow's windows."""

    kernel: int
    pad: int
    zeros: int


def exact_axis(in_size: int, kernel: int, stride: int, before: int, after: int, dilation: int = 1) -> ExactAxis:
    """Write (before, after) zeros as a larger kernel with a symmetric pad, which every Caffe can run.

    With d = after - before: d zero taps in front of the kernel, and pad = before + d. Each window begins d pixels
    earlier, where its zero taps are, so the other taps read the same pixels as before; and in + 2 * pad - (k + d) =
    in + before + after - k, so there are as many windows. With dilation a zero tap spans several pixels, so the number
    of windows may differ. TensorFlow never has more zeros before than after, so d is not negative.

    Raises:
        ArchError: the number of windows differs (only with dilation).
    """
    assert after >= before, f"zeros {before} before, {after} after: TensorFlow has the odd one after"
    windows = out_axis(in_size, kernel, stride, before, after, dilation)
    zeros = -(-(after - before) // dilation)
    written = ExactAxis(kernel + zeros, before + zeros * dilation, zeros)
    if out_axis(in_size, written.kernel, stride, written.pad, written.pad, dilation) != windows:
        raise ArchError(
            f"padding ({before}, {after}) of an input of {in_size} for a kernel of {kernel} with stride {stride} and "
            f"dilation {dilation} cannot be written with a larger kernel; use another --padding"
        )
    return written


@dataclass(frozen=True)
class SliceAxis:
    """A symmetric pad that gives `drop_before` windows too many, then TensorFlow's `keep`, then `drop_after` more."""

    pad: int
    drop_before: int
    keep: int
    drop_after: int

    @property
    def whole(self) -> bool:
        """Whether there is nothing to cut off."""
        return self.drop_before == 0 and self.drop_after == 0


def slice_axis(in_size: int, kernel: int, stride: int, before: int, after: int, dilation: int = 1) -> SliceAxis:
    """Write (before, after) zeros as a symmetric pad and a cut that removes the windows computed in excess.

    pad = before + m * stride adds m windows in front of TensorFlow's first one; m is the least with which the last one
    is computed too.
    """
    keep = out_axis(in_size, kernel, stride, before, after, dilation)
    drop = 0
    while True:
        pad = before + drop * stride
        excess = out_axis(in_size, kernel, stride, pad, pad, dilation) - drop - keep
        if excess >= 0:
            return SliceAxis(pad, drop, keep, excess)
        drop += 1


def symmetric_axis(in_size: int, kernel: int, stride: int, before: int, after: int, dilation: int = 1) -> int:
    """The symmetric pad that gives a map of TensorFlow's size. Not exact: windows shift by (after - before) / 2.

    Raises:
        ArchError: no symmetric pad gives that size.
    """
    windows = out_axis(in_size, kernel, stride, before, after, dilation)
    for pad in (max(before, after), min(before, after)):
        if out_axis(in_size, kernel, stride, pad, pad, dilation) == windows:
            return pad
    raise ArchError(
        f"no symmetric padding of an input of {in_size} gives {windows} outputs for a kernel of {kernel} with stride "
        f"{stride}; use another --padding"
    )


def spread_axis(in_size: int, kernel: int, pad: int, dilation: int) -> tuple[int, int]:
    """Pad and dilation of an odd kernel on an axis, doubled if the axis is one pixel long.

    Only the middle tap reads that pixel, with any dilation d and pad = d * (kernel - 1) / 2, so the result and the
    kernel's shape stay the same. With a dilation, OpenCV (4.8 to 4.14 at least) does not run its 3x3 depthwise kernel,
    which reads outside of maps that are one pixel high or wide.

    Returns:
        (pad, dilation), unchanged unless the axis is one pixel long and the middle tap is on it.
    """
    if in_size != 1 or kernel < 3 or 2 * pad != dilation * (kernel - 1):
        return pad, dilation
    return pad * 2, dilation * 2
