"""A report on a prototxt: shapes, sizes and work layer by layer, and all that is wrong, with lines."""

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
    """Something wrong. `line` counts from 1; it and `layer` are None where the problem is of no one layer."""

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
    """What lint finds.

    Attributes:
        name: of the file.
        net: the net's own name.
        phase: which was looked at.
        left_out: how many layers belong to the other phase alone.
        runtime: key of LIMITS, None when none was asked for.
        layers: those of the phase, in order.
        problems: in order of lines.
        param_count, multiply_adds: totals of the phase, the latter for the whole batch.
    """

    name: str
    net: str
    phase: Phase
    left_out: int
    runtime: str | None
    layers: tuple[LintLayer, ...]
    problems: tuple[LintProblem, ...]
    param_count: int
    multiply_adds: int

    @property
    def ok(self) -> bool:
        """Whether there are no errors; warnings do not count."""
        return all(problem.severity != "error" for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; a layer's line stands beside its other fields."""
        data = dataclasses.asdict(self)
        data["layers"] = [{"line": layer["line"], **layer["shapes"]} for layer in data["layers"]]
        data["ok"] = self.ok
        return data


def lint(text: str, name: str = "<text>", *, runtime: str | None = None, phase: Phase | None = None) -> LintReport:
    """Look a prototxt over.

    Args:
        text: the prototxt of a net.
        name: stands for the file.
        runtime: one of LIMITS, to be warned of what it rejects.
        phase: which layers to look at; None as in `default_phase`.

    Raises:
        PrototxtError: a syntax error or a value that its field cannot hold (unknown fields are reported), or an
            unknown runtime.
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
        left_out=len(net.layer) - len(indices),
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
