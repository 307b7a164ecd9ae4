"""How well default boxes match the objects of a data set: a class with few matches is learned late or never."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.data.lmdb_store import LmdbReader
from ssdlite_caffe.evaluation.average_precision import iou
from ssdlite_caffe.gen_model.netdesc import NetDesc
from ssdlite_caffe.gen_model.prior_boxes import caffe_prior_boxes
from ssdlite_caffe.prototxt import caffe_pb2

MATCHED = 0.5
"""Lowest IoU with an object at which MultiBoxLoss matches a default box to it: overlap_threshold."""
FEW = 0.1
"""Share of a class's objects with a match below which `kit` says so."""
SEEN = 1000
"""Images of an LMDB that are read: the first ones."""


def objects_by_label(lmdb: Path, images: int = SEEN) -> dict[int, FloatArray]:
    """Objects in the first images of an LMDB; records that cannot be parsed are skipped.

    Returns:
        label -> float64 (N, 4): xmin, ymin, xmax, ymax as fractions of the image.

    Raises:
        DatasetError: the LMDB is missing or damaged.
    """
    from google.protobuf.message import DecodeError

    found: dict[int, list[tuple[float, float, float, float]]] = defaultdict(list)
    with LmdbReader(lmdb) as reader:
        for _, (_, value) in zip(range(images), reader, strict=False):
            try:
                record = caffe_pb2.AnnotatedDatum.FromString(value)
            except DecodeError:
                continue
            for group in record.annotation_group:
                corners = [(box.xmin, box.ymin, box.xmax, box.ymax) for box in (item.bbox for item in group.annotation)]
                found[group.group_label] += corners
    return {label: np.asarray(boxes, np.float64) for label, boxes in sorted(found.items()) if boxes}


def matched_shares(net: NetDesc, objects: dict[int, FloatArray]) -> dict[int, float]:
    """For each label the share (0..1) of objects that a default box of the net overlaps with an IoU of MATCHED or more.

    Args:
        net: has the default boxes.
        objects: label -> (N, 4), as from `objects_by_label`.
    """
    boxes = np.concatenate([caffe_prior_boxes(m.prior, m.size, net.arch.input_size) for m in net.feature_maps])
    return {
        label: float(np.mean([iou(one[None], boxes).max() >= MATCHED for one in corners]))
        for label, corners in objects.items()
    }
