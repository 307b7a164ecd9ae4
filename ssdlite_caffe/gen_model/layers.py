"""Caffe layers with all numbers computed, as `lower` makes them and the templates print them; a class per layer type.

Pairs are (height, width). `templates/layers.j2` has a macro of the same name for each class.
Classes without new fields have no dataclass decorator: it would change nothing, and takes half a millisecond each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ssdlite_caffe.gen_model.dialect import DepthwiseDialect, Engine
from ssdlite_caffe.gen_model.netdesc import PriorBoxDesc

BOXES_LAYER = "mbox_priorbox/boxes"
"""Name of the layer that holds all default boxes as numbers (`--priors constant`)."""


@dataclass(frozen=True, kw_only=True)
class LayerDesc:
    """The fields of every layer.

    Attributes:
        phase: TRAIN or TEST for a layer of one phase only, else empty.
        learning: (lr_mult, decay_mult) of each blob; empty outside of training.
        shared: name of the first blob, for layers that learn one together; empty for others and outside of training.
        constants: the number that fills each blob of a layer that learns nothing, in Caffe's order; empty for others.
            They are written as constant fillers, from which `load/constants.py` makes the caffemodel's blobs.
    """

    name: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    phase: Literal["", "TRAIN", "TEST"] = ""
    learning: tuple[tuple[float, float], ...] = ()
    constants: tuple[float, ...] = ()
    shared: str = ""

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
        layer_type: Convolution, or a fork's own type of depthwise convolutions.
        spread: its dilation does not change what is computed, see `padding.spread_axis`.
        fillers: write weight_filler and bias_filler, for training.
        filler_std: standard deviation of a gaussian weight_filler; 0: an msra filler.
        all_fields: write pad, stride, dilation, group and bias_term even where they have Caffe's defaults.
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
    all_fields: bool = False

    @property
    def type(self) -> str:
        """Caffe's layer type."""
        return self.layer_type


@dataclass(frozen=True, kw_only=True)
class BatchNorm(LayerDesc):
    """Normalises by mean and variance; the Scale layer after it scales and shifts. `frozen`: use_global_stats: true."""

    eps: float
    frozen: bool = False


@dataclass(frozen=True, kw_only=True)
class Scale(LayerDesc):
    """gamma * x + beta for each channel. `fillers`: write filler and bias_filler, for training."""

    fillers: bool


@dataclass(frozen=True, kw_only=True)
class Gate(LayerDesc):
    """A Scale layer with two bottoms: each channel of the first is multiplied by its value in the second (N x C).

    Attributes:
        channels, size: of the first bottom.
    """

    channels: int
    size: tuple[int, int]

    @property
    def type(self) -> str:
        """Caffe's layer type."""
        return "Scale"


@dataclass(frozen=True, kw_only=True)
class ConstantScale(LayerDesc):
    """constants[0] * x + constants[1]: a Scale layer with one bottom, whose blobs hold one number for each channel."""

    constants: tuple[float, float]

    @property
    def type(self) -> str:
        """Caffe's layer type."""
        return "Scale"


@dataclass(frozen=True, kw_only=True)
class Spread(LayerDesc):
    """The one value of each channel, 1 x 1, repeated over a map of `size`: a depthwise Deconvolution of ones.

    Attributes:
        all_fields: see Convolution.
    """

    constants: tuple[float] = (1.0,)
    channels: int
    size: tuple[int, int]
    all_fields: bool = False

    @property
    def type(self) -> str:
        """Caffe's layer type."""
        return "Deconvolution"


@dataclass(frozen=True, kw_only=True)
class Upsample(LayerDesc):
    """Nearest neighbour, twice as high and wide: a depthwise Deconvolution of ones, whose windows do not overlap.

    Each output is one input times 1, so it is exact.

    Attributes:
        all_fields: see Convolution.
    """

    constants: tuple[float] = (1.0,)
    channels: int
    all_fields: bool = False

    @property
    def type(self) -> str:
        """Caffe's layer type."""
        return "Deconvolution"


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
    """Sum or product of two blobs, element by element; `coefficients` are factors of a sum's blobs."""

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
class Interp(LayerDesc):
    """Bilinear resizing to `size`; a layer that only some forks have."""

    size: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Slice(LayerDesc):
    """Cuts a blob along an axis at `points`."""

    axis: int
    points: tuple[int, ...]


