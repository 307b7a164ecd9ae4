"""A TensorFlow Lite file as a DumpedModel."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from ssdlite_caffe.dump.detector.affine import Constants
from ssdlite_caffe.dump.detector.raw_outputs import CONVERTERS, RawOutputs, behind_reshapes, find_raw_outputs
from ssdlite_caffe.dump.detector.settings import settings_from_graph
from ssdlite_caffe.dump.detector.take_apart import left_over, require_finite
from ssdlite_caffe.dump.detector.units import Units, find_units, renamed
from ssdlite_caffe.dump.detector.wiring import join_order
from ssdlite_caffe.dump.graph.view import Graph, Ref
from ssdlite_caffe.dump.model import DumpedModel
from ssdlite_caffe.dump.model_bytes import sha256
from ssdlite_caffe.dump.tflite.file import TfliteFile, read_tflite
from ssdlite_caffe.dump.tflite.lower import CONVOLUTIONS, anchor_rounding, lower, quantised_operators
from ssdlite_caffe.errors import ModelError


def read_tflite_model(path: Path, *, dequantize: bool = False) -> DumpedModel:
    """A detector from a TensorFlow Lite file.

    Its heads are named by the outputs that they lead to; its other units are numbered, see `DumpedModel.scoped`.

    Args:
        path: the file.
        dequantize: use the dequantised weights of a quantised model.

    Raises:
        ModelError: it is not an SSD detector, is damaged, or is quantised and `dequantize` is false.
        TensorError: a weight is NaN or Inf.
    """
    file, data = read_tflite(path)
    whole = quantised_operators(file)
    if whole and not dequantize:
        convolutions = sum(operator.op in CONVOLUTIONS for operator in whole)
        kind = "fully" if convolutions else "partly"
        raise ModelError(
            f"{path} is {kind} quantised: {len(whole)} operators round to integers, {convolutions} convolutions among "
            f"them, the first {whole[0].name}. Caffe has no layer for that rounding; export the detector in float32 or "
            "float16, or use its dequantised weights with --dequantize, which does not give the same detections"
        )
    graph = Graph(lower(file), source=str(path))
    constants = Constants.of(graph)
    units = find_units(constants)
    if not units.units:
        raise ModelError(f"{path} is not an SSD MobileNet: it holds no convolution")
    require_finite(str(path), units.tensors)
    units = _with_heads(constants, units)
    rounding = anchor_rounding(file)
    settings = dataclasses.replace(settings_from_graph(constants, units), box_rounding=rounding)
    return DumpedModel(
        str(path), "TensorFlow Lite", sha256(data), units.tensors, units.units, settings, left_over(graph, constants),
        scoped=False, notes=tuple(_notes(file, rounding, whole=bool(whole))), inexact=_INEXACT if whole else (),
    )  # fmt: skip


_INEXACT = ("the model is quantised: its dequantised weights are used, but not the rounding of its activations",)


def _notes(file: TfliteFile, rounding: float, *, whole: bool) -> Iterator[str]:
    constants = [tensor for tensor in file.tensors if tensor.values is not None and len(tensor.shape) == 4]
    half = sum(tensor.dtype == "f2" for tensor in constants)
    whole_numbers = sum(tensor.quantised for tensor in constants)
    if half:
        yield f"{half} kernels are stored as float16, and their values are kept"
    start = file.tensors[file.inputs[0]] if file.inputs and file.inputs[0] >= 0 else None
    if whole and start is not None and start.quantised:
        yield (
            f"the input is quantised (scale {float(start.scale[0]):.6g}, zero point {int(start.zero_point[0])}); the "
            "family's preprocessing of pixels is used"
        )
    if rounding:
        yield (
            f"default boxes are stored in few bits, which moves them by up to {rounding:.2g} of the input; they are "
            "moved back to the centres of their cells"
        )
    if whole_numbers and not whole:
        yield (
            f"{whole_numbers} kernels are stored as int8 (dynamic range), and their dequantised values are used; "
            "TensorFlow Lite also rounds their inputs, so its detections on a phone differ"
        )


def _with_heads(constants: Constants, units: Units) -> Units:
    """The units with the Object Detection API's names for the predictors and their depthwise parts.

    Raises:
        ModelError: the file's outputs do not lead to predictors of boxes and classes.
    """
    raw = find_raw_outputs(constants)
    if raw is None:
        raise ModelError(
            f"{constants.graph.source} is not an SSD detector: it ends neither in TFLite_Detection_PostProcess nor in "
            "box encodings (1, boxes, 4) and scores (1, boxes, classes)"
        )
    return renamed(units, _head_names(constants, units, raw))


def _head_names(constants: Constants, units: Units, raw: RawOutputs) -> dict[str, str]:
    scopes = {end: scope for scope, end in units.ends.items()}
    by_scope = {unit.scope: unit for unit in units.units}
    names: dict[str, str] = {}
    for kind, ref in (("BoxEncodingPredictor", raw.encodings), ("ClassPredictor", raw.scores)):
        join = join_order(constants, scopes, _before_scores(constants, ref))
        if join is None or len(set(join.scopes)) != len(join.scopes):
            raise ModelError(
                f"{constants.graph.source} is not an SSD detector of a kind read here: its {kind}s cannot be found "
                f"from its output {ref}"
            )
        for index, scope in enumerate(join.scopes):
            names[scope] = f"BoxPredictor_{index}/{kind}"
            before = by_scope.get(by_scope[scope].input or "")
            if before is not None and before.kind == "depthwise" and _only_reader(units, before.scope) == scope:
                names[before.scope] = f"BoxPredictor_{index}/{kind}_depthwise"
    return names


def _before_scores(constants: Constants, ref: Ref) -> Ref:
    """The input of the score converter that `ref` comes from; `ref` itself if there is none."""
    node = constants.graph[behind_reshapes(constants.graph, ref)]
    return node.inputs[0] if node.op in CONVERTERS else ref


def _only_reader(units: Units, scope: str) -> str | None:
    readers = [unit.scope for unit in units.units if unit.input == scope]
    return readers[0] if len(readers) == 1 else None
