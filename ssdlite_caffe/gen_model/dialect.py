"""How a net is written, as opposed to what it computes: the choices that a Caffe fork or a runtime forces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Stage = Literal["train", "test", "deploy", "headless"]
ActivationDialect = Literal["relu6", "clip", "stock", "relu"]
PaddingDialect = Literal["exact", "slice", "pad-layer", "tf_pad", "symmetric"]
BatchNormDialect = Literal["keep", "frozen", "fold"]
DepthwiseDialect = Literal["Convolution", "ConvolutionDepthwise", "DepthwiseConvolution"]
ClipDialect = Literal["exact", "late"]
Engine = Literal["DEFAULT", "CAFFE", "CUDNN"]


@dataclass(frozen=True)
class Dialect:
    """The choices; see `inexact` for those that change what is computed.

    Attributes:
        activation: relu6 uses the ReLU6 layer, clip the Clip layer, stock ReLU and Power alone; relu drops the upper
            bound and is not exact.
        padding: where TensorFlow pads one more after than before: exact makes the kernel one larger with a zero
            first row and column; slice computes one more window and cuts it off; pad-layer uses a Pad layer; tf_pad
            the field of that name; symmetric is not exact.
        batch_norm: keep BatchNorm and Scale layers; keep them with the statistics they come with, in training too
            (frozen), for small batches; or fold them into the convolution.
        depthwise: layer type of depthwise convolutions.
        engine: written into depthwise convolutions unless DEFAULT.
        clip: for models that clip boxes to the image before suppression: exact decodes and clips them with stock layers
            in front of DetectionOutput; late leaves it out, for readers that know the usual DetectionOutput alone, and
            is not exact where boxes reach over the border. Other models are the same either way.
    """

    activation: ActivationDialect = "relu6"
    padding: PaddingDialect = "exact"
    batch_norm: BatchNormDialect = "fold"
    depthwise: DepthwiseDialect = "Convolution"
    engine: Engine = "DEFAULT"
    clip: ClipDialect = "exact"

    def inexact(self, *, clip_first: bool) -> tuple[str, ...]:
        """The choices that change what is computed; `clip_first` says whether the model clips before suppression."""
        choices = (
            ("activation relu", self.activation == "relu"),
            ("padding symmetric", self.padding == "symmetric"),
            ("clip late", self.clip == "late" and clip_first),
        )
        return tuple(name for name, chosen in choices if chosen)


@dataclass(frozen=True)
class DataPaths:
    """What the data layers of train and test nets name."""

    lmdb: str = ""
    label_map: str = "labelmap.prototxt"
    name_size_file: str = ""
    batch_size: int = 0
    """0: 24 for train, 8 for test."""
    zoom: float = 4.0
    """Most that training shrinks images; 1: never."""
