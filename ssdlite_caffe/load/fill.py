"""Filling a Caffe net with a TensorFlow model's weights. It is an error if a tensor stays unused or a blob unfilled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump.model import DumpedModel
from ssdlite_caffe.errors import PrototxtError, TensorError
from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.gen_model.default_boxes import tf_default_boxes
from ssdlite_caffe.gen_model.layers import BOXES_LAYER
from ssdlite_caffe.gen_model.moved_maps import is_moved
from ssdlite_caffe.gen_model.netdesc import ConvDesc, FeatureMapDesc, NetDesc, PriorBoxDesc
from ssdlite_caffe.gen_model.prior_boxes import cell_sizes, prior_grid
from ssdlite_caffe.load.boxes import CellMatch, box_predictor_rows, class_predictor_rows, match_cell
from ssdlite_caffe.load.constants import constants
from ssdlite_caffe.load.fold import fold_into_convolution
from ssdlite_caffe.load.layouts import enlarge_kernel, reverse_input_channels
from ssdlite_caffe.load.names import named_as, with_blobs_of
from ssdlite_caffe.load.own_boxes import (
    boxes_layer_blobs,
    holds_own_boxes,
    order_in_cell,
    own_default_boxes,
    own_priors,
)
from ssdlite_caffe.load.units import UnitWeights, unit_problems, unit_weights
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.rules import CONVOLUTIONS
from ssdlite_caffe.prototxt.rules_opencv import infer_for_any
from ssdlite_caffe.prototxt.sizes import Shape

FILLED = CONVOLUTIONS | {"BatchNorm", "Scale"}
"""Layer types with learned blobs in a converted net; if one of them gets none, its own method reports why."""
FACTOR = np.ones(1, np.float32)
"""BatchNorm's third blob: Caffe divides mean and variance by it, and a 0 would silently set both to 0."""

SAME_STEP = 1e-5
"""Relative difference up to which two steps are equal, and two centres, in steps."""
MOST_LISTED = 40
"""Problems that are listed; with more of them the net is a different one."""


@dataclass(frozen=True)
class LayerBlobs:
    """The weights of a net.

    Attributes:
        blobs: layer name -> its blobs, float32, in Caffe's order.
        left: name of a layer that keeps its filler (fine-tuning) -> the reason.
    """

    blobs: dict[str, tuple[FloatArray, ...]]
    left: dict[str, str] = field(default_factory=dict)


def fill(net: caffe_pb2.NetParameter, desc: NetDesc, model: DumpedModel, *, finetune: bool = False) -> LayerBlobs:
    """Weights for every layer of `net` that has any.

    The net is one that `gen` wrote for the same detector, in any dialect, or an earlier project's: its layers show how
    they are named, whether BatchNorm is kept or folded, and which kernels are one larger.

    Args:
        net: the parsed prototxt.
        desc: the net that `build` makes of the model's own ArchSpec.
        model: the weights.
        finetune: class predictors of another class count keep their fillers.

    Raises:
        TensorError: a tensor is missing, is unused or has another shape, or a layer cannot be filled; all are listed.
        PrototxtError: the net has unknown layers, unknown bottoms or shapes that do not fit; all are listed.
    """
    filler = _Filler(net, with_blobs_of(named_as(desc, net), net), model, finetune)
    return LayerBlobs({name: blobs for name, blobs in filler.run() if blobs}, filler.left)


def filled_layers(
    net: caffe_pb2.NetParameter, desc: NetDesc, model: DumpedModel
) -> Iterator[tuple[str, tuple[FloatArray, ...]]]:
    """The same layer by layer, in the net's order, so that not all blobs are in memory at once.

    What is wrong is raised at the end, or before the first layer: what was made of the layers must then be dropped.

    Yields:
        The name of every layer of `net` and its blobs, () for a layer without any.

    Raises:
        TensorError, PrototxtError: as `fill`.
    """
    return _Filler(net, with_blobs_of(named_as(desc, net), net), model, finetune=False).run()


