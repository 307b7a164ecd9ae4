"""The weights that a training starts from: the classes that their class predictors are for, and what is kept of them.

A caffemodel holds no class names. For the training folder's own first weights kit.json has them. For other weights they
are taken from the label map beside the caffemodel, or from the one beside the folder of snapshots that it lies in.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from ssdlite_caffe.coco.label_map import LabelMap, load_label_map
from ssdlite_caffe.coco.same_classes import ClassMatch, match_classes
from ssdlite_caffe.errors import LabelMapError
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.binary import blob_shape, read_caffemodel, write_caffemodel
from ssdlite_caffe.training.kit_check import INITIAL, KIT, LABEL_MAP, Kit
from ssdlite_caffe.training.kit_weights import PREDICTOR, for_classes, predicted_classes

FIRST = "first.caffemodel"
"""What is kept of the weights that a training starts from, where that is not all."""


def first_weights(kit: Kit, *, finetune: bool, say: Callable[[str], None]) -> caffe_pb2.NetParameter | None:
    """What a training starts from, where it is not the whole file `kit.weights` as it is.

    Args:
        kit: the training folder; `kit.weights` are checked.
        finetune: skip the class predictors where the classes differ or are not known; they start from fillers.
        say: called with lines for the user.

    Returns:
        The weights with class predictors in the order of the training folder's classes, or without them; None where the
        file can be taken as it is.

    Raises:
        LabelMapError: the classes differ, and `finetune` is false.
    """
    if kit.weights is None or kit.train.labels is None:
        return None
    weights = read_caffemodel(kit.weights)
    predictors = [layer.name for layer in weights.layer if layer.blobs and layer.name.endswith(PREDICTOR)]
    if not predictors:
        return None
    labels = _classes_of(kit.folder, kit.weights, weights)
    if labels is None:
        if not finetune:
            if kit.weights != kit.folder / INITIAL:
                say(
                    f"{kit.weights} has no label map beside it, so its class predictors are taken to be for the "
                    f"classes of {kit.folder}; --finetune starts them anew"
                )
            return None
        why, kept = "their classes are not known", [layer for layer in weights.layer if layer.name not in predictors]
    else:
        match = match_classes(labels, kit.train.labels)
        if not finetune:
            _refuse_other_classes(kit, match)
        for line in match.remarks(str(kit.weights)):
            say(line)
        if match.same and match.moved is None:
            return None
        why, (kept, predictors) = match.difference("the model"), for_classes(list(weights.layer), match)
    if predictors:
        say(f"{len(predictors)} class predictors start anew, since {why}: {', '.join(predictors)}")
    return caffe_pb2.NetParameter(name=weights.name, layer=kept)


def check_classes_of_weights(kit: Kit) -> None:
    """Refuse weights that were trained for other classes than the training folder's, or in another order.

    Raises:
        LabelMapError: they were.
    """
    if kit.weights is None or kit.train.labels is None:
        return
    labels = _classes_of(kit.folder, kit.weights, read_caffemodel(kit.weights))
    if labels is None:
        return
    match = match_classes(labels, kit.train.labels)
    if match.moved is not None:
        raise LabelMapError(f"{kit.weights} has its classes in another order than the label map of {kit.folder}")
    if not match.same:
        raise LabelMapError(f"{kit.weights} is for other classes than {kit.folder}: {match.difference('the model')}")


def write_first(folder: Path, weights: caffe_pb2.NetParameter) -> Path:
    """Write what a training starts from into its folder."""
    write_caffemodel(folder / FIRST, weights, force=True)
    return folder / FIRST


def _refuse_other_classes(kit: Kit, match: ClassMatch) -> None:
    if match.same:
        return
    anew = (
        "write the training folder again with `ssdlite-caffe kit`"
        if kit.weights == kit.folder / INITIAL
        else "give --finetune to start them anew"
    )
    raise LabelMapError(
        f"the class predictors of {kit.weights} are for other classes than {kit.folder}: "
        f"{match.difference('the model')}; {anew}"
    )


def _classes_of(folder: Path, path: Path, weights: caffe_pb2.NetParameter) -> LabelMap | None:
    """The classes that the class predictors of a caffemodel are for; None where they are not known."""
    labels = _noted(folder) if path == folder / INITIAL else _beside(path)
    outputs = {layer.name: blob_shape(layer.blobs[0])[0] for layer in weights.layer if layer.blobs}
    return labels if labels is not None and len(labels) == predicted_classes(outputs) else None


def _noted(folder: Path) -> LabelMap | None:
    """The classes of initial.caffemodel, which kit.json has."""
    try:
        _, *names = json.loads((folder / KIT).read_text("utf-8"))["initial"]["classes"]
        return LabelMap.of_names(names)
    except (OSError, ValueError, TypeError, KeyError, RecursionError, LabelMapError):
        return None  # there is none, or it was written by an earlier version


def _beside(path: Path) -> LabelMap | None:
    """The label map beside a caffemodel, or beside the snapshots' folder of a training folder."""
    for folder in dict.fromkeys((path.parent, path.resolve().parent)):
        for place in (folder, *([folder.parent] if (folder.parent / KIT).is_file() else [])):
            try:
                if (place / LABEL_MAP).is_file():
                    return load_label_map(place / LABEL_MAP)
            except LabelMapError:
                return None
    return None
