"""Small Keras detectors with random weights that behave like trained ones: no rounding error grows on the way."""

from __future__ import annotations

import numpy as np

from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.keras.model import KerasModel, build_model, detector_of


def lively_detector(arch: ArchSpec, seed: int = 0) -> KerasModel:
    """A detector whose BatchNorms have the statistics of what they see."""
    from ssdlite_caffe.imports import import_keras

    keras, _ = import_keras()
    keras.utils.set_random_seed(seed)
    random = np.random.default_rng(seed)
    model = build_model(arch, momentum=1e-6)
    for layer in model.layers:
        if hasattr(layer, "gamma"):
            layer.gamma.assign(random.uniform(0.7, 1.4, layer.gamma.shape))
            layer.beta.assign(random.uniform(-0.5, 1.0, layer.beta.shape))
        elif "Predictor" in layer.name and layer.weights and getattr(layer, "bias", None) is not None:
            # Codes that leave the boxes in the image.
            spread = 1.5 if "Class" in layer.name else 0.15 / arch.variances[0]
            layer.kernel.assign(random.normal(0, spread / np.sqrt(layer.kernel.shape[2]), layer.kernel.shape))
            layer.bias.assign(random.normal(0, spread / 1.5, layer.bias.shape))
    model(images(arch, 4, seed), training=True)
    found = detector_of(model)
    assert found is not None
    return found


def images(arch: ArchSpec, count: int, seed: int = 1) -> np.ndarray:
    """Smooth random network inputs, float32 (count, H, W, 3) in -1..1."""
    random = np.random.default_rng(seed)
    height, width = arch.input_size
    coarse = random.uniform(-1, 1, (count, 8, 8, 3))
    rows, columns = (np.arange(n) * 8 // n for n in (height, width))
    fine = coarse[:, rows][:, :, columns] + random.normal(0, 0.1, (count, height, width, 3))
    return np.clip(fine, -1, 1).astype(np.float32)


def bytes_of(fed: np.ndarray) -> np.ndarray:
    """The images as pixels, uint8."""
    return np.rint((fed + 1) * 127.5).astype(np.uint8)
