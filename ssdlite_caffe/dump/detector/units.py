"""The convolutions of a graph, each with its BatchNorm or bias and its activation.

From every Conv2D and DepthwiseConv2dNative the graph is followed forward, op by op. So the form of a BatchNorm is found
from its ops; names only tell which part of the detector a convolution is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump.detector.activation import Found, activation_at
from ssdlite_caffe.dump.detector.affine import (
    BatchNormParts,
    Constants,
    Step,
    batch_norm_of,
    lone_bias,
    scale_and_offset,
    step_at,
)
from ssdlite_caffe.dump.detector.keras_scopes import keras_scope
from ssdlite_caffe.dump.detector.wiring import expression, renamed_expression, scopes_in
from ssdlite_caffe.dump.graph.constants import NotConstantError
from ssdlite_caffe.dump.graph.view import CONVOLUTIONS, Graph, Node, Ref
from ssdlite_caffe.dump.graph.windows import window_padding
from ssdlite_caffe.dump.model import ConvUnit
from ssdlite_caffe.errors import ModelError


@dataclass(frozen=True)
class Units:
    """The convolutions of a graph.

    Attributes:
        units: in file order.
        tensors: name -> values, float32.
        ends: scope -> the output of the last affine op, which the activation (or the rest of the graph) reads.
    """

    units: tuple[ConvUnit, ...]
    tensors: dict[str, FloatArray]
    ends: dict[str, Ref]


def renamed_unit(unit: ConvUnit, names: Mapping[str, str]) -> ConvUnit:
    """A unit with renamed scopes, also in the names of its tensors; `names`: old -> new, other scopes stay."""
    scope = names.get(unit.scope, unit.scope)
    tensors = {part: scope + name.removeprefix(unit.scope) for part, name in unit.tensors.items()}
    read = None if unit.input is None else renamed_expression(unit.input, names)
    return replace(unit, scope=scope, tensors=tensors, input=read)


def renamed_tensors(
    units: Iterable[ConvUnit], tensors: Mapping[str, FloatArray], names: Mapping[str, str]
) -> dict[str, FloatArray]:
    """The tensors of `units` under the names that `renamed_unit` gives them."""
    return {
        new: tensors[old]
        for unit in units
        for old, new in zip(unit.tensors.values(), renamed_unit(unit, names).tensors.values(), strict=True)
    }


def renamed(found: Units, names: Mapping[str, str]) -> Units:
    """Units with renamed scopes; see `renamed_unit`."""
    return Units(
        tuple(renamed_unit(unit, names) for unit in found.units),
        renamed_tensors(found.units, found.tensors, names),
        {names.get(scope, scope): end for scope, end in found.ends.items()},
    )


_KERNEL_NAME = re.compile(r"^(?P<scope>.+)/(?:weights|depthwise_weights|kernel|depthwise_kernel)(?:/read|/quant)?$")
_NODE_TAIL = re.compile(r"/(?:BatchNorm/.*|Conv2D(?:_\d+)?|convolution|depthwise|separable_conv2d(?:/.*)?)$")
_DETECTOR_PART = re.compile(r"(?:^|/)((?:FeatureExtractor|BoxPredictor_\d+)/.*)$")


def strip_prefix(scope: str) -> str:
    """A scope without the prefix of an import or a wrapped function (`import/FeatureExtractor/..`)."""
    found = _DETECTOR_PART.search(scope)
    return found.group(1) if found else scope


def scope_of(node: Node, kernel: str) -> str:
    """The variable scope of a convolution: its kernel's, or if that was renamed, the node's name without the op.

    A detector of TensorFlow 2 has its scopes here as TensorFlow 1 has them; see `keras_scopes`.
    """
    keras = keras_scope(node.name)
    if keras is not None:
        return keras
    found = _KERNEL_NAME.match(kernel)
    scope = found.group("scope") if found else _NODE_TAIL.sub("", node.name)
    return strip_prefix(scope)


def refuse_quantised(graph: Graph) -> None:
    """Refuse a quantised graph.

    Raises:
        ModelError: there are ops that round values to few bits.
    """
    for node in graph:
        if node.op.startswith(("FakeQuant", "Quantize", "Dequantize", "_MklQuantize", "QuantizedConv2D")):
            count = sum(n for op, n in graph.ops().items() if op == node.op)
            raise ModelError(
                f"{graph.source} is a quantised graph: {count} {node.op} nodes, the first {node.name}; "
                "Caffe has no layer for them, so export the detector without quantisation"
            )


def find_units(constants: Constants) -> Units:
    """Every convolution of a graph.

    Raises:
        ModelError: a convolution is one that no MobileNet SSD has: its kernel is not constant, its activation or data
            format is unknown, or another convolution has the same scope.
    """
    units: list[ConvUnit] = []
    tensors: dict[str, FloatArray] = {}
    nodes: dict[str, str] = {}
    ends: dict[str, Ref] = {}
    outputs: dict[Ref, str] = {}
    for node in constants.graph:
        if node.op not in CONVOLUTIONS:
            continue
        unit, found, end, output = _unit(constants, node)
        if unit.scope in nodes:
            raise ModelError(
                f"{constants.graph.source}: {nodes[unit.scope]} and {node.name} use the same weights "
                f"({unit.scope}); detectors with shared predictors are not supported"
            )
        nodes[unit.scope] = node.name
        ends[unit.scope] = end
        outputs[output] = unit.scope
        units.append(unit)
        tensors.update(found)
    read = (constants.graph.nodes[nodes[unit.scope]].inputs[0] for unit in units)
    wired = [replace(unit, input=expression(constants, outputs, ref)) for unit, ref in zip(units, read, strict=True)]
    _take_scales(wired, tensors)
    return Units(tuple(wired), tensors, ends)


def _take_scales(units: list[ConvUnit], tensors: dict[str, FloatArray]) -> None:
    """Multiply the kernels that read a scaled output by its scale, in float64 and rounded once.

    conv(s * x, w) = conv(x, s * w), also with padding by zeros.

    Raises:
        ModelError: another op than a convolution reads such an output.
    """
    scales = {unit.scope: unit.output_scale for unit in units if unit.output_scale != 1.0}
    for unit in units:
        read = unit.input or ""
        if read in scales:
            name = unit.tensors["weights"]
            tensors[name] = (tensors[name].astype(np.float64) * scales[read]).astype(np.float32)
        elif scales and (inside := scales.keys() & scopes_in(read)):
            raise ModelError(
                f"{unit.scope} reads {read}, in which {min(inside)} ends in a hard swish without its factor 1/6; it is "
                "supported only if convolutions read the hard swish"
            )


def _unit(constants: Constants, node: Node) -> tuple[ConvUnit, dict[str, FloatArray], Ref, Ref]:
    """A convolution, its tensors, the output of its affine ops, and the output of its activation."""
    if len(node.inputs) != 2:
        raise ModelError(f"{node.name} ({node.op}) must have 2 inputs, got {len(node.inputs)}")
    if node.attr_text("data_format", "NHWC") != "NHWC":
        raise ModelError(f"{node.name} has data format {node.attr_text('data_format')}; only NHWC graphs are read")
    depthwise = node.op == "DepthwiseConv2dNative"
    kernel = _kernel(constants, node)
    channels = kernel.shape[2] * kernel.shape[3] if depthwise else kernel.shape[3]
    scope = scope_of(node, constants.graph.origin(node.inputs[1]).name)
    steps, end, activation = _follow(constants, node, channels, scope)
    values, epsilon = _parts(constants, steps, activation, channels)
    tensors = {f"{scope}/{'depthwise_weights' if depthwise else 'weights'}": kernel}
    names = {"weights": next(iter(tensors))}
    for part, value in values.items():
        names[part] = f"{scope}/biases" if part == "biases" else f"{scope}/BatchNorm/{part}"
        tensors[names[part]] = value
    unit = ConvUnit(
        scope=scope,
        kind="depthwise" if depthwise else "conv",
        tensors=names,
        epsilon=epsilon,
        stride=_spatial(node, "strides"),
        dilation=_spatial(node, "dilations"),
        padding=_padding(constants, node),
        activation=activation.kind,
        gate_scale=activation.gate_scale,
        output=str(activation.end),
        output_scale=activation.scale,
    )
    return unit, tensors, end, activation.end


def _kernel(constants: Constants, node: Node) -> FloatArray:
    """The kernel, HWIO or HWCM; one that the graph computes is computed in float64 and rounded once."""
    ref = constants.graph.origin(node.inputs[1])
    stored = constants.graph[ref].op in ("Const", "VariableV2", "Variable", "VarHandleOp")
    try:
        value = (constants.plain if stored else constants.precise).value(ref)
    except NotConstantError as error:
        raise ModelError(f"{constants.graph.source}: the kernel of {node.name} is not constant: {error}") from error
    if value.ndim != 4 or value.dtype.kind != "f" or 0 in value.shape:
        raise ModelError(f"the kernel of {node.name} must be float with 4 axes, got {value.dtype} {value.shape}")
    return np.ascontiguousarray(value, np.float32)


def _spatial(node: Node, attribute: str) -> tuple[int, int]:
    values = node.attr_ints(attribute, (1, 1, 1, 1))
    if len(values) != 4 or values[0] != 1 or values[3] != 1 or min(values) < 1:
        raise ModelError(f"{node.name} has {attribute} {list(values)}; those of batch and channels must be 1")
    return values[1], values[2]


def _padding(constants: Constants, node: Node) -> str | tuple[int, int, int, int]:
    """The convolution's own padding, or the zeros of a Pad before it."""
    padding = window_padding(node)
    if padding is None:
        raise ModelError(
            f"{node.name} must have padding SAME, VALID or EXPLICIT (of height and width), got "
            f"{node.attr_text('padding') or 'none'}"
        )
    source = constants.graph[constants.graph.origin(node.inputs[0])]
    if source.op in ("SpaceToBatchND", "MirrorPad"):
        raise ModelError(f"{node.name} reads {source.name} ({source.op}), which is not supported")
    if source.op not in ("Pad", "PadV2"):
        return padding
    amounts = constants.plain.get(source.inputs[1])
    filler = constants.plain.scalar(source.inputs[2]) if len(source.inputs) > 2 else 0.0
    if amounts is None or amounts.shape != (4, 2) or amounts[[0, 3]].any() or filler != 0.0 or padding != "VALID":
        raise ModelError(
            f"{node.name} reads {source.name} ({source.op}), which must pad height and width with zeros before a "
            "VALID convolution"
        )
    return int(amounts[1, 0]), int(amounts[1, 1]), int(amounts[2, 0]), int(amounts[2, 1])


