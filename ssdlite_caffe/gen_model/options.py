"""Options of the command line -> ArchSpec and Dialect, with the options of the earlier scripts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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
    Stage,
)
from ssdlite_caffe.gen_model.families import family
from ssdlite_caffe.gen_model.torchvision import torchvision_arch

SourceName = Literal["tensorflow", "torchvision"]
"""Whose net is written."""
VERSIONS: dict[Version, FamilyName] = dict(zip(get_args(Version), FAMILIES, strict=True))


class OptionsError(ValueError):
    """A usage error: options that contradict each other, or a value that cannot be parsed."""


@dataclass(frozen=True)
class Flags:
    """Flags of the earlier scripts.

    Attributes:
        relu6: ReLU6 layers, where there would be ReLU.
        tfpad: TensorFlow's padding, where it would be the same on both sides.
        nobn: no BatchNorm in the body.
        batchnorm: BatchNorm in the body, for the fork in which nobn is the default.
        no_batchnorm: nobn, but in deploy nets only.
    """

    relu6: bool = False
    tfpad: bool = False
    nobn: bool = False
    batchnorm: bool = False
    no_batchnorm: bool = False

    def check(self) -> None:
        """Raise an OptionsError if flags contradict each other."""
        if self.batchnorm and (self.nobn or self.no_batchnorm):
            raise OptionsError(f"--batchnorm contradicts {'--nobn' if self.nobn else '--no_batchnorm'}; give one")

    def folds(self, stage: Stage) -> bool:
        """Whether a flag asks for a net of the stage without BatchNorm."""
        return self.nobn or (self.no_batchnorm and stage in ("deploy", "headless"))


ExtraLayers = Literal["separable", "full"]
"""Whether the extra layers are depthwise-separable or full convolutions."""


@dataclass(frozen=True)
class BoxOptions:
    """Options of default boxes, scores and NMS; None: the model zoo's value."""

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
        """The options that were given, with the names that they have on the command line."""
        return [f"--{name.replace('_', '-')}" for name, value in vars(self).items() if value is not None]


def parse_size(text: str) -> tuple[int, int]:
    """(height, width) of `N` or `HxW`.

    Raises:
        OptionsError: the text is neither of the two.
    """
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(re.fullmatch(r"[1-9][0-9]{0,4}", part) for part in parts):
        raise OptionsError(f"{text!r} is not a size; write N or HxW (height x width), as 300 or 240x320")
    return int(parts[0]), int(parts[-1])


