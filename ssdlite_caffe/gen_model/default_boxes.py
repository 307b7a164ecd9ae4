"""Default boxes: where TensorFlow's and torchvision's are, and how large. `prior_boxes` writes them for Caffe."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from ssdlite_caffe.errors import ArchError
from ssdlite_caffe.gen_model.arch import ArchSpec, CellBoxes, Grid
from ssdlite_caffe.gen_model.netdesc import NetDesc

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

ASPECT_RATIOS = (1.0, 2.0, 0.5, 3.0, 0.3333)
"""Of the model zoo's configs, which have 0.3333 and not 1/3."""

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
        parts.append(grid_boxes(size, cell.sizes, strides, offsets))
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


def grid_boxes(
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

    return np.concatenate([grid_boxes(m.size, m.tf_boxes, *(m.grid or ())) for m in net.feature_maps])
