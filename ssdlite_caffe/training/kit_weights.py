"""The first weights of a training: those of a converted model, with or without its class predictors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.coco.label_map import LabelMap
from ssdlite_caffe.coco.remap import remap_rows
from ssdlite_caffe.coco.same_classes import ClassMatch, is_unnamed, match_classes
from ssdlite_caffe.errors import LabelMapError, PrototxtError
from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.gen_model.default_boxes import tf_default_boxes
from ssdlite_caffe.gen_model.layers import BOXES_LAYER
from ssdlite_caffe.gen_model.netdesc import NetDesc
from ssdlite_caffe.load.boxes import class_predictor_rows, refold_box_predictor, rematch_cell, resized_cell
from ssdlite_caffe.load.layouts import enlarge_kernel
from ssdlite_caffe.load.own_boxes import boxes_layer_blobs, holds_own_boxes, own_priors, sizes_in_cell
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.binary import blob_from_array, blob_shape, blob_to_array, read_caffemodel, write_caffemodel
from ssdlite_caffe.prototxt.shapes import infer
from ssdlite_caffe.runtimes.model_folder import ModelFolder

TRAINED = "train.caffemodel"
PREDICTOR = "_mbox_conf"
"""End of the names of class predictors."""
BOXES = "_mbox_loc"
"""End of the names of box predictors."""

_MOST_LISTED = 20


def write_initial_weights(
    out: Path,
    net: caffe_pb2.NetParameter,
    desc: NetDesc,
    labels: LabelMap,
    source: Path,
    *,
    finetune: bool,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Write the weights of a converted model that fit a train net.

    Args:
        out: caffemodel to write.
        net: the train net.
        desc: description of the train net; its default boxes may differ from the model's, but not their number.
        labels: classes of the train net.
        source: a folder that `convert` wrote.
        finetune: skip the class predictors where the classes differ; they start from the net's fillers.
        say: called with lines for the user, on class predictors that are kept though not all is equal.

    Returns:
        For kit.json: source, number of layers, names of layers that start from fillers and why, the classes that the
        others are for, the model's class ids where they were in another order, and the classes whose names the model
        writes differently.

    Raises:
        PrototxtError: the weights are missing, or do not fit the net.
        LabelMapError: the classes differ, and `finetune` is false.
    """
    model = ModelFolder.open(source)
    path = source / TRAINED
    if not path.is_file():
        raise PrototxtError(f"{source} has no {TRAINED}, the weights with BatchNorm; convert the model again")
    weights = read_caffemodel(path)
    match = match_classes(model.labels, labels)
    if not finetune:
        refuse_other_classes(match, source)
    kept, left = for_classes(_taken(weights, net), match)
    old = build(model.arch)
    own = holds_own_boxes(weights, old), holds_own_boxes(net, desc)
    _set_own_boxes(kept, old, desc, own)
    problems = _change_kernels(kept, net, desc) or misfits(net, caffe_pb2.NetParameter(layer=kept))
    if problems:
        raise PrototxtError(f"{path} does not fit the net:\n  " + "\n  ".join(problems))
    _change_boxes(kept, old, desc, own)
    write_caffemodel(out, caffe_pb2.NetParameter(name=weights.name, layer=kept))
    for line in match.remarks(str(source)):
        say(line)
    return {
        "source": str(source), "layers": len(kept), "left_to_fillers": left,
        "other_classes": match.difference("the model") if left else None, "classes": list(labels.display_names),
        "rows": match.moved, "renamed": [one._asdict() for one in match.respelt] if match.same else [],
    }  # fmt: skip


def _taken(weights: caffe_pb2.NetParameter, net: caffe_pb2.NetParameter) -> list[caffe_pb2.LayerParameter]:
    """Layers of a caffemodel without the blobs of those that take none in the net, at which Caffe would stop.

    A layer that learns nothing has blobs in one dialect, such as a Scale layer, and none in another, a Power layer.
    """
    shapes = infer(net)
    bare = {layer.name for layer in shapes.layers if not layer.params and all(top.shape for top in layer.tops)}
    return [layer for layer in weights.layer if layer.name not in bare or not layer.blobs]


