"""Extracting the detector from a graph, and errors that say what was found in a graph that is not a detector."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump.detector.affine import Constants
from ssdlite_caffe.dump.detector.image_check import check_preprocessing
from ssdlite_caffe.dump.detector.keras_scopes import EXTRACTOR, EXTRACTOR_END, EXTRACTORS
from ssdlite_caffe.dump.detector.postprocessing import check_post_processing
from ssdlite_caffe.dump.detector.settings import settings_from_graph
from ssdlite_caffe.dump.detector.units import Units, find_units, refuse_quantised
from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from ssdlite_caffe.dump.graph.view import VARIABLES, Graph, Node
from ssdlite_caffe.dump.model import Settings
from ssdlite_caffe.errors import ModelError, TensorError

_BACKBONE = re.compile(r"^FeatureExtractor/MobilenetV[123](?:/|$)")
_HEAD = re.compile(r"^BoxPredictor_\d+/(BoxEncodingPredictor|ClassPredictor)$")
_LISTED = 12
_OTHER_NETS = (
    (re.compile(r"FeatureExtractor/(?:MobilenetEdgeTPU|MobileDet\w*|SpaghettiNet\w*)(?=/)"), "another backbone"),
    (re.compile(r"FeatureExtractor/(?:\w+/)?(?:fpn|MnasFPN)(?=/)"), "a feature pyramid (FPN)"),
    (re.compile(r"WeightSharedConvolutionalBoxPredictor"), "predictors that are shared by the feature maps"),
)
"""Detectors of the Object Detection API that are not read: MobileDet, EdgeTPU; FPN, FPNLite, MnasFPN; PPN."""
WANTED = "FeatureExtractor/MobilenetV1, V2 or V3 and BoxPredictor_<n>/BoxEncodingPredictor and ClassPredictor"


def require_detector(source: str, scopes: Iterable[str]) -> None:
    """Check that the scopes are those of an SSD MobileNet.

    Raises:
        ModelError: they are not; the text says what was found.
    """
    listed = list(scopes)
    backbone = any(_BACKBONE.match(scope) for scope in listed)
    heads = {match.group(1) for scope in listed if (match := _HEAD.match(scope))}
    if backbone and len(heads) == 2:
        return
    found = _summary(listed)
    if not listed:
        problem = "it holds no convolution"
    elif backbone and not heads:
        problem = f"it has no box predictors (found {found})"
    elif backbone:
        problem = f"its box predictors have only {next(iter(heads))} (found {found})"
    elif heads:
        problem = f"its backbone is not a MobileNet (found {found})"
    else:
        problem = f"it has neither a MobileNet backbone nor box predictors (found {found})"
    raise ModelError(f"{source} is not an SSD MobileNet: {problem}; it must have {WANTED}")


def _summary(scopes: list[str]) -> str:
    """The first part of each scope, or the first two of a feature extractor's, without repetitions."""
    parts = (scope.split("/") for scope in scopes)
    heads = ("/".join(p[:2]) if p[0].endswith("FeatureExtractor") else p[0] for p in parts)
    seen = list(dict.fromkeys(heads))
    return ", ".join(seen[:_LISTED]) + (f" and {len(seen) - _LISTED} more" if len(seen) > _LISTED else "")


def require_finite(source: str, tensors: Mapping[str, FloatArray]) -> None:
    """Check that no tensor has NaN or Inf.

    Raises:
        TensorError: one has; all are named.
    """
    bad = []
    for name, value in tensors.items():
        wrong = value.size - int(np.count_nonzero(np.isfinite(value)))
        if wrong:
            bad.append(f"{name} ({wrong} of {value.size})")
    if bad:
        raise TensorError(f"{source} holds NaN or Inf in {len(bad)} tensors: {', '.join(bad)}")


def refuse_other_nets(graph: Graph) -> None:
    """Refuse a detector of the Object Detection API with another net; of TensorFlow 2's, FPNLite is read.

    Raises:
        ModelError: a scope of such a net is in the graph.
    """
    names = "\n".join(node.name for node in graph)  # most graphs have no such name, which one search in all tells
    keras = None
    if EXTRACTOR_END in names:
        keras = next((match.group(1) for node in graph if (match := EXTRACTOR.search(node.name))), None)
    if keras is not None:
        if keras not in EXTRACTORS:
            raise ModelError(
                f"{graph.source} is a detector of TensorFlow 2 that is not read ({keras}); "
                f"{' and '.join(EXTRACTORS.values())} are"
            )
        return
    for pattern, what in _OTHER_NETS:
        found = pattern.search(names)
        if found is not None:
            raise ModelError(
                f"{graph.source} is not an SSD MobileNet of a kind read here: it has {what} ({found.group(0)})"
            )


class Parts(NamedTuple):
    """What a graph consists of.

    Attributes:
        units: its convolutions.
        settings: see Settings.
        skipped: unused weight -> reason.
        notes: sentences for the user about what could not be checked.
    """

    units: Units
    settings: Settings
    skipped: dict[str, str]
    notes: tuple[str, ...]


def take_apart(graph: Graph) -> Parts:
    """Convolutions, settings and unused weights of a graph.

    Raises:
        ModelError: it is not an SSD MobileNet, or one of a kind that is not read; or it does something to images or
            behind its predictors that is not in its settings.
        TensorError: a weight is NaN or Inf.
    """
    refuse_quantised(graph)
    refuse_other_nets(graph)
    constants = Constants.of(graph)
    units = find_units(constants)
    require_detector(graph.source, (unit.scope for unit in units.units))
    require_finite(graph.source, units.tensors)
    settings, skipped = settings_from_graph(constants, units), left_over(graph, constants)
    notes = (*check_preprocessing(constants, settings), *check_post_processing(constants, settings, units.ends))
    return Parts(units, settings, skipped, notes)


def left_over(graph: Graph, constants: Constants) -> dict[str, str]:
    """Weights in the detector's scopes that no convolution reads, with the reason."""
    holders = VARIABLES if any(node.op in VARIABLES for node in graph) else {"Const"}
    names = (node.name for node in graph if node.op in holders and _is_weight(node))
    return {name: "no convolution reads it" for name in names if not constants.has_computed(name)}


def _is_weight(node: Node) -> bool:
    if not node.name.startswith(("FeatureExtractor/", "BoxPredictor_")):
        return False
    tensor = node.attr_tensor()
    return tensor is None or (tensor.dtype == pb.DT_FLOAT and len(tensor.tensor_shape.dim) > 0)
