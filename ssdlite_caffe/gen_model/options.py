"""Options of the command line -> ArchSpec and Dialect, with the earlier scripts' aliases; nothing is printed here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from ssdlite_caffe.errors import ArchError
from ssdlite_caffe.gen_model.arch import (
    FAMILIES,
    ArchSpec,
    CellBoxes,
    FamilyName,
    HeadKind,
    Nms,
    ScoreConverter,
    Version,
)
from ssdlite_caffe.gen_model.build import default_arch
from ssdlite_caffe.gen_model.default_boxes import ASPECT_RATIOS, ssd_boxes
from ssdlite_caffe.gen_model.dialect import (
    ActivationDialect,
    BatchNormDialect,
    DepthwiseDialect,
    Dialect,
    Engine,
    PaddingDialect,
)
from ssdlite_caffe.gen_model.families import family

VERSIONS: dict[Version, FamilyName] = dict(zip(get_args(Version), FAMILIES, strict=True))


class OptionsError(ValueError):
    """Options that contradict each other or cannot be read: a usage error."""


ExtraLayers = Literal["separable", "full"]
"""Whether the extra layers are depthwise-separable or full convolutions."""


@dataclass(frozen=True)
class BoxOptions:
    """Default boxes and what becomes of them; None: the zoo's."""

    min_scale: float | None = None
    max_scale: float | None = None
    scales: Sequence[float] | None = None
    aspect_ratios: Sequence[float] | None = None
    interpolated_ratio: float | None = None
    reduce_lowest: bool | None = None
    variances: Sequence[float] | None = None
    scores: ScoreConverter | None = None
    nms_threshold: float | None = None
    score_threshold: float | None = None
    top_k: int | None = None
    keep_top_k: int | None = None
    clip_first: bool | None = None
    head_kernel: int | None = None
    extra_layers: ExtraLayers | None = None

    def given(self) -> list[str]:
        """The options that were given, as the command line names them."""
        return [f"--{name.replace('_', '-')}" for name, value in vars(self).items() if value is not None]


def parse_size(text: str) -> tuple[int, int]:
    """(height, width) of `N` or `HxW`.

    Raises:
        OptionsError: neither of the two.
    """
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(re.fullmatch(r"[1-9][0-9]{0,4}", part) for part in parts):
        raise OptionsError(f"{text!r} is no size; write 300 or 240x320 (height x width)")
    return int(parts[0]), int(parts[-1])


