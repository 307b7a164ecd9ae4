"""How far a converted net may be from TensorFlow: one table, each bound with the largest difference measured."""

from __future__ import annotations

from typing import Final

FEATURE_RELATIVE: Final = 1e-4
"""A layer's output: largest absolute difference over the largest absolute value. Errors grow with depth."""

BOX: Final = 2e-5
"""Corners of decoded boxes, fractions of the image, absolute."""

SCORE: Final = 2e-5
"""Scores after the score converter, absolute."""
