"""Running a Caffe net in numpy, in float32 or float64: slow, on no runtime's code, and with every blob at hand.

In float64 rounding no longer hides a wrong formula: a converted net and the model that it was made from agree there to
what the net's own float32 weights allow.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ssdlite_caffe.errors import PrototxtError
from ssdlite_caffe.gen_model.arch import Nms
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.binary import blob_to_array, read_caffemodel
from ssdlite_caffe.prototxt.rules_opencv import ALL_OPENCV_RULES
from ssdlite_caffe.prototxt.rules_ssd import RULES
from ssdlite_caffe.prototxt.shapes import in_phase, infer
from ssdlite_caffe.prototxt.text import read_net
from ssdlite_caffe.runtimes.decode import choose_detections, decode_boxes
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.reference_layers import LAYERS
from ssdlite_caffe.runtimes.reference_windows import Array

_DETECTION_OUTPUT = "DetectionOutput"
_NO_LIMIT = 2**31 - 1
_RULES = {**RULES, "Eltwise": ALL_OPENCV_RULES["Eltwise"]}
"""Caffe's shapes, but an Eltwise may broadcast N x C x 1 x 1, as in OpenCV."""


class ReferenceNet:
    """A deploy or headless net as numpy computes it."""

    def __init__(self, prototxt: Path, caffemodel: Path, *, double: bool = False) -> None:
        """Load the net.

        Args:
            prototxt: the net.
            caffemodel: its weights; layers that the net does not have are ignored.
            double: compute in float64.

        Raises:
            PrototxtError: a file cannot be read, a layer is of a type that is not known here, or weights are missing or
                of other shapes.
        """
        self.prototxt = prototxt
        self.dtype = np.dtype(np.float64 if double else np.float32)
        net = read_net(prototxt)
        shapes = infer(net, phase="TEST", rules=_RULES)
        if shapes.errors:
            raise PrototxtError(f"{prototxt} cannot be run: {shapes.errors[0].text}")
        self.layers = tuple(layer for layer in net.layer if layer.type != "Input" and in_phase(layer, net, "TEST"))
        unknown = next((x for x in self.layers if x.type not in LAYERS and x.type != _DETECTION_OUTPUT), None)
        if unknown is not None:
            raise PrototxtError(
                f"{prototxt}: the reference runtime has no layer type {unknown.type!r} (layer {unknown.name!r}); use "
                "another runtime"
            )
        if not shapes.inputs:
            raise PrototxtError(f"{prototxt} has no input: give a deploy or headless net")
        self.input, self._input_shape = shapes.inputs[0].name, shapes.inputs[0].shape or ()
        self._blobs = set(shapes.blobs)
        self.weights = self._read_weights(caffemodel, shapes.param_shapes)

    def _read_weights(
        self, caffemodel: Path, wanted: dict[str, tuple[tuple[int, ...], ...]]
    ) -> dict[str, tuple[Array, ...]]:
        found = {layer.name: layer.blobs for layer in read_caffemodel(caffemodel).layer}
        weights = {}
        for name, shapes in wanted.items():
            arrays = [blob_to_array(blob) for blob in found.get(name, ())]
            if [array.size for array in arrays] != [int(np.prod(shape)) for shape in shapes]:
                got = ", ".join("x".join(map(str, array.shape)) for array in arrays) or "none"
                need = ", ".join("x".join(map(str, shape)) for shape in shapes)
                raise PrototxtError(f"{caffemodel} has blobs {got} for layer {name!r}; {self.prototxt} needs {need}")
            weights[name] = tuple(
                array.reshape(shape).astype(self.dtype) for array, shape in zip(arrays, shapes, strict=True)
            )
        return weights

    def with_weights(self, weights: Mapping[str, tuple[Array, ...]]) -> ReferenceNet:
        """The same net with other weights.

        Args:
            weights: of every layer that has any, of the shapes and the dtype of its own.
        """
        other = copy.copy(self)
        other.weights = dict(weights)
        return other

    def with_constants(self, constants: Sequence[float], *, exact: bool = False) -> ReferenceNet:
        """The same net with the scales of Power layers that are roundings of these numbers as weights of theirs.

        Args:
            constants: see `DumpedModel.constants`.
            exact: the numbers themselves, in place of their roundings.
        """
        of = {float(np.float32(one)): one for one in constants}
        found = {
            layer.name: (np.asarray(of[layer.power_param.scale] if exact else layer.power_param.scale, self.dtype),)
            for layer in self.layers
            if layer.type == "Power" and layer.power_param.scale in of
        }
        return self.with_weights({**self.weights, **found})

    def forward(self, blob: Array, outputs: Sequence[str]) -> dict[str, Array]:
        """Run the net.

        Args:
            blob: (N, 3, H, W), BGR.
            outputs: names of blobs, for their final values.

        Returns:
            The values of each output, by name, in float32 or float64 as the net was loaded.

        Raises:
            PrototxtError: the net has no such blob, or the input has another shape.
        """
        unknown = [name for name in outputs if name not in self._blobs]
        if unknown:
            raise PrototxtError(f"{self.prototxt} has no blob named {', '.join(unknown)}")
        blobs = {self.input: self._checked(blob)}
        layers = list(self._needed(outputs))
        last = {name: index for index, layer in enumerate(layers) for name in (*layer.bottom, *layer.top)}
        for index, layer in enumerate(layers):
            self.compute(layer, blobs)
            for name in {*layer.bottom, *layer.top}:
                if last[name] == index and name not in outputs:
                    del blobs[name]  # its memory
        return {name: blobs[name] for name in outputs}

    def _checked(self, blob: Array) -> Array:
        if self._input_shape and blob.shape[1:] != self._input_shape[1:]:
            raise PrototxtError(
                f"{self.prototxt}: input {self.input} must have the shape {self._input_shape}, got {blob.shape}"
            )
        return blob.astype(self.dtype)

    def _needed(self, outputs: Sequence[str]) -> Iterator[caffe_pb2.LayerParameter]:
        """The layers that the outputs depend on, in the net's order."""
        wanted = set(outputs)
        needed = []
        for layer in reversed(self.layers):
            if wanted.intersection(layer.top):
                wanted.update(layer.bottom)
                needed.append(layer)
        return reversed(needed)

    def compute(self, layer: caffe_pb2.LayerParameter, blobs: dict[str, Array]) -> None:
        """Compute one layer from `blobs`, and put its tops there."""
        bottoms = [blobs[name] for name in layer.bottom]
        tops = LAYERS[layer.type](layer, self.weights.get(layer.name, ()), bottoms)
        blobs.update(zip(layer.top, tops, strict=True))

    def detect(self, blob: Array) -> Detections:
        """Detections of DetectionOutput in one image; boxes are not clipped.

        Raises:
            PrototxtError: the net has no DetectionOutput layer, or one with settings that are not known here.
        """
        layer = next((layer for layer in self.layers if layer.type == _DETECTION_OUTPUT), None)
        if layer is None:
            raise PrototxtError(f"{self.prototxt} has no DetectionOutput layer; give the deploy net")
        values = self.forward(blob, list(layer.bottom[:3]))
        return detection_output(layer, *(values[name] for name in layer.bottom[:3]))


