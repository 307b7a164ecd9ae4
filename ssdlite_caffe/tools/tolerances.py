"""Largest allowed differences between a converted net and TensorFlow, each with the largest difference measured.

The bounds are the same for OpenCV and Caffe. Measured over 8 images each, with four models: a V2-SSDLite trained on
microscope images, the same with the model zoo's graph of 2018, a V3-small trained on drawn scenes, and a V3-large
with random weights. The deepest layers of the last one depend most on the order of summation: TensorFlow itself
differs there by 1.2e-4 with and without oneDNN.
"""

from __future__ import annotations

from typing import Final

INPUT: Final = 1e-6
"""Network input, from -1 to 1, of our resize and normalisation compared with the graph's. Measured: 2.4e-7."""

LAYER_RELATIVE: Final = 3e-4
"""Output of a layer: largest absolute difference divided by the largest absolute value of the reference.

Measured: trained 4e-6, in Caffe 4.3e-6. Random weights are beyond it: 6.4e-4 and 7.2e-4."""

LAYER_ABSOLUTE: Final = 1e-5
"""Output of a layer: absolute difference that always passes, for outputs near 0 (dead channels, about 1e-17).

Measured: 1.1e-6."""

RATIO: Final = 4.0
"""Rounding errors of a runtime in float32 as a multiple of TensorFlow's, each against its own net in float64.

Measured over 8 images: trained 1.7, random 1.6; random weights on drawn images 3.6."""

WRONG_RATIO: Final = 1000.0
"""The same multiple, above which a runtime computes something else than the net says."""

HEADLESS: Final = 1e-6
"""Outputs of the headless net compared with the deploy net's, with the same layers and runtime. Measured: 0."""

BOX: Final = 2e-5
"""Corners of all decoded boxes, as fractions of the image.

Measured: trained 4.5e-7, in Caffe 7.7e-7. Random weights are beyond it: 1.3e-4 and 1.4e-4."""

SCORE: Final = 2e-5
"""Scores of all default boxes.

Measured: trained 1.6e-6, in Caffe 1.22e-6. Random weights are beyond it: 6.5e-5 and 6.8e-5."""

DOUBLE_BOX: Final = 1e-7
"""Corners of all decoded boxes where the whole net is computed in float64, as fractions of the image; see `whole_net`.

Measured: 9.0e-8, and 1.2e-7 of a model whose default boxes are float32 centres and sizes; their rounding is all that it
is."""

DOUBLE_SCORE: Final = 1e-9
"""Scores of all default boxes where the whole net is computed in float64. Measured: trained 2e-15, random 1.5e-10."""
