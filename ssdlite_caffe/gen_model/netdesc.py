"""NetDesc: a net with all numbers computed, and with TensorFlow's and Caffe's name of each layer.

`build` makes it from an ArchSpec, `render` writes it as prototxt, and `load` fills it with weights: only here are
TensorFlow's scopes assigned to Caffe's layers. Sizes are (height, width).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ssdlite_caffe.gen_model.arch import Activation, ArchSpec, Grid

Role = Literal[
    "stem", "expand", "depthwise", "project", "pointwise", "se_reduce", "se_expand", "last", "extra",
    "tower", "head_depthwise", "box_predictor", "class_predictor", "classifier",
]  # fmt: skip


@dataclass(frozen=True)
class Padding:
    """Zeros on each side, as TensorFlow puts them; Caffe's own `pad` is symmetric."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def symmetric(self) -> bool:
        """Whether Caffe's `pad` can express it."""
        return self.top == self.bottom and self.left == self.right


@dataclass(frozen=True)
class ConvDesc:
    """One convolution with what belongs to it: BatchNorm or bias, and activation.

    Attributes:
        name: Caffe layer and top blob (`conv_1/expand`); BatchNorm, Scale and activation layers are
            `<name>/bn`, `<name>/scale`, `<name>/relu`.
        tf_scope: TensorFlow's variable scope (`FeatureExtractor/MobilenetV2/expanded_conv_1/expand`).
        role: what it is for in the net.
        bottom: the blob that it reads.
        kernel, stride, dilation: (height, width).
        group: 1, or in_channels for a depthwise convolution; another number only in narrow nets of an earlier project
            (see `compat.py`).
        padding: zeros on each side, in pixels.
        batch_norm: whether it has a BatchNorm in TensorFlow (and so no bias there).
        activation: what follows it.
        in_size, out_size: (height, width) of the feature maps.
        blob: the top blob, if it is not named as the layer.
        plain: it has neither BatchNorm nor bias: the depthwise part of a separable convolution.
        shares: what the kernel is of that other convolutions have too; empty if it is its own. Weights are in each of
            them; in training they learn one kernel.
    """

    name: str
    tf_scope: str
    role: Role
    bottom: str
    in_channels: int
    num_output: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    group: int
    padding: Padding
    batch_norm: bool
    activation: Activation
    in_size: tuple[int, int]
    out_size: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)
    blob: str = ""
    plain: bool = False
    shares: str = ""

    @property
    def top(self) -> str:
        """The blob that it writes, after the activation."""
        return self.blob or self.name

    @property
    def depthwise(self) -> bool:
        """Whether each channel is convolved on its own."""
        return self.group == self.in_channels > 1

    @property
    def bias(self) -> bool:
        """Whether TensorFlow's convolution has a bias."""
        return not self.batch_norm and not self.plain


@dataclass(frozen=True)
class AddDesc:
    """A residual sum of two blobs of one shape."""

    name: str
    bottoms: tuple[str, str]
    top: str
    channels: int
    size: tuple[int, int]


@dataclass(frozen=True)
class GlobalPoolDesc:
    """The mean over a whole feature map (N x C x 1 x 1)."""

    name: str
    bottom: str
    top: str
    channels: int
    in_size: tuple[int, int]


@dataclass(frozen=True)
class GateDesc:
    """The end of a squeeze-excite: each channel of `bottom` times its value in `gate` (N x C x 1 x 1)."""

    name: str
    bottom: str
    gate: str
    top: str
    channels: int
    size: tuple[int, int]


@dataclass(frozen=True)
class UpsampleDesc:
    """A map of twice the height and width: each value becomes four equal ones (nearest neighbour)."""

    name: str
    bottom: str
    top: str
    channels: int
    in_size: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the map that it writes."""
        return 2 * self.in_size[0], 2 * self.in_size[1]


NodeDesc = ConvDesc | AddDesc | GlobalPoolDesc | GateDesc | UpsampleDesc


@dataclass(frozen=True)
class Section:
    """Nodes under one heading: the stem, a block, an extra layer."""

    title: str
    nodes: tuple[NodeDesc, ...]


@dataclass(frozen=True)
class PriorBoxDesc:
    """Parameters of one Caffe PriorBox layer; sizes in pixels of the network input.

    Caffe's order in a cell, for each min_size: (min, ratio 1), (sqrt(min * max), ratio 1) when there is a max_size,
    then for each aspect_ratio r: r, and 1/r when `flip`. Boxes are at (i + offset) * step.

    Attributes:
        step: (height, width) in pixels from cell to cell; None: input / feature map.
    """

    min_sizes: tuple[float, ...]
    max_sizes: tuple[float, ...]
    aspect_ratios: tuple[float, ...]
    flip: bool
    variances: tuple[float, float, float, float]
    offset: float = 0.5
    step: tuple[float, float] | None = None


@dataclass(frozen=True)
class FeatureMapDesc:
    """One feature map that predictors read.

    Attributes:
        blob: the map; its layers are `<blob>_mbox_loc`, `<blob>_mbox_conf`, `<blob>_mbox_priorbox`.
        index: TensorFlow's BoxPredictor_<index>.
        tf_boxes: (height, width) of the default boxes of a cell as fractions of the input, in TensorFlow's order.
        loc, conf: the predictor's convolutions in order: depthwise and 1x1 for ssdlite, one for ssd.
        grid: see `arch.CellBoxes`.
    """

    blob: str
    index: int
    channels: int
    size: tuple[int, int]
    tf_boxes: tuple[tuple[float, float], ...]
    prior: PriorBoxDesc
    loc: tuple[ConvDesc, ...]
    conf: tuple[ConvDesc, ...]
    grid: Grid | None = None


@dataclass(frozen=True)
class NetDesc:
    """A whole net: the sections of its body, then its feature maps (none for a classifier)."""

    name: str
    arch: ArchSpec
    sections: tuple[Section, ...]
    feature_maps: tuple[FeatureMapDesc, ...]

    @property
    def convolutions(self) -> tuple[ConvDesc, ...]:
        """Every convolution in file order: body, then each map's loc and conf."""
        body = [n for s in self.sections for n in s.nodes if isinstance(n, ConvDesc)]
        heads = [c for m in self.feature_maps for c in (*m.loc, *m.conf)]
        return (*body, *heads)

    @property
    def num_default_boxes(self) -> int:
        """Number of default boxes in all cells of all feature maps."""
        return sum(m.size[0] * m.size[1] * len(m.tf_boxes) for m in self.feature_maps)
