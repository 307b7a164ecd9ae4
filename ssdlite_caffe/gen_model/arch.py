"""What a detector is, before any layer is named: the frozen description from which every net is built.

An ArchSpec says all that the files made from it depend on, and nothing of how they are written (see `dialect.py`).
It comes from the options of `gen`, or from a TensorFlow model (see `load/recognise.py`).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from ssdlite_caffe.errors import ArchError

FamilyName = Literal["v1", "v2", "v3-large", "v3-small", "v3-large-minimalistic", "v3-small-minimalistic"]
Version = Literal["1", "2", "3-large", "3-small", "3-large-minimalistic", "3-small-minimalistic"]
"""The same families, in the same order, as the command line writes them."""
HeadKind = Literal["ssdlite", "ssd"]
ScoreConverter = Literal["sigmoid", "softmax"]
Activation = Literal["relu6", "relu", "hard_swish", "hard_sigmoid", "none"]
"""hard_sigmoid is the squeeze-excite gate, relu6(x + 3) * gate_scale."""

Residuals = Literal["tf1", "tf2"]
"""tf1: a block of stride 1 ends in a sum where its output has as many channels as its input. tf2: where it has as many
before a least depth makes more of them, as in Keras applications' MobileNetV2: a narrow net's first block has none.
"""
FAMILIES: tuple[FamilyName, ...] = (
    "v1", "v2", "v3-large", "v3-small", "v3-large-minimalistic", "v3-small-minimalistic",
)  # fmt: skip


MAX_CLASSES = 1_000_000
"""Far above any data set, and six predictors of a cell still fit Caffe's int."""
_MAX_COUNT = 2**31 - 1
_MAX_PIXEL = 1e6


@dataclass(frozen=True)
class CellBoxes:
    """The default boxes of one feature map, the same in each of its cells, centred in the cell.

    `sizes` holds (height, width) as fractions of the input's height and width, in TensorFlow's order.
    """

    sizes: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Nms:
    """What turns boxes and scores into detections.

    TensorFlow's order: keep scores above `score_threshold`, suppress per class what overlaps a better box by more
    than `iou_threshold`, keep `max_per_class` a class, clip to the image, then the best `max_total`.

    Attributes:
        clip_first: clip to the image before suppression, as graphs written early in 2018 do.
        top_k: Caffe's cut of candidates before suppression; None lets every box through, as TensorFlow does.
    """

    iou_threshold: float = 0.6
    score_threshold: float = 1e-8
    max_per_class: int = 100
    max_total: int = 100
    clip_first: bool = False
    top_k: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.iou_threshold <= 1:
            raise ArchError(f"boxes overlap by 0 to 1, so {self.iou_threshold} is no threshold for it")
        if not math.isfinite(self.score_threshold):
            raise ArchError(f"a score threshold of {self.score_threshold} is none")
        for name, count in ("max_per_class", self.max_per_class), ("max_total", self.max_total), ("top_k", self.top_k):
            if count is not None and not (isinstance(count, int) and 1 <= count <= _MAX_COUNT):
                raise ArchError(f"{name} is {str(count)[:20]}; detections are counted from 1 to {_MAX_COUNT}")


@dataclass(frozen=True)
class ArchSpec:
    """One detector (or classifier).

    Attributes:
        family: which table of blocks.
        head: ssdlite has depthwise-separable predictors and extra layers, ssd full convolutions.
        extra_depthwise: whether the extra layers are depthwise-separable; None: as the predictors are. The two are
            switches of their own in a pipeline.config: the zoo's `ssd_mobilenet_v2_coco_2018_03_29` has full predictors
            behind separable extra layers.
        num_classes: counts background (COCO 91, VOC 21); for a classifier, the number of outputs.
        input_size: (height, width) in pixels.
        width_multiplier: TensorFlow's depth_multiplier.
        min_depth: least channel count of extra layers (and of MobileNetV1's).
        classifier: the ImageNet net in place of the detector.
        explicit_padding: TensorFlow's use_explicit_padding: (k - 1) // 2 on every side, then VALID.
        head_kernel: kernel of the predictors: depthwise part for ssdlite, whole predictor for ssd.
        extra_activation: what follows the extra layers and the depthwise part of the heads.
        batch_norm_epsilon: written to BatchNorm layers; other epsilons are folded into the variance on loading.
        gate_scale: the constant of the squeeze-excite gate (0.16667 in TensorFlow's graphs, not 1/6).
        residuals: which of V2's blocks end in a residual sum; see Residuals.
        pixel_mean, pixel_scale: network input = (pixel - pixel_mean) * pixel_scale, for every channel.
        boxes: default boxes of each feature map; empty for a classifier.
        variances: box-coder variances (x, y, width, height): 1 / TensorFlow's scales.
        score_converter: what makes scores of class logits.
        nms: see Nms.
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

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ArchError(f"unknown family {self.family!r}; known are {', '.join(FAMILIES)}")
        least = 1 if self.classifier else 2
        if self.num_classes < least:
            raise ArchError(
                f"a class count of {self.num_classes} is too small: it counts background, so the least is {least}"
            )
        if self.num_classes > MAX_CLASSES:
            raise ArchError(f"a class count of {self.num_classes} is too large: the most is {MAX_CLASSES}")
        if min(self.input_size) < 1 or max(self.input_size) > 8192:
            raise ArchError(f"an input of {self.input_size[0]}x{self.input_size[1]} pixels is outside 1..8192")
        if not (math.isfinite(self.width_multiplier) and 0 < self.width_multiplier <= 16):
            raise ArchError(f"a width multiplier of {self.width_multiplier} is outside (0, 16]")

        if not all(math.isfinite(v) and v > 0 for v in (*self.variances, self.pixel_scale)):
            raise ArchError(
                f"variances and pixel scale are positive numbers, not {(*self.variances, self.pixel_scale)}"
            )
        if not abs(self.pixel_mean) <= _MAX_PIXEL:
            raise ArchError(f"a pixel mean of {self.pixel_mean} is outside what pixels may be")
        if not (math.isfinite(self.gate_scale) and self.gate_scale > 0):
            raise ArchError(f"the constant of gates is a positive number, not {self.gate_scale}")

    @property
    def separable_extras(self) -> bool:
        """Whether the extra layers are depthwise-separable."""
        return self.head == "ssdlite" if self.extra_depthwise is None else self.extra_depthwise

    @property
    def is_v3(self) -> bool:
        """Whether the family is a MobileNetV3."""
        return self.family.startswith("v3")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `from_dict` gives the same ArchSpec back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ArchSpec:
        """Inverse of `to_dict`.

        Raises:
            ArchError: a key is unknown or missing, or a value is of the wrong kind.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        unknown = sorted(set(data) - known)
        if unknown:
            raise ArchError(f"unknown architecture fields: {', '.join(unknown)}")
        try:
            values = dict(data)
            values["input_size"] = _pair(values["input_size"])
            values["boxes"] = tuple(
                CellBoxes(tuple((float(h), float(w)) for h, w in cell["sizes"])) for cell in values.get("boxes", ())
            )
            if "variances" in values:
                x, y, w, h = (float(v) for v in values["variances"])
                values["variances"] = (x, y, w, h)
            if "nms" in values:
                values["nms"] = Nms(**dict(values["nms"]))
            return cls(**values)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ArchError(f"not an architecture: {type(error).__name__}: {error}") from error


def _pair(value: Any) -> tuple[int, int]:
    height, width = value
    return int(height), int(width)
