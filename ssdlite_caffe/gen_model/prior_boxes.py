"""Caffe's PriorBox layers that stand for a model's default boxes.

Both have their boxes on the cell centres (x + 0.5) / width, (y + 0.5) / height. So a box of TensorFlow and the one of
Caffe that stands for it differ in size alone, and this difference is folded into the predictor's weights exactly. Only
the number of boxes must be right in a PriorBox; their shapes are as near as its parameters allow.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ssdlite_caffe.errors import ArchError
from ssdlite_caffe.gen_model.arch import CellBoxes, Grid
from ssdlite_caffe.gen_model.default_boxes import grid_boxes
from ssdlite_caffe.gen_model.netdesc import PriorBoxDesc

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_NEAR = 1e-3
"""Relative difference up to which two scales or ratios count as equal."""

_APART = 1e-3
"""Least distance of a PriorBox's ratios from each other and from 1: Caffe skips a ratio within 1e-6 of another."""


def prior_box_for(
    cell: CellBoxes, input_size: tuple[int, int], variances: tuple[float, float, float, float]
) -> PriorBoxDesc:
    """A PriorBox layer with exactly as many boxes per cell as `cell` has, near them in shape.

    Boxes in pairs of ratios r and 1/r at one scale, with one or two squares, are written as the public nets write them:
    min_size, max_size if there are two squares, each r, and flip. Boxes of other ratios at the smallest square's scale
    are written likewise, without flip. Boxes that are cut to the input's width or height, as torchvision's are, are
    written as those that they were cut from. All other sets are written as one min_size and a ratio for each further
    box. There is only one min_size because OpenCV's importer reads only one. Sizes are whole pixels (see `_whole`).
    Boxes that are not on the centres of cells get a step, and an offset if both axes have the same; else 0.5, and what
    is left is folded into the predictor (see `load/boxes.py`).

    Raises:
        ArchError: there are no boxes, or the height or width of one is not positive.
    """
    if not cell.sizes:
        raise ArchError("a feature map has no default boxes; it must have at least one")
    wrong = [size for size in cell.sizes if not all(math.isfinite(v) and v > 0 for v in size)]
    if wrong:
        raise ArchError(f"height and width of a default box must be positive, got {wrong[0]}")
    height, width = input_size
    pixels = [(h * height, w * width) for h, w in cell.sizes]
    shapes = [(math.sqrt(h * w), w / h) for h, w in pixels]
    uncut = _uncut(pixels, input_size)
    prior = _paired(shapes, variances) or (uncut and _paired(uncut, variances)) or _unpaired(shapes, variances)
    return prior if cell.grid is None else _placed(prior, cell.grid, input_size)


def _uncut(pixels: list[tuple[float, float]], input_size: tuple[int, int]) -> list[tuple[float, float]]:
    """(scale, ratio) of boxes before their cut to the input's size; empty if none is cut.

    An oblong box of the smallest square's scale s has width * height = s * s, so the side that is cut is s * s / other.
    """
    squares = [height for height, width in pixels if _near(height, width)]
    if not squares:
        return []
    area, found, cut = min(squares) ** 2, [], False
    for height, width in pixels:
        whole = height, width
        if _near(width, input_size[1]) and area / height > width:
            whole = height, area / height
        elif _near(height, input_size[0]) and area / width > height:
            whole = area / width, width
        cut = cut or whole != (height, width)
        found.append((math.sqrt(whole[0] * whole[1]), whole[1] / whole[0]))
    return found if cut else []


def _placed(prior: PriorBoxDesc, grid: Grid, input_size: tuple[int, int]) -> PriorBoxDesc:
    """A PriorBox with the step of a grid, and its offset."""
    step = tuple(_pixels(fraction * side) for fraction, side in zip(grid[0], input_size, strict=True))
    offsets = [_round(first / along) for first, along in zip(grid[1], grid[0], strict=True)]
    return replace(prior, step=(step[0], step[1]), offset=offsets[0] if offsets[0] == offsets[1] else 0.5)


def _pixels(value: float) -> float:
    """The value, as a whole number of pixels where it is one."""
    return float(round(value)) if abs(value - round(value)) <= _NEAR * value else _round(value)


def small_boxes(cell: CellBoxes, input_size: tuple[int, int]) -> CellBoxes:
    """As many boxes as `cell` has, that a PriorBox layer can make exactly, the smallest box of `cell` among them.

    TensorFlow's first map has a small square and two oblong boxes of twice its scale. A PriorBox with one min_size
    cannot make these, so `prior_box_for` makes the square as large as the others. Here the square stays the smallest
    box, the other boxes' scale gives a second square, and their ratios are used at the small scale: a square of 30
    pixels and the ratios 2 and 1/2 at 60 become squares of 30 and 60 and the ratio 2 at 30. A cell is not changed if
    PriorBox can make its smallest box, or if it has too few ratios.

    Raises:
        ArchError: as `prior_box_for`.
    """
    prior = prior_box_for(cell, input_size, (0.1, 0.1, 0.2, 0.2))
    height, width = input_size
    shapes = sorted((math.sqrt(h * height * w * width), w * width / (h * height)) for h, w in cell.sizes)
    least = _whole(shapes[0][0])
    if shapes[0][0] >= (prior.min_sizes[0] - 0.5) * (1 - _NEAR):  # the same size, rounded to whole pixels
        return cell
    others = [scale for scale, _ in shapes[1:]]
    middle = math.exp(sum(map(math.log, others)) / len(others))
    most = max(_whole(middle * middle / least), least + 1)
    oblong = sorted(
        {_round(ratio) for _, ratio in shapes if not _near(ratio, 1.0)}, key=lambda r: (abs(math.log(r)), -r)
    )
    ratios = oblong[: len(cell.sizes) - 2]
    if len(ratios) < len(cell.sizes) - 2:
        return cell
    small = PriorBoxDesc((least,), (most,), tuple(ratios), False, prior.variances)
    return CellBoxes(cell_sizes(small, input_size))


