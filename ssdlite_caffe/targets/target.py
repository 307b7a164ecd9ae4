"""What is known of a target: a program that takes Caffe files, and what its user expects to find in a folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.gen_model.netdesc import NetDesc

NetStage = Literal["deploy", "headless"]
PriorsForm = Literal["npy", "raw", "numbers", "anchors"]
"""How default boxes are written where the net has none.

npy: `priors.npy`, float32 N x 8: corners xmin, ymin, xmax, ymax as fractions, then variances.
raw: `priors.bin`, flat little-endian float32 in PriorBox's order, 2 x N * 4: all corners, then all variances.
numbers: `mbox_priorbox.txt`, the same values, a number a line.
anchors: `anchors.txt`, a line `xmin ymin xmax ymax var0 var1 var2 var3` a box, corners in pixels of the network input.
"""
CalibrationForm = Literal["bgr-png", "rgb-png", "npy", "raw"]
"""Calibration images, all resized as the model does.

bgr-png, rgb-png: PNG files; the former has blue where PNG has red, for readers that keep a file's order of channels.
npy: normalised network input, float32 1 x 3 x H x W, BGR. raw: the same as flat float32.
"""


@dataclass(frozen=True)
class Edit:
    """A change of a deploy net for a detection layer that no Caffe has.

    Attributes:
        text: from a rendered prototxt to that of the program.
        outputs: name and shape of each output, which `prototxt.shapes` does not know.
    """

    text: Callable[[str], str]
    outputs: Callable[[NetDesc], tuple[tuple[str, tuple[int, ...]], ...]]


@dataclass(frozen=True)
class TargetNet:
    """One net of a target.

    Attributes:
        file: its prototxt.
        weights: its caffemodel; nets that name the same one share it.
        stage: deploy has DetectionOutput, headless ends at box encodings and logits.
        dialect: how it is written.
        score_threshold: of its DetectionOutput; None: the model's.
        irregular: of models whose default boxes no PriorBox layer makes. skip: a deploy net is not written; constant:
            it is written with the default boxes as numbers.
        edit: what is changed after rendering.
    """

    file: str
    weights: str
    stage: NetStage
    dialect: Dialect = field(default_factory=Dialect)
    score_threshold: float | None = None
    irregular: Literal["skip", "constant"] = "skip"
    edit: Edit | None = None

    def options(self) -> dict[str, str]:
        """The fields of the dialect that are not the default's."""
        default = dataclasses.asdict(Dialect())
        return {name: value for name, value in dataclasses.asdict(self.dialect).items() if value != default[name]}

    def option_texts(self) -> list[str]:
        """The same as options of `convert`: `--input-form fields`."""
        named = {"batch_norm": "bn"}
        return [f"--{named.get(name, name.replace('_', '-'))} {value}" for name, value in self.options().items()]


@dataclass(frozen=True)
class Checked:
    """How a target was checked.

    Attributes:
        how: run: the program itself was started on such folders; read: its documents or sources were read.
        what: program and version, or what was read.
    """

    how: Literal["run", "read"]
    what: str


@dataclass(frozen=True)
class Target:
    """A program that takes Caffe files.

    Attributes:
        name: what `--target` takes.
        title: the program, as its users call it.
        nets: at least one; the first is the one that the README speaks of.
        checked: how it is known.
        limits: key of `prototxt.limits.LIMITS`: what its reader takes.
        files: files of the folder, each from a template of the same name with `.j2` in `templates/targets/<name>/` or,
            if several targets have it, in `templates/targets/shared/`; the folder's README.md is always one of them.
        priors: forms of the default boxes, for nets without PriorBox.
        calibration: form of calibration images; None: the program quantises nothing.
        calibration_list: file name of their list.
        calibrated_files: further files, written where there are calibration images.
        decoder: whether decode.py and decode.c are written.
        inexact: what the program computes otherwise, and by how much; a sentence each.
        inexact_for: the same, of one detector.
        refuses: why a net cannot be written for the target; empty if it can.
        words: further values for the templates, computed from the net.
    """

    name: str
    title: str
    nets: tuple[TargetNet, ...]
    checked: Checked
    limits: str
    files: tuple[str, ...] = ()
    priors: tuple[PriorsForm, ...] = ()
    calibration: CalibrationForm | None = None
    calibration_list: str = "calibration.txt"
    calibrated_files: tuple[str, ...] = ()
    decoder: bool = False
    inexact: tuple[str, ...] = ()
    inexact_for: Callable[[NetDesc], tuple[str, ...]] = lambda _: ()
    refuses: Callable[[NetDesc], str] = lambda _: ""
    words: Callable[[NetDesc], dict[str, Any]] = lambda _: {}

    def nets_of(self, net: NetDesc) -> tuple[TargetNet, ...]:
        """The nets that are written of a detector: without those that need PriorBox where it cannot make the boxes."""
        if not net.arch.irregular_boxes:
            return self.nets
        found = []
        for one in self.nets:
            if one.stage == "deploy" and one.dialect.priors == "layer":
                if one.irregular == "skip":
                    continue
                one = dataclasses.replace(one, dialect=dataclasses.replace(one.dialect, priors="constant"))
            found.append(one)
        return tuple(found)
