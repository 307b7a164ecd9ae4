"""Running a TensorFlow model as the reference: a frozen graph, a SavedModel, or a checkpoint with its .meta file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump.detector.raw_outputs import RAW_OUTPUTS, TFLITE_OP
from ssdlite_caffe.dump.foreign import refuse_object_based
from ssdlite_caffe.dump.graph.view import CONVOLUTIONS
from ssdlite_caffe.dump.locate import Located, locate
from ssdlite_caffe.dump.model_bytes import read_bytes
from ssdlite_caffe.dump.tf1.checkpoint import meta_graph_of, refuse_training_graph
from ssdlite_caffe.dump.tf1.frozen import graph_of, parse_graph_def
from ssdlite_caffe.dump.tf1.saved_model import refuse_unreadable_saved_model
from ssdlite_caffe.dump.tf1.variables import shards
from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.imports import import_tensorflow
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.tensorflow_double import DoubleGraph

_BEFORE_STEM = ("Identity", "Pad", "PadV2")
_AROUND_SCORES = ("Identity", "Reshape", "Sigmoid", "Softmax", "Mul", "RealDiv")
_DETECTIONS = ("num_detections", "detection_classes", "detection_scores", "detection_boxes")


@dataclass(frozen=True)
class DetectorOutputs:
    """The model's outputs for every default box of one image, in TensorFlow's order.

    Attributes:
        encodings: float32 (N, 4): ty, tx, th, tw.
        logits: float32 (N, C), before any logit scale; None if the model gives only scores.
        boxes: float32 (N, 4), decoded: ymin, xmin, ymax, xmax, not clipped; None if the model does not decode them.
        scores: float32 (N, C).
    """

    encodings: FloatArray
    logits: FloatArray | None
    boxes: FloatArray | None
    scores: FloatArray


@dataclass(frozen=True)
class RawNames:
    """The tensors from which DetectorOutputs is made; None where the model does not compute it."""

    encodings: str
    logits: str | None
    boxes: str | None
    scores: str

    @property
    def all(self) -> tuple[str, ...]:
        """Those that the model computes."""
        return tuple(name for name in (self.encodings, self.logits, self.boxes, self.scores) if name is not None)

    def outputs(self, values: Mapping[str, Any]) -> DetectorOutputs:
        """The outputs of every default box, from the values of the tensors."""
        columns = values[self.scores].shape[-1]
        return DetectorOutputs(
            encodings=values[self.encodings].reshape(-1, 4),
            logits=None if self.logits is None else values[self.logits].reshape(-1, columns),
            boxes=None if self.boxes is None else values[self.boxes].reshape(-1, 4),
            scores=values[self.scores].reshape(-1, columns),
        )


def check_runnable(found: Located) -> None:
    """Refuse what TensorFlow cannot run, as far as the files show it, before TensorFlow is loaded.

    Raises:
        ModelError: it is of another kind or damaged, is a detector of TensorFlow 2, or has no graph or no convolution.
    """
    if found.kind == "frozen graph":
        graph = parse_graph_def(read_bytes(found.path), found.path)
        if not any(node.op in CONVOLUTIONS for node in graph.node):
            graph_of(graph, found.path)  # says where the convolutions are
            raise ModelError(f"{found.path} has no convolution, so it is not a MobileNet detector")
    elif found.kind == "checkpoint":
        refuse_object_based(found.path)
        shards(found.path)
        meta = meta_graph_of(found.path)
        if not meta.is_file():
            raise ModelError(
                f"{found.path} is a checkpoint without {meta.name}, so it has no graph to run; give the frozen graph "
                "or SavedModel of the same weights"
            )
        refuse_training_graph(meta)
    elif found.kind == "SavedModel":
        refuse_unreadable_saved_model(found.path)
    else:
        raise ModelError(
            f"TensorFlow cannot run {found.path}, a {found.kind}; give the frozen graph, SavedModel or checkpoint"
        )


class TensorFlowDetector:
    """A detector of the TensorFlow OD API in its own session, on the CPU; a context manager that closes it."""

    def __init__(self, path: Path) -> None:
        """Load the model.

        Args:
            path: a frozen graph (or its folder), a SavedModel (folder or saved_model.pb), or a checkpoint (folder,
                prefix or one of its files) with its .meta file.

        Raises:
            ModelError: there is no such model, or it is not a detector.
            MissingRuntimeError: TensorFlow is not installed.
        """
        found = locate(path)
        check_runnable(found)
        self.path = found.path
        self._raw: tuple[str, str] | None = None
        self._tf = import_tensorflow()
        v1 = self._tf.compat.v1
        self._graph = self._tf.Graph()
        self._session = v1.Session(graph=self._graph, config=v1.ConfigProto(device_count={"GPU": 0}))
        try:
            with self._graph.as_default(), self._reading():
                self._load(found)
            self.network_input: str = self._root(self._stem().inputs[0], _BEFORE_STEM).name
            uint8 = (o.outputs[0] for o in self._operations(["Placeholder"]) if o.outputs[0].dtype == self._tf.uint8)
            self._image: str | None = next((tensor.name for tensor in uint8), None)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> TensorFlowDetector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the session's memory."""
        self._session.close()

    @property
    def has_detections(self) -> bool:
        """Whether the graph reads images and ends in detections."""
        return self._image is not None and all(self._has(name) for name in _DETECTIONS)

    def run(
        self, network_input: FloatArray, names: Sequence[str], image_size: tuple[int, int] | None = None
    ) -> dict[str, Any]:
        """Compute tensors of the graph from the input of its first convolution.

        Args:
            network_input: float32 (1, H, W, 3), RGB, normalised.
            names: tensors (`a/b:0`), or operations for their first output.
            image_size: (height, width) of the image, on which the window depends that a letterbox clips boxes to; None:
                the network input's.

        Returns:
            The value of each tensor, by name.

        Raises:
            ModelError: the graph has no such tensor, or cannot be run.
        """
        feed: dict[str, Any] = {self.network_input: network_input}
        if self._image is not None:
            # The graph takes the window that boxes are clipped to from the image; the pixels do not matter.
            feed[self._image] = np.zeros((1, *(image_size or network_input.shape[1:3]), 3), np.uint8)
        return self._run(feed, names)

    def run_image(self, image: npt.NDArray[np.uint8], names: Sequence[str]) -> dict[str, Any]:
        """Compute tensors of the graph from an image (H, W, 3), RGB, which it resizes and normalises itself.

        Raises:
            ModelError: the graph has no such tensor, does not read images, or cannot be run.
        """
        if self._image is None:
            raise ModelError(f"{self.path} has no input for uint8 images (input_type image_tensor)")
        return self._run({self._image: image[None]}, names)

    def raw(self, network_input: FloatArray) -> DetectorOutputs:
        """Box encodings, logits, boxes and scores of every default box, from a network input (1, H, W, 3).

        A graph exported for TensorFlow Lite gives only box encodings and scores.

        Raises:
            ModelError: the graph does not have them under the names of the OD API.
        """
        names = self.raw_names()
        return names.outputs(self.run(network_input, names.all))

    def raw_names(self) -> RawNames:
        """The tensors that `raw` computes.

        Raises:
            ModelError: the graph does not have them under the names of the OD API.
        """
        if self._raw is not None:
            encodings, scores = self._raw
            return RawNames(encodings, None, None, scores)
        scores = self._operation("Postprocessor/convert_scores").outputs[0]
        encodings = self._operation("Postprocessor/Decode/transpose").inputs[0]
        boxes = self._operation("Postprocessor/Decode/transpose_1").outputs[0]
        return RawNames(encodings.name, self._root(scores, _AROUND_SCORES).name, boxes.name, scores.name)

    def double_input(self, fed: FloatArray) -> npt.NDArray[np.float64]:
        """What the graph of `in_double` reads for a network input: the same."""
        return fed.astype(np.float64)

    def stem_input(self, fed: FloatArray) -> npt.NDArray[np.float64]:
        """What the first convolution reads in the graph of `in_double` for a network input: the same."""
        return fed.astype(np.float64)

    def in_double(self, names: Sequence[str]) -> DoubleGraph:
        """The graph in float64, from the network input to these tensors or operations.

        Raises:
            ModelError: it has an operation that cannot be computed in float64.
        """
        operations = list(dict.fromkeys(name.partition(":")[0] for name in names))
        with self._reading():
            definition = self._tf.compat.v1.graph_util.convert_variables_to_constants(
                self._session, self._graph.as_graph_def(), operations
            )
        return DoubleGraph(definition, self.network_input, names, source=str(self.path))

    def detect(self, network_input: FloatArray, image_size: tuple[int, int] | None = None) -> Detections:
        """The graph's detections for a network input (1, H, W, 3); boxes are fractions of the image, clipped.

        Args:
            network_input: see `run`.
            image_size: see `run`.

        Raises:
            ModelError: the graph has no detections.
        """
        return _detections(self.run(network_input, _DETECTIONS, image_size))

    def detect_image(self, image: npt.NDArray[np.uint8]) -> Detections:
        """The graph's detections for an image (H, W, 3), RGB, which it resizes and normalises itself.

        Raises:
            ModelError: the graph has no detections, or does not read images.
        """
        return _detections(self.run_image(image, _DETECTIONS))

    def _run(self, feed: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
        missing = [name for name in names if not self._has(name)]
        if missing:
            raise ModelError(f"{self.path} has no tensor named {', '.join(missing)}")
        with self._reading():
            values = self._session.run([name if ":" in name else f"{name}:0" for name in names], feed)
        return dict(zip(names, values, strict=True))

    def _has(self, name: str) -> bool:
        try:
            self._graph.as_graph_element(name)
        except (KeyError, ValueError):
            return False
        return True

    @contextmanager
    def _reading(self) -> Iterator[None]:
        errors = self._tf.errors
        try:
            yield
        except (errors.OpError, ValueError, TypeError, KeyError, OSError, RuntimeError) as error:
            raise ModelError(f"TensorFlow cannot run {self.path}: {_reason(error)}") from error

    def _load(self, found: Located) -> None:
        v1 = self._tf.compat.v1
        if found.kind == "SavedModel":
            self._load_saved_model(found.path)
        elif found.kind == "checkpoint":
            saver = v1.train.import_meta_graph(os.fspath(meta_graph_of(found.path)), clear_devices=True)
            saver.restore(self._session, os.fspath(found.path))
        else:
            self._import(read_bytes(found.path))

    def _import(self, data: bytes) -> None:
        from google.protobuf.message import DecodeError

        definition = self._tf.compat.v1.GraphDef()
        try:
            definition.ParseFromString(data)
        except DecodeError as error:
            raise ModelError(f"{self.path} is not a frozen graph: it cannot be parsed as a GraphDef") from error
        self._raw = _cut_off(definition)
        self._tf.graph_util.import_graph_def(definition, name="")

    def _load_saved_model(self, folder: Path) -> None:
        from tensorflow.python.saved_model import loader_impl

        tags = loader_impl.parse_saved_model(os.fspath(folder)).meta_graphs[0].meta_info_def.tags
        self._tf.compat.v1.saved_model.loader.load(self._session, list(tags), os.fspath(folder))

    def _operations(self, types: Iterable[str]) -> Iterator[Any]:
        return (o for o in self._graph.get_operations() if o.type in types)

    def _operation(self, name: str) -> Any:
        if not self._has(name):
            raise ModelError(
                f"{self.path} has no operation {name}, so it is not a detector of the OD API with its decoder"
            )
        return self._graph.get_operation_by_name(name)

    def _stem(self) -> Any:
        """The first convolution of the graph."""
        for operation in self._operations(CONVOLUTIONS):
            if not any(before.type in CONVOLUTIONS for before in _ancestors(operation)):
                return operation
        raise ModelError(f"{self.path} has no convolution, so it is not a MobileNet detector")

    def _root(self, tensor: Any, through: Sequence[str]) -> Any:
        """Follow the inputs of `tensor` back through operations of these types; the tensor that the first one reads."""
        while tensor.op.type in through:
            # A constant factor may be the first or the second input.
            tensor = next((t for t in tensor.op.inputs if t.op.type != "Const"), None)
            if tensor is None:
                raise ModelError(f"{self.path}: the input of the first convolution is a constant, not an image")
        return tensor


def _reason(error: Exception) -> str:
    """The line of TensorFlow's message that says what is wrong."""
    lines = str(getattr(error, "message", "") or error).strip().splitlines()
    noise = ("Graph execution error", "Detected at node", "Node:")
    return next((line for line in lines if line and not line.startswith(noise)), type(error).__name__)


def _ancestors(operation: Any) -> Iterator[Any]:
    seen = {operation}
    waiting = [operation]
    while waiting:
        for tensor in waiting.pop().inputs:
            if tensor.op not in seen:
                seen.add(tensor.op)
                waiting.append(tensor.op)
                yield tensor.op


def _cut_off(definition: Any) -> tuple[str, str] | None:
    """Names of box encodings and scores in a graph exported for TensorFlow Lite; None for any other graph.

    TFLite_Detection_PostProcess is removed from the graph, since TensorFlow has no kernel for it and would not load it.
    """
    operation = next((node for node in definition.node if node.op == TFLITE_OP), None)
    if operation is not None and len(operation.input) >= 2:
        encodings, scores = operation.input[0], operation.input[1]
        cut = {operation.name}
        kept = []
        for node in definition.node:
            if node.name in cut or cut & {text.lstrip("^").partition(":")[0] for text in node.input}:
                cut.add(node.name)
            else:
                kept.append(node)
        del definition.node[:]
        definition.node.extend(kept)
        return encodings, scores
    names = {node.name for node in definition.node}
    return RAW_OUTPUTS if names.issuperset(RAW_OUTPUTS) else None


def _detections(values: dict[str, Any]) -> Detections:
    count, classes, scores, boxes = (values[name] for name in _DETECTIONS)
    number = int(count[0])
    return Detections(
        classes=classes[0, :number].astype(np.int64),
        scores=scores[0, :number],
        boxes=np.ascontiguousarray(boxes[0, :number][:, [1, 0, 3, 2]]),
    )
