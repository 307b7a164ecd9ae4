"""What is said about a program that reads Caffe's files; the programs are in `limits_*.py`, gathered in `limits.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.rule import Rule
from ssdlite_caffe.prototxt.rules_ssd import RULES
from ssdlite_caffe.prototxt.shapes import LayerShapes, Severity


@dataclass(frozen=True)
class FieldRule:
    """A field that a runtime rejects or requires.

    Attributes:
        path: the field, seen from the layer: `convolution_param.tf_pad`.
        severity: of the problem.
        text: why, and what to do.
        wanted: True if the field must be set, False if it must not be set.
        type: the only layer type that the rule is for, "" for all.
        value: the only value that the rule is for, None for all.
    """

    path: str
    severity: Severity
    text: str
    wanted: bool = False
    type: str = ""
    value: int | None = None


@dataclass(frozen=True)
class Check:
    """What a runtime does not take for more than one field's sake.

    Attributes:
        find: from a layer and its shapes to what is wrong with it and what to do, "" for nothing. Shapes may be None.
        severity: of the problem.
    """

    find: Callable[[caffe_pb2.LayerParameter, LayerShapes], str]
    severity: Severity = "error"


@dataclass(frozen=True)
class Source:
    """Where a table is from.

    Attributes:
        how: run: the program itself was started on nets; read: its sources or documents were read.
        what: program and version, or what was read.
    """

    how: Literal["run", "read"]
    what: str


@dataclass(frozen=True)
class Runtime:
    """A program that reads Caffe's files.

    Attributes:
        title: its name in messages.
        source: where the table is from.
        layers: the layer types it runs; all others are errors.
        instead: layer type that it does not run -> what to do.
        fields: see FieldRule.
        checks: see Check.
        warnings: layer type that it runs -> what is different there.
        last_field: greatest number of a field of a layer that it knows, 0 if it knows all.
        own_fields: fields of a layer that it knows and Caffe does not.
        rules: layer type -> how its shapes are computed.
        old_nets: severity of the format before 2014.
        harmless: kinds of problems of a net that Caffe alone has.
        skips: messages whose unknown fields do no harm.
        all_phases: whether it reads layers of every phase, whatever `include` and `exclude` say.
        whole_slices: whether every top of a Slice without slice_point has to be read: it makes as many parts as are.
        even_kernels: the warning about convolutions with even kernels, "" for none.
        net_inputs: the warning about `input` fields outside of layers, "" for none.
    """

    title: str
    source: Source
    layers: frozenset[str]
    instead: dict[str, str] = field(default_factory=dict)
    fields: tuple[FieldRule, ...] = ()
    checks: tuple[Check, ...] = ()
    warnings: dict[str, str] = field(default_factory=dict)
    last_field: int = 0
    own_fields: frozenset[str] = frozenset()
    rules: Mapping[str, Rule] = field(default_factory=lambda: RULES)
    old_nets: Severity = "warning"
    harmless: frozenset[str] = frozenset()
    skips: frozenset[str] = frozenset()
    all_phases: bool = False
    whole_slices: bool = False
    even_kernels: str = ""
    net_inputs: str = ""


def types(names: str) -> frozenset[str]:
    """A set of the words of a text."""
    return frozenset(names.split())


STOCK_ACTIVATION = "write it with ReLU and Power layers (--activation stock)"
HEADLESS = "use a headless net, which ends at mbox_loc and mbox_conf, and decode on the CPU"
TRAINING = "it is for training and evaluation in Caffe; use a deploy net"
KERNEL = "use --padding exact, whose kernels are one larger"
RELU6 = "write ReLU6 (--activation relu6)"
CLIP_LATE = "convert with --clip late, or use a headless net"
LINEAR_SCALE = "write it as a Scale layer with constant weights (--linear scale)"
NO_PRIORS = "write the default boxes to a file (--priors none)"
NO_SILENCE = "it computes nothing: take the layer out, or use --padding exact"
GROUP = "write Convolution with group (--depthwise Convolution)"
TRAINING_LAYERS = (
    "AnnotatedData", "Data", "ImageData", "HDF5Data", "WindowData", "VideoData", "DummyData",
    "MultiBoxLoss", "DetectionEvaluate", "Accuracy", "SoftmaxWithLoss", "EuclideanLoss", "SigmoidCrossEntropyLoss",
    "SmoothL1Loss", "HingeLoss", "InfogainLoss", "MultinomialLogisticLoss", "ContrastiveLoss",
)  # fmt: skip
