"""Caffe layers with every number decided: what `lower` makes and the templates print, one class a layer type.

Pairs are (height, width). `templates/layers.j2` has a macro of the same name for each class.
Classes without fields of their own are no dataclasses again: they inherit all, and making one takes half a millisecond.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ssdlite_caffe.gen_model.dialect import DepthwiseDialect, Engine
from ssdlite_caffe.gen_model.netdesc import PriorBoxDesc


@dataclass(frozen=True, kw_only=True)
class LayerDesc:
    """What every layer has.

    Attributes:
        phase: TRAIN or TEST where the layer belongs to one phase only.
        learning: (lr_mult, decay_mult) of each blob; empty where nothing is trained.
    """

    name: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    phase: Literal["", "TRAIN", "TEST"] = ""
    learning: tuple[tuple[float, float], ...] = ()

    @property
    def kind(self) -> str:
        """The macro that prints the layer."""
        return type(self).__name__

    @property
    def type(self) -> str:
        """Caffe's layer type."""
        return self.kind


@dataclass(frozen=True, kw_only=True)
class Convolution(LayerDesc):
    """A convolution.

    Attributes:
        layer_type: Convolution, or a fork's own type for depthwise ones.
        spread: its dilation changes nothing in what is computed, see `padding.spread_axis`.
        fillers: write them, for training.
        filler_std: of normally distributed weights; 0: msra's.
    """

    layer_type: DepthwiseDialect = "Convolution"
    num_output: int
    bias_term: bool
    kernel: tuple[int, int]
    pad: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    spread: bool
    group: int
    engine: Engine
    tf_pad: bool
    fillers: bool
    filler_std: float = 0.0

    @property
    def type(self) -> str:
        """Caffe's layer type."""
        return self.layer_type


@dataclass(frozen=True, kw_only=True)
class BatchNorm(LayerDesc):
    """Statistics; the scale and shift are the Scale layer's that follows. `frozen`: never a batch's own."""

    eps: float
    frozen: bool = False


@dataclass(frozen=True, kw_only=True)
class Scale(LayerDesc):
    """gamma * x + beta for each channel. `fillers`: write them, for training."""

    fillers: bool


class Gate(LayerDesc):
    """A Scale layer of two bottoms: each channel of the first times its number in the second (N x C)."""

    @property
    def type(self) -> str:
        """Caffe's layer type."""
        return "Scale"


class ReLU(LayerDesc):
    """max(x, 0)."""


class ReLU6(LayerDesc):
    """min(max(x, 0), 6), in SSD forks, OpenCV and ncnn."""


@dataclass(frozen=True, kw_only=True)
class Clip(LayerDesc):
    """min(max(x, low), high), in BVLC Caffe."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Power(LayerDesc):
    """(scale * x + shift) ** power."""

    power: float = 1.0
    scale: float = 1.0
    shift: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Eltwise(LayerDesc):
    """Two blobs, element by element; a sum may weigh each."""

    operation: Literal["SUM", "PROD"]
    coefficients: tuple[float, ...] = ()


class Exp(LayerDesc):
    """e to the power of x."""


class GlobalPooling(LayerDesc):
    """The mean over the map."""

    @property
    def type(self) -> str:
        """Caffe's layer type."""
        return "Pooling"


@dataclass(frozen=True, kw_only=True)
class Slice(LayerDesc):
    """Cut along an axis at some points."""

    axis: int
    points: tuple[int, ...]


class Silence(LayerDesc):
    """Takes blobs nobody reads, which would otherwise be outputs of the net."""


@dataclass(frozen=True, kw_only=True)
class Pad(LayerDesc):
    """Zeros on each side, a layer of some forks only."""

    top: int
    bottom: int
    left: int
    right: int


class Permute(LayerDesc):
    """N x C x H x W to N x H x W x C."""


class Flatten(LayerDesc):
    """All axes after the first to one."""


@dataclass(frozen=True, kw_only=True)
class Reshape(LayerDesc):
    """`dims` as Caffe reads them: 0 keeps an axis, -1 takes what is left."""

    dims: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Concat(LayerDesc):
    """Blobs put behind each other along an axis."""

    axis: int


class Sigmoid(LayerDesc):
    """1 / (1 + exp(-x))."""


@dataclass(frozen=True, kw_only=True)
class Softmax(LayerDesc):
    """exp(x), normalised along an axis."""

    axis: int


@dataclass(frozen=True, kw_only=True)
class Dropout(LayerDesc):
    """Zeroes a share of the values in training."""

    ratio: float


@dataclass(frozen=True, kw_only=True)
class PriorBox(LayerDesc):
    """Default boxes of one feature map."""

    prior: PriorBoxDesc


@dataclass(frozen=True, kw_only=True)
class DetectionOutput(LayerDesc):
    """Decoding, NMS for each class, and the best of all.

    Attributes:
        corners: the codes, times the variances, are what to add to the default boxes' corners.
    """

    num_classes: int
    nms_threshold: float
    top_k: int
    keep_top_k: int
    confidence_threshold: float
    corners: bool = False


@dataclass(frozen=True, kw_only=True)
class DetectionEvaluate(LayerDesc):
    """True and false positives for the solver's mAP."""

    num_classes: int
    name_size_file: str


@dataclass(frozen=True, kw_only=True)
class MultiBoxLoss(LayerDesc):
    """Matching, hard negatives, smooth L1 and LOGISTIC or SOFTMAX."""

    num_classes: int
    conf_loss_type: Literal["LOGISTIC", "SOFTMAX"]


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """network input = (pixel - mean) * scale."""

    mean: float
    scale: float


@dataclass(frozen=True, kw_only=True)
class AnnotatedData(LayerDesc):
    """Images with boxes from an LMDB, resized to `size`; `augment` with SSD's, shrinking up to `zoom` times."""

    source: str
    batch_size: int
    label_map: str
    size: tuple[int, int]
    pixels: Pixels
    augment: bool
    zoom: float


@dataclass(frozen=True, kw_only=True)
class Data(LayerDesc):
    """Images with one label each, from an LMDB, cropped to a square; `mirror` half of them."""

    source: str
    batch_size: int
    crop: int
    pixels: Pixels
    mirror: bool


class SoftmaxWithLoss(LayerDesc):
    """Cross entropy of logits."""


class Accuracy(LayerDesc):
    """Share of images whose best class is the right one."""


@dataclass(frozen=True)
class LayerSection:
    """Layers under one heading. `shape`: channels x height x width of what comes out, where that is one map."""

    title: str
    layers: tuple[LayerDesc, ...]
    shape: str = ""


@dataclass(frozen=True)
class LoweredNet:
    """A net as the templates take it; `input_shape` is NCHW, None where a data layer feeds the net."""

    name: str
    sections: tuple[LayerSection, ...]
    input_shape: tuple[int, int, int, int] | None
