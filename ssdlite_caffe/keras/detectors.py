"""Keras and TensorFlow Lite models as detectors, from image to detections."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.coco.label_map import LabelMap, check_classes, numbered
from ssdlite_caffe.dump.read import ReadOptions, read_model
from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.imports import import_keras
from ssdlite_caffe.keras.export_tflite import ENDS
from ssdlite_caffe.keras.model import KerasModel
from ssdlite_caffe.keras.store import description_of, load
from ssdlite_caffe.keras.tflite_file import has_description, read_description
from ssdlite_caffe.load.identify import identify
from ssdlite_caffe.runtimes import source_detector as source_runtime
from ssdlite_caffe.runtimes.decode import choose_detections, clip_detections, convert_scores, decode_boxes
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.images import Pixels
from ssdlite_caffe.runtimes.resize import WHOLE, Window, input_of, pixels_of, window_of
from ssdlite_caffe.runtimes.tflite_detector import TfliteDetector, interpreter
from ssdlite_caffe.terminal import silenced


class KerasDetector:
    """A Keras model as a detector; call it with an image."""

    def __init__(self, detector: KerasModel) -> None:
        """Trace the model.

        Args:
            detector: a model with any inputs and outputs; its weights are copied.
        """
        _, tf = import_keras()
        self.arch, self.labels = detector.arch, detector.labels
        self._whole = self.arch.resizer.plain
        # Keras resizes and suppresses only where images are squashed; else numpy does both.
        inputs, outputs, dtype = ("image", "detections", tf.uint8) if self._whole else ("network", "raw", tf.float32)
        model = detector.rebuilt(inputs=inputs, outputs=outputs).model
        spec = tf.TensorSpec((1, None, None, 3) if self._whole else (1, *self.arch.input_size, 3), dtype)
        self._run = tf.function(lambda image: model(image, training=False), input_signature=[spec])
        first = np.zeros((1, *self.arch.input_size, 3), spec.dtype.as_numpy_dtype)
        self._run(first)  # traced now, so that no image's time includes it

    def __call__(self, image: Pixels) -> Detections:
        """Detections in an image, uint8 (H, W, 3) BGR; boxes are clipped to it."""
        window = window_of((image.shape[0], image.shape[1]), self.arch.resizer)
        shown = np.ascontiguousarray(image[..., ::-1])
        found = self._run(shown[None] if self._whole else input_of(self.arch, shown))
        values = {name: np.asarray(value) for name, value in found.items()}
        return _detections(values, first_class=1) if self._whole else decode_raw(values, self.arch, window)


class ExportedTfliteDetector:
    """A TensorFlow Lite model that `keras export tflite` wrote, as a detector; call it with an image."""

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        """Load the model.

        Args:
            path: the file.
            threads: number of threads; None: the interpreter's default.

        Raises:
            ModelError: it cannot be read, or was not written by `keras export tflite`.
            MissingRuntimeError: no interpreter is installed.
        """
        data, self.description = read_description(path)
        self.arch, self.labels = self.description.arch, self.description.labels
        self._path = path
        try:
            with silenced():  # the interpreter prints which delegate it uses
                self._interpreter = interpreter(data, threads=threads)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError, TypeError) as error:
            raise ModelError(f"TensorFlow Lite cannot run {path}: {str(error).splitlines()[0][:300]}") from error
        self._outputs = self._interpreter.get_output_details()
        inputs, wanted = self._interpreter.get_input_details(), ENDS.get(self.description.outputs, ())
        if len(inputs) != 1 or len(self._outputs) != len(wanted):
            raise ModelError(
                f"{path} does not fit its description: it has {len(inputs)} inputs and {len(self._outputs)} outputs, "
                f"the description says 1 and {len(wanted)}"
            )
        (self._input,) = inputs

    def __call__(self, image: Pixels) -> Detections:
        """Detections in an image, uint8 (H, W, 3) BGR; boxes are clipped to it.

        Raises:
            ModelError: the interpreter fails, or its outputs are not detections of the model's classes.
        """
        values = self.run(self.prepared(image))
        try:
            window = window_of((image.shape[0], image.shape[1]), self.arch.resizer)
            if self.description.outputs == "raw":
                return decode_raw(values, self.arch, window)
            found = clip_detections(_detections(values, first_class=0), window)
        except (ValueError, IndexError, OverflowError) as error:
            raise ModelError(f"the outputs of {self._path} are not detections: {error}") from error
        if not ((found.classes > 0) & (found.classes < self.arch.num_classes)).all():
            wrong = sorted({int(c) for c in found.classes if not 0 < c < self.arch.num_classes})[:5]
            raise ModelError(
                f"{self._path} gives class ids without a name: {', '.join(map(str, wrong))}; it has names for 1 to "
                f"{self.arch.num_classes - 1}"
            )
        return found

    @property
    def score_threshold(self) -> float:
        """Least score that it gives."""
        return self.arch.nms.score_threshold

    def prepared(self, image: Pixels) -> npt.NDArray[Any]:
        """The model's input for an image, uint8 (H, W, 3) BGR."""
        arch, kind = self.arch, self.description.inputs
        shown = image[..., ::-1]
        if kind == "network":
            return input_of(arch, shown)
        if kind == "image":
            return np.ascontiguousarray(shown[None])
        resized = pixels_of(arch, shown)[None]
        return np.clip(np.rint(resized), 0, 255).astype(np.uint8) if self._input["dtype"] == np.uint8 else resized

    def run(self, values: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """Run the model.

        Args:
            values: the model's input for one image; see `prepared`.

        Returns:
            The outputs by name, with a batch of 1.

        Raises:
            ModelError: the values do not fit, or the interpreter fails.
        """
        try:
            if self.description.inputs == "image" and tuple(self._input["shape"]) != values.shape:
                self._interpreter.resize_tensor_input(self._input["index"], values.shape)
                self._interpreter.allocate_tensors()
                (self._input,) = self._interpreter.get_input_details()
            self._interpreter.set_tensor(self._input["index"], values)
            self._interpreter.invoke()
            found = [self._interpreter.get_tensor(output["index"]) for output in self._outputs]
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"TensorFlow Lite cannot run {self._path}: {str(error).splitlines()[0][:300]}") from error
        return dict(zip(ENDS[self.description.outputs], found, strict=True))


