"""What a device loses of the average precision: the figures, as plain data and as text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Precision:
    """COCO's average precision, 0 to 1; NaN without objects.

    Attributes:
        ap: mean over the IoUs 0.50 to 0.95.
        ap50: at 0.50.
    """

    ap: float
    ap50: float

    def to_dict(self) -> dict[str, float | None]:
        """Plain data for JSON."""
        values = {"ap": self.ap, "ap50": self.ap50}
        return {name: value if math.isfinite(value) else None for name, value in values.items()}


@dataclass(frozen=True)
class Loss:
    """TensorFlow and the device on the same objects.

    Attributes:
        name: class name; empty for the mean of all classes.
        objects: number of objects, without difficult ones.
    """

    name: str
    objects: int
    tensorflow: Precision
    device: Precision

    @property
    def lost(self) -> Precision:
        """What TensorFlow has more; below 0 where the device is better."""
        return Precision(self.tensorflow.ap - self.device.ap, self.tensorflow.ap50 - self.device.ap50)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        sides = {"tensorflow": self.tensorflow, "device": self.device, "lost": self.lost}
        return {"objects": self.objects, **{name: side.to_dict() for name, side in sides.items()}}


@dataclass(frozen=True)
class DeviceAccuracy:
    """Average precision on annotated images.

    Attributes:
        annotations: where they are.
        images: number of images.
        total: the means over the classes that have objects.
        classes: each of these.
        score_threshold: least score of the detections of both sides.
        problems: what was skipped in the annotations, and why.
    """

    annotations: str
    images: int
    total: Loss
    classes: tuple[Loss, ...]
    score_threshold: float
    problems: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        names = [one.name for one in self.classes]
        keys = (name if names.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(names, 1))
        return {
            "annotations": self.annotations,
            "images": self.images,
            **self.total.to_dict(),
            "classes": {key: one.to_dict() for key, one in zip(keys, self.classes, strict=True)},
            "score_threshold": self.score_threshold,
            "problems": list(self.problems),
        }


def accuracy_text(found: DeviceAccuracy) -> str:
    """The means in one line."""
    total, images = found.total, f"{found.images} image{'s' * (found.images != 1)}"
    objects = f"{total.objects} object{'s' * (total.objects != 1)}"
    parts = [
        f"{name} {device:.4f}, in TensorFlow {tensorflow:.4f}: {lost_text(tensorflow - device)}"
        for name, tensorflow, device in (
            ("AP", total.tensorflow.ap, total.device.ap),
            ("AP50", total.tensorflow.ap50, total.device.ap50),
        )
    ]
    return f"{'; '.join(parts)} ({images}, {objects})"


def lost_text(lost: float) -> str:
    """`0.0123 lost`, `0.0010 gained`, `none lost`."""
    if round(lost, 4) == 0:
        return "none lost"
    return f"{lost:.4f} lost" if lost > 0 else f"{-lost:.4f} gained"


def accuracy_rows(found: DeviceAccuracy) -> list[tuple[str, ...]]:
    """Cells of a table, for each class and for their mean; its headings are ACCURACY_HEADINGS."""
    rows = []
    for one in (*found.classes, found.total):
        sides = (one.tensorflow, one.device, one.lost)
        values = [*(side.ap for side in sides), *(side.ap50 for side in sides)]
        # Adding 0 makes 0 of -0.
        rows.append((one.name or "mean", str(one.objects), *(f"{round(value, 4) + 0.0:.4f}" for value in values)))
    return rows


ACCURACY_HEADINGS = ("class", "objects", "AP", "device", "lost", "AP50", "device", "lost")
"""AP and AP50 are TensorFlow's."""
