"""An object-based checkpoint as a DumpedModel, without TensorFlow. What it does not hold is from the pipeline.config.

It has the variables under the paths of Python's objects; the object graph in it has their Keras names too.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump.detector.keras_scopes import EXTRACTOR, EXTRACTORS
from ssdlite_caffe.dump.detector.settings import class_count
from ssdlite_caffe.dump.detector.take_apart import require_detector, require_finite
from ssdlite_caffe.dump.model import ConvUnit, DumpedModel, Settings
from ssdlite_caffe.dump.model_bytes import hash_files, shards
from ssdlite_caffe.dump.pipeline.config import Pipeline, fill_gaps, find_pipeline, read_pipeline
from ssdlite_caffe.dump.pipeline.resizer import refuse_resizer
from ssdlite_caffe.dump.tf2.bundle import OBJECT_GRAPH, Bundle
from ssdlite_caffe.dump.tf2.variables import Part, map_count, parts_of
from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.resizer import Resizer


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


def _units(
    bundle: Bundle, pipeline: Pipeline, source: str
) -> tuple[dict[str, FloatArray], tuple[ConvUnit, ...], dict[str, str]]:
    """Tensors by name, convolutions sorted by scope, and what is not read, with the reason."""
    maps, skipped = map_count(bundle.keys), {}
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


def _unit(
    scope: str, parts: dict[str, str], depthwise: dict[str, bool], pipeline: Pipeline, source: str
) -> ConvUnit:
    if "weights" not in parts:
        raise ModelError(f"{source}: {scope} has {', '.join(sorted(parts))} but no kernel")
    if ("moving_mean" in parts) != ("moving_variance" in parts):
        raise ModelError(f"{source}: the BatchNorm of {scope} has only one of moving_mean and moving_variance")
    kind = "depthwise" if depthwise[scope] else "conv"
    return ConvUnit(scope, kind, parts, pipeline.epsilon_of(scope) if "moving_mean" in parts else None)
