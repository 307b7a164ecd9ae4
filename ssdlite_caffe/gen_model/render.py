"""Text of nets, solvers and scripts, made from the templates."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ssdlite_caffe.gen_model.dialect import DataPaths, Dialect, Stage
from ssdlite_caffe.gen_model.lower import lower
from ssdlite_caffe.gen_model.netdesc import NetDesc

if TYPE_CHECKING:
    from jinja2 import Environment

_PADDING = {
    "exact": "as TensorFlow's; where it pads one more after than before, the kernel is one larger, its first taps zero",
    "slice": "as TensorFlow's; where it pads one more after than before, one more window is computed and cut off",
    "shift": "as TensorFlow's; where it pads one more after than before, on moved maps, and one more window is cut off",
    "pad-layer": "as TensorFlow's; where it pads one more after than before, by a Pad layer",
    "tf_pad": "as TensorFlow's; where it pads one more after than before, by tf_pad",
    "symmetric": "the same on both sides",
}
_ACTIVATION = {
    "relu6": "ReLU6 layers",
    "clip": "Clip layers for ReLU6",
    "stock": "ReLU6 written as ReLU and Power",
    "relu": "ReLU for ReLU6",
}
_BATCH_NORM = {
    "keep": "BatchNorm and Scale layers",
    "frozen": "BatchNorm and Scale layers, with the statistics they come with",
    "fold": "folded into the convolutions",
    "fold-body": "folded into the convolutions, but those of the predictors are BatchNorm and Scale layers",
}
_INEXACT_PADDING = "TensorFlow pads one more after than before, this net the same on both sides"
_INEXACT_ACTIVATION = "TensorFlow's ReLU6 stops at 6, this net's ReLU does not"
_INEXACT_CLIP = "TensorFlow clips boxes to the image before suppression, this net leaves that to its reader"


_INEXACT_OPENCV = "OpenCV computes 3x3 depthwise layers on maps of one pixel wrong, as in the project's own prototxt"


@dataclass(frozen=True)
class Facts:
    """Values for the comment at the top of a net."""

    classes: str
    input: str
    width: str
    mean: float
    scale: float
    padding: str
    activation: str
    batch_norm: str
    inexact: tuple[str, ...]
    classifier: bool
    score_converter: str
    per_box: int
    per_map: bool
    project: str


@dataclass(frozen=True)
class Solver:
    """Settings of Caffe's solver.

    Attributes:
        test_interval: iterations between tests; 0: none.
        steps: iterations at which the learning rate is multiplied by `gamma`; if empty, the rate falls linearly to 0.
        mode: CPU or GPU; auto leaves that to what starts Caffe.
        learn: False for a solver that tests once and ends.
    """

    train_net: str
    test_net: str = ""
    test_iter: int = 0
    test_interval: int = 12000
    base_lr: float = 0.0005
    gamma: float = 0.1
    steps: tuple[int, ...] = ()
    max_iter: int = 120000
    display: int = 10
    weight_decay: float = 0.00005
    type: str = "Adam"
    momentum: float = 0.9
    snapshot: int = 1000
    snapshot_prefix: str = "snapshot/mobilenet"
    mode: str = "auto"
    random_seed: int | None = None
    learn: bool = True


def render(net: NetDesc, dialect: Dialect, stage: Stage, data: DataPaths | None = None) -> str:
    """The prototxt of a net; `data` has the settings of the data layers of train and test nets.

    Raises:
        ArchError: the net cannot be written in the dialect or for the stage.
    """
    lowered = lower(net, dialect, stage, data or DataPaths())
    return environment().get_template(f"{stage}.j2").render(net=lowered, facts=_facts(net, dialect, stage))


def render_solver(solver: Solver) -> str:
    """The prototxt of a solver."""
    return environment().get_template("solver.j2").render(solver=solver)


def render_script(name: str, needed: Sequence[str]) -> str:
    """A shell script of a training folder, train.sh or test.sh; `needed` are the files that it checks for."""
    return environment().get_template(f"{name}.j2").render(kit={"needed": needed})


def number(value: float) -> str:
    """The shortest text for a double that parses to the same double: 0.1, 1.0, 1e-08, 0.00784313725490196."""
    return repr(float(value))


def quoted(text: str) -> str:
    r"""A prototxt string: quotes and backslashes are escaped, control characters \ooo, all others as they are."""
    return '"' + _SPECIAL.sub(lambda found: _ESCAPES.get(found[0]) or f"\\{ord(found[0]):03o}", text) + '"'


_SPECIAL = re.compile(r'["\\\x00-\x1f\x7f]')
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


@functools.cache
def environment() -> Environment:
    """Reads the templates of text files, with the filters `num` and `quoted`, which write exact values."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(  # noqa: S701 - prototxt, not HTML; strings go through `quoted`
        loader=PackageLoader("ssdlite_caffe", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
    )
    made.filters["num"] = number
    made.filters["quoted"] = quoted
    made.filters["shell"] = shlex.quote
    return made


def _facts(net: NetDesc, dialect: Dialect, stage: Stage) -> Facts:
    arch = net.arch
    asymmetric = any(not conv.padding.symmetric for conv in net.convolutions)
    bounded = any(conv.activation == "relu6" for conv in net.convolutions)
    inexact = []
    if dialect.padding == "symmetric" and asymmetric:
        inexact.append(_INEXACT_PADDING)
    if dialect.activation == "relu" and bounded:
        inexact.append(_INEXACT_ACTIVATION)
    if "clip late" in dialect.inexact(clip_first=arch.nms.clip_first) or (arch.nms.clip_first and stage == "test"):
        inexact.append(_INEXACT_CLIP)
    if (
        arch.compat
        and stage in ("deploy", "headless")
        and any(conv.depthwise and 1 in conv.in_size for conv in net.convolutions)
    ):
        inexact.append(_INEXACT_OPENCV)
    plural = "" if arch.num_classes == 1 else "es"
    return Facts(
        classes=f"{arch.num_classes} class{plural}" + ("" if arch.classifier else " with background"),
        input=f"{arch.input_size[0]}x{arch.input_size[1]}",
        width=f"{arch.width_multiplier:g}",
        mean=arch.pixel_mean,
        scale=arch.pixel_scale,
        padding=_PADDING[dialect.padding],
        activation=_ACTIVATION[dialect.activation],
        batch_norm=_BATCH_NORM[dialect.batch_norm],
        inexact=tuple(inexact),
        classifier=arch.classifier,
        score_converter=arch.score_converter,
        per_box=arch.num_classes,
        per_map=dialect.outputs == "per-map",
        project=arch.compat or "",
    )
