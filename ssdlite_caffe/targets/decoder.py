"""Decoders for the raw outputs of a headless net, as source text with the model's numbers: decode.py and decode.c.

They do what `runtimes.decode` does. decode.py needs numpy, decode.c a C99 compiler, and neither needs this project.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.errors import ArchError, LabelMapError, TensorError
from ssdlite_caffe.gen_model.netdesc import NetDesc
from ssdlite_caffe.gen_model.render import environment

if TYPE_CHECKING:
    from jinja2 import Environment

PYTHON, C, PRIORS = "decode.py", "decode.c", "priors.h"

_SCORE_ERROR = 1e-5
"""Relative error that no computed score has: float32's is below 1e-6, also with a poor `expf`."""
_LEAST_SURE = 1e-30
"""The least score threshold for which float32 has that relative error."""


@dataclass(frozen=True)
class _Map:
    rows: int
    columns: int
    boxes: int


@dataclass(frozen=True)
class _Values:
    """Values of the templates.

    Attributes:
        least_logit: of what `least_logit_of` says; see `least_logit`.
        most_per_class, most_in_all, most_candidates: the limits of suppression or, if less, what there can be: sizes
            of arrays.
        letterbox: min_dimension and max_dimension of a keep_aspect_ratio resizer; None without one.
    """

    classes: int
    boxes: int
    maps: tuple[_Map, ...]
    converter: str
    softmax: bool
    score_threshold: float
    least_logit: float
    least_logit_of: str
    iou_threshold: float
    max_per_class: int
    max_total: int
    top_k: int | None
    most_per_class: int
    most_in_all: int
    most_candidates: int
    clip_first: bool
    keep_empty: bool
    letterbox: tuple[int, int] | None
    min_dimension: int
    max_dimension: int
    names: tuple[str, ...]


def decoder_files(net: NetDesc, names: Sequence[str], priors: npt.NDArray[Any] | None = None) -> dict[str, str]:
    """Text of the decoders of a detector, by file name.

    Args:
        net: the detector; its NMS options, score converter and resizer are written as constants.
        names: of the classes, background first.
        priors: default boxes and variances as PriorBox gives them, (1, 2, N * 4); if given, a third file has them as a
            C array, for devices that read no files.

    Returns:
        decode.py, decode.c, and with `priors` priors.h.

    Raises:
        ArchError: the net is a classifier.
        LabelMapError: there is not one name for each class.
        TensorError: `priors` has not two values for each coordinate of the net's default boxes.
    """
    values = _values(net, names)
    templates = _environment()
    files = {name: templates.get_template(f"targets/{name}.j2").render(d=values) for name in (PYTHON, C)}
    if priors is not None:
        files[PRIORS] = _priors_header(priors, values.boxes)
    return files


def least_logit(score_threshold: float, *, softmax: bool) -> float:
    """A float32 below which no logit gives a score above a threshold, so that most scores need not be computed.

    For sigmoid it is the threshold's logit, for softmax a bound of the difference from the largest logit: the sum of
    powers is at least 1. It is lower than the exact value by more than computed scores can be off; which of the logits
    above it give a higher score is for the computed score to say.

    Returns:
        -inf where there is none.
    """
    threshold = min(float(np.float32(score_threshold)), 1.0)
    if not threshold > _LEAST_SURE:
        return -math.inf
    sure = threshold * (1 - _SCORE_ERROR)
    exact = math.log(sure) if softmax else math.log(sure / (1 - sure))
    return float(np.nextafter(np.float32(exact), np.float32(-np.inf)))


def _values(net: NetDesc, names: Sequence[str]) -> _Values:
    arch, nms, boxes = net.arch, net.arch.nms, net.num_default_boxes
    if arch.classifier:
        raise ArchError(f"{net.name} is a classifier, which has no boxes to decode")
    if len(names) != arch.num_classes:
        raise LabelMapError(
            f"there must be a name for each of {arch.num_classes} classes with background, got {len(names)}"
        )
    softmax = arch.score_converter == "softmax"
    resizer = arch.resizer
    least, most = resizer.min_dimension or 0, resizer.max_dimension or 0
    return _Values(
        classes=arch.num_classes,
        boxes=boxes,
        maps=tuple(_Map(*one.size, len(one.tf_boxes)) for one in net.feature_maps),
        converter=arch.score_converter,
        softmax=softmax,
        score_threshold=nms.score_threshold,
        least_logit=least_logit(nms.score_threshold, softmax=softmax),
        least_logit_of="differences from the largest logit" if softmax else "logits",
        iou_threshold=nms.iou_threshold,
        max_per_class=nms.max_per_class,
        max_total=nms.max_total,
        top_k=nms.top_k,
        most_per_class=min(nms.max_per_class, boxes),
        most_in_all=min(nms.max_total, boxes * (arch.num_classes - 1)),
        most_candidates=boxes if nms.top_k is None else min(nms.top_k, boxes),
        clip_first=nms.clip_first,
        keep_empty=nms.clip_first and nms.keep_empty,
        letterbox=(least, most) if resizer.letterboxes else None,
        min_dimension=least,
        max_dimension=most,
        names=tuple(names),
    )


def _priors_header(priors: npt.NDArray[Any], boxes: int) -> str:
    flat = np.asarray(priors, np.float32).reshape(-1)
    if flat.size != 8 * boxes:
        raise TensorError(f"default boxes must be {8 * boxes} values with their variances, got {priors.shape}")
    return _environment().get_template(f"targets/{PRIORS}.j2").render(rows=flat.reshape(-1, 4).tolist())


def _python(value: float | str) -> str:
    """A Python literal in ASCII."""
    if isinstance(value, float) and math.isinf(value):
        return f'float("{value}")'
    return ascii(value)


def _c(value: float) -> str:
    """A C literal of the float32 nearest to a number."""
    single = float(np.float32(value))
    if math.isinf(single):
        return "INFINITY" if single > 0 else "-INFINITY"
    text = f"{single:.9g}"  # nine digits give every float32 back
    return f"{text}{'' if any(mark in text for mark in '.e') else '.0'}f"


def _c_string(text: str) -> str:
    r"""A C string literal of UTF-8: all but plain ASCII is written \ooo."""
    return '"' + "".join(chr(b) if b in _PLAIN else f"\\{b:03o}" for b in text.encode()) + '"'


_PLAIN = frozenset(range(32, 127)) - frozenset(b'"\\?')
"""Characters that stand for themselves in a C string; two question marks begin a trigraph."""


@functools.cache
def _environment() -> Environment:
    made = environment().overlay()
    made.filters = {**made.filters, "python": _python, "c": _c, "c_string": _c_string}
    return made