class ThirdPartyTfliteDetector:
    """A TensorFlow Lite model that `keras export tflite` did not write, as a detector; call it with an image."""

    def __init__(self, path: Path, labels: LabelMap | None = None, reading: ReadOptions | None = None) -> None:
        """Load the model.

        Args:
            path: the file.
            labels: its classes; None: numbered names.
            reading: how to read it; `dequantize` does not matter, a quantised model is run in any case.

        Raises:
            SsdliteError: it cannot be read, is not an SSD MobileNet, or has another number of classes than `labels`.
        """
        self._model, self.arch = identify(
            read_model(path, dataclasses.replace(reading or ReadOptions(), dequantize=True))
        )
        self.labels = labels or numbered(self.arch.num_classes)
        check_classes(self.labels, self.arch.num_classes, str(path))
        normalises = self._model.settings.pixel_scale is not None
        self._detector = TfliteDetector(path, self.arch, normalises=normalises, unmodified=True)

    @property
    def score_threshold(self) -> float:
        """Least score that it gives: that of TensorFlow Lite's own post-processing, where the file has it."""
        own = self._model.settings.tflite_nms
        return self.arch.nms.score_threshold if own is None else own.score_threshold

    def __call__(self, image: Pixels) -> Detections:
        """Detections in an image, uint8 (H, W, 3) BGR; boxes are clipped to it.

        They are those of TensorFlow Lite's own post-processing; for a file with raw outputs, the reference decoder's.

        Raises:
            ModelError: the interpreter fails.
        """
        fed = self._detector.prepared(np.ascontiguousarray(image[..., ::-1]))
        found = self._detector.own_detections(fed)
        window = window_of((image.shape[0], image.shape[1]), self.arch.resizer)
        if found is not None:
            return clip_detections(found, window)
        raw = self._detector.raw(fed)
        boxes = source_runtime.decode_encodings(raw.encodings, self._model, self.arch)
        return choose_detections(boxes, raw.scores, self.arch.nms, window=window)


def open_tflite(
    path: Path, labels: LabelMap | None = None, reading: ReadOptions | None = None
) -> ExportedTfliteDetector | ThirdPartyTfliteDetector:
    """Load any TensorFlow Lite model; arguments as of `ThirdPartyTfliteDetector`.

    Raises:
        SsdliteError: it cannot be read or run, or is not an SSD MobileNet.
    """
    return ExportedTfliteDetector(path) if has_description(path) else ThirdPartyTfliteDetector(path, labels, reading)


def open_detector(path: Path) -> KerasDetector | ExportedTfliteDetector | ThirdPartyTfliteDetector:
    """Load a Keras or TensorFlow Lite file, by its suffix.

    Raises:
        ModelError: it cannot be read.
    """
    return open_tflite(path) if path.suffix == ".tflite" else KerasDetector(load(path))


def labels_of_any(path: Path) -> LabelMap:
    """The classes that `open_detector` gives a file, without loading the model.

    Raises:
        SsdliteError: it cannot be read.
    """
    if path.suffix != ".tflite" or not path.is_file() or has_description(path):
        return labels_of(path)
    _, arch = identify(read_model(path, ReadOptions(dequantize=True)))
    return numbered(arch.num_classes)


def labels_of(path: Path) -> LabelMap:
    """The classes of a Keras or TensorFlow Lite file.

    Raises:
        ModelError: it cannot be read.
    """
    if path.suffix != ".tflite":
        return description_of(path)[1]
    if path.is_file() and not has_description(path):
        raise ModelError(f"{path} has no class names; give them with --label-map")
    return read_description(path)[1].labels


def decode_raw(raw: dict[str, npt.NDArray[Any]], arch: ArchSpec, window: Window = WHOLE) -> Detections:
    """Detections of the reference decoder, from box encodings (1, N, 4) and class logits (1, N, C) by name.

    `window` is where the image is in the network's input.
    """
    from ssdlite_caffe.gen_model.build import build
    from ssdlite_caffe.gen_model.default_boxes import tf_default_boxes

    corners = tf_default_boxes(build(arch)).astype(np.float32)[:, [1, 0, 3, 2]]
    encodings = raw["box_encodings"][0][:, [1, 0, 3, 2]]
    boxes = decode_boxes(encodings, corners, np.asarray(arch.variances, np.float32))
    scores = convert_scores(raw["class_predictions_with_background"][0], arch.score_converter)
    return choose_detections(boxes, scores, arch.nms, window=window)


def _detections(values: dict[str, npt.NDArray[Any]], *, first_class: int) -> Detections:
    count = int(values["num_detections"][0])
    return Detections(
        values["detection_classes"][0, :count].astype(np.int64) + (1 - first_class),
        values["detection_scores"][0, :count].copy(),
        np.ascontiguousarray(values["detection_boxes"][0, :count][:, [1, 0, 3, 2]]),
    )
