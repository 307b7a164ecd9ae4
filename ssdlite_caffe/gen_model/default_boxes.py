"""Default boxes: TensorFlow's, and Caffe's PriorBox layers that stand for them.

Both have their boxes on the cell centres (x + 0.5) / width, (y + 0.5) / height. So a box of TensorFlow and the one of
Caffe that stands for it differ in size alone, and this difference is folded into the predictor's weights exactly. Only
the number of boxes must be right in a PriorBox; their shapes are as near as its parameters allow.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from ssdlite_caffe.errors import ArchError
from ssdlite_caffe.gen_model.arch import ArchSpec, CellBoxes, Grid
from ssdlite_caffe.gen_model.netdesc import NetDesc, PriorBoxDesc

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

ASPECT_RATIOS = (1.0, 2.0, 0.5, 3.0, 0.3333)
"""Of the model zoo's configs, which have 0.3333 and not 1/3."""

_NEAR = 1e-3
"""Relative difference up to which two scales or ratios count as equal."""

_APART = 1e-3
"""Least distance of a PriorBox's ratios from each other and from 1: Caffe skips a ratio within 1e-6 of another."""

_SAME_PLACE = 1e-9
"""Largest distance of two centres that are the same, as a fraction of the input."""


def ssd_boxes(
    input_size: tuple[int, int],
    *,
    num_layers: int = 6,
    min_scale: float = 0.2,
    max_scale: float = 0.95,
    scales: Sequence[float] = (),
    aspect_ratios: Sequence[float] = ASPECT_RATIOS,
    interpolated_ratio: float = 1.0,
    reduce_lowest: bool = True,
    base_anchor: tuple[float, float] = (1.0, 1.0),
) -> tuple[CellBoxes, ...]:
    """The boxes of the OD API's ssd_anchor_generator.

    Scales are fractions of the input's shorter side, so that a box of ratio 1 is square in pixels.

    Args:
        input_size: (height, width).
        num_layers: feature maps.
        min_scale: of the first map; those of the maps between are evenly spaced.
        max_scale: of the last map.
        scales: one per map; replaces min_scale and max_scale if given.
        aspect_ratios: width / height.
        interpolated_ratio: ratio of one more box, of scale sqrt(this map's * next map's); 0 for none.
        reduce_lowest: three boxes on the first map: (0.1, ratio 1), (scale, 2), (scale, 1/2).
        base_anchor: (height, width), factors of every box's size.

    Raises:
        ArchError: a scale or ratio is not positive, or there is not one scale per map.

    Source: create_ssd_anchors and MultipleGridAnchorGenerator._generate in multiple_grid_anchor_generator.py.
    """
    if scales and len(scales) != num_layers:
        raise ArchError(f"anchor scales must be one for each of {num_layers} feature maps, got {len(scales)}")
    step = (max_scale - min_scale) / (num_layers - 1) if num_layers > 1 else 0.0
    ladder = [*(scales or (min_scale + step * i for i in range(num_layers))), 1.0]
    bad = [v for v in (*ladder, *aspect_ratios) if not (math.isfinite(v) and v > 0)]
    if bad or not (math.isfinite(interpolated_ratio) and interpolated_ratio >= 0):
        raise ArchError(f"anchor scales and ratios must be positive, got {(bad or [interpolated_ratio])[0]}")
    cells = []
    for layer, (scale, following) in enumerate(itertools.pairwise(ladder)):
        if layer == 0 and reduce_lowest:
            specs = [(0.1, 1.0), (scale, 2.0), (scale, 0.5)]
        else:
            specs = [(scale, ratio) for ratio in aspect_ratios]
            if interpolated_ratio > 0:
                specs.append((math.sqrt(scale * following), interpolated_ratio))
        cells.append(CellBoxes(tuple(_box(input_size, base_anchor, scale, ratio) for scale, ratio in specs)))
    return tuple(cells)


def _box(input_size: tuple[int, int], base: tuple[float, float], scale: float, ratio: float) -> tuple[float, float]:
    height, width = input_size
    short, root = min(height, width), math.sqrt(ratio)
    return scale / root * base[0] * (short / height), scale * root * base[1] * (short / width)


