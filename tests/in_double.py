"""Both sides in float64, where rounding no longer hides a wrong formula: TensorFlow's graph and the Caffe net.

In float32 a net of random weights amplifies rounding to some 1e-4 at its last layers, on either side. In float64 the
same two nets must agree far below that, and what is left is what the converted weights themselves say.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.load.own_boxes import caffe_order
from ssdlite_caffe.runtimes.decode import decode_boxes, split_priors
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.reference_net import ReferenceNet
from ssdlite_caffe.runtimes.resize import caffe_blob
from ssdlite_caffe.runtimes.tensorflow_detector import TensorFlowDetector

Array = npt.NDArray[np.float64]
Decoded = tuple[Array, Array]
"""Boxes (N, 4) xmin, ymin, xmax, ymax and scores (N, classes)."""

DECODED = ("Postprocessor/Decode/transpose_1", "Postprocessor/convert_scores")
"""The OD API's operations that hold the boxes, ymin, xmin, ymax, xmax, and scores of all default boxes."""
BLOBS = ("mbox_loc", "mbox_conf_flatten", "mbox_priorbox")
"""What the same are made of in a deploy net."""


def decoded_by_tensorflow(detector: TensorFlowDetector, inputs: list[npt.NDArray[np.float32]]) -> list[Decoded]:
    """Of network inputs (1, H, W, 3), in TensorFlow's order."""
    found = []
    with detector.in_double(DECODED) as graph:
        for fed in inputs:
            boxes, scores = graph.run(fed, DECODED).values()
            assert boxes.dtype == scores.dtype == np.float64
            found.append((boxes.reshape(-1, 4)[:, [1, 0, 3, 2]], scores.reshape(-1, scores.shape[-1])))
    return found


def decoded_by_caffe(folder: ModelFolder, inputs: list[npt.NDArray[np.float32]]) -> list[Decoded]:
    """Of network inputs (1, H, W, 3), in Caffe's order."""
    net = ReferenceNet(folder.deploy_prototxt, folder.deploy_caffemodel, double=True)
    found = []
    for fed in inputs:
        blobs = net.forward(caffe_blob(fed), BLOBS)
        assert {blob.dtype for blob in blobs.values()} == {np.dtype(np.float64)}
        boxes = decode_boxes(blobs["mbox_loc"], *split_priors(blobs["mbox_priorbox"]), np.float64)  # type: ignore[arg-type]
        found.append((boxes, blobs["mbox_conf_flatten"].reshape(len(boxes), -1)))
    return found


def box_order(folder: ModelFolder) -> npt.NDArray[np.intp]:
    """For each of Caffe's boxes the TensorFlow box that it is, (N,): a reordering within each cell."""
    order = caffe_order(build(folder.arch))
    assert np.array_equal(np.sort(order), np.arange(len(order)))
    return order