def decoded_boxes(layer: caffe_pb2.LayerParameter, loc: Array, priors: Array) -> Array:
    """Boxes (N, 4) xmin, ymin, xmax, ymax that a DetectionOutput layer decodes, not clipped, in the dtype of `loc`.

    Args:
        layer: gives the code type.
        loc: box encodings, any shape with N * 4 values.
        priors: (1, 2, N * 4): default boxes and variances.

    Source: bbox_util.cpp, DecodeBBox.
    """
    param = layer.detection_output_param
    corners, variances = priors.reshape(2, -1, 4)
    if param.variance_encoded_in_target:
        variances = np.ones_like(variances)
    if param.code_type == caffe_pb2.PriorBoxParameter.CORNER:
        return np.asarray(corners + loc.reshape(-1, 4) * variances)
    return decode_boxes(loc, corners, variances, loc.dtype)


def detection_output(layer: caffe_pb2.LayerParameter, loc: Array, conf: Array, priors: Array) -> Detections:
    """What a DetectionOutput layer detects in one image; boxes are not clipped.

    Raises:
        PrototxtError: the layer has boxes of each class, or a background class that is not the first, which no net of
            ours has.
    """
    param = layer.detection_output_param
    refused = {
        "share_location: false": not param.share_location,
        f"background_label_id: {param.background_label_id}": param.background_label_id != 0,
        "code_type: CORNER_SIZE": param.code_type == caffe_pb2.PriorBoxParameter.CORNER_SIZE,
    }
    for setting, found in refused.items():
        if found:
            raise PrototxtError(f"layer {layer.name!r}: the reference runtime does not know {setting}")
    boxes = decoded_boxes(layer, loc, priors)
    keep = param.keep_top_k if param.keep_top_k > -1 else _NO_LIMIT
    nms = Nms(
        iou_threshold=param.nms_param.nms_threshold,
        score_threshold=param.confidence_threshold if param.HasField("confidence_threshold") else -1e30,
        max_per_class=_NO_LIMIT,
        max_total=max(keep, 1),
        top_k=param.nms_param.top_k if param.nms_param.top_k > -1 else None,
    )
    return choose_detections(boxes, conf.reshape(len(boxes), -1), nms, clip=False)
