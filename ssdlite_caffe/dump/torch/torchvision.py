"""torchvision's ssdlite320_mobilenet_v3_large: which tensor of its state_dict is which convolution's.

The two nets that torchvision builds under these names, with a halved and with a full tail, differ in shapes alone.
Convolutions get the scopes that the Object Detection API would give them, by which the rest of the package knows them;
tensors keep their names. Kernels are moved to TensorFlow's layout, and the outputs of the box predictors from (dx, dy,
dw, dh) to (ty, tx, th, tw), which is TensorFlow's order; both bit for bit.

Source: torchvision 0.29.1, models/mobilenetv3.py, models/detection/ssdlite.py and ssd.py, models/detection/_utils.py
(BoxCoder), models/detection/anchor_utils.py (DefaultBoxGenerator), ops/misc.py (SqueezeExcitation).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump.model import ConvUnit, Settings
from ssdlite_caffe.resizer import Resizer

TITLE = "ssdlite320_mobilenet_v3_large"
MARK = "backbone.features.0.0.0.weight"
"""The stem's kernel; its name in a file, without this, is what stands before all names there."""
INPUT_SIZE = (320, 320)
MAP_SIZES = (20, 10, 5, 3, 2, 1)
BOXES_PER_CELL = 6
CODE_LIMIT = math.log(1000 / 16)
"""The most that dw and dh may be after their division by 5, before exp: bbox_xform_clip of BoxCoder."""
_EPSILON = 0.001
_GATE = 1 / 6
CONSTANTS = (1 / 6,)
"""Hard-swish and gates divide by 6; see `DumpedModel.constants`."""
_BACKBONE = "FeatureExtractor/MobilenetV3"
_SQUEEZE_EXCITE = (3, 4, 5, 10, 11, 12, 13, 14)
_HARD_SWISH_FROM = 6
_BLOCKS = 15
_C4 = 12
"""The block whose expansion is the first feature map; the rest of it is in the second part of the backbone."""

Activation = Literal["relu6", "relu", "hard_swish", "hard_sigmoid", "none"]


@dataclass(frozen=True)
class Layer:
    """A convolution of the net.

    Attributes:
        scope: the Object Detection API's; {0} stands for its number of outputs.
        kernel: name of its module, below which are `weight` and, without a BatchNorm, `bias`.
        norm: name of its BatchNorm's module; empty if there is none.
        output: name of the module that gives its result after the activation.
        activation: after it.
        depthwise: whether each channel is convolved on its own.
    """

    scope: str
    kernel: str
    norm: str
    output: str
    activation: Activation
    depthwise: bool = False

    @property
    def parts(self) -> dict[str, str]:
        """Part of a ConvUnit -> name of its tensor."""
        weights = {"weights": f"{self.kernel}.weight"}
        if not self.norm:
            return weights | {"biases": f"{self.kernel}.bias"}
        names = {
            "gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var",
        }  # fmt: skip
        return weights | {part: f"{self.norm}.{name}" for part, name in names.items()}


def layers() -> tuple[Layer, ...]:
    """All convolutions of the net, in the order of its forward pass."""
    return (*_body(), *_extras(), *_heads())


def _unit(scope: str, module: str, activation: Activation, *, depthwise: bool = False) -> Layer:
    return Layer(scope, f"{module}.0", f"{module}.1", module, activation, depthwise)


def _body() -> Iterator[Layer]:
    yield _unit(f"{_BACKBONE}/Conv", "backbone.features.0.0", "hard_swish")
    for number in range(_BLOCKS):
        scope = f"{_BACKBONE}/expanded_conv" + (f"_{number}" if number else "")
        activation: Activation = "relu" if number < _HARD_SWISH_FROM else "hard_swish"
        modules = _modules(number)
        if number:  # the first block does not expand
            yield _unit(f"{scope}/expand", next(modules), activation)
        yield _unit(f"{scope}/depthwise", next(modules), activation, depthwise=True)
        if number in _SQUEEZE_EXCITE:
            gate, inner = next(modules), f"{scope}/squeeze_excite"
            yield Layer(f"{inner}/Conv", f"{gate}.fc1", "", f"{gate}.activation", "relu")
            yield Layer(f"{inner}/Conv_1", f"{gate}.fc2", "", f"{gate}.scale_activation", "hard_sigmoid")
        yield _unit(f"{scope}/project", next(modules), "none")
    yield _unit(f"{_BACKBONE}/Conv_1", "backbone.features.1.3", "hard_swish")


def _modules(number: int) -> Iterator[str]:
    """Names of a block's modules in order; the block _C4 is cut in two, with the indices of the whole."""
    if number == _C4:
        yield "backbone.features.0.13"
        yield from (f"backbone.features.1.0.{i}" for i in (1, 2, 3))
        return
    block = f"0.{number + 1}" if number < _C4 else f"1.{number - _C4}"
    yield from (f"backbone.features.{block}.block.{i}" for i in range(4))


