"""Whether what a graph does behind its predictors is what its settings say.

Settings are read from single ops: thresholds, limits, default boxes. Whatever else is between the predictors and the
detections (the order of ops, the window that boxes are clipped to, the frame of their coordinates, offsets of classes)
has no setting, and must be as the Object Detection API has it. It has many forms, of which graph optimisers make more.
So it is not matched op by op. It is run, for made-up outputs of the predictors, and the detections must be those that
the settings lead to.

Source: object_detection/core/post_processing.py, `batch_multiclass_non_max_suppression`; object_detection/exporter.py.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from ssdlite_caffe.dump.detector.affine import Constants
from ssdlite_caffe.dump.detector.boxes import find_decoder
from ssdlite_caffe.dump.detector.map_sizes import FeatureMaps
from ssdlite_caffe.dump.detector.preprocessing import first_convolution
from ssdlite_caffe.dump.detector.scenes import WHOLE, Rules, Scene, encodings_of, expected, logits_of, scenes
from ssdlite_caffe.dump.detector.scores import find_conversion
from ssdlite_caffe.dump.graph.constant_ops import MAX_OUTPUT, NotConstantError
from ssdlite_caffe.dump.graph.execution import Execution
from ssdlite_caffe.dump.graph.tensors import DTYPES, Array
from ssdlite_caffe.dump.graph.view import Graph, Ref
from ssdlite_caffe.dump.model import Settings
from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.resizer import shape_kept

OUTPUTS = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")
"""The exporter's names; a SavedModel may have them below the name of a function."""
_USUAL_SCALES = (10.0, 10.0, 5.0, 5.0)
_LARGE = 1 << 20
"""Pixels of an input for which no image of another size is made up."""
_ROUNDING = 1e-4
"""Of boxes, as a fraction of the image, and of scores; rounding gives some 1e-6, another op much more."""


def check_post_processing(constants: Constants, settings: Settings, ends: Mapping[str, Ref]) -> tuple[str, ...]:
    """Run a graph's post-processing, and compare its detections with those of its settings.

    Args:
        constants: of the graph.
        settings: what was read of it.
        ends: scope of a predictor -> its output.

    Returns:
        Notes: why it was not checked. Empty if it was, or if the graph has no suppression, or one that a Caffe net
        cannot do, which its settings say.

    Raises:
        ModelError: the detections differ.
    """
    if settings.iou_threshold is None or settings.tflite_nms is not None or settings.unsupported:
        return ()
    graph, stem = constants.graph, first_convolution(constants.graph)
    settings, unknown = _completed(settings)
    rules, outputs = _rules(settings), _outputs(graph)
    if isinstance(rules, str):
        return _unchecked(rules)
    if outputs is None:
        return _unchecked(f"it has no outputs {', '.join(OUTPUTS)}")
    if stem is None or settings.input_size is None:
        return _unchecked("its input size is not known")
    shape_of = FeatureMaps(graph, constants.plain, graph.origin(stem.inputs[0]), settings.input_size).shape
    shapes = {scope: shape_of(ref) for scope, ref in ends.items()}
    wanted = {node.name for node in graph.upstream(outputs.values())}
    images = _image_sizes(settings)
    execution = None
    for scene, image in zip(scenes(rules, [_window(settings, size) for size in images]), images, strict=True):
        given = _given(settings, rules, scene, shapes, ends)
        if isinstance(given, str):
            return _unchecked(given)
        execution = Execution(graph, {**_images(graph, image), **given}, wanted, shape_of=shape_of, like=execution)
        try:
            found = {name: execution.value(ref) for name, ref in outputs.items()}
        except NotConstantError as error:
            return _unchecked(str(error))
        problem = _difference(rules, scene, found)
        if problem is not None and unknown and not _decodes(constants):
            return _unchecked("its box-coder scales are not known")
        if problem is not None:
            place = _place(constants, ends, execution, scene)
            raise ModelError(
                f"{graph.source} does not choose detections as the Object Detection API does, and a net made from it "
                f"would detect something else: for made-up outputs of the predictors {problem}; the cause is {place}"
            )
    return ()