def parse_numbers(text: str) -> tuple[float, ...]:
    """Numbers between commas: `1,2,0.5`.

    Raises:
        OptionsError: the text is something else.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise OptionsError(f"{text!r} is not a list of numbers; write them with commas, as 1,2,0.5") from None


_OF_SSD_ANCHORS = {
    "--min-scale", "--max-scale", "--scales", "--aspect-ratios", "--interpolated-ratio", "--reduce-lowest",
    "--extra-layers",
}  # fmt: skip


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
    source: SourceName = "tensorflow",
    full_tail: bool = False,
) -> ArchSpec:
    """The ArchSpec for the given options, with the model zoo's values for the others.

    With the source torchvision all values are torchvision's, and only class count and tail can be chosen.

    Raises:
        OptionsError: options contradict each other.
        ArchError: a value is out of range.
    """
    name, boxes = VERSIONS[version], boxes or BoxOptions()
    if full_tail and (classifier or not name.startswith("v3")):
        raise OptionsError("--full-tail is for MobileNetV3 detectors, whose last blocks are halved without it")
    if source == "torchvision":
        given = (
            ("--type ssd", head == "ssd"), ("--classifier", classifier), ("--eps", epsilon is not None),
            ("--width-multiplier", width_multiplier != 1.0), ("--input-size", input_size not in (None, (320, 320))),
        )  # fmt: skip
        unfit = [*(option for option, there in given if there), *boxes.given()]
        if name != "v3-large" or unfit:
            raise OptionsError(
                "--source torchvision is its ssdlite320_mobilenet_v3_large as it stands, -v 3-large; it cannot be "
                f"combined with {', '.join(unfit) or f'-v {version}'}"
            )
        return torchvision_arch(num_classes, full_tail=full_tail)
    if classifier:
        unfit = [*(["--type"] if head else []), *boxes.given()]
        if unfit:
            raise OptionsError(f"--classifier cannot be combined with {', '.join(unfit)}: a classifier has no boxes")
        arch = default_arch(
            name, num_classes, input_size=input_size, width_multiplier=width_multiplier, classifier=True
        )
    elif head == "fpnlite":
        unfit = sorted(set(boxes.given()) & _OF_SSD_ANCHORS)
        if unfit:
            raise OptionsError(
                f"--type fpnlite cannot be combined with {', '.join(unfit)}: its default boxes follow from its levels"
            )
        arch = default_arch(
            name,
            num_classes,
            input_size=input_size,
            head=head,
            width_multiplier=width_multiplier,
            score_converter=boxes.scores or "sigmoid",
            nms=_nms(boxes),
        )
        kernel = arch.head_kernel if boxes.head_kernel is None else boxes.head_kernel
        arch = replace(arch, variances=_variances(boxes), head_kernel=kernel)
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
            full_tail=full_tail,
            extra_depthwise=None if boxes.extra_layers is None else boxes.extra_layers == "separable",
        )
    if epsilon is not None and not 0 < epsilon < 1:
        raise ArchError(f"BatchNorm epsilon must be above 0 and below 1, got {epsilon}")
    return replace(
        arch,
        explicit_padding=explicit_padding,
        batch_norm_epsilon=arch.batch_norm_epsilon if epsilon is None else epsilon,
    )


def _boxes(size: tuple[int, int], options: BoxOptions) -> tuple[CellBoxes, ...]:
    if options.scales is not None and (options.min_scale is not None or options.max_scale is not None):
        raise OptionsError("--scales replaces --min-scale and --max-scale; give one or the other")
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
        got = ",".join(f"{v:g}" for v in options.variances)
        raise OptionsError(f"--variances must be four positive numbers (x, y, width, height), got {got}")
    x, y, width, height = options.variances
    return x, y, width, height


def _nms(options: BoxOptions) -> Nms:
    stock = Nms()
    threshold = stock.iou_threshold if options.nms_threshold is None else options.nms_threshold
    confidence = stock.score_threshold if options.score_threshold is None else options.score_threshold
    keep = stock.max_total if options.keep_top_k is None else options.keep_top_k
    if not 0 < threshold <= 1:
        raise ArchError(f"NMS threshold must be above 0 and at most 1, got {threshold}")
    if not 0 <= confidence <= 1:
        raise ArchError(f"confidence threshold must be in 0..1, got {confidence}")
    if keep < 1:
        raise ArchError(f"--keep-top-k must be at least 1, got {keep}")
    if options.top_k is not None and options.top_k < 1:
        raise ArchError(f"--top-k must be at least 1, got {options.top_k}")
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
    flags: Flags | None = None,
    stage: Stage = "deploy",
    more: Mapping[str, str] | None = None,
) -> Dialect:
    """The Dialect for the given options.

    ReLU6 layers, TensorFlow's padding and BatchNorm layers are the default. A flag of the earlier scripts stands for
    one of the other options; what it does in those scripts' own nets is in `compat_options.py`.

    `more` are other fields of Dialect.

    Raises:
        OptionsError: options contradict each other.
    """
    flags = flags or Flags()
    flags.check()
    fold = flags.folds(stage)
    if flags.relu6 and activation not in (None, "relu6"):
        raise OptionsError(f"--relu6 means --activation relu6 and contradicts --activation {activation}; give one")
    if flags.tfpad and padding == "symmetric":
        raise OptionsError("--tfpad means TensorFlow's padding and contradicts --padding symmetric; give one")
    if fold and batch_norm not in (None, "fold"):
        name = "--nobn" if flags.nobn else "--no_batchnorm"
        raise OptionsError(f"{name} means --bn fold and contradicts --bn {batch_norm}; give one")
    if flags.batchnorm and batch_norm not in (None, "keep"):
        raise OptionsError(f"--batchnorm means --bn keep and contradicts --bn {batch_norm}; give one")
    return Dialect(
        activation=activation or "relu6",
        padding=padding or "exact",
        batch_norm="fold" if fold else batch_norm or "keep",
        depthwise=depthwise,
        engine=engine,
        **more or {},  # type: ignore[arg-type]
    )
