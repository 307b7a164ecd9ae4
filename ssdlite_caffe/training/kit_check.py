"""Checking a training folder before Caffe starts, since Caffe aborts at what is missing or does not agree."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ssdlite_caffe.coco.label_map import LabelMap, load_label_map
from ssdlite_caffe.data.lmdb_store import LmdbReader
from ssdlite_caffe.errors import DatasetError, LabelMapError, OutputError, PrototxtError
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.binary import blob_shape, read_caffemodel
from ssdlite_caffe.prototxt.shapes import Phase, in_phase
from ssdlite_caffe.prototxt.text import read, read_net
from ssdlite_caffe.training.kit_weights import PREDICTOR, misfits, predicted_classes

KIT, LABEL_MAP, INITIAL = "kit.json", "labelmap.prototxt", "initial.caffemodel"
SOLVER_TRAIN, SOLVER_TEST = "solver_train.prototxt", "solver_test.prototxt"

_SCANNED = 1000
"""Records of an LMDB without label map that are searched for the largest label: the first ones."""


@dataclass(frozen=True)
class Net:
    """A net that the solver names.

    Attributes:
        path: of its prototxt.
        net: the parsed prototxt.
        phase: in which Caffe runs it.
        lmdbs: of its data layers.
        labels: label map of its data layers; None where they name none.
        images: number of images in all its LMDBs.
    """

    path: Path
    net: caffe_pb2.NetParameter
    phase: Phase
    lmdbs: tuple[Path, ...]
    labels: LabelMap | None
    images: int


@dataclass(frozen=True)
class Kit:
    """A training folder that Caffe can run in.

    Attributes:
        folder: of all its files; Caffe must run there, since the paths in the files are relative to it.
        solver: the parsed solver file.
        train: the net to train.
        test: the nets to test.
        weights: caffemodel to start from or to test; None: weights come from fillers.
    """

    folder: Path
    solver: caffe_pb2.SolverParameter
    train: Net
    test: tuple[Net, ...]
    weights: Path | None


class LmdbFacts(NamedTuple):
    """Number of images of an LMDB, its label map, and without one the largest label in its first records, else 0."""

    records: int
    labels: LabelMap | None
    largest: int


class Count(NamedTuple):
    """Number of classes, background included, of something at a place."""

    what: str
    place: object
    classes: int


def check_kit(
    folder: Path,
    solver: str = SOLVER_TRAIN,
    *,
    weights: Path | None = None,
    finetune: bool = False,
    beside: Path | None = None,
) -> Kit:
    """Check all files that a solver leads to.

    Args:
        folder: what `write_kit` wrote.
        solver: name of the solver file in it.
        weights: caffemodel to start from or to test; None: initial.caffemodel where the folder has it.
        finetune: the weights may have another number of classes.
        beside: folder that relative paths start from where `folder` does not have the file.

    Raises:
        PrototxtError: a file is missing or cannot be parsed, or the weights do not fit.
        DatasetError: an LMDB is missing or empty, or does not agree with its name_size file.
        LabelMapError: a label map is missing, or class counts (all are listed) or names do not agree.
        OutputError: detections would be saved into a folder that is not empty, which Caffe would empty.
    """
    if not folder.is_dir():
        raise PrototxtError(f"{folder} is not a folder; give a training folder that `ssdlite-caffe kit` wrote")
    path = folder / solver
    parsed = read(path, caffe_pb2.SolverParameter)
    find = _Finder(folder, beside.resolve() if beside else folder)
    if not parsed.train_net:
        raise PrototxtError(f"{path} names no train_net")
    train = _net(path, parsed.train_net, "TRAIN", find)
    tests = tuple(_net(path, name, "TEST", find) for name in parsed.test_net)
    start = weights or (folder / INITIAL if (folder / INITIAL).is_file() else None)
    counts = [count for net in (train, *tests) for count in _counts(net)]
    if start is not None:
        counts += _check_weights(train, start, finetune=finetune)
    others = {count.classes for count in counts if count.what != "weights"}
    trained = weights is not None and solver == SOLVER_TRAIN and len(others) == 1
    refuse_disagreement(counts, "; --finetune starts from weights of other classes" if trained else "")
    for net in (train, *tests):
        _check_names(net)
    return Kit(folder, parsed, train, tests, start)


def lmdb_facts(path: Path) -> LmdbFacts:
    """Read what is checked of an LMDB.

    Raises:
        DatasetError: it is missing or damaged.
        LabelMapError: its label map cannot be read.
    """
    labels = load_label_map(path / LABEL_MAP) if (path / LABEL_MAP).is_file() else None
    largest = 0
    with LmdbReader(path) as reader:
        records = len(reader)
        if labels is None:
            for _, (_, value) in zip(range(_SCANNED), reader, strict=False):
                largest = max(largest, _largest_label(value))
    return LmdbFacts(records, labels, largest)


def lmdb_counts(path: Path, classes: int) -> list[Count]:
    """The class count of an LMDB by its label map; without one, only where a label is `classes` or larger."""
    facts = lmdb_facts(path)
    if facts.labels is not None:
        return [Count("LMDB", path, len(facts.labels))]
    return [Count("LMDB, at least", path, facts.largest + 1)] if facts.largest >= classes else []


def refuse_disagreement(counts: Sequence[Count], hint: str = "") -> None:
    """Check that all class counts are the same.

    Raises:
        LabelMapError: they are not; all are listed.
    """
    if len({count.classes for count in counts}) > 1:
        listed = "".join(f"\n  {count.classes:5d}  {count.what}: {count.place}" for count in counts)
        raise LabelMapError(f"the class counts, background included, do not agree{hint}:{listed}")


class _Finder(NamedTuple):
    """Finds files by their relative paths in a training folder's files."""

    folder: Path
    beside: Path

    def __call__(self, name: str) -> Path:
        path = self.folder / name
        if path.exists() or self.beside == self.folder:
            return path
        return Path(os.path.normpath(self.beside / name))  # not resolved: `beside` may not exist yet


