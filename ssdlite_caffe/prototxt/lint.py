"""A report on a prototxt: shapes, parameters and multiply-adds of each layer, and all problems with their lines."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ssdlite_caffe.errors import PrototxtError
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.limits import LIMITS, OTHER_NAMES, judge
from ssdlite_caffe.prototxt.outline import Outline, outline
from ssdlite_caffe.prototxt.rules_ssd import RULES
from ssdlite_caffe.prototxt.shapes import LayerShapes, NetShapes, Phase, Severity, infer
from ssdlite_caffe.prototxt.upgrade import is_old, is_older, upgrade

_MARK = "\N{BYTE ORDER MARK}"
_MARK_TEXT = "the file begins with a byte order mark (UTF-8 with BOM), which Caffe and OpenCV do not read"
_NO_SHAPES = frozenset({"ParamSpec", "FillerParameter", "NetStateRule", "NetState", "LossParameter"})
"""Messages in a layer that do not decide its shapes."""
_SHAPE_ENUMS = frozenset({"round_mode", "tf_pad", "resize_mode"})
"""Enums that do; other enums choose what is computed."""
_BOTH_TEXT = "the net has both layer { } and layers { } blocks; Caffe and OpenCV ignore the former"
_REPLACED = "\N{REPLACEMENT CHARACTER}"
_REPLACED_TEXT = "bytes that are not UTF-8 begin here; in comments and names Caffe reads them, other programs may not"
_OLD_TEXT = "the net has the format before 2014 (V1 layers); Caffe and OpenCV read it, other programs may not"


@dataclass(frozen=True)
class LintProblem:
    """A problem. `line` counts from 1; it and `layer` are None for a problem of the whole net."""

    severity: Severity
    kind: str
    text: str
    line: int | None
    layer: str | None


@dataclass(frozen=True)
class LintLayer:
    """One layer of the phase; see `shapes.LayerShapes`."""

    line: int
    shapes: LayerShapes


@dataclass(frozen=True)
class LintReport:
    """The result of `lint`.

    Attributes:
        name: of the file.
        net: the net's own name.
        phase: the phase that was checked.
        skipped: how many layers belong to the other phase alone.
        runtime: key of LIMITS, None if none was given.
        layers: those of the phase, in order.
        problems: in order of lines.
        param_count, multiply_adds: totals of the phase, the latter for the whole batch.
    """

    name: str
    net: str
    phase: Phase
    skipped: int
    runtime: str | None
    layers: tuple[LintLayer, ...]
    problems: tuple[LintProblem, ...]
    param_count: int
    multiply_adds: int

    @property
    def ok(self) -> bool:
        """Whether there is no error; warnings are allowed."""
        return all(problem.severity != "error" for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; a layer's line is beside its other fields."""
        data = dataclasses.asdict(self)
        data["layers"] = [{"line": layer["line"], **layer["shapes"]} for layer in data["layers"]]
        data["ok"] = self.ok
        return data


def lint(text: str, name: str = "<text>", *, runtime: str | None = None, phase: Phase | None = None) -> LintReport:
    """Check a prototxt.

    Args:
        text: the prototxt of a net, with its byte order mark if it has one.
        name: the file's name in the report.
        runtime: key of LIMITS or OTHER_NAMES, to check for what it rejects too.
        phase: which layers to check; None: that of `default_phase`.

    Raises:
        PrototxtError: the text has a syntax error (wrong fields and values are in the report), or the runtime is
            unknown.
    """
    runtime = OTHER_NAMES.get(runtime, runtime) if runtime else None
    if runtime is not None and runtime not in LIMITS:
        raise PrototxtError(f"unknown runtime {runtime!r}; known are {', '.join(LIMITS)}")
    found = outline(text.removeprefix(_MARK), name, caffe_pb2.NetParameter)
    net = found.message
    old, both = is_old(net) and not is_older(net), bool(net.layer)
    if old:
        net = upgrade(net)
    rules = RULES if runtime is None else LIMITS[runtime].rules
    shapes = infer(net, phase=phase, rules=rules, unsure=_unsure(found))
    indices = [layer.index for layer in shapes.layers]
    other = _other_file(text, net, found)
    problems = other or [*_of_text(net, found, runtime), *_of_net(net, shapes, found, runtime)]
    if text.startswith(_MARK):
        problems.append(LintProblem("error", "byte-order-mark", _MARK_TEXT, 1, None))
    if _REPLACED in text:
        line = text.count("\n", 0, text.index(_REPLACED)) + 1
        problems.append(LintProblem("warning", "encoding", _REPLACED_TEXT, line, None))
    if old:
        severity = LIMITS[runtime].old_nets if runtime else "warning"
        problems.append(LintProblem(severity, "old-layers", _OLD_TEXT, None, None))
        if both:
            problems.append(LintProblem("error", "mixed-layers", _BOTH_TEXT, None, None))
    return LintReport(
        name=name,
        net=net.name,
        phase=shapes.phase,
        skipped=len(net.layer) - len(indices),
        runtime=runtime,
        layers=tuple(LintLayer(found.layer_lines[layer.index], layer) for layer in shapes.layers),
        problems=tuple(sorted(problems, key=lambda problem: problem.line or 0)),
        param_count=shapes.param_count,
        multiply_adds=shapes.multiply_adds,
    )


