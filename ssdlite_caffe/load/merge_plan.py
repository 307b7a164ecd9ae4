"""Which BatchNorm, Scale and Bias layers can be folded into which layer before them, by the net's graph alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ssdlite_caffe.errors import PrototxtError
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.rules import CONVOLUTIONS
from ssdlite_caffe.prototxt.rules_opencv import infer_for_any
from ssdlite_caffe.prototxt.shapes import NetShapes, in_phase

Layer = caffe_pb2.LayerParameter

TARGETS = frozenset({*CONVOLUTIONS, "Deconvolution", "InnerProduct"})
"""Layer types that a scale and an offset for each channel can be folded into."""

_HARMLESS = frozenset({"unknown-type", "input"})
"""Errors of `infer` with a net that can be folded all the same: a fork's layers, and inputs without a shape."""
_MOST_LISTED = 5


@dataclass(frozen=True)
class Plan:
    """How a net's BatchNorms are folded.

    Attributes:
        net: the layers of the TEST phase that remain, without blobs and learning rates.
        folds: (target, layer): each layer that is folded away, in order, and what it is folded into.
        kept: why a BatchNorm cannot be folded, one text for each that stays.
        train_only: names of layers that are for TRAIN alone.
    """

    net: caffe_pb2.NetParameter
    folds: tuple[tuple[Layer, Layer], ...]
    kept: tuple[str, ...]
    train_only: tuple[str, ...]


def plan_folds(net: caffe_pb2.NetParameter, *, keep_rest: bool = False) -> Plan:
    """Find what each BatchNorm is folded into, and the Scale and Bias layers that belong to it.

    A BatchNorm belongs to the convolution (or Deconvolution, or InnerProduct) before it. Layers between them must leave
    values as they are and take whole channels along: Slice and Crop of other axes, Dropout (which does nothing in a
    TEST net), Split, and Scale and Bias layers, which are folded, too. Nothing else may read what the BatchNorm reads.

    Args:
        net: any net; it is not changed.
        keep_rest: leave a BatchNorm that cannot be folded where it is.

    Raises:
        PrototxtError: Caffe cannot set up the net in its TEST phase, or a BatchNorm cannot be folded and `keep_rest` is
            false; up to five are named.
    """
    shapes = infer_for_any(net, phase="TEST")
    _check_net(net, shapes)
    axes = {blob: len(shape) for blob, shape in shapes.blobs.items() if shape is not None}
    graph = _Graph([_copy(layer) for layer in net.layer if in_phase(layer, net, "TEST")], axes)
    folds: list[tuple[Layer, Layer]] = []
    kept = []
    for norm in [layer for layer in graph.layers if layer.type == "BatchNorm"]:
        try:
            target, between = graph.trace(norm)
            _check_statistics(norm)
        except _Unfoldable as reason:
            kept.append(f"BatchNorm {norm.name!r} cannot be folded: {reason}")
            continue
        after = graph.plain_after(norm)
        for layer in (*between, norm, *after):
            graph.remove(layer)
            folds.append((target, layer))
        if target.type == "InnerProduct":
            target.inner_product_param.bias_term = True
        else:
            target.convolution_param.bias_term = True
    if kept and not keep_rest:
        more = f"; and {len(kept) - _MOST_LISTED} more" if len(kept) > _MOST_LISTED else ""
        raise PrototxtError("; ".join(kept[:_MOST_LISTED]) + more)
    merged = caffe_pb2.NetParameter()
    merged.CopyFrom(net)
    del merged.layer[:]
    merged.layer.extend(graph.layers)
    gone = tuple(layer.name for layer in net.layer if not in_phase(layer, net, "TEST"))
    return Plan(merged, tuple(folds), tuple(kept), gone)


def _check_net(net: caffe_pb2.NetParameter, shapes: NetShapes) -> None:
    """Raise PrototxtError for a net that has no TEST phase, or that Caffe cannot set up."""
    error = next((problem for problem in shapes.errors if problem.kind not in _HARMLESS), None)
    if error is None:
        return
    others = [layer for layer in net.layer if not in_phase(layer, net, "TEST")]
    lost = {top for layer in others for top in layer.top}
    if error.layer is not None and lost.intersection(net.layer[error.layer].bottom):
        named = ", ".join(f"{layer.name} ({layer.type})" for layer in others[:_MOST_LISTED])
        raise PrototxtError(
            f"this is a train net: without the layers that are for TRAIN alone ({named}) layer "
            f"{net.layer[error.layer].name!r} has nothing to read; give the test or deploy net"
        )
    place = "" if error.layer is None else f"layer {net.layer[error.layer].name!r}: "
    raise PrototxtError(f"{place}{error.text}")


def _copy(layer: Layer) -> Layer:
    copy = Layer()
    copy.CopyFrom(layer)
    del copy.blobs[:], copy.param[:]  # `param` has learning rates, and names of shared blobs, as before folding
    return copy


class _Unfoldable(Exception):  # noqa: N818 - a reason, which is never seen outside
    """Why a BatchNorm cannot be folded."""


def _check_statistics(norm: Layer) -> None:
    param = norm.batch_norm_param
    if param.HasField("use_global_stats") and not param.use_global_stats:
        raise _Unfoldable(
            "it has use_global_stats: false, so it uses each batch's own statistics; remove the field to fold those of "
            "the training"
        )