def _largest_label(value: bytes) -> int:
    from google.protobuf.message import DecodeError

    try:
        message = caffe_pb2.AnnotatedDatum.FromString(value)
    except DecodeError:
        return 0
    return max((group.group_label for group in message.annotation_group), default=0)


def _net(solver: Path, name: str, phase: Phase, find: _Finder) -> Net:
    path = find(name)
    if not path.is_file():
        raise PrototxtError(f"{solver} names {name}, which is missing")
    net = read_net(path)
    layers = [layer for layer in net.layer if in_phase(layer, net, phase)]
    lmdbs, labels, images = [], None, 0
    for layer in layers:
        if layer.type == "AnnotatedData":
            lmdbs.append(_lmdb(path, layer, find))
            labels = _label_map(path, layer, find) or labels
            images += lmdb_facts(lmdbs[-1]).records
        elif layer.type == "DetectionOutput":
            _check_output(path, layer, find)
    for layer in layers:
        if layer.type == "DetectionEvaluate":
            _check_name_size(path, layer, find, images)
    return Net(path, net, phase, tuple(lmdbs), labels, images)


def _lmdb(path: Path, layer: caffe_pb2.LayerParameter, find: _Finder) -> Path:
    source = layer.data_param.source
    found = find(source)
    if not source or not found.is_dir():
        raise DatasetError(
            f"{path} names the LMDB {source!r}, but there is no {found}; write it with `ssdlite-caffe lmdb`"
        )
    if not lmdb_facts(found).records:
        raise DatasetError(f"{path} names the LMDB {found}, which is empty")
    return found