def refuse_other_classes(match: ClassMatch, source: Path) -> None:
    """Refuse to keep the class predictors of a converted model with other classes.

    Raises:
        LabelMapError: the classes differ.
    """
    if match.same:
        return
    if is_unnamed(match.old):
        names = "convert the model again with its label map (--label-map)"
    else:
        names = "where they are the same classes, give the model these names first with `ssdlite-caffe remap`"
    raise LabelMapError(
        f"the class predictors of {source} are for other classes: {match.difference('the model')}; give --finetune to "
        f"start them anew, or {names}"
    )


def for_classes(
    layers: list[caffe_pb2.LayerParameter], match: ClassMatch
) -> tuple[list[caffe_pb2.LayerParameter], list[str]]:
    """Weights of a model for other classes, or for its own in another order.

    Args:
        layers: of a caffemodel; those of class predictors are changed where the order differs.
        match: of the model's classes and those to train for.

    Returns:
        The layers to keep, and the names of the class predictors that are skipped, which is all where a class differs.

    Raises:
        PrototxtError: the outputs of a class predictor are no multiple of the number of classes.
    """
    if not match.same:
        left = [layer.name for layer in layers if layer.name.endswith(PREDICTOR)]
        return [layer for layer in layers if layer.name not in left], left
    if match.moved is not None:
        for layer in layers:
            if layer.name.endswith(PREDICTOR) and layer.blobs:
                _set_blobs(layer, [_moved(blob_to_array(b, layer.name), layer.name, match.moved) for b in layer.blobs])
    return layers, []


