"""The detections of an image, in one type for all runtimes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.arrays import FloatArray

IndexArray = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Detections:
    """Detections in one image, best first.

    Attributes:
        classes: int64 (M,), class ids; background is 0, so the first class is 1.
        scores: float32 (M,).
        boxes: float32 (M, 4): xmin, ymin, xmax, ymax as fractions of the image.
    """

    classes: npt.NDArray[np.int64]
    scores: FloatArray
    boxes: FloatArray

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score: float) -> Detections:
        """The detections with at least this score."""
        return self.select(np.flatnonzero(self.scores >= np.float32(score)))

    def select(self, order: IndexArray) -> Detections:
        """The detections at these indices, in this order."""
        return Detections(self.classes[order], self.scores[order], self.boxes[order])