def pyramid_boxes(
    input_size: tuple[int, int],
    min_level: int = 3,
    max_level: int = 7,
    *,
    anchor_scale: float = 4.0,
    aspect_ratios: Sequence[float] = (1.0, 2.0, 0.5),
    scales_per_octave: int = 2,
    map_sizes: Sequence[tuple[int, int]] | None = None,
) -> tuple[CellBoxes, ...]:
    """The boxes of the OD API's multiscale_anchor_generator: of each level, 2**level pixels from cell to cell.

    A box's size in pixels is anchor_scale * 2**level * 2**(octave / scales_per_octave), times sqrt(ratio) for the width
    and divided by it for the height. The first cell's centre is half a cell from the edge only on an axis whose length
    is a multiple of 2**level; otherwise it is on the edge.

    Args:
        input_size: (height, width).
        min_level: of the first map.
        max_level: of the last map.
        anchor_scale: see above.
        aspect_ratios: width / height; slower than scales in a cell's order.
        scales_per_octave: boxes of each ratio.
        map_sizes: (height, width) of each map; None: the input divided by 2**level, rounded up.

    Raises:
        ArchError: a number is not positive.

    Source: multiscale_grid_anchor_generator.py and grid_anchor_generator.py.
    """
    if scales_per_octave < 1 or not all(math.isfinite(v) and v > 0 for v in (anchor_scale, *aspect_ratios)):
        raise ArchError(
            f"anchor scale, aspect ratios and scales per octave must be positive, got {anchor_scale:g}, "
            f"{', '.join(f'{ratio:g}' for ratio in aspect_ratios)} and {scales_per_octave}"
        )
    height, width = input_size
    cells = []
    for number, level in enumerate(range(min_level, max_level + 1)):
        stride = 2**level
        scales = [anchor_scale * stride * 2 ** (octave / scales_per_octave) for octave in range(scales_per_octave)]
        sizes = tuple(
            (scale / math.sqrt(ratio) / height, scale * math.sqrt(ratio) / width)
            for ratio in aspect_ratios
            for scale in scales
        )
        y, x = (0.0 if side % stride else stride / 2 / side for side in input_size)
        grid = (stride / height, stride / width), (y, x)
        size = tuple(-(-side // stride) for side in input_size) if map_sizes is None else map_sizes[number]
        cells.append(CellBoxes(sizes, None if on_centres(grid, size) else grid))
    return tuple(cells)


def on_centres(grid: Grid, map_size: Sequence[int]) -> bool:
    """Whether the boxes of a grid are on the centres of the cells of a map of (height, width)."""
    return all(
        abs(first - 0.5 / count) <= _SAME_PLACE and (count == 1 or abs(step - 1 / count) * count <= _SAME_PLACE)
        for step, first, count in zip(*grid, map_size, strict=True)
    )


class Anchors(Protocol):
    """The fields of pipeline.config's ssd_anchor_generator, by its names."""

    @property
    def num_layers(self) -> int:
        """Feature maps."""

    @property
    def min_scale(self) -> float:
        """Of the first map."""

    @property
    def max_scale(self) -> float:
        """Of the last map."""

    @property
    def scales(self) -> Sequence[float]:
        """One per map, which replace the two; may be empty."""

    @property
    def aspect_ratios(self) -> Sequence[float]:
        """Width / height."""

    @property
    def interpolated_scale_aspect_ratio(self) -> float:
        """Of the box between two scales; 0 for none."""

    @property
    def reduce_boxes_in_lowest_layer(self) -> bool:
        """Three boxes on the first map."""

    @property
    def base_anchor_height(self) -> float:
        """Multiplies every height."""

    @property
    def base_anchor_width(self) -> float:
        """Multiplies every width."""

    @property
    def height_stride(self) -> Sequence[int]:
        """Pixels from cell to cell in a column, one per map; empty: the input's height divided by the map's."""

    @property
    def width_stride(self) -> Sequence[int]:
        """Pixels from cell to cell in a row, one per map; empty: the input's width divided by the map's."""

    @property
    def height_offset(self) -> Sequence[int]:
        """Pixels from the top to the first cell's centre, one per map; empty: half a cell."""

    @property
    def width_offset(self) -> Sequence[int]:
        """Pixels from the left to the first cell's centre, one per map; empty: half a cell."""


def has_own_grid(anchors: Anchors) -> bool:
    """Whether strides or offsets are given, with which boxes need not be on the cell centres."""
    return any((anchors.height_stride, anchors.width_stride, anchors.height_offset, anchors.width_offset))


def anchor_boxes(
    anchors: Anchors, map_sizes: Sequence[tuple[int, int]], input_size: tuple[int, int]
) -> npt.NDArray[np.float64]:
    """All boxes that pipeline.config's ssd_anchor_generator makes, with its strides and offsets.

    Args:
        anchors: the generator's fields.
        map_sizes: (height, width) of each feature map.
        input_size: (height, width) in pixels.

    Returns:
        float64 (N, 4): ymin, xmin, ymax, xmax as fractions; maps, rows, columns, then the boxes of a cell.

    Raises:
        ArchError: as `ssd_boxes`; or there is not one stride or offset for each map.

    Source: anchor_generator_builder.py, and MultipleGridAnchorGenerator._generate in multiple_grid_anchor_generator.py.
    """
    import numpy as np

    cells = cell_boxes_of_anchors(anchors, input_size)
    fields = (anchors.height_stride, anchors.width_stride, anchors.height_offset, anchors.width_offset)
    for name, given in zip(("height_stride", "width_stride", "height_offset", "width_offset"), fields, strict=True):
        if given and len(given) != len(map_sizes):
            raise ArchError(
                f"the ssd_anchor_generator's {name} must be one for each of {len(map_sizes)} feature maps, got "
                f"{len(given)}"
            )
    if bool(fields[0]) != bool(fields[1]) or bool(fields[2]) != bool(fields[3]):
        raise ArchError("the ssd_anchor_generator's strides and offsets must be given for both height and width")
    parts = []
    for i, (cell, size) in enumerate(zip(cells, map_sizes, strict=True)):
        strides = [v[i] / n if v else 1 / m for v, n, m in zip(fields[:2], input_size, size, strict=True)]
        offsets = [v[i] / n if v else s / 2 for v, n, s in zip(fields[2:], input_size, strides, strict=True)]
        parts.append(_grid(size, cell.sizes, strides, offsets))
    return np.concatenate(parts)


def refuse_irregular_boxes(arch: ArchSpec, reason: str) -> None:
    """Refuse default boxes that only `--priors constant` writes.

    Raises:
        ArchError: the model has such boxes.
    """
    if arch.irregular_boxes:
        raise ArchError(
            f"{arch.irregular_boxes}, and {reason}; give --priors constant, which holds default boxes as numbers"
        )


def cell_boxes_of_anchors(anchors: Anchors, input_size: tuple[int, int]) -> tuple[CellBoxes, ...]:
    """The boxes of a cell that pipeline.config's ssd_anchor_generator asks for; see `has_own_grid` on where they are.

    Raises:
        ArchError: as `ssd_boxes`.
    """
    return ssd_boxes(
        input_size,
        num_layers=anchors.num_layers,
        min_scale=anchors.min_scale,
        max_scale=anchors.max_scale,
        scales=anchors.scales,
        aspect_ratios=anchors.aspect_ratios,
        interpolated_ratio=anchors.interpolated_scale_aspect_ratio,
        reduce_lowest=anchors.reduce_boxes_in_lowest_layer,
        base_anchor=(anchors.base_anchor_height, anchors.base_anchor_width),
    )


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


def _grid(
    size: tuple[int, int],
    cells: Sequence[tuple[float, float]],
    strides: Sequence[float] = (),
    offsets: Sequence[float] = (),
) -> npt.NDArray[np.float64]:
    """(rows * columns * boxes, 4): ymin, xmin, ymax, xmax; rows outermost, then columns, then the boxes of a cell.

    Boxes are on the cell centres or, with `strides` and `offsets` (vertical, horizontal), on offset + i * stride.
    """
    import numpy as np

    if strides:
        places = [
            offset + np.arange(count) * stride for count, stride, offset in zip(size, strides, offsets, strict=True)
        ]
    else:
        places = [(np.arange(count) + 0.5) / count for count in size]
    y, x = np.meshgrid(*places, indexing="ij")
    centres = np.stack([y, x], axis=-1)[:, :, None, :]
    half = np.asarray(cells, np.float64)[None, None, :, :] / 2
    return np.concatenate([centres - half, centres + half], axis=-1).reshape(-1, 4)


def tf_default_boxes(net: NetDesc) -> npt.NDArray[np.float64]:
    """TensorFlow's default boxes, float64 (N, 4): ymin, xmin, ymax, xmax as fractions, in its predictors' order."""
    import numpy as np

    return np.concatenate([_grid(m.size, m.tf_boxes, *(m.grid or ())) for m in net.feature_maps])


def caffe_prior_boxes(
    prior: PriorBoxDesc, map_size: tuple[int, int], input_size: tuple[int, int]
) -> npt.NDArray[np.float64]:
    """Boxes of a PriorBox layer, float64 (N, 4): xmin, ymin, xmax, ymax as fractions, in Caffe's order."""
    return _grid(map_size, cell_sizes(prior, input_size), *prior_grid(prior, map_size, input_size))[:, [1, 0, 3, 2]]


def prior_grid(prior: PriorBoxDesc, map_size: tuple[int, int], input_size: tuple[int, int]) -> Grid:
    """Where a PriorBox layer puts its boxes: at (i + offset) * step.

    Source: prior_box_layer.cpp of the SSD branch, Forward_cpu; a step of 0 is the image's size / the map's.
    """
    if prior.step is None:
        high, wide = (1 / count for count in map_size)
    else:
        high, wide = (step / side for step, side in zip(prior.step, input_size, strict=True))
    return (high, wide), (prior.offset * high, prior.offset * wide)
