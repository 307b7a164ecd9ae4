"""Running the model that a net was converted from, whatever file it is in, with what is known of it."""

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
    """What runs the model at `path`: TensorFlow, or TensorFlow Lite's interpreter.

    Args:
        path: as given to `read_model`.
        model: what it was read as.
        arch: what it was identified as.

    Raises:
        SsdliteError: it cannot be loaded, or there is nothing to run it with.
    """
    found = locate(path)
    if found.kind == "TensorFlow Lite":
        return TfliteDetector(found.path, arch, normalises=model.settings.pixel_scale is not None)
    return TensorFlowDetector(path)


def decode_encodings(encodings: FloatArray, model: DumpedModel, arch: ArchSpec) -> FloatArray:
    """Boxes (N, 4) xmin, ymin, xmax, ymax of box codes (N, 4) ty, tx, th, tw, with the model's own default boxes.

    Boxes that came from a pipeline.config, or that the file's number format has moved, are those of the architecture.
    """
    settings = model.settings
    default_boxes = settings.default_boxes
    if default_boxes is None or settings.box_rounding:
        default_boxes = tf_default_boxes(build(arch)).astype(np.float32)
    assert settings.box_coder_scales is not None, "identified without a box coder"
    sy, sx, sh, sw = settings.box_coder_scales
    variances = np.asarray([1 / sx, 1 / sy, 1 / sw, 1 / sh], np.float32)
    return decode_boxes(encodings[:, [1, 0, 3, 2]], default_boxes[:, [1, 0, 3, 2]], variances)
