"""Settings of a detector from its graph."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump.detector.affine import Constants
from ssdlite_caffe.dump.detector.boxes import boxes_and_scales, find_decoder
from ssdlite_caffe.dump.detector.map_sizes import FeatureMaps
from ssdlite_caffe.dump.detector.nms import SUPPRESSIONS, find_suppression
from ssdlite_caffe.dump.detector.preprocessing import NetworkInput, first_convolution, network_input
from ssdlite_caffe.dump.detector.raw_outputs import behind_reshapes, find_raw_outputs
from ssdlite_caffe.dump.detector.scores import cuts_background, find_conversion
from ssdlite_caffe.dump.detector.tflite_op import apply_tflite_op
from ssdlite_caffe.dump.detector.units import Units
from ssdlite_caffe.dump.detector.wiring import join_order
from ssdlite_caffe.dump.graph.constants import ShapeOf
from ssdlite_caffe.dump.graph.view import Node, Ref
from ssdlite_caffe.dump.model import ConvUnit, Settings
from ssdlite_caffe.errors import ModelError

_PREDICTOR = re.compile(r"^BoxPredictor_(\d+)/(BoxEncodingPredictor|ClassPredictor)$")
BOX_CODE_SIZE = 4


def predictor_channels(units: tuple[ConvUnit, ...], tensors: Mapping[str, FloatArray]) -> dict[int, dict[str, int]]:
    """Index of a feature map -> kind of predictor -> output channels."""
    found: dict[int, dict[str, int]] = {}
    for unit in units:
        match = _PREDICTOR.match(unit.scope)
        if match:
            found.setdefault(int(match.group(1)), {})[match.group(2)] = tensors[unit.tensors["weights"]].shape[3]
    return found


def class_count(source: str, units: tuple[ConvUnit, ...], tensors: Mapping[str, FloatArray]) -> int:
    """Class count with background: class predictor channels / default boxes per cell.

    Raises:
        ModelError: a box or class predictor is missing, or channel counts do not fit each other.
    """
    counts: dict[int, int] = {}
    for index, channels in sorted(predictor_channels(units, tensors).items()):
        box = channels.get("BoxEncodingPredictor")
        classes = channels.get("ClassPredictor")
        if box is None or classes is None:
            missing = "BoxEncodingPredictor" if box is None else "ClassPredictor"
            raise ModelError(f"{source}: BoxPredictor_{index} has no {missing}")
        cell_boxes, rest = divmod(box, BOX_CODE_SIZE)
        if rest or cell_boxes == 0 or classes % cell_boxes:
            raise ModelError(
                f"{source}: BoxPredictor_{index} must have {BOX_CODE_SIZE} box channels and the same number of class "
                f"channels for each default box, got {box} and {classes}"
            )
        counts[index] = classes // cell_boxes
    if len(set(counts.values())) != 1:
        raise ModelError(f"{source}: the feature maps have different class counts: {counts}")
    return next(iter(counts.values()))


def settings_from_graph(constants: Constants, units: Units) -> Settings:
    """All settings that a graph has.

    Raises:
        ModelError: they contradict each other, or the graph does something that is not read here.
    """
    graph = constants.graph
    stem = first_convolution(graph)
    if stem is None:
        raise ModelError(f"{graph.source}: no convolution reads the image; they depend on each other in a loop")
    read = network_input(constants, stem)
    settings = Settings(
        input_size=read.size,
        resizer=read.resizer,
        pixel_scale=read.scale,
        pixel_offset=read.offset,
        num_classes=class_count(graph.source, units.units, units.tensors),
    )
    settings = _with_scores(constants, units, settings)
    decoder, raw = find_decoder(constants), find_raw_outputs(constants)
    if raw is not None and (raw.operation is not None or decoder is None):
        if settings.score_converter is None or not _are_scores(constants, units, raw.scores):
            raise ModelError(
                f"{graph.source}: the scores {raw.scores} are not the sigmoid or softmax of the class logits"
            )
        settings = _with_box_order(constants, units, settings, raw.encodings)
        return settings if raw.operation is None else apply_tflite_op(constants, raw.operation, settings)
    encodings = None if decoder is None else _before_transpose(constants, decoder.encodings)
    settings = _with_box_order(constants, units, settings, encodings)
    if decoder is not None:
        boxes, scales = boxes_and_scales(constants, _shape_of(constants, read), decoder)
        settings = dataclasses.replace(settings, default_boxes=boxes, box_coder_scales=scales)
    return _with_suppression(constants, settings)


def _before_transpose(constants: Constants, encodings: Node) -> Ref:
    """The joined box encodings (boxes, 4), which a decoder transposes and then splits into four vectors."""
    graph = constants.graph
    ref = graph.origin(encodings.inputs[-1 if encodings.op == "Split" else 0])
    return graph[ref].inputs[0] if graph[ref].op == "Transpose" else ref


def _with_scores(constants: Constants, units: Units, settings: Settings) -> Settings:
    scope = next(scope for scope in units.ends if scope.endswith("/ClassPredictor"))
    conversion = find_conversion(constants, units.ends[scope])
    if conversion is None:
        return settings
    # A graph that ends in TFLite's op or before NMS does not show whether it has a background column.
    suppresses = any(node.op in SUPPRESSIONS for node in constants.graph)
    notes = settings.unsupported
    if suppresses and not cuts_background(constants, conversion.scores):
        notes = (*notes, "a class predictor without a background column")
    scale = conversion.logit_scale
    return dataclasses.replace(
        settings,
        score_converter=conversion.converter,
        logit_scale=scale,
        class_order=_order(constants, units, constants.graph[conversion.scores].inputs[0], "class logits", scale),
        unsupported=notes,
    )


def _are_scores(constants: Constants, units: Units, ref: Ref) -> bool:
    """Whether `ref` is the score converter's output, with the same shape or another one."""
    scope = next(scope for scope in units.ends if scope.endswith("/ClassPredictor"))
    conversion = find_conversion(constants, units.ends[scope])
    return conversion is not None and behind_reshapes(constants.graph, ref) == conversion.scores


