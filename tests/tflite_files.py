"""TensorFlow Lite files made operator by operator, for tests: whole ones, odd ones and broken ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
import tflite
from flatbuffers import flexbuffers

TYPES = {"f4": 0, "f2": 1, "i4": 2, "u1": 3, "i8": 4, "i1": 9}


@dataclass(frozen=True)
class TensorSpec:
    """A tensor: a constant where it has values."""

    shape: tuple[int, ...]
    values: npt.NDArray[Any] | None = None
    dtype: str = "f4"
    name: str = ""
    scale: tuple[float, ...] = ()
    zero_point: tuple[int, ...] = ()


@dataclass(frozen=True)
class OperatorSpec:
    """An operator: a builtin one by its name, or a custom one with a FlexBuffer of options."""

    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    table: str = ""
    custom: str = ""


def tflite_file(
    tensors: Sequence[TensorSpec],
    operators: Sequence[OperatorSpec],
    inputs: Sequence[int],
    outputs: Sequence[int],
    *,
    version: int = 3,
) -> bytes:
    """The bytes of a file."""
    builder = flatbuffers.Builder(1024)
    buffers = [_buffer(builder, None), *(_buffer(builder, spec.values) for spec in tensors)]
    made = [_tensor(builder, spec, number) for number, spec in enumerate(tensors, start=1)]
    codes = list(dict.fromkeys((spec.op, spec.custom) for spec in operators))
    made_operators = [_operator(builder, spec, codes.index((spec.op, spec.custom))) for spec in operators]
    made_codes = [_code(builder, op, custom) for op, custom in codes]
    vectors = {
        "Tensors": _vector(builder, made),
        "Inputs": _numbers(builder, inputs),
        "Outputs": _numbers(builder, outputs),
        "Operators": _vector(builder, made_operators),
    }
    tflite.SubGraphStart(builder)
    for name, offset in vectors.items():
        getattr(tflite, f"SubGraphAdd{name}")(builder, offset)
    graphs = _vector(builder, [tflite.SubGraphEnd(builder)])
    all_codes, all_buffers = _vector(builder, made_codes), _vector(builder, buffers)
    tflite.ModelStart(builder)
    tflite.ModelAddVersion(builder, version)
    tflite.ModelAddOperatorCodes(builder, all_codes)
    tflite.ModelAddSubgraphs(builder, graphs)
    tflite.ModelAddBuffers(builder, all_buffers)
    builder.Finish(tflite.ModelEnd(builder), b"TFL3")
    return bytes(builder.Output())


def postprocess_file(
    codes: tuple[int, int], classes: int, anchors: npt.NDArray[np.float32], options: Mapping[str, Any]
) -> bytes:
    """A file of nothing but a TFLite_Detection_PostProcess, which reads box codes (1, N, 4) and scores (1, N, C)."""
    count = codes[0]
    tensors = [
        TensorSpec((1, count, 4)), TensorSpec((1, count, classes)), TensorSpec(anchors.shape, anchors),
        *(TensorSpec(()) for _ in range(4)),
    ]  # fmt: skip
    operator = OperatorSpec(
        "CUSTOM", (0, 1, 2), (3, 4, 5, 6), options=dict(options), custom="TFLite_Detection_PostProcess"
    )
    return tflite_file(tensors, [operator], [0, 1], [3, 4, 5, 6])


def _buffer(builder: flatbuffers.Builder, values: npt.NDArray[Any] | None) -> int:
    data = None if values is None else builder.CreateNumpyVector(np.frombuffer(values.tobytes(), np.uint8))
    tflite.BufferStart(builder)
    if data is not None:
        tflite.BufferAddData(builder, data)
    return int(tflite.BufferEnd(builder))


def _tensor(builder: flatbuffers.Builder, spec: TensorSpec, buffer: int) -> int:
    shape, name = _numbers(builder, spec.shape), builder.CreateString(spec.name)
    quantisation = _quantisation(builder, spec) if spec.scale else None
    tflite.TensorStart(builder)
    tflite.TensorAddShape(builder, shape)
    tflite.TensorAddType(builder, TYPES[spec.dtype])
    tflite.TensorAddBuffer(builder, buffer)
    tflite.TensorAddName(builder, name)
    if quantisation is not None:
        tflite.TensorAddQuantization(builder, quantisation)
    return int(tflite.TensorEnd(builder))


def _quantisation(builder: flatbuffers.Builder, spec: TensorSpec) -> int:
    scale = builder.CreateNumpyVector(np.asarray(spec.scale, np.float32))
    zero = builder.CreateNumpyVector(np.asarray(spec.zero_point or (0,) * len(spec.scale), np.int64))
    tflite.QuantizationParametersStart(builder)
    tflite.QuantizationParametersAddScale(builder, scale)
    tflite.QuantizationParametersAddZeroPoint(builder, zero)
    return int(tflite.QuantizationParametersEnd(builder))


def _operator(builder: flatbuffers.Builder, spec: OperatorSpec, code: int) -> int:
    inputs, outputs = _numbers(builder, spec.inputs), _numbers(builder, spec.outputs)
    custom = builtin = None
    if spec.op == "CUSTOM" and spec.options:
        custom = builder.CreateByteVector(bytes(flexbuffers.Dumps(dict(spec.options))))
    elif spec.table:
        getattr(tflite, f"{spec.table}Start")(builder)
        for key, value in spec.options.items():
            getattr(tflite, f"{spec.table}Add{key}")(builder, value)
        builtin = getattr(tflite, f"{spec.table}End")(builder)
    tflite.OperatorStart(builder)
    tflite.OperatorAddOpcodeIndex(builder, code)
    tflite.OperatorAddInputs(builder, inputs)
    tflite.OperatorAddOutputs(builder, outputs)
    if custom is not None:
        tflite.OperatorAddCustomOptions(builder, custom)
    if builtin is not None:
        tflite.OperatorAddBuiltinOptionsType(builder, getattr(tflite.BuiltinOptions, spec.table))
        tflite.OperatorAddBuiltinOptions(builder, builtin)
    return int(tflite.OperatorEnd(builder))


def _code(builder: flatbuffers.Builder, op: str, custom: str) -> int:
    name = builder.CreateString(custom) if custom else None
    number = getattr(tflite.BuiltinOperator, op)
    tflite.OperatorCodeStart(builder)
    tflite.OperatorCodeAddDeprecatedBuiltinCode(builder, min(number, 127))
    tflite.OperatorCodeAddBuiltinCode(builder, number)
    if name is not None:
        tflite.OperatorCodeAddCustomCode(builder, name)
    return int(tflite.OperatorCodeEnd(builder))


def _vector(builder: flatbuffers.Builder, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def _numbers(builder: flatbuffers.Builder, values: Sequence[int]) -> int:
    return int(builder.CreateNumpyVector(np.asarray(values, np.int32)))
