"""The types that a family's table is made of, and the lookup of a family by its name.

A family is a module with rows of layers (`mobilenet_v2.py`) that ends in a `Family`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from ssdlite_caffe.errors import ArchError
from ssdlite_caffe.gen_model.arch import FAMILIES, Activation


@dataclass(frozen=True)
class ConvRow:
    """A convolution outside of blocks: the stem, the last 1x1, the classifier's 1x1 after pooling.

    Attributes:
        caffe: layer name.
        tf: variable scope below the family's.
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
    """One block of MobileNetV2 or V3: expand, depthwise, squeeze-excite, project, and a sum if shapes are equal.

    Attributes:
        expansion: inner channels / input channels; without an increase there is no expand layer.
        out: channels before the width multiplier.
        divisible_by: the inner channel count is rounded to a multiple of this.
        inner: inner channels before the width multiplier, in place of `expansion`; 0: from `expansion`.
    """

    expansion: float
    out: int
    kernel: int = 3
    stride: int = 1
    activation: Activation = "relu6"
    squeeze_excite: bool = False
    divisible_by: int = 8
    inner: int = 0


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
    """One family: everything in which its nets differ from those of other families.

    Attributes:
        title: `name` of the prototxt without the head's kind.
        tf_scope: variable scope of the backbone (below FeatureExtractor in a detector).
        detector, classifier: the two bodies, which differ in V3.
        depth: (channels * multiplier, min_depth) -> channels of the body's layers.
        first_map: index of the block whose expand (inverted residual) or output (separable) is the first feature map.
        extra_tf: beginning of TensorFlow's names of the extra layers.
        extra_caffe: format of the extra layers' names, with {part} (1 or 2), {index} (2..5) and {number} (14..17).
        pooled: the classifier's convolution between pooling and logits; None if there is none.
        input_size: side in pixels of the model zoo's detectors, which are square.
        dropout: share of values dropped before the logits in the classifier's training.
        depthwise_caffe: end of the names of a separable block's depthwise layer.
        scaled_extras: whether the width multiplier is applied to the extra layers.
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
    depthwise_caffe: str = "dw"
    scaled_extras: bool = True


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
