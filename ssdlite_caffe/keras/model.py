"""ArchSpec -> Keras model, from the same family tables as the Caffe nets: `build_model`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ssdlite_caffe.coco.label_map import Label, LabelMap, check_classes, numbered
from ssdlite_caffe.errors import ArchError
from ssdlite_caffe.gen_model.arch import Activation, ArchSpec
from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.gen_model.netdesc import AddDesc, ConvDesc, GateDesc, GlobalPoolDesc, NetDesc, NodeDesc
from ssdlite_caffe.gen_model.padding import same_padding
from ssdlite_caffe.imports import import_keras
from ssdlite_caffe.keras.names import (
    POSTPROCESSOR,
    PREDICTIONS,
    PREPROCESSOR,
    batch_norm_scope,
    layer_name,
    node_scopes,
)

Inputs = Literal["network", "pixels", "image"]
Outputs = Literal["raw", "decoded", "detections"]
DType = Literal["float32", "float64", "mixed_float16", "mixed_bfloat16"]
KERNEL_STDDEV = 0.03
"""Initial kernels have a truncated normal distribution with this standard deviation in the OD API's configurations."""


@dataclass(frozen=True)
class KerasModel:
    """A Keras model with its description.

    Attributes:
        model: a functional keras.Model.
        arch: the detector.
        labels: its classes, background first.
    """

    model: Any
    arch: ArchSpec
    labels: LabelMap

    def rebuilt(self, **options: Any) -> KerasModel:
        """The same weights in a model with other inputs, outputs or dtype; options as of `build_model`."""
        other = build_model(self.arch, self.labels, **options)
        other.set_weights(self.model.get_weights())
        return KerasModel(other, self.arch, self.labels)


def with_threshold(detector: KerasModel, score_threshold: float) -> KerasModel:
    """The detector with another score threshold, which only models built with `rebuilt` use."""
    nms = dataclasses.replace(detector.arch.nms, score_threshold=score_threshold)
    return dataclasses.replace(detector, arch=dataclasses.replace(detector.arch, nms=nms))


def build_model(
    arch: ArchSpec,
    labels: LabelMap | None = None,
    *,
    inputs: Inputs = "network",
    outputs: Outputs = "raw",
    dtype: DType = "float32",
    momentum: float | None = None,
    class_bias: float = 0.0,
) -> Any:
    """Build a functional Keras model; its layers are named after TensorFlow's scopes (see `names`).

    Args:
        arch: architecture of a detector.
        labels: its classes; None: numbered names.
        inputs: `network`: the normalised network input, float (B, H, W, 3) RGB; `pixels`: 0..255 at the network's size;
            `image`: uint8 images of any size, resized as in TensorFlow 1.
        outputs: `raw`: a dict of box_encodings (B, N, 4) ty, tx, th, tw and class_predictions_with_background
            (B, N, C) logits, in TensorFlow's order of boxes; `decoded`: boxes (B, N, 4) ymin, xmin, ymax, xmax and
            scores (B, N, C); `detections`: detection_boxes, detection_scores, detection_classes, num_detections, as
            the OD API's graphs give them.
        dtype: Keras' dtype policy of the layers with weights.
        momentum: of the moving statistics; None: as in the model zoo's configurations, 0.97 for V3, else 0.9997.
        class_bias: initial bias of the class predictors (-4.6 in the model zoo's configurations with focal loss).

    Returns:
        keras.Model.

    Raises:
        ArchError: `arch` is a classifier, cannot be built, or resizes images in another way than `inputs` does.
        LabelMapError: `labels` has another number of classes.
        MissingRuntimeError: Keras or TensorFlow is not installed.
    """
    if arch.classifier:
        raise ArchError("only detectors can be built as Keras models, and this architecture is a classifier")
    if arch.pyramid is not None:
        raise ArchError("a detector with a feature pyramid (fpnlite) cannot be built as a Keras model yet")
    if inputs == "image" and not arch.resizer.plain:
        raise ArchError(
            "a Keras model or graph that reads images of any size resizes them bilinearly to the input size, and this "
            f"detector's images are resized by {arch.resizer.text()}; use inputs of the network's size"
        )
    labels = labels or numbered(arch.num_classes)
    check_classes(labels, arch.num_classes)
    return _Builder(build(arch), labels, dtype, momentum, class_bias).model(inputs, outputs)


def detector_of(model: Any) -> KerasModel | None:
    """The description of a Keras model from its `Predictions` layer; None if it has none."""
    from ssdlite_caffe.keras.layers import Predictions

    found = [layer for layer in model.layers if isinstance(layer, Predictions)]
    if len(found) != 1:
        return None
    labels = LabelMap(tuple(Label(i, name, shown) for i, (name, shown) in enumerate(found[0].labels)))
    check_classes(labels, found[0].arch.num_classes, "the model's label map")
    return KerasModel(model, found[0].arch, labels)


