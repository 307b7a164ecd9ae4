"""Running the source model of a converted net, in TensorFlow or in TensorFlow Lite's interpreter."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump.locate import locate
from ssdlite_caffe.dump.model import DumpedModel
from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.gen_model.default_boxes import tf_default_boxes
from ssdlite_caffe.runtimes.decode import decode_boxes
from ssdlite_caffe.runtimes.tensorflow_detector import TensorFlowDetector
from ssdlite_caffe.runtimes.tflite_detector import TfliteDetector

SourceDetector = TensorFlowDetector | TfliteDetector


def open_source(path: Path, model: DumpedModel, arch: ArchSpec) -> AbstractContextManager[SourceDetector]:
    """Load the model at `path` in TensorFlow or, for a .tflite file, in TensorFlow Lite's interpreter.

    Args:
        path: the model, as given to `read_model`.
        model: the result of `read_model`.
        arch: the architecture that `identify` found.

    Raises:
        SsdliteError: it cannot be loaded, or the runtime is not installed.
    """
    found = locate(path)
    if found.kind == "TensorFlow Lite":
        return TfliteDetector(found.path, arch, normalises=model.settings.pixel_scale is not None)
    return TensorFlowDetector(path)


def decode_encodings(encodings: FloatArray, model: DumpedModel, arch: ArchSpec) -> FloatArray:
    """Decode box encodings (N, 4) ty, tx, th, tw into boxes (N, 4) xmin, ymin, xmax, ymax.

    The model's own default boxes are used, or, where it has none or has them in a rounded form, the architecture's.
    """
    settings = model.settings
    default_boxes = settings.default_boxes
    if default_boxes is None or settings.box_rounding:
        default_boxes = tf_default_boxes(build(arch)).astype(np.float32)
    assert settings.box_coder_scales is not None, "identified without a box coder"
    sy, sx, sh, sw = settings.box_coder_scales
    variances = np.asarray([1 / sx, 1 / sy, 1 / sw, 1 / sh], np.float32)
    return decode_boxes(encodings[:, [1, 0, 3, 2]], default_boxes[:, [1, 0, 3, 2]], variances)