@dataclass
class _Graph:
    """The layers of a net, of which some are removed; `axes` are the counts of axes of blobs, where they are known."""

    layers: list[Layer]
    axes: Mapping[str, int]

    def trace(self, norm: Layer) -> tuple[Layer, list[Layer]]:
        """The layer that a BatchNorm is folded into, and the Scale and Bias layers between the two, in order.

        Raises:
            _Unfoldable: there is none.
        """
        between: list[Layer] = []
        at, blob = self._place(norm), norm.bottom[0] if norm.bottom else ""
        while True:
            writer = next((i for i in range(at - 1, -1, -1) if blob in self.layers[i].top), None)
            if writer is None:
                raise _Unfoldable(f"it must follow a convolution, and {blob!r} comes from outside of the net")
            layer = self.layers[writer]
            self._check_only_reader(writer, blob, at)
            if layer.type in TARGETS:
                _check_target(layer)
                return layer, between
            if self._is_plain(layer):
                between.insert(0, layer)
            else:
                self._check_carrier(writer, blob)
            at, blob = writer, layer.bottom[0]

    def plain_after(self, norm: Layer) -> list[Layer]:
        """The Scale and Bias layers right behind a BatchNorm, each the only reader of what is before it."""
        found: list[Layer] = []
        layer = norm
        while True:
            place = self._place(layer)
            readers = self._readers(place, layer.top[0]) if layer.top else []
            if len(readers) != 1 or not self._is_plain(self.layers[readers[0]]):
                return found
            layer = self.layers[readers[0]]
            found.append(layer)

    def remove(self, layer: Layer) -> None:
        """Remove a layer; what it read gets the name of what it wrote, so that outputs keep their names.

        In a net whose blobs have the names of the layers that write them, what it wrote gets the name of what it read,
        unless it is an output.
        """
        bottom, top = layer.bottom[0], layer.top[0]
        place = self._place(layer)
        writer = next((other for other in reversed(self.layers[:place]) if bottom in other.top), None)
        if writer is not None and (writer.name, layer.name) == (bottom, top) and self._readers(place, top):
            bottom, top = top, bottom
        del self.layers[place]
        for other in self.layers if bottom != top else ():
            for blobs in (other.bottom, other.top):
                for place, blob in enumerate(blobs):
                    if blob == bottom:
                        blobs[place] = top

    def _place(self, layer: Layer) -> int:
        return next(i for i, other in enumerate(self.layers) if other is layer)

    def _readers(self, writer: int, blob: str) -> list[int]:
        """Places of layers that read the values that `writer` wrote, before another layer overwrites them."""
        found = []
        for i in range(writer + 1, len(self.layers)):
            if any(name == blob and _reads_values(self.layers[i], n) for n, name in enumerate(self.layers[i].bottom)):
                found.append(i)
            if blob in self.layers[i].top:
                break
        return found

    def _is_plain(self, layer: Layer) -> bool:
        """Whether it multiplies each channel by a learned number, or adds one, and reads no other blob."""
        if layer.type not in ("Scale", "Bias") or len(layer.bottom) != 1 or len(layer.top) != 1:
            return False
        param = layer.scale_param if layer.type == "Scale" else layer.bias_param
        axis = param.axis if param.axis >= 0 else param.axis + self.axes.get(layer.bottom[0], 0)
        return axis == 1 and param.num_axes == 1

    def _check_only_reader(self, writer: int, blob: str, reader: int) -> None:
        other = next((i for i in self._readers(writer, blob) if i != reader), None)
        if other is not None:
            raise _Unfoldable(
                f"it must follow a convolution that no other layer reads, and layer {self.layers[other].name!r} reads "
                f"{blob!r}, too"
            )

    def _check_carrier(self, place: int, blob: str) -> None:
        """Check that a layer gives `blob` the values of its first bottom, whole channels of them, and nobody else."""
        layer = self.layers[place]
        whole = _CARRIERS.get(layer.type)
        if whole is None or not whole(layer, self.axes.get(layer.bottom[0]) if layer.bottom else None):
            loses = ", which does not keep whole channels" if whole is not None else ""
            raise _Unfoldable(
                f"it must follow a convolution, and it reads what layer {layer.name!r} of type {layer.type} "
                f"makes{loses}"
            )
        for top in layer.top:
            if top != blob:
                self._check_only_reader(place, top, place)


def _check_target(layer: Layer) -> None:
    axis = layer.inner_product_param.axis if layer.type == "InnerProduct" else layer.convolution_param.axis
    if len(layer.bottom) != 1 or len(layer.top) != 1:
        raise _Unfoldable(f"layer {layer.name!r} before it has several bottoms or tops with the same weights")
    if axis != 1:
        raise _Unfoldable(f"layer {layer.name!r} before it has its outputs on axis {axis}, a BatchNorm's are on axis 1")


def _reads_values(layer: Layer, bottom: int) -> bool:
    """Whether a layer's result depends on the values of a bottom, not only on its shape."""
    return layer.type not in ("PriorBox", "Silence") and not (layer.type == "Crop" and bottom == 1)


def _spatial(axis: int, axes: int | None) -> bool:
    """Whether an axis is neither that of the channels nor unknown."""
    return (axis if axis >= 0 else -1 if axes is None else axis + axes) not in (-1, 1)


def _slice_is_whole(layer: Layer, axes: int | None) -> bool:
    param = layer.slice_param
    return _spatial(param.slice_dim if param.HasField("slice_dim") else param.axis, axes)


def _crop_is_whole(layer: Layer, axes: int | None) -> bool:
    """A Crop cuts its axis and all behind it."""
    axis = layer.crop_param.axis
    return (axis if axis >= 0 else axis + (axes or 0)) >= 2


_CARRIERS: dict[str, Callable[[Layer, int | None], bool]] = {
    "Slice": _slice_is_whole,
    "Crop": _crop_is_whole,
    "Dropout": lambda layer, axes: True,
    "Split": lambda layer, axes: True,
}
"""Layer types that may lie between a convolution and its BatchNorm, and whether they keep whole channels."""
