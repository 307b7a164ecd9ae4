"""The description of a detector from which every net is built.

An ArchSpec has everything that a net computes, and nothing of how it is written for a runtime (see `dialect.py`). It is
made from the options of `gen`, or from a TensorFlow model (see `load/recognise.py`).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from ssdlite_caffe.errors import ArchError
from ssdlite_caffe.resizer import Resizer

FamilyName = Literal["v1", "v2", "v3-large", "v3-small", "v3-large-minimalistic", "v3-small-minimalistic"]
Version = Literal["1", "2", "3-large", "3-small", "3-large-minimalistic", "3-small-minimalistic"]
"""The names of the families on the command line, in the order of `FamilyName`."""
HeadKind = Literal["ssdlite", "ssd", "fpnlite"]
ScoreConverter = Literal["sigmoid", "softmax"]
Activation = Literal["relu6", "relu", "hard_swish", "hard_sigmoid", "none"]
"""hard_sigmoid is the squeeze-excite gate, relu6(x + 3) * gate_scale."""

Residuals = Literal["tf1", "tf2"]
"""Which blocks of stride 1 end in a residual sum. tf1: those with as many output as input channels. tf2: those with as
many output channels before `min_depth` is applied, as in Keras applications' MobileNetV2, so that the first block of a
narrow net has no sum. Conv_1 is that of Keras too then: no width multiplier makes it wider than 1280.
"""
CompatName = Literal["mobilenetv2-ssdlite", "mobilenetv2-ssdlite-pinto0309", "mobilenet-ssd", "mobilenet-ssd-template"]
"""An earlier public project whose layers are written; see `compat.py`."""
FAMILIES: tuple[FamilyName, ...] = (
    "v1", "v2", "v3-large", "v3-small", "v3-large-minimalistic", "v3-small-minimalistic",
)  # fmt: skip


MAX_CLASSES = 1_000_000
"""More than any data set has; the outputs of six boxes per cell still fit Caffe's int."""
LEAST_SCORE = 1e-8
"""The score threshold with which the Object Detection API evaluates; every detection counts."""
_LOW_SCORE = 0.01
"""The highest score threshold that hardly changes an average precision.

Measured, a V2-SSDLite of 3 classes on 36 images: COCO's AP is the same with 0.01 as with 1e-8, and lower by 0.0001 with
0.02, 0.0015 with 0.05, 0.025 with 0.3.
"""
_MAX_COUNT = 2**31 - 1
_MAX_PIXEL = 1e6


Grid = tuple[tuple[float, float], tuple[float, float]]
"""(height, width) from cell to cell, and (y, x) of the first cell's boxes, as fractions of the input."""


@dataclass(frozen=True)
class CellBoxes:
    """The default boxes of one feature map: the same in each of its cells, on the centre of the cell.

    Attributes:
        sizes: their (height, width) as fractions of the input's height and width, in TensorFlow's order.
        grid: where they are, if not on the centres of cells: ((height, width) from cell to cell, (y, x) of the first
            box's centre), as fractions of the input.
    """

    sizes: tuple[tuple[float, float], ...]
    grid: Grid | None = None


