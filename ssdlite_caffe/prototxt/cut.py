"""The part of a net that computes one blob, as a net of its own that takes the same caffemodel."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ssdlite_caffe.errors import PrototxtError
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.shapes import Phase, default_phase, in_phase
from ssdlite_caffe.prototxt.upgrade import is_old, is_older, upgrade


@dataclass(frozen=True)
class Cut:
    """A net that was cut.

    Attributes:
        net: the layers that the blob depends on, and the inputs that they read.
        blob: the net's output.
        layer: name of the layer that writes it last.
        layers: number of layers, Input layers not counted.
        of: the same of the whole net, in the same phase.
        unread: other tops of the layers that stay; nothing reads them, so a runtime gives them as outputs too.
    """

    net: caffe_pb2.NetParameter
    blob: str
    layer: str
    layers: int
    of: int
    unread: tuple[str, ...]


def cut_net(net: caffe_pb2.NetParameter, name: str, *, at_layer: bool = False, phase: Phase | None = None) -> Cut:
    """Keep of a net what computes one blob.

    Layers keep their names, so the net takes the caffemodel of the whole one: Caffe and OpenCV ignore weights of layers
    that a net does not have.

    Args:
        net: the net; one of the format before 2014 is brought into today's.
        name: a blob, for its value after the last layer that writes it, in place too; or, where no blob has this name,
            a layer, for the value of its first top before later layers change that in place.
        at_layer: `name` is a layer, even if a blob has the same name.
        phase: of the layers that are used; None: that of `default_phase`.

    Raises:
        PrototxtError: the net has no such blob or layer, the blob is an input, or a layer reads a blob that no layer
            before it writes.
    """
    if is_older(net):
        raise PrototxtError("the net has the format of 2013, which is not read; upgrade it with Caffe first")
    if is_old(net):
        net = upgrade(net)
    phase = phase or default_phase(net)
    layers = [layer for layer in net.layer if in_phase(layer, net, phase)]
    last, blob = _place(net, layers, name, at_layer, phase)
    kept, open_ends = _needed(layers, last, blob)
    missing = next((bottom for layer in kept for bottom in layer.bottom if bottom in open_ends - set(net.input)), None)
    if missing is not None:
        reader = next(layer.name for layer in kept if missing in layer.bottom)
        raise PrototxtError(f"layer {reader!r} reads {missing!r}, which no layer before it writes")
    read = {bottom for layer in kept for bottom in layer.bottom}
    made = caffe_pb2.NetParameter()
    made.CopyFrom(net)
    made.ClearField("layer")
    _keep_inputs(made, read)
    for layer in kept:
        made.layer.add().CopyFrom(layer)
        if layer.type == "Input":
            _keep_tops(made.layer[-1], read)
    unread = [top for layer in kept if layer.type != "Input" for top in layer.top if top not in read | {blob}]
    counts = [sum(layer.type != "Input" for layer in some) for some in (kept, layers)]
    return Cut(made, blob, layers[last].name, counts[0], counts[1], tuple(dict.fromkeys(unread)))


def _place(
    net: caffe_pb2.NetParameter, layers: Sequence[caffe_pb2.LayerParameter], name: str, at_layer: bool, phase: Phase
) -> tuple[int, str]:
    """Index of the last layer that stays, and the blob that it writes."""
    by_blob = {top: index for index, layer in enumerate(layers) for top in layer.top if layer.type != "Input"}
    given = {*net.input, *(top for layer in layers if layer.type == "Input" for top in layer.top)}
    named = [index for index, layer in enumerate(layers) if layer.name == name]
    if not at_layer and name in by_blob:
        return by_blob[name], name
    if not at_layer and name in given:
        raise PrototxtError(f"{name!r} is an input of the net; give a blob that a layer computes")
    if len(named) > 1:
        raise PrototxtError(f"{len(named)} layers are named {name!r}; give the name of a blob")
    if named:
        layer = layers[named[0]]
        if layer.type == "Input" or not layer.top:
            raise PrototxtError(f"layer {name!r} ({layer.type}) computes no blob; give another layer")
        return named[0], layer.top[0]
    known = [layer.name for layer in layers] if at_layer else [*by_blob, *(layer.name for layer in layers)]
    what = "layer" if at_layer else "blob or layer"
    raise PrototxtError(f"the net has no {what} named {name!r} in phase {phase}{_nearest(name, known)}")


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name[:80], list(dict.fromkeys(known))[:5000], 1, 0.5)
    return f"; the nearest is {close[0]!r}" if close else ""


def _needed(
    layers: Sequence[caffe_pb2.LayerParameter], last: int, blob: str
) -> tuple[list[caffe_pb2.LayerParameter], set[str]]:
    """The layers that layer `last` depends on, in the net's order, and the blobs that none of them writes in time.

    Going back, a blob is wanted from its reader to the layer that begins it; layers in place between are passed on the
    way, and those that come after its last reader are not.
    """
    wanted, kept = {blob}, []
    for index in range(last, -1, -1):
        layer = layers[index]
        if not wanted.intersection(layer.top):
            continue
        kept.append(layer)
        wanted.difference_update(layer.top)
        wanted.update(layer.bottom)
    return kept[::-1], wanted


def _keep_inputs(net: caffe_pb2.NetParameter, read: Collection[str]) -> None:
    """Drop the net's own inputs that no layer reads, with their shapes."""
    names, shapes, dims = list(net.input), list(net.input_shape), list(net.input_dim)
    places = [place for place, name in enumerate(names) if name in read]
    for field in ("input", "input_shape", "input_dim"):
        net.ClearField(field)
    net.input.extend(names[place] for place in places)
    net.input_shape.extend(shapes[place] for place in places if place < len(shapes))
    net.input_dim.extend(dim for place in places for dim in dims[4 * place : 4 * place + 4])


def _keep_tops(layer: caffe_pb2.LayerParameter, read: Collection[str]) -> None:
    """Drop the tops of an Input layer that no layer reads; one shape may be that of all its tops."""
    tops, shapes = list(layer.top), list(layer.input_param.shape)
    places = [place for place, top in enumerate(tops) if top in read]
    layer.ClearField("top")
    layer.top.extend(tops[place] for place in places)
    if len(shapes) == len(tops):
        del layer.input_param.shape[:]
        layer.input_param.shape.extend(shapes[place] for place in places)