def _extras() -> Iterator[Layer]:
    for index in range(4):
        module, strided = f"backbone.extra.{index}", f"{_BACKBONE}/layer_17_2_Conv2d_{index + 2}_3x3_s2_{{0}}"
        yield _unit(f"{_BACKBONE}/layer_17_1_Conv2d_{index + 2}_1x1_{{0}}", f"{module}.0", "relu6")
        # This scope has the number of outputs of the 1x1 convolution after it.
        yield _unit(f"{strided}_depthwise", f"{module}.1", "relu6", depthwise=True)
        yield _unit(strided, f"{module}.2", "relu6")


def _heads() -> Iterator[Layer]:
    for index in range(len(MAP_SIZES)):
        for kind, module in (("BoxEncoding", "regression"), ("Class", "classification")):
            scope, head = f"BoxPredictor_{index}/{kind}Predictor", f"head.{module}_head.module_list.{index}"
            yield _unit(f"{scope}_depthwise", f"{head}.0", "relu6", depthwise=True)
            yield Layer(scope, f"{head}.1", "", f"{head}.1", "none")


def is_box_predictor(layer_output: str) -> bool:
    """Whether the module of this name gives box encodings."""
    return layer_output.startswith("head.regression_head.") and layer_output.endswith(".1")


def swapped_codes(count: int) -> np.ndarray:
    """For each of `count` outputs in the order ty, tx, th, tw, the one of torchvision's dx, dy, dw, dh."""
    return np.arange(count).reshape(-1, 4)[:, [1, 0, 3, 2]].reshape(-1)


def tensorflow_layout(layer: Layer, part: str, values: FloatArray) -> FloatArray:
    """A tensor in TensorFlow's layout: kernels HWIO or (depthwise) HWCM, outputs of box predictors in its order.

    Values are moved, not computed.
    """
    if is_box_predictor(layer.output) and len(values) % 4 == 0:
        values = values[swapped_codes(len(values))]
    if part == "weights" and values.ndim == 4:
        values = values.transpose(2, 3, 0, 1) if layer.depthwise else values.transpose(2, 3, 1, 0)
    return np.array(values, order="C")  # never a view, which would keep the whole file in memory


def unit_of(layer: Layer, outputs: int) -> ConvUnit:
    """The ConvUnit of a layer; `outputs`: of the convolution that gives its scope the number."""
    return ConvUnit(
        scope=layer.scope.format(outputs),
        kind="depthwise" if layer.depthwise else "conv",
        tensors=layer.parts,
        epsilon=_EPSILON if layer.norm else None,
        activation=layer.activation,
        gate_scale=_GATE if layer.activation == "hard_sigmoid" else None,
        output=layer.output,
    )


def settings_of(num_classes: int) -> Settings:
    """What torchvision's function sets, and a state_dict does not say.

    Args:
        num_classes: counts background.
    """
    return Settings(
        input_size=INPUT_SIZE,
        resizer=Resizer(half_pixel_centers=True, normalise_first=True),
        pixel_scale=2 / 255,
        pixel_offset=-1.0,
        num_classes=num_classes,
        default_boxes=default_boxes(),
        box_coder_scales=(10.0, 10.0, 5.0, 5.0),
        score_converter="softmax",
        logit_scale=1.0,
        iou_threshold=0.55,
        score_threshold=0.001,
        max_per_class=300,
        max_total=300,
        clip_first=True,
        max_candidates=300,
        keeps_empty=True,
        code_limit=CODE_LIMIT,
        extra_activation="relu6",
        explicit_padding=True,
    )


def default_boxes() -> FloatArray:
    """The default boxes as torchvision makes them: float32 (3234, 4), ymin, xmin, ymax, xmax as fractions.

    Of map k there are, in each cell, widths and heights (s, s), (s', s'), (s r2, s / r2), (s / r2, s r2), and the same
    with r3, where s = 0.2 + 0.15 k, s' = sqrt(s_k s_(k+1)) with 1 after the last, r2 = sqrt 2 and r3 = sqrt 3. Each is
    cut to at most 1; the corners may be outside. Centres are (i + 0.5) / n. Sizes and centres are rounded to float32,
    then corners are computed in float32.
    """
    scales = [0.2 + 0.75 * k / 5 for k in range(6)] + [1.0]
    found = []
    for k, side in enumerate(MAP_SIZES):
        scale, middle = scales[k], math.sqrt(scales[k] * scales[k + 1])
        pairs = [(scale, scale), (middle, middle)]
        for ratio in (2, 3):
            root = math.sqrt(ratio)
            pairs += [(scale * root, scale / root), (scale / root, scale * root)]
        sizes = np.minimum(np.asarray(pairs, np.float32), np.float32(1))[:, ::-1]  # height, width
        places = (np.arange(side, dtype=np.float32) + np.float32(0.5)) / np.float32(side)
        centres = np.stack(np.meshgrid(places, places, indexing="ij"), axis=-1)[:, :, None, :]
        half = np.float32(0.5) * sizes
        found.append(np.concatenate([centres - half, centres + half], axis=-1).reshape(-1, 4))
    return np.concatenate(found)
