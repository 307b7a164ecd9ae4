"""Tensors, operators and options of a TensorFlow Lite file, read without TensorFlow.

The file is a FlatBuffer. Its accessors (package `tflite`) do not check offsets, so in a damaged file they raise all
kinds of Python errors or return nonsense. Here both become a ModelError: counts are limited, and an array is read only
if the file has all its bytes. (The size of what is computed from them is limited in `lower`.)

Source: tensorflow/compiler/mlir/lite/schema/schema.fbs.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.dump.foreign import foreign_kind
from ssdlite_caffe.dump.graph.tensors import Array
from ssdlite_caffe.dump.model_bytes import read_bytes
from ssdlite_caffe.errors import ModelError

IDENTIFIER = b"TFL3"
VERSION = 3
CUSTOM = "CUSTOM"
_MOST = 20_000
"""Most tensors or operators; the largest detector that was tried has 600."""
_MOST_OPERANDS = 4096
_MOST_AXES = 8
_DTYPES = {
    0: "f4",
    1: "f2",
    2: "i4",
    3: "u1",
    4: "i8",
    6: "?",
    7: "i2",
    9: "i1",
    10: "f8",
    12: "u8",
    15: "u4",
    16: "u2",
}
"""TensorType -> numpy's dtype."""
_DAMAGE = (
    struct.error, IndexError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError,
    MemoryError,
)  # fmt: skip

_NOT_QUANTISED = np.zeros(0, np.float32), np.zeros(0, np.int64), 0

Scalar = bool | int | float


@dataclass(frozen=True)
class Tensor:
    """A tensor of the file.

    Attributes:
        index: its number, by which operators refer to it.
        name: as the converter wrote it; it may be empty or that of another tensor.
        shape: sizes; a size of 1 may be an unknown one.
        dtype: numpy's dtype (`f4`, `i1`); empty for one that no detector has.
        values: of a constant, else None.
        scale, zero_point: real value = scale * (value - zero_point); one number each, or one for each index of `axis`;
            empty if the tensor is not quantised.
        axis: see scale.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    values: Array | None
    scale: npt.NDArray[np.float32]
    zero_point: npt.NDArray[np.int64]
    axis: int

    @property
    def quantised(self) -> bool:
        """Whether its integers are quantised real values; a scale of a float tensor has no meaning."""
        return self.scale.size > 0 and np.dtype(self.dtype).kind in "iu"


@dataclass(frozen=True)
class Operator:
    """An operator of the file.

    Attributes:
        index: its place in the order of computation.
        op: name of the builtin operator (`CONV_2D`), or `CUSTOM`.
        custom: name of a custom operator, else empty.
        inputs, outputs: numbers of tensors; -1 for an optional input that is missing.
        options: name of the schema's accessor (`StrideH`) -> value.
    """

    index: int
    op: str
    custom: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, Scalar] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its name in messages."""
        return f"operator {self.index} ({self.custom or self.op})"


@dataclass(frozen=True)
class TfliteFile:
    """The main graph of a file.

    Attributes:
        source: path, for messages.
        tensors, operators: in file order.
        inputs, outputs: of the whole model, numbers of tensors.
        size: of the file, in bytes.
    """

    source: str
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    size: int = 0


_NUMBERS = frozenset(
    {
        "num_classes", "max_detections", "max_classes_per_detection", "detections_per_class", "use_regular_nms",
        "nms_score_threshold", "nms_iou_threshold", "y_scale", "x_scale", "h_scale", "w_scale",
    }
)  # fmt: skip
"""Options of TFLite_Detection_PostProcess."""
_OPTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "CONV_2D": (
        "Conv2DOptions",
        ("Padding", "StrideH", "StrideW", "DilationHFactor", "DilationWFactor", "FusedActivationFunction"),
    ),
    "DEPTHWISE_CONV_2D": (
        "DepthwiseConv2DOptions",
        ("Padding", "StrideH", "StrideW", "DilationHFactor", "DilationWFactor", "FusedActivationFunction"),
    ),
    "AVERAGE_POOL_2D": (
        "Pool2DOptions",
        ("Padding", "StrideH", "StrideW", "FilterHeight", "FilterWidth", "FusedActivationFunction"),
    ),
    "ADD": ("AddOptions", ("FusedActivationFunction",)),
    "SUB": ("SubOptions", ("FusedActivationFunction",)),
    "MUL": ("MulOptions", ("FusedActivationFunction",)),
    "DIV": ("DivOptions", ("FusedActivationFunction",)),
    "CONCATENATION": ("ConcatenationOptions", ("Axis", "FusedActivationFunction")),
    "MEAN": ("ReducerOptions", ("KeepDims",)),
    "SOFTMAX": ("SoftmaxOptions", ("Beta",)),
    "RESIZE_BILINEAR": ("ResizeBilinearOptions", ("AlignCorners", "HalfPixelCenters")),
    "STRIDED_SLICE": (
        "StridedSliceOptions",
        ("BeginMask", "EndMask", "EllipsisMask", "NewAxisMask", "ShrinkAxisMask"),
    ),
    "PACK": ("PackOptions", ("Axis",)),
}
"""Operator -> its table of options, and those options that are read."""