class Silence(LayerDesc):
    """Reads blobs that no other layer reads, so that they are not outputs of the net."""


@dataclass(frozen=True, kw_only=True)
class Pad(LayerDesc):
    """Adds zeros on each side; a layer that only some forks have."""

    top: int
    bottom: int
    left: int
    right: int


class Permute(LayerDesc):
    """N x C x H x W to N x H x W x C."""


class Flatten(LayerDesc):
    """Joins all axes after the first into one."""


@dataclass(frozen=True, kw_only=True)
class Reshape(LayerDesc):
    """Changes the shape to `dims`: 0 keeps the size of an axis, -1 takes what is left."""

    dims: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Concat(LayerDesc):
    """Concatenates blobs along an axis."""

    axis: int


class Sigmoid(LayerDesc):
    """1 / (1 + exp(-x))."""


@dataclass(frozen=True, kw_only=True)
class Softmax(LayerDesc):
    """exp(x), normalised along an axis."""

    axis: int


@dataclass(frozen=True, kw_only=True)
class Dropout(LayerDesc):
    """Sets the share `ratio` of the values to 0 in training."""

    ratio: float


@dataclass(frozen=True, kw_only=True)
class PriorBox(LayerDesc):
    """Default boxes of one feature map; `boxes` is their number, in all cells."""

    prior: PriorBoxDesc
    boxes: int


@dataclass(frozen=True, kw_only=True)
class ConstantBoxes(LayerDesc):
    """Default boxes and variances as the bias of an InnerProduct with weights of 0; `num_output`: numbers of these.

    No filler can say them, so they are in the caffemodel alone: see `load/own_boxes.py`.
    """

    num_output: int

    @property
    def type(self) -> str:
        """Caffe's layer type."""
        return "InnerProduct"


@dataclass(frozen=True, kw_only=True)
class DetectionOutput(LayerDesc):
    """Decodes boxes, does NMS for each class, and keeps the best detections of all classes.

    Attributes:
        corners: code_type CORNER: box encodings times variances are added to the default boxes' corners.
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
    """SSD's loss: matching, hard negative mining, smooth L1 for boxes, LOGISTIC or SOFTMAX for classes.

    Attributes:
        loc_weight: factor of the boxes' loss, the sum over the four numbers of a box encoding.
    """

    num_classes: int
    conf_loss_type: Literal["LOGISTIC", "SOFTMAX"]
    loc_weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """network input = (pixel - mean) * scale."""

    mean: float
    scale: float


@dataclass(frozen=True, kw_only=True)
class Input(LayerDesc):
    """The net's input, NCHW."""

    shape: tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class AnnotatedData(LayerDesc):
    """Images with boxes from an LMDB, resized to `size`.

    Attributes:
        augment: with SSD's augmentation.
        zoom: the largest factor by which augmentation shrinks an image.
    """

    source: str
    batch_size: int
    label_map: str
    size: tuple[int, int]
    pixels: Pixels
    augment: bool
    zoom: float


@dataclass(frozen=True, kw_only=True)
class Data(LayerDesc):
    """Images with one label each from an LMDB, cropped to a square; with `mirror`, half of them are flipped."""

    source: str
    batch_size: int
    crop: int
    pixels: Pixels
    mirror: bool


class SoftmaxWithLoss(LayerDesc):
    """Cross entropy of logits."""


class Accuracy(LayerDesc):
    """Share of images whose best class is correct."""


@dataclass(frozen=True)
class LayerSection:
    """Layers under one heading. `shape`: channels x height x width of their output, if that is one map."""

    title: str
    layers: tuple[LayerDesc, ...]
    shape: str = ""


@dataclass(frozen=True)
class LoweredNet:
    """A net for the templates.

    Attributes:
        input_shape: NCHW of the `input` field of the net; None if a layer makes the input.
    """

    name: str
    sections: tuple[LayerSection, ...]
    input_shape: tuple[int, int, int, int] | None