def _place(constants: Constants, ends: Mapping[str, Ref], execution: Execution, scene: Scene) -> str:
    """Between which nodes detections become others than those of the settings, as a phrase."""
    decoder = find_decoder(constants)
    corners = None if decoder is None else decoder.corners
    if corners is not None and _differ([execution.get(ref) for ref in corners], scene.boxes.T):
        return f"between the predictors and the decoded boxes, which {_reader(constants.graph, corners[0])} reads"
    logits = next((ref for scope, ref in ends.items() if scope.endswith("/ClassPredictor")), None)
    conversion = None if logits is None else find_conversion(constants, logits)
    if conversion is not None and _differ([execution.get(conversion.scores)], scene.scores[None]):
        return f"between the predictors and the scores, {conversion.scores}"
    return f"between the scores or the decoded boxes and {', '.join(OUTPUTS)}"


def _reader(graph: Graph, ref: Ref) -> str:
    return next((use.node.name for use in graph.uses(ref)), str(ref))


def _differ(found: Sequence[Array | None], values: Array) -> bool:
    """Whether values were computed and are others than `values`."""
    for one, other in zip(found, values, strict=True):
        if one is not None and (
            one.size != other.size or not np.allclose(one.reshape(-1), other.reshape(-1), atol=1e-4)
        ):
            return True
    return False


def _unchecked(reason: str) -> tuple[str, ...]:
    return (f"it was not checked whether the graph chooses detections as the Object Detection API does: {reason}",)


def _completed(settings: Settings) -> tuple[Settings, bool]:
    """Settings with the usual box-coder scales and order of classes in place of unknown ones; whether scales were."""
    if settings.class_order is None and settings.box_order is not None:
        order = tuple(scope.replace("/BoxEncodingPredictor", "/ClassPredictor") for scope in settings.box_order)
        settings = dataclasses.replace(settings, class_order=order)
    if settings.box_coder_scales is not None:
        return settings, False
    return dataclasses.replace(settings, box_coder_scales=_USUAL_SCALES), True


def _decodes(constants: Constants) -> bool:
    """Whether the ops of a box decoder were found, so that its scales are known unless it is another one."""
    decoder = find_decoder(constants)
    return decoder is not None and decoder.corners is not None


def _rules(settings: Settings) -> Rules | str:
    """The settings, or a phrase about the first one that is unknown or of no use."""
    boxes, scales, iou = settings.default_boxes, settings.box_coder_scales, settings.iou_threshold
    each, total, least = settings.max_per_class, settings.max_total, settings.score_threshold
    if boxes is None or scales is None or settings.box_order is None:
        return "its default boxes are not known"
    if not (np.isfinite(boxes).all() and (boxes[:, 2:] > boxes[:, :2]).all()):
        return "not all of its default boxes have an area"
    if settings.num_classes is None or settings.score_converter is None:
        return "its score converter is not known"
    if each is None or total is None or iou is None or least is None:
        return "its limits of detections are not known"
    if not (0 <= iou <= 1 and 0 <= least < 0.98 and min(each, total) >= 1):
        return "its limits of detections are out of range"
    return Rules(
        boxes,
        scales,
        settings.num_classes,
        settings.score_converter,
        settings.logit_scale or 1.0,
        iou,
        least,
        each,
        total,
        bool(settings.clip_first),
    )


