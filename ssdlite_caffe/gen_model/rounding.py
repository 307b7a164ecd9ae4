"""Channel counts after a width multiplier, rounded as TensorFlow rounds them."""

from __future__ import annotations


def make_divisible(value: float, divisor: int = 8, least: int | None = None) -> int:
    """The multiple of `divisor` nearest to `value`, but not below `least` and not more than 10% below `value`.

    Args:
        value: channels wanted.
        divisor: the result is a multiple of it, unless it is `least`.
        least: lower bound; None: `divisor`.

    Source: `_make_divisible` in slim's nets/mobilenet/mobilenet.py and conv_blocks.py.
    """
    floor = divisor if least is None else least
    rounded = max(floor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def truncate(value: float, least: int) -> int:
    """`value` cut to a whole number, never below `least`.

    Source: `depth` in slim's nets/mobilenet_v1.py; `get_depth_fn` in the OD API's feature_map_generators.py.
    """
    return max(int(value), least)