def parse_numbers(text: str) -> tuple[float, ...]:
    """Numbers between commas: `1,2,0.5`.

    Raises:
        OptionsError: something else stands there.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise OptionsError(f"{text!r} is no list of numbers; write them with commas, like 1,2,0.5") from None


def arch_from_options(
    version: Version,
    num_classes: int,
    *,
    head: HeadKind | None = None,
    classifier: bool = False,
    width_multiplier: float = 1.0,
    input_size: tuple[int, int] | None = None,
    epsilon: float | None = None,
    explicit_padding: bool = False,
    boxes: BoxOptions | None = None,
) -> ArchSpec:
    """The ArchSpec that options ask for; what they leave open is the zoo's.

    Raises:
        OptionsError: options that contradict each other.
        ArchError: values that cannot be built.
    """
    name, boxes = VERSIONS[version], boxes or BoxOptions()
    if classifier:
        unfit = [*(["--type"] if head else []), *boxes.given()]
        if unfit:
            raise OptionsError(f"--classifier makes a net without boxes: {', '.join(unfit)} cannot go with it")
        arch = default_arch(
            name, num_classes, input_size=input_size, width_multiplier=width_multiplier, classifier=True
        )
    else:
        side = family(name).input_size
        size = input_size or (side, side)
        arch = default_arch(
            name,
            num_classes,
            input_size=size,
            head=head or "ssdlite",
            width_multiplier=width_multiplier,
            boxes=_boxes(size, boxes),
            score_converter=boxes.scores or "sigmoid",
            nms=_nms(boxes),
        )
        arch = replace(
            arch,
            variances=_variances(boxes),
            head_kernel=arch.head_kernel if boxes.head_kernel is None else boxes.head_kernel,
            extra_depthwise=None if boxes.extra_layers is None else boxes.extra_layers == "separable",
        )
    if epsilon is not None and not 0 < epsilon < 1:
        raise ArchError(f"a BatchNorm epsilon of {epsilon} is outside (0, 1)")
    return replace(
        arch,
        explicit_padding=explicit_padding,
        batch_norm_epsilon=arch.batch_norm_epsilon if epsilon is None else epsilon,
    )


def _boxes(size: tuple[int, int], options: BoxOptions) -> tuple[CellBoxes, ...]:
    if options.scales is not None and (options.min_scale is not None or options.max_scale is not None):
        raise OptionsError("--scales takes the place of --min-scale and --max-scale; give one or the other")
    return ssd_boxes(
        size,
        min_scale=0.2 if options.min_scale is None else options.min_scale,
        max_scale=0.95 if options.max_scale is None else options.max_scale,
        scales=options.scales or (),
        aspect_ratios=ASPECT_RATIOS if options.aspect_ratios is None else options.aspect_ratios,
        interpolated_ratio=1.0 if options.interpolated_ratio is None else options.interpolated_ratio,
        reduce_lowest=options.reduce_lowest is not False,
    )


def _variances(options: BoxOptions) -> tuple[float, float, float, float]:
    if options.variances is None:
        return ArchSpec.variances
    if len(options.variances) != 4 or not all(0 < v < float("inf") for v in options.variances):
        raise OptionsError("--variances takes four positive numbers: x, y, width, height")
    x, y, width, height = options.variances
    return x, y, width, height


def _nms(options: BoxOptions) -> Nms:
    stock = Nms()
    threshold = stock.iou_threshold if options.nms_threshold is None else options.nms_threshold
    confidence = stock.score_threshold if options.score_threshold is None else options.score_threshold
    keep = stock.max_total if options.keep_top_k is None else options.keep_top_k
    if not 0 < threshold <= 1:
        raise ArchError(f"an NMS threshold of {threshold} is outside (0, 1]")
    if not 0 <= confidence <= 1:
        raise ArchError(f"a confidence threshold of {confidence} is outside [0, 1]")
    if keep < 1 or (options.top_k is not None and options.top_k < 1):
        raise ArchError("--top-k and --keep-top-k take at least 1")
    return Nms(
        iou_threshold=threshold,
        score_threshold=confidence,
        max_per_class=keep,
        max_total=keep,
        clip_first=bool(options.clip_first),
        top_k=options.top_k,
    )


def dialect_from_options(
    *,
    activation: ActivationDialect | None = None,
    padding: PaddingDialect | None = None,
    batch_norm: BatchNormDialect | None = None,
    depthwise: DepthwiseDialect = "Convolution",
    engine: Engine = "DEFAULT",
    relu6: bool = False,
    tfpad: bool = False,
    nobn: bool = False,
) -> Dialect:
    """The Dialect that options ask for.

    `relu6`, `tfpad` and `nobn` are the earlier scripts' flags: ReLU6 layers, padding as TensorFlow's, BatchNorm folded.
    The first two are the default here.

    Raises:
        OptionsError: an alias that contradicts the option it stands for.
    """
    if relu6 and activation not in (None, "relu6"):
        raise OptionsError(f"--relu6 is --activation relu6, which cannot go with --activation {activation}")
    if tfpad and padding == "symmetric":
        raise OptionsError("--tfpad asks for TensorFlow's padding, which --padding symmetric is not")
    if nobn and batch_norm not in (None, "fold"):
        raise OptionsError(f"--nobn is --bn fold, which cannot go with --bn {batch_norm}")
    return Dialect(
        activation=activation or "relu6",
        padding=padding or "exact",
        batch_norm="fold" if nobn else batch_norm or "keep",
        depthwise=depthwise,
        engine=engine,
    )
