"""`--padding shift`: which maps get one more row and column in front, and where the result is cut.

TensorFlow's windows begin at 0, 2, 4, ... where it pads (0, 1) for a 3x3 kernel with stride 2, and Caffe's with pad p
at -p, 2 - p, 4 - p, ... The pad with which they are the same windows is 2, and one window too many comes first, which
is cut off (`padding.slice_axis`). But OpenCV has a fast 3x3 depthwise kernel for pads of 0 and 1 only, and hardware may
have no other. So the map is moved instead: with one more row in front, m'(y) = m(y - 1), the windows of pad 1 begin at
m(-2), m(0), m(2), ... Again the first one is too many. It alone reads the row in front, so this may hold any values.
The last window reads the zeros of the pad, as in TensorFlow. The same goes for columns.

The row in front is made where it costs least, since activations and 1x1 convolutions compute each place of a map from
that place alone: at the depthwise convolution, at the 1x1 convolution before it, or at the one before that. It is made
in one of two ways. The convolution that writes the map gets pad 1, and its last row and column are cut off: those in
front stay. Or the map's first row and column are copied and put in front (Slice, Concat). For the same reason, the cut
waits until after the next 1x1 convolution, if that has fewer channels. Where a map is to be cut and then moved, neither
is done: what would be cut off is the row in front. All weights stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from ssdlite_caffe.gen_model.netdesc import AddDesc, ConvDesc, GateDesc, NetDesc, NodeDesc
from ssdlite_caffe.gen_model.padding import SliceAxis, slice_axis

if TYPE_CHECKING:
    import numpy.typing as npt

ROWS, COLUMNS = 2, 3
"""Axes of a blob."""

Cuts = tuple[tuple[int, SliceAxis], ...]
"""Axis and windows, for each axis that is cut."""

Way = Literal["copied", "padded", "uncut"]

_WIDE = 32
"""Least height and width of a map whose 1x1 convolution gets pad 1: its work grows by 13%, that of a 10x10 map by 44%.
"""


@dataclass(frozen=True)
class Moves:
    """What is done at one convolution.

    Attributes:
        copied: axes of its bottom on which a copy of the first row or column is put in front.
        padded: axes on which it gets pad 1, and its last row or column is cut off.
        narrow: axes on which its pad is one less than `slice_axis` says, since its bottom is moved.
        cuts: what is cut off after its activation: windows too many, and the last row or column of a padded map.
    """

    copied: tuple[int, ...] = ()
    padded: tuple[int, ...] = ()
    narrow: tuple[int, ...] = ()
    cuts: Cuts = ()


def moves(net: NetDesc) -> dict[str, Moves]:
    """What is done at which convolution, by name; nothing at those that are not named."""
    found: dict[str, Moves] = {}
    links = _Links(net)
    for conv in net.convolutions:
        if conv.padding.symmetric:
            continue
        cuts = cuts_of(conv)
        axes = tuple(axis for axis, cut in cuts if cut.pad == 2 and cut.drop_before == 1)
        if axes and conv.depthwise and conv.kernel == (3, 3) and conv.dilation == (1, 1):
            found[conv.name] = replace(found.get(conv.name, Moves()), narrow=axes)
            name, way = links.front(conv, axes, found)
            there = found.get(name, Moves())
            if way == "uncut":
                found[name] = replace(there, cuts=())
            else:
                found[name] = replace(there, copied=axes) if way == "copied" else replace(there, padded=axes)
        end = links.end(conv)
        found[end] = replace(found.get(end, Moves()), cuts=cuts)
    return {name: replace(move, cuts=_all_cuts(links.convs[name], move)) for name, move in found.items()}


def _all_cuts(conv: ConvDesc, move: Moves) -> Cuts:
    cuts = dict(move.cuts)
    for axis in move.padded:
        before = cuts[axis].drop_before if axis in cuts else 0
        cuts[axis] = SliceAxis(1, before, conv.out_size[axis - ROWS] + 1, 1)
    return tuple(sorted(cuts.items()))


def cuts_of(conv: ConvDesc) -> Cuts:
    """The windows of `slice_axis` on the axes on which some are cut off."""
    pad = conv.padding
    rows = slice_axis(conv.in_size[0], conv.kernel[0], conv.stride[0], pad.top, pad.bottom, conv.dilation[0])
    columns = slice_axis(conv.in_size[1], conv.kernel[1], conv.stride[1], pad.left, pad.right, conv.dilation[1])
    return tuple((axis, cut) for axis, cut in ((ROWS, rows), (COLUMNS, columns)) if not cut.whole)


def is_moved(shape: Sequence[int], size: Sequence[int]) -> bool:
    """Whether a blob's shape is that of a map of `size` with one more row or column, or both, in front."""
    return len(shape) == 4 and (shape[2] - size[0], shape[3] - size[1]) in ((0, 1), (1, 0), (1, 1))


