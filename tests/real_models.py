"""The real models of the folder `shared/models`, as parameters of tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

LARGE = frozenset({"zoo2018_v2_ssdlite_90", "random_v3_large_90"})
"""With 90 classes: these take as long as all others together, so `make test-all` alone looks at them."""


def real_models(
    names: Iterable[str],
    *marks: pytest.MarkDecorator,
    large: pytest.MarkDecorator = pytest.mark.story,
    group: bool = False,
) -> list[Any]:
    """A parameter for each name.

    Args:
        names: folders in `shared/models`, or other names.
        marks: put on every parameter.
        large: put on those of large models.
        group: keep the tests of a model in one process, for a fixture that takes long.
    """
    return [
        pytest.param(
            name,
            marks=[
                *marks,
                *([large] if name in LARGE else []),
                *([pytest.mark.xdist_group(name)] if group else []),
            ],
        )
        for name in names
    ]
