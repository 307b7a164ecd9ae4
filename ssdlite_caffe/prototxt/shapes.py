"""Shapes of all blobs of a net, computed layer by layer as Caffe does when it sets up a net."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.rule import MANY, Outcome, Rule
from ssdlite_caffe.prototxt.rules_ssd import RULES
from ssdlite_caffe.prototxt.sizes import Shape, ShapeError, check

Phase = Literal["TRAIN", "TEST"]
Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """A problem of a net. `layer` is an index into `NetParameter.layer`, None for a problem of the whole net."""

    severity: Severity
    kind: str
    text: str
    layer: int | None = None


@dataclass(frozen=True)
class Blob:
    """A bottom or top; `shape` is None where it is unknown."""

    name: str
    shape: Shape | None


@dataclass(frozen=True)
class LayerShapes:
    """One layer of the phase.

    Attributes:
        index: index into `NetParameter.layer`.
        params: shapes of the blobs that it learns, in Caffe's order; empty also if a bottom's shape is unknown.
        param_count: values in these blobs; a blob shared with an earlier layer is counted there alone.
        multiply_adds: of convolutions and inner products, for the whole batch, without biases.
    """

    index: int
    name: str
    type: str
    bottoms: tuple[Blob, ...]
    tops: tuple[Blob, ...]
    params: tuple[Shape, ...] = ()
    param_count: int = 0
    multiply_adds: int = 0


@dataclass(frozen=True)
class NetShapes:
    """A net in one phase.

    Attributes:
        layers: those of the phase, in order.
        inputs: blobs that the caller fills.
        outputs: tops that no later layer reads.
        problems: in order of layers.
    """

    name: str
    phase: Phase
    layers: tuple[LayerShapes, ...]
    inputs: tuple[Blob, ...]
    outputs: tuple[Blob, ...]
    problems: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The problems with which Caffe cannot set up the net."""
        return tuple(problem for problem in self.problems if problem.severity == "error")

    @property
    def param_count(self) -> int:
        """How many values the net learns."""
        return sum(layer.param_count for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of all convolutions and inner products, for the whole batch."""
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def param_shapes(self) -> dict[str, tuple[Shape, ...]]:
        """Layer name -> shapes of its learned blobs; layers without any are not in it."""
        return {layer.name: layer.params for layer in self.layers if layer.params}

    @property
    def blobs(self) -> dict[str, Shape | None]:
        """Blob name -> shape; of a blob that in-place layers write, the last shape."""
        given = {blob.name: blob.shape for blob in self.inputs}
        return given | {top.name: top.shape for layer in self.layers for top in layer.tops}


def infer(
    net: caffe_pb2.NetParameter,
    *,
    phase: Phase | None = None,
    rules: Mapping[str, Rule] = RULES,
    unsure: Collection[int] = (),
) -> NetShapes:
    """Shapes of every blob of a net, and all problems with which Caffe cannot set up the net.

    Args:
        net: the net, with weights or without.
        phase: layers that `include` and `exclude` rules remove from it are skipped; None: that of `default_phase`.
        rules: layer type -> its rule; a runtime may have others than Caffe.
        unsure: indices into `net.layer` of layers whose parameters are not all known, so that no shapes are computed.

    Returns:
        The shapes; problems are collected, never raised. The tops of a layer with a problem have unknown shapes, and
        layers that read them report no problem of their own.
    """
    return _Inference(net, phase or default_phase(net), rules, unsure).run()


def default_phase(net: caffe_pb2.NetParameter) -> Phase:
    """TRAIN if the net has layers for TRAIN alone and none for TEST alone, else TEST."""
    train = any(not in_phase(layer, net, "TEST") for layer in net.layer)
    test = any(not in_phase(layer, net, "TRAIN") for layer in net.layer)
    return "TRAIN" if train and not test else "TEST"


def in_phase(layer: caffe_pb2.LayerParameter, net: caffe_pb2.NetParameter, phase: Phase) -> bool:
    """Whether a layer belongs to the net in a phase, by its include or exclude rules (Net::FilterNet)."""
    if layer.include:
        return any(_meets(rule, net, phase) for rule in layer.include)
    return not any(_meets(rule, net, phase) for rule in layer.exclude)


def _meets(rule: caffe_pb2.NetStateRule, net: caffe_pb2.NetParameter, phase: Phase) -> bool:
    """Net::StateMeetsRule; level and stages are those in the net's own `state`."""
    level, stages = net.state.level, set(net.state.stage)
    return (
        (not rule.HasField("phase") or caffe_pb2.Phase.Name(rule.phase) == phase)
        and (not rule.HasField("min_level") or level >= rule.min_level)
        and (not rule.HasField("max_level") or level <= rule.max_level)
        and stages.issuperset(rule.stage)
        and stages.isdisjoint(rule.not_stage)
    )


@dataclass
class _Inference:
    net: caffe_pb2.NetParameter
    phase: Phase
    rules: Mapping[str, Rule]
    unsure: Collection[int]
    shapes: dict[str, Shape | None] = field(default_factory=dict)
    makers: dict[str, str] = field(default_factory=dict)
    unread: dict[str, None] = field(default_factory=dict)
    readers: dict[str, str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    shared: set[str] = field(default_factory=set)
    problems: list[Finding] = field(default_factory=list)

    def run(self) -> NetShapes:
        inputs = self._net_inputs()
        if self.net.layers:
            self._error(
                "old-layers",
                "the net has the format before 2014 (V1 layers); convert it with Caffe's upgrade_net_proto_text",
            )
        elif not self.net.layer:
            self._error("empty", "the net has no layers")
        layers = []
        for index, layer in enumerate(self.net.layer):
            if layer.include and layer.exclude:
                self._error("include-exclude", f"layer {layer.name} has both include and exclude rules", index)
            if in_phase(layer, self.net, self.phase):
                layers.append(self._layer(index, layer))
        if self.net.layer and not layers:
            self._error("empty", f"the net has no layers in phase {self.phase}")
        inputs += [top for layer in layers if layer.type == "Input" for top in layer.tops]
        outputs = [Blob(name, self.shapes[name]) for name in self.unread]
        return NetShapes(self.net.name, self.phase, tuple(layers), tuple(inputs), tuple(outputs), tuple(self.problems))

    def _error(self, kind: str, text: str, layer: int | None = None) -> None:
        self.problems.append(Finding("error", kind, text, layer))

    def _net_inputs(self) -> list[Blob]:
        """Blobs of the net's own `input` fields, with `input_shape` or four `input_dim` each."""
        net = self.net
        shapes: list[Sequence[int]] = [shape.dim for shape in net.input_shape]
        if not shapes:
            shapes = [net.input_dim[at : at + 4] for at in range(0, len(net.input_dim), 4)]
        if len(shapes) != len(net.input):
            self._error("input", f"the net has {len(net.input)} inputs but {len(shapes)} input shapes")
        for place, name in enumerate(net.input):
            shape: Shape | None = None
            try:
                shape = check(shapes[place]) if place < len(shapes) else None
            except ShapeError as error:
                self._error("shape", f"input {name}: {error}")
            self.shapes[name] = shape
            self.makers[name] = "the net's input"
            self.unread[name] = None
        return [Blob(name, self.shapes[name]) for name in net.input]

    def _layer(self, index: int, layer: caffe_pb2.LayerParameter) -> LayerShapes:
        if layer.name in self.names:
            self.problems.append(
                Finding("warning", "duplicate-name", f"an earlier layer has the same name {layer.name!r}", index)
            )
        self.names.add(layer.name)
        bottoms = self._bottoms(index, layer)
        rule = self.rules.get(layer.type)
        outcome = self._outcome(index, layer, bottoms, rule)
        tops = self._tops(index, layer, outcome, rule)
        params = outcome.params
        return LayerShapes(
            index, layer.name, layer.type, bottoms, tops, params, self._count(layer, params), outcome.multiply_adds
        )

    def _bottoms(self, index: int, layer: caffe_pb2.LayerParameter) -> tuple[Blob, ...]:
        bottoms = []
        for name in layer.bottom:
            if name not in self.shapes:
                text = f"bottom {name!r} is not a top of an earlier layer{_nearest(name, self.shapes)}"
                self._error("unknown-bottom", text, index)
            self.unread.pop(name, None)
            if name not in layer.top:
                self.readers.setdefault(name, layer.name)
            bottoms.append(Blob(name, self.shapes.get(name)))
        return tuple(bottoms)

    def _outcome(
        self, index: int, layer: caffe_pb2.LayerParameter, bottoms: tuple[Blob, ...], rule: Rule | None
    ) -> Outcome:
        unknown = Outcome((None,) * len(layer.top))
        if rule is None:
            hint = _nearest(layer.type, self.rules)
            self._error("unknown-type", f"there is no layer type {layer.type!r}{hint}", index)
            return unknown
        for what, (least, greatest), found in (
            ("bottom", rule.bottoms, len(bottoms)),
            ("top", rule.tops, len(layer.top)),
        ):
            if not least <= found <= greatest:
                plural = "" if (least, greatest) == (1, 1) else "s"
                self._error("count", f"{layer.type} takes {_range(least, greatest)} {what}{plural}, got {found}", index)
                return unknown
        known = [bottom.shape for bottom in bottoms if bottom.shape is not None]
        if len(known) < len(bottoms) or index in self.unsure:
            return unknown
        try:
            outcome = rule.shape(layer, known)
            for shape in (*outcome.tops, *outcome.params):
                check(shape or ())
        except ShapeError as error:
            self._error("shape", str(error), index)
            return unknown
        return outcome

    def _tops(
        self, index: int, layer: caffe_pb2.LayerParameter, outcome: Outcome, rule: Rule | None
    ) -> tuple[Blob, ...]:
        tops = tuple(Blob(name, shape) for name, shape in zip(layer.top, outcome.tops, strict=True))
        for place, top in enumerate(tops):
            in_place = place < len(layer.bottom) and layer.bottom[place] == top.name
            if in_place and rule is not None and not rule.in_place:
                self._error("in-place", f"{layer.type} cannot write to its own bottom {top.name!r}", index)
            elif in_place and top.name in self.readers:
                first = self.readers[top.name]
                self._error("in-place", f"{top.name!r} is read by layer {first!r} before; write another top", index)
            elif not in_place and top.name in self.makers:
                self._error("duplicate-top", f"top {top.name!r} is written already, by {self.makers[top.name]}", index)
            self.shapes[top.name] = top.shape
            self.makers[top.name] = f"layer {layer.name!r}"
            self.unread[top.name] = None
            self.readers.pop(top.name, None)
        return tops

    def _count(self, layer: caffe_pb2.LayerParameter, params: tuple[Shape, ...]) -> int:
        count = 0
        for place, shape in enumerate(params):
            name = layer.param[place].name if place < len(layer.param) else ""
            if name and name in self.shared:
                continue
            self.shared.add(name)
            count += math.prod(shape)
        return count


def _nearest(name: str, known: Collection[str]) -> str:
    """A hint at the known name that is most like a mistyped one; none among very many, which would take too long."""
    if len(known) > 5000:
        return ""
    by_lower = {word.lower(): word for word in known}
    close = difflib.get_close_matches(name[:80].lower(), by_lower, 1)
    return f"; the nearest is {by_lower[close[0]]!r}" if close else ""


def _range(least: int, greatest: int) -> str:
    if least == greatest:
        return str(least)
    return f"{least} or more" if greatest >= MANY else f"{least} to {greatest}"
