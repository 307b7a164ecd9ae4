"""From a TensorFlow detector to a Keras model: read, recognise, build, assign the weights."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ssdlite_caffe.coco.label_map import LabelMap, check_classes
from ssdlite_caffe.dump.model import DumpedModel
from ssdlite_caffe.dump.read import ReadOptions, read_model
from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.files import refuse_existing
from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.gen_model.default_boxes import refuse_irregular_boxes
from ssdlite_caffe.keras.model import Inputs, KerasModel, Outputs, build_model, detector_of
from ssdlite_caffe.keras.names import layer_name
from ssdlite_caffe.keras.store import save, suffix_of
from ssdlite_caffe.keras.weights import Values, keras_values, set_values
from ssdlite_caffe.load.identify import identify
from ssdlite_caffe.runtimes.class_names import label_map_of
from ssdlite_caffe.runtimes.keras_file import keras_file

Variances = Literal["keep", "fold"]


def import_detector(
    model: DumpedModel,
    *,
    labels: LabelMap | None = None,
    labels_name: str = "the label map",
    score_threshold: float | None = None,
    variances: Variances = "keep",
    inputs: Inputs = "network",
    outputs: Outputs = "raw",
) -> KerasModel:
    """A Keras model with the weights of a TensorFlow detector.

    Args:
        model: the result of `read_model`.
        labels: its classes; None: numbered names.
        labels_name: name of the label map in messages.
        score_threshold: 0 to 1, in place of the graph's.
        variances: `fold` multiplies the box predictors by the box coder's variances, which are then 1; the boxes stay
            the same.
        inputs: see `build_model`.
        outputs: see `build_model`.

    Raises:
        SsdliteError: the model is not an SSD MobileNet, its weights do not fit, or the label map has another number of
            classes.
    """
    model, arch = identify(model)
    if arch.pyramid is not None:
        raise ModelError(
            f"{model.source} is an FPNLite, whose feature pyramid and shared predictors the Keras model has not; "
            "convert takes it, and kit --from trains it"
        )
    if score_threshold is not None:
        arch = dataclasses.replace(arch, nms=dataclasses.replace(arch.nms, score_threshold=score_threshold))
    if labels is not None:
        check_classes(labels, arch.num_classes, labels_name)
    if arch.code_limit is not None or arch.nms.top_k is not None:
        raise ModelError(
            f"{model.source} is a model of torchvision, whose limits of boxes and candidates the Keras model has not; "
            "keras import takes TensorFlow models"
        )
    refuse_irregular_boxes(arch, "the Keras model has the same boxes on the centre of each cell")
    net = build(arch)
    values = keras_values(model, net)
    if variances == "fold":
        arch, values = without_variances(arch, values)
    made = build_model(arch, labels, inputs=inputs, outputs=outputs)
    set_values(made, values)
    found = detector_of(made)
    assert found is not None
    return found


def without_variances(arch: ArchSpec, values: Values) -> tuple[ArchSpec, Values]:
    """The same detector with box-coder variances of 1: the box predictors' outputs are multiplied by the variances.

    The encoding t of a box, used as t * v before, becomes t * v itself. Computed in float64, rounded once.
    """
    x, y, width, height = arch.variances
    changed = dict(values)
    for feature_map in build(arch).feature_maps:
        conv = feature_map.loc[-1]
        factors = np.tile(np.asarray([y, x, height, width], np.float64), len(feature_map.tf_boxes))
        for part in ("kernel", "bias"):
            name = f"{layer_name(conv.tf_scope)}/{part}"
            changed[name] = (values[name] * factors).astype(np.float32)
    return dataclasses.replace(arch, variances=(1.0, 1.0, 1.0, 1.0)), changed


def import_file(
    source: Path,
    out: Path,
    *,
    reading: ReadOptions | None = None,
    label_map: str | None = None,
    score_threshold: float | None = None,
    variances: Variances = "keep",
    inputs: Inputs = "network",
    outputs: Outputs = "raw",
    force: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Write a TensorFlow model as a Keras file; class names come from `label_map` or from the model.

    Args:
        source: the TensorFlow model.
        out: the Keras file to write; its suffix decides on the format.
        reading: how to read the model.
        label_map: `coco`, `voc` or a file; None: the model's own, or numbered names.
        score_threshold: see `import_detector`.
        variances: see `import_detector`.
        inputs: see `build_model`.
        outputs: see `build_model`.
        force: replace `out`.
        progress: called with a text when the next step begins.

    Returns:
        A report: source, notes, architecture, numbers of tensors, variables and parameters.

    Raises:
        SsdliteError: as `import_detector`, or `out` cannot be written.
    """
    suffix_of(out)
    refuse_existing(out, force=force)
    if keras_file(source) is not None:
        raise ModelError(
            f"{source} is a Keras model already, and keras import takes TensorFlow models; to make a frozen graph of "
            f"it, type: ssdlite-caffe keras export pb {shlex.quote(str(source))} -o frozen_inference_graph.pb"
        )
    progress(f"reading {source}")
    model = read_model(source, reading)
    labels, where = label_map_of(source, label_map)
    progress("building the Keras model")
    detector = import_detector(
        model,
        labels=labels,
        labels_name=where,
        score_threshold=score_threshold,
        variances=variances,
        inputs=inputs,
        outputs=outputs,
    )
    progress(f"writing {out}")
    save(detector, out, force=force)
    arch = detector.arch
    return {
        "source": {"path": model.source, "form": model.form, "sha256": model.sha256, "origins": model.origins},
        "notes": [*model.notes, *(f"not exact: {reason}" for reason in model.inexact)],
        "arch": arch.to_dict(),
        "tensors": {"used": len(model.tensors), "skipped": model.skipped},
        "variables": len(detector.model.weights),
        "parameters": int(detector.model.count_params()),
        "inputs": inputs,
        "outputs": outputs,
    }


def import_summary(report: dict[str, Any], out: Path) -> str:
    """A report in a few lines of text."""
    arch = ArchSpec.from_dict(report["arch"])
    height, width = arch.input_size
    source = report["source"]
    return (
        f"{source['form']} {source['path']}\n"
        f"{arch.family} {arch.head}, width {arch.width_multiplier:g}, {arch.num_classes} classes with background, "
        f"input {height}x{width}, {arch.score_converter} scores\n"
        + ("" if arch.resizer.plain else f"images resized by {arch.resizer.text()}\n")
        + f"{report['tensors']['used']} tensors used, each once; {report['variables']} variables filled, none left\n"
        + "".join(f"note: {note}\n" for note in report["notes"])
        + f"{report['parameters']} parameters are in {out}"
    )
