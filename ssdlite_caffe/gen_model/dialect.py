"""How a net is written for a Caffe fork or another runtime, as opposed to what it computes."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Literal

from ssdlite_caffe.errors import ArchError

Stage = Literal["train", "test", "deploy", "headless"]
ActivationDialect = Literal["relu6", "clip", "stock", "relu"]
PaddingDialect = Literal["exact", "slice", "shift", "pad-layer", "tf_pad", "symmetric"]
BatchNormDialect = Literal["keep", "frozen", "fold", "fold-body"]
DepthwiseDialect = Literal["Convolution", "ConvolutionDepthwise", "DepthwiseConvolution"]
ClipDialect = Literal["exact", "late"]
Engine = Literal["DEFAULT", "CAFFE", "CUDNN"]
LinearDialect = Literal["power", "scale"]
GateDialect = Literal["scale", "deconvolution", "interp", "eltwise"]
CoefficientsDialect = Literal["eltwise", "power"]
NamesDialect = Literal["in-place", "tops"]
OutputsDialect = Literal["joined", "per-map"]
FieldsDialect = Literal["needed", "all"]
PriorsDialect = Literal["layer", "constant", "none"]
InputDialect = Literal["layer", "fields"]


@dataclass(frozen=True)
class Dialect:
    """How a net is written. See `inexact` for the choices that change what is computed.

    Attributes:
        activation: how ReLU6 is written. relu6: as a ReLU6 layer; clip: as a Clip layer; stock: with ReLU and Power
            layers; relu: as ReLU, without the upper bound, which is not exact.
        padding: how TensorFlow's padding is written where it has one more zero after than before. exact: the kernel is
            one larger, its first row and column zero; slice: one more window is computed and cut off; shift: the same,
            but depthwise 3x3 kernels have no larger pad, in deploy and headless nets (see `moved_maps.py`); pad-layer:
            with a Pad layer; tf_pad: with the field tf_pad; symmetric: the same on both sides, which is not exact.
        batch_norm: keep: as BatchNorm and Scale layers; frozen: the same, but training does not change their
            statistics, for small batches; fold: folded into the convolutions; fold-body: the same, but the predictors
            keep theirs, as in the public MobileNetv2-SSDLite nets.
        depthwise: layer type of depthwise convolutions.
        engine: `engine` of depthwise convolutions; DEFAULT is not written.
        clip: how clipping of boxes to the image before suppression is written, in models that do it. exact: boxes are
            decoded and clipped by stock layers in front of DetectionOutput; late: not at all, for runtimes that only
            know the usual DetectionOutput, which is not exact for boxes that reach over the border.
        linear: how scale * x + shift is written. power: as a Power layer; scale: as a Scale layer with constant blobs.
        gate: how a squeeze-excite gate multiplies its map. scale: by a Scale layer with two bottoms; deconvolution: by
            a Deconvolution of ones that makes a map of the gate, and an Eltwise product; interp: the same with an
            Interp layer; eltwise: by an Eltwise product of the map and the gate's 1 x 1, which few runtimes take.
        coefficients: where a weighted sum has its weights. eltwise: in the Eltwise layer (`coeff`); power: in Power
            layers before it.
        names: in-place: as in the public nets, activations in place; tops: every layer writes a blob of its own, named
            as the layer.
        outputs: of the headless net. joined: mbox_loc, mbox_conf and mbox_priorbox; per-map: box encodings and logits
            of each feature map on their own.
        fields: of convolutions. needed: those that differ from Caffe's defaults; all: pad, stride, dilation, group and
            bias_term too.
        priors: where default boxes are. layer: PriorBox layers make them; constant: they are the bias of an
            InnerProduct layer, which also holds boxes that PriorBox cannot make; none: not in the headless net, which
            has no deploy net beside it, but in a file.
        input_form: layer: the deploy net's input is an Input layer; fields: it is the net's `input` and `input_shape`.
    """

    activation: ActivationDialect = "relu6"
    padding: PaddingDialect = "exact"
    batch_norm: BatchNormDialect = "fold"
    depthwise: DepthwiseDialect = "Convolution"
    engine: Engine = "DEFAULT"
    clip: ClipDialect = "exact"
    linear: LinearDialect = "power"
    gate: GateDialect = "scale"
    coefficients: CoefficientsDialect = "eltwise"
    names: NamesDialect = "in-place"
    outputs: OutputsDialect = "joined"
    fields: FieldsDialect = "needed"
    input_form: InputDialect = "layer"
    priors: PriorsDialect = "layer"

    def __post_init__(self) -> None:
        """Check every choice.

        Raises:
            ArchError: one is not allowed; the text names it and the choices.
        """
        for field, allowed in typing.get_type_hints(Dialect).items():
            value = getattr(self, field)
            if value not in typing.get_args(allowed):
                raise ArchError(f"{field} must be one of {', '.join(typing.get_args(allowed))}, got {value!r}")

    def inexact(self, *, clip_first: bool) -> tuple[str, ...]:
        """The choices that change what is computed; `clip_first`: whether the model clips boxes before suppression."""
        choices = (
            ("activation relu", self.activation == "relu"),
            ("padding symmetric", self.padding == "symmetric"),
            ("clip late", self.clip == "late" and clip_first),
        )
        return tuple(name for name, chosen in choices if chosen)


@dataclass(frozen=True)
class DataPaths:
    """Settings of train and test nets beside the net itself: of their data layers, and of the loss.

    Attributes:
        lmdb: path of the LMDB; empty: trainval_lmdb for train, test_lmdb for test.
        label_map: path of the label map.
        name_size_file: path of the list of image names and sizes, for the test net; may be empty.
        batch_size: images per batch; 0: 24 for train, 8 for test.
        zoom: the largest factor by which training shrinks images; 1: never.
        loc_weight: factor of the loss of the boxes.
    """

    lmdb: str = ""
    label_map: str = "labelmap.prototxt"
    name_size_file: str = ""
    batch_size: int = 0
    zoom: float = 4.0
    loc_weight: float = 1.0
