"""What a family's table is made of, and the list of families.

A family is one file of rows (`mobilenet_v2.py`) that ends in a `Family`; `family()` finds it by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from ssdlite_caffe.errors import ArchError
from ssdlite_caffe.gen_model.arch import FAMILIES, Activation


@dataclass(frozen=True)
class ConvRow:
    """A convolution of its own: the stem, the last 1x1, the classifier's 1x1 after pooling.

    Attributes:
        caffe, tf: layer name, and variable scope below the family's.
        out: channels before the width multiplier.
    """

    caffe: str
    tf: str
    out: int
    kernel: int = 1
    stride: int = 1
    activation: Activation = "relu6"
    batch_norm: bool = True


@dataclass(frozen=True)
class InvertedResidual:
    """One block of MobileNetV2 or V3: expand, depthwise, squeeze-excite, project, and the sum where shapes agree.

    Attributes:
        expansion: inner channels / input channels; no expand layer where nothing grows.
        out: channels before the width multiplier.
        divisible_by: what the inner channel count is rounded to.
    """

    expansion: float
    out: int
    kernel: int = 3
    stride: int = 1
    activation: Activation = "relu6"
    squeeze_excite: bool = False
    divisible_by: int = 8


@dataclass(frozen=True)
class Separable:
    """One block of MobileNetV1: depthwise 3x3, pointwise 1x1. `out`: channels before the width multiplier."""

    out: int
    stride: int = 1


@dataclass(frozen=True)
class Body:
    """The layers from the image to the last feature map of the backbone."""

    stem: ConvRow
    blocks: tuple[InvertedResidual | Separable, ...]
    last: ConvRow | None = None


@dataclass(frozen=True)
class Family:
    """All that one family adds to the shared builder.

    Attributes:
        title: `name` of the prototxt without the head's kind.
        tf_scope: variable scope of the backbone (below FeatureExtractor in a detector).
        detector, classifier: the two bodies, which differ in V3.
        depth: (channels * multiplier, min_depth) -> channels of the body's layers.
        first_map: block whose expand (inverted residual) or output (separable) is the first feature map.
        extra_tf: what TensorFlow names the extra layers after.
        extra_caffe: names of the extra layers: format of {part} (1 or 2), {index} (2..5) and {number} (14..17).
        pooled: the classifier's convolution between pooling and logits.
        input_size: of the zoo's detector (pixels, square).
        dropout: share dropped before the logits in the classifier's training.
    """

    title: str
    tf_scope: str
    detector: Body
    classifier: Body
    depth: Callable[[float, int], int]
    first_map: int
    extra_tf: str
    extra_caffe: str
    pooled: ConvRow | None = None
    input_size: int = 300
    dropout: float = 0.2


_TABLES = {
    "v1": ("mobilenet_v1", "V1"),
    "v2": ("mobilenet_v2", "V2"),
    "v3-large": ("mobilenet_v3", "LARGE"),
    "v3-small": ("mobilenet_v3", "SMALL"),
    "v3-large-minimalistic": ("mobilenet_v3", "LARGE_MINIMALISTIC"),
    "v3-small-minimalistic": ("mobilenet_v3", "SMALL_MINIMALISTIC"),
}


def family(name: str) -> Family:
    """The table of a family.

    Raises:
        ArchError: no family has that name.
    """
    if name not in _TABLES:
        raise ArchError(f"unknown family {name!r}; known are {', '.join(FAMILIES)}")
    module, variable = _TABLES[name]
    table = getattr(import_module(f"ssdlite_caffe.gen_model.{module}"), variable)
    assert isinstance(table, Family)
    return table
