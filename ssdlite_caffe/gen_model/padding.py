"""Where TensorFlow puts zeros around a convolution's input, and how Caffe, whose `pad` is symmetric, gets the same.

Everything here works on one axis at a time; (height, width) pairs are put together by the callers.
"""

from __future__ import annotations

from dataclasses import dataclass

from ssdlite_caffe.errors import ArchError
from ssdlite_caffe.gen_model.netdesc import Padding


def effective_kernel(kernel: int, dilation: int = 1) -> int:
    """Input elements that a window spans."""
    return (kernel - 1) * dilation + 1


def same_axis(in_size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Zeros (before, after) that TensorFlow's SAME puts on one axis.

    total = max((ceil(in / s) - 1) * s + k - in, 0); before = floor(total / 2); after takes the odd one.

    Source: tensorflow/core/framework/kernel_shape_util.cc, GetWindowedOutputSizeVerbose.
    """
    out = -(-in_size // stride)
    total = max((out - 1) * stride + effective_kernel(kernel, dilation) - in_size, 0)
    return total // 2, total - total // 2


def fixed_axis(kernel: int, dilation: int = 1) -> tuple[int, int]:
    """Zeros (before, after) of TensorFlow's use_explicit_padding, which does not look at the input's size.

    Source: `_fixed_padding` in slim's nets/mobilenet/mobilenet.py; `fixed_padding` in the OD API's utils/ops.py.
    """
    total = effective_kernel(kernel, dilation) - 1
    return total // 2, total - total // 2


def out_axis(in_size: int, kernel: int, stride: int, before: int, after: int, dilation: int = 1) -> int:
    """Windows that fit on one axis; 0 or less where none does. Caffe and TensorFlow's VALID round down alike."""
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
    """A kernel with `zeros` zero taps put in front, and the symmetric pad under which it sees TensorFlow's windows."""

    kernel: int
    pad: int
    zeros: int


def exact_axis(in_size: int, kernel: int, stride: int, before: int, after: int, dilation: int = 1) -> ExactAxis:
    """Write (before, after) zeros as a larger kernel under a symmetric pad, on any Caffe.

    With d = after - before, d zero taps in front of the kernel and pad = before + d: a window starts d earlier, where
    its zero taps lie, so the real taps meet what they met before; and in + 2 * pad - (k + d) = in + before + after - k,
    so as many windows fit. Under dilation a tap spans more, and the rounding of the window count has to hide the rest.
    TensorFlow never has more zeros before than after, so d is at least 0.

    Raises:
        ArchError: no number of zero taps gives as many windows (only under dilation).
    """
    assert after >= before, "TensorFlow puts the odd zero after"
    windows = out_axis(in_size, kernel, stride, before, after, dilation)
    zeros = -(-(after - before) // dilation)
    written = ExactAxis(kernel + zeros, before + zeros * dilation, zeros)
    if out_axis(in_size, written.kernel, stride, written.pad, written.pad, dilation) != windows:
        raise ArchError(
            f"zeros ({before}, {after}) around a kernel of {kernel} with stride {stride} and dilation {dilation} on "
            f"{in_size} have no exact dialect by a larger kernel"
        )
    return written


@dataclass(frozen=True)
class SliceAxis:
    """A symmetric pad that gives TensorFlow's windows and more: `drop_before` first, then `keep`, then the rest."""

    pad: int
    drop_before: int
    keep: int
    drop_after: int

    @property
    def whole(self) -> bool:
        """Nothing to cut."""
        return self.drop_before == 0 and self.drop_after == 0


def slice_axis(in_size: int, kernel: int, stride: int, before: int, after: int, dilation: int = 1) -> SliceAxis:
    """Write (before, after) zeros as a symmetric pad and a cut of the windows computed in excess.

    pad = before + m * stride puts m windows in front of TensorFlow's first; m is the least that also reaches its last.
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
    """The symmetric pad that gives a map of TensorFlow's size, its windows shifted by (after - before) / 2: not exact.

    Raises:
        ArchError: no symmetric pad gives that size.
    """
    windows = out_axis(in_size, kernel, stride, before, after, dilation)
    for pad in (max(before, after), min(before, after)):
        if out_axis(in_size, kernel, stride, pad, pad, dilation) == windows:
            return pad
    raise ArchError(
        f"no symmetric padding gives a kernel of {kernel} with stride {stride} on {in_size} its {windows} outputs"
    )


def spread_axis(in_size: int, kernel: int, pad: int, dilation: int) -> tuple[int, int]:
    """Pad and dilation of an odd kernel on an axis, moved apart where the axis is one pixel long.

    Only the middle tap meets that pixel, at whatever dilation d with pad = d * (kernel - 1) / 2, so nothing changes
    in what is computed, nor in the kernel's shape. It keeps such layers off the 3x3 depthwise kernel of OpenCV (4.8 to
    4.14 at least), which reads past maps one pixel high or wide.

    Returns:
        (pad, dilation), as given unless the axis is one pixel long and the middle tap is on it.
    """
    if in_size != 1 or kernel < 3 or 2 * pad != dilation * (kernel - 1):
        return pad, dilation
    return pad * 2, dilation * 2
