"""What a device should give: every blob of a converted net, from TensorFlow's values of the model's layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.load.names import with_blobs_of
from ssdlite_caffe.load.own_boxes import code_limits
from ssdlite_caffe.prototxt.text import read_net
from ssdlite_caffe.runtimes.decode import choose_detections, clip_detections, convert_scores, decode_boxes, split_priors
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.reference_net import ReferenceNet
from ssdlite_caffe.runtimes.resize import caffe_blob
from ssdlite_caffe.runtimes.source_detector import RUNS_IN, SourceDetector
from ssdlite_caffe.tools.box_order import in_caffe_order
from ssdlite_caffe.tools.local_check import walk
from ssdlite_caffe.tools.reference_side import ReferenceSide
from ssdlite_caffe.tools.source import OpenedModel

Array = npt.NDArray[np.float64]

HEADS = ("mbox_loc", "mbox_conf", "mbox_priorbox")
"""Outputs of the headless net, in its order: box encodings, logits, default boxes with variances."""
SCORES = "mbox_conf_flatten"
"""The scores, of which the deploy net's DetectionOutput chooses."""


@dataclass(frozen=True)
class ImageValues:
    """The reference of one image.

    Attributes:
        fed: the network input (1, H, W, 3), RGB.
        blobs: final values of all blobs of the deploy net but detections, float64, the input among them.
        detections: of the model, clipped to the image.
        scored: the same with the score threshold of the converted net, as a device's are.
    """

    fed: FloatArray
    blobs: dict[str, Array]
    detections: Detections
    scored: Detections


class DeviceReference:
    """Computes the reference of one image after the other.

    Layers that the model has too are TensorFlow's own values. What lies between is computed from these in float64, in
    numpy, so a blob is never further than one layer from TensorFlow.
    """

    def __init__(self, opened: OpenedModel, folder: ModelFolder, running: SourceDetector) -> None:
        """Prepare both sides.

        Args:
            opened: the model that the folder was converted from.
            folder: the converted net.
            running: the model, running.
        """
        self.folder, self.arch = folder, folder.arch
        net = with_blobs_of(build(folder.arch), read_net(folder.deploy_prototxt))
        self.side = ReferenceSide(opened.model, opened.arch.nms, net, running)
        self.deploy = ReferenceNet(folder.deploy_prototxt, folder.deploy_caffemodel, double=True)

    @property
    def runs_in(self) -> str:
        """What runs the model."""
        return RUNS_IN.get(self.side.model.form, "TensorFlow")

    def image(self, image: npt.NDArray[np.uint8]) -> ImageValues:
        """The reference of an image, uint8 (H, W, 3), RGB."""
        return self.values(self.side.network_input(image))

    def values(self, fed: FloatArray) -> ImageValues:
        """The reference of a network input (1, H, W, 3)."""
        layers = self.side.layers(fed)
        net, scale = self.side.net, self.side.model.settings.logit_scale
        targets = {
            conv.top: in_caffe_order(net, conv, layers[conv.name], scale).astype(np.float64)
            for conv in net.convolutions
            if conv.role != "box_predictor"  # the net's have other default boxes folded in
        }
        blobs = walk(self.deploy, caffe_blob(fed), targets).blobs
        boxes, scores, _ = self.side.boxes(fed, layers)
        # A device's image has the net's size already, so boxes are fractions of that.
        detections, _ = self.side.detections(fed, boxes, scores, (fed.shape[1], fed.shape[2]))
        own, wanted = self.side.graph_nms.score_threshold, self.arch.nms.score_threshold
        scored = detections if own <= wanted else choose_detections(boxes, scores, self.arch.nms)
        return ImageValues(fed, blobs, clip_detections(detections), clip_detections(scored).above(wanted))

    def decode(self, loc: Array, priors: Array, *, logits: Array | None, scores: Array | None) -> Detections:
        """Detections of a net's raw outputs, with the converted net's NMS; boxes are clipped to the image.

        Args:
            loc: box encodings, N * 4 values.
            priors: default boxes and variances, 2 * N * 4 values.
            logits: N * C values; not needed with `scores`.
            scores: N * C values.
        """
        corners, variances = split_priors(_single(priors).reshape(1, 2, -1))
        boxes = decode_boxes(_single(loc), corners, variances, limits=code_limits(self.side.net, corners))
        if scores is None:
            assert logits is not None
            scores = convert_scores(logits.reshape(len(boxes), -1), self.arch.score_converter)
        return choose_detections(boxes, _single(scores).reshape(len(boxes), -1), self.arch.nms)


def _single(values: npt.NDArray[Any]) -> FloatArray:
    return np.asarray(values, np.float32)
