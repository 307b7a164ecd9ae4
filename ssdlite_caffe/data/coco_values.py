"""Ids and numbers in COCO's files, which some programs write as text or as 1.0."""

from __future__ import annotations

import math
import re
from typing import Any

from ssdlite_caffe.data.annotations import NUMBER, UNFIT

Id = int | str
"""Of an image or category. Most are whole numbers; the names of images are in use, too."""

_MAX_ID = 1 << 62
_WHOLE = re.compile(r"-?(0|[1-9]\d{0,18})", re.ASCII)


def id_key(value: Any) -> Id | None:
    """What an id is compared by, so that 7, 7.0 and "7" are one; None if it is neither a whole number nor text.

    Other text, such as "007" or a name, stays text.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        value = int(value) if value.is_integer() else None
    if isinstance(value, str):
        text = value.strip()
        if not _WHOLE.fullmatch(text):
            return None if not text or UNFIT.search(text) else text
        value = int(text)
    return value if isinstance(value, int) and abs(value) < _MAX_ID else None


def own_id(value: Any) -> Id:
    """An id for result files, which are compared with the file itself: text stays text, and 7.0 becomes 7."""
    return value if isinstance(value, str) else int(value)


def number(value: Any) -> float | None:
    """A finite number, also one that is written as text; None if it is none."""
    if isinstance(value, str) and NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int):
        return float(value) if abs(value) < _MAX_ID else None
    return value if math.isfinite(value) else None
