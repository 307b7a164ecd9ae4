"""Running any TensorFlow Lite file in the interpreter: its tensors, its raw outputs, its own detections."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump.detector.raw_outputs import TFLITE_OP
from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from ssdlite_caffe.dump.tflite.file import Operator, TfliteFile, read_tflite
from ssdlite_caffe.dump.tflite.lower import lower, real_values, tensor_index, tensor_node
from ssdlite_caffe.dump.tflite.typed import typed
from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.imports import import_tensorflow
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.resize import input_of, network_input, pixels_of
from ssdlite_caffe.runtimes.tensorflow_detector import DetectorOutputs, RawNames
from ssdlite_caffe.runtimes.tensorflow_double import DoubleGraph
from ssdlite_caffe.terminal import silenced

_READERS = ("CONV_2D", "DEPTHWISE_CONV_2D")


def interpreter(data: bytes, *, threads: int | None = None, keep_all: bool = False) -> Any:
    """An interpreter for a model: LiteRT's if it is installed, else TensorFlow's.

    Args:
        data: content of the file.
        threads: number of threads; None: the interpreter's default.
        keep_all: keep the values of all tensors, and use only the built-in kernels, without delegates.

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
        warnings.simplefilter("ignore")  # TensorFlow warns that its interpreter has moved to LiteRT
        return Interpreter(**options)


class TfliteDetector:
    """A TensorFlow Lite file that has been loaded, with the interface of TensorFlowDetector.

    Attributes:
        path: the file.
        has_detections: False, since its own detections come from TensorFlow Lite's NMS; see `own_detections`.
        note: how the file was changed before it was loaded; empty if it was not.
    """

    has_detections = False

    def __init__(self, path: Path, arch: ArchSpec, *, normalises: bool, unmodified: bool = False) -> None:
        """Load the file.

        Args:
            path: the file.
            arch: the detector's architecture.
            normalises: whether the model reads pixels from 0 to 255 and normalises them itself.
            unmodified: run the file as a phone does: unchanged, with the interpreter's default kernels; only its
                outputs can be read then. Otherwise all tensors can be read, and the int8 weights of a dynamic-range
                file are replaced by their real values, as the converter does.

        Raises:
            ModelError: it cannot be read or run.
            MissingRuntimeError: no interpreter is installed.
        """
        self.path = path
        self._arch, self._normalises = arch, normalises
        self.file, data = read_tflite(path)
        weights = [] if unmodified else _whole_weights(self.file)
        self.note = ""
        if weights:
            data = with_real_weights(data, self.file, weights)
            self.note = f"{len(weights)} int8 kernels were dequantised to float32 before running"
        self._input = self.file.tensors[self.file.inputs[0]]
        try:
            with silenced():  # the interpreter prints which delegate it uses
                self._interpreter = interpreter(data, keep_all=not unmodified)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError, TypeError) as error:
            raise ModelError(f"TensorFlow Lite cannot run {path}: {_first_line(error)}") from error

    def __enter__(self) -> TfliteDetector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing: the interpreter holds only memory."""

    def prepared(self, image: npt.NDArray[np.uint8]) -> FloatArray:
        """The network input (1, H, W, 3) for an image (H, W, 3), RGB; from rounded pixels if the file reads uint8."""
        arch = self._arch
        if self._normalises and self._input.dtype == "u1":
            pixels = np.clip(np.rint(pixels_of(arch, image)), 0, 255).astype(np.uint8)
            return network_input(pixels, arch.input_size, mean=arch.pixel_mean, scale=arch.pixel_scale)
        return input_of(arch, image)

    def run(self, fed: FloatArray, names: Sequence[str]) -> dict[str, FloatArray]:
        """Compute tensors from a network input (1, H, W, 3); names are those of the reader (`tensor_12`).

        Raises:
            ModelError: the tensor was not computed, or the interpreter fails.
        """
        self._invoke(fed)
        return {name: self._value(tensor_index(name)) for name in names}

    def raw(self, fed: FloatArray) -> DetectorOutputs:
        """Box encodings and scores of all default boxes, from a network input (1, H, W, 3); boxes are not decoded.

        Raises:
            ModelError: the file has no such outputs, or the interpreter fails.
        """
        names = self.raw_names()
        return names.outputs(self.run(fed, names.all))

    def raw_names(self) -> RawNames:
        """The tensors that `raw` computes.

        Raises:
            ModelError: the file has no such outputs.
        """
        operation = self._operation()
        encodings, scores = operation.inputs[:2] if operation is not None else self._ends()
        return RawNames(tensor_node(encodings), None, None, tensor_node(scores))

    def in_double(self, names: Sequence[str]) -> DoubleGraph:
        """The file as a TensorFlow graph in float64, from the network input to these tensors.

        Raises:
            ModelError: it has an operation that cannot be computed in float64.
        """
        definition = import_tensorflow().compat.v1.GraphDef()
        definition.ParseFromString(pb.GraphDef(node=typed(lower(self.file))).SerializeToString())
        return DoubleGraph(definition, tensor_node(self._input.index), names, source=str(self.path))

    def double_input(self, fed: FloatArray) -> npt.NDArray[np.float64]:
        """What the graph of `in_double` reads for a network input: the same, or pixels."""
        if not self._normalises and not self._input.quantised:
            return fed.astype(np.float64)
        if not self._input.quantised and self._input.dtype != "u1":
            return fed.astype(np.float64) / self._arch.pixel_scale + self._arch.pixel_mean
        return self._as_input(fed).astype(np.float64)

    def stem_input(self, fed: FloatArray) -> npt.NDArray[np.float64]:
        """What the first convolution reads in the graph of `in_double` for a network input.

        The same; but of a file that reads quantised pixels scale * (pixel - zero point), whose float32 scale is off by
        its rounding.
        """
        tensor = self._input
        if not tensor.quantised:
            return fed.astype(np.float64)
        return (self._as_input(fed).astype(np.float64) - float(tensor.zero_point[0])) * float(tensor.scale[0])

    def own_detections(self, fed: FloatArray) -> Detections | None:
        """The detections that the file itself computes, boxes not clipped; None if it ends in raw outputs.

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
            # The operation reserves max_classes_per_detection slots for each box, and fills at most one for each class.
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
        """Indices of the outputs with box encodings and with scores; the scores come from the score converter."""
        makers = {index: operator for operator in self.file.operators for index in operator.outputs}

        def converted(index: int) -> bool:
            maker = makers.get(index)
            while maker is not None and maker.op in ("RESHAPE", "SQUEEZE", "DEQUANTIZE", "QUANTIZE"):
                maker = makers.get(maker.inputs[0])
            return maker is not None and maker.op in ("LOGISTIC", "SOFTMAX")

        scores = [index for index in self.file.outputs if converted(index)]
        encodings = [index for index in self.file.outputs if not converted(index)]
        if len(scores) != 1 or len(encodings) != 1:
            raise ModelError(f"the outputs of {self.path} are neither detections nor box encodings and scores")
        return encodings[0], scores[0]

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
        """The file's input for a network input: the same, quantised, or converted to pixels."""
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
    """Indices of the quantised kernels of convolutions with float inputs, as in a dynamic-range file."""
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
    """The file with the constants at the indices `weights` dequantised to float32.

    The interpreter then computes in float32 throughout; with int8 kernels it would round their inputs.
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
