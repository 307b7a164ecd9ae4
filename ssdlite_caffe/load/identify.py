"""Identifying the detector of a model: its architecture, and names for its convolutions. Every command does this.

The names in a TensorFlow Lite file cannot be relied on. Its heads are named by the outputs that they lead to
(`dump/tflite`); the backbone is named here, by its structure: from the input on, each convolution of every family's net
at every plausible width is matched with the model's convolution that has the same shape and the same input.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator

import numpy as np

from ssdlite_caffe.dump.detector.units import renamed_tensors, renamed_unit
from ssdlite_caffe.dump.model import ConvUnit, DumpedModel, Settings
from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.gen_model.arch import FAMILIES, ArchSpec
from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.gen_model.default_boxes import cell_boxes_of_anchors
from ssdlite_caffe.gen_model.netdesc import ConvDesc, NetDesc
from ssdlite_caffe.load.graph_check import expression_of, pool_windows, windowed
from ssdlite_caffe.load.recognise import candidates, head_of, recognise, rules_of, unsaid, wanted_shape

_SAME_BOX = 1e-4
"""Relative difference from which a config's default boxes differ from a graph's; float32 corners differ by 1e-5."""
_Key = tuple[str, tuple[int, ...], tuple[int, int] | None]


def identify(model: DumpedModel) -> tuple[DumpedModel, ArchSpec]:
    """The model with the Object Detection API's names for its convolutions, and its architecture.

    Raises:
        ModelError: no family fits, or the model differs from the family's net.
        TensorError: the tensors of its convolutions do not fit together; all are listed.
    """
    named = model if model.scoped else _named(model)
    arch = recognise(named)
    notes = tuple(_config_notes(named.settings, arch))
    return dataclasses.replace(named, notes=(*named.notes, *notes)), arch


def _config_notes(settings: Settings, arch: ArchSpec) -> Iterator[str]:
    """Notes on what a pipeline.config says differently from the model, of the settings that the model has itself."""
    kind = settings.feature_extractor_type
    if kind is not None and f"_{arch.family.replace('-', '_').removesuffix('_minimalistic')}" not in kind:
        yield f"the pipeline.config names the feature extractor {kind}, but the model is a {arch.family}"
    if settings.anchors is None or settings.default_boxes is None:
        return
    theirs = [cell.sizes for cell in cell_boxes_of_anchors(settings.anchors, arch.input_size)]
    ours = [cell.sizes for cell in arch.boxes]
    if [len(cell) for cell in theirs] != [len(cell) for cell in ours] or any(
        not np.allclose(one, other, rtol=_SAME_BOX, atol=0) for one, other in zip(theirs, ours, strict=True)
    ):
        yield "the pipeline.config makes other default boxes than the model has; the model's are used"


def _named(model: DumpedModel) -> DumpedModel:
    """The model with names for its backbone, found by its structure.

    Raises:
        ModelError: the net of no family has its convolutions.
    """
    if model.settings.input_size is None:
        raise unsaid(model, "input size")
    shapes = Counter(_unit_key(model, unit) for unit in model.units)
    head, head_kernel = head_of(model)
    nearest: tuple[int, ArchSpec] | None = None
    for arch in candidates(model, list(FAMILIES), head, head_kernel):
        wanted = Counter(_conv_key(conv) for conv in build(arch).convolutions)
        missing = (wanted - shapes).total() + (shapes - wanted).total()
        nets = () if missing else (build(dataclasses.replace(arch, residuals=rule)) for rule in rules_of(arch))
        names = next((found for net in nets if (found := _laid_over(net, model)) is not None), None)
        if names is not None:
            return dataclasses.replace(
                model,
                units=tuple(renamed_unit(unit, names) for unit in model.units),
                tensors=renamed_tensors(model.units, model.tensors, names),
                settings=_renamed_orders(model.settings, names),
                scoped=True,
            )
        if nearest is None or missing < nearest[0]:
            nearest = missing, arch
    assert nearest is not None
    missing, best = nearest
    where = f"{missing} convolutions differ" if missing else "the convolutions are connected differently"
    raise ModelError(
        f"{model.source} is not an SSD MobileNet of a kind read here: it has {len(model.units)} convolutions and is "
        f"most like a {best.family} {best.head} of width multiplier {best.width_multiplier:g}, but {where}"
    )


def _unit_key(model: DumpedModel, unit: ConvUnit) -> _Key:
    return unit.kind, model.tensors[unit.tensors["weights"]].shape, unit.stride


def _conv_key(conv: ConvDesc) -> _Key:
    return "depthwise" if conv.depthwise else "conv", wanted_shape(conv), conv.stride


def _laid_over(net: NetDesc, model: DumpedModel) -> dict[str, str] | None:
    """Scope in the model -> scope in the net, for each convolution; None if the net does not fit.

    Blocks can have the same shapes, so each convolution is found by its input too, which is the output of convolutions
    found before.
    """
    heads = {unit.scope for unit in model.units if unit.scope.startswith("BoxPredictor_")}
    free: dict[_Key, list[ConvUnit]] = {}
    for unit in model.units:
        if unit.scope not in heads:
            free.setdefault(_unit_key(model, unit), []).append(unit)
    names: dict[str, str] = {}
    blobs: dict[str, str] = {}
    windows = pool_windows(net)
    for node in (node for section in net.sections for node in section.nodes):
        scope = ""
        if isinstance(node, ConvDesc):
            read = blobs.get(node.bottom)
            written = () if read is None else (read, windowed(read, windows.get(node.bottom)))
            fitting = [u for u in free.get(_conv_key(node), ()) if read is None or u.input in written]
            if len(fitting) != 1:
                return None
            scope = fitting[0].scope
            free[_conv_key(node)].remove(fitting[0])
            names[scope] = node.tf_scope
        blobs[node.top] = expression_of(node, blobs, scope)
    wanted_heads = {conv.tf_scope for m in net.feature_maps for conv in (*m.loc, *m.conf)}
    return names if wanted_heads == heads and not any(free.values()) else None


def _renamed_orders(settings: Settings, names: dict[str, str]) -> Settings:
    def renamed(order: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if order is None else tuple(names.get(scope, scope) for scope in order)

    return dataclasses.replace(
        settings, box_order=renamed(settings.box_order), class_order=renamed(settings.class_order)
    )