@dataclass(frozen=True)
class Pyramid:
    """The feature pyramid of an FPNLite detector, and the tower before its predictors.

    Attributes:
        min_level, max_level: of the maps that predictors read; a map of level n is 2**n times smaller than the input.
        channels: of the pyramid's maps, after the width multiplier.
        depthwise: whether the pyramid's 3x3 convolutions are separable (FPNLite) or full (FPN).
        batch_norm: whether they have a BatchNorm; else a bias.
        tower_layers: convolutions before the predictors.
        tower_channels: of each of them.
        shared_tower: one tower for boxes and classes, or one for each.
        predictor_depthwise: whether tower and predictors are separable.
        tower_batch_norm: as `batch_norm`; each feature map has its own.

    Raises:
        ArchError: a value is out of range.
    """

    min_level: int = 3
    max_level: int = 7
    channels: int = 128
    depthwise: bool = True
    batch_norm: bool = True
    tower_layers: int = 4
    tower_channels: int = 128
    shared_tower: bool = True
    predictor_depthwise: bool = True
    tower_batch_norm: bool = True

    def __post_init__(self) -> None:
        if not 2 <= self.min_level <= min(self.max_level, _TOP_LEVEL) or self.max_level > _MOST_LEVEL:
            raise ArchError(
                f"levels of a feature pyramid must be 2..{_TOP_LEVEL} for the finest and up to {_MOST_LEVEL} for the "
                f"coarsest, got {self.min_level} to {self.max_level}"
            )
        if min(self.channels, self.tower_channels) < 1 or not 0 <= self.tower_layers <= _MOST_TOWER_LAYERS:
            raise ArchError(
                f"a feature pyramid must have at least 1 channel and 0..{_MOST_TOWER_LAYERS} tower layers, got "
                f"{self.channels}, {self.tower_channels} and {self.tower_layers}"
            )

    @property
    def backbone_maps(self) -> int:
        """How many maps are of the backbone; they are its last ones, also where `max_level` is below 5."""
        return min(self.max_level, _TOP_LEVEL) + 1 - self.min_level

    @property
    def coarse_maps(self) -> int:
        """How many maps follow behind the backbone's."""
        return max(self.max_level - _TOP_LEVEL, 0)


_TOP_LEVEL = 5
"""The backbone's coarsest level."""
_MOST_LEVEL = 12
_MOST_TOWER_LAYERS = 64


def matters(score_threshold: float) -> bool:
    """Whether a score threshold makes an average precision noticeably lower."""
    return score_threshold > _LOW_SCORE


@dataclass(frozen=True)
class Nms:
    """Non-maximum suppression: how detections are chosen from boxes and scores.

    TensorFlow's order: keep boxes with a score above `score_threshold`; drop boxes that overlap a better one of the
    same class by more than `iou_threshold`; keep `max_per_class` of each class; clip to the image; keep the best
    `max_total`.

    Attributes:
        iou_threshold: 0 to 1.
        score_threshold: a finite number.
        max_per_class, max_total: 1 or more.
        clip_first: clip to the image before suppression, as graphs exported early in 2018 do.
        top_k: limit of candidates per class before suppression; None: no limit, as in TensorFlow.
        keep_empty: with `clip_first`, whether boxes without area in the image count in the limits, as in torchvision;
            False: they are dropped before suppression. They are no detections in any case.

    Raises:
        ArchError: a value is out of range.
    """

    iou_threshold: float = 0.6
    score_threshold: float = LEAST_SCORE
    max_per_class: int = 100
    max_total: int = 100
    clip_first: bool = False
    top_k: int | None = None
    keep_empty: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.iou_threshold <= 1:
            raise ArchError(f"IoU threshold must be in 0..1, got {self.iou_threshold}")
        if not math.isfinite(self.score_threshold):
            raise ArchError(f"score threshold must be a finite number, got {self.score_threshold}")
        for name, count in ("max_per_class", self.max_per_class), ("max_total", self.max_total), ("top_k", self.top_k):
            if count is not None and not (isinstance(count, int) and 1 <= count <= _MAX_COUNT):
                raise ArchError(f"{name} must be a whole number in 1..{_MAX_COUNT}, got {str(count)[:20]}")