def read_tflite(path: Path) -> tuple[TfliteFile, bytes]:
    """The main graph of a file, and the file's bytes.

    Raises:
        ModelError: it cannot be read, is something else or damaged, or has a feature that is not supported.
    """
    data = read_bytes(path)
    if data[4:8] != IDENTIFIER:
        kind = foreign_kind(data)
        found = f"is {kind}" if kind else f"must have the identifier {IDENTIFIER!r}, got {data[4:8]!r}"
        raise ModelError(f"{path} is not a TensorFlow Lite model: it {found}")
    return _parse(data, str(path)), data


def _parse(data: bytes, source: str) -> TfliteFile:
    import tflite

    with _damage(source):
        model: Any = tflite.Model.GetRootAs(data, 0)
        if model.Version() != VERSION:
            raise ModelError(f"{source} must have version {VERSION} of TensorFlow Lite's format, got {model.Version()}")
        if model.SubgraphsLength() != 1:
            raise ModelError(f"{source} must have one graph, got {model.SubgraphsLength()}")
        graph: Any = model.Subgraphs(0)
        tensors = tuple(
            _tensor(model, graph.Tensors(i), i, source) for i in range(_count(graph.TensorsLength(), "tensors"))
        )
        codes = [_code(model.OperatorCodes(i)) for i in range(_count(model.OperatorCodesLength(), "operator codes"))]
        operators = tuple(
            _operator(graph.Operators(i), i, codes) for i in range(_count(graph.OperatorsLength(), "operators"))
        )
        inputs, outputs = _indices(graph, "Inputs"), _indices(graph, "Outputs")
        for index in (*inputs, *outputs, *(i for operator in operators for i in (*operator.inputs, *operator.outputs))):
            if not -1 <= index < len(tensors):
                raise ValueError(f"tensor {index} of {len(tensors)}")
        return TfliteFile(source, tensors, operators, inputs, outputs, len(data))


@contextmanager
def _damage(source: str) -> Iterator[None]:
    """Turn the errors that accessors raise in a damaged file into a ModelError of one line."""
    try:
        yield
    except _DAMAGE as error:
        raise ModelError(
            f"{source} is not a complete TensorFlow Lite model: it was cut short or damaged "
            f"({type(error).__name__}: {str(error)[:200]})"
        ) from error


def _count(length: int, what: str) -> int:
    if not 0 <= length <= _MOST:
        raise ValueError(f"{length} {what}")
    return length


def _array(length: int, values: Callable[[], Any], most: int) -> Array:
    """A vector of numbers; for a missing vector the accessors return 0 and not an array."""
    if not 0 <= length <= most:
        raise ValueError(f"a vector of {length}")
    return np.asarray(values()) if length else np.zeros(0, np.int64)


def _indices(table: Any, name: str) -> tuple[int, ...]:
    values = _array(getattr(table, f"{name}Length")(), getattr(table, f"{name}AsNumpy"), _MOST_OPERANDS)
    return tuple(int(v) for v in values)


def _text(value: bytes | None) -> str:
    return "" if value is None else value[:1024].decode("utf-8", "replace")


def _code(code: Any) -> tuple[str, str]:
    """(builtin name, custom name). Older files have codes below 127 in another field, of one byte."""
    import tflite

    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    found = (name for name, value in vars(tflite.BuiltinOperator).items() if value == number)
    return next(found, f"operator code {number}"), _text(code.CustomCode())


