"""The post-processing of a graph in TensorFlow, and by the settings that are read of it, for the same predictors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump.detector.affine import Constants
from ssdlite_caffe.dump.detector.take_apart import Parts, take_apart
from ssdlite_caffe.dump.detector.units import find_units
from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from ssdlite_caffe.dump.graph.view import Graph
from ssdlite_caffe.dump.model import Settings
from ssdlite_caffe.gen_model.arch import Nms
from ssdlite_caffe.imports import import_tensorflow
from ssdlite_caffe.runtimes.decode import choose_detections, convert_scores, decode_boxes
from ssdlite_caffe.runtimes.detections import Detections
from tests.graph_changes import OUTPUTS

Outputs = Mapping[str, FloatArray]
"""Name of a predictor's end -> its output for one image."""


@dataclass(frozen=True)
class Source:
    """A graph, and what its predictors give for some images.

    Attributes:
        definition: the graph.
        ends: scope of a predictor -> its end.
        image: the image's node.
        runs: for each image, the predictors' outputs.
    """

    definition: pb.GraphDef
    ends: dict[str, str]
    image: str
    runs: list[Outputs]


def source_of(path: Path, images: list[np.ndarray[Any, np.dtype[np.uint8]]]) -> Source:
    definition = pb.GraphDef.FromString(path.read_bytes())
    ends = {
        scope: ref.name
        for scope, ref in find_units(Constants.of(Graph(definition.node, source=str(path)))).ends.items()
    }
    ends = {scope: name for scope, name in ends.items() if scope.endswith(("/BoxEncodingPredictor", "/ClassPredictor"))}
    image = next(node.name for node in definition.node if node.op == "Placeholder")
    v1 = import_tensorflow().compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        v1.import_graph_def(v1.GraphDef.FromString(path.read_bytes()), name="")
        fetches = {name: f"{name}:0" for name in ends.values()}
        runs = [session.run(fetches, {f"{image}:0": pixels[None]}) for pixels in images]
    return Source(definition, ends, image, runs)


def in_tensorflow(source: Source, changed: pb.GraphDef) -> list[Detections | None]:
    """The detections of a changed graph, with the source's predictors' outputs; None if they have other shapes.

    Raises:
        Exception: TensorFlow cannot run it.
    """
    v1 = import_tensorflow().compat.v1
    nodes = {node.name: node for node in changed.node}
    cut = pb.GraphDef()
    pending, seen = list(OUTPUTS), set[str]()
    types = dict.fromkeys(source.ends.values(), pb.DT_FLOAT)
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in types:
            placeholder = cut.node.add(name=name, op="Placeholder")
            placeholder.attr["dtype"].type = types[name]
            continue
        cut.node.add().CopyFrom(nodes[name])
        pending.extend(text.lstrip("^").split(":")[0] for text in nodes[name].input)
    config = v1.ConfigProto(device_count={"GPU": 0}, inter_op_parallelism_threads=1, intra_op_parallelism_threads=1)
    found: list[Detections | None] = []
    with v1.Graph().as_default(), v1.Session(config=config) as session:
        v1.import_graph_def(v1.GraphDef.FromString(cut.SerializeToString()), name="")
        for run in source.runs:
            feed = {f"{name}:0": value for name, value in run.items() if name in seen}
            if source.image in seen:
                feed[f"{source.image}:0"] = np.zeros((1, 37, 53, 3), np.uint8)
            values = session.run(
                {name: f"{name}:0" for name in OUTPUTS}, feed, options=v1.RunOptions(timeout_in_ms=20000)
            )
            count = int(np.asarray(values["num_detections"]).reshape(-1)[0])
            shapes = [np.shape(values[name]) for name in OUTPUTS[1:]]
            rows = shapes[0][-1:]
            if np.size(values["num_detections"]) != 1 or shapes != [(1, *rows), (1, *rows), (1, *rows, 4)]:
                found.append(None)
                continue
            boxes = values["detection_boxes"][0, :count][:, [1, 0, 3, 2]]
            found.append(Detections(values["detection_classes"][0, :count].astype(np.int64),
                                    values["detection_scores"][0, :count], boxes))  # fmt: skip
    return found


def by_settings(
    source: Source, parts: Parts, config: Settings, window: tuple[float, float] = (1.0, 1.0)
) -> list[Detections]:
    """The detections that the settings which were read lead to, which are those of a converted net.

    Settings that were not read are taken from `config`, as from a pipeline.config. `window`: see `window_of`.
    """
    read = dataclasses.asdict(parts.settings)
    settings = dataclasses.replace(config, **{name: value for name, value in read.items() if value is not None})
    usual = Nms()
    values = {
        name: getattr(settings, name) for name in ("iou_threshold", "score_threshold", "max_per_class", "max_total")
    }
    nms = Nms(**{name: getattr(usual, name) if value is None else value for name, value in values.items()},
              clip_first=bool(settings.clip_first))  # fmt: skip
    assert settings.default_boxes is not None
    assert settings.box_coder_scales is not None
    y, x, height, width = settings.box_coder_scales
    variances = np.asarray([1 / x, 1 / y, 1 / width, 1 / height], np.float32)
    found = []
    for run in source.runs:
        encodings = _joined(run, source.ends, settings.box_order, 4)
        logits = _joined(run, source.ends, settings.class_order, settings.num_classes or 0)
        boxes = decode_boxes(encodings[:, [1, 0, 3, 2]], settings.default_boxes[:, [1, 0, 3, 2]], variances)
        scores = convert_scores(logits * np.float32(settings.logit_scale or 1), settings.score_converter or "identity")
        found.append(choose_detections(boxes, scores, nms, window=window))
    return found


def _joined(run: Outputs, ends: Mapping[str, str], order: tuple[str, ...] | None, columns: int) -> FloatArray:
    assert order is not None
    return np.concatenate([run[ends[scope]].reshape(-1, columns) for scope in order])


def same(ours: Sequence[Detections | None], theirs: Sequence[Detections | None], *, bound: float = 1e-4) -> bool:
    """Whether all images have the same detections; equal scores may be in another order."""
    return all(_same(one, other, bound) for one, other in zip(ours, theirs, strict=True))


def _same(one: Detections | None, other: Detections | None, bound: float) -> bool:
    if one is None or other is None:
        return False
    if len(one.scores) != len(other.scores):
        return False

    def rows(found: Detections) -> FloatArray:
        table = np.concatenate([found.classes[:, None], found.scores[:, None], found.boxes], axis=1)
        return table[np.lexsort((*table[:, 2:].T.round(3), table[:, 0], -table[:, 1].round(5)))]

    return bool((np.abs(rows(one) - rows(other)) <= bound).all())


def taken_apart(changed: pb.GraphDef) -> Parts:
    return take_apart(Graph(changed.node, source="changed.pb"))
