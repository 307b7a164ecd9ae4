from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdlite_caffe.coco.remap import remap_rows

SHAPES = st.sampled_from([(), (3,), (5, 1, 1), (2, 3, 4)])


def bits(count: int, shape: tuple[int, ...]) -> np.ndarray:
    """Distinct float32 of any kind: NaNs, subnormals and both zeros among them."""
    size = count * int(np.prod(shape))
    kinds = np.array([0, 0x80000000, 1, 0x7FC00001, 0xFF800000], np.uint32)
    values = np.arange(size, dtype=np.uint32) * np.uint32(0x9E3779B1)
    values[: len(kinds)] = kinds[:size]
    return values.view(np.float32).reshape(count, *shape)


@given(st.data(), st.integers(1, 6), st.integers(2, 9), SHAPES)
def test_rows_are_moved_bit_for_bit(
    data: st.DataObject, num_boxes: int, num_classes: int, shape: tuple[int, ...]
) -> None:
    rows = data.draw(st.lists(st.integers(0, num_classes - 1), min_size=1, max_size=12))
    old = bits(num_boxes * num_classes, shape)
    new = remap_rows(old, num_boxes, num_classes, rows)
    assert new.shape == (num_boxes * len(rows), *shape)
    assert new.dtype == np.float32
    assert new.flags.c_contiguous
    for box in range(num_boxes):
        for k, row in enumerate(rows):
            assert new[box * len(rows) + k].tobytes() == old[box * num_classes + row].tobytes()


@given(st.integers(1, 6), st.integers(2, 9), SHAPES)
def test_all_rows_in_order_change_nothing(num_boxes: int, num_classes: int, shape: tuple[int, ...]) -> None:
    old = bits(num_boxes * num_classes, shape)
    assert remap_rows(old, num_boxes, num_classes, range(num_classes)).tobytes() == old.tobytes()


@given(st.data(), st.integers(1, 4), st.integers(2, 7))
def test_two_maps_after_each_other_are_one(data: st.DataObject, num_boxes: int, num_classes: int) -> None:
    first = data.draw(st.lists(st.integers(0, num_classes - 1), min_size=1, max_size=9))
    second = data.draw(st.lists(st.integers(0, len(first) - 1), min_size=1, max_size=9))
    old = bits(num_boxes * num_classes, (3, 1, 1))
    twice = remap_rows(remap_rows(old, num_boxes, num_classes, first), num_boxes, len(first), second)
    assert twice.tobytes() == remap_rows(old, num_boxes, num_classes, [first[k] for k in second]).tobytes()


def test_shape_and_rows_are_checked() -> None:
    with pytest.raises(AssertionError, match="is not 4 boxes of 3 classes"):
        remap_rows(np.zeros((13, 2), np.float32), 4, 3, [0])
    with pytest.raises(AssertionError, match="outside"):
        remap_rows(np.zeros((12, 2), np.float32), 4, 3, [0, -1])
