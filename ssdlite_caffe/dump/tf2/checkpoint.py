"""An object-based checkpoint as a DumpedModel, without TensorFlow. What it does not hold is from the pipeline.config.

It has the variables under the paths of Python's objects; the object graph in it has their Keras names too.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump.detector.keras_scopes import EXTRACTOR, EXTRACTORS
from ssdlite_caffe.dump.detector.settings import class_count
from ssdlite_caffe.dump.detector.take_apart import require_detector, require_finite
from ssdlite_caffe.dump.model import ConvUnit, DumpedModel, Settings
from ssdlite_caffe.dump.model_bytes import hash_files, shards
from ssdlite_caffe.dump.pipeline.config import Pipeline, PyramidConfig, fill_gaps, find_pipeline, read_pipeline
from ssdlite_caffe.dump.pipeline.resizer import refuse_resizer
from ssdlite_caffe.dump.tf2.bundle import OBJECT_GRAPH, Bundle
from ssdlite_caffe.dump.tf2.variables import Part, map_count, parts_of
from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.resizer import Resizer

_PROJECTION = "/fpn/projection_"
_SMOOTHED = re.compile(r"/fpn/(?:smoothing|bottom_up_Conv2d)_\d+$")
_TOWER = re.compile(r"^BoxPredictor_0/(Box|Class|)PredictionTower/conv2d_(\d+)$")
_HEAD = "BoxPredictor_0/BoxEncodingPredictor"


def read_object_checkpoint(prefix: Path, *, pipeline_config: Path | None = None) -> DumpedModel:
    """A detector from the checkpoint at a prefix and its pipeline.config.

    Raises:
        ModelError: a file is missing or damaged, the checkpoint is not of a detector that is read here, or the
            pipeline.config is of another one.
        TensorError: a weight is NaN or Inf.
    """
    bundle = Bundle(prefix)
    refuse_other_detectors(str(prefix), bundle.keys)
    config = find_pipeline(prefix, pipeline_config)
    pipeline = read_pipeline(config)
    refuse_resizer(pipeline.refused_resizer, config)
    _compare_type(str(prefix), bundle.keys, pipeline, config)
    tensors, units, skipped = _units(bundle, pipeline, str(prefix))
    require_detector(str(prefix), (unit.scope for unit in units))
    require_finite(str(prefix), tensors)
    if pipeline.pyramid is not None:
        _compare_pyramid(str(prefix), units, tensors, pipeline.pyramid, config)
    count = Settings(num_classes=class_count(str(prefix), units, tensors), unsupported=pipeline.settings.unsupported)
    settings = fill_gaps(count, pipeline.settings, source=str(prefix), config=str(config))
    # TensorFlow 2's detectors normalise pixels before they resize images.
    resizer = settings.resizer if settings.resizer is None or settings.resizer.plain else _normalised(settings.resizer)
    settings = dataclasses.replace(settings, resizer=resizer)
    origins = {"settings": str(config)}
    digest = hash_files(shards(prefix))
    return DumpedModel(str(prefix), "checkpoint", digest, tensors, units, settings, skipped, origins=origins)


def _normalised(resizer: Resizer) -> Resizer:
    return dataclasses.replace(resizer, normalise_first=True)


def refuse_other_detectors(source: str, names: dict[str, str]) -> None:
    """Refuse a checkpoint of another model.

    Args:
        source: for messages.
        names: full name of each variable -> its key.

    Raises:
        ModelError: it has no feature extractor that is read here.
    """
    extractor = _extractor(names)
    if extractor in EXTRACTORS:
        return
    if not names:
        raise ModelError(f"{source} does not hold the names of its variables; give the SavedModel of the same weights")
    found = f"of {extractor}" if extractor else f"its variables are {', '.join(sorted(names)[:3])}, ..."
    raise ModelError(
        f"{source} is an object-based checkpoint of TensorFlow 2, but not of an SSD MobileNet that is read "
        f"({' or '.join(EXTRACTORS.values())}): {found}"
    )


def _extractor(names: dict[str, str]) -> str | None:
    return next((match.group(1) for name in names if (match := EXTRACTOR.search(name))), None)


def _compare_type(source: str, names: dict[str, str], pipeline: Pipeline, config: Path) -> None:
    found = EXTRACTORS[_extractor(names) or ""]
    wanted = pipeline.settings.feature_extractor_type
    if wanted is not None and wanted != found:
        raise ModelError(
            f"{source} and {config} contradict each other: the checkpoint is of {found}, the pipeline.config of "
            f"{wanted}; give the pipeline.config that it was trained with"
        )


def _compare_pyramid(
    source: str, units: tuple[ConvUnit, ...], tensors: dict[str, FloatArray], wanted: PyramidConfig, config: Path
) -> None:
    """Check that the pipeline.config describes the pyramid whose kernels the checkpoint has.

    Raises:
        ModelError: it does not; the first differences are named.
    """
    shapes = {unit.scope: tensors[unit.tensors["weights"]].shape for unit in units}
    maps = sum(scope.endswith("/BoxEncodingPredictor") for scope in shapes)
    towers = {m.group(1, 2): scope for scope in shapes if (m := _TOWER.match(scope))}
    found: list[tuple[str, object, object]] = [("feature maps", maps, wanted.maps)]
    found += [("channels of the pyramid", shape[3], wanted.channels) for s, shape in shapes.items() if _PROJECTION in s]
    found += [
        ("a separable pyramid", f"{scope}_depthwise" in shapes, wanted.depthwise)
        for scope in shapes
        if _SMOOTHED.search(scope)
    ]
    layers = len({number for _, number in towers})
    found.append(("layers before the predictors", layers, wanted.tower_layers))
    if layers and wanted.tower_layers:
        found.append(("one tower for boxes and classes", ("", "0") in towers, wanted.shared_tower))
        found += [("channels of the towers", shapes[scope][3], wanted.tower_channels) for scope in towers.values()]
    separable = f"{_HEAD}_depthwise" in shapes
    found.append(("separable predictors", separable, wanted.predictor_depthwise))
    kernel = shapes[f"{_HEAD}_depthwise" if separable else _HEAD][0]
    found.append(("the predictors' kernel", kernel, wanted.kernel))
    differences = list(dict.fromkeys(f"{what} {one} in the checkpoint, {two} in the pipeline.config"
                                     for what, one, two in found if one != two))  # fmt: skip
    if differences:
        raise ModelError(
            f"{source} and {config} contradict each other: {'; '.join(differences[:3])}; give the pipeline.config that "
            "it was trained with"
        )


def _units(
    bundle: Bundle, pipeline: Pipeline, source: str
) -> tuple[dict[str, FloatArray], tuple[ConvUnit, ...], dict[str, str]]:
    """Tensors by name, convolutions sorted by scope, and what is not read, with the reason."""
    maps, skipped = map_count(bundle.keys, source), {}
    tensors: dict[str, FloatArray] = {}
    parts: dict[str, dict[str, str]] = {}
    depthwise: dict[str, bool] = {}
    for name, key in sorted(bundle.keys.items()):
        found = parts_of(name, maps) if bundle.is_float(key) else []
        if not found:
            skipped[name] = "not part of the detector"
            continue
        value = np.ascontiguousarray(bundle.value(key), np.float32)
        for part in found:
            stored = _name_of(part)
            parts.setdefault(part.scope, {})[part.part] = stored
            tensors[stored] = value
            if part.depthwise is not None:
                depthwise[part.scope] = part.depthwise
    for key in bundle.shapes.keys() - bundle.keys.values() - {OBJECT_GRAPH}:
        skipped[key] = "an optimiser's state" if ".OPTIMIZER_SLOT" in key else "not part of the detector"
    units = tuple(_unit(scope, parts[scope], depthwise, pipeline, source) for scope in sorted(parts))
    for unit in units:
        if tensors[unit.tensors["weights"]].ndim != 4:
            shape = tensors[unit.tensors["weights"]].shape
            raise ModelError(f"{source}: the kernel of {unit.scope} must have 4 axes, got the shape {shape}")
    return tensors, units, skipped


def _name_of(part: Part) -> str:
    """Name of a tensor, as TensorFlow 1 has it."""
    if part.part == "weights":
        return f"{part.scope}/{'depthwise_weights' if part.depthwise else 'weights'}"
    return f"{part.scope}/biases" if part.part == "biases" else f"{part.scope}/BatchNorm/{part.part}"


def _unit(scope: str, parts: dict[str, str], depthwise: dict[str, bool], pipeline: Pipeline, source: str) -> ConvUnit:
    if "weights" not in parts:
        raise ModelError(f"{source}: {scope} has {', '.join(sorted(parts))} but no kernel")
    if ("moving_mean" in parts) != ("moving_variance" in parts):
        raise ModelError(f"{source}: the BatchNorm of {scope} has only one of moving_mean and moving_variance")
    epsilon = pipeline.epsilon_of(scope) if "moving_mean" in parts else None
    return ConvUnit(scope, "depthwise" if depthwise[scope] else "conv", parts, epsilon)
