"""What a rule for a layer type is: from a layer and the shapes of its bottoms to the tops and the learned blobs.

A rule's function returns an Outcome, or raises ShapeError with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.sizes import Shape, ShapeError, show

Layer = caffe_pb2.LayerParameter


@dataclass(frozen=True)
class Outcome:
    """The result of a rule.

    Attributes:
        tops: shape of each top; None where it depends on the data.
        params: shapes of the blobs that the layer learns, in Caffe's order.
        multiply_adds: of convolutions and inner products, without biases; 0 for other layers.
    """

    tops: tuple[Shape | None, ...]
    params: tuple[Shape, ...] = ()
    multiply_adds: int = 0


@dataclass(frozen=True)
class Rule:
    """How the shapes of one layer type are computed.

    Attributes:
        shape: the rule itself.
        bottoms, tops: least and greatest count.
        in_place: whether a top may be the bottom itself.
    """

    shape: Callable[[Layer, Sequence[Shape]], Outcome]
    bottoms: tuple[int, int] = (1, 1)
    tops: tuple[int, int] = (1, 1)
    in_place: bool = False


MANY = 10**6


def need_axes(shape: Shape, least: int, greatest: int) -> None:
    """Raise ShapeError unless a bottom has that many axes."""
    if not least <= len(shape) <= greatest:
        wanted = str(least) if least == greatest else f"{least} to {greatest}"
        raise ShapeError(f"the bottom must have {wanted} axes, got {show(shape)}")


def need_equal(bottoms: Sequence[Shape]) -> None:
    """Raise ShapeError unless all bottoms have one shape."""
    if any(shape != bottoms[0] for shape in bottoms):
        raise ShapeError("bottoms have different shapes: " + ", ".join(show(shape) for shape in bottoms[:8]))


def same(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    """Tops of the shape of the first bottom."""
    return Outcome((bottoms[0],) * len(layer.top))


def nothing(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    """No tops."""
    return Outcome(())


def unknown(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    """Tops whose shapes are not computed."""
    return Outcome((None,) * len(layer.top))
