"""The runtimes that `evaluate` can use, by name; a new runtime is a function and a line in RUNTIMES."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ssdlite_caffe.coco.label_map import LabelMap
from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.images import Pixels
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.net import NetRuntime

if TYPE_CHECKING:
    from ssdlite_caffe.runtimes.tensorflow_detector import TensorFlowDetector

Detect = Callable[[Pixels], Detections]
"""Detects objects in an image, uint8 (H, W, 3) BGR; boxes are fractions of the image, clipped."""


@dataclass(frozen=True)
class ModelForms:
    """One detector in the forms that exist of it; None for a form that does not.

    Attributes:
        labels: its classes.
        folder: the folder that `convert` wrote.
        tensorflow: the TensorFlow model.
        keras: the Keras model.
        tflite: the TensorFlow Lite model.
    """

    labels: LabelMap
    folder: ModelFolder | None = None
    tensorflow: Path | None = None
    keras: Path | None = None
    tflite: Path | None = None

    @property
    def path(self) -> Path | None:
        """Path of the first form that exists: folder, Keras, TensorFlow Lite, TensorFlow."""
        forms = (self.folder.path if self.folder else None, self.keras, self.tflite, self.tensorflow)
        return next((path for path in forms if path is not None), None)


def _net(runtime: NetRuntime) -> Callable[[ModelForms], AbstractContextManager[Detect]]:
    @contextlib.contextmanager
    def opened(model: ModelForms) -> Iterator[Detect]:
        from ssdlite_caffe.runtimes.detector import Detector

        if model.folder is None:
            raise ModelError(f"{runtime} runs converted models, and {model.path} is not one; convert it first")
        yield Detector(model.folder, runtime=runtime)

    return opened


@contextlib.contextmanager
def _tensorflow(model: ModelForms) -> Iterator[Detect]:
    """The graph's own detections or, if it has none, those of the reference decoder on its raw outputs."""
    from ssdlite_caffe.runtimes.tensorflow_detector import TensorFlowDetector

    if model.tensorflow is None:
        raise ModelError("the path of the TensorFlow model is not known; give it with --tensorflow")
    with TensorFlowDetector(model.tensorflow) as detector:
        if detector.has_detections:
            yield lambda image: detector.detect_image(np.ascontiguousarray(image[..., ::-1]))
        else:
            yield _decoding(detector, model)


def _decoding(detector: TensorFlowDetector, model: ModelForms) -> Detect:
    from ssdlite_caffe.dump.read import ReadOptions, read_model
    from ssdlite_caffe.load.identify import identify
    from ssdlite_caffe.runtimes.decode import choose_detections
    from ssdlite_caffe.runtimes.resize import input_of, window_of
    from ssdlite_caffe.runtimes.source_detector import decode_encodings

    reading = ReadOptions() if model.folder is None else model.folder.reading
    source, arch = identify(read_model(detector.path, reading))
    # The converted model's NMS, since `convert` may have been given another score threshold.
    nms = arch.nms if model.folder is None else model.folder.arch.nms

    def detected(image: Pixels) -> Detections:
        window = window_of((image.shape[0], image.shape[1]), arch.resizer)
        raw = detector.raw(input_of(arch, image[..., ::-1]))
        return choose_detections(decode_encodings(raw.encodings, source, arch), raw.scores, nms, window=window)

    return detected


@contextlib.contextmanager
def _keras(model: ModelForms) -> Iterator[Detect]:
    from ssdlite_caffe.keras.detectors import KerasDetector
    from ssdlite_caffe.keras.store import load

    if model.keras is None:
        raise ModelError(f"{model.path} is not a Keras model; give one with --keras (`keras import` writes it)")
    yield KerasDetector(load(model.keras))


@contextlib.contextmanager
def _tflite(model: ModelForms) -> Iterator[Detect]:
    from ssdlite_caffe.keras.detectors import open_tflite

    if model.tflite is None:
        raise ModelError(
            f"{model.path} is not a TensorFlow Lite model; give one with --tflite (`keras export tflite` writes it)"
        )
    yield open_tflite(model.tflite, model.labels, None if model.folder is None else model.folder.reading)


def check_runtimes(names: Sequence[str]) -> None:
    """Check names of runtimes.

    Raises:
        ModelError: one is not in RUNTIMES.
    """
    unknown = [name for name in names if name not in RUNTIMES]
    if unknown:
        raise ModelError(f"there is no runtime {unknown[0]!r}; choose from {', '.join(RUNTIMES)}")


RUNTIMES: Mapping[str, Callable[[ModelForms], AbstractContextManager[Detect]]] = {
    "tensorflow": _tensorflow,
    "opencv": _net("opencv"),
    "caffe": _net("caffe"),
    "keras": _keras,
    "tflite": _tflite,
}