def _with_box_order(constants: Constants, units: Units, settings: Settings, encodings: Ref | None) -> Settings:
    order = None if encodings is None else _order(constants, units, encodings, "box encodings", 1.0)
    return dataclasses.replace(settings, box_order=order)


def _order(constants: Constants, units: Units, ref: Ref, what: str, factor: float) -> tuple[str, ...]:
    """The scopes whose outputs are joined into `ref`, each multiplied by `factor`.

    Raises:
        ModelError: there is another op in between, or another factor.
    """
    source = constants.graph.source
    join = join_order(constants, {end: scope for scope, end in units.ends.items()}, ref)
    if join is None:
        raise ModelError(
            f"{source} has an unsupported op on its {what} between the predictors and {ref}; they may only be reshaped "
            "and joined, map after map"
        )
    others = sorted({f"{found:g}" for found in join.factors if found != factor})
    if others:
        raise ModelError(
            f"{source} must multiply its {what} by {factor:g} between the predictors and {ref}, got {', '.join(others)}"
        )
    return join.scopes


def _shape_of(constants: Constants, read: NetworkInput) -> ShapeOf | None:
    """A function for the shapes of feature maps; None if the input size is unknown."""
    if read.size is None:
        return None
    return FeatureMaps(constants.graph, constants.plain, read.stem, read.size).shape


def _with_suppression(constants: Constants, settings: Settings) -> Settings:
    found = find_suppression(constants, settings.num_classes)
    if found is None:
        return settings
    if settings.score_converter is None:
        settings = dataclasses.replace(settings, score_converter="identity", logit_scale=1.0)
    return dataclasses.replace(
        settings,
        iou_threshold=found.iou_threshold,
        score_threshold=found.score_threshold,
        max_per_class=found.max_per_class,
        max_total=found.max_total,
        clip_first=found.clip_first,
        unsupported=(*settings.unsupported, *found.unsupported),
    )
