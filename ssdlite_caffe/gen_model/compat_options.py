"""Options of `gen` with --compat: the defaults of an earlier project, and what its script's flags do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from ssdlite_caffe.gen_model.arch import CompatName, FamilyName, HeadKind, Version
from ssdlite_caffe.gen_model.compat import COMPAT
from ssdlite_caffe.gen_model.dialect import (
    ActivationDialect,
    BatchNormDialect,
    DepthwiseDialect,
    Dialect,
    Engine,
    PaddingDialect,
    Stage,
)
from ssdlite_caffe.gen_model.options import VERSIONS, BoxOptions, Flags, OptionsError

_IOU_THRESHOLD = 0.45
_TEST_SCORE = 0.01
_OWN = ("--head-kernel", "--extra-layers", "--explicit-padding", "--clip-first")
"""Options of layers that the projects do not have."""


class NetOptions(NamedTuple):
    """Options of `arch_from_options` that a project has defaults for."""

    version: Version
    head: HeadKind | None
    epsilon: float
    boxes: BoxOptions


def with_defaults(
    compat: CompatName,
    stage: Stage,
    *,
    version: Version | None,
    head: HeadKind | None,
    classifier: bool,
    epsilon: float | None,
    explicit_padding: bool,
    boxes: BoxOptions,
) -> NetOptions:
    """The given options, with those of the project's nets for the stage where none is given.

    Raises:
        OptionsError: the project has no such nets.
    """
    project = COMPAT[compat]
    given = [*boxes.given(), *(["--explicit-padding"] if explicit_padding else [])]
    own = [name for name in given if name in _OWN]
    if own:
        raise OptionsError(f"--compat {compat} has layers of its own; leave out {', '.join(own)}")
    numbers = {name: number for number, name in VERSIONS.items()}
    if version is not None and VERSIONS[version] not in project.families:
        has = " and ".join(numbers[name] for name in project.families)
        raise OptionsError(f"--compat {compat} has --version {has}, got {version}")
    if head is not None and head not in project.heads:
        raise OptionsError(f"--compat {compat} has --type {' and '.join(project.heads)}, got {head}")
    if not classifier:
        test = stage == "test"
        values = {name: value for name, value in vars(boxes).items() if value is not None}
        stock = BoxOptions(
            scores=project.score_converter,
            nms_threshold=_IOU_THRESHOLD,
            score_threshold=_TEST_SCORE if test else project.score_threshold,
            top_k=400 if test else 100,
            keep_top_k=200 if test else 100,
        )
        boxes, head = replace(stock, **values), head or project.heads[0]
    return NetOptions(
        version or numbers[project.families[0]], head, project.epsilon if epsilon is None else epsilon, boxes
    )


def compat_dialect(
    compat: CompatName,
    stage: Stage,
    family: FamilyName,
    flags: Flags,
    *,
    activation: ActivationDialect | None = None,
    padding: PaddingDialect | None = None,
    batch_norm: BatchNormDialect | None = None,
    depthwise: DepthwiseDialect = "Convolution",
    engine: Engine = "DEFAULT",
    more: Mapping[str, str] | None = None,
) -> Dialect:
    """The Dialect that the flags mean in the project's script; `more` are other fields of Dialect that were given.

    Raises:
        OptionsError: options contradict each other, or our own options are given in place of the flags.
    """
    flags.check()
    new = {"--activation": activation, "--padding": padding, "--bn": batch_norm}
    own = [f"{name} {value}" for name, value in new.items() if value is not None]
    if own:
        raise OptionsError(
            f"--compat {compat} writes what its script does for --relu6, --tfpad and --nobn; give these in place of "
            f"{', '.join(own)}"
        )
    if more:
        other = ", ".join(f"--{name.replace('_', '-')} {value}" for name, value in more.items())
        raise OptionsError(f"--compat {compat} writes the layers that its script writes; leave out {other}")
    return Dialect(
        activation="relu6" if flags.relu6 else "relu",
        padding="slice" if flags.tfpad else "symmetric",
        batch_norm=_batch_norm(compat, stage, family, flags),
        depthwise=depthwise,
        engine=engine,
        input_form="fields",
    )


def _batch_norm(compat: CompatName, stage: Stage, family: FamilyName, flags: Flags) -> BatchNormDialect:
    """V2's nets keep the predictors' BatchNorms when the body's are folded, V1's do not."""
    if not flags.folds(stage) and (flags.batchnorm or not COMPAT[compat].folded):
        return "keep"
    return "fold-body" if family == "v2" else "fold"
