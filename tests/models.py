"""Models made from an architecture, without TensorFlow: what a reader gives of a detector that has these layers."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump.model import ConvUnit, DumpedModel, Settings
from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.gen_model.default_boxes import tf_default_boxes
from ssdlite_caffe.gen_model.netdesc import ConvDesc


def kernel_shape(conv: ConvDesc) -> tuple[int, int, int, int]:
    """TensorFlow's: HWIO, or HWCM for a depthwise kernel."""
    if conv.depthwise:
        return (*conv.kernel, conv.in_channels, conv.num_output // conv.in_channels)
    return (*conv.kernel, conv.in_channels, conv.num_output)


def model_of(arch: ArchSpec, *, checkpoint: bool = False, seed: int | None = 0) -> DumpedModel:
    """A detector of this architecture with random weights; zeros with `seed` None, which take no time.

    A checkpoint says nothing of strides, paddings and activations.
    """
    random = None if seed is None else np.random.default_rng(seed)

    def values(shape: tuple[int, ...], low: float = -1, high: float = 1) -> FloatArray:
        if random is None:
            return np.zeros(shape, np.float32)
        return random.uniform(low, high, shape).astype(np.float32)

    net = build(arch)
    units, tensors = [], {}
    for conv in net.convolutions:
        scope, kind = conv.tf_scope, "depthwise" if conv.depthwise else "conv"
        parts = {"weights": f"{scope}/{'depthwise_weights' if conv.depthwise else 'weights'}"}
        tensors[parts["weights"]] = values(kernel_shape(conv))
        channels = (conv.num_output,)
        if conv.batch_norm:
            for part, low, high in (
                ("moving_mean", -1, 1), ("moving_variance", 0.1, 2), ("gamma", 0.5, 2), ("beta", -1, 1),
            ):  # fmt: skip
                parts[part] = f"{scope}/BatchNorm/{part}"
                tensors[parts[part]] = values(channels, low, high)
            if random is None:
                tensors[parts["moving_variance"]] += 1
        elif conv.bias:
            parts["biases"] = f"{scope}/biases"
            tensors[parts["biases"]] = values(channels)
        unit = ConvUnit(scope, kind, parts, arch.batch_norm_epsilon if conv.batch_norm else None)
        units.append(unit if checkpoint else dataclasses.replace(unit, **graph_side(arch, conv)))
    settings = Settings(
        input_size=arch.input_size,
        pixel_scale=arch.pixel_scale,
        pixel_offset=-arch.pixel_mean * arch.pixel_scale,
        num_classes=arch.num_classes,
        default_boxes=tf_default_boxes(net).astype(np.float32),
        box_coder_scales=(10.0, 10.0, 5.0, 5.0),
        score_converter=arch.score_converter,
        logit_scale=1.0,
        iou_threshold=arch.nms.iou_threshold,
        score_threshold=arch.nms.score_threshold,
        max_per_class=arch.nms.max_per_class,
        max_total=arch.nms.max_total,
        clip_first=arch.nms.clip_first,
    )
    return DumpedModel(
        "made.pb", "checkpoint" if checkpoint else "frozen graph", "0" * 64, tensors, tuple(units), settings
    )


def graph_side(arch: ArchSpec, conv: ConvDesc) -> dict[str, Any]:
    """The fields of a ConvUnit that only a graph gives."""
    padding = conv.padding
    explicit = (padding.top, padding.bottom, padding.left, padding.right)
    in_backbone = not conv.tf_scope.startswith("BoxPredictor_")
    return {
        "stride": conv.stride,
        "dilation": conv.dilation,
        "padding": explicit if arch.explicit_padding and in_backbone and any(explicit) else "SAME",
        "activation": conv.activation,
        "gate_scale": arch.gate_scale if conv.activation == "hard_sigmoid" else None,
        "output": f"{conv.tf_scope}/out:0",
    }


def with_settings(model: DumpedModel, **changes: Any) -> DumpedModel:
    """The model with other settings."""
    return dataclasses.replace(model, settings=dataclasses.replace(model.settings, **changes))


def with_unit(model: DumpedModel, scope: str, **changes: Any) -> DumpedModel:
    """The model with one convolution changed."""
    assert any(unit.scope == scope for unit in model.units), scope
    units = tuple(dataclasses.replace(u, **changes) if u.scope == scope else u for u in model.units)
    return dataclasses.replace(model, units=units)


def with_tensors(model: DumpedModel, changes: dict[str, FloatArray | None]) -> DumpedModel:
    """The model with tensors replaced, added, or (None) taken out."""
    tensors = {**model.tensors, **changes}
    return dataclasses.replace(model, tensors={name: value for name, value in tensors.items() if value is not None})
