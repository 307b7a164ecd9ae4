"""How far a converted net may be from TensorFlow: one table, each bound with the largest difference measured.

OpenCV and the built Caffe are held to the same bounds. Measured over 8 images each of a V2-SSDLite trained on
microscope images, the same with the public zoo's 2018 graph, a V3-small trained on drawn scenes, and a V3-large of
random weights, whose deepest layers answer to the order of summation most: TensorFlow differs there from itself, with
and without oneDNN, by 1.2e-4.
"""

from __future__ import annotations

from typing import Final

INPUT: Final = 1e-6
"""Network input, from -1 to 1: our resizing and normalising against the graph's. Measured: 2.4e-7."""

LAYER_RELATIVE: Final = 3e-4
"""A layer's output: largest absolute difference over the largest absolute value.

Measured: trained 4e-6, random 2.9e-4; in Caffe 4e-6 and 3.0e-4."""

LAYER_ABSOLUTE: Final = 1e-5
"""A layer whose outputs all but vanish (dead channels, of values near 1e-17) is compared absolutely.

Measured: 1.1e-6."""

HEADLESS: Final = 1e-6
"""The headless net's outputs against the deploy net's: the same layers on the same runtime. Measured: 0."""

BOX: Final = 2e-5
"""Corners of all decoded boxes, fractions of the image.

Measured: trained 4.5e-7, random 2.1e-5; in Caffe 4.5e-7 and 3.5e-5."""

SCORE: Final = 2e-5
"""Scores of all default boxes.

Measured: trained 1.6e-6, random 4.2e-5; in Caffe 1.22e-6 and 2.9e-5. Verify random weights with --tolerance 1e-4."""
