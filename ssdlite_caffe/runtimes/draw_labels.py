"""Where the labels of drawn boxes stand: inside the image, and none on another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Rectangle(NamedTuple):
    """Pixels from (left, top) to (right, bottom), the last two not included."""

    left: int
    top: int
    right: int
    bottom: int

    def meets(self, other: Rectangle) -> bool:
        """Whether they share a pixel."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def place_labels(
    boxes: Sequence[Rectangle], sizes: Sequence[tuple[int, int]], height: int, width: int
) -> list[Rectangle | None]:
    """Place a label at each box, the first box first.

    A label stands above its box, else inside at the top, else below, else inside at the bottom, each first at the left
    and then at the right end, moved into the image. Where all these are taken it stands at the free place nearest to
    the first of them.

    Args:
        boxes: M boxes inside the image; the most important first.
        sizes: M (width, height) of the labels in pixels.
        height: of the image in pixels.
        width: of the image in pixels.

    Returns:
        M rectangles inside the image, no two of which overlap; None for a label that no free place is left for, and
        for one larger than the image.
    """
    placed: list[Rectangle | None] = []
    taken: list[Rectangle] = []
    for box, (wide, high) in zip(boxes, sizes, strict=True):
        place = None
        if wide <= width and high <= height:
            near = list(_near(box, wide, high, height, width))
            place = next((p for p in near if not any(p.meets(other) for other in taken)), None)
            place = place or _nearest_free(near[0], taken, height, width)
        placed.append(place)
        if place is not None:
            taken.append(place)
    return placed


def _near(box: Rectangle, wide: int, high: int, height: int, width: int) -> Iterator[Rectangle]:
    """The places at a box, the preferred one first."""
    for top in (box.top - high, box.top, box.bottom, box.bottom - high):
        for left in (box.left, box.right - wide):
            x, y = min(max(left, 0), width - wide), min(max(top, 0), height - high)
            yield Rectangle(x, y, x + wide, y + high)


def _nearest_free(wanted: Rectangle, taken: Sequence[Rectangle], height: int, width: int) -> Rectangle | None:
    """The free place nearest to the one wanted, of those that touch the border or a label taken; None without one.

    Any free place can be pushed to the left and then up until it touches something, and is free still: where all of
    these places are taken, there is no space at all.
    """
    wide, high = wanted.right - wanted.left, wanted.bottom - wanted.top
    edges = np.array(taken, np.int64).reshape(-1, 4)
    lefts = np.concatenate([[0, width - wide, wanted.left], edges[:, 2], edges[:, 0] - wide])
    tops = np.concatenate([[0, height - high, wanted.top], edges[:, 3], edges[:, 1] - high])
    lefts, tops = lefts[(lefts >= 0) & (lefts <= width - wide)], tops[(tops >= 0) & (tops <= height - high)]
    # A place is taken where one label overlaps it in both directions; the product counts these labels.
    across = _overlaps(lefts, wide, edges[:, 0], edges[:, 2])
    down = _overlaps(tops, high, edges[:, 1], edges[:, 3])
    distance = (lefts[:, None] - wanted.left) ** 2.0 + (tops[None] - wanted.top) ** 2.0
    distance[across @ down.T > 0] = np.inf
    column, row = np.unravel_index(distance.argmin(), distance.shape)
    if np.isinf(distance[column, row]):
        return None
    x, y = int(lefts[column]), int(tops[row])
    return Rectangle(x, y, x + wide, y + high)


def _overlaps(
    starts: npt.NDArray[np.int64], length: int, begins: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """1 where [start, start + length) overlaps [begin, end), else 0; (starts, intervals)."""
    shared = (starts[:, None] < ends[None]) & (begins[None] < starts[:, None] + length)
    return shared.astype(np.float32)
