"""Settings of a detector from its graph."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump.affine import Constants
from ssdlite_caffe.dump.boxes import boxes_and_scales, find_decoder
from ssdlite_caffe.dump.constants import ShapeOf
from ssdlite_caffe.dump.graph import Node, Ref
from ssdlite_caffe.dump.map_sizes import FeatureMaps
from ssdlite_caffe.dump.model import ConvUnit, Settings
from ssdlite_caffe.dump.nms import SUPPRESSIONS, find_suppression
from ssdlite_caffe.dump.preprocessing import NetworkInput, first_convolution, network_input
from ssdlite_caffe.dump.raw_outputs import behind_reshapes, find_raw_outputs
from ssdlite_caffe.dump.scores import cuts_background, find_conversion
from ssdlite_caffe.dump.tflite_op import apply_tflite_op
from ssdlite_caffe.dump.units import Units
from ssdlite_caffe.dump.wiring import join_order
from ssdlite_caffe.errors import ModelError

_PREDICTOR = re.compile(r"^BoxPredictor_(\d+)/(BoxEncodingPredictor|ClassPredictor)$")
BOX_CODE_SIZE = 4


def predictor_channels(units: tuple[ConvUnit, ...], tensors: Mapping[str, FloatArray]) -> dict[int, dict[str, int]]:
    """Output channels of the box and class predictor of each feature map: index -> kind -> channels."""
    found: dict[int, dict[str, int]] = {}
    for unit in units:
        match = _PREDICTOR.match(unit.scope)
        if match:
            found.setdefault(int(match.group(1)), {})[match.group(2)] = tensors[unit.tensors["weights"]].shape[3]
    return found


def class_count(source: str, units: tuple[ConvUnit, ...], tensors: Mapping[str, FloatArray]) -> int:
    """Classes with background: class predictor channels over default boxes a cell.

    Raises:
        ModelError: a predictor without its partner, or channel counts that do not fit each other.
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
                f"{source}: BoxPredictor_{index} has {box} box and {classes} class channels, which is no whole number "
                f"of boxes of {BOX_CODE_SIZE} and of classes"
            )
        counts[index] = classes // cell_boxes
    if len(set(counts.values())) != 1:
        raise ModelError(f"{source}: the feature maps have different class counts: {counts}")
    return next(iter(counts.values()))


def settings_from_graph(constants: Constants, units: Units) -> Settings:
    """All that a graph says about its detector.

    Raises:
        ModelError: it says two things at once.
    """
    graph = constants.graph
    stem = first_convolution(graph)
    if stem is None:
        raise ModelError(f"{graph.source}: its convolutions feed each other in a circle")
    read = network_input(constants, stem)
    settings = Settings(
        input_size=read.size,
        pixel_scale=read.scale,
        pixel_offset=read.offset,
        num_classes=class_count(graph.source, units.units, units.tensors),
    )
    settings = _with_scores(constants, units, settings)
    decoder, raw = find_decoder(constants), find_raw_outputs(constants)
    if raw is not None and (raw.operation is not None or decoder is None):
        if settings.score_converter is None or not _are_scores(constants, units, raw.scores):
            raise ModelError(
                f"{graph.source}: {raw.scores} is read for scores, and is not what a sigmoid or softmax makes of the "
                "class logits"
            )
        settings = _with_box_order(constants, units, settings, raw.codes)
        return settings if raw.operation is None else apply_tflite_op(constants, raw.operation, settings)
    codes = None if decoder is None else _before_transpose(constants, decoder.codes)
    settings = _with_box_order(constants, units, settings, codes)
    if decoder is not None:
        boxes, scales = boxes_and_scales(constants, _shape_of(constants, read), decoder)
        settings = dataclasses.replace(settings, default_boxes=boxes, box_coder_scales=scales)
    return _with_suppression(constants, settings)


def _before_transpose(constants: Constants, codes: Node) -> Ref:
    """The joined box codes that a decoder takes apart: it turns (boxes, 4) into four vectors by a transpose before."""
    graph = constants.graph
    ref = graph.origin(codes.inputs[-1 if codes.op == "Split" else 0])
    return graph[ref].inputs[0] if graph[ref].op == "Transpose" else ref


def _with_scores(constants: Constants, units: Units, settings: Settings) -> Settings:
    scope = next(scope for scope in units.ends if scope.endswith("/ClassPredictor"))
    conversion = find_conversion(constants, units.ends[scope])
    if conversion is None:
        return settings
    # TFLite's op at the end, and a graph cut off before its suppression, do not show what they take for background.
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
    """Whether `ref` is the score converter's output, as it is or in another shape."""
    scope = next(scope for scope in units.ends if scope.endswith("/ClassPredictor"))
    conversion = find_conversion(constants, units.ends[scope])
    return conversion is not None and behind_reshapes(constants.graph, ref) == conversion.scores


def _with_box_order(constants: Constants, units: Units, settings: Settings, codes: Ref | None) -> Settings:
    order = None if codes is None else _order(constants, units, codes, "box codes", 1.0)
    return dataclasses.replace(settings, box_order=order)


def _order(constants: Constants, units: Units, ref: Ref, what: str, factor: float) -> tuple[str, ...]:
    """The scopes whose outputs are joined into `ref`, each multiplied by `factor`.

    Raises:
        ModelError: something else is done to them on the way.
    """
    source = constants.graph.source
    join = join_order(constants, {end: scope for scope, end in units.ends.items()}, ref)
    if join is None:
        raise ModelError(
            f"{source} does something with its {what} between the predictors and {ref} that is not read here; they are "
            "reshaped and joined, map after map"
        )
    others = sorted({f"{found:g}" for found in join.factors if found != factor})
    if others:
        raise ModelError(
            f"{source} multiplies {what} by {', '.join(others)} on their way to {ref}, where {factor:g} is expected "
            "of every map"
        )
    return join.scopes


def _shape_of(constants: Constants, read: NetworkInput) -> ShapeOf | None:
    """Shapes of feature maps, where the network's input has a size."""
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