@dataclass(frozen=True)
class ArchSpec:
    """One detector (or classifier).

    Attributes:
        family: the family of its backbone.
        head: ssdlite has depthwise-separable predictors and extra layers, ssd full convolutions; fpnlite has a feature
            pyramid, and predictors behind a tower whose kernels are the same for all maps.
        extra_depthwise: whether the extra layers are depthwise-separable; None: as the predictors are. A
            pipeline.config has one switch for each: the model zoo's `ssd_mobilenet_v2_coco_2018_03_29` has full
            predictors and separable extra layers.
        num_classes: counts background (COCO 91, VOC 21); for a classifier, the number of outputs.
        input_size: (height, width) in pixels, 1 to 8192.
        width_multiplier: TensorFlow's depth_multiplier, above 0 and at most 16.
        min_depth: least channel count of extra layers (and of MobileNetV1's).
        classifier: build the ImageNet classifier and not the detector.
        explicit_padding: TensorFlow's use_explicit_padding: (k - 1) // 2 on every side, then VALID.
        head_kernel: kernel size in pixels a side: of the depthwise part for ssdlite, of the whole predictor for ssd.
        extra_activation: activation of the extra layers and of the depthwise part of the heads.
        batch_norm_epsilon: of BatchNorm layers; when weights are loaded, other epsilons are folded into the variance.
        gate_scale: the constant of the squeeze-excite gate (0.16667 in TensorFlow's graphs, not 1/6).
        residuals: which of V2's blocks end in a residual sum; see Residuals.
        pixel_mean, pixel_scale: network input = (pixel - pixel_mean) * pixel_scale, for every channel.
        full_tail: whether a MobileNetV3 detector's last blocks have the classifier's channels, and not half of them.
        code_limit: the most that width and height of a box encoding may be after their multiplication by the variance,
            before exp; None: any number.
        irregular_boxes: in which way the model's default boxes are not the same on the centre of each cell, as a
            sentence; empty if they are. The boxes themselves are in the model, and in the weights of a converted net.
        pyramid: of fpnlite heads; None for others.
        resizer: how images are resized to the input size; a letterbox's input is a square of its max_dimension.
        boxes: default boxes of each feature map; empty for a classifier. With `irregular_boxes` typical sizes, for
            their number and their order in a cell.
        variances: box-coder variances (x, y, width, height): 1 / TensorFlow's scales.
        score_converter: how class logits become scores.
        nms: see Nms.
        compat: the earlier project that the names and channel counts of layers are taken from; None: TensorFlow's
            channel counts, and our names. See `compat.py`.

    Raises:
        ArchError: a value is out of range.
    """

    family: FamilyName
    num_classes: int
    input_size: tuple[int, int]
    head: HeadKind = "ssdlite"
    width_multiplier: float = 1.0
    min_depth: int = 16
    classifier: bool = False
    explicit_padding: bool = False
    head_kernel: int = 3
    extra_activation: Activation = "relu6"
    batch_norm_epsilon: float = 1e-3
    gate_scale: float = 0.16667
    extra_depthwise: bool | None = None
    residuals: Residuals = "tf1"
    pixel_mean: float = 127.5
    pixel_scale: float = 1 / 127.5
    boxes: tuple[CellBoxes, ...] = ()
    variances: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2)
    score_converter: ScoreConverter = "sigmoid"
    nms: Nms = field(default_factory=Nms)
    compat: CompatName | None = None
    resizer: Resizer = field(default_factory=Resizer)
    irregular_boxes: str = ""
    pyramid: Pyramid | None = None
    full_tail: bool = False
    code_limit: float | None = None

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ArchError(f"unknown family {self.family!r}; known are {', '.join(FAMILIES)}")
        if self.compat not in (None, *get_args(CompatName)):
            raise ArchError(f"compat must be one of {', '.join(get_args(CompatName))}, got {self.compat!r}")
        least, counts = (1, "") if self.classifier else (2, " (it counts background)")
        if self.num_classes < least:
            raise ArchError(f"class count must be at least {least}{counts}, got {self.num_classes}")
        if self.num_classes > MAX_CLASSES:
            raise ArchError(f"class count must be at most {MAX_CLASSES}, got {self.num_classes}")
        if min(self.input_size) < 1 or max(self.input_size) > 8192:
            raise ArchError(f"input size must be in 1..8192 pixels, got {self.input_size[0]}x{self.input_size[1]}")
        if not (math.isfinite(self.width_multiplier) and 0 < self.width_multiplier <= 16):
            raise ArchError(f"width multiplier must be above 0 and at most 16, got {self.width_multiplier}")
        if not all(math.isfinite(v) and v > 0 for v in (*self.variances, self.pixel_scale)):
            raise ArchError(f"variances and pixel scale must be positive, got {(*self.variances, self.pixel_scale)}")
        if not abs(self.pixel_mean) <= _MAX_PIXEL:
            raise ArchError(f"pixel mean must be within -{_MAX_PIXEL:g}..{_MAX_PIXEL:g}, got {self.pixel_mean}")
        if not (math.isfinite(self.gate_scale) and self.gate_scale > 0):
            raise ArchError(f"constant of squeeze-excite gates must be positive, got {self.gate_scale}")
        if (self.head == "fpnlite") != (self.pyramid is not None) or (self.pyramid and self.classifier):
            raise ArchError("a detector with fpnlite heads has a feature pyramid, no other net has one")
        if self.pyramid is not None and self.family != "v2":
            raise ArchError(f"a feature pyramid is for the family v2, got {self.family}")
        if self.full_tail and not self.is_v3:
            raise ArchError(f"only a MobileNetV3 has a full tail, not a {self.family}")
        if self.code_limit is not None and not (math.isfinite(self.code_limit) and self.code_limit > 0):
            raise ArchError(f"the limit of box encodings must be positive, got {self.code_limit}")
        side = self.resizer.max_dimension
        if self.resizer.letterboxes and self.input_size != (side, side):
            raise ArchError(
                f"input size of a letterbox must be a square of its max_dimension, {side}x{side}, got "
                f"{self.input_size[0]}x{self.input_size[1]}"
            )

    @property
    def separable_extras(self) -> bool:
        """Whether the extra layers are depthwise-separable."""
        return self.head == "ssdlite" if self.extra_depthwise is None else self.extra_depthwise

    @property
    def is_v3(self) -> bool:
        """Whether the family is a MobileNetV3."""
        return self.family.startswith("v3")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, which `from_dict` reads.

        It is without fields that are newer than the first files, where they are the usual ones.

        So files that were written before there were these fields have the same content.
        """
        data = dataclasses.asdict(self)
        if self.compat is None:
            del data["compat"]
        if self.resizer.plain:
            del data["resizer"]
        if not self.irregular_boxes:
            del data["irregular_boxes"]
        if self.pyramid is None:
            del data["pyramid"]
        for cell in data["boxes"]:
            if cell["grid"] is None:
                del cell["grid"]
        if not self.full_tail:
            del data["full_tail"]
        if self.code_limit is None:
            del data["code_limit"]
        if not self.nms.keep_empty:
            del data["nms"]["keep_empty"]
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ArchSpec:
        """Inverse of `to_dict`.

        Raises:
            ArchError: a key is unknown or missing, or a value has the wrong type or is out of range.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        unknown = sorted(set(data) - known)
        if unknown:
            raise ArchError(f"unknown architecture fields: {', '.join(unknown)}")
        try:
            values = dict(data)
            values["input_size"] = _pair(values["input_size"])
            values["boxes"] = tuple(
                CellBoxes(tuple((float(h), float(w)) for h, w in cell["sizes"]), _grid(cell.get("grid")))
                for cell in values.get("boxes", ())
            )
            if values.get("pyramid") is not None:
                values["pyramid"] = Pyramid(**dict(values["pyramid"]))
            if "variances" in values:
                x, y, w, h = (float(v) for v in values["variances"])
                values["variances"] = (x, y, w, h)
            if "nms" in values:
                values["nms"] = Nms(**dict(values["nms"]))
            if "resizer" in values:
                values["resizer"] = Resizer.from_dict(values["resizer"])
            return cls(**values)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ArchError(f"not an architecture: {type(error).__name__}: {error}") from error


def _grid(value: Any) -> Grid | None:
    if value is None:
        return None
    (high, wide), (y, x) = value
    return (float(high), float(wide)), (float(y), float(x))


def _pair(value: Any) -> tuple[int, int]:
    height, width = value
    return int(height), int(width)
