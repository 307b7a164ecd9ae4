"""The values that the templates of all targets print: the net's, in the words that its programs use."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssdlite_caffe import __version__
from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.coco.label_map import LabelMap
from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.gen_model.netdesc import NetDesc
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.shapes import infer
from ssdlite_caffe.resizer import Resizer
from ssdlite_caffe.targets.target import Target, TargetNet


@dataclass(frozen=True)
class Output:
    """An output of a net: a blob that no layer reads.

    Attributes:
        name: of the blob.
        shape: with the batch.
        constant: the values of each cell, of an output whose weights have decayed to zero; empty for all others.
    """

    name: str
    shape: tuple[int, ...]
    constant: tuple[float, ...] = ()


@dataclass(frozen=True)
class NetFacts:
    """A net that was written. `dialect` are the options of `convert` that write the same net."""

    file: str
    weights: str
    stage: str
    dialect: str
    outputs: tuple[Output, ...]

    @property
    def stem(self) -> str:
        """The prototxt's name without its suffix."""
        return self.file.removesuffix(".prototxt")


@dataclass(frozen=True)
class Facts:
    """Values for a target's templates.

    Attributes:
        name: of the target.
        title: the program.
        version: of ssdlite-caffe.
        nets: as written; the first is the main one.
        height, width: of the network input.
        mean, scale: network input = (pixel - mean) * scale, for every channel.
        std: 1 / scale.
        resizer: how images are resized.
        pad: of a letterbox: blue, green, red, as values of 0 to 255.
        labels: class names by id, background first.
        num_classes: with background.
        boxes: number of default boxes.
        converter: sigmoid or softmax, from logits to scores.
        iou_threshold, score_threshold, max_per_class, max_total: of suppression.
        calibration: path of the calibration images' list in the folder; empty without calibration.
        calibration_count: number of those images.
        expected: number of images in the folder `expected`.
        inexact: a sentence for each thing that is not the model's.
        checked: how the target is known: "run: MNN 3.6".
        words: further values of the target.
    """

    name: str
    title: str
    version: str
    nets: tuple[NetFacts, ...]
    height: int
    width: int
    mean: float
    scale: float
    std: float
    resizer: Resizer
    pad: tuple[float, ...]
    labels: tuple[str, ...]
    num_classes: int
    boxes: int
    converter: str
    iou_threshold: float
    score_threshold: float
    max_per_class: int
    max_total: int
    calibration: str
    calibration_count: int
    expected: int
    inexact: tuple[str, ...]
    checked: str
    words: dict[str, Any]


_ZERO = 1e-12
"""Weights below it are zero: those of box predictors that no object of the training used have decayed to 1e-17."""


def net_facts(
    target_net: TargetNet, net: caffe_pb2.NetParameter, desc: NetDesc, weights: Mapping[str, Sequence[FloatArray]]
) -> NetFacts:
    """What the README says of a net.

    Args:
        target_net: which.
        net: its parsed prototxt.
        desc: what it was rendered from.
        weights: layer name -> its blobs.
    """
    if target_net.edit:
        outputs = tuple(Output(name, shape) for name, shape in target_net.edit.outputs(desc))
    else:
        blobs = infer(net).blobs
        read = {bottom for layer in net.layer for bottom in layer.bottom}
        made = dict.fromkeys(top for layer in net.layer for top in layer.top)
        outputs = tuple(
            Output(name, tuple(blobs[name] or ()), constant_values(weights.get(name.removesuffix("_flat"), ())))
            for name in made
            if name not in read
        )
    options = " ".join(target_net.option_texts())
    return NetFacts(target_net.file, target_net.weights, target_net.stage, options, outputs)


def constant_values(blobs: Sequence[FloatArray]) -> tuple[float, ...]:
    """The bias of a convolution with weights of zero, which is all that it gives in each cell; empty for any other.

    Args:
        blobs: weights (C, ...) and bias (C,).
    """
    if len(blobs) != 2 or np.abs(blobs[0]).max() > _ZERO:
        return ()
    return tuple(blobs[1].reshape(-1).tolist())


def facts_of(
    target: Target, net: NetDesc, names: LabelMap, nets: tuple[NetFacts, ...], inexact: tuple[str, ...],
    calibration: tuple[str, int] = ("", 0), expected: int = 0,
) -> Facts:  # fmt: skip
    """The values for a target's templates.

    Args:
        target: the program.
        net: the detector.
        names: its classes.
        nets: as written.
        inexact: what is not exact about the written nets.
        calibration: path of the list in the folder, and the number of images.
        expected: number of images whose outputs are in the folder.
    """
    arch, nms = net.arch, net.arch.nms
    return Facts(
        name=target.name,
        title=target.title,
        version=__version__,
        nets=nets,
        height=arch.input_size[0],
        width=arch.input_size[1],
        mean=arch.pixel_mean,
        scale=arch.pixel_scale,
        std=1 / arch.pixel_scale,
        resizer=arch.resizer,
        pad=_pad(arch),
        labels=tuple(names.display_names),
        num_classes=arch.num_classes,
        boxes=net.num_default_boxes,
        converter=arch.score_converter,
        iou_threshold=nms.iou_threshold,
        score_threshold=nms.score_threshold,
        max_per_class=nms.max_per_class,
        max_total=nms.max_total,
        calibration=calibration[0],
        calibration_count=calibration[1],
        expected=expected,
        inexact=(*inexact, *target.inexact, *target.inexact_for(net)),
        checked=f"{target.checked.how}: {target.checked.what}",
        words=target.words(net),
    )


def _pad(arch: ArchSpec) -> tuple[float, ...]:
    """The padding of a letterbox in the units of pixels: blue, green, red."""
    values = arch.resizer.pad_value[::-1]
    if not arch.resizer.normalise_first:
        return values
    return tuple(value / arch.pixel_scale + arch.pixel_mean for value in values)


def python_text(text: str) -> str:
    """A text as a literal of Python and of JSON, for templates: quotes and control characters are escaped."""
    return json.dumps(text)