def _other_file(text: str, net: caffe_pb2.NetParameter, found: Outline[caffe_pb2.NetParameter]) -> list[LintProblem]:
    """The problems of a solver or a label map; none for a net."""
    names = {problem.field for problem in found.unknown if problem.layer is None}
    if found.layer_lines or net.input or not names:
        return []
    for message, what in ((caffe_pb2.SolverParameter, "a solver"), (caffe_pb2.LabelMap, "a label map")):
        if len(names.intersection(message.DESCRIPTOR.fields_by_name)) <= len(names) / 2:
            continue
        other = outline(text.removeprefix(_MARK), what, message)
        said = f"this is {what}, not a net"
        if isinstance(other.message, caffe_pb2.SolverParameter):
            given = [other.message.net, other.message.train_net, *other.message.test_net]
            said += "; give the net that it names" + "".join(f", {path}" for path in given[:3] if path)
        more = [LintProblem("error", one.kind, one.text, one.line, None) for one in other.problems]
        return [LintProblem("error", "not-a-net", said, found.unknown[0].line, None), *more]
    return []


def _of_text(
    net: caffe_pb2.NetParameter, found: Outline[caffe_pb2.NetParameter], runtime: str | None
) -> Iterator[LintProblem]:
    """Problems of the text: unknown fields, wrong values."""
    own = LIMITS[runtime].own_fields if runtime else frozenset()
    for problem in found.problems:
        if problem.message == "LayerParameter" and problem.field in own:
            continue
        severity: Severity = "error"
        text = problem.text
        if runtime is not None and problem.harmless and problem.message in LIMITS[runtime].skips:
            severity, text = "warning", f"{text}; {LIMITS[runtime].title} loads the net all the same"
        yield LintProblem(severity, problem.kind, text, problem.line, _layer_name(net, problem.layer))


def _of_net(
    net: caffe_pb2.NetParameter,
    shapes: NetShapes,
    found: Outline[caffe_pb2.NetParameter],
    runtime: str | None,
) -> Iterator[LintProblem]:
    """Problems of layers and shapes, without those that only follow from a value that could not be read."""
    nameless = {problem.layer for problem in found.problems if problem.lost and problem.field == "type"}
    harmless = LIMITS[runtime].harmless if runtime else ()
    for problem in (*shapes.problems, *(judge(net, runtime, shapes.layers) if runtime else ())):
        if problem.kind in harmless:
            continue
        if problem.kind == "unknown-type" and problem.layer in nameless:
            continue
        line = found.layer_lines[problem.layer] if problem.layer is not None else None
        yield LintProblem(problem.severity, problem.kind, problem.text, line, _layer_name(net, problem.layer))


def _unsure(found: Outline[caffe_pb2.NetParameter]) -> set[int]:
    """Layers that lack a value which may decide their shapes."""
    return {
        problem.layer
        for problem in found.problems
        if problem.layer is not None
        and problem.lost
        and (
            (problem.kind == "value" and problem.message not in _NO_SHAPES)
            or (problem.kind == "unknown-value" and problem.field in _SHAPE_ENUMS)
        )
    }


def _layer_name(net: caffe_pb2.NetParameter, layer: int | None) -> str | None:
    return net.layer[layer].name if layer is not None and layer < len(net.layer) else None