def _near(a: float, b: float) -> bool:
    return abs(a - b) <= _NEAR * b


def _paired(shapes: list[tuple[float, float]], variances: tuple[float, float, float, float]) -> PriorBoxDesc | None:
    """A PriorBox with one min_size, at most one max_size, and ratios; None if it cannot make boxes of these shapes."""
    squares = sorted(scale for scale, ratio in shapes if _near(ratio, 1.0))
    oblong = [(scale, ratio) for scale, ratio in shapes if not _near(ratio, 1.0)]
    wide = sorted(ratio for _, ratio in oblong if ratio > 1)
    tall = sorted(1 / ratio for _, ratio in oblong if ratio < 1)
    scale = oblong[0][0] if oblong else min(squares)
    if not 1 <= len(squares) <= 2 or not all(_near(s, scale) for s, _ in oblong):
        return None
    flip = len(wide) == len(tall) and all(map(_near, wide, tall))
    if not flip and not _near(squares[0], scale):
        return None
    ratios = [_round(ratio) for _, ratio in oblong if ratio > 1 or not flip]
    if any(_near(a, b) for i, a in enumerate(ratios) for b in ratios[:i]):
        return None
    least = _whole(scale)
    most = tuple(_whole(larger * larger / least) for larger in squares[1:])
    if any(size <= least for size in most):
        return None
    return PriorBoxDesc((least,), most, tuple(ratios), flip, variances)


def _unpaired(shapes: list[tuple[float, float]], variances: tuple[float, float, float, float]) -> PriorBoxDesc:
    """One min_size for the box nearest to a square, one ratio for each other box."""
    first = min(range(len(shapes)), key=lambda i: abs(math.log(shapes[i][1])))
    scale = math.exp(sum(math.log(s) for s, _ in shapes) / len(shapes))
    ratios: list[float] = []
    for ratio in (ratio for i, (_, ratio) in enumerate(shapes) if i != first):
        written = _round(ratio)
        while any(abs(written - taken) < _APART for taken in (1.0, *ratios)):
            written = _round(written + max(2 * _APART, 1e-5 * written))  # enough to change the six digits
        ratios.append(written)
    return PriorBoxDesc((_whole(scale),), (), tuple(ratios), False, variances)


def _whole(value: float) -> float:
    """The nearest size in whole pixels. Caffe's PriorBox truncates min_size and max_size to integers; OpenCV does not.

    Source: prior_box_layer.cpp of the SSD branch, Forward_cpu.
    """
    return float(max(1, round(value)))


def _round(value: float) -> float:
    """The value in six significant digits, for a readable prototxt; the fold into the predictor makes up for them."""
    return float(f"{value:.6g}")


def _float32(values: Sequence[float]) -> tuple[float, ...]:
    return struct.unpack(f"{len(values)}f", struct.pack(f"{len(values)}f", *values))


def cell_sizes(prior: PriorBoxDesc, input_size: tuple[int, int]) -> tuple[tuple[float, float], ...]:
    """(height, width) of a cell's boxes as fractions of the input, in Caffe's order.

    The parameters are rounded to float32, like the fields of a parsed prototxt. So a NetDesc and the net parsed from
    its text have the same sizes, and `load.boxes.match_cell` pairs boxes alike for both.

    Source: prior_box_layer.cpp of the SSD branch: for each min_size a square, the square sqrt(min * max) where there
    is a max_size, then each ratio but 1, followed by its reciprocal under flip; ratios within 1e-6 are dropped.
    """
    height, width = input_size
    ratios = [1.0]
    for ratio in _float32(prior.aspect_ratios):
        if all(abs(ratio - known) >= 1e-6 for known in ratios):
            ratios.append(ratio)
            if prior.flip:
                ratios.append(1 / ratio)
    sizes = []
    largest = _float32(prior.max_sizes)
    for i, least in enumerate(_float32(prior.min_sizes)):
        sizes.append((least, least))
        if largest:
            middle = math.sqrt(least * largest[i])
            sizes.append((middle, middle))
        sizes += [(least / math.sqrt(r), least * math.sqrt(r)) for r in ratios if abs(r - 1) >= 1e-6]
    return tuple((h / height, w / width) for h, w in sizes)


def caffe_prior_boxes(
    prior: PriorBoxDesc, map_size: tuple[int, int], input_size: tuple[int, int]
) -> npt.NDArray[np.float64]:
    """Boxes of a PriorBox layer, float64 (N, 4): xmin, ymin, xmax, ymax as fractions, in Caffe's order."""
    return grid_boxes(map_size, cell_sizes(prior, input_size), *prior_grid(prior, map_size, input_size))[
        :, [1, 0, 3, 2]
    ]


def prior_grid(prior: PriorBoxDesc, map_size: tuple[int, int], input_size: tuple[int, int]) -> Grid:
    """Where a PriorBox layer puts its boxes: at (i + offset) * step.

    Source: prior_box_layer.cpp of the SSD branch, Forward_cpu; a step of 0 is the image's size / the map's.
    """
    if prior.step is None:
        high, wide = (1 / count for count in map_size)
    else:
        high, wide = (step / side for step, side in zip(prior.step, input_size, strict=True))
    return (high, wide), (prior.offset * high, prior.offset * wide)