def _label_map(path: Path, layer: caffe_pb2.LayerParameter, find: _Finder) -> LabelMap | None:
    name = layer.annotated_data_param.label_map_file
    if not name:
        return None
    if not find(name).is_file():
        raise LabelMapError(f"{path} names the label map {name!r}, but there is no {find(name)}")
    return load_label_map(find(name))


def _check_output(path: Path, layer: caffe_pb2.LayerParameter, find: _Finder) -> None:
    """Refuse a folder for detections that is not empty: Caffe would empty it."""
    name = layer.detection_output_param.save_output_param.output_directory
    if name and find(name).is_dir() and any(find(name).iterdir()):
        raise OutputError(
            f"{path} saves detections to {find(name)}, which is not empty, and Caffe would delete its files; give "
            f"save_output_param of layer {layer.name!r} a folder of its own"
        )


def _check_name_size(path: Path, layer: caffe_pb2.LayerParameter, find: _Finder, images: int) -> None:
    name = layer.detection_evaluate_param.name_size_file
    if not name:
        return
    if not find(name).is_file():
        raise DatasetError(f"{path} names the name_size_file {name!r}, but there is no {find(name)}")
    with find(name).open("rb") as stream:
        lines = sum(1 for line in stream if line.strip())
    if lines != images:
        raise DatasetError(f"{find(name)} has {lines} images and the LMDB of {path} {images}; write the LMDB again")


def _counts(net: Net) -> Iterator[Count]:
    """Class counts of a net, its label map and its LMDBs."""
    if net.labels is not None:
        yield Count("label map", net.path.parent / LABEL_MAP, len(net.labels))
    outputs = {layer.name: layer.convolution_param.num_output for layer in net.net.layer}
    predicted = predicted_classes(outputs)
    classes = predicted if net.labels is None else len(net.labels)
    for path in net.lmdbs:
        yield from lmdb_counts(path, classes or 0)
    for layer in net.net.layer:
        if in_phase(layer, net.net, net.phase):
            for field in ("multibox_loss_param", "detection_output_param", "detection_evaluate_param"):
                if layer.HasField(field):
                    yield Count(f"net, layer {layer.name}", net.path, getattr(layer, field).num_classes)
    if predicted is not None:
        yield Count("net, class predictors", net.path, predicted)


def _check_weights(train: Net, path: Path, *, finetune: bool) -> Sequence[Count]:
    """Class counts of weights; none with `finetune` where their class predictors will be skipped.

    Raises:
        PrototxtError: they do not fit the net, for another reason than their class count.
    """
    weights = read_caffemodel(path)
    outputs = {layer.name: blob_shape(layer.blobs[0])[0] for layer in weights.layer if layer.blobs}
    predicted = predicted_classes(outputs)
    wanted = predicted_classes({layer.name: layer.convolution_param.num_output for layer in train.net.layer})
    if predicted is not None and wanted is not None and predicted != wanted:
        if not finetune:
            return [Count("weights", path, predicted)]
        predicted = None
        weights = caffe_pb2.NetParameter(layer=[x for x in weights.layer if not x.name.endswith(PREDICTOR)])
    problems = misfits(train.net, weights)
    if problems:
        raise PrototxtError(f"{path} does not fit {train.path}:\n  " + "\n  ".join(problems))
    return [] if predicted is None else [Count("weights", path, predicted)]


def _check_names(net: Net) -> None:
    """Compare the class names of a net's label map with those of its LMDBs.

    Raises:
        LabelMapError: a label has different names.
    """
    for path in net.lmdbs:
        facts = lmdb_facts(path)
        if net.labels is None or facts.labels is None:
            continue
        for ours, theirs in zip(net.labels.entries, facts.labels.entries, strict=True):
            if ours.id and {ours.name, ours.display_name}.isdisjoint({theirs.name, theirs.display_name}):
                raise LabelMapError(
                    f"label {ours.id} is {ours.display_name!r} in the folder's label map and {theirs.display_name!r} "
                    f"in {path}; write the LMDB again with --label-map"
                )
