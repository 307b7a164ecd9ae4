"""The runtimes that `evaluate` can use, by name; a new runtime is a function and a line in RUNTIMES."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ssdlite_caffe.coco.label_map import check_classes
from ssdlite_caffe.errors import ModelError, SsdliteError
from ssdlite_caffe.evaluation.forms import ModelForms, check_form
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.images import Pixels
from ssdlite_caffe.runtimes.net import NetRuntime

if TYPE_CHECKING:
    from ssdlite_caffe.dump.model import DumpedModel
    from ssdlite_caffe.gen_model.arch import ArchSpec, Nms
    from ssdlite_caffe.runtimes.tensorflow_detector import TensorFlowDetector

Detect = Callable[[Pixels], Detections]
"""Detects objects in an image, uint8 (H, W, 3) BGR; boxes are fractions of the image, clipped."""


@dataclass(frozen=True)
class Opened:
    """A detector that has been loaded; call it with an image.

    Attributes:
        detect: the detector itself.
        path: the file or folder that it runs.
        score_threshold: least score that it gives; None if that is not known.
    """

    detect: Detect
    path: Path
    score_threshold: float | None

    def __call__(self, image: Pixels) -> Detections:
        """Detections in an image; see Detect."""
        return self.detect(image)


def _net(runtime: NetRuntime) -> Callable[[ModelForms], AbstractContextManager[Opened]]:
    @contextlib.contextmanager
    def opened(model: ModelForms) -> Iterator[Opened]:
        from ssdlite_caffe.runtimes.detector import Detector

        check_form(model, runtime)
        assert model.folder is not None, "checked"
        detector = Detector(model.folder, runtime=runtime, score_threshold=model.score_threshold)
        yield Opened(detector, model.folder.path, detector.score_threshold)

    return opened


@contextlib.contextmanager
def _tensorflow(model: ModelForms) -> Iterator[Opened]:
    """The graph's own detections or, if it has none, those of the reference decoder on its raw outputs."""
    from ssdlite_caffe.dump.read import ReadOptions, read_model
    from ssdlite_caffe.load.identify import identify
    from ssdlite_caffe.runtimes.tensorflow_detector import TensorFlowDetector

    check_form(model, "tensorflow")
    assert model.tensorflow is not None, "checked"
    known, reason = None, None
    try:
        # The graph's own settings: `convert` may have been told to take NMS from elsewhere.
        reading = ReadOptions() if model.folder is None else dataclasses.replace(model.folder.reading, nms="auto")
        known = identify(read_model(model.tensorflow, reading))
    except SsdliteError as error:  # a detector of another kind may have detections all the same
        reason = error
    if known is not None:
        check_classes(model.labels, known[1].num_classes)
    with TensorFlowDetector(model.tensorflow) as detector:
        wanted = model.score_threshold
        own = None if known is None else known[0].settings.score_threshold
        if detector.has_detections and (wanted is None or (own is not None and wanted >= own)):
            least = own if wanted is None else wanted
            yield Opened(lambda image: detector.detect_image(_rgb(image)).above(least or 0), detector.path, least)
        elif known is None:
            raise reason or ModelError(f"{detector.path} is not a detector")
        else:
            # The converted model's NMS, since `convert` may have been given another score threshold.
            nms = known[1].nms if model.folder is None else model.folder.arch.nms
            nms = nms if wanted is None else dataclasses.replace(nms, score_threshold=wanted)
            yield Opened(_decoding(detector, *known, nms), detector.path, nms.score_threshold)


def _rgb(image: Pixels) -> Pixels:
    return np.ascontiguousarray(image[..., ::-1])


def _decoding(detector: TensorFlowDetector, source: DumpedModel, arch: ArchSpec, nms: Nms) -> Detect:
    from ssdlite_caffe.runtimes.decode import choose_detections
    from ssdlite_caffe.runtimes.resize import input_of, window_of
    from ssdlite_caffe.runtimes.source_detector import decode_encodings

    def detected(image: Pixels) -> Detections:
        window = window_of((image.shape[0], image.shape[1]), arch.resizer)
        raw = detector.raw(input_of(arch, image[..., ::-1]))
        return choose_detections(decode_encodings(raw.encodings, source, arch), raw.scores, nms, window=window)

    return detected


@contextlib.contextmanager
def _keras(model: ModelForms) -> Iterator[Opened]:
    from ssdlite_caffe.keras.detectors import KerasDetector
    from ssdlite_caffe.keras.model import with_threshold
    from ssdlite_caffe.keras.store import load

    check_form(model, "keras")
    assert model.keras is not None, "checked"
    loaded = load(model.keras)
    if model.score_threshold is not None:
        loaded = with_threshold(loaded, model.score_threshold)
    yield Opened(KerasDetector(loaded), model.keras, loaded.arch.nms.score_threshold)


@contextlib.contextmanager
def _tflite(model: ModelForms) -> Iterator[Opened]:
    from ssdlite_caffe.keras.detectors import open_tflite

    check_form(model, "tflite")
    assert model.tflite is not None, "checked"
    reading = None if model.folder is None else model.folder.reading
    detector = open_tflite(model.tflite, model.labels, reading)
    own, wanted = detector.score_threshold, model.score_threshold
    if wanted is not None and wanted < own:
        raise ModelError(
            f"{model.tflite} gives scores from {own:g} only, which is written in it; write it again with `keras export "
            "tflite --score-threshold`, or give no lower --score-threshold here"
        )
    least = own if wanted is None else wanted
    yield Opened(lambda image: detector(image).above(least), model.tflite, least)


@contextlib.contextmanager
def _torch(model: ModelForms) -> Iterator[Opened]:
    """Torchvision's own detections, with the converted model's score threshold unless another one is given."""
    from ssdlite_caffe.dump.read import ReadOptions, read_model
    from ssdlite_caffe.load.identify import identify
    from ssdlite_caffe.runtimes.torch_detector import TorchDetector

    check_form(model, "torch")
    assert model.torch is not None, "checked"
    reading = ReadOptions() if model.folder is None else model.folder.reading
    known, arch = identify(read_model(model.torch, reading))
    check_classes(model.labels, arch.num_classes)
    own = (arch if model.folder is None else model.folder.arch).nms.score_threshold
    least = own if model.score_threshold is None else model.score_threshold
    with TorchDetector(model.torch, known, ema=reading.ema, score_threshold=least) as detector:
        yield Opened(lambda image: detector.detect_image(_rgb(image)), model.torch, least)


def check_runtimes(names: Sequence[str]) -> None:
    """Check names of runtimes.

    Raises:
        ModelError: one is not in RUNTIMES.
    """
    unknown = [name for name in names if name not in RUNTIMES]
    if unknown:
        raise ModelError(f"there is no runtime {unknown[0]!r}; choose from {', '.join(RUNTIMES)}")


RUNTIMES: Mapping[str, Callable[[ModelForms], AbstractContextManager[Opened]]] = {
    "tensorflow": _tensorflow,
    "opencv": _net("opencv"),
    "caffe": _net("caffe"),
    "reference": _net("reference"),
    "keras": _keras,
    "tflite": _tflite,
    "torch": _torch,
}