def _follow(constants: Constants, node: Node, channels: int, scope: str) -> tuple[list[Step], Ref, Found]:
    """The affine ops after a convolution, the output of the last one, and the activation after that."""
    steps: list[Step] = []
    ref = Ref(node.name)
    for _ in range(64):
        found = activation_at(constants, ref, scope)
        if found is not None:
            return steps, ref, found
        (use,) = constants.graph.uses(ref)
        step = step_at(constants, use, channels)
        if step is None:
            break
        steps.append(step)
        ref = use.node.ref
    return steps, ref, Found("none", ref)


def _parts(
    constants: Constants, steps: list[Step], activation: Found, channels: int
) -> tuple[dict[str, FloatArray], float | None]:
    """Part of a ConvUnit -> its values, and the BatchNorm's epsilon."""
    if activation.shift == 0:
        if not steps:
            return {}, None
        bias = lone_bias(constants, steps, channels)
        if bias is not None:
            return {"biases": bias}, None
        single = steps[0] if len(steps) == 1 else None
        parts = single if isinstance(single, BatchNormParts) else batch_norm_of(constants, steps, channels)
        if parts is not None:
            return _named(parts), parts.epsilon
    scale, offset = scale_and_offset(constants, steps, channels)
    offset = offset + activation.shift
    if np.all(scale == 1):
        return {"biases": offset.astype(np.float32)}, None
    return {"scale": scale.astype(np.float32), "offset": offset.astype(np.float32)}, None


def _named(parts: BatchNormParts) -> dict[str, FloatArray]:
    named = {"gamma": parts.gamma, "beta": parts.beta}
    present = {name: value for name, value in named.items() if value is not None}
    return {**present, "moving_mean": parts.moving_mean, "moving_variance": parts.moving_variance}