def _tensor(model: Any, tensor: Any, index: int, source: str) -> Tensor:
    shape = tuple(int(v) for v in _array(tensor.ShapeLength(), tensor.ShapeAsNumpy, _MOST_AXES))
    name = _text(tensor.Name())
    if tensor.Sparsity() is not None:
        raise ModelError(f"{source}: the tensor {name or index} is stored in sparse form, which is not supported")
    dtype = _DTYPES.get(tensor.Type(), "")
    parameters = tensor.Quantization()
    quantisation = _NOT_QUANTISED if parameters is None or not dtype else _quantisation(parameters, shape, dtype)
    return Tensor(
        index, name, shape, dtype, _values(model, tensor, shape, dtype, name or str(index), source), *quantisation
    )


def _values(model: Any, tensor: Any, shape: tuple[int, ...], dtype: str, name: str, source: str) -> Array | None:
    """The values of a constant, None for a computed tensor, whose buffer is 0 or empty."""
    number = tensor.Buffer()
    if not number:
        return None
    if number >= _count(model.BuffersLength(), "buffers"):
        raise ValueError(f"buffer {number}")
    buffer = model.Buffers(number)
    if buffer.Offset() > 1:
        raise ModelError(
            f"{source} has the tensor {name} outside its FlatBuffer, as files of 2 GiB and more have, which is not "
            "supported"
        )
    if not buffer.DataLength():
        return None
    data = np.asarray(buffer.DataAsNumpy())
    if not dtype:
        return data  # of a dtype that no detector has; `lower` refuses operators that read it
    count = math.prod(shape)
    if min(shape, default=1) < 0 or data.size != count * np.dtype(dtype).itemsize:
        raise ValueError(f"the tensor {name} has {data.size} bytes, which does not match shape {shape} of {dtype}")
    return data.view(f"<{dtype}").reshape(shape)


def _quantisation(
    parameters: Any, shape: tuple[int, ...], dtype: str
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], int]:
    scale = _array(parameters.ScaleLength(), parameters.ScaleAsNumpy, 1 << 20).astype(np.float32)
    zero = _array(parameters.ZeroPointLength(), parameters.ZeroPointAsNumpy, 1 << 20).astype(np.int64)
    axis = int(parameters.QuantizedDimension())
    if not scale.size or np.dtype(dtype).kind not in "iu":
        return _NOT_QUANTISED
    if not zero.size:
        zero = np.zeros(scale.size, np.int64)
    per_axis = scale.size > 1
    if zero.size != scale.size or (per_axis and not (0 <= axis < len(shape) and shape[axis] == scale.size)):
        raise ValueError(f"{scale.size} scales and {zero.size} zero points for the axis {axis} of {shape}")
    return scale, zero, axis


def _operator(operator: Any, index: int, codes: list[tuple[str, str]]) -> Operator:
    op, custom = codes[operator.OpcodeIndex()]
    options = _custom_options(operator) if op == CUSTOM else _options(operator, op)
    return Operator(index, op, custom, _indices(operator, "Inputs"), _indices(operator, "Outputs"), options)


def _options(operator: Any, op: str) -> dict[str, Scalar]:
    import tflite

    if op not in _OPTIONS:
        return {}
    table_name, names = _OPTIONS[op]
    stored = operator.BuiltinOptions()
    if stored is None:
        raise ValueError(f"{op} without options")
    if operator.BuiltinOptionsType() != getattr(tflite.BuiltinOptions, table_name):
        raise ValueError(f"{op} with the options of another operator")
    table = getattr(tflite, table_name)()
    table.Init(stored.Bytes, stored.Pos)
    return {name: getattr(table, name)() for name in names}


def _custom_options(operator: Any) -> dict[str, Scalar]:
    """The numbers in the outermost map of a FlexBuffer; nested values are skipped."""
    from flatbuffers import flexbuffers

    data = _array(operator.CustomOptionsLength(), operator.CustomOptionsAsNumpy, 1 << 16)
    if not data.size:
        return {}
    root: Any = flexbuffers.GetRoot(bytes(data.astype(np.uint8)))
    if not root.IsMap:
        return {}
    found: dict[str, Scalar] = {}
    entries = root.AsMap
    if len(entries) > _MOST_OPERANDS:
        raise ValueError(f"{len(entries)} custom options")
    for key, value in zip(entries.Keys, entries.Values, strict=True):
        name = key.AsKey[:64]
        if value.IsBool or value.IsInt or value.IsFloat:
            found[name] = value.Value
        elif name in _NUMBERS:
            raise ValueError(f"the option {name} is not a number")
    return found