class _Filler:
    def __init__(self, net: caffe_pb2.NetParameter, desc: NetDesc, model: DumpedModel, finetune: bool) -> None:
        self.net = net
        self.layers = {layer.name: layer for layer in net.layer}
        self.model = model
        self.desc = desc
        self.finetune = finetune
        self.convs = {conv.name: conv for conv in desc.convolutions}
        self.units = {unit.scope: unit for unit in model.units}
        self.maps = {conv.name: m for m in desc.feature_maps for conv in (m.loc[-1], m.conf[-1])}
        self.problems: list[str] = []
        self.left: dict[str, str] = {}
        self.used: set[str] = set()
        self.weights: dict[str, UnitWeights | None] = {}
        self.matches: dict[str, CellMatch | None] = {}
        self.input_size = desc.arch.input_size
        self.own = holds_own_boxes(net, desc)

    def run(self) -> Iterator[tuple[str, tuple[FloatArray, ...]]]:
        """Name and blobs of every layer, and then an error if there were problems."""
        shapes = infer_for_any(self.net)
        if shapes.errors:
            raise PrototxtError("the layers do not fit together:\n  " + "\n  ".join(p.text for p in shapes.errors))
        self.check_input(shapes.blobs.get("data"))
        held = self.constants(shapes.param_shapes)
        made: dict[str, tuple[Shape, ...]] = {}
        for layer in self.net.layer:
            blobs = held[layer.name] if layer.name in held else self.layer_blobs(layer) or ()
            if blobs:
                made[layer.name] = tuple(blob.shape for blob in blobs)
            yield layer.name, blobs
        self.compare(made, shapes.param_shapes)
        self.compare_maps(shapes.blobs)
        for name in sorted(self.convs.keys() - self.layers.keys()):
            self.problems.append(
                f"the net has no layer {name!r}, which the model's {self.convs[name].tf_scope} would fill"
            )
        for name in sorted(self.model.tensors.keys() - self.used):
            self.problems.append(f"tensor {name!r} {self.model.tensors[name].shape} is not used by the net")
        if self.problems:
            count, arch = len(self.problems), self.desc.arch
            more = [f"... and {count - MOST_LISTED} more"] if count > MOST_LISTED else []
            raise TensorError(
                f"the weights (of a {arch.family} {arch.head}, width multiplier {arch.width_multiplier:g}, "
                f"{arch.num_classes} classes) do not fit the net, {count} problem{'s' * (count > 1)}:\n  "
                + "\n  ".join(self.problems[:MOST_LISTED] + more)
            )

    def constants(self, shapes: Mapping[str, tuple[Shape, ...]]) -> dict[str, tuple[FloatArray, ...]]:
        """Blobs of the layers that learn nothing; a layer that has the model's weights is not one of them."""
        learned = {name + suffix for name in self.convs for suffix in ("", "/bn", "/scale")}
        return {name: blobs for name, blobs in constants(self.net, shapes).items() if name not in learned}

    def check_input(self, shape: Shape | None) -> None:
        """Check the net's input size, in whose pixels the PriorBox layers give the sizes of default boxes."""
        if shape is None or len(shape) != 4 or shape[2:] == self.input_size:
            return
        (height, width), model = shape[2:], self.input_size
        if self.finetune:
            self.input_size = height, width
        else:
            self.problems.append(
                f"the net's input is {height}x{width}, the model's {model[0]}x{model[1]}; "
                "give --finetune to use the weights at another size"
            )

    def compare(self, found: Mapping[str, tuple[Shape, ...]], wanted: Mapping[str, tuple[Shape, ...]]) -> None:
        """Check the shapes of the filled blobs against those that Caffe wants."""
        for name, shapes in wanted.items():
            made = found.get(name, ())
            if made and made != shapes:
                self.problems.append(f"layer {name!r} needs blobs of {shapes}, the model has {made}")
            elif not made and self.layers[name].type not in FILLED:
                self.problems.append(
                    f"layer {name!r} has the type {self.layers[name].type}, which no MobileNet SSD has"
                )

    def compare_maps(self, blobs: Mapping[str, tuple[int, ...] | None]) -> None:
        """Check the sizes of the feature maps, which differ with other strides and pads, and the score layer.

        Feature maps of a net with another input size are not compared; `check_input` has reported the size.
        """
        read = blobs.get("data")
        same_input = read is not None and read[2:] == self.desc.arch.input_size
        for conv in self.convs.values():
            shape = blobs.get(conv.top)
            other = shape is not None and shape[2:] != conv.out_size and not is_moved(shape, conv.out_size)
            if same_input and shape is not None and other:
                self.problems.append(f"layer {conv.name!r} makes maps of {shape[2:]}, the model's are {conv.out_size}")
        others = {"sigmoid": "Softmax", "softmax": "Sigmoid"}
        wrong = others[self.desc.arch.score_converter]
        if any(layer.type == wrong for layer in self.net.layer if layer.name.startswith("mbox_conf")):
            self.problems.append(f"the net makes scores by {wrong}, the model by {self.desc.arch.score_converter}")

    def layer_blobs(self, layer: caffe_pb2.LayerParameter) -> tuple[FloatArray, ...] | None:
        """Blobs of one layer; None for a layer without any, or one for which a problem was added."""
        if layer.name == BOXES_LAYER:
            return self.boxes()
        if layer.type in CONVOLUTIONS:
            return self.convolution(layer)
        if layer.type == "BatchNorm":
            return self.batch_norm(layer)
        if layer.type == "Scale" and len(layer.bottom) == 1:
            return self.scale(layer)
        return None

    def take(self, conv: ConvDesc) -> UnitWeights | None:
        """The weights of `conv`, its tensors marked as used; None if they have a problem, which is added once."""
        if conv.name not in self.weights:
            self.weights[conv.name] = self.take_first(conv)
        return self.weights[conv.name]

    def take_first(self, conv: ConvDesc) -> UnitWeights | None:
        unit = self.units.get(conv.tf_scope)
        if unit is None:
            self.problems.append(f"the model has no weights {conv.tf_scope!r} for layer {conv.name!r}")
            return None
        self.used.update(unit.tensors.values())
        problems = unit_problems(self.model, unit)
        if problems:
            self.problems += problems
            return None
        weights = unit_weights(self.model, unit)
        if conv.name in self.maps:
            ready = self.predictor(conv, weights)
            if ready is None:
                return None
            weights = ready
        if conv.role == "stem":
            weights = UnitWeights(reverse_input_channels(weights.kernel), weights.bias, weights.norm)
        wanted = (conv.num_output, conv.in_channels // conv.group, *conv.kernel)
        if weights.kernel.shape != wanted:
            self.problems.append(
                f"tensor {unit.tensors['weights']!r} makes a kernel of {weights.kernel.shape}, "
                f"layer {conv.name!r} needs {wanted}"
            )
            return None
        return weights

    def predictor(self, conv: ConvDesc, weights: UnitWeights) -> UnitWeights | None:
        """A predictor's weights in the order of the net's own PriorBox layer."""
        feature_map = self.maps[conv.name]
        boxes = len(feature_map.tf_boxes)
        if feature_map.blob not in self.matches:
            self.matches[feature_map.blob] = self.match(feature_map)
        match = self.matches[feature_map.blob]
        if match is None:
            return None
        bias = np.zeros(weights.kernel.shape[0], np.float32) if weights.bias is None else weights.bias
        if conv.role == "box_predictor":
            if weights.kernel.shape[0] != boxes * 4:
                self.problems.append(
                    f"{conv.tf_scope!r} has {weights.kernel.shape[0]} outputs, {boxes} boxes need {boxes * 4}"
                )
                return None
            scales = self.model.settings.box_coder_scales
            assert scales is not None, "recognised without a box coder"
            kernel, bias = box_predictor_rows(weights.kernel, bias, match, scales, self.prior(feature_map).variances)
        else:
            classes, rest = divmod(weights.kernel.shape[0], boxes)
            if rest:
                self.problems.append(
                    f"{conv.tf_scope!r} has {weights.kernel.shape[0]} outputs, not a multiple of its {boxes} boxes"
                )
                return None
            scale = self.model.settings.logit_scale
            kernel, bias = class_predictor_rows(weights.kernel, bias, match, classes, 1.0 if scale is None else scale)
        return UnitWeights(kernel, bias, weights.norm)

    def match(self, feature_map: FeatureMapDesc) -> CellMatch | None:
        name = feature_map.blob + "_mbox_priorbox"
        layer = self.layers.get(name)
        if self.own:
            if layer is not None:
                self.problems.append(
                    f"layer {name!r} makes other default boxes than the model's: {self.desc.arch.irregular_boxes}; "
                    "write the net with --priors constant"
                )
                return None
            order = order_in_cell(feature_map, self.desc.arch.input_size)
            return CellMatch(order, (1.0,) * len(order), (1.0,) * len(order))
        caffe_sizes = cell_sizes(self.prior(feature_map), self.input_size)
        if len(caffe_sizes) != len(feature_map.tf_boxes):
            self.problems.append(
                f"layer {name!r} makes {len(caffe_sizes)} boxes per cell, the model has {len(feature_map.tf_boxes)}"
            )
            return None
        moving = [] if layer is None else moving_fields(layer.prior_box_param, placed=feature_map.grid is not None)
        if moving:
            self.problems.append(
                f"layer {name!r} sets {', '.join(moving)}: its boxes are not on the centres of their cells; remove it"
            )
            return None
        shift = self.shift(feature_map)
        if shift is None:
            self.problems.append(f"layer {name!r} has another step from cell to cell than the model's default boxes")
            return None
        return match_cell(feature_map.tf_boxes, caffe_sizes).shifted(shift, caffe_sizes)

    def shift(self, feature_map: FeatureMapDesc) -> tuple[float, float] | None:
        """(y, x) from the centres of the PriorBox's boxes to those of the model's; None if they have another step."""
        if self.input_size != self.desc.arch.input_size or feature_map.grid is None:  # fine-tuning, or cell centres
            return 0.0, 0.0
        ours = prior_grid(self.prior(feature_map), feature_map.size, self.input_size)
        found = []
        for axis, count in enumerate(feature_map.size):
            (step, first), (wanted, start) = ((grid[0][axis], grid[1][axis]) for grid in (ours, feature_map.grid))
            if count > 1 and abs(step - wanted) > SAME_STEP * wanted:
                return None
            found.append(0.0 if abs(start - first) <= SAME_STEP * wanted else start - first)
        return found[0], found[1]

    def boxes(self) -> tuple[FloatArray, ...] | None:
        """Blobs of the layer that holds all default boxes, in the order of `match`."""
        boxes, net = own_default_boxes(self.model, self.desc), self.desc
        if self.input_size != net.arch.input_size:  # for fine-tuning
            if net.arch.irregular_boxes:
                self.problems.append(f"the model's boxes are for its own input size: {net.arch.irregular_boxes}")
                return None
            other = build(replace(net.arch, input_size=self.input_size))
            boxes = tf_default_boxes(other).astype(np.float32)
            maps = tuple(replace(m, size=o.size) for m, o in zip(net.feature_maps, other.feature_maps, strict=True))
            net = replace(net, feature_maps=maps)
        return boxes_layer_blobs(own_priors(boxes, net))

    def prior(self, feature_map: FeatureMapDesc) -> PriorBoxDesc:
        """The net's own PriorBox, which may have been edited; that of the NetDesc where the net has none."""
        layer = self.layers.get(feature_map.blob + "_mbox_priorbox")
        if layer is None:
            return feature_map.prior
        param = layer.prior_box_param
        variances = list(param.variance) or [0.1]  # Caffe's own default
        x, y, width, height = variances * 4 if len(variances) == 1 else variances
        return PriorBoxDesc(
            tuple(param.min_size),
            tuple(param.max_size),
            tuple(param.aspect_ratio),
            param.flip,
            (x, y, width, height),
            param.offset,
            (param.step_h or param.step, param.step_w or param.step) if param.step_h or param.step else None,
        )

    def convolution(self, layer: caffe_pb2.LayerParameter) -> tuple[FloatArray, ...] | None:
        conv = self.convs.get(layer.name)
        if conv is None:
            self.problems.append(f"layer {layer.name!r} is not in the model")
            return None
        if self.other_classes(conv, layer):
            return None
        weights = self.take(conv)
        if weights is None:
            return None
        param = layer.convolution_param
        if param.num_output != conv.num_output or max(param.group, 1) != conv.group:
            self.problems.append(
                f"layer {layer.name!r} has {param.num_output} outputs in {param.group} groups, the model "
                f"{conv.num_output} in {conv.group}"
            )
            return None
        size = kernel_size(param)
        if size not in _kernels(conv.kernel):
            self.problems.append(
                f"layer {layer.name!r} has a {size[0]}x{size[1]} kernel, the model {conv.kernel[0]}x{conv.kernel[1]}"
            )
            return None
        kernel, bias = weights.kernel, weights.bias
        # The BatchNorm's layers need no kernel any more, and all kernels together are as large as the model.
        self.weights[conv.name] = UnitWeights(np.empty((len(kernel), 0), kernel.dtype), weights.bias, weights.norm)
        if layer.name + "/bn" in self.layers:
            if param.bias_term:
                self.problems.append(f"layer {layer.name!r} has a bias and a BatchNorm; gen writes one or the other")
                return None
            return (enlarge_kernel(kernel, size),)
        affine = weights.affine()
        if conv.plain and affine is None and bias is None and not param.bias_term:
            return (enlarge_kernel(kernel, size),)
        if affine is not None:
            kernel, bias = fold_into_convolution(kernel, bias, affine)
        if not param.bias_term:
            self.problems.append(f"layer {layer.name!r} has neither bias nor BatchNorm, which the model's offset needs")
            return None
        if bias is None:
            bias = np.zeros(conv.num_output, np.float32)
        return enlarge_kernel(kernel, size), bias

    def other_classes(self, conv: ConvDesc, layer: caffe_pb2.LayerParameter) -> bool:
        """Whether this is a class predictor of another class count, which keeps its filler when fine-tuning."""
        outputs = layer.convolution_param.num_output
        if conv.role != "class_predictor" or outputs == conv.num_output or not self.finetune:
            return False
        unit = self.units.get(conv.tf_scope)
        if unit is not None:
            self.used.update(unit.tensors.values())
        self.left[layer.name] = f"{outputs} outputs in the net, {conv.num_output} in the model"
        return True

    def normed(self, layer: caffe_pb2.LayerParameter, suffix: str) -> tuple[ConvDesc, UnitWeights] | None:
        """The convolution that a BatchNorm or Scale layer belongs to, with its weights; None if there is none."""
        conv = self.convs.get(layer.name.removesuffix(suffix))
        if conv is None or not layer.name.endswith(suffix):
            self.problems.append(f"layer {layer.name!r} ({layer.type}) does not belong to a convolution of the model")
            return None
        weights = self.take(conv)
        return None if weights is None else (conv, weights)

    def batch_norm(self, layer: caffe_pb2.LayerParameter) -> tuple[FloatArray, ...] | None:
        found = self.normed(layer, "/bn")
        if found is None:
            return None
        if found[0].name + "/scale" not in self.layers:
            self.problems.append(f"layer {layer.name!r} needs a Scale layer {found[0].name + '/scale'!r} after it")
            return None
        norm = found[1].batch_norm(layer.batch_norm_param.eps)
        return norm.mean, norm.variance, FACTOR

    def scale(self, layer: caffe_pb2.LayerParameter) -> tuple[FloatArray, ...] | None:
        found = self.normed(layer, "/scale")
        if found is None:
            return None
        conv, weights = found
        batch_norm = self.layers.get(conv.name + "/bn")
        if batch_norm is None or not layer.scale_param.bias_term:
            self.problems.append(
                f"layer {layer.name!r} needs a BatchNorm layer {conv.name + '/bn'!r} before it and bias_term: true"
            )
            return None
        norm = weights.batch_norm(batch_norm.batch_norm_param.eps)
        return norm.gamma, norm.beta


def moving_fields(param: caffe_pb2.PriorBoxParameter, *, placed: bool = False) -> list[str]:
    """Fields of a PriorBox that move or cut boxes; without them boxes are on the centres of cells of equal size.

    With `placed`, the model's own boxes are not there either, and step and offset are not among these fields.
    """
    steps = () if placed else ("step", "step_h", "step_w")
    found = [name for name in (*steps, "img_size", "img_h", "img_w") if param.HasField(name)]
    moved = param.offset != 0.5 and not placed
    return [*found, *(["clip"] if param.clip else []), *(["an offset other than 0.5"] if moved else [])]


def kernel_size(param: caffe_pb2.ConvolutionParameter) -> tuple[int, int]:
    """(height, width) of a convolution's kernel, from kernel_h and kernel_w or from kernel_size."""
    if param.HasField("kernel_h") or param.HasField("kernel_w"):
        return param.kernel_h, param.kernel_w
    sizes = list(param.kernel_size)
    return (sizes[0], sizes[-1]) if sizes else (0, 0)


def _kernels(kernel: tuple[int, int]) -> set[tuple[int, int]]:
    """Sizes that a kernel may have in the net: its own, or one larger on an axis (see `layouts.enlarge_kernel`)."""
    height, width = kernel
    return {(height + a, width + b) for a in (0, 1) for b in (0, 1)}
