"""What can run a detector on whole images, by name; a new runtime is one function and one line of RUNTIMES."""

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
"""Finds objects in an image, uint8 (H, W, 3) BGR; boxes are fractions of it, clipped."""


@dataclass(frozen=True)
class ModelForms:
    """A detector in the forms there are of it.

    Attributes:
        labels: its classes.
        folder: converted to Caffe.
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
        """Of the form that names it."""
        forms = (self.folder.path if self.folder else None, self.keras, self.tflite, self.tensorflow)
        return next((path for path in forms if path is not None), None)


def _net(runtime: NetRuntime) -> Callable[[ModelForms], AbstractContextManager[Detect]]:
    @contextlib.contextmanager
    def opened(model: ModelForms) -> Iterator[Detect]:
        from ssdlite_caffe.runtimes.detector import Detector

        if model.folder is None:
            raise ModelError(f"{runtime} runs converted models; {model.path} is none: convert it first")
        yield Detector(model.folder, runtime=runtime)

    return opened


@contextlib.contextmanager
def _tensorflow(model: ModelForms) -> Iterator[Detect]:
    """The graph's own detections; of a graph without any, those of the reference decoder on its raw outputs."""
    from ssdlite_caffe.runtimes.tensorflow_detector import TensorFlowDetector

    if model.tensorflow is None:
        raise ModelError("where the TensorFlow model lies is not known; name it with --tensorflow")
    with TensorFlowDetector(model.tensorflow) as detector:
        if detector.has_detections:
            yield lambda image: detector.detect_image(np.ascontiguousarray(image[..., ::-1]))
        else:
            yield _decoding(detector, model)


def _decoding(detector: TensorFlowDetector, model: ModelForms) -> Detect:
    from ssdlite_caffe.dump.read import ReadOptions, read_model
    from ssdlite_caffe.load.identify import identify
    from ssdlite_caffe.runtimes.decode import choose_detections
    from ssdlite_caffe.runtimes.resize import network_input
    from ssdlite_caffe.runtimes.source import decode_encodings

    reading = ReadOptions() if model.folder is None else model.folder.reading
    source, arch = identify(read_model(detector.path, reading))
    # What was asked for on converting, its score threshold included.
    nms = arch.nms if model.folder is None else model.folder.arch.nms

    def detected(image: Pixels) -> Detections:
        fed = network_input(image[..., ::-1], arch.input_size, mean=arch.pixel_mean, scale=arch.pixel_scale)
        raw = detector.raw(fed)
        return choose_detections(decode_encodings(raw.encodings, source, arch), raw.scores, nms)

    return detected


@contextlib.contextmanager
def _keras(model: ModelForms) -> Iterator[Detect]:
    from ssdlite_caffe.keras.detectors import KerasDetector
    from ssdlite_caffe.keras.store import load

    if model.keras is None:
        raise ModelError(f"{model.path} is no Keras model; name one with --keras (keras import makes it)")
    yield KerasDetector(load(model.keras))


@contextlib.contextmanager
def _tflite(model: ModelForms) -> Iterator[Detect]:
    from ssdlite_caffe.keras.detectors import open_tflite

    if model.tflite is None:
        raise ModelError(f"{model.path} is no TensorFlow Lite model; name one with --tflite (export makes it)")
    yield open_tflite(model.tflite, model.labels, None if model.folder is None else model.folder.reading)


def check_runtimes(names: Sequence[str]) -> None:
    """Refuse names that are not in RUNTIMES.

    Raises:
        ModelError: one is not; the text names it.
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