def _image_sizes(settings: Settings) -> list[tuple[int, int]]:
    """(height, width) of the images of the scenes, in pixels: one larger than the input, tall, wide, and small ones."""
    height, width = settings.input_size or (1, 1)
    resizer = settings.resizer
    if resizer is None or resizer.max_dimension is None:
        factor = 2 if height * width < _LARGE else 1
        return [(factor * height, factor * width), (61, 43), (40, 127), (height, width)]
    most = resizer.max_dimension
    return [(most, max(1, 3 * most // 4)), (most + 9, max(1, most // 2)), (max(1, most // 3), most), (most, most)]


def _window(settings: Settings, image: tuple[int, int]) -> tuple[float, float]:
    """The (height, width) of an image within the network input, as fractions."""
    resizer = settings.resizer
    if resizer is None or resizer.min_dimension is None or resizer.max_dimension is None:
        return WHOLE
    rows, columns = shape_kept(image, resizer.min_dimension, resizer.max_dimension)
    return rows / resizer.max_dimension, columns / resizer.max_dimension


def _outputs(graph: Graph) -> dict[str, Ref] | None:
    found = {}
    for name in OUTPUTS:
        names = [name] if name in graph.nodes else [node for node in graph.nodes if node.endswith(f"/{name}")]
        if len(names) != 1:
            return None
        found[name] = Ref(names[0])
    return found


def _images(graph: Graph, image: tuple[int, int]) -> dict[str, tuple[Array, ...]]:
    """Name of a placeholder -> a black image of (height, width), where the graph leaves its size open."""
    found: dict[str, tuple[Array, ...]] = {}
    for node in graph:
        if node.op == "Placeholder" and node.attr_type("dtype") in DTYPES:
            shape = node.attr_shape("shape") or (-1, -1, -1, -1)
            if len(shape) != 4:
                continue
            sizes = [size if size > 0 else usual for size, usual in zip(shape, (1, *image, 3), strict=True)]
            if math.prod(sizes) <= MAX_OUTPUT:
                found[node.name] = (np.zeros(sizes, DTYPES[node.attr_type("dtype")]),)
    return found


def _given(
    settings: Settings,
    rules: Rules,
    scene: Scene,
    shapes: Mapping[str, tuple[int, ...] | None],
    ends: Mapping[str, Ref],
) -> dict[str, tuple[Array, ...]] | str:
    """The predictors' outputs of a scene; a phrase if there are none."""
    given: dict[str, tuple[Array, ...]] = {}
    encodings, logits = encodings_of(rules, scene), logits_of(rules, scene)
    if not (np.isfinite(encodings).all() and np.isfinite(logits).all()):
        return "its box-coder scales or its logit scale are out of range"
    for order, values in ((settings.box_order, encodings), (settings.class_order, logits)):
        flat, start = values.reshape(-1), 0
        for scope in order or ():
            shape = shapes.get(scope)
            count = 0 if shape is None else math.prod(shape)
            if shape is None or ends[scope].port or start + count > flat.size:
                return "the sizes of its feature maps are not known"
            given[ends[scope].name] = (flat[start : start + count].reshape(shape),)
            start += count
        if start != flat.size:
            return "the sizes of its feature maps do not fit its default boxes"
    return given


def _difference(rules: Rules, scene: Scene, found: Mapping[str, Array]) -> str | None:
    """How the detections `found` differ from those of the settings, as a phrase; None if they do not."""
    boxes, scores, classes = expected(rules, scene)
    numbers = {name: value.astype(np.float64) for name, value in found.items() if value.dtype.kind in "fiu"}
    if len(numbers) != len(OUTPUTS) or numbers["num_detections"].size != 1:
        return "its outputs are not the numbers of one image"
    count = numbers["num_detections"].reshape(())
    if count != len(boxes):
        return f"num_detections is {count:g}, and must be {len(boxes)}"
    shapes = {name: value.shape for name, value in numbers.items()}
    rows = shapes["detection_scores"][-1] if shapes["detection_scores"] else 0
    usual = {"detection_boxes": (1, rows, 4), "detection_scores": (1, rows), "detection_classes": (1, rows)}
    for name, shape in usual.items():
        if shapes[name] != shape or rows < len(boxes):
            return f"{name} has the shape {shapes[name]}"
    order = np.argsort(-numbers["detection_scores"][0, : len(boxes)], kind="stable")
    for name, values in (("detection_scores", scores), ("detection_classes", classes), ("detection_boxes", boxes)):
        with np.errstate(invalid="ignore"):
            differences = np.abs(numbers[name][0, order] - values)
        if not (differences <= _ROUNDING).all():
            row = int(np.argmax(~(differences <= _ROUNDING).reshape(len(values), -1).all(axis=1)))
            one, other = (np.round(v, 4).tolist() for v in (numbers[name][0, order][row], values[row]))
            return f"{name} has {one}, and must have {other}"
    return None
