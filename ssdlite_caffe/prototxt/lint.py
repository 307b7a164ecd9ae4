"""A report on a prototxt: shapes, parameters and multiply-adds of each layer, and all problems with their lines."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ssdlite_caffe.errors import PrototxtError
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.limits import LIMITS, judge
from ssdlite_caffe.prototxt.shapes import LayerShapes, NetShapes, Phase, Severity, infer
from ssdlite_caffe.prototxt.text import Outline, outline, parse


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
        text: the prototxt of a net.
        name: the file's name in the report.
        runtime: key of LIMITS, to check for what it rejects too.
        phase: which layers to check; None: that of `default_phase`.

    Raises:
        PrototxtError: the text has a syntax error or a value that its field cannot hold (unknown fields are in the
            report), or the runtime is unknown.
    """
    if runtime is not None and runtime not in LIMITS:
        raise PrototxtError(f"unknown runtime {runtime!r}; known are {', '.join(LIMITS)}")
    found = outline(text, name)
    net = parse(text, caffe_pb2.NetParameter, name, allow_unknown=True)
    shapes = infer(net, phase=phase)
    indices = [layer.index for layer in shapes.layers]
    return LintReport(
        name=name,
        net=net.name,
        phase=shapes.phase,
        skipped=len(net.layer) - len(indices),
        runtime=runtime,
        layers=tuple(LintLayer(found.layer_lines[layer.index], layer) for layer in shapes.layers),
        problems=_problems(net, shapes, found, runtime, indices),
        param_count=shapes.param_count,
        multiply_adds=shapes.multiply_adds,
    )


def _problems(
    net: caffe_pb2.NetParameter, shapes: NetShapes, found: Outline, runtime: str | None, indices: list[int]
) -> tuple[LintProblem, ...]:
    problems = [
        LintProblem(
            "error",
            "unknown-field",
            str(field),
            field.line,
            net.layer[field.layer].name if field.layer is not None else None,
        )
        for field in found.unknown
    ]
    for problem in (*shapes.problems, *(judge(net, runtime, indices) if runtime else ())):
        line = found.layer_lines[problem.layer] if problem.layer is not None else None
        layer = net.layer[problem.layer].name if problem.layer is not None else None
        problems.append(LintProblem(problem.severity, problem.kind, problem.text, line, layer))
    return tuple(sorted(problems, key=lambda problem: problem.line or 0))
