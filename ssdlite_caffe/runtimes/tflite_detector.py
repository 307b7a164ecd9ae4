"""TensorFlow Lite's interpreter on a file of any origin: every tensor of it, its raw outputs, its own detections."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump.raw_outputs import TFLITE_OP
from ssdlite_caffe.dump.tflite.file import Operator, TfliteFile, read_tflite
from ssdlite_caffe.dump.tflite.lower import real_values, tensor_index
from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.imports import import_tensorflow
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.resize import network_input, resize_bilinear_legacy
from ssdlite_caffe.runtimes.tensorflow_detector import DetectorOutputs
from ssdlite_caffe.terminal import silenced

_READERS = ("CONV_2D", "DEPTHWISE_CONV_2D")


def interpreter(data: bytes, *, threads: int | None = None, keep_all: bool = False) -> Any:
    """An interpreter of a model's bytes: LiteRT's where it is installed, else TensorFlow's own.

    Args:
        data: the file.
        threads: to compute with; None: its own choice.
        keep_all: keep every tensor, and compute with the built-in kernels alone.

    Raises:
        MissingRuntimeError: neither is installed.
    """
    options: dict[str, Any] = {"model_content": data, "num_threads": threads}
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError:
        tf = import_tensorflow()
        Interpreter, OpResolverType = tf.lite.Interpreter, tf.lite.experimental.OpResolverType  # noqa: N806
    if keep_all:
        options["experimental_preserve_all_tensors"] = True
        options["experimental_op_resolver_type"] = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow says that LiteRT is its successor
        return Interpreter(**options)


class TfliteDetector:
    """A TensorFlow Lite file that is ready to run, with the interface of TensorFlowDetector.

    Attributes:
        path: the file.
        has_detections: False: its own detections are the phone's, see `own_detections`.
        note: what was done to the file before it was run, empty where nothing was.
    """

    has_detections = False

    def __init__(self, path: Path, arch: ArchSpec, *, normalises: bool, unmodified: bool = False) -> None:
        """Load it.

        Args:
            path: the file.
            arch: what it is.
            normalises: whether it reads pixels from 0 to 255 and normalises them itself.
            unmodified: run it as it is, with the interpreter's own choice of kernels; of its tensors only the outputs
                are there then. Otherwise every tensor is kept, and weights of a dynamic-range file are taken with
                their real values, as the converter takes them.

        Raises:
            ModelError: it cannot be read or run.
            MissingRuntimeError: there is no interpreter.
        """
        self.path = path
        self._arch, self._normalises = arch, normalises
        self.file, data = read_tflite(path)
        weights = [] if unmodified else _whole_weights(self.file)
        self.note = ""
        if weights:
            data = with_real_weights(data, self.file, weights)
            self.note = f"{len(weights)} int8 kernels run as the real numbers that they stand for"
        self._input = self.file.tensors[self.file.inputs[0]]
        try:
            with silenced():  # it says which delegate it takes
                self._interpreter = interpreter(data, keep_all=not unmodified)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError, TypeError) as error:
            raise ModelError(f"TensorFlow Lite cannot run {path}: {_first_line(error)}") from error

    def __enter__(self) -> TfliteDetector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held but memory."""

    def prepared(self, image: npt.NDArray[np.uint8]) -> FloatArray:
        """The network input (1, H, W, 3) for an image (H, W, 3), RGB; of whole pixels where the file reads such."""
        arch = self._arch
        if self._normalises and self._input.dtype == "u1":
            image = np.rint(resize_bilinear_legacy(image, arch.input_size)).astype(np.uint8)
        return network_input(image, arch.input_size, mean=arch.pixel_mean, scale=arch.pixel_scale)

    def run(self, fed: FloatArray, names: Sequence[str]) -> dict[str, FloatArray]:
        """Tensors of the file by the names that the reader gives them (`tensor_12`), from a network input.

        Raises:
            ModelError: there is no such tensor, or the interpreter fails.
        """
        self._invoke(fed)
        return {name: self._value(tensor_index(name)) for name in names}

    def raw(self, fed: FloatArray) -> DetectorOutputs:
        """Box codes and scores of all default boxes, from a network input; boxes are left to the caller to decode.

        Raises:
            ModelError: the file has no such outputs, or the interpreter fails.
        """
        operation = self._operation()
        codes, scores = operation.inputs[:2] if operation is not None else self._ends()
        self._invoke(fed)
        columns = self._value(scores)
        return DetectorOutputs(self._value(codes).reshape(-1, 4), None, None, columns.reshape(-1, columns.shape[-1]))

    def own_detections(self, fed: FloatArray) -> Detections | None:
        """What the file itself detects, boxes as it gives them; None where it gives raw outputs.

        Raises:
            ModelError: the interpreter fails.
        """
        operation = self._operation()
        if operation is None or len(operation.outputs) != 4:
            return None
        self._invoke(fed)
        boxes, classes, scores, count = (self._value(index) for index in operation.outputs)
        number = int(count.reshape(-1)[0])
        slots = np.arange(number)
        if not operation.options.get("use_regular_nms"):
            # A box has as many places as were asked for, and fills no more than there are classes.
            places = max(1, int(operation.options.get("max_classes_per_detection", 1)))
            filled = min(places, self._arch.num_classes - 1)
            slots = (np.arange(number)[:, None] * places + np.arange(filled)).reshape(-1)
        return Detections(
            classes.reshape(-1)[slots].astype(np.int64) + 1,
            scores.reshape(-1)[slots],
            np.ascontiguousarray(boxes.reshape(-1, 4)[slots][:, [1, 0, 3, 2]]),
        )

    def _operation(self) -> Operator | None:
        return next((o for o in self.file.operators if o.custom == TFLITE_OP and len(o.inputs) > 1), None)

    def _ends(self) -> tuple[int, int]:
        """The outputs with codes and with scores: what a score converter gives, through copies, is the scores."""
        makers = {index: operator for operator in self.file.operators for index in operator.outputs}

        def converted(index: int) -> bool:
            maker = makers.get(index)
            while maker is not None and maker.op in ("RESHAPE", "SQUEEZE", "DEQUANTIZE", "QUANTIZE"):
                maker = makers.get(maker.inputs[0])
            return maker is not None and maker.op in ("LOGISTIC", "SOFTMAX")

        scores = [index for index in self.file.outputs if converted(index)]
        codes = [index for index in self.file.outputs if not converted(index)]
        if len(scores) != 1 or len(codes) != 1:
            raise ModelError(f"{self.path} gives neither detections nor box codes and scores")
        return codes[0], scores[0]

    def _invoke(self, fed: FloatArray) -> None:
        try:
            details = self._interpreter.get_input_details()[0]
            if tuple(details["shape"]) != fed.shape:
                self._interpreter.resize_tensor_input(details["index"], fed.shape)
                self._interpreter.allocate_tensors()
            self._interpreter.set_tensor(details["index"], self._as_input(fed))
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"TensorFlow Lite cannot run {self.path}: {_first_line(error)}") from error

    def _as_input(self, fed: FloatArray) -> npt.NDArray[Any]:
        """What the file reads: the network input itself, quantised, or as pixels."""
        tensor = self._input
        if tensor.quantised:
            limits = np.iinfo(tensor.dtype)
            steps = np.rint(fed / tensor.scale[0]) + tensor.zero_point[0]
            return np.asarray(np.clip(steps, limits.min, limits.max), tensor.dtype)
        if not self._normalises:
            return fed
        pixels = np.asarray(fed.astype(np.float64) / self._arch.pixel_scale + self._arch.pixel_mean, np.float32)
        return np.rint(pixels).astype(np.uint8) if tensor.dtype == "u1" else pixels

    def _value(self, index: int) -> FloatArray:
        try:
            value = self._interpreter.get_tensor(index)
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"{self.path} does not compute tensor {index}: {_first_line(error)}") from error
        tensor = self.file.tensors[index]
        if tensor.quantised and value.dtype.kind in "iu":
            value = tensor.scale[0] * (value.astype(np.float32) - np.float32(tensor.zero_point[0]))
        return np.asarray(value, np.float32)


def _whole_weights(file: TfliteFile) -> list[int]:
    """Constants of whole numbers that a convolution of floats reads: what makes a file one of dynamic range."""
    return sorted(
        {
            operator.inputs[1]
            for operator in file.operators
            if operator.op in _READERS
            and len(operator.inputs) > 1
            and operator.inputs[0] >= 0
            and file.tensors[operator.inputs[0]].dtype == "f4"
            and operator.inputs[1] >= 0
            and file.tensors[operator.inputs[1]].quantised
            and file.tensors[operator.inputs[1]].values is not None
        }
    )


def with_real_weights(data: bytes, file: TfliteFile, weights: Sequence[int]) -> bytes:
    """A file whose constants `weights` are float32: the real numbers that they stand for.

    The interpreter then computes in float32 all through, where it would round what int8 kernels are multiplied with.
    """
    import_tensorflow()
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(data))
    graph = model.subgraphs[0]
    for index in weights:
        tensor, buffer = graph.tensors[index], type(model.buffers[0])()
        buffer.data = np.frombuffer(real_values(file.tensors[index]).tobytes(), np.uint8)
        model.buffers.append(buffer)
        tensor.buffer, tensor.type, tensor.quantization = len(model.buffers) - 1, 0, None
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
