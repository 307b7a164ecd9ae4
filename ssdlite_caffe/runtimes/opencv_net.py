"""Running a Caffe net with OpenCV DNN."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.errors import ImageError, PrototxtError
from ssdlite_caffe.gen_model.render import quoted
from ssdlite_caffe.imports import import_opencv
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.text import read_net
from ssdlite_caffe.runtimes.decode import parse_detection_out
from ssdlite_caffe.runtimes.detections import Detections


def one_line(error: Exception) -> str:
    """The message of an OpenCV error on one line, without source file and line number."""
    text = str(getattr(error, "err", "") or error)
    return " ".join(text.split())


def path_for_opencv(path: Path) -> str:
    """A path as text for OpenCV's video functions.

    Raises:
        ImageError: it is not valid UTF-8, with which OpenCV crashes.
    """
    try:
        os.fspath(path).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ImageError(f"{path} is not a valid UTF-8 name, which OpenCV needs for videos; rename it") from error
    return os.fspath(path)


def _inputs(net: caffe_pb2.NetParameter) -> dict[str, tuple[int, ...]]:
    """Input blobs and their shapes; () for a blob without a shape in the prototxt."""
    shapes = dict.fromkeys(net.input, ()) | {
        name: tuple(shape.dim) for name, shape in zip(net.input, net.input_shape, strict=False)
    }
    for layer in net.layer:
        if layer.type == "Input":
            shapes |= {top: tuple(shape.dim) for top, shape in zip(layer.top, layer.input_param.shape, strict=False)}
    return shapes


def _sources(net: caffe_pb2.NetParameter) -> dict[str, tuple[str, int]]:
    """For the name of each layer and blob, OpenCV's name of the layer that computes it, and the index of its top.

    Of layers that write the same blob, as a ReLU in place does, the last one counts. Layers with an earlier one's name
    are name_1, name_2, ... in OpenCV.
    """
    layers = [layer for layer in net.layer if layer.type != "Input"]
    sources = {layer.name: (layer.name, 0) for layer in layers}
    repeated: Counter[str] = Counter()
    for layer in layers:
        name = f"{layer.name}_{repeated[layer.name]}" if repeated[layer.name] else layer.name
        repeated[layer.name] += 1
        sources.update({top: (name, number) for number, top in enumerate(layer.top)})
    return sources


_READER = "read of "
"""Beginning of the names of layers that are added."""


def _reader(blob: str) -> str:
    return f"""
layer {{
  name: {quoted(_READER + blob)}
  type: "Power"
  bottom: {quoted(blob)}
  top: {quoted(_READER + blob)}
}}
"""


class OpenCvNet:
    """A net loaded from a prototxt and a caffemodel, on the CPU."""

    def __init__(self, prototxt: Path, caffemodel: Path, *, winograd: bool = False) -> None:
        """Load the net.

        Args:
            prototxt: a deploy or headless net.
            caffemodel: its weights.
            winograd: let OpenCV compute 3x3 convolutions with Winograd's method, which is faster and less exact.

        Raises:
            PrototxtError: a file cannot be read, or OpenCV cannot load the net.
            MissingRuntimeError: OpenCV is not installed, or cannot read Caffe nets.
        """
        self._cv2 = import_opencv()
        net = read_net(prototxt)
        if not caffemodel.is_file():
            raise PrototxtError(f"caffemodel {caffemodel} does not exist")
        self.prototxt = prototxt
        self._inputs = _inputs(net)
        self._source = _sources(net)
        self._caffemodel, self._winograd = caffemodel, winograd
        self._detections = next((layer.top[0] for layer in net.layer if layer.type == "DetectionOutput"), None)
        self._net = self._load()
        self._reading: set[str] = set()

    def _load(self, added: str = "") -> Any:
        """OpenCV's net; `added`: text of more layers at its end."""
        try:
            # OpenCV gets the content, since it crashes with a file name that is not UTF-8.
            text, weights = (path.read_bytes() for path in (self.prototxt, self._caffemodel))
            text += added.encode()
            net = self._cv2.dnn.readNetFromCaffe(np.frombuffer(text, np.uint8), np.frombuffer(weights, np.uint8))
            net.setPreferableBackend(self._cv2.dnn.DNN_BACKEND_OPENCV)
            net.setPreferableTarget(self._cv2.dnn.DNN_TARGET_CPU)
            net.enableWinograd(self._winograd)
        except OSError as error:
            raise PrototxtError(f"cannot read {error.filename}: {error.strerror or error}") from error
        except self._cv2.error as error:
            raise PrototxtError(
                f"OpenCV cannot load {self.prototxt} with {self._caffemodel}: {one_line(error)}"
            ) from error
        return net

    def _keep(self, outputs: Sequence[str]) -> None:
        """Let layers at the net's end read those outputs that are not their layer's first top.

        OpenCV keeps the first top of a layer that is asked for, and writes later layers' values over the others.
        """
        kept = {name for name in outputs if name in self._source and self._source[name][1] > 0}
        if kept:
            self._reading |= kept
            self._net = self._load("".join(map(_reader, sorted(self._reading))))
            self._source.update({name: (_READER + name, 0) for name in kept})

    def forward(self, blob: FloatArray, outputs: Sequence[str]) -> dict[str, FloatArray]:
        """Run the net.

        Args:
            blob: float32 (N, 3, H, W), BGR, for the net's first input.
            outputs: names of blobs, for their final values, or of layers.

        Returns:
            The values of each output, by name.

        Raises:
            PrototxtError: the net has no such blob, or OpenCV cannot run it.
        """
        name, shape = next(iter(self._inputs.items()), ("", ()))
        if shape and blob.shape[1:] != shape[1:]:
            raise PrototxtError(f"{self.prototxt}: input {name} must have the shape {shape}, got {blob.shape}")
        unknown = [output for output in outputs if output not in self._source and output != name]
        if unknown:
            raise PrototxtError(f"{self.prototxt} has no blob or layer named {', '.join(unknown)}")
        self._keep(outputs)
        layers = list(dict.fromkeys(self._source[name][0] for name in outputs if name in self._source))
        try:
            self._net.setInput(blob)
            found = dict(zip(layers, self._net.forwardAndRetrieve(layers), strict=True))
        except self._cv2.error as error:
            raise PrototxtError(
                f"OpenCV cannot run {self.prototxt}: {one_line(error)}; to find layers that OpenCV does not support, "
                f"run: ssdlite-caffe lint {self.prototxt} --runtime opencv"
            ) from error
        values = {name: found[layer][top] for name, (layer, top) in self._source.items() if layer in found}
        values[name] = blob
        return {output: values[output] for output in outputs}

    def detect(self, blob: FloatArray) -> Detections:
        """Run a deploy net on one image; boxes are not clipped.

        Raises:
            PrototxtError: the net has no DetectionOutput layer, or OpenCV cannot run it.
        """
        if self._detections is None:
            raise PrototxtError(f"{self.prototxt} has no DetectionOutput layer; give the deploy net")
        return parse_detection_out(self.forward(blob, [self._detections])[self._detections])
