"""Files of COCO's tools: detections in its results format, and lists of picture ids."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssdlite_caffe.coco.annotations import read_bounded
from ssdlite_caffe.errors import DatasetError
from ssdlite_caffe.tools.decode import Detections
from ssdlite_caffe.tools.evaluation_data import LabelledPicture

_MAX_BYTES = 1 << 26
_DECIMALS = 3


class CocoResults:
    """Detections as COCO's servers and pycocotools take them, one dict each: image_id, category_id, bbox, score."""

    def __init__(self, categories: Mapping[int, int]) -> None:
        """Begin.

        Args:
            categories: the id of each row; detections of other rows are left out.
        """
        self.found: list[dict[str, Any]] = []
        self._categories = categories

    def add(self, picture: LabelledPicture, runtime: str, detections: Detections) -> None:
        """Take a picture's detections; `bbox` is x, y, width and height in pixels."""
        height, width = picture.pixels.shape[:2]
        corners = (detections.boxes.astype(float) * [width, height, width, height]).tolist()
        for label, score, box in zip(detections.classes.tolist(), detections.scores.tolist(), corners, strict=True):
            if label in self._categories:
                xmin, ymin, xmax, ymax = box
                sides = xmin, ymin, xmax - xmin, ymax - ymin
                self.found.append(
                    {
                        "image_id": picture.id,
                        "category_id": self._categories[label],
                        "bbox": [round(value, _DECIMALS) for value in sides],
                        "score": round(score, 6),
                    }
                )

    def to_json(self) -> str:
        """The file's text."""
        return json.dumps(self.found) + "\n"


def read_ids(path: Path) -> frozenset[str]:
    """Ids of pictures: one a line, or a JSON list, as lists of COCO minival are.

    Raises:
        DatasetError: it cannot be read, or holds no id.
    """
    try:
        text = read_bounded(path, _MAX_BYTES).decode("utf-8-sig")
        items = json.loads(text) if text.lstrip().startswith("[") else text.split()
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is no list of ids: {error}") from error
    wrong = [item for item in items if isinstance(item, bool) or not isinstance(item, int | str)]
    if wrong or not items:
        raise DatasetError(f"{path} is no list of ids" + (f": it holds {str(wrong[0])[:60]!a}" if wrong else ""))
    return frozenset(str(item) for item in items)