class _Builder:
    def __init__(self, net: NetDesc, labels: LabelMap, dtype: DType, momentum: float | None, class_bias: float) -> None:
        self.keras, _ = import_keras()
        from ssdlite_caffe.keras import layers

        self.own = layers
        self.net, self.arch, self.labels = net, net.arch, labels
        self.dtype: str = dtype
        self.result_dtype = "float64" if dtype == "float64" else "float32"
        self.momentum = momentum or (0.97 if net.arch.is_v3 else 0.9997)
        self.class_bias = class_bias
        self.scopes = node_scopes(net)

    def model(self, inputs: Inputs, outputs: Outputs) -> Any:
        start, data = self.start(inputs)
        blobs = {"data": data}
        for section in self.net.sections:
            for node in section.nodes:
                blobs[node.top] = self.node(node, blobs)
        maps = list(self.heads(blobs))
        arch = self.arch.to_dict()
        labels = [[entry.name, entry.display_name] for entry in self.labels.entries]
        end = self.own.Predictions(arch, labels, name=PREDICTIONS, dtype=self.result_dtype)(maps)
        if outputs != "raw":
            end = self.own.Decode(arch, name=POSTPROCESSOR, dtype=self.result_dtype)(end)
        if outputs == "detections":
            end = self.own.NonMaxSuppression(arch, name=f"{POSTPROCESSOR}.NMS", dtype="float32")(end)
        return self.keras.Model(start, end, name=layer_name(self.net.name))

    def start(self, inputs: Inputs) -> tuple[Any, Any]:
        """The model's input, and the input of the stem."""
        height, width = self.arch.input_size
        if inputs == "network":
            data = self.keras.Input((height, width, 3), name="network_input", dtype=self.result_dtype)
            return data, data
        image = inputs == "image"
        start = self.keras.Input(
            (None, None, 3) if image else (height, width, 3),
            name="image" if image else "pixels",
            dtype="uint8" if image else "float32",
        )
        pixels = self.own.PixelsToInput(
            self.arch.pixel_mean, self.arch.pixel_scale, [height, width] if image else None,
            name=PREPROCESSOR, dtype=self.result_dtype, autocast=False,
        )  # fmt: skip
        return start, pixels(start)

    def node(self, node: NodeDesc, blobs: dict[str, Any]) -> Any:
        name, layers = layer_name(self.scopes[node.name]), self.keras.layers
        if isinstance(node, ConvDesc):
            return self.convolution(node, blobs[node.bottom])
        if isinstance(node, AddDesc):
            return layers.Add(name=name, dtype=self.dtype)([blobs[bottom] for bottom in node.bottoms])
        if isinstance(node, GlobalPoolDesc):
            return layers.GlobalAveragePooling2D(keepdims=True, name=name, dtype=self.dtype)(blobs[node.bottom])
        assert isinstance(node, GateDesc), "a pyramid is refused by build_model"
        return layers.Multiply(name=name, dtype=self.dtype)([blobs[node.bottom], blobs[node.gate]])

    def heads(self, blobs: dict[str, Any]) -> Iterator[Any]:
        """The outputs of the predictors: box encodings and class logits of each feature map in turn."""
        for feature_map in self.net.feature_maps:
            for head in (feature_map.loc, feature_map.conf):
                data = blobs[feature_map.blob]
                for conv in head:
                    data = self.convolution(conv, data)
                yield data

    def convolution(self, conv: ConvDesc, data: Any) -> Any:
        """Padding, convolution, BatchNorm and activation."""
        scope, layers, initializers = conv.tf_scope, self.keras.layers, self.keras.initializers
        pads = conv.padding
        same = pads == same_padding(conv.in_size, conv.kernel, conv.stride, conv.dilation)
        if not same:
            amounts = ((pads.top, pads.bottom), (pads.left, pads.right))
            data = layers.ZeroPadding2D(amounts, name=layer_name(f"{scope}/Pad"), dtype=self.dtype)(data)
        kernel = initializers.TruncatedNormal(stddev=KERNEL_STDDEV)
        options = {
            "strides": conv.stride,
            "padding": "same" if same else "valid",
            "dilation_rate": conv.dilation,
            "use_bias": conv.bias,
            "name": layer_name(scope),
            "dtype": self.dtype,
        }
        if conv.role == "class_predictor" and conv.bias:
            options["bias_initializer"] = initializers.Constant(self.class_bias)
        if conv.depthwise:
            data = layers.DepthwiseConv2D(conv.kernel, depthwise_initializer=kernel, **options)(data)
        else:
            data = layers.Conv2D(conv.num_output, conv.kernel, kernel_initializer=kernel, **options)(data)
        if conv.batch_norm:
            name = layer_name(batch_norm_scope(conv))
            data = self.own.FusedBatchNorm(
                momentum=self.momentum, epsilon=self.arch.batch_norm_epsilon, name=name, dtype=self.dtype
            )(data)
        return self.activation(conv.activation, f"{scope}/{conv.activation}", data)

    def activation(self, kind: Activation, scope: str, data: Any) -> Any:
        name = layer_name(scope)
        if kind in ("relu", "relu6"):
            largest = 6.0 if kind == "relu6" else None
            return self.keras.layers.ReLU(max_value=largest, name=name, dtype=self.dtype)(data)
        if kind == "hard_swish":
            return self.own.HardSwish(name=name, dtype=self.dtype)(data)
        if kind == "hard_sigmoid":
            return self.own.HardSigmoid(self.arch.gate_scale, name=name, dtype=self.dtype)(data)
        return data
