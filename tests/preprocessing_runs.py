"""A graph's network input and detections for images of several sizes: in TensorFlow, and by the settings read of it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump.detector.preprocessing import first_convolution, image_path
from ssdlite_caffe.dump.detector.take_apart import Parts
from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from ssdlite_caffe.dump.graph.view import Graph, Node, Ref
from ssdlite_caffe.dump.model import Settings
from ssdlite_caffe.errors import ImageError
from ssdlite_caffe.imports import import_tensorflow
from ssdlite_caffe.resizer import Resizer
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.resize import network_input, window_of
from tests.graph_changes import OUTPUTS
from tests.post_processing_runs import Source, by_settings, same, source_of, taken_apart
from tests.preprocessing_changes import Place, preprocessing
from tests.scenes import draw_scene

SIZES = ((61, 43), (48, 160), (500, 333), (350, 611))
"""(height, width) of images: smaller, wide, and larger than the inputs."""
BOUND = 1e-4
"""Of network inputs, -1..1. Measured between unchanged graphs and our resizers: 3e-5 (area)."""


@dataclass(frozen=True)
class Subject:
    """A graph to change.

    Attributes:
        source: the graph, and its predictors' outputs for one image.
        stem: its first convolution.
        names: the nodes before it.
        places: the tensors that hold the image.
        settings: what is read of it, unchanged.
        images: of SIZES.
    """

    source: Source
    stem: str
    names: list[str]
    places: list[Place]
    settings: Settings
    images: list[np.ndarray[Any, np.dtype[np.uint8]]]


def subject_of(path: Path) -> Subject:
    source = source_of(path, [draw_scene(1)[0]])
    graph = Graph(source.definition.node, source=str(path))
    convolution = first_convolution(graph)
    assert convolution is not None
    stem = convolution.inputs[0]
    names = preprocessing(graph, stem)
    rng = np.random.default_rng(3)
    images = [rng.integers(0, 256, (*size, 3)).astype(np.uint8) for size in SIZES]
    settings = taken_apart(source.definition).settings
    return Subject(source, convolution.name, names, _places(source, graph, stem), settings, images)


def _places(source: Source, graph: Graph, stem: Ref) -> list[Place]:
    """The tensors that hold the image."""
    v1 = import_tensorflow().compat.v1
    found: list[Place] = []
    with v1.Graph().as_default() as built:
        v1.import_graph_def(v1.GraphDef.FromString(source.definition.SerializeToString()), name="")
        for node in image_path(graph, stem):
            tensor = built.get_tensor_by_name(f"{node.name}:0")
            dtype = tensor.dtype.as_datatype_enum
            if node.op in ("Const", "Enter", "Merge") or dtype not in (pb.DT_FLOAT, pb.DT_UINT8):
                continue
            rank = tensor.shape.rank if tensor.shape.rank is not None else 3
            if rank in (3, 4) and not node.op.startswith("TensorArrayV"):
                found.append((node.name, dtype, rank))
    return found


def in_tensorflow(subject: Subject, changed: pb.GraphDef) -> tuple[list[FloatArray], list[Detections | None]]:
    """Network inputs, and the detections for the source's predictors' outputs.

    Raises:
        Exception: TensorFlow cannot run it.
    """
    v1 = import_tensorflow().compat.v1
    nodes = {node.name: node for node in changed.node}
    (run,) = subject.source.runs
    stem = Node(nodes[subject.stem]).inputs[0]
    cut, seen = pb.GraphDef(), set[str]()
    pending = [*OUTPUTS, stem.name]
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in run:
            cut.node.add(name=name, op="Placeholder").attr["dtype"].type = pb.DT_FLOAT
            continue
        cut.node.add().CopyFrom(nodes[name])
        pending.extend(text.lstrip("^").split(":")[0] for text in nodes[name].input)
    config = v1.ConfigProto(device_count={"GPU": 0}, inter_op_parallelism_threads=1, intra_op_parallelism_threads=1)
    inputs: list[FloatArray] = []
    found: list[Detections | None] = []
    with v1.Graph().as_default(), v1.Session(config=config) as session:
        v1.import_graph_def(v1.GraphDef.FromString(cut.SerializeToString()), name="")
        for image in subject.images:
            feed = {f"{name}:0": value for name, value in run.items() if name in seen}
            if subject.source.image in seen:
                feed[f"{subject.source.image}:0"] = image[None]
            fetches = {name: f"{name}:0" for name in OUTPUTS} | {"stem": f"{stem.name}:{stem.port}"}
            values = session.run(fetches, feed, options=v1.RunOptions(timeout_in_ms=20000))
            inputs.append(values["stem"])
            count = int(np.asarray(values["num_detections"]).reshape(-1)[0])
            boxes = values["detection_boxes"][0, :count][:, [1, 0, 3, 2]]
            found.append(Detections(values["detection_classes"][0, :count].astype(np.int64),
                                    values["detection_scores"][0, :count], boxes))  # fmt: skip
    return inputs, found


def difference(subject: Subject, changed: pb.GraphDef, parts: Parts) -> str | None:
    """How a changed graph does something else than what was read of it, as a phrase; None if it does not.

    Raises:
        Exception: TensorFlow cannot run it.
    """
    theirs, detections = in_tensorflow(subject, changed)
    read = {name: value for name, value in dataclasses.asdict(parts.settings).items() if value is not None}
    read.pop("resizer", None)
    settings = dataclasses.replace(subject.settings, **read, resizer=parts.settings.resizer or Resizer())
    size, scale, offset = settings.input_size, settings.pixel_scale, settings.pixel_offset
    assert size is not None
    assert scale is not None
    assert offset is not None
    assert settings.resizer is not None
    for image, other, detected in zip(subject.images, theirs, detections, strict=True):
        try:
            ours = network_input(image, size, mean=-offset / scale, scale=scale, resizer=settings.resizer)
            window = window_of((image.shape[0], image.shape[1]), settings.resizer)
        except ImageError:
            continue
        if other.shape != ours.shape:
            return f"network input {other.shape}, not {ours.shape}, for {image.shape}"
        gap = np.abs(ours - other).max()
        if not gap <= BOUND * max(1.0, abs(127.5 * scale)):
            return f"network input off by {gap:.3g} for {image.shape}"
        if not same(by_settings(subject.source, parts, settings, window), [detected]):
            return f"other detections for {image.shape}"
    return None