def _moved(array: FloatArray, name: str, rows: Sequence[int]) -> FloatArray:
    outputs, classes = array.shape[0], len(rows)
    if outputs % classes:
        raise PrototxtError(f"layer {name!r} has {outputs} outputs, which is no multiple of the {classes} classes")
    return remap_rows(array, outputs // classes, classes, rows)


def _change_kernels(
    layers: Sequence[caffe_pb2.LayerParameter], net: caffe_pb2.NetParameter, desc: NetDesc
) -> list[str]:
    """Write kernels in the sizes of the net's padding dialect, which may be one larger, with zeros first.

    Returns:
        What cannot be written so: kernels whose first row or column is not zero any more, after a training.
    """
    shapes = infer(net).param_shapes
    sizes = {conv.name: conv.kernel for conv in desc.convolutions}
    problems = []
    for layer in layers:
        wanted = shapes.get(layer.name)
        if layer.name not in sizes or not layer.blobs or not wanted:
            continue
        kernel, (high, wide) = blob_to_array(layer.blobs[0], layer.name), sizes[layer.name]
        if kernel.shape[:2] != wanted[0][:2] or kernel.ndim != 4 or kernel.shape == wanted[0]:
            continue
        core = kernel[:, :, max(kernel.shape[2] - high, 0) :, max(kernel.shape[3] - wide, 0) :]
        if np.count_nonzero(core) != np.count_nonzero(kernel):
            problems.append(
                f"layer {layer.name!r} has {kernel.shape[2]}x{kernel.shape[3]} kernels whose first row and column are "
                f"not zero, the net {wanted[0][2]}x{wanted[0][3]} ones; give the --padding that the weights have"
            )
        elif core.shape[2:] == (high, wide):
            layer.blobs[0].CopyFrom(blob_from_array(enlarge_kernel(core, (wanted[0][2], wanted[0][3]))))
    return problems[:_MOST_LISTED]


def _set_own_boxes(layers: list[caffe_pb2.LayerParameter], old: NetDesc, new: NetDesc, own: tuple[bool, bool]) -> None:
    """Give the net's layer of default boxes its numbers, if it has one: the model's, or those of the new net's boxes.

    Args:
        layers: of a caffemodel; changed in place.
        old: description of the model.
        new: description of the net.
        own: whether the predictors of each are for boxes that are held as numbers.
    """
    kept = next((layer for layer in layers if layer.name == BOXES_LAYER), None)
    if not own[1]:
        layers[:] = [layer for layer in layers if layer is not kept]
        return
    same = (old.arch.boxes, old.arch.input_size) == (new.arch.boxes, new.arch.input_size)
    if kept is not None and (same or new.arch.irregular_boxes):
        return
    if kept is None:
        kept = caffe_pb2.LayerParameter(name=BOXES_LAYER, type="InnerProduct")
        layers.append(kept)
    del kept.blobs[:]
    priors = own_priors(tf_default_boxes(new).astype(np.float32), new)
    kept.blobs.extend(blob_from_array(array) for array in boxes_layer_blobs(priors))


def _change_boxes(layers: list[caffe_pb2.LayerParameter], old: NetDesc, new: NetDesc, own: tuple[bool, bool]) -> None:
    """Convert predictors for the default boxes of another net, so that the detections stay the same."""
    named = {layer.name: layer for layer in layers}
    for before, after in zip(old.feature_maps, new.feature_maps, strict=True):
        sizes = (
            sizes_in_cell(before, old.arch.input_size, own=own[0]),
            sizes_in_cell(after, new.arch.input_size, own=own[1]),
        )
        if sizes[0] == sizes[1] and before.prior.variances == after.prior.variances:
            continue
        same = before.prior == after.prior and before.tf_boxes == after.tf_boxes
        match = resized_cell(*sizes) if same else rematch_cell(before.tf_boxes, *sizes)
        boxes, classes = named.get(before.blob + BOXES), named.get(before.blob + PREDICTOR)
        if boxes is not None:
            _set_blobs(boxes, refold_box_predictor(*_kernel_and_bias(boxes), match, before.prior.variances))
        if classes is not None:
            _set_blobs(classes, class_predictor_rows(*_kernel_and_bias(classes), match, old.arch.num_classes, 1.0))


def _kernel_and_bias(layer: caffe_pb2.LayerParameter) -> tuple[FloatArray, FloatArray]:
    kernel, bias = (blob_to_array(blob, layer.name) for blob in layer.blobs)
    return kernel, bias.reshape(-1)


def _set_blobs(layer: caffe_pb2.LayerParameter, arrays: Sequence[FloatArray]) -> None:
    for blob, array in zip(layer.blobs, arrays, strict=True):
        blob.CopyFrom(blob_from_array(array))


def misfits(net: caffe_pb2.NetParameter, weights: caffe_pb2.NetParameter) -> list[str]:
    """What does not fit: layers whose blobs in `weights` have other shapes than in the net, where Caffe would stop."""
    shapes = infer(net).param_shapes
    found = [
        f"layer {layer.name!r} takes blobs of {shapes[layer.name]}, the weights have {given}"
        for layer in weights.layer
        if layer.name in shapes
        and (given := tuple(map(blob_shape, layer.blobs)))
        and given != tuple(map(tuple, shapes[layer.name]))
    ]
    if not found and not any(layer.name in shapes and layer.blobs for layer in weights.layer):
        found = ["no layer has the name of a layer of the net"]
    more = [f"... and {len(found) - _MOST_LISTED} more"] if len(found) > _MOST_LISTED else []
    return found[:_MOST_LISTED] + more


def predicted_classes(layers: dict[str, int]) -> int | None:
    """Number of classes of the class predictors, background included.

    Args:
        layers: name -> num_output.

    Returns:
        None where there are no predictors, or their numbers do not agree.
    """
    counts = set()
    for name, outputs in layers.items():
        boxes = layers.get(name.removesuffix(PREDICTOR) + BOXES, 0) // 4
        if name.endswith(PREDICTOR) and boxes:
            counts.add(outputs / boxes)
    count = counts.pop() if len(counts) == 1 else None
    return int(count) if count is not None and count == int(count) else None
