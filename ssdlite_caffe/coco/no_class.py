"""Names that stand for no class of objects: background, and the rows of class ids that no class has.

Label maps, class mappings and the readers of annotations all ask here, so that a name means the same in each.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

_BACKGROUND = frozenset({"background", "none of the above", "unlabeled", "unlabelled"})
"""Without capitals, and with spaces for `_` and `-`: Caffe's label maps have none_of_the_above, pytorch-ssd BACKGROUND,
torchvision __background__, labelme _background_, and lists of COCO's 91 classes unlabeled."""
_PLACEHOLDER = frozenset({"???", "n/a", "(n/a)", "n.a."})
_REPEATED = frozenset(
    {
        "na", "nan", "nil", "none", "null", "unused", "not used", "unknown", "undefined", "unnamed", "dummy", "empty",
        "blank", "reserved", "invalid", "void", "placeholder",
    }
)  # fmt: skip
"""Words and, likewise, signs without a letter or digit: one such name may be a class, several are rows of none."""


def is_background(name: str) -> bool:
    """Whether a name is background's, which always has class id 0; `_` and `-` around and in it count as spaces."""
    return " ".join(re.split(r"[\s_-]+", name.casefold())).strip(" <>[]()") in _BACKGROUND


def is_placeholder(name: str) -> bool:
    """Whether a name only says that a class id is not used, as `???` in TFLite's lists and `N/A` in torchvision's."""
    return name.strip().casefold() in _PLACEHOLDER


def unused_name(class_id: int) -> str:
    """The name of the row of a class id that no class has."""
    return f"unused_{class_id}"


def dead_names(names: Iterable[str]) -> frozenset[str]:
    """Of the names of all rows, those that no class has: placeholders, and words like `none` in several rows."""
    return frozenset(
        name
        for name, count in Counter(names).items()
        if is_placeholder(name) or (count > 1 and _fills_several_rows(name))
    )


def _fills_several_rows(name: str) -> bool:
    text = name.strip().casefold()
    return text in _REPEATED or not any(letter.isalnum() for letter in text)
