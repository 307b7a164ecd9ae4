"""Whether a folder's settings are the model's: preprocessing, box coder, scores and suppression.

A threshold of suppression that is a little off changes nothing in most images, and no layer's output at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.gen_model.dialect import DataPaths, Dialect
from ssdlite_caffe.gen_model.layers import DetectionOutput
from ssdlite_caffe.gen_model.lower import lower
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.text import read_net
from ssdlite_caffe.runtimes.model_folder import DEPLOY, ModelFolder

_OF_THE_MODEL = ("input_size", "num_classes", "pixel_mean", "pixel_scale", "variances", "score_converter")
_CORNER, _CENTER_SIZE = caffe_pb2.PriorBoxParameter.CORNER, caffe_pb2.PriorBoxParameter.CENTER_SIZE
_OF_NMS = ("iou_threshold", "max_per_class", "max_total", "clip_first", "keep_empty")


def other_settings(model: ArchSpec, folder: ModelFolder) -> list[str]:
    """What the folder's report or the end of its deploy net says otherwise than the model, as phrases.

    The score threshold may be another one, given to `convert`; the deploy net's must be that of the report.

    Args:
        model: the model's architecture, as `identify` found it.
        folder: the converted model.
    """
    return [*_report(model, folder.arch), *_deploy(folder)]


def _report(model: ArchSpec, folder: ArchSpec) -> Iterator[str]:
    for one, other, names in ((model, folder, _OF_THE_MODEL), (model.nms, folder.nms, _OF_NMS)):
        for name in names:
            wanted, found = getattr(one, name), getattr(other, name)
            if not _same(wanted, found):
                yield f"{name} of report.json is {found}, the model's {wanted}"


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal; numbers but for a unit in the last place of float32, in which graphs hold them."""
    if isinstance(one, str) or isinstance(other, str):
        return bool(one == other)
    return bool(np.allclose(one, other, rtol=2.4e-7, atol=0))


def _deploy(folder: ModelFolder) -> Iterator[str]:
    layers = [layer for layer in read_net(folder.deploy_prototxt).layer if layer.type == "DetectionOutput"]
    if len(layers) != 1:
        yield f"{DEPLOY} has {len(layers)} DetectionOutput layers, must have 1"
        return
    written = folder.written_as(DEPLOY)
    dialect, data = written if written is not None else (Dialect(), DataPaths())
    # Constant default boxes are what every model has, and DetectionOutput is the same with all.
    sections = lower(build(folder.arch), replace(dialect, priors="constant"), "deploy", data).sections
    wanted = next(x for section in sections for x in section.layers if isinstance(x, DetectionOutput))
    param = layers[0].detection_output_param
    pairs = (
        ("num_classes", param.num_classes, wanted.num_classes),
        ("background_label_id", param.background_label_id, 0),
        ("share_location", param.share_location, True),
        ("nms_threshold", param.nms_param.nms_threshold, wanted.nms_threshold),
        ("top_k", param.nms_param.top_k, wanted.top_k),
        ("keep_top_k", param.keep_top_k, wanted.keep_top_k),
        ("confidence_threshold", param.confidence_threshold, wanted.confidence_threshold),
        ("code_type", param.code_type, _CORNER if wanted.corners else _CENTER_SIZE),
    )
    for name, found, value in pairs:
        if np.float32(found) != np.float32(value):
            yield f"{name} of {DEPLOY} is {found:g}, must be {value:g}"
