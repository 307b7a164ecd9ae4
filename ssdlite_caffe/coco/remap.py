"""Reordering the classes of a class predictor. Exact: weights are copied, never computed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def remap_rows(
    blob: npt.NDArray[np.float32], num_boxes: int, num_classes: int, rows: Sequence[int]
) -> npt.NDArray[np.float32]:
    """Keep the classes `rows`, in this order, of every default box of a class predictor.

    new[box * len(rows) + k] = old[box * num_classes + rows[k]], for weights and bias alike.

    Args:
        blob: (num_boxes * num_classes, ...): a class predictor's weights (OIHW) or bias.
        num_boxes: default boxes in a cell of the feature map.
        num_classes: classes of the old predictor; counts background.
        rows: for each new class id, the old one, 0..num_classes-1.

    Returns:
        (num_boxes * len(rows), ...), C-contiguous, with the old values bit for bit.

    Source: output channel = box * num_classes + class: the SSD branch permutes mbox_conf to (N, H, W, C) and flattens
        it, and DetectionOutput and MultiBoxLoss read it as (box, class).
    """
    assert blob.shape[0] == num_boxes * num_classes, f"{blob.shape} is not {num_boxes} boxes of {num_classes} classes"
    assert all(0 <= row < num_classes for row in rows), f"class ids {list(rows)} outside 0..{num_classes - 1}"
    by_box = blob.reshape(num_boxes, num_classes, *blob.shape[1:])
    return np.ascontiguousarray(by_box[:, list(rows)]).reshape(num_boxes * len(rows), *blob.shape[1:])