def without_front(values: npt.NDArray[Any], size: Sequence[int]) -> npt.NDArray[Any]:
    """The part of a blob that TensorFlow's map of `size` (height, width) is, if the blob is moved; else all of it."""
    return values[:, :, -size[0] :, -size[1] :] if len(size) == 2 and is_moved(values.shape, size) else values


class _Links:
    """Which convolution writes a blob, and what reads it."""

    def __init__(self, net: NetDesc) -> None:
        self.writers = {conv.top: conv for conv in net.convolutions}
        self.readers: dict[str, list[str]] = {}
        self.convs = {conv.name: conv for conv in net.convolutions}
        nodes = [node for section in net.sections for node in section.nodes]
        heads = [conv for m in net.feature_maps for conv in (*m.loc, *m.conf)]
        for node in (*nodes, *heads):
            for bottom in _bottoms(node):
                self.readers.setdefault(bottom, []).append(node.name)
        for feature_map in net.feature_maps:  # its PriorBox reads its size
            self.readers.setdefault(feature_map.blob, []).append(f"{feature_map.blob}_mbox_priorbox")

    def front(self, conv: ConvDesc, axes: tuple[int, ...], before: Mapping[str, Moves]) -> tuple[str, Way]:
        """The convolution at which a row is put in front for `conv`, and how; `before`: what is done so far."""
        ways: list[tuple[int, str, Way]] = [(4 * conv.in_channels, conv.name, "copied")]  # values copied for each place
        reader = conv
        while self.readers[reader.bottom] == [reader.name] and reader.bottom in self.writers:
            writer = self.writers[reader.bottom]
            if [axis for axis, cut in before.get(writer.name, Moves()).cuts if cut.drop_before == 1] == list(axes):
                return writer.name, "uncut"
            if not _one_by_one(writer):
                break
            if min(writer.out_size) >= _WIDE:
                ways.append((2 * writer.num_output, writer.name, "padded"))
            ways.append((4 * writer.in_channels, writer.name, "copied"))
            reader = writer
        _, name, way = min(ways, key=lambda found: found[0])
        return name, way

    def end(self, conv: ConvDesc) -> str:
        """The convolution after which the windows of `conv` that are too many are cut off."""
        readers = [self.convs.get(name) for name in self.readers.get(conv.top, ())]
        if len(readers) != 1 or readers[0] is None:
            return conv.name
        smaller = _one_by_one(readers[0]) and readers[0].num_output < conv.num_output
        return readers[0].name if smaller else conv.name


def _one_by_one(conv: ConvDesc) -> bool:
    return conv.kernel == conv.stride == (1, 1) and conv.group == 1


def _bottoms(node: NodeDesc) -> Iterable[str]:
    if isinstance(node, AddDesc):
        return node.bottoms
    return (node.bottom, node.gate) if isinstance(node, GateDesc) else (node.bottom,)
